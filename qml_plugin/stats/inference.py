"""Small questions: how sure is a share, which of many findings are false, has the mean changed, how bad is a bad day."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import kolmogorov, ndtri

from qml_plugin.errors import DataError
from qml_plugin.records import FloatArray
from qml_plugin.stats.checked import checked_returns, is_constant


def wilson_interval(n_wins: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Low and high end of the score interval of a share.

    Parameters
    ----------
    n_wins, n : int
        Successes among how many; n >= 1.
    level : float, 0..1, default=0.95

    Returns
    -------
    (low, high) : float, 0..1
        The shares that a two-sided test at 1 - level would not reject (null hypothesis: the share is this).

    Point in time
    -------------
    Reads its arguments only.

    Raises
    ------
    DataError
        If the counts are impossible or the level is not between 0 and 1.

    References
    ----------
    Wilson (1927), Probable inference, the law of succession, and statistical inference, JASA 22(158).

    Examples
    --------
    >>> [round(end, 4) for end in wilson_interval(1, 10)]
    [0.0179, 0.4042]
    """
    if not (n >= 1 and 0 <= n_wins <= n and 0 < level < 1):
        raise DataError(f"{n_wins} of {n} at level {level} refused. 0 <= n_wins <= n, n is at least 1, 0 < level < 1.")
    share, z = n_wins / n, -float(ndtri((1 - level) / 2))
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def false_discovery_p_values(p_values: ArrayLike, *, dependence: Literal["positive", "any"] = "positive") -> FloatArray:
    """P-values adjusted so that those up to q hold at most a share q of false discoveries.

    Null hypotheses: those of the p-values, one each.

    Parameters
    ----------
    p_values : array of shape (n_tests,), 0..1
        NaN is a test that could not be made.
    dependence : "positive" or "any", default="positive"
        How the tests may depend on one another: independent or positively (Benjamini & Hochberg), or in any way
        (Benjamini & Yekutieli), which costs a factor of about ln(n_tests).

    Returns
    -------
    ndarray of shape (n_tests,), 0..1
        NaN where the p-value is; such tests are not counted.

    Point in time
    -------------
    Judges finished tests.

    Raises
    ------
    DataError
        If a p-value lies outside 0..1.

    References
    ----------
    Benjamini & Hochberg (1995), JRSS B 57(1), §3. Benjamini & Yekutieli (2001), Annals of Statistics 29(4), theorem
    1.3; by `scipy.stats.false_discovery_control`.
    """
    # Imported here: it loads all of scipy.stats, which nothing else of this folder needs.
    from scipy.stats import false_discovery_control

    p = np.asarray(p_values, dtype=np.float64)
    is_known = ~np.isnan(p)
    if ((p[is_known] < 0) | (p[is_known] > 1)).any():
        raise DataError("a p-value lies outside 0..1. Pass NaN where there is none.")
    adjusted = np.full(p.shape, np.nan)
    if is_known.any():
        adjusted[is_known] = false_discovery_control(p[is_known], method="bh" if dependence == "positive" else "by")
    return adjusted


@dataclass(frozen=True, slots=True)
class MeanShift:
    """Where the mean of a series most likely changed, and whether it did.

    ``break_bar`` is the first observation after the change; ``mean_before`` and ``mean_after`` are the means on its two
    sides. Null hypothesis: the mean never changed.
    """

    statistic: float
    p_value: float
    break_bar: int
    mean_before: float
    mean_after: float


def mean_shift(returns: ArrayLike) -> MeanShift:
    """Cumulated sums of returns, tested for one change of the mean: has the edge gone?

    Null hypothesis: the mean is constant; returns are independent, or at least uncorrelated, with one variance.

    Parameters
    ----------
    returns : array of shape (n_obs,)
        In order of time, one a trade or a bar.

    Returns
    -------
    MeanShift
        ``statistic`` is the largest absolute cumulated deviation from the mean, divided by the standard deviation and the
        root of n_obs; the p-value is that of the supremum of a Brownian bridge.

    Point in time
    -------------
    Reads all returns given; the break is found afterwards. It is seen least near the ends, and clustered volatility makes
    it err a little too often.

    Raises
    ------
    DataError
        If there are fewer than 10 returns, one is not finite, or they do not vary.

    References
    ----------
    Ploberger & Krämer (1992), The CUSUM test with OLS residuals, Econometrica 60(2), theorem 1, of a constant;
    `statsmodels.stats.diagnostic.breaks_cusumolsresid` gives the same.
    """
    values = checked_returns(returns, at_least=10)
    if is_constant(values):
        raise DataError(f"all {len(values)} returns are {values[0]:g}. A mean of what does not vary cannot be tested.")
    statistic, at = largest_cusum(values)
    return MeanShift(
        statistic, float(kolmogorov(statistic)), at, float(values[:at].mean()), float(values[at:].mean())
    )  # fmt: skip


