"""What else could have happened: intervals by the stationary bootstrap, and paths of equity that might have been."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import ArrayLike

from qml_plugin.errors import DataError
from qml_plugin.records import FloatArray, IntArray
from qml_plugin.stats.checked import checked_returns, is_constant
from qml_plugin.stats.kernels import as_seed, equity_paths, in_threads, log_stay, resampled_means, resampled_rows

FAN_QUANTILES = (0.05, 0.25, 0.50, 0.75, 0.95)
_FAN_POINTS = 50


def automatic_block_length(returns: ArrayLike) -> float:
    """Mean length of a block for the stationary bootstrap.

    Parameters
    ----------
    returns : array of shape (n_obs,)

    Returns
    -------
    float, observations, 1..n_obs / 4 (at least 1)
        The longer of the optimal lengths for the returns and for their squares: the second keeps the clustering of
        volatility. 1 where there are fewer than 16 returns or they do not vary.

    Point in time
    -------------
    Reads all returns given: it judges a finished run.

    Raises
    ------
    DataError
        If a return is not finite or there is none.

    References
    ----------
    Politis & White (2004), Automatic block-length selection for the dependent bootstrap, Econometric Reviews 23(1),
    corrected by Patton, Politis & White (2009), ibid. 28(4); by `arch.bootstrap.optimal_block_length`.
    """
    values = checked_returns(returns, at_least=1)
    if len(values) < 16 or is_constant(values):
        return 1.0
    # Imported here because it takes seconds, and what only calibrates or splits should not wait for it.
    from arch.bootstrap import optimal_block_length

    columns = [values] if is_constant(values**2) else [values, values**2]
    found = [float(optimal_block_length(column)["stationary"].iloc[0]) for column in columns]
    return float(np.clip(max(found), 1.0, len(values) / 4))


@dataclass(frozen=True, slots=True, eq=False)
class Interval:
    """An estimate with the interval of its resamples, in the unit of the statistic; ``draws`` are their values."""

    estimate: float
    low: float
    high: float
    level: float
    block_length: float
    draws: FloatArray


def bootstrap_interval(
    returns: ArrayLike,
    statistic: Callable[[FloatArray], float] | None = None,
    *,
    level: float = 0.90,
    n_draws: int = 2_000,
    block_length: float | None = None,
    seed: int,
    n_threads: int | None = None,
) -> Interval:
    """Percentile interval of a statistic of dependent returns.

    Parameters
    ----------
    returns : array of shape (n_obs,)
        In order of time, one a bar or one a trade.
    statistic : callable, optional
        Returns in, number out. Without it the mean, which costs a hundredth.
    level : float, 0..1, default=0.90
        Two-sided; the lower end of a 90 % interval is a lower bound at 5 %.
    n_draws : int, default=2,000
    block_length : float, >= 1, optional
        Mean length of a block; `automatic_block_length` without it.
    seed : int
    n_threads : int, optional
        All processors by default, for the mean. Results are the same bits for any number.

    Returns
    -------
    Interval
        Quantiles of the resampled statistic. An interval of the mean that lies above 0 rejects the null hypothesis of a
        mean of 0; with few or strongly dependent returns it is too narrow.

    Point in time
    -------------
    Reads all returns given: it judges a finished run.

    Raises
    ------
    DataError
        If there are fewer than 2 returns, one is not finite, the statistic of a resample is not, or an option lies
        outside its range.

    References
    ----------
    Politis & Romano (1994), The stationary bootstrap, JASA 89(428), §2 and §4.
    """
    values = checked_returns(returns)
    length = automatic_block_length(values) if block_length is None else float(block_length)
    if not 0 < level < 1 or n_draws < 1 or not 1 <= length <= len(values):
        raise DataError(
            f"level {level}, n_draws {n_draws}, block_length {length} refused. level lies between 0 and 1, there is at "
            f"least one draw, and a block has from 1 to all {len(values)} observations."
        )
    if statistic is None:
        estimate = float(values.mean())
        centred = (values - estimate)[:, None]
        draws = estimate + resampled_means(centred, n_draws, length, seed, n_threads)[:, 0]
    else:
        estimate = float(statistic(values))
        rows = (resampled_rows(len(values), len(values), length, 1, seed, first_draw=i)[0] for i in range(n_draws))
        draws = np.array([float(statistic(values[drawn])) for drawn in rows])
    bad = np.flatnonzero(~np.isfinite(np.append(draws, estimate)))
    if len(bad):
        raise DataError(
            f"the statistic is not finite in {len(bad)} of {n_draws} resamples and the data. It must be defined for any "
            "draw of the returns; give it a value where it is not."
        )
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), level, length, draws)


def pessimist_mean(
    returns: ArrayLike,
    *,
    level: float = 0.05,
    n_draws: int = 2_000,
    block_length: float | None = None,
    seed: int,
) -> float:
    """Lower bound of the mean return, for those who doubt that the sample was typical.

    Parameters
    ----------
    returns : array of shape (n_obs,)
    level : float, 0..0.5, default=0.05
        One-sided error of the bound.
    n_draws, block_length, seed
        As `bootstrap_interval`.

    Returns
    -------
    float, per observation
        Never above the mean of the returns.

    Point in time
    -------------
    Reads all returns given: it judges a finished run.

    Raises
    ------
    DataError
        As `bootstrap_interval`.

    References
    ----------
    As `bootstrap_interval`.
    """
    if not 0 < level < 0.5:
        raise DataError(f"level {level} refused. It is the error of a lower bound, between 0 and 0.5.")
    found = bootstrap_interval(returns, level=1 - 2 * level, n_draws=n_draws, block_length=block_length, seed=seed)
    return min(found.low, found.estimate)


@dataclass(frozen=True, slots=True, eq=False)
class MonteCarlo:
    """Equity of many paths that start at 1: arrays of shape (n_paths,), one value a path.

    ``max_drawdown_frac`` is the deepest fall below the highest equity so far, the start included, 0..1;
    ``under_water_steps`` the longest stretch below it; ``ruin_step`` the first step after which equity was at or below
    ``ruin_equity``, 0 where it never was. ``fan`` holds quantiles (`FAN_QUANTILES`, a column each) of equity after
    ``fan_steps``. ``mean_return`` is the mean that was taken as true.
    """

    max_drawdown_frac: FloatArray
    under_water_steps: IntArray
    ruin_step: IntArray
    final_equity: FloatArray
    fan_steps: IntArray
    fan: FloatArray
    mean_return: float
    block_length: float
    ruin_equity: float
    n_steps: int
    seed: int

    def ruin_probability(self, by_step: float = inf) -> float:
        """Share of paths that were ruined after at most so many steps, 0..1."""
        return float(((self.ruin_step > 0) & (self.ruin_step <= by_step)).mean())


def monte_carlo(
    returns: ArrayLike,
    *,
    n_paths: int = 50_000,
    n_steps: int | None = None,
    block_length: float = 1.0,
    mean_return: float | None = None,
    ruin_equity: float = 0.5,
    seed: int,
    n_threads: int | None = None,
) -> MonteCarlo:
    """Drawdown, ruin and time under water of paths drawn from returns.

    Parameters
    ----------
    returns : array of shape (n_obs,), fractions of equity
        One a trade or a bar, compounded one after the other.
    n_paths : int, default=50,000
    n_steps : int, optional
        Returns in a path; as many as there are by default.
    block_length : float, >= 1, default=1.0
        Mean length of a block of the stationary bootstrap. 1 draws independently; `automatic_block_length` keeps what
        dependence there is. The two may differ much: look at both.
    mean_return : float, optional
        Mean to move the returns to. Resampling takes the mean of the sample as true; `pessimist_mean` does not.
    ruin_equity : float, 0..1, default=0.5
        Equity, in units of the start, at or below which a path is ruined.
    seed : int
    n_threads : int, optional
        All processors by default. Results are the same bits for any number.

    Returns
    -------
    MonteCarlo
        A return of -1 or less leaves an equity of 0 for good. Other paths go on after ruin.

    Point in time
    -------------
    Reads all returns given: it judges a finished run.

    Raises
    ------
    DataError
        If there are fewer than 2 returns, one is not finite, or an option lies outside its range.

    Notes
    -----
    No null hypothesis: it shows what luck can do to *these* returns. It knows no loss that was not in the sample.

    Cost
    ----
    O(n_paths * n_steps) time; memory of some 430 bytes a path.

    References
    ----------
    Politis & Romano (1994), The stationary bootstrap, JASA 89(428), §2.
    """
    values = checked_returns(returns)
    n_steps = len(values) if n_steps is None else n_steps
    is_possible = n_paths >= 1 and n_steps >= 1 and 1 <= block_length <= len(values) and 0 <= ruin_equity < 1
    if not is_possible or not np.isfinite(0.0 if mean_return is None else mean_return):
        raise DataError(
            f"n_paths {n_paths}, n_steps {n_steps}, block_length {block_length}, ruin_equity {ruin_equity}, mean_return "
            f"{mean_return} refused. There is at least one path of one step, a block has from 1 to all {len(values)} "
            "returns, ruin_equity is a share of the start below 1, and a mean is finite."
        )
    if mean_return is not None:
        values = values - values.mean() + mean_return
    fan_steps = np.unique(np.linspace(1, n_steps, min(n_steps, _FAN_POINTS)).round().astype(np.int64))
    drawdown, equity = np.empty(n_paths), np.empty((n_paths, len(fan_steps)))
    under_water, ruin_step = np.empty(n_paths, dtype=np.int64), np.empty(n_paths, dtype=np.int64)

    def run(low: int, high: int) -> None:
        equity_paths(
            values, n_steps, log_stay(block_length), ruin_equity, fan_steps, as_seed(seed), low, high,
            drawdown, under_water, ruin_step, equity,
        )  # fmt: skip

    in_threads(n_paths, run, n_threads)
    fan = np.quantile(equity, FAN_QUANTILES, axis=0).T
    return MonteCarlo(
        drawdown, under_water, ruin_step, equity[:, -1].copy(), fan_steps, fan,
        float(values.mean()), float(block_length), ruin_equity, n_steps, seed,
    )  # fmt: skip
