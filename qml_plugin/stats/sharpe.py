"""Sharpe ratios, how sure they are, and what the best of many is worth.

Every Sharpe ratio here is per observation: the mean return over its standard deviation, neither annualised nor rounded.
Divide an annual one by the square root of the observations a year. Kurtosis is raw: 3 for the normal distribution.
Significance follows the convention of 2012 (Bailey & López de Prado): the variance of the estimate is taken at the
estimated Sharpe ratio, with n_obs - 1. Newer work takes it at the null with n_obs, which is laxer where skew is negative.
"""

from __future__ import annotations

from math import e, inf, isfinite, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from qml_plugin.errors import DataError
from qml_plugin.records import FloatArray
from qml_plugin.stats.checked import checked_returns, is_constant

_EULER_GAMMA = 0.57721566490153286


class Moments(NamedTuple):
    """What the significance of a Sharpe ratio is computed from: `probabilistic_sharpe_ratio(*moments)`."""

    sr: float
    n_obs: int
    skew: float
    kurt: float


def sharpe_ratio(returns: ArrayLike) -> float:
    """Mean over standard deviation, per observation.

    Parameters
    ----------
    returns : array of shape (n_obs,), fractions
        Returns in excess of what could have been had without skill (`excess_returns`), or of cash; at least 2.

    Returns
    -------
    float
        The standard deviation has the divisor n_obs - 1. Null hypothesis of interest: 0.

    Point in time
    -------------
    Reads all returns given: it judges a finished run.

    Raises
    ------
    DataError
        If a return is not finite, there are fewer than 2, or all are the same: the ratio is then not defined.

    References
    ----------
    Sharpe (1994), The Sharpe ratio, Journal of Portfolio Management 21(1), eq. (3)-(6) (ex post, not annualised).
    """
    values = _varying(returns)
    return float(values.mean() / values.std(ddof=1))


def sharpe_moments(returns: ArrayLike) -> Moments:
    """Sharpe ratio, number of observations, skew and raw kurtosis of returns.

    Parameters
    ----------
    returns : array of shape (n_obs,), fractions

    Returns
    -------
    Moments
        Skew and kurtosis are those of the sample, without corrections; 0 and 3 for the normal distribution.

    Point in time
    -------------
    Reads all returns given: it judges a finished run.

    Raises
    ------
    DataError
        As `sharpe_ratio`.
    """
    values = _varying(returns)
    z = (values - values.mean()) / values.std()
    return Moments(sharpe_ratio(values), len(values), float((z**3).mean()), float((z**4).mean()))


def excess_returns(returns: ArrayLike, exposure: ArrayLike, market_returns: ArrayLike) -> FloatArray:
    """Returns less those of holding the market all the time at the strategy's mean exposure.

    Parameters
    ----------
    returns : array of shape (n_obs,), fractions
        Of the strategy, costs included.
    exposure : array of shape (n_obs,)
        Its position over each observation in units of equity, negative where short.
    market_returns : array of shape (n_obs,), fractions

    Returns
    -------
    ndarray of shape (n_obs,), fractions
        ``returns - mean(exposure) * market_returns``. Their mean is what timing earned, less costs: a strategy that is
        merely long of a rising market has 0 on average.

    Point in time
    -------------
    Uses the mean exposure of the whole run: it judges a finished run.

    Raises
    ------
    DataError
        If lengths differ, there are fewer than 2 observations or a value is not finite.
    """
    own, held = checked_returns(returns), checked_returns(exposure, name="exposure")
    market = checked_returns(market_returns, name="market_returns")
    if not len(own) == len(held) == len(market):
        raise DataError(
            f"returns has {len(own)} observations, exposure {len(held)} and market_returns {len(market)}. Each "
            "observation needs all three."
        )
    return np.asarray(own - held.mean() * market)


