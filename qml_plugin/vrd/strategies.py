"""A strategy class on a series of bars, from its parameters to the verdict; and returns that come from a file."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qml_plugin import provenance
from qml_plugin.adapters import plain_runs
from qml_plugin.adapters.backtesting_py import BUNDLED, bundled_data
from qml_plugin.adapters.recorded_run import Start, nothing_recorded
from qml_plugin.audit import audit
from qml_plugin.bars import Bars, bars_from_frame, read_bars
from qml_plugin.clock import canonical_timeframe
from qml_plugin.errors import DataError, QmlError
from qml_plugin.features.catalogue import CATALOGUE
from qml_plugin.gate import GateTrial, gate_trial
from qml_plugin.provenance import SHIPPED, canonical_json, place_of, plain
from qml_plugin.records import FloatArray
from qml_plugin.registry import PatternRegistry
from qml_plugin.vrd.accounts import evaluation_of_orders
from qml_plugin.vrd.attribution import attribute
from qml_plugin.vrd.evaluation import Evaluation, Parameters, checked_evaluation, evaluation_of_stats, frame_of
from qml_plugin.vrd.gates import AuditFinding
from qml_plugin.vrd.keeping import as_plain
from qml_plugin.vrd.returns_file import read_returns
from qml_plugin.vrd.thresholds import Thresholds
from qml_plugin.vrd.trial_ledger import Attempt, TrialLedger
from qml_plugin.vrd.validate import Plan, Progress, Step, Validation, validate, validate_returns

FULL, QUICK = Plan(), Plan(n_draws=499, n_paths=5_000, is_importance=False)
_N_SEARCHED, _SEARCH_FACTORS = 3, (0.6, 1.0, 1.6)
_MOST_TRIALS = 2_000
_AUDIT_CUTS = {True: 2, False: 10}


@dataclass(frozen=True, slots=True)
class StrategyRuns:
    """A strategy class as a function to evaluate.

    An `ArrayStrategy` that changes nothing but its signals is played by a compiled loop; any other runs under
    backtesting.py, without its memory: nothing is registered, and no entry is skipped.

    Parameters
    ----------
    cls : type
    fees : float, fraction
        Of the price of each fill.
    is_exclusive : bool
        ``exclusive_orders`` of the host.

    Point in time
    -------------
    Orders fill at the open after the bar that asked.
    """

    cls: type
    fees: float
    is_exclusive: bool

    def __call__(self, bars: Bars, parameters: Parameters) -> Evaluation:
        if self.is_as_arrays(parameters):
            orders, asked = plain_runs.played(self.cls, bars, parameters)
            return evaluation_of_orders(orders, asked, size=self._size(parameters) or 1.0, fees=self.fees)
        stats = plain_runs.run_plain(
            self.cls, frame_of(bars), parameters, fees=self.fees, is_exclusive=self.is_exclusive
        )
        return evaluation_of_stats(stats, bars)

    def is_as_arrays(self, parameters: Parameters) -> bool:
        """Whether these parameters are played by the compiled loop; sizes in whole units are for the host."""
        size = self._size(parameters)
        return plain_runs.is_played_as_arrays(self.cls) and (size is None or 0 < size <= 1)

    def _size(self, parameters: Parameters) -> float | None:
        size: float | None = parameters.get("size", getattr(self.cls, "size", None))
        return size


@dataclass(frozen=True, slots=True, eq=False)
class StrategyValidation:
    """A validation and what it was made of; what a dossier shows.

    ``bars`` are None where only returns were given. ``attempts`` are the trials that the registry holds, ``n_attempts``
    how many different ones, ``n_trials_on_bars`` how many runs of any strategy on these bars are in it, which decides
    nothing; None without a registry. ``returns`` are those of the file, where there was one, and ``file_warnings`` what is odd about it. ``gate`` is the trial of the memory's gate, None where
    ``gate_reason`` says why. ``n_patterns`` entries were registered.
    """

    validation: Validation
    bars: Bars | None
    strategy_path: str
    source_sha256: str
    git_hash: str | None
    is_git_dirty: bool | None
    fees: float
    is_quick: bool
    created_at: int
    registry: str | None = None
    attempts: tuple[Attempt, ...] = ()
    n_attempts: int | None = None
    gate: GateTrial | None = None
    gate_reason: str = ""
    n_patterns: int = 0
    searched: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    returns: FloatArray | None = None
    n_trials_on_bars: int | None = None
    file_warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON, NaN as None."""
        shown = {
            name: as_plain(getattr(self, name)) for name in self.__slots__ if name not in ("validation", "bars", "gate")
        }
        gate = None if self.gate is None else as_plain(self.gate.to_dict())
        return shown | {"gate": gate, "validation": self.validation.as_dict()}


