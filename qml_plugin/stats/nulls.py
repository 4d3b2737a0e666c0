"""Is it timing, or would chance have done as well? Null distributions of a strategy's Sharpe ratio.

All tests are one-sided (the strategy earns more than under the null), judge the Sharpe ratio per bar with costs in,
count ties against the strategy and never return a p-value of 0. `bar_permutation` holds the one that re-runs the
strategy with its whole search.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import lgamma, log
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft

from qml_plugin.errors import DataError
from qml_plugin.records import FloatArray, IntArray
from qml_plugin.stats.checked import checked_returns, is_constant
from qml_plugin.stats.kernels import as_seed, in_threads, placed_moments

Status = Literal["PASS", "FAIL", "INSUFFICIENT"]

_TIE = 1e-10


@dataclass(frozen=True, slots=True, eq=False)
class NullResult:
    """What a test of a null hypothesis found.

    ``statistic`` is the observed value and ``null_draws`` its values under the null, NaN and empty where nothing could
    be computed. ``status`` is PASS where the null is rejected at ``alpha``, FAIL where it is not, and INSUFFICIENT where
    it could not have been rejected, or not even been asked; ``reason`` says why. A missing p-value is NaN.
    """

    test: str
    null_hypothesis: str
    statistic: float
    p_value: float
    alpha: float
    n_draws: int
    n_exceeding: int
    status: Status
    reason: str
    seed: int | None = None
    null_draws: FloatArray = field(default_factory=lambda: np.empty(0))


def judged(
    test: str,
    null_hypothesis: str,
    statistic: float,
    null_draws: FloatArray,
    *,
    alpha: float,
    seed: int | None = None,
    too_few: str = "",
    stop_after: int | None = None,
) -> NullResult:
    """A null result from the observed statistic and its draws under the null.

    Parameters
    ----------
    test, null_hypothesis : str
        Name of the test, and its null hypothesis in words.
    statistic : float
        Observed; finite.
    null_draws : ndarray of shape (n_draws,)
        Under the null. NaN counts as exceeding: what is missing never speaks for the strategy.
    alpha : float, 0..1
        Error of the first kind that is allowed.
    seed : int, optional
    too_few : str, default=""
        Why the null cannot be rejected, where that is known already.
    stop_after : int, optional
        The draws were stopped at this number of exceeding ones, or else when all were drawn.

    Returns
    -------
    NullResult
        ``p_value`` is (1 + exceeding) / (1 + draws); where sampling stopped early, exceeding / draws. Draws within 1e-10
        below the statistic, relative to its size where that is above 1, are ties and exceed.

    Point in time
    -------------
    Judges a finished run.

    Raises
    ------
    DataError
        If alpha does not lie between 0 and 1.

    References
    ----------
    Phipson & Smyth (2010), Permutation p-values should never be zero, SAGMB 9(1), §2. Besag & Clifford (1991),
    Sequential Monte Carlo p-values, Biometrika 78(2), §2.
    """
    check_alpha(alpha)
    n_draws = len(null_draws)
    n_exceeding = exceeding(null_draws, statistic)
    is_stopped = stop_after is not None and n_exceeding >= stop_after
    p_value = n_exceeding / n_draws if is_stopped else (1 + n_exceeding) / (1 + n_draws)
    reason = too_few
    if not reason and not is_stopped and 1 / (1 + n_draws) > alpha:
        reason = (
            f"{n_draws} draws cannot give a p-value below {1 / (1 + n_draws):.3g}, which is above alpha {alpha:g}. "
            f"Ask for at least {int(np.ceil(1 / alpha)) - 1}."
        )
    if reason:
        status: Status = "INSUFFICIENT"
    else:
        status = "PASS" if p_value <= alpha else "FAIL"
        is_not = "" if status == "PASS" else "not "
        reason = f"p = {p_value:.3g}: the null is {is_not}rejected at {alpha:g}"
    return NullResult(
        test, null_hypothesis, statistic, p_value, alpha, n_draws, n_exceeding, status, reason, seed, null_draws
    )


def exceeding(null_draws: ArrayLike, statistic: float) -> int:
    """Number of draws that are at least the statistic, ties and NaN included; see `judged`.

    Parameters
    ----------
    null_draws : array of shape (n_draws,)
    statistic : float

    Returns
    -------
    int

    Point in time
    -------------
    Judges a finished run.
    """
    return int((~(np.asarray(null_draws) < statistic - _TIE * max(1.0, abs(statistic)))).sum())


def check_alpha(alpha: float) -> None:
    """Refuse an alpha outside 0..1.

    Parameters
    ----------
    alpha : float

    Point in time
    -------------
    Reads no data.

    Raises
    ------
    DataError
        If alpha does not lie between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise DataError(f"alpha {alpha} refused. It is the error that is allowed and lies between 0 and 1, as 0.05.")


