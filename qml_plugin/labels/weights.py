"""Sample weights of labels whose intervals overlap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qml_plugin.errors import DataError
from qml_plugin.records import FloatArray, IntArray


def average_uniqueness(
    known_at: IntArray, resolved_at: IntArray, group: Sequence[str] | NDArray[np.str_]
) -> FloatArray:
    """Average uniqueness of each event: how much of its label it shares with no other.

    Parameters
    ----------
    known_at, resolved_at : ndarray of shape (n_events,), int64, UTC microseconds
        The interval of each label; any order.
    group : sequence of n_events str
        Events of different groups (such as ``"EURUSD|1h"``) do not overlap.

    Returns
    -------
    ndarray of shape (n_events,), 0 < value <= 1
        Time average over the event's interval of one over the number of labels open at that moment. An event of no
        length gets one over the number of labels, of any length and ends included, that cover its moment; it takes
        no time from the others. The sum is the effective number of labels.

    Point in time
    -------------
    Reads all rows given: pass only outcomes already known.

    Raises
    ------
    DataError
        If lengths differ or an event resolves before it is known.

    Cost
    ----
    O(n_events log n_events) time.

    References
    ----------
    López de Prado (2018), Advances in Financial Machine Learning, §4.3-4.4; differs in: continuous time, not bars.
    """
    known_at = np.asarray(known_at, dtype=np.int64)
    resolved_at = np.asarray(resolved_at, dtype=np.int64)
    groups = np.asarray(group, dtype=np.str_)
    if not known_at.shape == resolved_at.shape == groups.shape:
        raise DataError(
            f"got {len(known_at)} known_at, {len(resolved_at)} resolved_at and {len(groups)} groups. "
            "Each event needs all three."
        )
    early = np.flatnonzero(resolved_at < known_at)
    if len(early):
        raise DataError(
            f"event {early[0]} resolves at {resolved_at[early[0]]}, before it is known at {known_at[early[0]]}. "
            "resolved_at >= known_at must hold; check the two columns."
        )
    uniqueness = np.empty(len(known_at))
    _, member_of = np.unique(groups, return_inverse=True)
    by_group = np.argsort(member_of, kind="stable")
    for rows in np.split(by_group, np.flatnonzero(np.diff(member_of[by_group])) + 1):
        uniqueness[rows] = _uniqueness(known_at[rows], resolved_at[rows])
    return uniqueness


def _uniqueness(begin: IntArray, end: IntArray) -> FloatArray:
    """Average uniqueness within one group."""
    begins, ends = np.sort(begin), np.sort(end)
    edges = np.unique(np.concatenate([begin, end]))
    # Instants are closed on both sides; an event without length cancels itself out of the count over segments.
    open_at_segment = np.searchsorted(begins, edges[:-1], "right") - np.searchsorted(ends, edges[:-1], "right")
    # Shared time rather than unique time is summed, so that an event alone gets exactly 1.
    shared = np.diff(edges) * (1 - 1 / np.maximum(open_at_segment, 1))
    cumulative = np.concatenate([[0.0], np.cumsum(shared)])
    shared_time = cumulative[np.searchsorted(edges, end)] - cumulative[np.searchsorted(edges, begin)]
    covering = np.searchsorted(begins, begin, "right") - np.searchsorted(ends, begin, "left")
    length = end - begin
    uniqueness = np.where(length > 0, 1 - shared_time / np.maximum(length, 1), 1 / covering)
    return np.clip(uniqueness, 1 / max(len(begin), 1), 1)
