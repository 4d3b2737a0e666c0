"""What a strategy did on each bar: the one form in which every host's strategies are validated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pandas as pd

from qml_plugin.bars import Bars
from qml_plugin.errors import DataError
from qml_plugin.records import FloatArray, IntArray
from qml_plugin.stats.nulls import holds
from qml_plugin.stats.sharpe import excess_returns

Parameters = Mapping[str, Any]
_YEAR_US = 365.25 * 86_400e6


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What one set of parameters did on the bars; arrays of shape (n_bars,), oldest first.

    ``returns`` are fractions of equity with costs in. ``exposure`` is the position held over the bar in units of equity,
    negative where short, known before the bar begins. ``costs`` are the fractions that ``returns`` already holds.
    ``entry_bar``, ``exit_bar`` and ``trade_returns``, of shape (n_trades,), are the trades in order of entry; those
    still open are left out.
    """

    returns: FloatArray
    exposure: FloatArray
    costs: FloatArray
    entry_bar: IntArray
    exit_bar: IntArray
    trade_returns: FloatArray

    @property
    def n_trades(self) -> int:
        return len(self.trade_returns)


class Evaluate(Protocol):
    """A strategy as a function of bars and parameters; row t of the answer knows bars 0..t only."""

    def __call__(self, bars: Bars, parameters: Parameters) -> Evaluation: ...


@dataclass(frozen=True, slots=True)
class Positions:
    """A strategy made of a function that gives positions: calling it evaluates parameters on bars.

    Parameters
    ----------
    position : callable
        Bars and parameters to an array of shape (n_bars,): the position wanted at the *close* of each bar, in units of
        equity. It is held over the next bar.
    cost_frac : float, >= 0, default=0.0
        Fees and slippage for each unit of equity that changes hands, so half a round trip.

    Point in time
    -------------
    The position wanted at the close of bar t earns from bar t + 1 on.
    """

    position: Callable[[Bars, Parameters], Any]
    cost_frac: float = 0.0

    def __post_init__(self) -> None:
        if not self.cost_frac >= 0:
            raise DataError(f"cost_frac is {self.cost_frac}. It is a share of what changes hands, 0 or more.")

    def __call__(self, bars: Bars, parameters: Parameters) -> Evaluation:
        wanted = np.asarray(self.position(bars, parameters), dtype=np.float64)
        if wanted.shape != (len(bars),):
            raise DataError(f"positions have shape {wanted.shape} on {len(bars)} bars. There is one for each bar.")
        exposure = np.concatenate([[0.0], wanted[:-1]])
        return evaluation_of_exposure(exposure, market_returns(bars), self.cost_frac)


def evaluation_of_exposure(exposure: FloatArray, market: FloatArray, cost_frac: float) -> Evaluation:
    """Evaluation of positions that pay a share of what changes hands.

    Parameters
    ----------
    exposure, market : ndarray of shape (n_bars,)
        Position held over each bar, and the market's return over it.
    cost_frac : float, >= 0

    Returns
    -------
    Evaluation
        A trade is a run of bars on one side; its return adds up those of its bars, costs of entry and exit included. A
        change is paid for on the first bar of the new position.

    Point in time
    -------------
    Row t reads rows 0..t.
    """
    costs = cost_frac * np.abs(np.diff(exposure, prepend=0.0))
    gross = exposure * market
    first, end = holds(exposure)
    is_closed = end < len(exposure)
    first, end = first[is_closed], end[is_closed]
    earned = np.concatenate([[0.0], np.cumsum(gross)])
    change_within = np.concatenate([[0.0], np.cumsum(costs)])
    within = change_within[end] - change_within[np.minimum(first + 1, end)]
    paid = within + cost_frac * (np.abs(exposure[first]) + np.abs(exposure[end - 1]))
    return Evaluation(gross - costs, exposure, costs, first, end, earned[end] - earned[first] - paid)


def market_returns(bars: Bars) -> FloatArray:
    """Return of the market over each bar, from close to close; 0 for the first.

    Parameters
    ----------
    bars : Bars

    Returns
    -------
    ndarray of shape (n_bars,), fractions

    Point in time
    -------------
    Row t reads the closes t - 1 and t.
    """
    return np.concatenate([[0.0], bars.close[1:] / bars.close[:-1] - 1.0])


def bars_per_year(bars: Bars) -> float:
    """Bars a year, counted: markets that close have fewer than the clock would give.

    Parameters
    ----------
    bars : Bars
        At least 2.

    Returns
    -------
    float

    Point in time
    -------------
    Reads the first and the last stamp.
    """
    return (len(bars) - 1) / (int(bars.known_at[-1] - bars.known_at[0]) / _YEAR_US)


