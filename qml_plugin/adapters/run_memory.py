"""One run of a backtesting.py strategy: from the host's orders to entries, and from its trades to outcomes."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from qml_plugin import provenance
from qml_plugin.adapters import closing
from qml_plugin.adapters.backtesting_host import Strategy
from qml_plugin.adapters.order_tags import EntryTag, SkippedOrder, pattern_id
from qml_plugin.adapters.settings import Settings
from qml_plugin.bars import COLUMNS, PRICES, Bars, bars_from_frame
from qml_plugin.clock import to_datetime
from qml_plugin.errors import DataError, LookAheadError, QmlError, RegistryError
from qml_plugin.features import CATALOGUE, MarketFeatures
from qml_plugin.features.catalogue import difference
from qml_plugin.gate.predictor import XGBoostPredictor
from qml_plugin.memory import PatternMemory
from qml_plugin.records import Decision, Entry, FloatArray, KnownPatterns, Pattern, Run, Setup
from qml_plugin.registry import PatternRegistry, Snapshot

METRICS = {
    "Return [%]": ("return_frac", 0.01),
    "Buy & Hold Return [%]": ("buy_hold_return_frac", 0.01),
    "Max. Drawdown [%]": ("max_drawdown_frac", 0.01),
    "Win Rate [%]": ("trade_win_share", 0.01),
    "Sharpe Ratio": ("sharpe_annual", 1.0),
    "# Trades": ("n_trades", 1.0),
}
_DIGITS = 15  # as many as a float64 always holds
_SIGN_OF_LIFE_US = 60_000_000
_TABLE = [
    "pattern_id", "detection_time", "side", "pattern_type", "action", "reason", "confidence", "model", "n_known",
    "barrier_outcome", "exit_reason", "r_multiple", "trade_return_frac",
]  # fmt: skip


@dataclass(slots=True)
class Host:
    """The backtest that is running now, and the memory that its strategy opened."""

    backtest: Any
    memory: RunMemory | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """The known patterns that a run starts from, what identifies them, and the frozen model where one decides."""

    known: KnownPatterns
    snapshot: Snapshot
    model_id: str | None = None
    frozen: XGBoostPredictor | None = None


def with_frozen(start: Start, registry: PatternRegistry, model_id: str) -> Start:
    """The start with a model of the registry, once it is found to be whole and of this version's features."""
    model = registry.get_model(model_id)
    return replace(start, model_id=model_id, frozen=XGBoostPredictor.load(model["path"], card=model["card"]))


def read_start(registry: PatternRegistry) -> Start:
    """Everything of this version's features whose outcome is known; a warning where there are only others."""
    known, snapshot = registry.read_snapshot(CATALOGUE.feature_set, CATALOGUE.names)
    others = {} if len(known) else registry.feature_sets()
    if others:
        n_patterns, versions = max(others.values(), key=lambda other: other[0])
        warnings.warn(
            f"the registry holds {n_patterns} resolved patterns that were recorded {difference(versions)}. They do not "
            "count: features of two sets cannot be compared. Run their backtests again with this version.",
            UserWarning,
            stacklevel=2,
        )
    return Start(known, snapshot)


@dataclass(frozen=True, slots=True)
class Cell:
    """What a run is given by the search that it is a cell of; it records nothing before `RunMemory.commit` is called.

    ``run`` is its record as of its start. ``start`` is the snapshot that all cells share, None where this one asks for
    none.
    """

    run: Run
    bars: Bars
    start: Start | None = None
    market: MarketFeatures | None = None


current_host: ContextVar[Host | None] = ContextVar("current_host", default=None)
_is_recording: ContextVar[bool] = ContextVar("is_recording", default=True)


@contextmanager
def nothing_recorded() -> Iterator[None]:
    """Within the block no run reads or writes a registry: a script that is imported for its class may run a backtest."""
    token = _is_recording.set(False)
    try:
        yield
    finally:
        _is_recording.reset(token)


