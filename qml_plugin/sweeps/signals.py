"""Searches on vectorbt: a grid of signals as columns, a few columns at a time, kept like any other sweep."""

from __future__ import annotations

import difflib
import gc
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qml_plugin import provenance
from qml_plugin.adapters.asked import Asked, Board, asked_of
from qml_plugin.adapters.playing import play
from qml_plugin.adapters.recorded_run import Origin, Start, heartbeat, start_of
from qml_plugin.adapters.settings import Settings
from qml_plugin.adapters.vectorbt import ColumnRun, begun_column, gate_signals, search_run, settings_of
from qml_plugin.adapters.vectorbt_host import host
from qml_plugin.adapters.vectorbt_portfolio import (
    METRICS,
    SIZE_TYPES,
    Left,
    equity_table,
    left_by,
    portfolio_of,
    trade_table,
)
from qml_plugin.bars import COLUMNS, Bars, bars_from_frame
from qml_plugin.errors import DataError
from qml_plugin.features import CATALOGUE, MarketFeatures
from qml_plugin.records import Run
from qml_plugin.registry import PatternRegistry
from qml_plugin.sweeps.columns import CLOSING, kept_record, manifest_of
from qml_plugin.sweeps.failures import words_of
from qml_plugin.sweeps.folder import Folder, home_of
from qml_plugin.sweeps.points import Grid, Places, Point
from qml_plugin.sweeps.progress import Progress, ProgressLine
from qml_plugin.sweeps.result import SweepResult, point_table
from qml_plugin.sweeps.search import (
    MEMORY_METRICS,
    RESERVED,
    Data,
    Objective,
    carried_to_end,
    check_objective,
    frames_of,
    keep_failure,
    name_of,
    recorded_of,
    resumed,
    snapshot_of,
)

# So many prices of one kind are held at once, whatever the size of the grid, and never more columns than these.
_VALUES_AT_ONCE = 500_000
_MOST_COLUMNS = 100
# What the function gives, and what has another meaning or another name here.
_NOT_OPTIONS = frozenset({"short_exits", "stop", "target", "registry", "strategy", "seed"})
_OPTIONS = {
    name: parameter.default
    for name, parameter in inspect.signature(gate_signals).parameters.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name not in _NOT_OPTIONS
}


def sweep_signals(
    signals: Callable[..., Any] | type,
    data: Data | Mapping[str, Data],
    grid: Mapping[str, Any],
    *,
    registry: str | None = None,
    constraint: Callable[[Any], bool] | None = None,
    n_points: int | None = None,
    seed: int = 0,
    objective: Objective = "sharpe_annual",
    strategy: str | None = None,
    init_cash: float = 100_000.0,
    size: float | None = None,
    size_type: str = "percent",
    resume: bool = False,
    folder: str | Path | None = None,
    progress: Progress | bool | None = None,
    **options: Any,
) -> SweepResult:
    """Signals at all points of a grid, played on vectorbt a few columns at a time, and kept: metrics, trades and equity of each.

    Parameters
    ----------
    signals : callable or type
        Called as ``signals(bars, **point)`` with a frame of bars; gives the long entries, or a mapping with what
        `gate_signals` takes (``long_entries``, ``short_entries``, ``exits``, ``short_exits``, ``stop``, ``target``), or
        `qml_plugin.records.Signals`. Also an `ArrayStrategy` class, whose `arrays` is meant.
    data : DataFrame, path, or mapping of symbol to these
        Bars. With a mapping every point is played on every symbol; their times may differ.
    grid : mapping of str to sequence
        Values to try by parameter of the function. One value alone is the same for all points.
    registry : str, optional
        Database URL; that of the class, if it has one, unless given. The sweep is a run of kind ``"sweep"``, each point one of kind ``"cell"`` below it.
    constraint, objective, resume, folder, progress
        As for `sweep`; a function as `objective` is given the metrics of the point.
    n_points, seed : int, optional
        So many points at random, without repetition, instead of all.
    strategy : str, optional
        Name of the runs; that of the function unless given.
    init_cash, size, size_type
        As for `GatedSignals.portfolio`. `size` is all, or the class's own, unless given.
    **options
        Of `gate_signals`: ``mode``, ``symbol``, ``timeframe``, ``fill``, ``fees``, ``slippage``, ``max_bars``, ``on_skip``,
        ``barriers`` and the rest. Without `registry` and ``mode`` nothing is remembered and nothing skipped: the signals are
        played as they are.

    Returns
    -------
    SweepResult
        Its `trades` have the column names of backtesting.py, `trade_table` explains them.

    Point in time
    -------------
    That row t of the signals reads bars 0..t is the function's own promise. Every point sees the registry as it was when
    the sweep began, and no other point. Choosing among points looks at the whole series.

    Raises
    ------
    DataError
        If the grid, the data or an option is refused; nothing has been played then. A point at which the function raises
        is recorded as failed, and the others go on.
    MissingExtra
        If vectorbt is not installed.
    """
    asked = _Search.of(
        signals, data, grid, registry=registry, constraint=constraint, n_points=n_points, seed=seed, objective=objective,
        strategy=strategy, money=(init_cash, size, size_type), options=options,
    )  # fmt: skip
    file = asked.registry.file if asked.registry is not None else None
    kept = Folder(home_of(folder, file) / asked.sweep_id())
    before = resumed(kept, resume)
    start = snapshot_of(asked.registry, before) if asked.registry is not None and asked.mode != "record" else None
    course = _Course(asked, kept, start, is_resumed=resume)
    manifest = manifest_of(kept.path.name, asked.name, asked.symbols, asked.grid)
    manifest["snapshot"] = None if start is None else asdict(start.snapshot)
    return carried_to_end(kept, manifest, asked.registry, course.search_run(), lambda: course.carried_out(progress))


