"""How much hangs on the very parameters that were chosen: plateau or cliff, surfaces, the price of picking the best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from numbers import Real
from typing import Any

import numpy as np

from qml_plugin.bars import Bars
from qml_plugin.errors import DataError
from qml_plugin.records import FloatArray, IntArray
from qml_plugin.stats.kernels import resampled_rows
from qml_plugin.stats.resampling import automatic_block_length
from qml_plugin.vrd.evaluation import Evaluate, Parameters, Trials, annual_sharpe, run_trials

ONE_AT_A_TIME = (-0.4, -0.2, 0.2, 0.4)
_FEWEST_NEIGHBOURS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Plateau:
    """How well the neighbours of a choice do.

    ``score`` is the mean over neighbours of their metric over that of the choice, each held within 0..1: 1 on a plateau, 0
    on a needle. NaN, with a ``reason``, where there are fewer than 2 neighbours or the choice earns nothing.
    """

    score: float
    chosen: int
    neighbours: IntArray
    neighbour_metrics: FloatArray
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """The metric over two parameters, of shape (len(y_values), len(x_values)); NaN where there was no trial.

    ``metric`` is the mean over all other parameters, ``best`` their highest.
    """

    x_name: str
    y_name: str
    x_values: tuple[Any, ...]
    y_values: tuple[Any, ...]
    metric: FloatArray
    best: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class OneAtATime:
    """What becomes of the metric when one parameter alone is moved.

    ``change_frac`` of the moves, ``values`` that the parameter took, ``metric`` what came of it, NaN where the strategy
    gave nothing.
    """

    name: str
    centre: float
    change_frac: FloatArray
    values: FloatArray
    metric: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class PickingCost:
    """What the best metric owes to having been picked.

    ``observed`` is the metric of the best trial; ``expected`` what the trial that is best in a resample earns, on
    average, in the bars that the resample left out; ``cost`` the difference. ``picked_frac`` of shape (n_trials,) says
    how often each trial was best. Metrics are annual Sharpe ratios.
    """

    observed: float
    expected: float
    cost: float
    picked_frac: FloatArray
    n_draws: int
    block_length: float


def plateau(parameters: Sequence[Parameters], metric: FloatArray, chosen: int | None = None) -> Plateau:
    """How well the trials next to a choice do.

    Parameters
    ----------
    parameters : sequence of n_trials mappings
        All with the same names. Values of a parameter are sorted; a neighbour differs in one parameter by one step of the
        values that were tried, or in one that is not a number.
    metric : ndarray of shape (n_trials,)
        Higher is better.
    chosen : int, optional
        The choice; the highest metric by default.

    Returns
    -------
    Plateau

    Point in time
    -------------
    Judges a finished search.

    Raises
    ------
    DataError
        If lengths or names differ, or nothing was tried.
    """
    names = _names(parameters, metric)
    best = int(np.nanargmax(metric)) if chosen is None else chosen
    place = {name: {value: i for i, value in enumerate(_values(parameters, name))} for name in names}
    coordinates = np.array([[place[name][_key(p[name])] for name in names] for p in parameters], dtype=np.int64)
    coordinates = coordinates.reshape(len(parameters), len(names))
    steps = np.abs(coordinates - coordinates[best])
    is_word = np.array([not _is_number(parameters[best][name]) for name in names], dtype=np.bool_)
    steps[:, is_word] = np.minimum(steps[:, is_word], 1)
    near = np.flatnonzero((steps.sum(axis=1) == 1) & np.isfinite(metric)).astype(np.int64)
    ends = {name: tuple(places)[:: max(1, len(places) - 1)] for name, places in place.items() if len(places) > 1}
    at_edge = [f"{name}={p}" for name, p in parameters[best].items() if _is_number(p) and p in ends.get(name, ())]
    return _plateau(float(metric[best]), best, near, metric[near], at_edge)


def plateau_of_moves(chosen_metric: float, moves: Sequence[OneAtATime]) -> Plateau:
    """Plateau from parameters moved one at a time, for a strategy that was not searched.

    Parameters
    ----------
    chosen_metric : float
    moves : sequence of OneAtATime

    Returns
    -------
    Plateau
        ``neighbours`` only count the moves; a move that gave nothing counts as 0.

    Point in time
    -------------
    Judges a finished run.
    """
    metrics = np.concatenate([np.nan_to_num(move.metric, nan=0.0) for move in moves]) if moves else np.empty(0)
    return _plateau(chosen_metric, 0, np.arange(len(metrics)), metrics)


def surfaces(parameters: Sequence[Parameters], metric: FloatArray) -> tuple[Surface, ...]:
    """The metric over every pair of parameters that vary.

    Parameters
    ----------
    parameters : sequence of n_trials mappings
    metric : ndarray of shape (n_trials,)

    Returns
    -------
    tuple of Surface
        Empty where fewer than two parameters vary.

    Point in time
    -------------
    Judges a finished search.

    Raises
    ------
    DataError
        As `plateau`.
    """
    names = [name for name in _names(parameters, metric) if len(_values(parameters, name)) > 1]
    found = []
    for x_name, y_name in combinations(names, 2):
        x_values, y_values = _values(parameters, x_name), _values(parameters, y_name)
        cells: dict[tuple[int, int], list[float]] = {}
        for p, value in zip(parameters, metric, strict=True):
            cell = (y_values.index(_key(p[y_name])), x_values.index(_key(p[x_name])))
            cells.setdefault(cell, []).append(float(value))
        mean, best = np.full((len(y_values), len(x_values)), np.nan), np.full((len(y_values), len(x_values)), np.nan)
        for (row, column), values in cells.items():
            known = [value for value in values if np.isfinite(value)]
            if known:
                mean[row, column], best[row, column] = np.mean(known), max(known)
        found.append(Surface(x_name, y_name, x_values, y_values, mean, best))
    return tuple(found)


def one_at_a_time(
    bars: Bars,
    evaluate: Evaluate,
    parameters: Parameters,
    *,
    change_frac: Sequence[float] = ONE_AT_A_TIME,
    metric: Callable[[Trials], FloatArray] = Trials.annual_sharpe,
) -> tuple[OneAtATime, ...]:
    """Move each number among the parameters, the others held.

    Parameters
    ----------
    bars : Bars
    evaluate : callable
        As `run_trials`.
    parameters : mapping
        The choice. Whole numbers stay whole (and at least 1 where the choice is); moves that change nothing are left
        out. Booleans and words are not moved.
    change_frac : sequence of float, default=(-0.4, -0.2, 0.2, 0.4)
    metric : callable, optional
        Trials to one number each; the annual Sharpe ratio of excess by default.

    Returns
    -------
    tuple of OneAtATime
        One for each number; empty where there is none.

    Point in time
    -------------
    Judges a finished search.
    """
    found = []
    for name, centre in parameters.items():
        if not _is_number(centre) or centre == 0:
            continue
        moved = [(change, _moved(centre, change)) for change in change_frac]
        moved = [(change, value) for change, value in moved if value != centre]
        metrics = []
        for _, value in moved:
            try:
                metrics.append(float(metric(run_trials(bars, evaluate, [{**parameters, name: value}]))[0]))
            except DataError:  # run_trials says so when the strategy gives nothing: that is the answer here
                metrics.append(np.nan)
        if moved:
            changes, values = (np.array(column, dtype=np.float64) for column in zip(*moved, strict=True))
            found.append(OneAtATime(name, float(centre), changes, values, np.array(metrics)))
    return tuple(found)


def picking_cost(
    returns: FloatArray, per_year: float, *, n_draws: int = 200, block_length: float | None = None, seed: int
) -> PickingCost:
    """What the best of the trials owes to having been picked, by bootstrap over the trials.

    Parameters
    ----------
    returns : ndarray of shape (n_bars, n_trials), fractions
        In excess of the benchmark; all trials, not only good ones.
    per_year : float
        Bars a year.
    n_draws : int, default=200
    block_length : float, >= 1, optional
        `automatic_block_length` of the mean over trials by default.
    seed : int

    Returns
    -------
    PickingCost
        Each resample is drawn by the stationary bootstrap; the bars that it left out, about a third, are its
        out-of-sample. No null hypothesis.

    Point in time
    -------------
    Judges a finished search.

    Raises
    ------
    DataError
        If there are fewer than 20 bars, or no trial.

    References
    ----------
    Efron (1983), Estimating the error rate of a prediction rule, JASA 78(382), §4 (out of bag). Politis & Romano
    (1994), The stationary bootstrap, JASA 89(428), §2.
    """
    n_bars, n_trials = returns.shape
    if n_bars < 20 or n_trials < 1 or n_draws < 1:
        raise DataError(
            f"{n_draws} draws of {n_bars} bars of {n_trials} trials refused. There are 20 bars, a trial and a draw."
        )
    length = automatic_block_length(returns.mean(axis=1)) if block_length is None else block_length
    squares = returns**2
    outside, picked = np.full(n_draws, np.nan), np.zeros(n_trials)
    for draw in range(n_draws):
        rows = resampled_rows(n_bars, n_bars, length, 1, seed + draw)[0]
        weight = np.bincount(rows, minlength=n_bars).astype(np.float64)
        left_out = (weight == 0).astype(np.float64)
        inside = _weighted_sharpe(returns, squares, weight)
        best = int(inside.argmax())
        picked[best] += 1
        outside[draw] = _weighted_sharpe(returns[:, [best]], squares[:, [best]], left_out)[0]
    observed = float(annual_sharpe(returns, per_year).max())
    expected = float(np.nanmean(outside) * np.sqrt(per_year))
    return PickingCost(observed, expected, observed - expected, picked / n_draws, n_draws, float(length))


def _weighted_sharpe(returns: FloatArray, squares: FloatArray, weight: FloatArray) -> FloatArray:
    n = weight.sum()
    if n < 2:
        return np.zeros(returns.shape[1])
    mean, square = weight @ returns / n, weight @ squares / n
    variance = square - mean**2
    is_flat = variance <= 1e-14 * np.maximum(square, 1e-300)
    return np.asarray(np.where(is_flat, 0.0, mean / np.sqrt(np.where(is_flat, 1.0, variance))))


def _plateau(
    chosen_metric: float, chosen: int, near: IntArray, metrics: FloatArray, at_edge: Sequence[str] = ()
) -> Plateau:
    reason = ""
    if not chosen_metric > 0:
        reason = f"the choice itself earns nothing (metric {chosen_metric:.3g})"
    elif len(near) < _FEWEST_NEIGHBOURS:
        tried = "1 neighbour of the choice was" if len(near) == 1 else f"{len(near)} neighbours of the choice were"
        reason = f"{tried} tried; {_FEWEST_NEIGHBOURS} are needed"
        if at_edge:
            reason += f". The choice {', '.join(at_edge)} stands at the edge of the grid: extend it beyond"
    score = np.nan if reason else float(np.clip(metrics / chosen_metric, 0.0, 1.0).mean())
    return Plateau(score, chosen, near.astype(np.int64), metrics, reason)


def _names(parameters: Sequence[Parameters], metric: FloatArray) -> list[str]:
    if not len(parameters) == len(metric) > 0:
        raise DataError(f"{len(parameters)} sets of parameters and {len(metric)} metrics refused. Each trial has both.")
    names = list(parameters[0])
    for i, p in enumerate(parameters):
        if set(p) != set(names):
            raise DataError(f"trial {i} has parameters {sorted(p)}, trial 0 {sorted(names)}. All have the same names.")
    return names


def _values(parameters: Sequence[Parameters], name: str) -> tuple[Any, ...]:
    """Values of one parameter that were tried: numbers by size, anything else by its text."""
    values = {_key(p[name]) for p in parameters}
    return tuple(sorted(values, key=lambda value: (0, value, "") if _is_number(value) else (1, 0, repr(value))))


def _key(value: Any) -> Any:
    return value if _is_number(value) or isinstance(value, (bool, str, type(None))) else repr(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _moved(centre: Any, change: float) -> Any:
    value = centre * (1 + change)
    if isinstance(centre, (int, np.integer)):
        whole = round(value)
        return max(1, whole) if centre >= 1 else whole
    return value


def parameter_table(trials: Trials) -> dict[str, list[Any]]:
    """Parameters and metrics of all trials as columns.

    Parameters
    ----------
    trials : Trials

    Returns
    -------
    dict of str to list
        A column for each parameter, then ``n_trades`` and ``excess_sharpe`` (annual).

    Point in time
    -------------
    Judges a finished search.
    """
    names: Mapping[str, None] = dict.fromkeys(name for p in trials.parameters for name in p)
    table: dict[str, list[Any]] = {name: [p.get(name) for p in trials.parameters] for name in names}
    return table | {"n_trades": trials.n_trades.tolist(), "excess_sharpe": trials.annual_sharpe().tolist()}