def registry_of(url: str | None) -> PatternRegistry | None:
    """The registry of a run, None where it has none or nothing is to be recorded now."""
    return PatternRegistry(url) if url is not None and _is_recording.get() else None


class RunMemory:
    """One run of one strategy: its memory, and the way from the host's orders to entries and back.

    After the run: ``run`` (the record in ``experiments``), ``patterns`` (`Pattern` per entry), ``decisions``
    (`Decision` per entry) and ``table()`` (both as a DataFrame). Holds no database handle, so results pickle.
    """

    def __init__(
        self, strategy: Any, broker: Any, frame: pd.DataFrame, params: Mapping[str, Any], settings: Collection[str]
    ) -> None:
        self._settings = Settings.of(strategy)
        self._strategy_name = type(strategy).__name__
        host = current_host.get()
        cell: Cell | None = getattr(host.backtest, "_qml_cell", None) if host else None
        self._cell = cell
        self._host = host
        self._px_unit = float(getattr(host.backtest, "_fractional_unit", 1.0)) if host else 1.0
        self._bars = cell.bars if cell else _bars_of(frame, self._settings, self._px_unit)
        self._tz = _zone_of(frame)
        self._broker = broker
        self._registry = registry_of(self._settings.registry)
        start: Start | None = cell.start if cell else getattr(host.backtest, "_qml_start", None) if host else None
        if start is None and cell is None and self._registry is not None and self._settings.policy.mode != "record":
            start = read_start(self._registry)
        if (
            self._settings.is_frozen
            and (start is None or start.frozen is None)
            and self._settings.policy.mode != "record"
        ):
            start = self._with_active_model(start)
        self._model_id = start.model_id if start else None
        self._memory: PatternMemory | None = PatternMemory(
            self._bars,
            start.known if start else None,
            self._settings.policy,
            frozen=start.frozen if start else None,
            market=cell.market if cell else None,
        )
        self._decisions = self._memory.decisions
        self.patterns: list[Pattern] = []
        self.returns: dict[str, float | None] = {}
        self.run = cell.run if cell else begun_run(
            strategy, params, settings, self._settings, self._bars, frame,
            host.backtest if host else None, start, time_us=_now(),
        )  # fmt: skip
        self._noted_at = self.run.started_at
        if self._registry is not None and cell is None:
            self._registry.start_run(self.run)
        if host is not None:
            host.memory = self

    def _with_active_model(self, start: Start | None) -> Start:
        """The start with the model that is active for this strategy and timeframe."""
        if start is None or self._registry is None:
            raise DataError("gate_model 'frozen' takes its model from a registry, and registry is None. Set it.")
        model = self._registry.active_model(self._strategy_name, self._bars.timeframe)
        if model is None:
            raise DataError(
                f"no model is active for {self._strategy_name} on {self._bars.timeframe}. Train one (qml train --activate), "
                "activate one (qml models activate), or use another gate_model."
            )
        return with_frozen(start, self._registry, str(model["model_id"]))

    @property
    def _walk(self) -> PatternMemory:
        if self._memory is None:
            raise QmlError("this run is over: its memory takes no more entries. Run the backtest again.")
        return self._memory

    @property
    def decisions(self) -> list[Decision]:
        """Decisions so far, in time order."""
        return list(self._decisions.values())

    @property
    def decided(self) -> frozenset[str]:
        """Ids of the patterns decided so far."""
        return frozenset(self._decisions)

    def table(self) -> pd.DataFrame:
        """One row per entry: when, which side, what was decided and why, and what became of it."""
        if self._memory is not None:
            raise LookAheadError(
                "the table holds outcomes, so it is there after the run only. Read decisions until then."
            )
        rows = []
        for pattern, decision in zip(self.patterns, self.decisions, strict=True):
            outcome = pattern.outcome
            rows.append(
                (
                    pattern.pattern_id,
                    to_datetime(pattern.entry.detection_at),
                    pattern.entry.side,
                    pattern.entry.pattern_type,
                    decision.action,
                    decision.reason,
                    decision.confidence,
                    decision.model,
                    decision.n_known,
                    None if outcome is None else "win" if outcome.is_win else "loss",
                    None if outcome is None else outcome.exit_reason,
                    None if outcome is None else outcome.r_multiple,
                    self.returns.get(pattern.pattern_id),
                )
            )
        return pd.DataFrame(rows, columns=_TABLE)

    def enter(self, side: int, place: Callable[..., Any], order: dict[str, Any]) -> Any:
        """Pass an order that only closes; register, decide and perhaps skip one that opens."""
        broker, memory = self._broker, self._walk
        if getattr(broker, "_i", None) is None:
            warnings.warn(
                "an order placed in init() is passed on but not registered: no bar has closed yet. Order in next().",
                stacklevel=4,
            )
            return place(**order)
        if closing.only_closes(broker, side, order):
            return place(**order)
        self._note_alive()
        entry = self._entry(side, order)
        is_new = entry.pattern_id not in memory.decisions
        decision = memory.decide(entry)
        if decision.is_taken:
            try:
                return place(**{**order, "tag": EntryTag(entry.pattern_id, order.get("tag"))})
            except BaseException:
                if is_new:
                    memory.withdraw(entry.pattern_id)
                raise
        closers = []
        if not broker._exclusive_orders:
            closers = closing.close_against(broker, side, order)
        elif self._settings.on_skip == "flat":
            closing.go_flat(broker, side)
        return SkippedOrder(decision, side, order, closers)

    def cancelled(self, pattern_id: str) -> None:
        """Tell the memory that the order of an entry is gone, unless another order of the same entry waits on."""
        waiting = {tag.pattern_id for o in self._broker.orders if isinstance(tag := o._Order__tag, EntryTag)}
        if pattern_id not in waiting:
            self._walk.cancel(pattern_id, self._broker._i)

    def finish(self, stats: pd.Series | None, error: BaseException | None = None) -> None:
        """Resolve what the bars resolve, join the trades, and commit the run in one transaction."""
        memory = self._walk
        self.patterns = memory.patterns()
        self.returns = self._trade_returns()
        trades = (*self._broker.closed_trades, *self._broker.trades)
        n_unregistered = sum(pattern_id(trade) is None for trade in trades)
        self.patterns = [replace(p, trade_return_frac=self.returns.get(p.pattern_id)) for p in self.patterns]
        self.run = replace(
            self.run,
            status="finished" if error is None else "failed" if isinstance(error, Exception) else "interrupted",
            metrics=_metrics(stats, self.decisions) | {"n_unregistered_trades": n_unregistered},
            returns_frac=None if stats is None else _bar_returns(stats),
            finished_at=_now(),
            error=None if error is None else f"{type(error).__name__}: {error}",
        )
        self._memory = self._broker = self._host = None
        if self._cell is None:
            self.commit()

    def commit(self) -> None:
        """Store what a run that has ended leaves in the registry, in one transaction; nothing where it has none."""
        registry, self._registry = self._registry, None
        self._cell = None
        if registry is not None:
            try:
                registry.save_run(self.run, self.patterns, self.decisions, self.returns, bars=self._bars, tz=self._tz)
            except QmlError as failure:
                failure.add_note("The backtest itself ran to its end; only its record is missing. Run it again.")
                raise

    def _note_alive(self) -> None:
        """Now and then a sign of life, for those who cannot see this process."""
        if self._registry is not None and self._cell is None and _now() - self._noted_at > _SIGN_OF_LIFE_US:
            self._noted_at = _now()
            try:
                self._registry.note_alive(self.run.run_id)
            except RegistryError as error:
                warnings.warn(f"a sign of life of the run could not be recorded: {error}", RuntimeWarning, stacklevel=5)

    def _entry(self, side: int, order: Mapping[str, Any]) -> Entry:
        tag, unit = order.get("tag"), self._px_unit
        limit, trigger, stop, target = (  # the host takes 0 as absent
            float(order[name]) / unit if order.get(name) else None for name in ("limit", "stop", "sl", "tp")
        )
        return self._walk.entry(
            self._broker._i,
            side,
            stop_px=stop,
            target_px=target,
            limit_px=limit,
            trigger_px=trigger,
            fill="close" if self._broker._trade_on_close else "open",
            strategy=self._strategy_name,
            setup=_rescaled(tag, unit) if isinstance(tag, Setup) else None,
            rule=self._settings.barriers,
        )

    def _trade_returns(self) -> dict[str, float | None]:
        """Size-weighted return of each entry's trades after costs; None while a part of it is open."""
        cost: dict[str, float] = {}
        gain: dict[str, float] = {}
        for trade in self._broker.closed_trades:
            key = pattern_id(trade)
            if key is not None:
                cost[key] = cost.get(key, 0.0) + abs(trade.size) * trade.entry_price
                gain[key] = gain.get(key, 0.0) + trade.pl
        still_open = {key for key in map(pattern_id, self._broker.trades) if key is not None}
        returns: dict[str, float | None] = {key: float(gain[key] / cost[key]) for key in cost}
        return returns | dict.fromkeys(still_open)