@dataclass(frozen=True, slots=True, eq=False)
class _Market:
    """One symbol: its bars as the function and as the memory see them."""

    frame: pd.DataFrame
    bars: Bars
    tz: str | None
    others: Mapping[str, object]  # what the function may read beside the bars, by hash

    @classmethod
    def of(cls, frame: pd.DataFrame, bars: Bars) -> _Market:
        tz = getattr(frame.index, "tz", None)
        names = frame.columns.difference(list(COLUMNS))
        others = {str(name): provenance.plain(frame[name]) for name in names}
        return cls(frame, bars, None if tz is None else str(tz), others)


@dataclass(frozen=True, slots=True, eq=False)
class _Search:
    """What a search is asked for, checked."""

    signals: Any
    name: str
    origin: Origin
    markets: Mapping[str, _Market]
    grid: Grid
    places: Sequence[Places]
    objective: Objective
    registry: PatternRegistry | None
    settings: Settings
    terms: Mapping[str, Any]
    has_memory: bool
    money: tuple[float, float, str]

    def is_reversing(self, run: Run) -> bool:
        """Whether a signal of the other side closes a position: what a class says, and a parameter of it."""
        if not isinstance(self.signals, type):
            return True
        own: Mapping[str, Any] = run.params["strategy"]  # type: ignore[assignment]
        return bool(own.get("reverses", self.signals.reverses))  # type: ignore[attr-defined]

    @classmethod
    def of(
        cls, signals: Any, data: Any, grid: Mapping[str, Any], *, registry: str | None,
        constraint: Callable[[Any], bool] | None, n_points: int | None, seed: int, objective: Objective, strategy: str | None,
        money: tuple[float, float | None, str], options: Mapping[str, Any],
    ) -> _Search:  # fmt: skip
        """Check everything before anything is played."""
        if unknown := sorted(options.keys() - _OPTIONS.keys()):
            near = difflib.get_close_matches(unknown[0], [*_OPTIONS], n=1)
            raise DataError(
                f"sweep_signals has no option {unknown[0]!r}; a parameter of the function goes into the grid."
                + (f" Did you mean {near[0]!r}?" if near else "")
            )
        name, origin = _identity(signals, strategy)
        points = Grid(grid, constraint)
        _check_parameters(signals, points)
        if registry is None and isinstance(signals, type):
            registry = getattr(signals, "registry", None)
        has_memory = registry is not None or "mode" in options
        metrics = (*MEMORY_METRICS, *METRICS) if has_memory else METRICS
        if taken := sorted({*RESERVED, *metrics} & set(points.names)):
            raise DataError(f"a parameter called {taken[0]!r} cannot be swept: the table has such a column. Rename it.")
        check_objective(objective, metrics)
        cash, size, size_type = money
        if size_type not in SIZE_TYPES:
            raise DataError(f"size_type {size_type!r} is unknown. Use one of {', '.join(map(repr, SIZE_TYPES))}.")
        if size is None:
            size = getattr(signals, "size", None) if isinstance(signals, type) else None
        frames = frames_of(signals, data, {"symbol": options["symbol"]} if options.get("symbol") else {})
        # The seed of the search is none of the memory's: the same point is the same run in any search.
        given = {**_OPTIONS, **_own_settings(signals), **options, "registry": registry, "seed": 0}
        if isinstance(data, Mapping):
            given["symbol"] = next(iter(frames))
        if not has_memory:
            given["mode"] = "record"
        settings, terms = settings_of(given, "sweep_signals")
        markets = {
            symbol: _Market.of(
                frame,
                bars_from_frame(frame, symbol=symbol, timeframe=given["timeframe"], bar_label=given["bar_label"]),
            )
            for symbol, frame in frames.items()
        }
        host()  # refused before anything is written
        found = points.places() if n_points is None else points.drawn(n_points, seed)
        opened = None if registry is None else PatternRegistry(registry)
        return cls(
            signals, name, origin, markets, points, found, objective, opened, settings, terms, has_memory,
            (float(cash), 1.0 if size is None else float(size), size_type),
        )  # fmt: skip

    @property
    def symbols(self) -> list[str]:
        return list(self.markets)

    @property
    def mode(self) -> str:
        return self.settings.policy.mode

    @property
    def host_terms(self) -> dict[str, Any]:
        """All that decides how orders fill, and how large they are."""
        return {**self.terms, **dict(zip(("init_cash", "size", "size_type"), self.money, strict=True))}

    def sweep_id(self) -> str:
        """UUIDv5 of all that determines the result."""
        data = [(market.bars.symbol, market.bars.sha256(), market.others) for market in self.markets.values()]
        return provenance.run_id(
            "sweep_signals", self.name, self.origin.source_sha256, data, self.grid.values, self.grid.constraint,
            list(self.places), self.objective, self.host_terms, self.settings.as_dict(), self.has_memory,
            CATALOGUE.feature_set if self.has_memory else None,
        )  # fmt: skip

    def begun(self, market: _Market, point: Point, start: Start | None, sweep_id: str) -> Run:
        """The record of a point as of its start."""
        params = {name: provenance.plain(value) for name, value in point.items()}
        run = begun_column(
            self.settings, self.name, market.bars, params, self.host_terms, market.tz, self.origin, start,
            parent_run_id=sweep_id, columns=market.others,
        )  # fmt: skip
        return replace(run, git_diff=None)  # the search's own record has it

    def asked(self, market: _Market, point: Point) -> Asked:
        """The signals of a point."""
        index = market.frame.index
        if isinstance(self.signals, type):
            given = self.signals.arrays(market.bars, **point)  # type: ignore[attr-defined]
        else:
            # A copy, so that a function that writes into its bars reaches no other point.
            given = self.signals(market.frame.copy(), **point)
        return asked_of(market.bars, index, given)


