"""Splits of labelled events in time, purged by the true interval of each label."""

from __future__ import annotations

import numpy as np

from qml_plugin.errors import DataError
from qml_plugin.records import IntArray


def purged_walk_forward(known_at: IntArray, resolved_at: IntArray, n_splits: int) -> list[tuple[IntArray, IntArray]]:
    """Rows to train on and rows to test on, for each of successive test blocks.

    Parameters
    ----------
    known_at : ndarray of shape (n_events,), int64, UTC microseconds
        When each event was decided upon; any order.
    resolved_at : ndarray of shape (n_events,), int64, UTC microseconds
        When its outcome became known.
    n_splits : int, >= 1
        Number of test blocks.

    Returns
    -------
    list of n_splits pairs (train_rows, test_rows), int64
        Positions in the arrays given, each in order of `known_at` (ties by position). The first
        ``n_events // (n_splits + 1)`` events are only ever trained on; the rest are cut into contiguous test blocks
        of nearly equal count. A training set may be empty where every earlier label was still open.

    Point in time
    -------------
    The training rows of a block were decided before it and resolved strictly before its first event was decided.
    Nothing after a block is trained on, so no embargo is needed.

    Raises
    ------
    DataError
        If the lengths differ, an event resolves before it is known, or there are too few events for `n_splits`.

    References
    ----------
    López de Prado (2018), Advances in Financial Machine Learning, §7.4.1 (purging); differs in: training rows come
    from the past only.
    """
    known_at = np.asarray(known_at, dtype=np.int64)
    resolved_at = np.asarray(resolved_at, dtype=np.int64)
    n_events = len(known_at)
    if known_at.shape != resolved_at.shape:
        raise DataError(
            f"known_at has {n_events} events and resolved_at {len(resolved_at)}. Each event needs both times."
        )
    if n_splits < 1 or n_events < n_splits + 1:
        raise DataError(
            f"{n_events} events cannot be cut into {n_splits} test blocks. At least one block and n_splits + 1 events "
            "are needed; ask for fewer blocks or bring more events."
        )
    early = np.flatnonzero(resolved_at < known_at)
    if len(early):
        raise DataError(
            f"event {early[0]} resolves at {resolved_at[early[0]]}, before it is known at {known_at[early[0]]}. "
            "resolved_at >= known_at must hold; check the two columns."
        )
    order = np.argsort(known_at, kind="stable").astype(np.int64)
    first = n_events // (n_splits + 1)
    splits = []
    for block in np.array_split(np.arange(first, n_events), n_splits):
        past, test = order[: block[0]], order[block]
        splits.append((past[resolved_at[past] < known_at[test[0]]], test))
    return splits