def insufficient(test: str, null_hypothesis: str, alpha: float, reason: str, seed: int | None = None) -> NullResult:
    """A null result of a question that could not be asked.

    Parameters
    ----------
    test, null_hypothesis, reason : str
    alpha : float
    seed : int, optional

    Returns
    -------
    NullResult
        INSUFFICIENT, statistic and p-value NaN.

    Point in time
    -------------
    Reads no data.
    """
    return NullResult(test, null_hypothesis, np.nan, np.nan, alpha, 0, 0, "INSUFFICIENT", reason, seed)


def holds(position: FloatArray) -> tuple[IntArray, IntArray]:
    """First bar of each run of bars on one side, and the bar after its last.

    Parameters
    ----------
    position : ndarray of shape (n_bars,)

    Returns
    -------
    pair of ndarray of shape (n_holds,), int64
        A run that is still open ends at n_bars.

    Point in time
    -------------
    The end of a run is known at the bar that it names.
    """
    side = np.sign(position)
    edges = np.flatnonzero(np.diff(side, prepend=0.0, append=0.0))
    first, end = edges[:-1], edges[1:]
    is_held = side[first] != 0 if len(first) else np.zeros(0, dtype=np.bool_)
    return first[is_held].astype(np.int64), end[is_held].astype(np.int64)


def circular_shift_test(
    position: ArrayLike, returns: ArrayLike, *, costs: ArrayLike | None = None, alpha: float = 0.05
) -> NullResult:
    """Sharpe ratio against all circular shifts of the positions.

    Null hypothesis: the positions carry no information about the returns of the bars they are held on. Positions and
    returns may each depend on their own past in any way, which a shift leaves as it is; exposure, holding times,
    turnover and the drift earned by mere exposure are the same under the null.

    Parameters
    ----------
    position : array of shape (n_bars,)
        Position held over each bar in units of equity, negative where short; known before the bar begins.
    returns : array of shape (n_bars,), fractions
        Return of the market over each bar.
    costs : array of shape (n_bars,), fractions, optional
        Paid on each bar because of the positions; they move with them.
    alpha : float, 0..1, default=0.05

    Returns
    -------
    NullResult
        ``statistic`` is the Sharpe ratio per bar; ``null_draws`` those of all shifts by at least the longest hold,
        either way round. INSUFFICIENT if the position never changes, or if the shifts amount to fewer independent ones
        (shifts divided by the mean hold) than alpha needs.

    Point in time
    -------------
    Judges a finished run. Position t must be known at the open of bar t; that is not checked here.

    Raises
    ------
    DataError
        If lengths differ, fewer than 2 bars are given or a value is not finite, or alpha does not lie between 0 and 1.

    Notes
    -----
    Neighbouring shifts are alike: the p-value resolves as many steps as there are holds, not bars. It lies where the
    market changes with time (a drift in one half only), or where positions react to their own results.

    Cost
    ----
    O(n_bars log n_bars): the mean of position * return over all shifts is one cross-correlation, its mean square another.

    References
    ----------
    Method of the shifted control: Aronson (2006), Evidence-based technical analysis, ch. 5-6, for detrended rules;
    differs in: all shifts, exactly, by Fourier transforms, and drift kept in the null.
    """
    check_alpha(alpha)
    name, null = "circular shift", "the timing of the positions is unrelated to the returns of the market"
    size, market, paid = _aligned(position, returns, costs)
    reason = _never_asked(size, market)
    first, end = holds(size)
    bars = end - first
    n_bars, longest = len(size), int(bars.max(initial=0))
    shifts = np.arange(longest, n_bars - longest + 1)
    if not reason and not len(shifts):
        reason = f"the longest hold of {longest} bars leaves no shift of {n_bars} bars that is free of it."
    if reason:
        return insufficient(name, null, alpha, reason)
    sharpe = _shifted_sharpe(size, market, paid)
    n_independent = len(shifts) / bars.mean()
    too_few = ""
    if 1 / (1 + n_independent) > alpha:
        too_few = (
            f"{len(first)} holds of {bars.mean():.0f} bars on average make {n_independent:.1f} independent shifts of "
            f"{n_bars} bars; alpha {alpha:g} needs {1 / alpha - 1:.0f}. Test a longer period."
        )
    return judged(name, null, float(sharpe[0]), sharpe[shifts], alpha=alpha, too_few=too_few)