@dataclass(slots=True)
class _Cell:
    """One point on its way."""

    run: Run
    asked: Asked
    column: ColumnRun | None

    @property
    def is_taken(self) -> Any:
        return np.ones(len(self.asked.side), np.bool_) if self.column is None else self.column.is_taken


@dataclass(slots=True)
class _Course:
    """A search on its way: what is known of its points so far. Nothing else grows with their number."""

    search: _Search
    folder: Folder
    start: Start | None
    is_resumed: bool
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    run_ids: list[str] = field(default_factory=list)
    n_kept: int = 0

    @property
    def sweep_id(self) -> str:
        return self.folder.path.name

    def search_run(self) -> Run:
        """The record of the search itself, as of its start."""
        search = self.search
        point = search.grid.point(search.places[0])
        runs = [
            search.begun(market, point, self._start_of(market), self.sweep_id) for market in search.markets.values()
        ]
        about = {
            "search": "columns", "grid": provenance.plain(search.grid.values), "n_points": len(search.places),
            "constraint": provenance.plain(search.grid.constraint), "objective": provenance.plain(search.objective),
        }  # fmt: skip
        diff = provenance.git_state(search.origin.folder).diff
        return replace(search_run(self.sweep_id, runs, about), git_diff=diff)

    def _start_of(self, market: _Market) -> Start | None:
        return start_of(self.search.settings, self.search.name, market.bars.timeframe, self.start)

    def carried_out(self, progress: Progress | bool | None) -> SweepResult:
        """Play what is not there yet, and make the result of all."""
        search = self.search
        line = ProgressLine(f"sweep {self.sweep_id[:8]}") if progress in (None, True) else None
        tell: Progress = line or (progress if callable(progress) else lambda *_: None)
        n_all, before = len(search.places) * len(search.markets), MarketFeatures.n_passes
        beat = heartbeat(search.registry, self.sweep_id)
        with line or nullcontext():
            for market in search.markets.values():
                start = self._start_of(market)
                features = None
                for places in _batches(search.places, len(market.bars)):
                    if self.records:
                        # vectorbt's portfolios hold themselves, and the collector does not see what their arrays weigh.
                        gc.collect()
                    waiting = list(self._waiting(market, start, places))
                    if waiting and features is None and search.has_memory:
                        features = MarketFeatures(market.bars)
                    cells = []
                    for run, point in waiting:
                        try:
                            cells.append(self._decided(market, run, point, start, features, beat))
                        except Exception as error:  # noqa: BLE001 the point fails, the others go on
                            self._keep_failure(run, error)
                    self._play(market, cells)
                    n_failed = sum(record["status"] == "failed" for record in self.records.values())
                    tell(len(self.records), n_all, f"{n_failed} failed" if n_failed else "")
        metrics = (*MEMORY_METRICS, *METRICS) if search.has_memory else METRICS
        records = [self.records[run_id] for run_id in self.run_ids]
        table = point_table(search.grid, search.places, search.symbols, self.run_ids, records, metrics)
        return SweepResult(
            self.sweep_id, table, self.folder.path, name_of(search.objective), MarketFeatures.n_passes - before, {},
            search.grid, search.places, tuple(search.symbols),
            self.n_kept, CLOSING,
        )  # fmt: skip

    def _waiting(self, market: _Market, start: Start | None, places: Sequence[Places]) -> Iterator[tuple[Run, Point]]:
        """The points that are not there yet."""
        points = [self.search.grid.point(place) for place in places]
        runs = [self.search.begun(market, point, start, self.sweep_id) for point in points]
        recorded = recorded_of(self.search.registry, runs) if self.is_resumed else set()
        for run, point in zip(runs, points, strict=True):
            self.run_ids.append(run.run_id)
            kept = self.folder.read_cell(run.run_id) if run.run_id in recorded else None
            if kept is not None and kept["status"] == "finished":
                self.records[run.run_id] = kept
                self.n_kept += 1
            else:
                yield run, point

    def _decided(
        self, market: _Market, run: Run, point: Point, start: Start | None, features: MarketFeatures | None,
        beat: Callable[[], None],
    ) -> _Cell:  # fmt: skip
        """The signals of a point, and what the memory says of them."""
        asked = self.search.asked(market, point)
        if not self.search.has_memory:
            return _Cell(run, asked, None)
        column = ColumnRun(asked, run, self.search.settings, self.search.terms, market.tz, start, features)
        column.decide(beat)
        column.settle()
        return _Cell(run, asked, column)

    def _play(self, market: _Market, cells: Sequence[_Cell]) -> None:
        """Play some points as the columns of one portfolio, and keep what each comes to."""
        if not cells:
            return
        search, index = self.search, market.frame.index
        orders = [
            play(
                cell.asked,
                cell.is_taken,
                at_close=search.terms["fill"] == "close",
                max_bars=search.terms["max_bars"],
                is_flat_on_skip=search.settings.on_skip == "flat",
                is_reversing=search.is_reversing(cell.run),
            )
            for cell in cells
        ]
        board = Board(index, pd.RangeIndex(len(cells)), tuple(cell.asked for cell in cells), True)
        pf = portfolio_of(board, orders, search.terms, *search.money, {})
        for cell, left in zip(cells, left_by(pf, board.asked), strict=True):
            try:
                self.records[cell.run.run_id] = self._kept(cell, left, index)
            except Exception as error:  # noqa: BLE001 a full disk or a locked registry is one point's
                self._keep_failure(cell.run, error)

    def _kept(self, cell: _Cell, left: Left, index: pd.Index) -> dict[str, Any]:
        """Keep what a point leaves: its tables, its batch in the registry, and last its record."""
        run_id, column = cell.run.run_id, cell.column
        metrics: Mapping[str, Any] = left.metrics
        tags: list[str | None] = [None] * len(left.trades)
        if column is not None:
            column.join(left)
            assert column.run.metrics is not None
            metrics, tags = column.run.metrics, column.tags_of(left)
        trades, equity = trade_table(left, index, tags), equity_table(left, index)
        commit = column.commit if column is not None else None
        return kept_record(self.folder, run_id, metrics, trades, equity, self.search.objective, commit)

    def _keep_failure(self, run: Run, error: Exception) -> None:
        self.records[run.run_id] = keep_failure(self.folder, self.search.registry, run, words_of(error))


