"""Which rows a search may choose from: decided before the nearest are chosen."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from qml_plugin.errors import RetrievalError
from qml_plugin.records import IntArray
from qml_plugin.retrieval.blocks import Block

NO_BAR = np.iinfo(np.int64).min
CODED = ("pattern_type", "regime", "scale")

_ONE_MICROSECOND = timedelta(microseconds=1)


class Filters(TypedDict, total=False):
    """What may be asked of the rows; see `VectorStore.search`."""

    symbol: str | Collection[str] | None
    timeframe: str | Collection[str] | None
    pattern_type: str | Collection[str] | None
    regime: str | Collection[str] | None
    scale: str | Collection[str] | None
    side: int | None
    max_age: int | timedelta | None
    min_quality: float | None
    apart_bars: int | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """The filters of one search, checked."""

    symbol: str | Collection[str] | None = None
    timeframe: str | Collection[str] | None = None
    pattern_type: str | Collection[str] | None = None
    regime: str | Collection[str] | None = None
    scale: str | Collection[str] | None = None
    side: int | None = None
    max_age: int | timedelta | None = None
    min_quality: float | None = None
    apart_bars: int | None = None

    @classmethod
    def of(cls, filters: Filters) -> Wanted:
        """Refuse what is not known, and what could only be a mistake.

        Raises
        ------
        RetrievalError
            If a name is not that of a filter, or a value cannot be one.
        """
        if not filters:
            return _ALL
        names = [field.name for field in fields(cls)]
        if strange := sorted(filters.keys() - set(names)):
            raise RetrievalError(f"filter {strange[0]!r} is not known. Filter by {', '.join(names)}.")
        wanted = cls(**filters)
        if wanted.side not in (None, 1, -1):
            raise RetrievalError(f"side is {wanted.side!r}. It must be +1 (long) or -1 (short).")
        if wanted.max_age is not None and wanted.max_age_us < 0:
            raise RetrievalError(f"max_age is {wanted.max_age!r}. It must not be negative.")
        if wanted.min_quality is not None and np.isnan(wanted.min_quality):
            raise RetrievalError("min_quality is NaN. It must be a number.")
        if wanted.apart_bars is not None and wanted.apart_bars < 0:
            raise RetrievalError(f"apart_bars is {wanted.apart_bars!r}. It must be at least 0 bars.")
        return wanted

    @property
    def max_age_us(self) -> int:
        """`max_age` in microseconds; only where it is given."""
        age = self.max_age
        return age // _ONE_MICROSECOND if isinstance(age, timedelta) else int(age or 0)

    def names_block(self, block: Block) -> bool:
        """Whether rows of this symbol and timeframe are wanted."""
        return block.symbol in _among(self.symbol, block.symbol) and block.timeframe in _among(
            self.timeframe, block.timeframe
        )

    def bounds(self, block: Block, as_of: IntArray) -> tuple[IntArray, IntArray]:
        """First row and the end of the rows, by time alone, for each moment."""
        resolved_at = block.column("resolved_at")
        high = resolved_at.searchsorted(as_of, side="right")
        if self.max_age is None:
            return np.zeros_like(high), high
        return resolved_at.searchsorted(as_of - self.max_age_us, side="left"), high

    def mask(self, block: Block, codes: Mapping[str, Mapping[str, int]], rows: slice) -> NDArray[np.bool_] | None:
        """Which of the rows are wanted, whatever their time; None if all are.

        `codes` are the numbers that stand for the words of each coded column.
        """
        conditions: list[NDArray[np.bool_]] = []
        if self.side is not None:
            conditions.append(block.columns["side"][rows] == self.side)
        if self.min_quality is not None:
            conditions.append(block.columns["quality"][rows] >= self.min_quality)  # NaN is not
        for name in CODED:
            if (words := getattr(self, name)) is not None:
                known = [codes[name].get(word, -1) for word in _among(words, "")]
                column = block.columns[name][rows]
                conditions.append(column == known[0] if len(known) == 1 else np.isin(column, known))
        return np.logical_and.reduce(conditions) if conditions else None


_ALL = Wanted()


def _among(words: str | Collection[str] | None, otherwise: str) -> Collection[str]:
    """The words of a filter; `otherwise` where there is no filter."""
    return (otherwise,) if words is None else (words,) if isinstance(words, str) else words
