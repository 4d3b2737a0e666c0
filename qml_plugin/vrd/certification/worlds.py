"""Markets whose truth is known: without an edge, or with one that was planted.

- ``null``: GARCH(1,1) with Student's t of 5 degrees of freedom, no drift;
- ``drift``: the same with a drift of annual Sharpe ratio 1, where shipped families may only be long or flat;
- ``real``: blocks of real bars, drawn at random; shipped families are by turns long-short and long-only;
- ``edge1``, ``edge2``, ``edge3``: the null with a drift that follows the position of one member of the family, such that
  its annual Sharpe ratio is 1, 2 or 3 after costs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from qml_plugin.bars import Bars, bars_from_frame
from qml_plugin.compiling import kernel
from qml_plugin.errors import DataError
from qml_plugin.records import FloatArray
from qml_plugin.vrd.certification.families import COST_FRAC, Family, Searched, planted
from qml_plugin.vrd.evaluation import bars_per_year

WORLDS = ("null", "drift", "real", "edge1", "edge2", "edge3")
NO_EDGE = WORLDS[:3]
# The fourth moment of the returns is finite: alpha**2 * 9 + 2 * alpha * beta + beta**2 = 0.98, 9 the kurtosis of the t.
_GARCH_ALPHA, _GARCH_BETA, _DEGREES = 0.05, 0.93, 5
_DAILY_BARS = 2_520
_MEAN_BLOCK = 50
_FIRST_AT = 1_400_000_000_000_000
_FEWEST_BARS = 500


@dataclass(frozen=True, slots=True, eq=False)
class Market:
    """What the bars of the worlds are like; by default ten years of four-hour bars at 20 % a year.

    ``bar_sd`` is the standard deviation of a log return. ``real`` is what blocks are drawn from: EURUSD (hourly) and GOOG
    (daily, ten years) by turns where it is None.
    """

    symbol: str = "WORLD"
    timeframe: str = "4h"
    n_bars: int = 21_900
    bars_per_year: float = 2_190
    bar_us: int = 4 * 3_600_000_000
    bar_sd: float = 0.20 / np.sqrt(2_190)
    real: Bars | None = None

    @classmethod
    def of(cls, bars: Bars) -> Market:
        """A market as long, as dense and as volatile as these bars, and blocks of the bars themselves.

        Parameters
        ----------
        bars : Bars
            At least 500.

        Returns
        -------
        Market

        Point in time
        -------------
        Reads all bars: worlds are made to judge a suite, not to trade.

        Raises
        ------
        DataError
            If the bars are too few, or never move.
        """
        if len(bars) < _FEWEST_BARS:
            raise DataError(
                f"{len(bars)} bars of {bars.symbol} are too few to certify on; at least {_FEWEST_BARS} are needed."
            )
        bar_sd = float(np.diff(np.log(bars.close)).std())
        if not bar_sd > 0:
            raise DataError(f"the closes of {bars.symbol} never move, so nothing can be made like them.")
        return cls(bars.symbol, bars.timeframe, len(bars), bars_per_year(bars), _mean_step(bars), bar_sd, bars)

    def identity(self) -> Any:
        """What tells it from others, for sets that are kept."""
        of_real = None if self.real is None else self.real.sha256()
        return [self.timeframe, self.n_bars, self.bars_per_year, self.bar_us, self.bar_sd, of_real]


def check_worlds(worlds: tuple[str, ...], searched: Searched) -> None:
    """Refuse worlds that there are not, or not for this strategy.

    Parameters
    ----------
    worlds : tuple of str
    searched : Searched

    Point in time
    -------------
    Reads no market.

    Raises
    ------
    DataError
        If a world is unknown, or an edge is to be planted for a strategy of the user's own.
    """
    if unknown := [name for name in worlds if name not in WORLDS]:
        raise DataError(f"there is no world {unknown[0]!r}. The worlds are {', '.join(WORLDS)}.")
    planted_ones = [name for name in worlds if name not in NO_EDGE]
    if planted_ones and searched.true is None:
        raise DataError(
            f"{planted_ones[0]} plants an edge that follows the position of one member of a shipped family. {searched.name} "
            f"is certified on {', '.join(NO_EDGE)}."
        )


def world(name: str, searched: Searched, index: int, seed: int, market: Market) -> Bars:
    """The market of one set.

    Parameters
    ----------
    name : str
        One of `WORLDS`.
    searched : Searched
    index, seed : int
        Number of the set, and of the first: the bars depend on their sum, the world and the strategy.
    market : Market

    Returns
    -------
    Bars

    Point in time
    -------------
    Bars of ``edge`` worlds drift with positions taken at the close before; nothing else depends on the strategy.
    """
    rng = np.random.default_rng([seed + index, WORLDS.index(name), searched.number])
    if name == "real":
        return _blocks(index, rng, market)
    noise = _garch(
        rng.standard_t(_DEGREES, market.n_bars) / np.sqrt(_DEGREES / (_DEGREES - 2)), market.bar_sd, _GARCH_ALPHA, _GARCH_BETA
    )  # fmt: skip
    if name == "drift":
        noise = noise + market.bar_sd / np.sqrt(market.bars_per_year)
    if name in NO_EDGE:
        return _bars_of(noise, rng, market)
    assert isinstance(searched, Family)
    wicks = rng.integers(2**32)
    return _with_edge(
        searched,
        noise,
        float(name[4:]),
        lambda returns: _bars_of(returns, np.random.default_rng(wicks), market),
        market,
    )


def _bars_of(log_returns: FloatArray, rng: np.random.Generator, market: Market) -> Bars:
    """Bars around a path of closes; every bar opens where the last one closed."""
    close = 100 * np.exp(np.cumsum(log_returns))
    open_ = np.concatenate([[100.0], close[:-1]])
    high = np.maximum(open_, close) * np.exp(np.abs(rng.normal(0, market.bar_sd / 2, len(close))))
    low = np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0, market.bar_sd / 2, len(close))))
    opened_at = np.arange(len(close), dtype=np.int64) * market.bar_us + _FIRST_AT
    return Bars(
        market.symbol, market.timeframe, opened_at, opened_at + market.bar_us, open_, high, low, close,
        np.full(len(close), np.nan),
    )  # fmt: skip


@kernel
def _garch(z: FloatArray, sd: float, alpha: float, beta: float) -> FloatArray:
    out = np.empty(len(z))
    long_run = sd * sd
    variance = long_run
    for t in range(len(z)):
        out[t] = np.sqrt(variance) * z[t]
        variance = long_run * (1 - alpha - beta) + alpha * out[t] ** 2 + beta * variance
    return out


def _with_edge(
    family: Family, noise: FloatArray, sharpe: float, made: Callable[[FloatArray], Bars], market: Market
) -> Bars:
    """Bars whose drift gives the true member this annual Sharpe ratio after costs, beside its luck."""

    def with_drift(drift: float, returns: FloatArray) -> FloatArray:
        if family.kind < 3:
            a, b = family.true.values()
            return np.asarray(planted(family.kind, noise, drift, float(a), float(b)))
        for _ in range(3):  # setups hang on their own few bars, so that they settle at once
            held = family.positions(made(returns), family.true, is_long_only=False)
            returns = noise + drift * np.concatenate([[0.0], held[:-1]])
        return returns

    returns, drift = noise, 0.0
    for _ in range(3):
        held = family.positions(made(returns), family.true, is_long_only=False)
        exposed, changed = float(np.abs(held).mean()), float(np.abs(np.diff(held)).mean())
        drift = (
            sharpe / np.sqrt(market.bars_per_year) * market.bar_sd * np.sqrt(exposed) + COST_FRAC * changed
        ) / exposed
        returns = with_drift(drift, returns)
    return made(returns)


def _blocks(index: int, rng: np.random.Generator, market: Market) -> Bars:
    """Blocks of the real bars, in another order."""
    bars = _bundled()[index // 2 % 2] if market.real is None else market.real
    n = _DAILY_BARS if market.real is None and bars.timeframe == "1d" else market.n_bars
    n_bars = len(bars)
    rows = np.empty(n, dtype=np.int64)
    at = 0
    while at < n:
        length = min(int(rng.geometric(1 / _MEAN_BLOCK)), n - at)
        rows[at : at + length] = (rng.integers(1, n_bars) + np.arange(length)) % n_bars
        at += length
    rows[rows == 0] = 1
    close = 100 * np.exp(np.cumsum(np.log(bars.close[rows] / bars.close[rows - 1])))
    scale = close / bars.close[rows]
    step = _mean_step(bars)
    opened_at = np.arange(n, dtype=np.int64) * step + _FIRST_AT
    open_, high, low = (scale * column[rows] for column in (bars.open, bars.high, bars.low))
    return Bars(bars.symbol, bars.timeframe, opened_at, opened_at + step, open_, high, low, close, bars.volume[rows])


def _mean_step(bars: Bars) -> int:
    """Microseconds between bars on average: as many bars a year as the real market has, which rests at weekends."""
    return round((int(bars.known_at[-1]) - int(bars.known_at[0])) / (len(bars) - 1))


@lru_cache
def _bundled() -> tuple[Bars, ...]:
    from qml_plugin.adapters.backtesting_py import bundled_data  # the host takes a second to import

    return tuple(bars_from_frame(bundled_data(name), symbol=name) for name in ("EURUSD", "GOOG"))
