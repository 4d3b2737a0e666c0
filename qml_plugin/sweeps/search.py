"""Many points of a strategy at once: in parallel, resumable, and nothing of them thrown away."""

from __future__ import annotations

import hashlib
import math
import shutil
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from qml_plugin import provenance
from qml_plugin.adapters import cells
from qml_plugin.adapters.pooled_cells import pooled as pooled_markets
from qml_plugin.adapters.recorded_run import Start, heartbeat, read_start
from qml_plugin.bars import COLUMNS, read_bars
from qml_plugin.errors import DataError, QmlError, RegistryError
from qml_plugin.features import CATALOGUE, MarketFeatures
from qml_plugin.features.catalogue import N_BUILT_IN
from qml_plugin.processes import Process
from qml_plugin.records import Run
from qml_plugin.registry import PatternRegistry
from qml_plugin.sweeps.backends import backend_of
from qml_plugin.sweeps.failures import words_of
from qml_plugin.sweeps.folder import Folder, home_of, writing
from qml_plugin.sweeps.points import Grid, Places
from qml_plugin.sweeps.points import shown as shown_value
from qml_plugin.sweeps.pooling import POOLED
from qml_plugin.sweeps.progress import Progress, ProgressLine
from qml_plugin.sweeps.result import SweepResult, point_table
from qml_plugin.sweeps.shared import write_shared
from qml_plugin.sweeps.task import Plan, Point
from qml_plugin.sweeps.tpe import GENERATION, suggestions
from qml_plugin.sweeps.workers import Backend, Crew

SEARCHES = ("grid", "random", "tpe")
Data = pd.DataFrame | str | Path
Objective = str | Callable[[pd.Series], float]
MEMORY_METRICS = ("n_entries", "n_take", "n_skip", "n_abstain", "n_unregistered_trades")
RESERVED = ("symbol", "objective", "status", "run_id", "error")


def sweep(
    strategy: type | str,
    data: Data | Mapping[str, Data],
    grid: Mapping[str, Any],
    *,
    pooled: bool = False,
    n_jobs: int | None = None,
    backend: str | None = None,
    registry: str | None = None,
    constraint: Callable[[Any], bool] | None = None,
    search: str = "grid",
    n_points: int | None = None,
    objective: Objective = "sharpe_annual",
    time_limit_s: float | None = None,
    retries: int = 1,
    seed: int = 0,
    resume: bool = False,
    folder: str | Path | None = None,
    progress: Progress | bool | None = None,
    **options: Any,
) -> SweepResult:
    """Run a strategy at many points of a grid, and keep everything: metrics, trades and equity of each.

    Parameters
    ----------
    strategy : type or str
        A backtesting.py strategy, with `PatternMixin` or without; or where it is, ``"module:Class"`` or ``"file.py:Class"``.
    data : DataFrame, path, or mapping of symbol to these
        Bars. With a mapping every point is run on every symbol, and all see one snapshot of the registry.
    grid : mapping of str to sequence
        Values to try by parameter: any public attribute of the class, the mixin's settings such as ``mode`` too.
    pooled : bool, default=False
        Whether the symbols of a point learn from one another: they go through time together, and an entry on one is decided
        by a gate that has learnt from the entries of all. For strategies with the mixin. One that fails fails the point.
    n_jobs : int, optional
        Worker processes; -1 for one on each processor. 1, which is the default on this machine, runs in this process
        unless there is a `time_limit_s`: a point that kills its process or hangs cannot be survived there. Of a cluster
        all workers are used unless this says fewer.
    backend : {"loky", "dask", "ray"}, optional
        Where the worker processes are: on this machine, or those of a Dask or Ray cluster, which need not see its disk.
        What ``joblib.parallel_config`` says unless given.
    registry : str, optional
        Database URL, for strategies with the mixin; the class's own unless given. The sweep is a run of kind ``"sweep"``,
        each point one of kind ``"cell"`` below it, which the ledger counts as a trial.
    constraint : callable, optional
        As in `Backtest.optimize`: takes a point, says whether it is admissible.
    search : {"grid", "random", "tpe"}, default="grid"
        All points, so many at random without repetition, or so many that a tree-structured Parzen estimator of Optuna asks
        for. It asks for a fixed number at a time, so that its points do not depend on `n_jobs`.
    n_points : int, optional
        How many points of a random or TPE search.
    objective : str or callable, default="sharpe_annual"
        A metric of the table, or a function of the host's statistics; the higher the better.
    time_limit_s : float, optional
        How long one attempt of a point may take; its worker is ended then.
    retries : int, default=1
        How often a point that failed is tried again before it is recorded as failed.
    seed : int, default=0
        Of the search.
    resume : bool, default=False
        Go on with the same sweep that was interrupted: points that finished are not run again, those that failed are.
    folder : path, optional
        Where the folder of the sweep is made; beside the file of the registry (``NAME.sweeps``), or ``results/sweeps``.
    progress : bool or callable, optional
        A line on stderr where that is a terminal; False for none; or a function of points done, points in all, and words.
    **options
        Options of the host (``cash``, ``commission``, ``exclusive_orders``, ...), settings of the mixin (``mode``,
        ``symbol``, ...) and parameters of the strategy, the same for all points.

    Returns
    -------
    SweepResult

    Point in time
    -------------
    Every point sees the registry as it was when the sweep began, and no other point: the table is the same for any number
    of jobs and any order. A pooled entry at t sees, of every symbol of its point, what had resolved by t. Choosing among
    points looks at the whole series: judge the choice on later bars, or by `walk_forward`.

    Raises
    ------
    DataError
        If the grid, the data or an option is refused; nothing has been run then.
    RegistryError
        If the registry cannot be opened.
    MissingExtra
        If `search` is ``"tpe"`` and Optuna is not installed, or the library of `backend` is not.
    QmlError
        If no worker can be had.
    KeyboardInterrupt
        When interrupted; what had finished is kept, and ``resume=True`` goes on.
    """
    asked = Asked.of(
        strategy, data, grid, constraint=constraint, search=search, n_points=n_points, objective=objective, seed=seed,
        registry=registry, options=options, pooled=pooled,
    )  # fmt: skip
    how = How.of(backend, n_jobs, time_limit_s, retries, resume, progress)
    with closing(how.backend):
        return swept(asked, how, asked.folder_of(folder))


