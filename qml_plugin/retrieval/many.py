"""The rows nearest to each of many queries at its own time: products of whole blocks instead of one scan for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from qml_plugin.records import FloatArray, IntArray
from qml_plugin.retrieval.blocks import Block
from qml_plugin.retrieval.kernels import Float32Array, candidate_distances, keep_nearest
from qml_plugin.retrieval.nearest import SLACK, chosen

_QUERIES_AT_ONCE = 256
_ROWS_AT_ONCE = 4096
_SINGLE = np.finfo(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Strip:
    """Rows of one block that the filters let through, whatever their time, and which of them each query may see."""

    block: Block
    rows: IntArray | slice
    low: IntArray
    high: IntArray

    def column(self, name: str) -> NDArray[Any]:
        """A column of the rows."""
        return self.block.columns[name][self.rows]


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """Ids and squared distances of the nearest rows, in order."""

    ids: NDArray[Any]
    squared: FloatArray


def nearest_of_many(
    strips: Sequence[Strip], queries: Float32Array, k: int, apart_bars: int | None
) -> list[Answer | None]:
    """The k nearest rows for each query, None where it could not be proved that they are.

    Parameters
    ----------
    strips : sequence of Strip
    queries : ndarray of shape (n_queries, width), float32
        In ascending order of the rows they may see, for speed.
    k : int, >= 1
    apart_bars : int, optional
        As for one query.

    Returns
    -------
    list of n_queries Answer or None

    References
    ----------
    Higham (2002), Accuracy and Stability of Numerical Algorithms, 2nd ed., eq. (3.5): the error of an inner product of
    n terms is at most n u / (1 - n u) times the product of the lengths, in whatever order it is summed. The bounds
    here take twice the unit roundoff u, which leaves room for the rounding of the sums around it.
    """
    n_kept = k + SLACK if apart_bars is None else 4 * k + SLACK
    kept = np.full((len(queries), n_kept), np.inf, np.float32)
    rows = np.full((len(queries), n_kept), -1, np.int64)
    squared = np.full((len(queries), n_kept), np.inf)
    blocks = [strip.column("vectors") for strip in strips]
    offsets = np.cumsum([0, *map(len, blocks)])[:-1].tolist()
    longest = 0.0
    with _blas().limit(limits=1):
        for strip, vectors, offset in zip(strips, blocks, offsets, strict=True):
            norms = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
            longest = max(longest, float(norms.max(initial=0.0)))
            with np.errstate(over="ignore", invalid="ignore"):
                _keep(strip, vectors, norms.astype(np.float32), queries, offset, kept, rows)
    for vectors, offset in zip(blocks, offsets, strict=True):
        candidate_distances(vectors, offset, queries, rows, squared)
    lengths = np.einsum("ij,ij->i", queries, queries, dtype=np.float64)
    width = queries.shape[1]
    error = (2 * (width + 4) * np.sqrt(lengths * longest) + 4 * (longest + lengths)) * float(_SINGLE.eps)
    error += 4 * width * float(_SINGLE.tiny)
    is_full = np.isfinite(kept[:, -1])
    floor = np.where(is_full, kept[:, -1] + lengths - error, np.inf)
    n_seen = sum((strip.high - strip.low for strip in strips), np.zeros(len(queries), np.int64))
    # Near the end of the range of float32 a row may overflow and not be kept: nothing is proved then.
    floor[((n_seen > n_kept) & ~is_full) | (longest + lengths > _SINGLE.max / 4)] = -np.inf
    return _answers(strips, rows, squared, floor, k, apart_bars)


@cache
def _blas() -> ThreadpoolController:
    """Handle of the BLAS of numpy; finding it costs more than a search."""
    return ThreadpoolController().select(user_api="blas")


def _keep(
    strip: Strip,
    vectors: Float32Array,
    norms: Float32Array,
    queries: Float32Array,
    offset: int,
    kept: Float32Array,
    rows: IntArray,
) -> None:
    """Merge the candidates of one strip into those of each query."""
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        some = slice(start, start + _QUERIES_AT_ONCE)
        low, high = strip.low[some], strip.high[some]
        for first in range(int(low.min()), int(high.max()), _ROWS_AT_ONCE):
            end = min(first + _ROWS_AT_ONCE, int(high.max()))
            products = queries[some] @ vectors[first:end].T
            keep_nearest(products, norms[first:end], first, low, high, offset, kept[some], rows[some])


def _answers(
    strips: Sequence[Strip], rows: IntArray, squared: FloatArray, floor: FloatArray, k: int, apart_bars: int | None
) -> list[Answer | None]:
    """Put the candidates of each query in order, and keep what is proved."""
    ids = np.concatenate([strip.column("ids") for strip in strips]) if strips else np.empty(0, np.int64)
    bars = series = None
    if apart_bars is not None and strips:
        bars = np.concatenate([strip.column("bar") for strip in strips])
        series = np.repeat(np.arange(len(strips)), [len(strip.column("bar")) for strip in strips])
    n_found = np.isfinite(squared).sum(axis=1)
    order = np.argsort(squared, axis=1, kind="stable")
    ascending = np.take_along_axis(squared, order, axis=1)
    with np.errstate(invalid="ignore"):
        has_ties = (np.diff(ascending, axis=1) == 0).any(axis=1)
    in_order = np.take_along_axis(rows, order, axis=1)
    answers: list[Answer | None] = []
    for query, n_candidates in enumerate(n_found.tolist()):
        n_best = min(k, n_candidates)
        if apart_bars is None and not has_ties[query]:
            best, distances = in_order[query, :n_best], ascending[query, :n_best]
        else:
            own, at = in_order[query, :n_candidates], ascending[query, :n_candidates]
            of = (None, None) if bars is None or series is None else (bars[own], series[own])
            places = chosen(at, ids[own], k, apart_bars, *of)
            best, distances = own[places], at[places]
        is_whole = floor[query] == np.inf or len(best) == k
        is_sure = is_whole and (len(distances) == 0 or distances[-1] < floor[query])
        answers.append(Answer(ids[best], distances) if is_sure else None)
    return answers
