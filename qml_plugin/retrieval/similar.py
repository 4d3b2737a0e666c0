"""The past patterns nearest to one pattern, asked once: for people, not for a walk through a series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from qml_plugin.clock import isoformat
from qml_plugin.errors import RetrievalError
from qml_plugin.records import FloatArray, IntArray, KnownPatterns, Neighbour
from qml_plugin.retrieval.filters import Filters
from qml_plugin.retrieval.scaler import Scaler
from qml_plugin.retrieval.store import VectorStore


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """Rows of the known patterns: ``rows`` of the nearest with their ``distances``, nearest first; ``eligible`` ascending."""

    rows: IntArray
    distances: FloatArray
    eligible: IntArray


def nearest_known(
    known: KnownPatterns,
    features: NDArray[np.float32],
    groups: Sequence[str],
    *,
    as_of: int,
    k: int,
    columns: Mapping[str, Sequence[Any] | NDArray[Any]] | None = None,
    among: NDArray[np.bool_] | None = None,
    **filters: Unpack[Filters],
) -> Nearest:
    """The k nearest of the resolved patterns that meet the filters, and all that do.

    Parameters
    ----------
    known : KnownPatterns
    features : ndarray of shape (n_features,), float32
        Features of the pattern asked about, in the order of `known`; NaN is missing.
    groups : sequence of str, length n_features
        Category of each feature; a category counts like one feature.
    as_of : int, UTC microseconds
        The moment of the question.
    k : int, >= 1
    columns : mapping of str to array of shape (n_patterns,), optional
        What `known` does not hold and a filter needs: ``symbol``, ``timeframe``, ``pattern_type``, ``bar``.
    among : ndarray of shape (n_patterns,), bool, optional
        Only these may be chosen.
    **filters
        As for `VectorStore.search`. ``apart_bars`` chooses among the eligible and does not make fewer of them.

    Returns
    -------
    Nearest
        Fewer than `k` rows where fewer are known; none where none are.

    Point in time
    -------------
    Scaler and search read patterns with ``resolved_at <= as_of`` only. The scaler reads all of them, whatever the
    filters, so that distances of one moment can be compared.

    Raises
    ------
    RetrievalError
        If `features` has another width than `known`, or a filter is wrong.
    """
    if features.shape != (known.features.shape[1],):
        raise RetrievalError(
            f"a query of shape {features.shape} was asked of patterns with {known.features.shape[1]} features "
            f"as of {isoformat(as_of)}. Both must hold the same feature set; register the pattern again."
        )
    n_resolved = int(np.searchsorted(known.resolved_at, as_of, side="right"))
    rows = np.arange(n_resolved) if among is None else np.flatnonzero(among[:n_resolved])
    store = VectorStore(known.features.shape[1])
    query = np.zeros(len(features), np.float32)
    if len(rows):
        scaler = Scaler.fit(known.features[:n_resolved], groups)
        query = scaler.transform(features[None, :])[0]
        given: dict[str, Any] = {name: np.asarray(column)[rows] for name, column in (columns or {}).items()}
        store.add(
            scaler.transform(known.features[rows]), ids=rows, resolved_at=known.resolved_at[rows], side=known.side[rows],
            **given,
        )  # fmt: skip
    hits = store.search(query, as_of=as_of, k=k, **filters)
    filters["apart_bars"] = None
    every = store.search(query, as_of=as_of, k=max(len(rows), 1), **filters)
    return Nearest(hits.ids.astype(np.int64), hits.distances, np.sort(every.ids.astype(np.int64)))


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
    known, features, groups, as_of, k
        As for `nearest_known`.
    side : {+1, -1}

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
    found = nearest_known(known, features, groups, as_of=as_of, k=k, side=side)
    return tuple(
        Neighbour(
            pattern_id=known.pattern_id[row],
            distance=float(distance),
            resolved_at=int(known.resolved_at[row]),
            is_win=bool(known.is_win[row]),
            r_multiple=float(known.r_multiple[row]),
        )
        for row, distance in zip(found.rows, found.distances, strict=True)
    )