@dataclass(frozen=True, slots=True)
class How:
    """How a search is carried out, which no result depends on."""

    backend: Backend
    time_limit_s: float | None
    retries: int
    resume: bool
    progress: Progress | bool | None

    @classmethod
    def of(
        cls, backend: str | None, n_jobs: int | None, time_limit_s: float | None, retries: int, resume: bool,
        progress: Progress | bool | None,
    ) -> How:  # fmt: skip
        """The same, checked."""
        if time_limit_s is not None and not time_limit_s > 0:
            raise DataError(f"time_limit_s is {time_limit_s!r}. Give seconds, more than 0, or None for no limit.")
        if not isinstance(retries, int) or retries < 0:
            raise DataError(f"retries is {retries!r}. It is a count: use a whole number from 0 on.")
        return cls(backend_of(backend, n_jobs, time_limit_s), time_limit_s, retries, resume, progress)


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """What a search is asked for, checked: everything that its result depends on."""

    strategy: type
    frames: Mapping[str, pd.DataFrame]
    grid: Grid
    search: str
    n_points: int | None
    objective: Objective
    seed: int
    registry: PatternRegistry | None
    host: Mapping[str, Any]
    fixed: Mapping[str, Any]
    metrics: tuple[str, ...]
    trade_from_bar: int = 0
    is_pooled: bool = False

    @classmethod
    def of(
        cls, strategy: type | str, data: Data | Mapping[str, Data], grid: Mapping[str, Any], *,
        constraint: Callable[[Any], bool] | None, search: str, n_points: int | None, objective: Objective, seed: int,
        registry: str | None, options: Mapping[str, Any], pooled: bool = False,
    ) -> Asked:  # fmt: skip
        """Check everything before anything is run."""
        found = provenance.find_class(strategy) if isinstance(strategy, str) else strategy
        points = Grid(grid, constraint)
        host, fixed = cells.options_of(found, options, points.values)
        has_memory = cells.is_remembering(found)
        metrics = (*MEMORY_METRICS, *cells.CELL_METRICS) if has_memory else cells.CELL_METRICS
        if taken := sorted({*RESERVED, *metrics} & set(points.names)):
            raise DataError(f"a parameter called {taken[0]!r} cannot be swept: the table has such a column. Rename it.")
        check_objective(objective, metrics)
        _check_search(search, n_points, seed)
        url = registry if registry is not None else getattr(found, "registry", None) if has_memory else None
        if url is not None and not has_memory:
            raise DataError(
                f"{found.__name__} has no PatternMixin, so it has nothing to record. Leave registry away: trades and equity "
                "are kept in any case; or add the mixin."
            )
        if pooled and not has_memory:
            raise DataError(
                f"{found.__name__} has no PatternMixin, so its symbols have no memory to share. Leave pooled away, or add the "
                "mixin."
            )
        if pooled and fixed.get("gate_model", getattr(found, "gate_model", None)) == "frozen":
            raise DataError(
                "a frozen model learns nothing, so there is nothing to pool. Leave pooled away, or use another gate_model."
            )
        frames = frames_of(found, data, fixed)
        for symbol in frames:
            cells.settings_of(found, {**fixed, "symbol": symbol if url or len(frames) > 1 else None, "registry": url})
        opened = None if url is None else PatternRegistry(url)
        fixed = {name: value for name, value in fixed.items() if name not in ("symbol", "registry")}
        is_pooled = pooled and len(frames) > 1  # a pool of one is the plain run
        return cls(
            found, frames, points, search, n_points, objective, seed, opened, host, fixed, metrics, is_pooled=is_pooled
        )

    @property
    def sees_registry(self) -> bool:
        """Whether any point starts from what the registry knows."""
        modes = self.grid.values.get("mode") or [self.fixed.get("mode", getattr(self.strategy, "mode", None))]
        return self.registry is not None and any(mode != "record" for mode in modes)

    @property
    def objective_name(self) -> str:
        """What the objective is called."""
        return name_of(self.objective)

    def first_place(self) -> Places:
        """A place of the search, for what is the same at all of them; DataError where the grid cannot be searched."""
        if self.search == "random" and self.grid.is_vast:
            return self.grid.drawn(self.n_points or 1, self.seed)[0]
        return self.grid.places()[0]

    def folder_of(self, given: str | Path | None) -> Path:
        """Where the folders of sweeps are."""
        return home_of(given, self.registry.file if self.registry is not None else None)

    def url(self) -> str | None:
        """The registry's URL as a process in another folder can use it."""
        if self.registry is None:
            return None
        return self.registry.url if self.registry.file is None else f"sqlite:///{self.registry.file}"

    def sweep_id(self, markets: Sequence[cells.Market]) -> str:
        """UUIDv5 of all that determines the result."""
        data = [
            (
                m.symbol,
                m.bars.timeframe,
                m.bars.sha256(),
                {str(c): m.frame[c] for c in m.frame.columns if c not in COLUMNS},
            )
            for m in markets
        ]
        return provenance.run_id(
            "sweep", self.strategy.__name__, provenance.source_sha256(self.strategy), data, self.grid.values,
            self.grid.constraint, self.search, self.n_points, self.seed, self.objective, self.host, self.fixed,
            CATALOGUE.feature_set if cells.is_remembering(self.strategy) else None, self.trade_from_bar,
            *(["pooled"] if self.is_pooled else []),
        )  # fmt: skip