def evaluation_of_stats(stats: Mapping[str, Any], bars: Bars) -> Evaluation:
    """Evaluation of a run of backtesting.py.

    Parameters
    ----------
    stats : Series
        What ``Backtest.run`` returns.
    bars : Bars
        Those of the run.

    Returns
    -------
    Evaluation
        ``returns`` are those of the equity. ``exposure`` values each trade at its entry price over the equity before it; a
        trade that left at the open of a bar is not held over it. ``costs`` are the commissions, half at entry and half
        at exit; a spread is in the prices and is not seen.

    Point in time
    -------------
    Whether the strategy looked ahead is for the audit to say.

    Raises
    ------
    DataError
        If the run was made on other bars.
    """
    equity = np.asarray(stats["_equity_curve"]["Equity"], dtype=np.float64)
    trades: pd.DataFrame = stats["_trades"]
    n = len(bars)
    if len(equity) != n:
        raise DataError(f"the run has {len(equity)} bars of equity and the market {len(bars)}. Run it on these bars.")
    before = np.concatenate([equity[:1], equity[:-1]])
    steps, costs = np.zeros(n + 1), np.zeros(n)
    first = trades["EntryBar"].to_numpy(np.int64)
    last = trades["ExitBar"].to_numpy(np.int64)
    is_out_at_open = trades["ExitPrice"].to_numpy(np.float64) == bars.open[last]
    end = np.maximum(np.where(is_out_at_open, last, last + 1), np.minimum(first + 1, n))
    value = trades["Size"].to_numpy(np.float64) * trades["EntryPrice"].to_numpy(np.float64) / before[first]
    np.add.at(steps, first, value)
    np.add.at(steps, end, -value)
    if "Commission" in trades:
        half = trades["Commission"].to_numpy(np.float64) / 2
        np.add.at(costs, first, half / before[first])
        np.add.at(costs, last, half / before[last])
    exposure = np.cumsum(steps)[:n]
    exposure[np.abs(exposure) < 1e-12] = 0.0
    order = np.argsort(first, kind="stable")
    worth = trades["PnL"].to_numpy(np.float64) / before[first]
    return Evaluation(equity / before - 1.0, exposure, costs, first[order], end[order], worth[order])


def frame_of(bars: Bars) -> pd.DataFrame:
    """The bars as a frame that hosts read: Open, High, Low, Close, Volume by opening time.

    Parameters
    ----------
    bars : Bars

    Returns
    -------
    DataFrame of shape (n_bars, 5)
        Naive UTC stamps; Volume is 0 where it is not known, which hosts demand.

    Point in time
    -------------
    Row t reads bar t.
    """
    columns = {"Open": bars.open, "High": bars.high, "Low": bars.low, "Close": bars.close}
    return pd.DataFrame(
        columns | {"Volume": np.nan_to_num(bars.volume)},
        index=pd.DatetimeIndex(bars.opened_at.astype("datetime64[us]"), name="time"),
    )


@dataclass(frozen=True, slots=True)
class Backtests:
    """A strategy of backtesting.py, or of any host whose stats look like its, as a function to evaluate.

    Parameters
    ----------
    run : callable
        A frame of bars and parameters to stats, such as
        ``lambda frame, parameters: Backtest(frame, Strategy, commission=0.001).run(**parameters)``.
    """

    run: Callable[[pd.DataFrame, Parameters], Mapping[str, Any]]

    def __call__(self, bars: Bars, parameters: Parameters) -> Evaluation:
        return evaluation_of_stats(self.run(frame_of(bars), parameters), bars)


@dataclass(frozen=True, slots=True)
class FailedTrial:
    """Parameters that gave no result, and why."""

    parameters: Parameters
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Trials:
    """All parameters that were tried on the same bars; matrices of shape (n_bars, n_trials), a column a trial.

    ``market`` holds the market's returns, ``bars_per_year`` makes Sharpe ratios annual. ``failed`` are the parameters
    that gave nothing; they were tried all the same.
    """

    parameters: tuple[Parameters, ...]
    returns: FloatArray
    exposure: FloatArray
    costs: FloatArray
    n_trades: IntArray
    market: FloatArray
    bars_per_year: float
    failed: tuple[FailedTrial, ...] = field(default=())

    @property
    def n_bars(self) -> int:
        return len(self.market)

    @property
    def n_trials(self) -> int:
        return len(self.parameters)

    def excess(self) -> FloatArray:
        """Returns of each trial less those of the market at the trial's mean exposure, of shape (n_bars, n_trials)."""
        return np.asarray(self.returns - self.exposure.mean(axis=0) * self.market[:, None])

    def annual_sharpe(self) -> FloatArray:
        """Annual Sharpe ratio of each trial's excess, of shape (n_trials,); 0 for a trial that never varies."""
        return annual_sharpe(self.excess(), self.bars_per_year)