def validate_strategy(
    strategy: type | str,
    data: Bars | pd.DataFrame | Path | str,
    *,
    symbol: str,
    timeframe: str | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    is_quick: bool = False,
    fees: float = 0.0005,
    is_exclusive: bool | None = None,
    registry: str | None = None,
    n_jobs: int = 1,
    thresholds: Thresholds | None = None,
    plan: Plan | None = None,
    seed: int = 0,
    folder: Path | str | None = None,
    start: Start | None = None,
    other_grids: Sequence[Mapping[str, Sequence[Any]]] = (),
    on_progress: Progress | None = None,
) -> StrategyValidation:
    """Is the edge of a strategy real? From its class and a file of bars to the verdict.

    Parameters
    ----------
    strategy : type or str
        A ``backtesting.Strategy``, or where it is: ``package.module:Class`` or ``path/to/file.py:Class``.
    data : Bars, DataFrame or path
        Bars of one market, as `read_bars` takes them.
    symbol : str
    timeframe : str, optional
        Inferred unless given.
    grid : mapping of str to sequence, optional
        Values to try by parameter. Without it the first three numbers among the strategy's parameters are tried at 0.6, 1 and
        1.6 times their value.
    is_quick : bool, default=False
        No search unless there is a grid, and fewer draws, paths and cuts.
    fees : float, fraction, default=0.0005
        Of the price of each fill, slippage included.
    is_exclusive : bool, optional
        ``exclusive_orders`` of the host; by default whether the strategy is an `ArrayStrategy` that reverses.
    registry : str, optional
        Database URL. Every trial is recorded there, and entries of the parameters that would be traded are registered in the
        mode shadow. Without it nobody counts the attempts.
    n_jobs : int, default=1
        Processes that the trials are spread over.
    thresholds, plan, seed, on_progress
        As `validate`.
    folder : path, optional
        Where steps are kept; an interrupted validation goes on there.
    start : Start, optional
        What the run with the memory sees of the registry; by default what it holds then.
    other_grids : sequence of mappings
        Grids of the same strategy that are tried on these bars by others, before or after: their trials are counted too.

    Returns
    -------
    StrategyValidation

    Point in time
    -------------
    Judges a finished strategy.

    Raises
    ------
    DataError
        If there is no such strategy, data or parameter, or the grid is empty or too large. What the strategy itself does
        wrong is not raised: its trials fail, and what needs them is insufficient.
    RegistryError
        If the registry cannot be opened or written.
    """
    cls = find_strategy(strategy)
    if not 0 <= fees < 1:
        raise DataError(f"fees are {fees}. They are a fraction of the price of each fill, such as 0.0005.")
    bars = _bars_of(data, symbol, timeframe)
    exclusive = getattr(cls, "reverses", False) if is_exclusive is None else is_exclusive
    searched = _searched(cls, grid, is_quick)
    points = _points(cls, searched)
    runs = StrategyRuns(cls, fees, bool(exclusive))
    host = {"host": "qml_plugin.vrd", "fees": fees, "exclusive_orders": bool(exclusive)}
    opened = None if registry is None else PatternRegistry(registry)
    ledger = None if opened is None else TrialLedger(opened, cls, bars, host, seed=seed)
    others = [point for other in other_grids for point in _points(cls, _searched(cls, other, is_quick))]
    n_attempts = None if ledger is None else ledger.n_attempts(points, others)
    evaluate = _Remembered(runs, bars, points, ledger, n_jobs, on_progress)
    chosen_plan = plan or (QUICK if is_quick else FULL)
    as_arrays = all(runs.is_as_arrays(point) for point in points)
    if (
        not as_arrays
    ):  # positions under the host follow fills, which a later open changes; the audit of the class judges them
        chosen_plan = replace(chosen_plan, n_cuts=0)
    elif is_quick:
        chosen_plan = replace(chosen_plan, n_cuts=20)
    found = validate(
        bars, evaluate, points, strategy_name=cls.__name__, thresholds=thresholds, plan=chosen_plan,
        n_trials_ledger=n_attempts, audit=None if as_arrays and is_quick else _LazyAudit(cls, bars, host, is_quick, seed),
        seed=seed, folder=folder, identity=["StrategyRuns", provenance.source_sha256(cls), host, as_arrays, is_quick],
        on_progress=on_progress,
    )  # fmt: skip
    found, gate, gate_reason, n_patterns = _with_memory(found, runs, bars, registry, start, on_progress)
    git = provenance.git_state(provenance.source_folder(cls))
    return StrategyValidation(
        found, bars, provenance.class_path(cls), provenance.source_sha256(cls), git.commit, git.is_dirty, fees, is_quick,
        time.time_ns() // 1000, None if opened is None else opened.shown_url, () if ledger is None else ledger.attempts(), n_attempts, gate, gate_reason,
        n_patterns, searched, n_trials_on_bars=None if ledger is None else ledger.n_trials_on_bars(),
    )  # fmt: skip