def probabilistic_sharpe_ratio(sr: float, n_obs: int, skew: float, kurt: float, benchmark: float = 0.0) -> float:
    """Confidence that the true Sharpe ratio is above a benchmark, convention of 2012.

    Null hypothesis: the true Sharpe ratio is the benchmark; 1 - PSR is its one-sided p-value. Returns are taken as
    independent.

    Parameters
    ----------
    sr : float, per observation
        Observed Sharpe ratio.
    n_obs : int, >= 2
        Returns that it was computed from.
    skew, kurt : float
        Of the returns; kurt is raw, 3 for the normal distribution.
    benchmark : float, per observation, default=0.0

    Returns
    -------
    float, 0..1

    Point in time
    -------------
    Reads its arguments only.

    Raises
    ------
    DataError
        If a number is not finite, n_obs is below 2, or the moments are impossible (kurt < 1 + skew**2).

    References
    ----------
    Bailey & López de Prado (2012), The Sharpe ratio efficient frontier, Journal of Risk 15(2), eq. (11).

    Examples
    --------
    >>> round(probabilistic_sharpe_ratio(1.585 / 12**0.5, 24, -2.448, 10.164), 6)
    0.913234
    """
    if not n_obs >= 2:
        raise DataError(f"n_obs {n_obs} refused. A Sharpe ratio needs at least 2 returns.")
    return float(ndtr((sr - _finite("benchmark", benchmark)) * sqrt(n_obs - 1) / _spread(sr, skew, kurt)))


def expected_max_sharpe(n_trials: float, var_sr: float = 1.0) -> float:
    """Expected highest Sharpe ratio of trials without skill.

    Null hypothesis it describes: the trials' Sharpe ratios are independent normal draws about 0.

    Parameters
    ----------
    n_trials : float, >= 1
        Independent trials; an effective number need not be whole.
    var_sr : float, >= 0, default=1.0
        Variance of the trials' Sharpe ratios, in the unit (per observation or annual) of the answer, squared.

    Returns
    -------
    float, >= 0
        0 for one trial. The approximation lies 8 % below the exact value for 2 trials, 2 % above it for 10.

    Point in time
    -------------
    Reads its arguments only.

    Raises
    ------
    DataError
        If there is less than one trial or the variance is negative.

    References
    ----------
    Bailey & López de Prado (2014), The deflated Sharpe ratio, Journal of Portfolio Management 40(5), eq. (1).

    Examples
    --------
    >>> round(expected_max_sharpe(100), 6)
    2.530603
    """
    if not (1 <= n_trials < inf and 0 <= var_sr < inf):
        raise DataError(
            f"n_trials {n_trials} and var_sr {var_sr} refused. There is at least one trial, and a variance is not negative."
        )
    if n_trials == 1:
        return 0.0
    # The upper tail by its inverse survival function: 1 - 1 / n rounds for many trials.
    expected = (1 - _EULER_GAMMA) * -ndtri(1 / n_trials) + _EULER_GAMMA * -ndtri(1 / (n_trials * e))
    return sqrt(var_sr) * max(0.0, float(expected))


def deflated_sharpe_ratio(sr: float, n_obs: int, skew: float, kurt: float, var_sr: float, n_trials: float) -> float:
    """Confidence that the best of several trials has skill, convention of 2012.

    Null hypothesis: the true Sharpe ratio is what the best of `n_trials` without skill is expected to show; 1 - DSR is
    its one-sided p-value.

    Parameters
    ----------
    sr : float, per observation
        Sharpe ratio of the trial that was chosen.
    n_obs : int, >= 2
    skew, kurt : float
        Of its returns; kurt is raw, 3 for the normal distribution.
    var_sr : float, >= 0, per observation squared
        Variance of the Sharpe ratios over the trials.
    n_trials : float, >= 1
        Independent trials ever made, this one included; see `effective_n_trials`.

    Returns
    -------
    float, 0..1

    Point in time
    -------------
    Reads its arguments only.

    Raises
    ------
    DataError
        As `probabilistic_sharpe_ratio` and `expected_max_sharpe`.

    Notes
    -----
    A rising market fools it unless the returns are in excess of the market's. The answer hangs on var_sr and n_trials.

    References
    ----------
    Bailey & López de Prado (2014), The deflated Sharpe ratio, Journal of Portfolio Management 40(5), eq. (2).

    Examples
    --------
    >>> round(deflated_sharpe_ratio(2.5 / 250**0.5, 1250, -3, 10, 0.5 / 250, 100), 6)
    0.900397
    """
    return probabilistic_sharpe_ratio(sr, n_obs, skew, kurt, expected_max_sharpe(n_trials, var_sr))