def begun_run(
    strategy: Any,
    given: Mapping[str, Any],
    names: Collection[str],
    settings: Settings,
    bars: Bars,
    frame: pd.DataFrame,
    backtest: Any,
    start: Start | None,
    *,
    time_us: int,
    cls: type | None = None,
    kind: str = "backtest",
    parent_run_id: str | None = None,
    trade_from_bar: int = 0,
) -> Run:
    """The record of a run as it is at its start; `strategy` is an instance of `cls`, or a class that stands for one.

    `names` are those of the mixin's settings. A cell of a search is the same run as the backtest of its parameters.
    """
    cls = cls or type(strategy)
    others = frame.columns.difference(list(COLUMNS))
    params: dict[str, dict[str, object]] = {
        "strategy": _strategy_params(cls, strategy, given, names),
        "host": host_options(backtest) if backtest else {},
        "qml": settings.as_dict(),
        # A strategy may read all of this, and the hash of the bars knows none of it.
        "data": {
            "tz": _zone_of(frame),
            "columns": {str(name): provenance.plain(frame[name]) for name in others},
        },
    }
    if start is not None and start.model_id is not None:
        params["qml"]["model_id"] = start.model_id
    if trade_from_bar:
        params["host"]["trade_from_bar"] = trade_from_bar
    data_hash, name = bars.sha256(), cls.__name__
    source = provenance.source_sha256(cls)
    git = provenance.git_state(provenance.source_folder(cls))
    snapshot = start.snapshot if start else None
    return Run(
        run_id=provenance.run_id("backtest", name, source, bars.symbol, bars.timeframe, params, data_hash),
        parent_run_id=parent_run_id,
        kind=kind,
        status="running",
        strategy_name=name,
        symbol=bars.symbol,
        timeframe=bars.timeframe,
        params=params,
        data_hash=data_hash,
        data_start_at=int(bars.opened_at[0]),
        data_end_at=int(bars.opened_at[-1]),
        data_bars=len(bars),
        seed=settings.policy.seed,
        versions={
            **provenance.library_versions(),
            "feature_set": CATALOGUE.feature_set,
            "strategy_source": source,
        },
        started_at=time_us,
        git_hash=git.commit,
        is_git_dirty=git.is_dirty,
        git_diff=git.diff,
        strategy_path=provenance.class_path(cls),
        snapshot_seq=snapshot.seq if snapshot else None,
        snapshot_patterns=snapshot.n_patterns if snapshot else None,
        snapshot_sha256=snapshot.sha256 if snapshot else None,
    )


