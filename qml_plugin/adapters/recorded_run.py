"""One run as it is recorded, whatever the host: what it starts from, its memory, its table, and its commit at the end."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from qml_plugin import provenance
from qml_plugin.adapters.settings import Settings
from qml_plugin.bars import Bars
from qml_plugin.clock import to_datetime
from qml_plugin.errors import DataError, LookAheadError, QmlError, RegistryError
from qml_plugin.features import CATALOGUE, MarketFeatures
from qml_plugin.features.catalogue import difference
from qml_plugin.gate.predictor import XGBoostPredictor
from qml_plugin.memory import PatternMemory, PooledPast
from qml_plugin.records import Decision, Entry, FloatArray, KnownPatterns, Pattern, Run, TrialEntries
from qml_plugin.registry import PatternRegistry, Snapshot
from qml_plugin.registry.trial_rows import rows_of_run, trial_entries

_SIGN_OF_LIFE_US = 60_000_000
_TABLE = [
    "pattern_id", "detection_time", "side", "pattern_type", "action", "reason", "confidence", "model", "n_known",
    "barrier_outcome", "exit_reason", "r_multiple", "trade_return_frac",
]  # fmt: skip


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


_is_recording: ContextVar[bool] = ContextVar("is_recording", default=True)


@contextmanager
def nothing_recorded() -> Iterator[None]:
    """Within the block no run reads or writes a registry: a script that is imported for its class may run a backtest."""
    token = _is_recording.set(False)
    try:
        yield
    finally:
        _is_recording.reset(token)


def registry_of(url: str | None, *, create: bool = True) -> PatternRegistry | None:
    """The registry of a run, None where it has none or nothing is to be recorded now."""
    return PatternRegistry(url, create=create) if url is not None and _is_recording.get() else None


@dataclass(frozen=True, slots=True)
class Cell:
    """What a run is given by the search that it is a cell of; its search records what `RecordedRun.batch` holds.

    ``run`` is its record as of its start. ``start`` is the snapshot that all cells share, None where this one asks for
    none. ``pool`` is the past that it shares with the runs of other symbols, and ``await_turn(known_at)`` returns when none of
    them has an earlier entry.
    """

    run: Run
    bars: Bars
    start: Start | None = None
    market: MarketFeatures | None = None
    pool: PooledPast | None = None
    await_turn: Callable[[int], None] | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the signals of a run come from: a hash of their source, the place to find it again, and its folder."""

    source_sha256: str
    path: str | None
    folder: Path


def start_of(settings: Settings, strategy_name: str, timeframe: str, start: Start | None = None) -> Start | None:
    """What a run of these settings starts from, `start` where that is given; None where nothing is asked of a registry."""
    if settings.policy.mode == "record":
        return start
    registry = registry_of(settings.registry)
    if start is None and registry is not None:
        start = read_start(registry)
    if settings.is_frozen and (start is None or start.frozen is None):
        return _with_active_model(start, registry, strategy_name, timeframe)
    return start


def _with_active_model(
    start: Start | None, registry: PatternRegistry | None, strategy_name: str, timeframe: str
) -> Start:
    """The start with the model that is active for this strategy and timeframe."""
    if start is None or registry is None:
        raise DataError("gate_model 'frozen' takes its model from a registry, and registry is None. Set it.")
    model = registry.active_model(strategy_name, timeframe)
    if model is None:
        raise DataError(
            f"no model is active for {strategy_name} on {timeframe}. Train one (qml train --activate), "
            "activate one (qml models activate), or use another gate_model."
        )
    return with_frozen(start, registry, str(model["model_id"]))