def validate_trades(
    path: Path | str,
    *,
    name: str = "",
    is_quick: bool = False,
    thresholds: Thresholds | None = None,
    seed: int = 0,
    folder: Path | str | None = None,
    on_progress: Progress | None = None,
) -> StrategyValidation:
    """What can be said of the returns in a CSV file; the steps that need the strategy are insufficient.

    Parameters
    ----------
    path : path
        As `read_returns` takes it.
    name : str, default=""
        What to call it; the name of the file unless given.
    is_quick, thresholds, seed, folder, on_progress
        As `validate_strategy`.

    Returns
    -------
    StrategyValidation
        Never DEPLOY.

    Point in time
    -------------
    Judges a finished record.

    Raises
    ------
    DataError
        If the file cannot be read or a value is no number.
    """
    given = read_returns(path)
    found = validate_returns(
        given.returns, given.per_year, costs=given.costs, name=name or Path(path).stem, thresholds=thresholds,
        plan=QUICK if is_quick else FULL, seed=seed, folder=folder, on_progress=on_progress,
    )  # fmt: skip
    reason = "returns alone hold no entries that a gate could have judged"
    return StrategyValidation(
        found,
        None,
        str(path),
        "",
        None,
        None,
        float("nan"),
        is_quick,
        time.time_ns() // 1000,
        gate_reason=reason,
        returns=given.returns,
        file_warnings=given.warnings,
    )


class _Remembered:
    """The function to evaluate, which records each trial on all bars and runs none of them twice."""

    def __init__(
        self, runs: StrategyRuns, bars: Bars, points: Sequence[Parameters], ledger: TrialLedger | None, n_jobs: int,
        on_progress: Progress | None,
    ) -> None:  # fmt: skip
        self._runs, self._bars, self._ledger, self._n_jobs, self._on_progress = runs, bars, ledger, n_jobs, on_progress
        self._points = {_key(point): point for point in points}
        self._known: dict[bytes, Evaluation | Exception] = {}

    def __call__(self, bars: Bars, parameters: Parameters) -> Evaluation:
        key = _key(parameters)
        if bars is not self._bars or key not in self._points:
            return self._runs(bars, parameters)
        if not self._known and self._n_jobs > 1 and len(self._points) > 1:
            self._evaluate_all()
        if key not in self._known:
            self._keep(key, _outcome(self._runs, bars, parameters))
        found = self._known[key]
        if isinstance(found, Exception):
            raise found
        return found

    def _evaluate_all(self) -> None:
        """All trials at once, in processes of their own, which find the class where it is defined."""
        n_workers = min(self._n_jobs, len(self._points))
        with ProcessPoolExecutor(n_workers, mp_context=get_context("forkserver"), initializer=_quiet) as pool:
            place, fees, exclusive = provenance.class_path(self._runs.cls), self._runs.fees, self._runs.is_exclusive
            waiting = {
                key: pool.submit(_outcome_elsewhere, place, fees, exclusive, self._bars, dict(point))
                for key, point in self._points.items()
            }
            for key, future in waiting.items():
                try:
                    self._keep(key, future.result())
                except BrokenExecutor as error:
                    self._keep(key, DataError(f"a process of the search died, such as for want of memory: {error}"))

    def _keep(self, key: bytes, found: Evaluation | Exception) -> None:
        self._known[key] = found
        if self._ledger is not None:
            error = f"{type(found).__name__}: {found}" if isinstance(found, Exception) else None
            self._ledger.record(self._points[key], None if isinstance(found, Exception) else found, error)
        if self._on_progress is not None:
            self._on_progress("trials", len(self._known), len(self._points))


def _outcome(runs: StrategyRuns, bars: Bars, parameters: Parameters) -> Evaluation | Exception:
    try:
        return checked_evaluation(runs(bars, parameters), len(bars))
    except Exception as error:  # noqa: BLE001  a strategy is foreign code: what it raises is the trial's result
        return error


def _outcome_elsewhere(
    place: str, fees: float, is_exclusive: bool, bars: Bars, parameters: dict[str, Any]
) -> Evaluation | Exception:
    found = _outcome(StrategyRuns(_found(place), fees, is_exclusive), bars, parameters)
    return DataError(f"{type(found).__name__}: {found}") if isinstance(found, Exception) else found