def check_objective(objective: Objective, metrics: Sequence[str]) -> None:
    if isinstance(objective, str) and objective not in metrics:
        raise DataError(f"objective {objective!r} is no metric. Use one of {', '.join(metrics)}, or a function.")


def name_of(objective: Objective) -> str:
    """What an objective is called."""
    return objective if isinstance(objective, str) else str(getattr(objective, "__name__", type(objective).__name__))


def _check_search(search: str, n_points: int | None, seed: int) -> None:
    if search not in SEARCHES:
        raise DataError(f"search {search!r} is unknown. Use one of {', '.join(map(repr, SEARCHES))}.")
    if search == "grid" and n_points is not None:
        raise DataError(
            "n_points is for a random or a TPE search: a grid search runs all. Leave it away, or choose one."
        )
    if search != "grid" and not (isinstance(n_points, int) and n_points >= 1):
        raise DataError(f"a {search} search with n_points={n_points!r} has no end. Say how many points, from 1 on.")
    if not isinstance(seed, int) or seed < 0:
        raise DataError(f"seed is {seed!r}. Use a whole number from 0 on.")


def frames_of(strategy: type, data: Data | Mapping[str, Data], fixed: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    if not isinstance(data, Mapping):
        symbol = fixed.get("symbol", getattr(strategy, "symbol", None))
        return {symbol if isinstance(symbol, str) and symbol else "UNKNOWN": _frame(data)}
    if not data:
        raise DataError("data holds no symbol. Give bars for one at least: data={'GOOG': frame}.")
    if "symbol" in fixed:
        raise DataError("symbol was given beside data={symbol: bars}. The names of the mapping are the symbols.")
    return {str(symbol): _frame(bars) for symbol, bars in data.items()}


def _frame(data: Data) -> pd.DataFrame:
    """Bars as the host takes them, with their other columns, once they are found to be sound."""
    checked = read_bars(data)
    is_ready = (
        isinstance(data, pd.DataFrame)
        and isinstance(data.index, pd.DatetimeIndex)
        and set(COLUMNS) <= set(data.columns)
    )
    return data if is_ready and isinstance(data, pd.DataFrame) else checked


@dataclass(slots=True)
class _Course:
    """A search on its way: what is known of its points so far."""

    asked: Asked
    run_id: str
    folder: Folder
    markets: list[cells.Market]
    start: Start | None
    parent_run_id: str | None
    points: dict[tuple[str, Places], Point] = field(default_factory=dict)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)

    def point(self, market: cells.Market, backtest: Any, places: Places) -> Point:
        key = (market.symbol, places)
        if key not in self.points:
            params = self.asked.grid.point(places)
            run = cells.begun_cell(
                self.asked.strategy, market, self.asked.host, {**self.asked.fixed, **params}, backtest=backtest,
                parent_run_id=self.run_id,
            )  # fmt: skip
            self.points[key] = Point(market.symbol, params, run)
        return self.points[key]


