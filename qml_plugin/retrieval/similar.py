"""The past patterns nearest to one pattern, asked once: for people, not for a walk through a series."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qml_plugin.clock import isoformat
from qml_plugin.errors import RetrievalError
from qml_plugin.records import KnownPatterns, Neighbour
from qml_plugin.retrieval.scaler import Scaler
from qml_plugin.retrieval.store import VectorStore


def similar_patterns(
    known: KnownPatterns,
    features: NDArray[np.float32],
    groups: Sequence[str],
    *,
    side: int,
    as_of: int,
    k: int = 10,
) -> tuple[Neighbour, ...]:
    """Nearest resolved patterns of the same side, nearest first.

    Parameters
    ----------
    known : KnownPatterns
    features : ndarray of shape (n_features,), float32
        Features of the pattern asked about, in the order of `known`; NaN is missing.
    groups : sequence of str, length n_features
        Category of each feature; a category counts like one feature.
    side : {+1, -1}
    as_of : int, UTC microseconds
        The moment of the question.
    k : int, default=10

    Returns
    -------
    tuple of Neighbour
        Fewer than `k` where fewer are known; empty where none are.

    Point in time
    -------------
    Scaler and search read patterns with ``resolved_at <= as_of`` only.

    Raises
    ------
    RetrievalError
        If `features` has another width than `known`.
    """
    if features.shape != (known.features.shape[1],):
        raise RetrievalError(
            f"a query of shape {features.shape} was asked of patterns with {known.features.shape[1]} features "
            f"as of {isoformat(as_of)}. Both must hold the same feature set; register the pattern again."
        )
    n_resolved = int(np.searchsorted(known.resolved_at, as_of, side="right"))
    rows = np.flatnonzero(known.side[:n_resolved] == side)
    if len(rows) == 0:
        return ()
    scaler = Scaler.fit(known.features[:n_resolved], groups)
    store = VectorStore(known.features.shape[1])
    store.add(scaler.transform(known.features[rows]), ids=rows, resolved_at=known.resolved_at[rows])
    hits = store.search(scaler.transform(features[None, :])[0], as_of=as_of, k=k)
    return tuple(
        Neighbour(
            pattern_id=known.pattern_id[row],
            distance=float(distance),
            resolved_at=int(known.resolved_at[row]),
            is_win=bool(known.is_win[row]),
            r_multiple=float(known.r_multiple[row]),
        )
        for row, distance in zip(hits.ids, hits.distances, strict=True)
    )