def _quiet() -> None:
    os.environ["TQDM_DISABLE"] = "1"


def _key(parameters: Parameters) -> bytes:
    return canonical_json(plain(dict(parameters)))


class _LazyAudit:
    """The audit of the class, made when the step asks for it, so that it too is kept."""

    def __init__(self, cls: type, bars: Bars, host: Mapping[str, Any], is_quick: bool, seed: int) -> None:
        self._cls, self._bars, self._host, self._is_quick, self._seed = cls, bars, host, is_quick, seed
        self._found: AuditFinding | None = None

    @property
    def identity(self) -> list[Any]:
        """What tells this audit from others on the same bars, without running it."""
        return [provenance.source_sha256(self._cls), self._host, self._is_quick, self._seed]

    @property
    def verdict(self) -> str:
        return self._finding().verdict

    def headline(self) -> str:
        return self._finding().sentence

    def _finding(self) -> AuditFinding:
        if self._found is None:
            # The memory has an audit of its own; here the strategy is asked.
            settings = {"mode": "record"} if hasattr(self._cls, "on_abstain") else {}
            report = audit(
                self._cls, frame_of(self._bars), n_cuts=_AUDIT_CUTS[self._is_quick], seed=self._seed, parameters=settings,
                commission=self._host["fees"], exclusive_orders=self._host["exclusive_orders"],
            )  # fmt: skip
            self._found = AuditFinding.of(report)
        return self._found


def _with_memory(
    found: Validation, runs: StrategyRuns, bars: Bars, registry: str | None, start: Start | None,
    on_progress: Progress | None,
) -> tuple[Validation, GateTrial | None, str, int]:  # fmt: skip
    """The validation with attribution, the trial of the gate, or why there is none, and how many entries were registered."""
    began = time.perf_counter()
    if on_progress is not None:
        on_progress("memory", 0, 1)
    if found.parameters is None:
        reason = "no parameters gave a result, so nothing was run with the memory"
        return _noted(found, reason, began), None, reason, 0
    try:
        memory = plain_runs.run_in_shadow(
            runs.cls, frame_of(bars), found.parameters, fees=runs.fees, is_exclusive=runs.is_exclusive, symbol=bars.symbol,
            timeframe=bars.timeframe, registry=registry, start=start,
        )  # fmt: skip
    except QmlError as error:
        if not isinstance(error, DataError):
            raise
        return _noted(found, str(error), began), None, str(error), 0
    except Exception as error:  # noqa: BLE001  the strategy is foreign code
        reason = f"the run with the memory failed with {type(error).__name__}: {error}"
        return _noted(found, reason, began), None, reason, 0
    known = [p for p in memory.patterns if p.outcome is not None]
    reason = ""
    try:
        attribution = attribute(
            np.array([p.features for p in known]).reshape(len(known), len(CATALOGUE.names)),
            np.array([p.outcome.r_multiple for p in known if p.outcome]),
            np.array([p.entry.known_at for p in known], np.int64),
            np.array([p.outcome.resolved_at for p in known if p.outcome], np.int64),
            CATALOGUE.names, is_importance=found.plan.is_importance, seed=found.seed,
        )  # fmt: skip
    except DataError as error:
        reason = str(error)
    else:
        found = replace(found, attribution=attribution)
    if not memory.decisions:
        return _noted(found, reason, began), None, "the strategy asked for no entry", 0
    gate = gate_trial(memory, seed=found.seed)
    return _noted(found, reason, began), gate, "", len(memory.patterns)


def _noted(found: Validation, reason: str, began: float) -> Validation:
    """The validation with the step of attribution noted."""
    step = Step("attribution", "insufficient" if reason else "done", reason, time.perf_counter() - began, False)
    return replace(found, steps=(*(s for s in found.steps if s.name != "attribution"), step))


def find_strategy(strategy: type | str) -> type:
    """The class of a strategy, by itself, by the name of a shipped one, or by its place.

    Parameters
    ----------
    strategy : type or str
        ``QMLStrategy`` and its like, ``package.module:Class`` or ``path/to/file.py:Class``.

    Returns
    -------
    type

    Point in time
    -------------
    Reads no market.

    Raises
    ------
    DataError
        If there is none, or it is no ``backtesting.Strategy``.
    """
    if isinstance(strategy, str):
        place = place_of(strategy)
        if ":" not in place:
            raise DataError(
                f"strategy {strategy!r} is unknown. Use one of {', '.join(SHIPPED)}, package.module:Class or "
                "path/to/file.py:Class."
            )
        strategy = _found(place)
    plain_runs.check_strategy(strategy)
    return strategy


