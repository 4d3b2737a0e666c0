"""The rows nearest to one query, exactly: candidates in single precision, proved complete, measured in double."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qml_plugin.records import FloatArray, IntArray
from qml_plugin.retrieval.blocks import Block
from qml_plugin.retrieval.kernels import Float32Array, candidate_distances

if TYPE_CHECKING:
    from qml_plugin.retrieval.tiers import Segment

SLACK = 16  # candidates beyond k: rounding and ties rarely need more

_ROWS_AT_ONCE = 32_768
_WIDER = 8
# Below this share of wanted rows, copying them out is faster than skipping the others.
_FEW = 0.1
_SINGLE = np.finfo(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Rows to choose from: ``low <= row < high`` of a block, or those of ``rows``, ascending, where it is given.

    Where there is a ``segment``, it holds all of them and is searched in their place.
    """

    block: Block
    low: int
    high: int
    rows: IntArray | None = None
    segment: Segment | None = None

    def __len__(self) -> int:
        return self.high - self.low if self.rows is None else len(self.rows)

    @property
    def vectors(self) -> Float32Array:
        """All vectors of the block that the rows count in."""
        return self.block.columns["vectors"]

    def chunks(self) -> Iterator[Piece]:
        """The same rows, a few at a time, newest first; a segment is one chunk."""
        if self.segment is not None:
            yield self
            return
        for end in range(len(self), 0, -_ROWS_AT_ONCE):
            start = max(end - _ROWS_AT_ONCE, 0)
            if self.rows is None:
                yield replace(self, low=self.low + start, high=self.low + end)
            else:
                yield replace(self, rows=self.rows[start:end])

    @property
    def last_resolved_at(self) -> int:
        """When the newest of the rows became known."""
        return int(self.block.columns["resolved_at"][self.high - 1 if self.rows is None else self.rows[-1]])


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Rows that may be among the nearest: some of each piece, one piece after the other, and how far each row is.

    Every row of these pieces that is not among them has a squared distance of at least ``floor``.
    """

    pieces: Sequence[Piece]
    rows: Sequence[IntArray]
    squared: FloatArray
    floor: float

    def taken(self, name: str) -> NDArray[Any]:
        """A column of the candidates."""
        parts = [piece.block.columns[name][rows] for piece, rows in zip(self.pieces, self.rows, strict=True)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def series(self) -> IntArray:
        """A number for the symbol and timeframe of each candidate."""
        numbers: dict[tuple[str, str], int] = {}
        keys = [(piece.block.symbol, piece.block.timeframe) for piece in self.pieces]
        return np.repeat([numbers.setdefault(key, len(numbers)) for key in keys], [len(rows) for rows in self.rows])


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """The ids and squared distances of the nearest rows, and how many rows were looked at."""

    ids: NDArray[Any]
    squared: FloatArray
    n_scanned: int


def nearest(
    pieces: Sequence[Piece], query: Float32Array, k: int, apart_bars: int | None, deadline_s: float | None
) -> Nearest:
    """The k nearest rows of the pieces, ordered by distance and id.

    Parameters
    ----------
    pieces : sequence of Piece
    query : ndarray of shape (width,), float32
    k : int, >= 1
    apart_bars : int, optional
        Of rows of one block so few bars apart, the nearest stands for all.
    deadline_s : float, seconds, optional
        When to stop. At least one chunk of rows is looked at, and what is returned is exact for the rows that were.

    Returns
    -------
    Nearest
    """
    stop_at = None if deadline_s is None else time.perf_counter() + deadline_s
    if stop_at is not None:
        chunks = [chunk for piece in pieces for chunk in piece.chunks()]
        pieces = sorted(chunks, key=lambda chunk: -chunk.last_resolved_at)
    n_wanted = k + SLACK if apart_bars is None else 4 * k + SLACK
    while pieces:
        found = _scan(pieces, query, n_wanted, stop_at)
        pieces, ids = found.pieces, found.taken("ids")
        where = (None, None) if apart_bars is None else (found.taken("bar"), found.series())
        best = chosen(found.squared, ids, k, apart_bars, *where)
        is_sure = found.squared[best] < found.floor
        is_late = stop_at is not None and time.perf_counter() > stop_at
        if found.floor == np.inf or (len(best) == k and is_sure.all()) or is_late:
            best = best[is_sure]
            return Nearest(ids[best], found.squared[best], sum(map(len, pieces)))
        n_wanted *= _WIDER
        pieces = [replace(piece, segment=None) for piece in pieces]
    return Nearest(np.empty(0, np.int64), np.empty(0), 0)


def chosen(
    squared: FloatArray,
    ids: NDArray[Any],
    k: int,
    apart_bars: int | None,
    bars: IntArray | None,
    series: IntArray | None,
) -> IntArray:
    """Places of the first k candidates by distance and id, leaving out those that overlap with a nearer one."""
    order = np.argsort(squared, kind="stable")
    ascending = squared[order]
    if (ascending[1:] == ascending[:-1]).any():
        order = np.array(sorted(order, key=lambda place: (squared[place], ids[place])), np.int64)
    if apart_bars is None or bars is None or series is None:
        return order[:k]
    kept: list[int] = []
    for place in order.tolist():
        overlaps = [
            abs(int(bars[place]) - int(bars[other])) <= apart_bars for other in kept if series[place] == series[other]
        ]
        if not any(overlaps):
            kept.append(place)
            if len(kept) == k:
                break
    return np.array(kept, np.int64)


def floor_of(single: float, width: int) -> float:
    """The least that a squared distance can be whose sum in single precision was `single` or more.

    Sums of squares of float32 are off by at most this factor, whatever the order of summation.
    """
    return single * (1 - (width + 4) * float(_SINGLE.eps)) - width * float(_SINGLE.tiny)


@contextmanager
def one_thread() -> Iterator[None]:
    """One OpenMP thread inside the block: a thread team costs more than a search."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _scan(pieces: Sequence[Piece], query: Float32Array, n_wanted: int, stop_at: float | None) -> Candidates:
    """Candidates of each piece in turn, for as long as there is time."""
    found: list[IntArray] = []
    distances: list[FloatArray] = []
    floor, slowest, before = np.inf, 0.0, time.perf_counter()
    with one_thread():
        for piece in pieces:
            rows, least = _candidates(piece, query, n_wanted)
            squared = np.empty(len(rows))
            candidate_distances(piece.vectors, 0, query[None], rows[None], squared[None])
            found.append(rows)
            distances.append(squared)
            floor = min(floor, least)
            if stop_at is not None:
                now = time.perf_counter()
                slowest, before = max(slowest, now - before), now
                if now + slowest > stop_at:
                    break
    squared = distances[0] if len(distances) == 1 else np.concatenate(distances)
    return Candidates(pieces[: len(found)], found, squared, floor)


