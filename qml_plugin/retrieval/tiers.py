"""Faster ways through blocks of more than a million rows: half the bytes, or a part of the rows.

Rows are indexed in segments of a fixed size, each when its last row has come, and a question uses the segments that lie
wholly in its past; all other rows are searched exactly. So an answer depends on the rows known by then alone, as without
an index, and an index never changes while it is searched.

- ``float16``: every row, read at half precision. How far a row may lie from its copy is measured, so that the nearest
  are proved to be the nearest or searched for exactly: the answers are those without an index.
- ``ivf``: the rows of the eighth of the lists that lie nearest. Their centres are learnt from the first segment, and
  the lists hold half precision. Some neighbours are missed; `VectorStore.audit` tells how many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qml_plugin.errors import RetrievalError
from qml_plugin.records import IntArray
from qml_plugin.retrieval.kernels import Float32Array
from qml_plugin.retrieval.nearest import one_thread

TIERS = ("exact", "float16", "ivf")

_SEGMENT_ROWS = 65_536
_ROWS_OF_A_LIST = 256
_MOST_LISTS = 256
_PROBED_SHARE = 8
_TRAINING_ROWS_OF_A_LIST = 64
_DECODED_AT_ONCE = 16_384


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """An index of the rows from `first` to `end` of a block.

    ``farthest`` is the greatest distance of a row from its copy; infinity where rows may be missed altogether.
    """

    first: int
    end: int
    index: Any
    farthest: float

    @property
    def is_exact(self) -> bool:
        """Whether every row is looked at."""
        return self.farthest < np.inf

    def nearest(self, query: Float32Array, low: int, n_wanted: int) -> tuple[Float32Array, IntArray]:
        """Squared distances to the copies of the nearest rows from `low` on, ascending, and the rows; -1 where there is none."""
        import faiss

        options: dict[str, Any] = {}
        if low > self.first:
            options["sel"] = faiss.IDSelectorRange(low - self.first, self.end - self.first)
        parameters: Any = None
        if not self.is_exact:
            options["nprobe"] = max(1, self.index.nlist // _PROBED_SHARE)
            parameters = faiss.SearchParametersIVF(**options)
        elif options:
            parameters = faiss.SearchParameters(**options)
        single, found = self.index.search(query[None], n_wanted, params=parameters)
        return single[0], np.where(found[0] < 0, -1, found[0] + self.first)


@dataclass(frozen=True, slots=True)
class Tier:
    """Which index a store keeps, and from how many rows of a block on it is used.

    Raises
    ------
    RetrievalError
        If there is no such tier, or it would begin before the first row.
    """

    name: str
    from_rows: int

    def __post_init__(self) -> None:
        if self.name not in TIERS:
            raise RetrievalError(f"tier {self.name!r} is unknown. Use one of {', '.join(map(repr, TIERS))}.")
        if self.from_rows < 1:
            raise RetrievalError(f"tier_from_rows is {self.from_rows}. It must be at least 1.")

    @property
    def segment_rows(self) -> int:
        """Rows of a segment."""
        return min(_SEGMENT_ROWS, self.from_rows)

    def extended(self, segments: Sequence[Segment], vectors: Float32Array) -> tuple[Segment, ...]:
        """The segments of a block of these vectors, of which the first may be there already."""
        found, size = list(segments), self.segment_rows
        if self.name == "exact" or len(vectors) < self.from_rows:
            return tuple(found)
        with one_thread():
            while (first := len(found) * size) + size <= len(vectors):
                rows = vectors[first : first + size]
                if self.name == "float16":
                    index, farthest = _half_precision(rows)
                    if not np.isfinite(farthest):  # beyond the range of float16
                        break
                else:
                    index, farthest = _lists(rows, found[0].index if found else None), np.inf
                found.append(Segment(first, first + size, index, farthest))
        return tuple(found)

    def usable(self, segments: Sequence[Segment], low: int, high: int) -> list[Segment]:
        """The segments that a question about the rows from `low` to `high` may use."""
        if high < self.from_rows:
            return []
        return [segment for segment in segments if segment.end <= high and segment.end > low]


def _half_precision(rows: Float32Array) -> tuple[Any, float]:
    """An index of copies at half precision, and how far the farthest copy lies from its row."""
    import faiss

    index = faiss.IndexScalarQuantizer(rows.shape[1], faiss.ScalarQuantizer.QT_fp16)
    index.add(rows)
    farthest = 0.0
    for start in range(0, len(rows), _DECODED_AT_ONCE):
        some = rows[start : start + _DECODED_AT_ONCE].astype(np.float64)
        difference = some - index.reconstruct_n(start, len(some))
        farthest = max(farthest, float(np.einsum("ij,ij->i", difference, difference).max()))
    return index, float(np.sqrt(farthest))


def _lists(rows: Float32Array, first: Any) -> Any:
    """Lists of copies at half precision, around the centres of the first segment, or around new ones."""
    import faiss

    n_lists = max(1, min(_MOST_LISTS, len(rows) // _ROWS_OF_A_LIST))
    centres = faiss.IndexFlatL2(rows.shape[1]) if first is None else first.quantizer
    index: Any = faiss.IndexIVFScalarQuantizer(centres, rows.shape[1], n_lists, faiss.ScalarQuantizer.QT_fp16)
    index.cp.max_points_per_centroid = _TRAINING_ROWS_OF_A_LIST
    index.cp.min_points_per_centroid = 1
    index.train(rows)  # trains the centres only where they are new
    index.add(rows)
    # The centres belong to the first index, which must live as long as any that uses them.
    index.referenced_objects = [centres, first]
    return index