def market_bars(symbol: str, timeframe: str | None = None, path: Path | str | None = None) -> Bars:
    """Bars of a market from a file, or those of backtesting.py where it ships them.

    Parameters
    ----------
    symbol : str
    timeframe : str, optional
        Inferred unless given.
    path : path, optional
        ``.csv`` or ``.parquet``. Without it EURUSD is hourly and GOOG daily.

    Returns
    -------
    Bars

    Point in time
    -------------
    Nothing is filled, sorted or repaired.

    Raises
    ------
    DataError
        If there is no file and no such bundled market, or the bars are refused.
    """
    if path is not None:
        return _bars_of(path, symbol, timeframe)
    if symbol not in BUNDLED:
        raise DataError(f"there is no data of {symbol!r} here: only {', '.join(BUNDLED)} come along. Pass --data FILE.")
    if timeframe is not None and canonical_timeframe(timeframe) != BUNDLED[symbol]:
        raise DataError(
            f"the bundled {symbol} has bars of {BUNDLED[symbol]}, not {timeframe}. Leave -t out, or pass --data FILE."
        )
    return _bars_of(bundled_data(symbol), symbol, timeframe)


def _found(place: str) -> type:
    with nothing_recorded():  # a script that is imported for its class may run a backtest
        return provenance.find_class(place)


def _bars_of(data: Bars | pd.DataFrame | Path | str, symbol: str, timeframe: str | None) -> Bars:
    if isinstance(data, Bars):
        return data
    return bars_from_frame(
        data if isinstance(data, pd.DataFrame) else read_bars(data), symbol=symbol, timeframe=timeframe
    )


def _searched(cls: type, grid: Mapping[str, Sequence[Any]] | None, is_quick: bool) -> dict[str, tuple[Any, ...]]:
    """Values to try by parameter; none where nothing is searched."""
    if grid is not None:
        if unknown := sorted(name for name in grid if not hasattr(cls, name)):
            known = ", ".join(sorted(plain_runs.parameters_of(cls))) or "none"
            raise DataError(f"{cls.__name__} has no parameter {unknown[0]!r}. Its parameters are: {known}.")
        if empty := [name for name, values in grid.items() if not len(values)]:
            raise DataError(f"parameter {empty[0]!r} has no values to try. Give at least one.")
        for name, values in grid.items():
            _check_kind(cls, name, values)
        return {name: tuple(dict.fromkeys(values)) for name, values in grid.items()}
    if is_quick:
        return {}
    numbers = {
        name: value
        for name, value in plain_runs.parameters_of(cls).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
    }
    return {name: _around(numbers[name]) for name in list(numbers)[:_N_SEARCHED]}


def _check_kind(cls: type, name: str, values: Sequence[Any]) -> None:
    """Refuse text for a parameter that is a number: every trial with it would fail, and be counted."""
    own = getattr(cls, name)
    if not isinstance(own, (bool, int, float)):
        return
    if bad := [value for value in values if isinstance(value, str)]:
        kind = "true or false" if isinstance(own, bool) else "a number"
        raise DataError(
            f"parameter {name!r} of {cls.__name__} is {kind}, {own!r} by default; {bad[0]!r} was given. Nothing was tried."
        )


def search_points(cls: type, grid: Mapping[str, Sequence[Any]] | None = None) -> list[dict[str, Any]]:
    """All parameters that `validate_strategy` would try, one mapping a trial.

    Parameters
    ----------
    cls : type
    grid : mapping of str to sequence, optional
        As `validate_strategy` takes it.

    Returns
    -------
    list of dict

    Point in time
    -------------
    Reads no market.

    Raises
    ------
    DataError
        If there is no such parameter, or the grid is empty or too large.
    """
    return _points(cls, _searched(cls, grid, False))


def _around(value: float) -> tuple[float, ...]:
    moved = [factor * value for factor in _SEARCH_FACTORS]
    if isinstance(value, int):
        moved = [max(1, round(one)) for one in moved]
    return tuple(dict.fromkeys(moved))


def _points(cls: type, searched: Mapping[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Every combination, each with all of the strategy's parameters."""
    n = int(np.prod([len(values) for values in searched.values()], dtype=np.int64))
    if n > _MOST_TRIALS:
        raise DataError(f"the grid has {n} points; at most {_MOST_TRIALS} are searched. Try fewer values.")
    own = plain_runs.parameters_of(cls)
    return [own | dict(zip(searched, values, strict=True)) for values in product(*searched.values())]