def _batches(places: Sequence[Places], n_bars: int) -> Iterator[Sequence[Places]]:
    """The places, as many at once as their columns may take room."""
    n_at_once = min(max(_VALUES_AT_ONCE // n_bars, 1), _MOST_COLUMNS)
    for first in range(0, len(places), n_at_once):
        yield places[first : first + n_at_once]


def _identity(signals: Any, strategy: str | None) -> tuple[str, Origin]:
    """Under which name the runs are kept, and where the signals come from."""
    if isinstance(signals, type):
        return strategy or signals.__name__, _origin_of_class(signals)
    if not callable(signals):
        raise DataError(
            f"signals is a {type(signals).__name__}. Give a function of bars and parameters, or an ArrayStrategy; arrays "
            "that are there already go into gate_signals."
        )
    sha256 = provenance.run_id("signals", signals)
    name = getattr(signals, "__name__", "Signals")
    file = getattr(getattr(signals, "__code__", None), "co_filename", None)
    folder = Path(file).resolve().parent if file is not None and Path(file).is_file() else Path.cwd()
    return strategy or (name if name.isidentifier() else "Signals"), Origin(sha256, None, folder)


def _origin_of_class(cls: type) -> Origin:
    if not callable(getattr(cls, "arrays", None)):
        raise DataError(
            f"{cls.__name__} has no arrays. Give an ArrayStrategy, or a function of bars; sweep runs any strategy of backtesting.py."
        )
    # Here, because it needs backtesting.py, which a function does not.
    from qml_plugin.adapters.plain_runs import is_played_as_arrays

    if not is_played_as_arrays(cls):
        raise DataError(
            f"{cls.__name__} changes how its signals are played, or has a size that is no fraction, which vectorbt would not "
            f"follow. Use sweep, or give the function {cls.__name__}.arrays, whose signals are played as they are."
        )
    return Origin(provenance.source_sha256(cls), provenance.class_path(cls), provenance.source_folder(cls))


def _own_settings(signals: Any) -> dict[str, Any]:
    """What a class says itself of the options."""
    if not isinstance(signals, type):
        return {}
    from qml_plugin.adapters.backtesting_py import SETTINGS

    return {name: getattr(signals, name) for name in _OPTIONS if name in SETTINGS}


def _check_parameters(signals: Any, grid: Grid) -> None:
    """Refuse what the function does not take, before anything is played."""
    if isinstance(signals, type):
        from qml_plugin.adapters.plain_runs import parameters_of

        known = sorted({*parameters_of(signals), "reverses"})
        for name in grid.names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise DataError(
                    f"{signals.__name__} has no parameter {name!r}: it has {', '.join(known)}. Settings of the memory, and the "
                    f"size, are the same for all points.{f' Did you mean {near[0]!r}?' if near else ''}"
                )
        return
    try:
        inspect.signature(signals).bind(None, **dict.fromkeys(grid.names))
    except TypeError as error:
        raise DataError(
            f"the function does not take bars and the parameters {', '.join(grid.names)}: {error}. It is called as "
            f"signals(bars, {', '.join(f'{name}=…' for name in grid.names)})."
        ) from error
    except ValueError:
        return  # compiled code does not say what it takes