def swept(
    asked: Asked, how: How, place: Path, *, start: Start | None = None, parent_run_id: str | None = None
) -> SweepResult:
    """Carry a search out; `start` is the snapshot of a larger one that this is a part of."""
    markets = markets_of(asked)
    run_id = asked.sweep_id(markets)
    folder = Folder(place / run_id)
    kept = resumed(folder, how.resume)
    if start is None and asked.sees_registry:
        start = start_of(asked, kept)
    markets = [replace(market, start=start_for(asked, market, start)) for market in markets]
    if asked.is_pooled:
        markets = pooled_markets(markets)
    hosts = {market.symbol: _quiet_host(asked, market) for market in markets}
    course = _Course(asked, run_id, folder, markets, start, parent_run_id)
    run = _run_of(course, hosts)
    manifest = {
        "run_id": run_id, "strategy": asked.strategy.__name__, "search": asked.search, "status": "running",
        "symbols": [market.symbol for market in markets],
        "grid": kept_grid(asked.grid),
        "process": asdict(Process.own()), "versions": provenance.library_versions(),
        "snapshot": None if start is None else asdict(start.snapshot), **facts_of(asked, markets),
    }  # fmt: skip
    result = carried_to_end(folder, manifest, asked.registry, run, lambda: _carried_out(course, how, hosts))
    for said, n_times in result.warned.items():
        warnings.warn(f"{n_times} of {len(result.table)} points: {said}", UserWarning, stacklevel=3)
    return result


def carried_to_end(
    folder: Folder, manifest: Mapping[str, Any], registry: PatternRegistry | None, run: Run,
    carry_out: Callable[[], SweepResult],
) -> SweepResult:  # fmt: skip
    """Carry a search out between its start and its end, as its folder and its run in the registry hold them."""
    folder.claim(manifest)
    try:
        if registry is not None:
            registry.start_run(run)
        result = carry_out()
    except BaseException as error:
        status = "failed" if isinstance(error, Exception) else "interrupted"
        folder.note_end(manifest, status)
        record_end(registry, run, status, {}, words_of(error))
        if status == "interrupted":
            error.add_note(f"What had finished is kept in {folder.path}; resume=True goes on from there.")
        raise
    counts = {"n_points": len(result.table), "n_finished": result.n_tested, "n_failed": len(result.failed)}
    text = f"{counts['n_failed']} of {counts['n_points']} points failed" if counts["n_failed"] else None
    status = "failed" if text else "finished"
    record_end(registry, run, status, counts, text)
    folder.note_end(manifest, status)
    return result