def min_track_record_length(sr: float, skew: float, kurt: float, benchmark: float = 0.0, alpha: float = 0.05) -> float:
    """Observations after which this Sharpe ratio would be significant, convention of 2012.

    Null hypothesis it asks to reject: the true Sharpe ratio is the benchmark.

    Parameters
    ----------
    sr : float, per observation
    skew, kurt : float
        Of the returns; kurt is raw, 3 for the normal distribution.
    benchmark : float, per observation, default=0.0
    alpha : float, 0..1, default=0.05

    Returns
    -------
    float, observations, not rounded
        Where PSR is 1 - alpha; infinite if `sr` is not above the benchmark.

    Point in time
    -------------
    Reads its arguments only.

    Raises
    ------
    DataError
        If a number is not finite, alpha lies outside 0..0.5, or the moments are impossible.

    References
    ----------
    Bailey & López de Prado (2012), The Sharpe ratio efficient frontier, Journal of Risk 15(2), eq. (13).
    """
    if not 0 < alpha <= 0.5:
        raise DataError(f"alpha {alpha} refused. It is the error that is allowed, above 0 and at most 0.5.")
    spread = _spread(sr, skew, kurt)
    if sr <= _finite("benchmark", benchmark):
        return inf
    distance = spread * float(-ndtri(alpha)) / (sr - benchmark)
    return 1 + distance * distance


def min_backtest_length(n_trials: float, target_sr: float) -> float:
    """Years below which the best of several trials without skill is expected to reach a Sharpe ratio.

    Null hypothesis it describes: no trial has skill; the trials are independent.

    Parameters
    ----------
    n_trials : float, >= 1
    target_sr : float, annual, > 0
        The one *annual* ratio here, because the answer is in years.

    Returns
    -------
    float, years
        At most ``2 ln(n_trials) / target_sr**2``.

    Point in time
    -------------
    Reads its arguments only.

    Raises
    ------
    DataError
        If there is less than one trial or the target is not above 0.

    References
    ----------
    Bailey, Borwein, López de Prado & Zhu (2014), Pseudo-mathematics and financial charlatanism, Notices of the AMS
    61(5), eq. (6).

    Examples
    --------
    >>> round(min_backtest_length(45, 1.0), 6)
    4.998087
    """
    if not 0 < target_sr < inf:
        raise DataError(f"target_sr {target_sr} refused. It is an annual Sharpe ratio above 0.")
    return (expected_max_sharpe(n_trials) / target_sr) ** 2


def _varying(returns: ArrayLike) -> FloatArray:
    """Returns that have a spread."""
    values = checked_returns(returns)
    if is_constant(values):
        raise DataError(
            f"all {len(values)} returns are {values[0]:g}. Without a spread there is no Sharpe ratio; a strategy that "
            "never traded has none."
        )
    return values


def _finite(name: str, value: float) -> float:
    if not isfinite(value):
        raise DataError(f"{name} is {value}. It must be finite.")
    return value


def _spread(sr: float, skew: float, kurt: float) -> float:
    """Standard deviation of an estimated Sharpe ratio times the root of its observations."""
    for name, value in (("sr", sr), ("skew", skew), ("kurt", kurt)):
        _finite(name, value)
    if kurt < 1 + skew**2 - 1e-9 * (1 + skew**2):
        raise DataError(
            f"skew {skew:g} and kurt {kurt:g} belong to no distribution: raw kurtosis is at least 1 + skew**2. Excess "
            "kurtosis needs 3 added."
        )
    variance = 1 - skew * sr + (kurt - 1) / 4 * sr**2
    if variance <= 0:
        raise DataError(f"sr {sr:g}, skew {skew:g}, kurt {kurt:g} give a variance of {variance:g}. Check the moments.")
    return sqrt(variance)
