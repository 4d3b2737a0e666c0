"""Exact search for the nearest vectors among those whose outcome was known at the time of the question."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qml_plugin.errors import RetrievalError
from qml_plugin.records import FloatArray, IntArray

Float32Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

_LANES = 16  # floats of a 512-bit register
_SLACK = 16  # candidates beyond k: rounding and ties rarely need more
_FIRST_CAPACITY = 1024
_SINGLE = np.finfo(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """Answer of a search, nearest first.

    ``rows`` counts rows in the order they were added, ``distances`` are Euclidean, in scaled feature units.
    ``n_eligible`` is the number of rows the search could choose from; with fewer than k, all of them are returned.
    """

    rows: IntArray
    distances: FloatArray
    n_eligible: int

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class _Published:
    """What a search may read: the first `n_rows` rows never change again."""

    vectors: Float32Array
    resolved_at: IntArray
    n_rows: int


class VectorStore:
    """Append-only vectors in order of the time their outcome became known.

    One thread may add while others search: a row is written before it is counted, and growing replaces the arrays
    instead of moving them.

    Parameters
    ----------
    dim : int, >= 1
        Length of a vector. Rows are padded with zeros to a multiple of 16, which changes no distance.

    Raises
    ------
    RetrievalError
        If `dim` is less than 1.
    """

    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise RetrievalError(f"a store of vectors of length {dim} was asked for. A vector needs at least 1 value.")
        self.dim = dim
        self._adding = threading.Lock()
        width = -(-dim // _LANES) * _LANES
        self._published = _Published(
            vectors=np.zeros((_FIRST_CAPACITY, width), np.float32),
            resolved_at=np.zeros(_FIRST_CAPACITY, np.int64),
            n_rows=0,
        )

    def __len__(self) -> int:
        return self._published.n_rows

    def add(self, vectors: Float32Array, resolved_at: ArrayLike) -> None:
        """Append rows.

        Parameters
        ----------
        vectors : ndarray of shape (n_new, dim) or (dim,), float32
            Finite values.
        resolved_at : int, or ndarray of shape (n_new,), UTC microseconds
            When the outcome of each row became known; never before that of the row above it.

        Point in time
        -------------
        A row is visible to searches with ``as_of >= resolved_at`` only.

        Raises
        ------
        RetrievalError
            If shapes do not fit, a value is not finite or `resolved_at` goes backwards. Nothing is then added.
        """
        new = self._checked(np.atleast_2d(vectors))
        times = np.atleast_1d(np.asarray(resolved_at, dtype=np.int64))
        if len(times) != len(new):
            raise RetrievalError(f"got {len(new)} vectors and {len(times)} resolved_at. Each row needs both.")
        with self._adding:
            now = self._published
            last = now.resolved_at[now.n_rows - 1 : now.n_rows]
            backwards = np.flatnonzero(np.diff(np.concatenate([last, times])) < 0)
            if len(backwards):
                row = int(backwards[0]) + 1 - len(last)
                before = times[row - 1] if row else last[0]
                raise RetrievalError(
                    f"resolved_at goes backwards at new row {row}: {times[row]} after {before}. Rows must be added in "
                    "order of resolved_at; sort them, or build a new store."
                )
            end = now.n_rows + len(new)
            stored, stored_at = self._with_room(now, end)
            stored[now.n_rows : end, : self.dim] = new
            stored_at[now.n_rows : end] = times
            self._published = _Published(stored, stored_at, end)

    def search(self, query: Float32Array, *, as_of: int, k: int, mask: BoolArray | None = None) -> Hits:
        """The k rows nearest to `query` among those known at `as_of`.

        Parameters
        ----------
        query : ndarray of shape (dim,), float32
            Finite values, scaled like the rows.
        as_of : int, UTC microseconds
            The time of the question.
        k : int, >= 1
            Most rows to return.
        mask : ndarray of shape (n_rows,), bool, optional
            Rows to choose from. It must reach at least to the last row known at `as_of`.

        Returns
        -------
        Hits
            Exact: filtered before the choice, ordered by distance (float64) and then by row, so that of equal rows
            the earlier one comes first.

        Point in time
        -------------
        Reads rows with ``resolved_at <= as_of`` only.

        Raises
        ------
        RetrievalError
            If the query has another length or is not finite, `k` is less than 1, or `mask` is too short.

        Cost
        ----
        O(n_eligible * dim) time, one thread.
        """
        now = self._published
        query = self._checked(np.asarray(query)[None])[0]
        if k < 1:
            raise RetrievalError(f"k = {k} neighbours were asked for. Ask for at least 1.")
        n_known = int(np.searchsorted(now.resolved_at[: now.n_rows], as_of, side="right"))
        vectors = now.vectors[:n_known]
        if mask is None:
            rows, distances = _nearest(vectors, self._padded(query), k)
            return Hits(rows, distances, n_known)
        mask = np.asarray(mask, dtype=np.bool_)
        if len(mask) < n_known:
            raise RetrievalError(
                f"the mask has {len(mask)} rows but {n_known} rows are known at {as_of}. Pass one value per stored row."
            )
        chosen = np.flatnonzero(mask[:n_known])
        rows, distances = _nearest(vectors[chosen], self._padded(query), k)
        return Hits(chosen[rows], distances, len(chosen))

    def search_many(self, queries: Float32Array, *, as_of: Sequence[int] | IntArray, k: int) -> list[Hits]:
        """The answers of `search` for each query at its own time.

        Parameters
        ----------
        queries : ndarray of shape (n_queries, dim), float32
            One query a row.
        as_of : sequence of n_queries int, UTC microseconds
            The time of each question.
        k : int, >= 1
            Most rows to return for each.

        Returns
        -------
        list of n_queries Hits
            The same as asking one by one.

        Point in time
        -------------
        Answer i reads rows with ``resolved_at <= as_of[i]`` only.

        Raises
        ------
        RetrievalError
            As `search`, and if the numbers of queries and times differ.
        """
        if len(queries) != len(as_of):
            raise RetrievalError(f"got {len(queries)} queries and {len(as_of)} as_of. Each query needs its own time.")
        return [self.search(query, as_of=int(at), k=k) for query, at in zip(queries, as_of, strict=True)]

    def _checked(self, vectors: Float32Array) -> Float32Array:
        """Vectors as float32 of the right length and finite."""
        vectors = np.asarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise RetrievalError(
                f"vectors of shape {vectors.shape} refused: this store holds vectors of length {self.dim}. "
                "Scale the same features as the stored rows."
            )
        if not np.isfinite(vectors).all():
            row, column = np.argwhere(~np.isfinite(vectors))[0]
            raise RetrievalError(
                f"vector {row} has {vectors[row, column]} at position {column}. Distances need finite values; scale "
                "with Scaler, which fills what is missing."
            )
        return vectors

    def _padded(self, query: Float32Array) -> Float32Array:
        """The query at the width of the stored rows."""
        padded = np.zeros(self._published.vectors.shape[1], np.float32)
        padded[: self.dim] = query
        return padded

    def _with_room(self, now: _Published, n_rows: int) -> tuple[Float32Array, IntArray]:
        """Arrays that hold `n_rows` rows: the present ones, or larger copies of them."""
        capacity = len(now.vectors)
        if n_rows <= capacity:
            return now.vectors, now.resolved_at
        capacity = max(2 * capacity, n_rows)
        vectors = np.zeros((capacity, now.vectors.shape[1]), np.float32)
        resolved_at = np.zeros(capacity, np.int64)
        vectors[: now.n_rows] = now.vectors[: now.n_rows]
        resolved_at[: now.n_rows] = now.resolved_at[: now.n_rows]
        return vectors, resolved_at


def _nearest(vectors: Float32Array, query: Float32Array, k: int) -> tuple[IntArray, FloatArray]:
    """Rows and distances of the k nearest vectors, ordered by (distance, row)."""
    candidates = _candidates(vectors, query, k)
    squared = _squared_distances(vectors if candidates is None else vectors[candidates], query)
    rows = np.arange(len(vectors)) if candidates is None else candidates
    best = np.lexsort((rows, squared))[:k]
    return rows[best].astype(np.int64), np.sqrt(squared[best])


def _candidates(vectors: Float32Array, query: Float32Array, k: int) -> IntArray | None:
    """A set of rows that surely holds the k nearest; None where only all rows do."""
    n_wanted = k + _SLACK
    if len(vectors) <= n_wanted:
        return None
    import faiss

    with _one_thread():
        single, found = faiss.knn(query[None], vectors, n_wanted)
    rows = np.asarray(found[0], dtype=np.int64)
    if (rows < 0).any() or not np.isfinite(single).all():
        return None
    # Float32 sums of squares are off by at most this factor, whatever the order of summation. So every row left out
    # is farther than `bound`, and if k candidates are nearer than that, none of the rows left out belongs to the k.
    n_values = vectors.shape[1]
    bound = float(single[0, -1]) * (1 - (n_values + 4) * float(_SINGLE.eps)) - n_values * float(_SINGLE.tiny)
    exact = _squared_distances(vectors[rows], query)
    return rows if np.partition(exact, k - 1)[k - 1] < bound else None


def _squared_distances(vectors: Float32Array, query: Float32Array) -> FloatArray:
    """Squared Euclidean distances in float64; each depends on its own row only, bit for bit."""
    difference = vectors.astype(np.float64) - query
    return np.asarray((difference * difference).sum(axis=1))


@contextmanager
def _one_thread() -> Iterator[None]:
    """One OpenMP thread inside the block: a thread team costs more than a search."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