def random_entry_test(
    position: ArrayLike,
    returns: ArrayLike,
    *,
    costs: ArrayLike | None = None,
    n_draws: int = 9_999,
    alpha: float = 0.05,
    seed: int,
    n_threads: int | None = None,
) -> NullResult:
    """Sharpe ratio against the same holds entered at random.

    Null hypothesis: given the holds (each with its direction, sizes, costs and number of bars), all orders of them and
    all ways to divide the flat bars between them are equally likely.

    Parameters
    ----------
    position : array of shape (n_bars,)
        Position held over each bar in units of equity, negative where short. A hold is a run of bars on one side.
    returns : array of shape (n_bars,), fractions
        Return of the market over each bar.
    costs : array of shape (n_bars,), fractions, optional
        Paid on each bar because of the positions. Those of a flat bar, such as that of closing, count with the last bar
        held before it.
    n_draws : int, default=9,999
    alpha : float, 0..1, default=0.05
    seed : int
    n_threads : int, optional
        All processors by default. Results are the same bits for any number.

    Returns
    -------
    NullResult
        INSUFFICIENT if there are no holds, or fewer arrangements of them, or draws, than alpha needs.

    Point in time
    -------------
    Judges a finished run.

    Raises
    ------
    DataError
        If lengths differ, fewer than 2 bars are given, a value is not finite, there are no draws, or alpha
        does not lie between 0 and 1.

    Notes
    -----
    Asks for timing skill. It is weak where the strategy is mostly invested: there is then little room to place the holds
    otherwise. It lies where holds follow volatility, which random entries do not.

    References
    ----------
    Masters (2018), Testing and tuning market trading systems, ch. 7 (randomised entries). Differs in: flat bars are a
    uniform composition, sizes and costs travel with their hold.
    """
    check_alpha(alpha)
    name = "random entry"
    null = "the holds, with their directions, sizes and lengths, could as well have begun at any other bars"
    if n_draws < 1:
        raise DataError(f"n_draws {n_draws} refused. At least one draw is needed; 9,999 are usual.")
    size, market, paid = _aligned(position, returns, costs)
    reason = _never_asked(size, market)
    if reason:
        return insufficient(name, null, alpha, reason, seed)
    first, end = holds(size)
    bars = end - first
    paid = _costs_of_holds(size, paid)
    n_flat = len(size) - int(bars.sum())
    moments = np.empty((n_draws, 2))

    def run(low: int, high: int) -> None:
        placed_moments(size, paid, first, bars, market, n_flat, as_seed(seed), low, high, moments)

    in_threads(n_draws, run, n_threads)
    earned = size * market - paid
    moments = np.vstack([[earned.sum(), (earned**2).sum()], moments])
    sharpe = _sharpe_of_moments(moments[:, 0] / len(size), moments[:, 1] / len(size))
    log_ways = _log_arrangements(size, first, bars, n_flat)
    too_few = ""
    if log_ways < -log(alpha):
        too_few = (
            f"{len(first)} holds and {n_flat} flat bars can be arranged in {np.exp(log_ways):.0f} ways; alpha {alpha:g} "
            f"needs {1 / alpha:.0f}. A strategy that is always invested needs the circular shift."
        )
    return judged(name, null, float(sharpe[0]), sharpe[1:], alpha=alpha, seed=seed, too_few=too_few)