def largest_cusum(values: FloatArray) -> tuple[float, int]:
    """How far the cumulated sum of a series gets from its straight line, and where.

    Parameters
    ----------
    values : ndarray of shape (n_obs,)
        At least 2, finite.

    Returns
    -------
    (statistic, break_bar)
        Largest absolute cumulated deviation from the mean, divided by the standard deviation and the root of n_obs, and the
        first observation after it. Of values that do not vary the statistic is NaN.

    Point in time
    -------------
    Reads all values.

    References
    ----------
    As `mean_shift`.
    """
    path = np.cumsum(values - values.mean())[:-1]
    at = int(np.abs(path).argmax())
    if is_constant(values):
        return np.nan, at + 1
    return float(abs(path[at]) / (values.std() * np.sqrt(len(values)))), at + 1


@dataclass(frozen=True, slots=True)
class TailRisk:
    """Losses as negative returns over ``horizon_bars``: at ``level`` 0.95, what the worst twentieth begins with and averages.

    ``n_obs`` is the number of returns behind it, 0 where a formula is.
    """

    value_at_risk: float
    expected_shortfall: float
    level: float
    horizon_bars: int
    n_obs: int


def tail_risk(returns: ArrayLike, *, level: float = 0.95, horizon_bars: int = 1) -> TailRisk:
    """Value at risk and expected shortfall as they were in the past.

    Parameters
    ----------
    returns : array of shape (n_obs,), fractions
        One a bar or a trade.
    level : float, 0..1, default=0.95
    horizon_bars : int, >= 1, default=1
        Returns compounded before they are looked at; windows overlap.

    Returns
    -------
    TailRisk
        ``value_at_risk`` is the (1 - level) quantile with linear interpolation; ``expected_shortfall`` the mean of the
        worst ``ceil((1 - level) * n)`` returns. Both are negative where money was lost.

    Point in time
    -------------
    Reads all returns given: it judges a finished run.

    Raises
    ------
    DataError
        If a return is not finite, the level does not lie between 0 and 1, or there are fewer returns than the horizon.

    References
    ----------
    Acerbi & Tasche (2002), On the coherence of expected shortfall, Journal of Banking & Finance 26(7), definition 2.6,
    with a whole number of returns in the tail.
    """
    _check_level(level, horizon_bars)
    values = checked_returns(returns, at_least=horizon_bars)
    if horizon_bars > 1:
        growth = np.lib.stride_tricks.sliding_window_view(1.0 + values, horizon_bars)
        values = growth.prod(axis=1) - 1.0
    n_tail = max(1, ceil((1 - level) * len(values) - 1e-9))
    worst = np.partition(values, n_tail - 1)[:n_tail]
    return TailRisk(float(np.quantile(values, 1 - level)), float(worst.mean()), level, horizon_bars, len(values))


def normal_tail_risk(mean: float, sd: float, *, level: float = 0.95, horizon_bars: int = 1) -> TailRisk:
    """Value at risk and expected shortfall of independent normal returns, to hold the historical ones against.

    Parameters
    ----------
    mean, sd : float, fractions per bar
    level : float, 0..1, default=0.95
    horizon_bars : int, >= 1, default=1
        Returns added up.

    Returns
    -------
    TailRisk

    Point in time
    -------------
    Reads its arguments only.

    Raises
    ------
    DataError
        If sd is negative or an option lies outside its range.

    References
    ----------
    McNeil, Frey & Embrechts (2005), Quantitative risk management, examples 2.14 and 2.18.
    """
    _check_level(level, horizon_bars)
    if not (np.isfinite(mean) and 0 <= sd < np.inf):
        raise DataError(f"mean {mean} and sd {sd} refused. Both are finite and sd is not negative.")
    centre, spread = mean * horizon_bars, sd * np.sqrt(horizon_bars)
    z = -float(ndtri(1 - level))
    shortfall = float(np.exp(-z * z / 2) / np.sqrt(2 * np.pi)) / (1 - level)
    return TailRisk(float(centre - spread * z), float(centre - spread * shortfall), level, horizon_bars, 0)


def _check_level(level: float, horizon_bars: int) -> None:
    if not 0 < level < 1 or horizon_bars < 1:
        raise DataError(f"level {level} and horizon_bars {horizon_bars} refused. 0 < level < 1 and horizon_bars >= 1.")
