"""Splits of labelled events in time, purged by the true interval of each label."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import ArrayLike

from qml_plugin.errors import DataError
from qml_plugin.records import IntArray

_MOST_SPLITS = 10_000


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
    known_at, resolved_at = _checked(known_at, resolved_at)
    n_events = len(known_at)
    if n_splits < 1 or n_events < n_splits + 1:
        raise DataError(
            f"{n_events} events cannot be cut into {n_splits} test blocks. At least one block and n_splits + 1 events "
            "are needed; ask for fewer blocks or bring more events."
        )
    order = np.argsort(known_at, kind="stable").astype(np.int64)
    first = n_events // (n_splits + 1)
    splits = []
    for block in np.array_split(np.arange(first, n_events), n_splits):
        past, test = order[: block[0]], order[block]
        splits.append((past[resolved_at[past] < known_at[test[0]]], test))
    return splits


class PurgedWalkForward:
    """Walk-forward splits for scikit-learn, purged by the true interval of each label.

    Parameters
    ----------
    known_at, resolved_at : ndarray of shape (n_events,), int64, UTC microseconds
        The interval of each label, row by row of the X that is split; any order.
    n_splits : int, >= 1, default=5
        Number of test blocks.

    Point in time
    -------------
    As `purged_walk_forward`: training labels resolved strictly before the first event of the test block was decided.

    Raises
    ------
    DataError
        As `purged_walk_forward`, and where X does not have one row per event.

    Examples
    --------
    >>> import numpy as np
    >>> splits = PurgedWalkForward(np.arange(6), np.arange(6) + 1, n_splits=2)
    >>> [(train.tolist(), test.tolist()) for train, test in splits.split()]
    [([0], [2, 3]), ([0, 1, 2], [4, 5])]
    """

    def __init__(self, known_at: IntArray, resolved_at: IntArray, n_splits: int = 5) -> None:
        self.known_at, self.resolved_at = _checked(known_at, resolved_at)
        self.n_splits = n_splits
        self._splits = purged_walk_forward(self.known_at, self.resolved_at, n_splits)

    def split(
        self, X: ArrayLike | None = None, y: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> Iterator[tuple[IntArray, IntArray]]:
        """Pairs of training rows and test rows; `X` is only counted, `y` and `groups` are not looked at."""
        _refuse_other_length(X, len(self.known_at))
        yield from self._splits

    def get_n_splits(
        self, X: ArrayLike | None = None, y: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> int:
        """Number of splits."""
        return self.n_splits


class CombinatorialPurgedCV:
    """Every choice of test blocks among all, purged by the true interval of each label, for scikit-learn.

    Parameters
    ----------
    known_at, resolved_at : ndarray of shape (n_events,), int64, UTC microseconds
        The interval of each label, row by row of the X that is split; any order.
    n_blocks : int, >= 2, default=6
        Contiguous blocks in order of ``known_at``, of nearly equal count.
    n_test_blocks : int, default=2
        How many of them each split tests.
    embargo : int, microseconds, >= 0, default=0
        Events decided less than this after the last label of a test block resolved are not trained on: features that
        look back would see the block.

    Point in time
    -------------
    Trains on the future of the test blocks on purpose: it shows how results vary, not what was known at the time. No
    training label overlaps, ends included, the span of a contiguous run of test blocks, from its first decision to the
    last resolution of its labels. For decisions use `PurgedWalkForward`.

    Raises
    ------
    DataError
        If the lengths differ, an event resolves before it is known, a count is impossible, or there would be more than
        10,000 splits.

    References
    ----------
    López de Prado (2018), Advances in Financial Machine Learning, §7.4 (purging, embargo) and §12.4 (paths).
    """

    def __init__(
        self, known_at: IntArray, resolved_at: IntArray, n_blocks: int = 6, n_test_blocks: int = 2, embargo: int = 0
    ) -> None:
        self.known_at, self.resolved_at = _checked(known_at, resolved_at)
        self.n_blocks, self.n_test_blocks, self.embargo = n_blocks, n_test_blocks, embargo
        n_events = len(self.known_at)
        if not (2 <= n_blocks <= n_events and 1 <= n_test_blocks < n_blocks and embargo >= 0):
            raise DataError(
                f"{n_test_blocks} of {n_blocks} blocks of {n_events} events with embargo {embargo} refused. There must "
                "be 2 blocks or more and an event for each, fewer test blocks than blocks, and no negative embargo."
            )
        if comb(n_blocks, n_test_blocks) > _MOST_SPLITS:
            raise DataError(
                f"{n_test_blocks} of {n_blocks} blocks make {comb(n_blocks, n_test_blocks)} splits, more than "
                f"{_MOST_SPLITS}. Each is one fit; ask for fewer blocks, or for fewer of them to test."
            )
        order = np.argsort(self.known_at, kind="stable").astype(np.int64)
        self._blocks = np.array_split(order, n_blocks)

    def split(
        self, X: ArrayLike | None = None, y: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> Iterator[tuple[IntArray, IntArray]]:
        """Pairs of training rows and test rows; `X` is only counted, `y` and `groups` are not looked at."""
        _refuse_other_length(X, len(self.known_at))
        for chosen in combinations(range(self.n_blocks), self.n_test_blocks):
            is_trained = np.ones(len(self.known_at), dtype=np.bool_)
            for run in _runs(chosen):
                rows = np.concatenate([self._blocks[block] for block in run])
                first, last = self.known_at[rows].min(), self.resolved_at[rows].max()
                is_trained &= (self.resolved_at < first) | (self.known_at > last + self.embargo)
                is_trained[rows] = False
            order = np.concatenate(self._blocks)
            yield order[is_trained[order]], np.concatenate([self._blocks[block] for block in chosen])

    def get_n_splits(
        self, X: ArrayLike | None = None, y: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> int:
        """Number of splits: one for each choice of test blocks."""
        return comb(self.n_blocks, self.n_test_blocks)

    def paths(self) -> IntArray:
        """Which split tests each block on each path through all of them.

        Returns
        -------
        ndarray of shape (n_paths, n_blocks), int64
            Row p names, block by block, the split whose predictions make up path p; each test of a block is used once.
        """
        splits = list(combinations(range(self.n_blocks), self.n_test_blocks))
        by_block = [[i for i, chosen in enumerate(splits) if block in chosen] for block in range(self.n_blocks)]
        return np.array(by_block, dtype=np.int64).T


def _runs(chosen: tuple[int, ...]) -> list[list[int]]:
    """Chosen blocks in contiguous runs."""
    runs: list[list[int]] = []
    for block in chosen:
        if runs and runs[-1][-1] == block - 1:
            runs[-1].append(block)
        else:
            runs.append([block])
    return runs


def _checked(known_at: IntArray, resolved_at: IntArray) -> tuple[IntArray, IntArray]:
    """The interval of each label, refused where it cannot be one."""
    known_at, resolved_at = np.asarray(known_at, dtype=np.int64), np.asarray(resolved_at, dtype=np.int64)
    if known_at.shape != resolved_at.shape:
        raise DataError(
            f"known_at has {len(known_at)} events and resolved_at {len(resolved_at)}. Each event needs both times."
        )
    early = np.flatnonzero(resolved_at < known_at)
    if len(early):
        raise DataError(
            f"event {early[0]} resolves at {resolved_at[early[0]]}, before it is known at {known_at[early[0]]}. "
            "resolved_at >= known_at must hold; check the two columns."
        )
    return known_at, resolved_at


def _refuse_other_length(X: ArrayLike | None, n_events: int) -> None:
    n_rows = n_events if X is None else np.shape(X)[0]
    if n_rows != n_events:
        raise DataError(
            f"X has {n_rows} rows and the splitter {n_events} events. Each row needs its times; make a splitter of "
            "the rows that are split."
        )