def _carried_out(course: _Course, how: How, hosts: Mapping[str, Any]) -> SweepResult:
    """Run what is not there yet, and make the result of all."""
    asked = course.asked
    n_all = _n_points(asked)
    line = ProgressLine(f"sweep {course.run_id[:8]}") if how.progress in (None, True) else None
    tell: Progress = line or (how.progress if callable(how.progress) else lambda *_: None)
    beat = heartbeat(asked.registry, course.run_id)

    def tick() -> None:
        beat()
        if line is not None:
            line.catch_up()

    crew = Crew(how.backend, how.time_limit_s, how.retries, tick)
    done: list[Places] = []
    n_passes, n_run, n_failed = 0, 0, 0

    def told() -> None:
        tell(len(course.records), n_all * len(course.markets), f"{n_failed} failed" if n_failed else "")

    with line or nullcontext(), _shared(course) as plan_of, crew.at_work():
        for places in _generations(course, done):
            points = [course.point(market, hosts[market.symbol], at) for market in course.markets for at in places]
            recorded = recorded_of(asked.registry, [point.run for point in points]) if how.resume else set()
            waiting = [some for some in _together(course, points) if not _are_kept(course, some, recorded)]
            n_run += sum(map(len, waiting))
            told()
            if waiting:

                def finished(at: int, record: dict[str, Any], waiting: Sequence[Sequence[Point]] = waiting) -> None:
                    nonlocal n_failed
                    for own, point in enumerate(waiting[at]):
                        kept = record["records"][own] if "records" in record else record
                        if kept["status"] == "failed":
                            n_failed += 1
                            kept = keep_failure(course.folder, asked.registry, point.run, kept["error"])
                        course.records[point.run.run_id] = kept
                    told()

                before = MarketFeatures.n_passes
                plan = plan_of()
                n_passes += MarketFeatures.n_passes - before
                if asked.is_pooled:
                    crew.run(plan, waiting, finished, POOLED)
                else:
                    crew.run(plan, [point for (point,) in waiting], finished)
            done += places
    result = _result(course, sorted(done), n_passes + crew.n_feature_passes)
    return replace(result, n_kept=len(result.table) - n_run)


def _n_points(asked: Asked) -> int:
    if asked.search == "random" and asked.grid.is_vast:
        return asked.n_points or 1
    n_all = len(asked.grid.places())
    return n_all if asked.n_points is None else min(n_all, asked.n_points)


def _generations(course: _Course, done: Sequence[Places]) -> Iterator[list[Places]]:
    """Places to run, all at once where the search does not depend on what they come to."""
    asked = course.asked
    if asked.search == "grid":
        yield asked.grid.places()
    elif asked.search == "random":
        yield asked.grid.drawn(asked.n_points or 1, asked.seed)
    else:

        def value_of(places: Places) -> float | None:
            values = [
                course.records[course.points[market.symbol, places].run.run_id].get("objective") for market in course.markets
            ]  # fmt: skip
            found = [value for value in values if value is not None]
            return sum(found) / len(found) if len(found) == len(values) else None

        yield from suggestions(asked.grid, _n_points(asked), asked.seed, GENERATION, value_of)


@contextmanager
def _shared(course: _Course) -> Iterator[Callable[[], Plan]]:
    """The plan, with what all points share written when it is first asked for, and removed in the end."""
    asked = course.asked
    made: list[Plan] = []
    place = course.folder.path / "shared"
    shutil.rmtree(place, ignore_errors=True)  # of a sweep that was killed

    def plan() -> Plan:
        if not made:
            markets = [
                replace(market, features=MarketFeatures(market.bars) if cells.is_remembering(asked.strategy) else None)
                for market in course.markets
            ]
            facts = {
                "git_diff": provenance.git_state(provenance.source_folder(asked.strategy)).diff,
                "versions": provenance.library_versions(), "source_sha256": provenance.source_sha256(asked.strategy),
            }  # fmt: skip
            own = place / f"{time.time_ns():x}"  # a worker keeps what it has mapped under this name
            with writing(place):
                write_shared(own, markets, course.start, facts, asked.registry)
            path = provenance.class_path(asked.strategy)
            is_script = asked.strategy.__module__ not in ("__main__",) and ".py:" in path
            made.append(
                Plan(
                    own, course.folder.path, path if is_script else asked.strategy, asked.host, asked.fixed, asked.url(),
                    asked.objective, tuple(CATALOGUE.features[N_BUILT_IN:]), CATALOGUE.feature_set, tuple(sys.path),
                )
            )  # fmt: skip
        return made[0]

    try:
        yield plan
    finally:
        shutil.rmtree(place, ignore_errors=True)


