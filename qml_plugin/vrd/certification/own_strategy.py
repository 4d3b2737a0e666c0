"""A strategy of the user's own to certify with. Apart from the families, because it needs the hosts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from qml_plugin import provenance
from qml_plugin.errors import DataError
from qml_plugin.vrd.certification.families import FAMILIES
from qml_plugin.vrd.evaluation import Parameters
from qml_plugin.vrd.strategies import StrategyRuns, find_strategy, search_points


@dataclass(frozen=True, slots=True)
class OwnStrategy:
    """A strategy class with a search of its own, found again by its place in every process.

    Make it with `OwnStrategy.of`. Worlds that let no strategy go short leave it as it is.
    """

    place: str
    name: str
    points: tuple[tuple[tuple[str, Any], ...], ...]
    fees: float
    is_exclusive: bool
    source_sha256: str

    @classmethod
    def of(
        cls, strategy: type | str, grid: Mapping[str, Sequence[Any]] | None = None, *, fees: float = 0.0005
    ) -> OwnStrategy:
        """A strategy and its search.

        Parameters
        ----------
        strategy : type or str
            As `validate_strategy` takes it; an `ArrayStrategy` that overrides nothing but ``signals`` and ``lines``.
        grid : mapping of str to sequence, optional
            As `validate_strategy` takes it.
        fees : float, fraction, default=0.0005
            Of the price of each fill, slippage included.

        Returns
        -------
        OwnStrategy

        Point in time
        -------------
        Reads no market.

        Raises
        ------
        DataError
            If there is no such strategy or parameter, it is not played as arrays, or there is nothing to search.
        """
        found = find_strategy(strategy)
        if not 0 <= fees < 1:
            raise DataError(f"fees are {fees}. They are a fraction of the price of each fill, such as 0.0005.")
        points = search_points(found, grid)
        runs = StrategyRuns(found, fees, bool(getattr(found, "reverses", False)))
        if not all(runs.is_as_arrays(point) for point in points):
            raise DataError(
                f"{found.__name__} runs bar by bar under backtesting.py, which takes seconds for what certification does "
                "thousands of times. Write it as an ArrayStrategy that overrides nothing but signals and lines."
            )
        if len(points) < 2:
            raise DataError(
                f"{found.__name__} has nothing to search. Certification judges a whole search: give at least two values of a "
                "parameter, such as --grid n=10,20,40."
            )
        return cls(
            provenance.class_path(found), found.__name__, tuple(tuple(point.items()) for point in points), fees,
            runs.is_exclusive, provenance.source_sha256(found),
        )  # fmt: skip

    @property
    def number(self) -> int:
        return len(FAMILIES)

    @property
    def grid(self) -> tuple[Parameters, ...]:
        return tuple(dict(point) for point in self.points)

    @property
    def true(self) -> None:
        return None

    def evaluate(self, *, is_long_only: bool = False) -> StrategyRuns:
        return StrategyRuns(_class_at(self.place, self.source_sha256), self.fees, self.is_exclusive)

    def identity(self) -> Any:
        return ["own", self.source_sha256, list(self.grid), self.fees, self.is_exclusive]


@lru_cache
def _class_at(place: str, source_sha256: str) -> type:
    """The class; a worker that outlives an edit of the file looks again."""
    return find_strategy(place)