def _candidates(piece: Piece, query: Float32Array, n_wanted: int) -> tuple[IntArray, float]:
    """About `n_wanted` rows near the query, and the least squared distance of any other row of the piece."""
    if len(piece) <= n_wanted:
        return np.arange(piece.low, piece.high) if piece.rows is None else piece.rows, np.inf
    if piece.segment is not None:
        return _of_segment(piece.segment, piece.low, query, n_wanted)
    import faiss

    vectors = piece.vectors[piece.low : piece.high]
    if piece.rows is None:
        single, found = faiss.knn(query[None], vectors, n_wanted)
        rows = found[0] + piece.low
    elif len(piece) < _FEW * len(vectors):
        single, found = faiss.knn(query[None], piece.vectors[piece.rows], n_wanted)
        rows = np.where(found[0] < 0, -1, piece.rows[found[0]])
    else:
        single, found = _selected(query, vectors, piece.rows - piece.low, n_wanted)
        rows = found[0] + piece.low
    last = float(single[0, -1])  # they are ascending
    if found[0, -1] >= 0 and np.isfinite(last):
        return rows, floor_of(last, len(query))
    # Beyond the range of float32 nothing is found and nothing is known of the others.
    return rows[(found[0] >= 0) & np.isfinite(single[0])], -np.inf


def _of_segment(segment: Segment, low: int, query: Float32Array, n_wanted: int) -> tuple[IntArray, float]:
    """As `_candidates`, by an index; what it may have missed is not in the bound."""
    single, rows = segment.nearest(query, low, n_wanted)
    if not segment.is_exact:
        return rows[rows >= 0], np.inf
    if (rows < 0).any() or not np.isfinite(single[-1]):
        return rows[rows >= 0], -np.inf
    # A row lies no nearer than its copy, less the way between the two.
    distance = np.sqrt(max(floor_of(float(single[-1]), len(query)), 0.0)) - segment.farthest
    return rows, max(distance, 0.0) ** 2 * (1 - 4 * float(np.finfo(np.float64).eps))


def _selected(
    query: Float32Array, vectors: Float32Array, wanted: IntArray, n_wanted: int
) -> tuple[Float32Array, IntArray]:
    """`faiss.knn` among some of the rows."""
    import faiss

    is_wanted = np.zeros(len(vectors), np.bool_)
    is_wanted[wanted] = True
    bits = np.packbits(is_wanted, bitorder="little")
    selector = faiss.IDSelectorBitmap(len(vectors), faiss.swig_ptr(bits))
    single, found = np.empty((1, n_wanted), np.float32), np.empty((1, n_wanted), np.int64)
    faiss.knn_L2sqr(
        faiss.swig_ptr(query), faiss.swig_ptr(vectors), len(query), 1, len(vectors), n_wanted,
        faiss.swig_ptr(single), faiss.swig_ptr(found), None, selector,
    )  # fmt: skip
    return single, found