def _bars_of(frame: pd.DataFrame, settings: Settings, px_unit: float) -> Bars:
    return bars_from_frame(
        _unscaled(frame[list(COLUMNS)], px_unit),
        symbol=settings.symbol or "UNKNOWN",
        timeframe=settings.timeframe,
        bar_label=settings.bar_label,
    )


def _zone_of(frame: pd.DataFrame) -> str | None:
    tz = getattr(frame.index, "tz", None)
    return None if tz is None else str(tz)


def _strategy_params(
    cls: type, strategy: Any, given: Mapping[str, Any], settings: Collection[str]
) -> dict[str, object]:
    """The strategy's own parameters as they are in this run: public class attributes that are no methods."""
    own: dict[str, object] = {}
    for base in reversed(cls.__mro__):
        if base is object or issubclass(Strategy, base) or base.__module__.startswith(("qml_plugin.", "backtesting.")):
            continue
        for name, value in vars(base).items():
            if not name.startswith("_") and name not in settings and not _is_behaviour(value):
                own[name] = getattr(strategy, name, None)
    own |= {name: value for name, value in given.items() if name not in settings}
    return {name: provenance.plain(value) for name, value in own.items()}


def _is_behaviour(value: object) -> bool:
    return callable(value) or isinstance(value, (property, staticmethod, classmethod))