def begun_run(
    settings: Settings,
    strategy_name: str,
    bars: Bars,
    params: Mapping[str, Mapping[str, object]],
    origin: Origin,
    start: Start | None,
    *,
    kind: str = "backtest",
    parent_run_id: str | None = None,
) -> Run:
    """The record of a run as it is at its start. A cell of a search is the same run as the backtest of its parameters."""
    own = settings.as_dict()
    if start is not None and start.model_id is not None:
        own["model_id"] = start.model_id
    all_params = {**params, "qml": own}
    snapshot = start.snapshot if start else None
    data_hash = bars.sha256()
    git = provenance.git_state(origin.folder)
    return Run(
        run_id=provenance.run_id(
            "backtest",
            strategy_name,
            origin.source_sha256,
            bars.symbol,
            bars.timeframe,
            all_params,
            data_hash,
        ),
        kind=kind,
        parent_run_id=parent_run_id,
        status="running",
        strategy_name=strategy_name,
        symbol=bars.symbol,
        timeframe=bars.timeframe,
        params=all_params,
        data_hash=data_hash,
        data_start_at=int(bars.opened_at[0]),
        data_end_at=int(bars.opened_at[-1]),
        data_bars=len(bars),
        seed=settings.policy.seed,
        versions={
            **provenance.library_versions(),
            "feature_set": CATALOGUE.feature_set,
            "strategy_source": origin.source_sha256,
        },
        started_at=now_us(),
        git_hash=git.commit,
        is_git_dirty=git.is_dirty,
        git_diff=git.diff,
        strategy_path=origin.path,
        snapshot_seq=snapshot.seq if snapshot else None,
        snapshot_patterns=snapshot.n_patterns if snapshot else None,
        snapshot_sha256=snapshot.sha256 if snapshot else None,
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """What a run that has ended leaves in a registry. It pickles, so that another process can write it."""

    run: Run
    patterns: list[Pattern]
    decisions: list[Decision]
    returns: dict[str, float | None]
    tz: str | None

    def save(self, registry: PatternRegistry, bars: Bars) -> None:
        """Store it in one transaction; `bars` are those of the run."""
        try:
            registry.save_run(self.run, self.patterns, self.decisions, self.returns, bars=bars, tz=self.tz)
        except QmlError as failure:
            failure.add_note("The backtest itself ran to its end; only its record is missing. Run it again.")
            raise


class RecordedRun:
    """One run of one strategy on one series: its memory, and its record from the start to the end.

    After the run: ``run`` (the record in ``experiments``), ``patterns`` (`Pattern` per entry), ``decisions``
    (`Decision` per entry), ``returns`` (of the real trades, by pattern) and ``table()``. Holds no database handle, so
    results pickle.
    """

    def __init__(
        self,
        settings: Settings,
        strategy_name: str,
        bars: Bars,
        *,
        tz: str | None,
        params: Mapping[str, Mapping[str, object]],
        origin: Origin,
        start: Start | None,
        market: MarketFeatures | None = None,
        cell: Cell | None = None,
    ) -> None:
        self._settings, self._strategy_name, self._bars, self._tz = settings, strategy_name, bars, tz
        self._cell = cell
        # That of a search is there from its start: a new one in its place would hide that rows were lost.
        self._registry = registry_of(settings.registry, create=cell is None)
        pool = cell.pool if cell and cell.pool else PooledPast(start.known if start else None, settings.policy)
        self._memory: PatternMemory | None = PatternMemory(
            bars, frozen=start.frozen if start else None, market=market, pool=pool
        )
        self._decisions = self._memory.decisions
        self.patterns: list[Pattern] = []
        self.returns: dict[str, float | None] = {}
        self.run = cell.run if cell else begun_run(settings, strategy_name, bars, params, origin, start)
        self._beat: Callable[[], None] | None = None
        if self._registry is not None and cell is None:
            self._registry.start_run(self.run)
            self._beat = heartbeat(self._registry, self.run.run_id)

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

    def trial_entries(self) -> TrialEntries:
        """Its entries, what the gate thought of them and what became of them: `gate.gate_trial` reads this of a run."""
        if self._memory is not None:
            raise LookAheadError("a trial reads outcomes, so there is one after the run only.")
        return trial_entries(f"run {self.run.run_id}", rows_of_run(self.patterns, self.decisions))

    def _await_turn(self, entry: Entry) -> None:
        """Wait until no entry of a run that shares this one's past comes before this one."""
        if self._cell is not None and self._cell.await_turn is not None:
            self._cell.await_turn(entry.known_at)

    def _note_alive(self) -> None:
        if self._beat is not None:
            self._beat()

    def _close(
        self,
        returns: Mapping[str, float | None],
        metrics: Mapping[str, object],
        returns_frac: FloatArray | None,
        error: BaseException | None = None,
    ) -> None:
        """Resolve what the bars resolve, join the trades, and commit the run unless a search does."""
        if self._memory is not None:
            self.patterns = self._memory.patterns()
        self.returns = dict(returns)
        self.patterns = [replace(p, trade_return_frac=self.returns.get(p.pattern_id)) for p in self.patterns]
        self.run = replace(
            self.run,
            status="finished" if error is None else "failed" if isinstance(error, Exception) else "interrupted",
            metrics={**self._counts(), **metrics},
            returns_frac=returns_frac,
            finished_at=now_us(),
            error=None if error is None else f"{type(error).__name__}: {error}",
        )
        self._memory = self._beat = None
        if self._cell is None:
            self.commit()

    def commit(self) -> None:
        """Store what a run that has ended leaves in the registry, in one transaction; nothing where it has none."""
        registry, self._registry, self._cell = self._registry, None, None
        if registry is not None:
            self.batch().save(registry, self._bars)

    def batch(self) -> Batch:
        """What a run that has ended leaves in a registry."""
        return Batch(self.run, self.patterns, self.decisions, self.returns, self._tz)

    def _counts(self) -> dict[str, object]:
        """How many entries there were, and what was done with them."""
        actions = [decision.action for decision in self._decisions.values()]
        counts: dict[str, object] = {"n_entries": len(actions)}
        return counts | {f"n_{action}": actions.count(action) for action in ("take", "skip", "abstain")}


def heartbeat(registry: PatternRegistry | None, run_id: str) -> Callable[[], None]:
    """A sign of life of a run now and then, however often it is called, for those who cannot see this process."""
    if registry is None:
        return lambda: None
    noted_at = now_us()

    def beat() -> None:
        nonlocal noted_at
        if now_us() - noted_at > _SIGN_OF_LIFE_US:
            noted_at = now_us()
            try:
                registry.note_alive(run_id)
            except RegistryError as error:
                warnings.warn(f"a sign of life of the run could not be recorded: {error}", RuntimeWarning, stacklevel=2)

    return beat


def now_us() -> int:
    """The time of the machine, in UTC microseconds."""
    return time.time_ns() // 1000