def annual_sharpe(returns: FloatArray, per_year: float) -> FloatArray:
    """Annual Sharpe ratio of each column; 0 where nothing varies.

    Parameters
    ----------
    returns : ndarray of shape (n_obs,) or (n_obs, n_trials), fractions
    per_year : float
        Observations a year.

    Returns
    -------
    ndarray of shape () or (n_trials,)

    Point in time
    -------------
    Reads all rows: it judges a finished run.
    """
    spread = returns.std(axis=0, ddof=1)
    is_flat = spread <= 1e-12 * np.abs(returns).max(axis=0)
    return np.asarray(np.where(is_flat, 0.0, returns.mean(axis=0) / np.where(is_flat, 1.0, spread)) * np.sqrt(per_year))


def run_trials(
    bars: Bars,
    evaluate: Evaluate,
    grid: Sequence[Parameters],
    *,
    on_progress: Callable[[int, int], object] | None = None,
) -> Trials:
    """Try every set of parameters on the bars.

    Parameters
    ----------
    bars : Bars
    evaluate : callable
        Bars and parameters to an Evaluation.
    grid : sequence of mappings
        The search, one mapping a trial; at least one.
    on_progress : callable, optional
        Called with (trials done, trials in all).

    Returns
    -------
    Trials
        A trial that raised, or returned something that is no result, is in ``failed`` with its reason.

    Point in time
    -------------
    As that of `evaluate`.

    Raises
    ------
    DataError
        If the grid is empty or every trial failed; the first reason is named.
    """
    if not grid:
        raise DataError("the grid of parameters is empty. One mapping, even an empty one {}, is one trial.")
    good: list[tuple[Parameters, Evaluation]] = []
    failed = []
    for done, parameters in enumerate(grid, 1):
        try:
            good.append((parameters, checked_evaluation(evaluate(bars, parameters), len(bars))))
        except Exception as error:  # noqa: BLE001  a strategy is foreign code: what it raises is the trial's result
            failed.append(FailedTrial(dict(parameters), f"{type(error).__name__}: {error}"))
        if on_progress is not None:
            on_progress(done, len(grid))
    if not good:
        which = "the only trial failed" if len(grid) == 1 else f"all {len(grid)} trials failed, the first"
        raise DataError(
            f"{which}, {failed[0].parameters}, with {failed[0].reason}. Mend the strategy or its parameters."
        )
    found = [evaluation for _, evaluation in good]
    return Trials(
        tuple(dict(parameters) for parameters, _ in good),
        np.column_stack([one.returns for one in found]),
        np.column_stack([one.exposure for one in found]),
        np.column_stack([one.costs for one in found]),
        np.array([one.n_trades for one in found], dtype=np.int64),
        market_returns(bars),
        bars_per_year(bars),
        tuple(failed),
    )


def checked_evaluation(evaluation: Evaluation, n_bars: int) -> Evaluation:
    """The evaluation, refused where it is none of these bars.

    Parameters
    ----------
    evaluation : Evaluation
    n_bars : int

    Returns
    -------
    Evaluation
        The one given.

    Point in time
    -------------
    Changes nothing.

    Raises
    ------
    DataError
        If an array has another length or holds a value that is not finite.
    """
    for name in ("returns", "exposure", "costs"):
        values = getattr(evaluation, name)
        if np.shape(values) != (n_bars,):
            raise DataError(f"{name} has shape {np.shape(values)} on {n_bars} bars. There is one value for each bar.")
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise DataError(
                f"{name} is {values[bad[0]]} at bar {bad[0]}, the first of {len(bad)} that are not finite. A bar without a "
                "position has return 0; missing is not zero."
            )
    return evaluation


def chosen_excess(trials: Trials, trial: int) -> FloatArray:
    """Excess returns of one trial; see `stats.sharpe.excess_returns`.

    Parameters
    ----------
    trials : Trials
    trial : int
        Column.

    Returns
    -------
    ndarray of shape (n_bars,)

    Point in time
    -------------
    Uses the mean exposure of the whole run: it judges a finished run.
    """
    return excess_returns(trials.returns[:, trial], trials.exposure[:, trial], trials.market)
