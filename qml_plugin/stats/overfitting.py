"""What searching does to results: the chance that the best was overfitted, and whether any trial is better than luck."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, islice
from math import comb, log

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft

from qml_plugin.errors import DataError
from qml_plugin.records import FloatArray, IntArray
from qml_plugin.stats.checked import checked_matrix
from qml_plugin.stats.kernels import resampled_means
from qml_plugin.stats.nulls import NullResult, exceeding, judged
from qml_plugin.stats.resampling import automatic_block_length

_ROWS_AT_ONCE = 1_000
_MOST_SPLITS = 20


@dataclass(frozen=True, slots=True, eq=False)
class Overfitting:
    """What became out of sample of the trial that was best in sample, for each way to halve the blocks.

    ``pbo`` is the share of ways in which it came in the lower half, ties with the middle included; ``logits`` their
    log-odds of its relative rank; ``in_sample`` and ``out_of_sample`` its Sharpe ratios per observation;
    ``loss_frac`` the share of ways in which the latter was below 0.
    """

    pbo: float
    logits: FloatArray
    in_sample: FloatArray
    out_of_sample: FloatArray
    loss_frac: float


def pbo(returns_matrix: ArrayLike, n_splits: int = 16) -> Overfitting:
    """Probability of backtest overfitting, by combinatorially symmetric cross-validation.

    Null hypothesis it describes: being best in sample says nothing about the rank out of sample; PBO is then about 0.5,
    with a standard deviation of 0.18. It is no test.

    Parameters
    ----------
    returns_matrix : array of shape (n_obs, n_trials), fractions
        A column a trial: all that were ever tried, not only good ones; a row an observation, in order of time.
    n_splits : int, even, 2..20, default=16
        Blocks of nearly equal length; half of them make a sample.

    Returns
    -------
    Overfitting
        A trial that does not vary within a half has a Sharpe ratio of 0 there.

    Point in time
    -------------
    Reads all rows, in any order of halves: it judges a finished search.

    Raises
    ------
    DataError
        If there are fewer than 2 trials, fewer than 2 observations a block, no trial varies, a value is not finite or
        n_splits is odd or out of range.

    Notes
    -----
    One PBO is one noisy draw: on noise it is below 0.2 in one case of twenty. It cannot tell skill that all trials
    share from none, so it must not veto alone; and in-sample and out-of-sample results are negatively related by
    construction, because the halves add up to the whole.

    References
    ----------
    Bailey, Borwein, López de Prado & Zhu (2017), The probability of backtest overfitting, Journal of Computational
    Finance 20(4), §3.1 (algorithm) and definition 3.2 (lambda <= 0 counts). Differs in: blocks need not divide n_obs.
    """
    matrix = checked_matrix(returns_matrix)
    n_obs, n_trials = matrix.shape
    if n_splits % 2 or not 2 <= n_splits <= _MOST_SPLITS or n_obs < 2 * n_splits or n_trials < 2:
        raise DataError(
            f"{n_trials} trials of {n_obs} observations in n_splits {n_splits} blocks refused. There must be 2 trials, "
            f"an even number of blocks up to {_MOST_SPLITS}, and 2 observations in each."
        )
    centre = matrix.mean(axis=0)
    moved = matrix - centre
    if _is_flat(matrix).all():
        raise DataError(f"none of {n_trials} trials varies. Without any trade there is nothing that was overfitted.")
    blocks = np.array_split(moved, n_splits)
    sums = np.array([block.sum(axis=0) for block in blocks])
    squares = np.array([(block**2).sum(axis=0) for block in blocks])
    counts = np.array([len(block) for block in blocks], dtype=np.float64)

    def sharpe(is_chosen: FloatArray) -> FloatArray:
        n = (is_chosen @ counts)[:, None]
        mean, square = is_chosen @ sums / n, is_chosen @ squares / n
        variance = (square - mean**2) * n / (n - 1)
        is_flat = variance <= 1e-12 * (square + centre**2)
        return np.where(is_flat, 0.0, (mean + centre) / np.sqrt(np.where(is_flat, 1.0, variance)))

    ways = combinations(range(n_splits), n_splits // 2)
    ranks, inside, outside = [], [], []
    while chosen := list(islice(ways, _ROWS_AT_ONCE)):
        is_chosen = np.zeros((len(chosen), n_splits))
        is_chosen[np.arange(len(chosen))[:, None], np.array(chosen)] = 1.0
        ours, theirs = sharpe(is_chosen), sharpe(1.0 - is_chosen)
        rows, best = np.arange(len(chosen)), ours.argmax(axis=1)
        achieved = theirs[rows, best][:, None]
        ranks.append((theirs < achieved).sum(axis=1) + ((theirs == achieved).sum(axis=1) + 1) / 2)
        inside.append(ours[rows, best])
        outside.append(achieved[:, 0])
    assert sum(map(len, ranks)) == comb(n_splits, n_splits // 2)
    place = np.concatenate(ranks) / (n_trials + 1)
    logits = np.log(place / (1 - place))
    out = np.concatenate(outside)
    return Overfitting(float((logits <= 0).mean()), logits, np.concatenate(inside), out, float((out < 0).mean()))


def effective_n_trials(returns_matrix: ArrayLike) -> float:
    """Number of independent trials that correlated trials amount to.

    Parameters
    ----------
    returns_matrix : array of shape (n_obs, n_trials), fractions
        A column a trial. Columns that do not vary have no say, but the best was chosen among at least one.

    Returns
    -------
    float, 1..n_trials
        ``c + (1 - c) * n``, c being the mean correlation of two trials, at least 0. A heuristic for
        `deflated_sharpe_ratio`; no null hypothesis.

    Point in time
    -------------
    Reads all rows: it judges a finished search.

    Raises
    ------
    DataError
        If a value is not finite or there are fewer than 2 observations.

    References
    ----------
    Bailey & López de Prado (2014), The deflated Sharpe ratio, Journal of Portfolio Management 40(5), appendix A.3.
    """
    matrix = checked_matrix(returns_matrix)
    moved = matrix - matrix.mean(axis=0)
    spread = np.sqrt((moved**2).sum(axis=0))
    varies = spread > 1e-12 * np.sqrt((matrix**2).sum(axis=0))
    n = int(varies.sum())
    if n < 2:
        return 1.0
    # The sum of all entries of a correlation matrix is the squared length of the sum of the unit columns.
    total = float(((moved[:, varies] / spread[varies]).sum(axis=1) ** 2).sum())
    mean = min(1.0, max(0.0, (total - n) / (n * (n - 1))))
    return mean + (1 - mean) * n


@dataclass(frozen=True, slots=True, eq=False)
class SuperiorAbility:
    """Whether the best of all trials beats its benchmark by more than searching explains.

    ``null`` is the test itself, with the consistent p-value; ``p_lower`` and ``p_upper`` bound it. ``best_trial`` is the
    column with the highest statistic, and ``superior_trials`` are the columns that beat the benchmark with a family-wise
    error of alpha (StepM).
    """

    null: NullResult
    p_lower: float
    p_upper: float
    best_trial: int
    superior_trials: IntArray
    block_length: float

    @property
    def p_consistent(self) -> float:
        """The p-value of ``null``."""
        return self.null.p_value


def superior_predictive_ability(
    returns_matrix: ArrayLike,
    *,
    n_draws: int = 999,
    block_length: float | None = None,
    is_studentised: bool = True,
    alpha: float = 0.05,
    seed: int,
    n_threads: int | None = None,
) -> SuperiorAbility:
    """Hansen's test of superior predictive ability, and the trials that pass one by one.

    Null hypothesis: no trial has a mean return above 0. All trials are judged together, so the search is paid for.

    Parameters
    ----------
    returns_matrix : array of shape (n_obs, n_trials), fractions
        A column a trial, *in excess of its benchmark*: cash, or the market at the trial's mean exposure
        (`excess_returns`).
    n_draws : int, default=999
        Resamples of the stationary bootstrap.
    block_length : float, >= 1, optional
        Mean length of a block; by default that of the mean over the trials (`automatic_block_length`).
    is_studentised : bool, default=True
        Divide each mean by its standard error, so that a wild trial does not drown the others. Without, the upper
        p-value is White's.
    alpha : float, 0..1, default=0.05
    seed : int
    n_threads : int, optional
        All processors by default. Results are the same bits for any number.

    Returns
    -------
    SuperiorAbility
        ``null.statistic`` is the highest t-ratio, or the highest mean times the root of n_obs, at least 0.

    Point in time
    -------------
    Reads all rows: it judges a finished search.

    Raises
    ------
    DataError
        If there are fewer than 10 observations, a value is not finite, a trial always earns the same other than 0, or
        an option lies outside its range.

    Notes
    -----
    It charges for the trials it is shown: a search whose bad trials were not kept looks better than it is. A market that
    rises fools it if returns are not in excess of the market's.

    Cost
    ----
    O(n_obs * n_trials * n_draws / block_length).

    References
    ----------
    Hansen (2005), A test for superior predictive ability, JBES 23(4), eq. (1), §2.3-3.2. White (2000), A reality check
    for data snooping, Econometrica 68(5), for is_studentised=False and ``p_upper``. Romano & Wolf (2005), Stepwise
    multiple testing as formalized data snooping, Econometrica 73(4), algorithms 3.1 and 4.1.
    """
    matrix, length = _search_of(returns_matrix, n_draws, block_length)
    n_obs, n_trials = matrix.shape
    mean, is_flat = matrix.mean(axis=0), _is_flat(matrix)
    centred = matrix - mean
    error = _long_run_sd(centred, length)
    means = resampled_means(centred, n_draws, length, seed, n_threads)
    scale = np.sqrt(n_obs) / np.where(is_flat, np.inf, error if is_studentised else 1.0)
    observed, moved = mean * scale, means * scale
    is_hopeless = mean < -error * np.sqrt(2 * log(log(n_obs)) / n_obs)
    statistic = max(0.0, float(observed.max()))

    def best(shift: FloatArray) -> FloatArray:
        return np.asarray(np.maximum((moved + shift).max(axis=1), 0.0))

    def p_of(draws: FloatArray) -> float:
        return (1 + exceeding(draws, statistic)) / (1 + n_draws)

    null = judged(
        "superior predictive ability", "no trial has a mean return above that of its benchmark", statistic,
        best(np.where(is_hopeless, observed, 0.0)), alpha=alpha, seed=seed,
    )  # fmt: skip
    return SuperiorAbility(
        null,
        p_of(best(np.minimum(observed, 0.0))),
        p_of(best(np.zeros(n_trials))),
        int(observed.argmax()),
        _stepwise(observed, moved, alpha) if null.status != "INSUFFICIENT" else np.empty(0, dtype=np.int64),
        length,
    )


def reality_check(
    returns_matrix: ArrayLike,
    *,
    n_draws: int = 999,
    block_length: float | None = None,
    alpha: float = 0.05,
    seed: int,
    n_threads: int | None = None,
) -> NullResult:
    """White's reality check: the highest mean return against resampled ones.

    Null hypothesis: no trial has a mean return above 0, all being as good as 0 at best. Many bad trials take its power;
    `superior_predictive_ability` is the better test.

    Parameters
    ----------
    returns_matrix, n_draws, block_length, alpha, seed, n_threads
        As `superior_predictive_ability`.

    Returns
    -------
    NullResult
        ``statistic`` is the highest mean times the root of n_obs, at least 0.

    Point in time
    -------------
    Reads all rows: it judges a finished search.

    Raises
    ------
    DataError
        As `superior_predictive_ability`.

    References
    ----------
    White (2000), A reality check for data snooping, Econometrica 68(5), §2, with the stationary bootstrap.
    """
    matrix, length = _search_of(returns_matrix, n_draws, block_length)
    mean, root = matrix.mean(axis=0), np.sqrt(len(matrix))
    draws = root * resampled_means(matrix - mean, n_draws, length, seed, n_threads)
    return judged(
        "reality check",
        "no trial has a mean return above that of its benchmark",
        max(0.0, float(mean.max()) * root),
        np.maximum(draws.max(axis=1), 0.0),
        alpha=alpha,
        seed=seed,
    )


def _search_of(returns_matrix: ArrayLike, n_draws: int, block_length: float | None) -> tuple[FloatArray, float]:
    """The trials and the length of a block, checked."""
    matrix = checked_matrix(returns_matrix, at_least=10)
    length = automatic_block_length(matrix.mean(axis=1)) if block_length is None else float(block_length)
    if n_draws < 1 or not 1 <= length <= len(matrix):
        raise DataError(
            f"n_draws {n_draws} and block_length {length} refused. There is at least one draw, and a block has from 1 to "
            f"all {len(matrix)} observations."
        )
    mean = matrix.mean(axis=0)
    certain = np.flatnonzero(_is_flat(matrix) & (mean != 0))
    if len(certain):
        raise DataError(
            f"trial {certain[0]} earns {mean[certain[0]]:g} on every observation. A return without a spread cannot be "
            "tested; leave the trial out."
        )
    return matrix, length


def _is_flat(matrix: FloatArray) -> NDArray[np.bool_]:
    """Which columns vary by no more than rounding."""
    return np.asarray(np.ptp(matrix, axis=0) <= 1e-12 * np.abs(matrix).max(axis=0))


def _long_run_sd(centred: FloatArray, block_length: float) -> FloatArray:
    """Standard deviation of root-n times the mean that the stationary bootstrap gives each column; Hansen §3.1."""
    n_obs = len(centred)
    spectrum = np.abs(fft.rfft(centred, fft.next_fast_len(2 * n_obs), axis=0)) ** 2
    covariance = fft.irfft(spectrum, fft.next_fast_len(2 * n_obs), axis=0)[:n_obs] / n_obs
    lag, stay = np.arange(n_obs), 1.0 - 1.0 / block_length
    weight = (1 - lag / n_obs) * stay**lag + lag / n_obs * stay ** (n_obs - lag)
    weight[0] = 0.5
    return np.asarray(np.sqrt(np.maximum(2 * weight @ covariance, 0.0)))


def _stepwise(observed: FloatArray, moved: FloatArray, alpha: float) -> IntArray:
    """Trials above the critical value of all that are left, again and again until there are no more."""
    is_superior = np.zeros(len(observed), dtype=np.bool_)
    while not is_superior.all():
        highest = np.sort(moved[:, ~is_superior].max(axis=1))
        # The critical value whose exceedance has a p-value of (1 + b) / (1 + B) <= alpha, as in the test itself.
        n_above = int(np.floor(alpha * (1 + len(highest)) + 1e-9)) - 1
        newly = ~is_superior & (observed > max(0.0, highest[len(highest) - 1 - n_above]))
        if not newly.any():
            break
        is_superior |= newly
    return np.flatnonzero(is_superior).astype(np.int64)