def sign_flip_test(trade_returns: ArrayLike, *, n_draws: int = 9_999, alpha: float = 0.05, seed: int) -> NullResult:
    """Mean result of trades against results of random sign: an extra, wrong under drift and skew.

    Null hypothesis: results are independent and each as likely as its negative. A market that rises rejects it for any
    long strategy; so does a target that lies farther than the stop. Never let a verdict rest on it.

    Parameters
    ----------
    trade_returns : array of shape (n_trades,), fractions or R
        One result a trade; trades must not overlap.
    n_draws : int, default=9,999
    alpha : float, 0..1, default=0.05
    seed : int

    Returns
    -------
    NullResult
        ``statistic`` is the mean result. INSUFFICIENT if there are too few trades or draws for alpha: of n trades there
        are 2**n signs.

    Point in time
    -------------
    Judges a finished run.

    Raises
    ------
    DataError
        If a result is not finite, there are no draws, or alpha does not lie between 0 and 1.

    References
    ----------
    Fisher (1935), The design of experiments, §21 (the test of Darwin's plants).
    """
    check_alpha(alpha)
    name, null = "sign flip (extra)", "results are independent and symmetric about zero: without drift, without skew"
    if n_draws < 1:
        raise DataError(f"n_draws {n_draws} refused. At least one draw is needed; 9,999 are usual.")
    results = checked_returns(trade_returns, name="trade_returns", at_least=0)
    if not results.any():
        return insufficient(name, null, alpha, "no trade won or lost anything.", seed)
    rng = np.random.default_rng(seed)
    n = len(results)
    rows = max(1, 2_000_000 // n)
    draws = [
        (2.0 * rng.integers(0, 2, (min(rows, n_draws - at), n), dtype=np.int8) - 1.0) @ results / n
        for at in range(0, n_draws, rows)
    ]
    too_few = f"{n} trades have {2**n} signs; alpha {alpha:g} needs {1 / alpha:.0f}." if 2.0**-n > alpha else ""
    return judged(name, null, float(results.mean()), np.concatenate(draws), alpha=alpha, seed=seed, too_few=too_few)


def _aligned(
    position: ArrayLike, returns: ArrayLike, costs: ArrayLike | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Positions, returns and costs, bar by bar."""
    size = checked_returns(position, name="position")
    market = checked_returns(returns)
    paid = np.zeros(len(size)) if costs is None else checked_returns(costs, name="costs")
    if not len(size) == len(market) == len(paid):
        raise DataError(
            f"position has {len(size)} bars, returns {len(market)} and costs {len(paid)}. Each bar needs its position, "
            "its return and its cost."
        )
    return size, market, paid


def _never_asked(size: FloatArray, market: FloatArray) -> str:
    """Why there is nothing to test; empty where there is."""
    if not size.any():
        return "there is no position on any bar."
    if is_constant(size):
        return "the position never changes: there is no timing to test."
    return "the returns of the market are constant." if is_constant(market) else ""


def _costs_of_holds(size: FloatArray, paid: FloatArray) -> FloatArray:
    """Costs of flat bars moved to the last bar held before them; those before the first hold to its first bar."""
    is_held = size != 0
    held = np.flatnonzero(is_held)
    owner = held[np.maximum(np.searchsorted(held, np.arange(len(size)), side="right") - 1, 0)]
    return np.bincount(owner, weights=paid, minlength=len(size)).astype(np.float64)


def _log_arrangements(size: FloatArray, first: IntArray, bars: IntArray, n_flat: int) -> float:
    """Log of the number of different ways to place the holds."""
    held = [size[a : a + n].tobytes() for a, n in zip(first, bars, strict=True)]
    log_orders = lgamma(len(held) + 1) - sum(lgamma(count + 1) for count in Counter(held).values())
    return lgamma(n_flat + len(held) + 1) - lgamma(n_flat + 1) - lgamma(len(held) + 1) + log_orders


def _shifted_sharpe(size: FloatArray, market: FloatArray, paid: FloatArray) -> FloatArray:
    """Sharpe ratio per bar with the positions moved on by each number of bars, the end joined to the beginning."""
    n = len(size)
    transform_of_market = fft.rfft(market)

    def summed(moving: FloatArray, still: FloatArray) -> FloatArray:
        return np.asarray(fft.irfft(np.conj(fft.rfft(moving)) * still, n))

    mean = (summed(size, transform_of_market) - paid.sum()) / n
    square = summed(size**2, fft.rfft(market**2)) + (paid**2).sum()
    if paid.any():
        square = square - 2.0 * summed(size * paid, transform_of_market)
    return _sharpe_of_moments(mean, square / n)


def _sharpe_of_moments(mean: FloatArray, square: FloatArray) -> FloatArray:
    """Mean over standard deviation; 0 where nothing varies."""
    variance = square - mean**2
    is_flat = variance <= 1e-14 * square
    return np.asarray(np.where(is_flat, 0.0, mean / np.sqrt(np.where(is_flat, 1.0, variance))))