def host_options(backtest: Any) -> dict[str, object]:
    options = {key: value for key, value in backtest._broker.keywords.items() if key != "index"}
    options |= {"finalize_trades": backtest._finalize_trades, "host": type(backtest).__name__}
    if hasattr(backtest, "_fractional_unit"):
        options["fractional_unit"] = backtest._fractional_unit
    return {name: provenance.plain(value) for name, value in options.items()}


def _metrics(stats: pd.Series | None, decisions: list[Decision]) -> dict[str, object]:
    metrics: dict[str, object] = {"n_entries": len(decisions)}
    for action in ("take", "skip", "abstain"):
        metrics[f"n_{action}"] = sum(decision.action == action for decision in decisions)
    if stats is not None:
        metrics |= {name: float(stats[key]) * scale for key, (name, scale) in METRICS.items()}
    return metrics


def _bar_returns(stats: pd.Series) -> FloatArray:
    return returns_of(stats["_equity_curve"]["Equity"].to_numpy(np.float64))


def returns_of(equity: FloatArray) -> FloatArray:
    """Returns of an equity curve, one for each bar but the first; 0 from bars on which nothing is left."""
    before = equity[:-1]
    returns: FloatArray = np.divide(equity[1:] - before, before, out=np.zeros(len(before)), where=before > 0)
    return returns


def _unscaled(frame: pd.DataFrame, unit: float) -> pd.DataFrame:
    """Market prices of a frame that the fractional host has scaled: such as it would scale to the same bits again."""
    if unit == 1.0:
        return frame
    prices = {name: _inverse(frame[name].to_numpy(float), frame[name] / unit, lambda px: px * unit) for name in PRICES}
    volume = frame["Volume"].to_numpy(float)
    return frame.assign(**prices, Volume=_inverse(volume, volume * unit, lambda traded: traded / unit))


def _inverse(scaled: FloatArray, estimate: ArrayLike, scale: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """What `scale` maps to `scaled`, to the last bit, at most two places from the estimate; a short decimal if one does."""
    found = np.array(estimate, dtype=np.float64)
    candidates = [found]
    for toward in (-np.inf, np.inf):
        near = np.nextafter(found, toward)
        candidates += [near, np.nextafter(near, toward)]
    with np.errstate(all="ignore"):
        magnitude = 10.0 ** (_DIGITS - 1 - np.floor(np.log10(np.abs(found))))
        for candidate in (*reversed(candidates), np.round(found * magnitude) / magnitude):
            found = np.where(scale(candidate) == scaled, candidate, found)
    return found


def _rescaled(setup: Setup, unit: float) -> Setup:
    if unit == 1.0:
        return setup
    return replace(
        setup,
        points=tuple(replace(point, px=point.px / unit) for point in setup.points),
        stop_px=None if setup.stop_px is None else setup.stop_px / unit,
        target_px=None if setup.target_px is None else setup.target_px / unit,
    )


def _now() -> int:
    return time.time_ns() // 1000
