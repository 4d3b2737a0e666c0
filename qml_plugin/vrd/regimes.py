"""In which markets does it earn? Regimes known at the time, results by regime, and how regimes follow each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qml_plugin.bars import Bars
from qml_plugin.errors import DataError
from qml_plugin.features.catalogue import CATALOGUE
from qml_plugin.features.kernels import TIE
from qml_plugin.features.market import MarketFeatures
from qml_plugin.features.series import SERIES
from qml_plugin.records import FloatArray
from qml_plugin.stats.resampling import automatic_block_length, bootstrap_interval
from qml_plugin.vrd.evaluation import annual_sharpe

TRENDS, VOLATILITIES = ("down", "ranging", "up"), ("calm", "volatile")
REGIMES = tuple(f"{trend} {volatility}" for trend in TRENDS for volatility in VOLATILITIES)
UNKNOWN = -1
_FEATURES = ("regime_is_trending", "regime_trend_strength", "regime_is_volatile")
_RANK_BARS = 250


@dataclass(frozen=True, slots=True)
class RegimeRow:
    """Results in one regime: mean excess a bar with its 90 % interval, and the annual Sharpe ratio.

    ``pnl_frac`` is its share of the sum of all excess, NaN where that sum is not positive; ``mean_without`` the mean
    excess of the bars of all other regimes. NaN where there are too few bars.
    """

    name: str
    n_bars: int
    bars_frac: float
    total: float
    pnl_frac: float
    mean: float
    low: float
    high: float
    sharpe: float
    mean_without: float


@dataclass(frozen=True, slots=True, eq=False)
class RegimeReport:
    """Results by regime, the regimes bar by bar, and the chances of going from one to another.

    ``code`` of shape (n_bars,) is the position in ``names`` of the regime in which each bar was entered, -1 while the
    features warm up. ``transition`` of shape (n_regimes, n_regimes): row i holds the shares of bars after a bar in regime i.
    """

    names: tuple[str, ...]
    rows: tuple[RegimeRow, ...]
    code: NDArray[np.int8]
    transition: FloatArray


def regimes(bars: Bars) -> NDArray[np.int8]:
    """The regime that was known when each bar began: trend and volatility, from the package's own features.

    Parameters
    ----------
    bars : Bars

    Returns
    -------
    ndarray of shape (n_bars,), int8
        Position in `REGIMES`; -1 while a feature has no value yet. Trend is up or down where ADX says that there is one
        (``regime_is_trending``) and the sign of ``regime_trend_strength`` says where to; else ranging. Volatile is an ATR
        in the top fifth of the last 250 bars (``regime_is_volatile``).

    Point in time
    -------------
    Entry t reads bars 0..t - 1, so a position held over bar t could have known it.
    """
    series, close = MarketFeatures(bars).series, bars.close
    trending, atr_frac = series[SERIES.is_trending], series[SERIES.atr_frac]
    gap, tie = series[SERIES.ema_20] - series[SERIES.ema_50], TIE * close
    direction = (gap > tie).astype(np.float64) - (gap < -tie)
    volatile = _is_volatile(atr_frac)
    code = np.full(len(bars), UNKNOWN, dtype=np.int8)
    is_known = np.isfinite(trending) & np.isfinite(gap) & np.isfinite(volatile)
    is_known[: max(CATALOGUE[name].warmup for name in _FEATURES)] = False
    trend = np.where(trending[is_known] > 0, direction[is_known], 0.0) + 1
    code[is_known] = (2 * trend + (volatile[is_known] > 0)).astype(np.int8)
    return np.concatenate([np.array([UNKNOWN], dtype=np.int8), code[:-1]])


def _is_volatile(atr_frac: FloatArray) -> FloatArray:
    """The feature ``regime_is_volatile``: mid-rank above 0.8 among the 250 bars before; NaN where one is missing."""
    out = np.full(len(atr_frac), np.nan)
    if len(atr_frac) > _RANK_BARS:
        before = np.lib.stride_tricks.sliding_window_view(atr_frac, _RANK_BARS)[:-1]
        here = atr_frac[_RANK_BARS:]
        # Within a tie each counts half, which the mean of two counts gives without a matrix of gaps.
        below = (before < (here * (1 - TIE))[:, None]).sum(axis=1) + (before <= (here * (1 + TIE))[:, None]).sum(axis=1)
        is_whole = np.isfinite(before).all(axis=1) & np.isfinite(here)
        out[_RANK_BARS:] = np.where(is_whole, 0.5 * below / _RANK_BARS > 0.8, np.nan)
    return out


def by_regime(
    excess: FloatArray,
    code: NDArray[np.int8],
    per_year: float,
    *,
    names: tuple[str, ...] = REGIMES,
    level: float = 0.90,
    n_draws: int = 1_000,
    block_length: float | None = None,
    seed: int,
) -> RegimeReport:
    """Results of each regime with intervals.

    Parameters
    ----------
    excess : ndarray of shape (n_bars,), fractions
        Result of each bar.
    code : ndarray of shape (n_bars,), int8
        As `regimes`, cut to the same bars.
    per_year : float
        Bars a year.
    names : tuple of str, default=REGIMES
    level : float, 0..1, default=0.90
    n_draws : int, default=1,000
    block_length : float, >= 1, optional
        `automatic_block_length` of all results by default.
    seed : int

    Returns
    -------
    RegimeReport
        Intervals are those of the stationary bootstrap over the bars of the regime joined together.

    Point in time
    -------------
    Judges a finished run.

    Raises
    ------
    DataError
        If lengths differ.
    """
    if len(excess) != len(code):
        raise DataError(f"{len(excess)} results and {len(code)} regimes refused. Each bar has both.")
    block = automatic_block_length(excess) if block_length is None else block_length
    total = float(excess[code >= 0].sum())
    n_known = int((code >= 0).sum())
    rows = []
    for i, name in enumerate(names):
        own = excess[code == i]
        low = high = np.nan
        if len(own) >= 20:
            found = bootstrap_interval(
                own, level=level, n_draws=n_draws, block_length=min(block, len(own) / 4), seed=seed + i
            )
            low, high = found.low, found.high
        rest = n_known - len(own)
        rows.append(
            RegimeRow(
                name,
                len(own),
                len(own) / len(excess),
                float(own.sum()),
                float(own.sum()) / total if total > 0 else np.nan,
                float(own.mean()) if len(own) else np.nan,
                low,
                high,
                float(annual_sharpe(own, per_year)) if len(own) >= 2 else np.nan,
                (total - float(own.sum())) / rest if rest else np.nan,
            )
        )
    return RegimeReport(names, tuple(rows), code, transition_matrix(code, len(names)))


def transition_matrix(code: NDArray[np.int8], n_regimes: int = len(REGIMES)) -> FloatArray:
    """How often each regime is followed by each, from bar to bar.

    Parameters
    ----------
    code : ndarray of shape (n_bars,), int
        Regimes, -1 where unknown.
    n_regimes : int, default=6

    Returns
    -------
    ndarray of shape (n_regimes, n_regimes), 0..1
        Rows add up to 1; a row is NaN where the regime was never left or held by a next bar.

    Point in time
    -------------
    Reads all bars given.
    """
    before, after = code[:-1].astype(np.int64), code[1:].astype(np.int64)
    is_known = (before >= 0) & (after >= 0)
    counts = np.zeros((n_regimes, n_regimes))
    np.add.at(counts, (before[is_known], after[is_known]), 1.0)
    total = counts.sum(axis=1, keepdims=True)
    return np.asarray(np.where(total > 0, counts / np.where(total > 0, total, 1.0), np.nan))