def recorded_of(registry: PatternRegistry | None, runs: Sequence[Run]) -> set[str]:
    """Runs that need not be run again as far as the registry is concerned: it may have been lost or brought back since."""
    run_ids = [run.run_id for run in runs]
    return set(run_ids) if registry is None else registry.finished_of(run_ids)


def _together(course: _Course, points: Sequence[Point]) -> list[Sequence[Point]]:
    """Points, symbol by symbol, as they are run: one by one, or pooled with those of the other symbols at their place."""
    n_apart = len(points) // len(course.markets) if course.asked.is_pooled else len(points)
    return [points[i::n_apart] for i in range(n_apart)]


def _are_kept(course: _Course, points: Sequence[Point], recorded: set[str]) -> bool:
    """Whether all of the points that are run together are there already."""
    return all(_is_kept(course, point, recorded) for point in points)


def _is_kept(course: _Course, point: Point, recorded: set[str]) -> bool:
    """Whether a point is there already: asked for before, or finished by the sweep that this one goes on with."""
    run_id = point.run.run_id
    if run_id in course.records:
        return True
    record = course.folder.read_cell(run_id) if run_id in recorded else None
    if record is None or record["status"] != "finished":
        return False
    course.records[run_id] = record
    return True


def keep_failure(folder: Folder, registry: PatternRegistry | None, run: Run, error: str) -> dict[str, Any]:
    """Record a point that failed, wherever there is still room for it."""
    record: dict[str, Any] = {
        "status": "failed",
        "metrics": None,
        "objective": None,
        "error": error,
        "warned": [],
        "sha256": {},
    }
    try:
        folder.write_cell(run.run_id, record)
    except QmlError as second:
        warnings.warn(f"the failure of a point could not be kept: {second}", RuntimeWarning, stacklevel=2)
    record_end(registry, run, "failed", {}, error)
    return record


