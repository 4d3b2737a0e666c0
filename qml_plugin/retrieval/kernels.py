"""Compiled loops of the search: exact distances, and the candidates of many queries at once.

Kept apart from the kernels of the features, whose machine code is kept under a hash of their own folder. No kernel
here calls another, so that numba's own cache notices every change.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qml_plugin.compiling import kernel
from qml_plugin.records import FloatArray, IntArray

Float32Array = NDArray[np.float32]


@kernel
def keep_nearest(
    products: Float32Array,
    norms: Float32Array,
    first_row: int,
    low: IntArray,
    high: IntArray,
    offset: int,
    kept: Float32Array,
    kept_rows: IntArray,
) -> None:
    """Merge one block of products into the best candidates of each query.

    Parameters
    ----------
    products : ndarray of shape (n_queries, n_rows), float32
        Inner products of the queries with the rows from `first_row` on.
    norms : ndarray of shape (n_rows,), float32
        Squared lengths of those rows.
    first_row : int
    low, high : ndarray of shape (n_queries,), int64
        Each query may see the rows low <= row < high only.
    offset : int
        Added to the number of a row that is kept.
    kept, kept_rows : ndarray of shape (n_queries, n_kept), float32 and int64
        Changed in place: ascending ``|x|^2 - 2 q.x`` and their rows; infinity and -1 where nothing is kept yet.
    """
    n_kept = kept.shape[1]
    for query in range(products.shape[0]):
        worst = kept[query, n_kept - 1]
        begin = max(low[query] - first_row, 0)
        end = min(high[query] - first_row, products.shape[1])
        for column in range(begin, end):
            value = norms[column] - np.float32(2) * products[query, column]
            if value < worst:
                place = n_kept - 1
                while place > 0 and kept[query, place - 1] > value:
                    kept[query, place] = kept[query, place - 1]
                    kept_rows[query, place] = kept_rows[query, place - 1]
                    place -= 1
                kept[query, place] = value
                kept_rows[query, place] = offset + first_row + column
                worst = kept[query, n_kept - 1]


@kernel
def candidate_distances(
    vectors: Float32Array, offset: int, queries: Float32Array, rows: IntArray, found: FloatArray
) -> None:
    """Squared distances in float64 of each query's candidates that lie in one block, into `found`.

    The order of summation never varies, so that a distance depends on its two vectors alone, to the last bit.

    Parameters
    ----------
    vectors : ndarray of shape (n_rows, width), float32
        The block; its first row has the number `offset`.
    offset : int
    queries : ndarray of shape (n_queries, width), float32
    rows : ndarray of shape (n_queries, n_kept), int64
    found : ndarray of shape (n_queries, n_kept), float64
        Changed in place where the row lies in the block.
    """
    width = vectors.shape[1]
    for query in range(rows.shape[0]):
        asked = queries[query]
        for place in range(rows.shape[1]):
            row = rows[query, place] - offset
            if row < 0 or row >= vectors.shape[0]:
                continue
            vector = vectors[row]
            # Eight sums at once: one alone would wait for itself.
            a = b = c = d = e = f = g = h = 0.0
            for i in range(0, width, 8):
                a += (np.float64(vector[i]) - asked[i]) ** 2
                b += (np.float64(vector[i + 1]) - asked[i + 1]) ** 2
                c += (np.float64(vector[i + 2]) - asked[i + 2]) ** 2
                d += (np.float64(vector[i + 3]) - asked[i + 3]) ** 2
                e += (np.float64(vector[i + 4]) - asked[i + 4]) ** 2
                f += (np.float64(vector[i + 5]) - asked[i + 5]) ** 2
                g += (np.float64(vector[i + 6]) - asked[i + 6]) ** 2
                h += (np.float64(vector[i + 7]) - asked[i + 7]) ** 2
            found[query, place] = ((a + b) + (c + d)) + ((e + f) + (g + h))
