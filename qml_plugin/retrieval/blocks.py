"""Rows of one symbol and timeframe, side by side in order of the time their outcome became known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from qml_plugin.retrieval.tiers import Segment

Columns = Mapping[str, NDArray[Any]]

_FIRST_CAPACITY = 256


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """What a search may read of one symbol and timeframe: the first `n_rows` rows never change again.

    ``columns`` holds arrays with room for more rows, among them ``vectors`` of shape (capacity, width), ``resolved_at``,
    ascending, and ``ids``. ``segments`` are indexes of some of the rows, see `qml_plugin.retrieval.tiers`.
    """

    symbol: str
    timeframe: str
    columns: Columns
    n_rows: int
    segments: tuple[Segment, ...] = ()

    def column(self, name: str) -> NDArray[Any]:
        """The rows of one column."""
        return self.columns[name][: self.n_rows]

    def appended(self, new: Columns) -> Block:
        """This block and new rows.

        Rows that come in order are written behind those that searches may be reading. Rows that come late are put in
        their place in a copy, so that a search that has begun goes on with what it saw.
        """
        n_new, resolved_at = len(new["resolved_at"]), self.column("resolved_at")
        if n_new > 1:
            order = np.argsort(new["resolved_at"], kind="stable")
            new = {name: column[order] for name, column in new.items()}
        end = self.n_rows + n_new
        if n_new and len(resolved_at) and new["resolved_at"][0] < resolved_at[-1]:
            places = np.argsort(np.concatenate([resolved_at, new["resolved_at"]]), kind="stable")
            columns = {name: np.concatenate([self.column(name), new[name]])[places] for name in self.columns}
            n_kept = int(resolved_at.searchsorted(new["resolved_at"][0], side="right"))
            segments = tuple(segment for segment in self.segments if segment.end <= n_kept)
            return Block(self.symbol, self.timeframe, columns, end, segments)
        columns = self._with_room(end)
        for name, column in columns.items():
            column[self.n_rows : end] = new[name]
        return Block(self.symbol, self.timeframe, columns, end, self.segments)

    def _with_room(self, n_rows: int) -> dict[str, NDArray[Any]]:
        """Columns that hold `n_rows` rows: the present ones, or larger copies of them."""
        capacity = len(self.columns["resolved_at"])
        if n_rows <= capacity:
            return dict(self.columns)
        larger = {}
        for name, column in self.columns.items():
            larger[name] = np.empty((max(2 * capacity, n_rows, _FIRST_CAPACITY), *column.shape[1:]), column.dtype)
            larger[name][: self.n_rows] = column[: self.n_rows]
        return larger