def record_end(
    registry: PatternRegistry | None, run: Run, status: str, metrics: Mapping[str, object], error: str | None
) -> None:
    """Close a run that this process is responsible for; what cannot be recorded is said, and costs no results."""
    if registry is None:
        return
    ended = replace(run, status=status, metrics=metrics or None, finished_at=time.time_ns() // 1000, error=error)
    try:
        registry.save_run(ended, [], [], {})
    except RegistryError as second:
        warnings.warn(f"the end of run {run.run_id} could not be recorded: {second}", RuntimeWarning, stacklevel=2)


def _result(course: _Course, places: list[Places], n_passes: int) -> SweepResult:
    asked = course.asked
    symbols = tuple(market.symbol for market in course.markets)
    run_ids = [course.points[symbol, at].run.run_id for symbol in symbols for at in places]
    records = [course.records.get(run_id) for run_id in run_ids]
    said = Counter(text for record in records if record for text in record["warned"])
    table = point_table(asked.grid, places, symbols, run_ids, records, asked.metrics)
    return SweepResult(
        course.run_id, table, course.folder.path, asked.objective_name, n_passes, dict(sorted(said.items())), asked.grid, places, symbols
    )  # fmt: skip


def kept_grid(grid: Grid) -> dict[str, list[object]]:
    """A grid as a manifest holds it."""
    return {name: [_kept_value(value) for value in tried] for name, tried in grid.values.items()}


def _kept_value(value: object) -> object:
    """A value as JSON holds it, which knows no infinity."""
    shown = shown_value(value)
    return str(shown) if isinstance(shown, float) and not math.isfinite(shown) else shown


def facts_of(asked: Asked, markets: Sequence[cells.Market]) -> dict[str, Any]:
    """What a manifest says of code, data and options, for people."""
    git = provenance.git_state(provenance.source_folder(asked.strategy))
    return {
        "objective": asked.objective_name,
        "options": {name: str(provenance.plain(value)) for name, value in {**asked.host, **asked.fixed}.items()},
        "code": {"path": provenance.class_path(asked.strategy), "sha256": provenance.source_sha256(asked.strategy), "git": git.commit, "is_dirty": git.is_dirty},
        "data": [
            {
                "symbol": market.symbol, "timeframe": market.bars.timeframe, "n_bars": len(market.bars),
                "first_at": int(market.bars.opened_at[0]), "last_at": int(market.bars.opened_at[-1]), "sha256": market.bars.sha256(),
            }
            for market in markets
        ],
        "registry": None if asked.registry is None else str(asked.registry.file or "on a server"),
    }  # fmt: skip


def markets_of(asked: Asked) -> list[cells.Market]:
    return [
        cells.Market(
            symbol,
            frame,
            cells.bars_of(asked.strategy, frame, asked.fixed, symbol),
            trade_from_bar=asked.trade_from_bar,
        )
        for symbol, frame in asked.frames.items()
    ]


def start_for(asked: Asked, market: cells.Market, start: Start | None) -> Start | None:
    """The snapshot of a market, with the frozen model that decides there where the strategy asks for one."""
    model = asked.fixed.get("gate_model", getattr(asked.strategy, "gate_model", None))
    if start is None or asked.registry is None or model != "frozen":
        return start
    active = asked.registry.active_model(asked.strategy.__name__, market.bars.timeframe)
    if active is None:
        raise DataError(
            f"no model is active for {asked.strategy.__name__} on {market.bars.timeframe}. Train one (qml train --activate), "
            "activate one (qml models activate), or use another gate_model."
        )
    return replace(start, model_id=str(active["model_id"]))


def _quiet_host(asked: Asked, market: cells.Market) -> Any:
    """The host's own view of its options; what it warns of, every point says again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cells.host_of(asked.strategy, market, asked.host)


def resumed(folder: Folder, is_resumed: bool) -> dict[str, Any] | None:
    """What an earlier sweep of the same id left, where it is gone on with; otherwise it is replaced or moved aside."""
    manifest = folder.read_manifest()
    if manifest is None:
        return None
    folder.refuse_if_at_work(manifest)
    if is_resumed:
        if changed := provenance.changed_library(manifest["versions"]):
            name, old, new = changed
            raise DataError(
                f"the points that finished were computed with {name} {old}, and this is {new}: one table would mix the two. "
                "Install what it was, or sweep again without resume."
            )
        return manifest
    if manifest["status"] == "finished":
        folder.clear()
    else:
        aside = folder.move_aside()
        warnings.warn(
            f"this very sweep was begun before and is not finished; resume=True would have gone on with it. What it left is "
            f"in {aside}.",
            UserWarning,
            stacklevel=4,
        )
    return None


def start_of(asked: Asked, kept: Mapping[str, Any] | None) -> Start:
    """The registry as it is now, or as it was when the sweep began that is gone on with."""
    assert asked.registry is not None
    return snapshot_of(asked.registry, kept)


def snapshot_of(registry: PatternRegistry, kept: Mapping[str, Any] | None) -> Start:
    """The same of a registry; `kept` is the manifest of the sweep that is gone on with."""
    if kept is None or kept["snapshot"] is None:
        return read_start(registry)
    was = kept["snapshot"]
    known, snapshot = registry.read_snapshot(CATALOGUE.feature_set, CATALOGUE.names, through_seq=was["seq"])
    if snapshot.sha256 != was["sha256"]:
        raise DataError(
            f"the {was['n_patterns']} patterns that the sweep began with are no longer the same: since then one was labelled "
            "by hand, or deleted. Points that saw different pasts make no table: sweep again without resume."
        )
    return Start(known, snapshot)


def _run_of(course: _Course, hosts: Mapping[str, Any]) -> Run:
    """The record of the search itself."""
    asked, first = course.asked, course.markets[0]
    places = asked.first_place()
    run = course.point(first, hosts[first.symbol], places).run
    hashes = [market.bars.sha256() for market in course.markets]
    searched: dict[str, object] = {
        "search": asked.search, "n_points": asked.n_points, "seed": asked.seed,
        "objective": provenance.plain(asked.objective), "constraint": provenance.plain(asked.grid.constraint),
        "grid": provenance.plain(asked.grid.values), "fixed": provenance.plain(asked.fixed),
        **({"pooled": True} if asked.is_pooled else {}),
    }  # fmt: skip
    return replace(
        run,
        run_id=course.run_id,
        parent_run_id=course.parent_run_id,
        kind="sweep",
        symbol=", ".join(market.symbol for market in course.markets),
        data_hash=hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest(),
        params={"sweep": searched, "host": run.params["host"], "data": run.params["data"]},
        git_diff=provenance.git_state(provenance.source_folder(asked.strategy)).diff,
    )
