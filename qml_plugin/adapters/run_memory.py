"""One run of a backtesting.py strategy: from the host's orders to entries, and from its trades to outcomes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from qml_plugin import provenance
from qml_plugin.adapters.backtesting_host import Strategy
from qml_plugin.adapters.order_tags import EntryTag, SkippedOrder, raw_tag
from qml_plugin.adapters.settings import Settings
from qml_plugin.bars import PRICES, bars_from_frame
from qml_plugin.clock import to_datetime
from qml_plugin.features import CATALOGUE, FEATURE_SET
from qml_plugin.features.kernels import wilder_atr
from qml_plugin.labels.outcomes import barriers_for
from qml_plugin.memory import PatternMemory
from qml_plugin.records import Decision, Entry, Pattern, Run, Setup
from qml_plugin.registry import PatternRegistry

_METRICS = {
    "Return [%]": ("return_frac", 0.01),
    "Buy & Hold Return [%]": ("buy_hold_return_frac", 0.01),
    "Max. Drawdown [%]": ("max_drawdown_frac", 0.01),
    "Win Rate [%]": ("win_share", 0.01),
    "Sharpe Ratio": ("sharpe_annual", 1.0),
    "# Trades": ("n_trades", 1.0),
}


@dataclass(slots=True)
class Host:
    """The backtest that is running now, and the memory that its strategy opened."""

    backtest: Any
    memory: RunMemory | None = None


current_host: ContextVar[Host | None] = ContextVar("current_host", default=None)


class RunMemory:
    """One run of one strategy: its memory, and the way from the host's orders to entries and back.

    After the run: ``run`` (the record in ``experiments``), ``patterns`` (`Pattern` per entry), ``decisions``
    (`Decision` per entry) and ``table()`` (both as a DataFrame). Holds no database handle, so results pickle.
    """

    def __init__(self, strategy: Any, broker: Any, frame: pd.DataFrame, params: Mapping[str, Any]) -> None:
        self._settings = Settings.of(strategy)
        self._strategy_name = type(strategy).__name__
        host = current_host.get()
        self._host = host
        self._px_unit = float(getattr(host.backtest, "_fractional_unit", 1.0)) if host else 1.0
        self._bars = bars_from_frame(
            _unscaled(frame, self._px_unit),
            symbol=self._settings.symbol or "UNKNOWN",
            timeframe=self._settings.timeframe,
            bar_label=self._settings.bar_label,
        )
        self._atr = wilder_atr(self._bars.high, self._bars.low, self._bars.close, 14)
        self._broker = broker
        self._data = strategy.data
        self._strategy_cls: type = type(strategy)
        self._params = _strategy_params(strategy, params)
        self._started_at = _now()
        self._registry = None if self._settings.registry is None else PatternRegistry(self._settings.registry)
        known = None
        if self._registry is not None and self._settings.policy.mode != "record":
            known = self._registry.known_patterns(FEATURE_SET, [feature.name for feature in CATALOGUE])
        self._memory: PatternMemory | None = PatternMemory(self._bars, known, self._settings.policy)
        self.patterns: list[Pattern] = []
        self.returns: dict[str, float | None] = {}
        self.run: Run | None = None
        if host is not None:
            host.memory = self

    @property
    def decisions(self) -> list[Decision]:
        """Decisions so far, in time order."""
        return list(self._decisions.values())

    @property
    def _decisions(self) -> dict[str, Decision]:
        return self._memory.decisions if self._memory is not None else self._final_decisions

    def table(self) -> pd.DataFrame:
        """One row per entry: when, which side, what was decided and why, and what became of it."""
        rows = [
            {
                "pattern_id": pattern.pattern_id,
                "detection_time": to_datetime(pattern.entry.detection_at),
                "side": pattern.entry.side,
                "pattern_type": pattern.entry.pattern_type,
                "action": decision.action,
                "reason": decision.reason,
                "confidence": decision.confidence,
                "n_known": decision.n_known,
                "barrier_outcome": None if pattern.outcome is None else pattern.outcome.exit_reason,
                "r_multiple": None if pattern.outcome is None else pattern.outcome.r_multiple,
                "trade_return_frac": self.returns.get(pattern.pattern_id),
            }
            for pattern, decision in zip(self.patterns, self.decisions, strict=True)
        ]
        return pd.DataFrame(rows)

    def enter(self, side: int, place: Callable[..., Any], order: dict[str, Any]) -> Any:
        """Pass an order that only closes; register, decide and perhaps skip one that opens."""
        assert self._memory is not None, "the run is over"
        opposite = self._units_it_would_close(side)
        if opposite and not self._broker._exclusive_orders and self._units(side, order) <= opposite:
            return place(**order)
        entry = self._entry(side, order)
        decision = self._memory.decide(entry)
        if decision.is_taken:
            user_tag = order.get("tag")
            try:
                return place(**{**order, "tag": EntryTag(entry.pattern_id, user_tag)})
            except BaseException:
                self._memory.withdraw(entry.pattern_id)
                raise
        if self._broker._exclusive_orders:
            if self._settings.on_skip == "flat":
                self._go_flat(side)
        elif opposite:
            self._close_instead(side, opposite, place, order)
        return SkippedOrder(decision, side, order)

    def finish(self, stats: pd.Series | None, error: str | None = None) -> None:
        """Resolve what the bars resolve, join the trades, and commit the run in one transaction."""
        memory = self._memory
        assert memory is not None, "the run is already finished"
        self._final_decisions = memory.decisions
        self.patterns = memory.patterns()
        self.returns = self._trade_returns()
        self.patterns = [replace(p, trade_return_frac=self.returns.get(p.pattern_id)) for p in self.patterns]
        self.run = self._run_record(stats, error)
        registry, self._registry = self._registry, None
        self._memory = self._broker = self._data = self._host = None
        if registry is not None:
            registry.save_run(self.run, self.patterns, self.decisions, self.returns)

    def _entry(self, side: int, order: Mapping[str, Any]) -> Entry:
        bar = len(self._data) - 1
        bars, unit = self._bars, self._px_unit
        setup = order.get("tag") if isinstance(order.get("tag"), Setup) else None
        limit, trigger, stop, target = (
            None if order.get(name) is None else float(order[name]) / unit for name in ("limit", "stop", "sl", "tp")
        )
        reference = limit or trigger or float(bars.close[bar])
        rule = self._settings.barriers
        stop, target = barriers_for(side, reference, self._atr_at(bar), rule, stop, target)
        return Entry(
            symbol=bars.symbol,
            timeframe=bars.timeframe,
            strategy=self._strategy_name,
            pattern_type=setup.pattern_type if setup else "long_signal" if side > 0 else "short_signal",
            side=side,
            bar=bar,
            detection_at=int(bars.opened_at[bar]),
            known_at=int(bars.known_at[bar]),
            reference_px=reference,
            stop_px=stop,
            target_px=target,
            rule=rule,
            limit_px=limit,
            trigger_px=trigger,
            fill="close" if self._broker._trade_on_close else "open",
            setup=_rescaled(setup, unit) if setup else None,
        )

    def _atr_at(self, bar: int) -> float:
        """ATR(14), or the mean range so far while it warms up."""
        atr = float(self._atr[bar])
        return atr if np.isfinite(atr) else float(np.mean(self._bars.high[: bar + 1] - self._bars.low[: bar + 1]))

    def _units_it_would_close(self, side: int) -> int:
        """Units of open trades that an order of this side would close before it opens anything."""
        if self._broker._hedging and not self._broker._exclusive_orders:
            return 0
        return sum(abs(int(trade.size)) for trade in self._broker.trades if trade.size * side < 0)

    def _units(self, side: int, order: Mapping[str, Any]) -> int:
        """Units that the order asks for, a fraction of equity counted at the last close as the host will count it."""
        size = float(order.get("size", Strategy._FULL_EQUITY))
        if size >= 1:
            return int(size)
        broker = self._broker
        return int(broker.margin_available * broker._leverage * size // broker._adjusted_price(side))

    def _go_flat(self, side: int) -> None:
        """Cancel the pending entries and close the trades that stand against a skipped order."""
        for pending in [o for o in self._broker.orders if not o.is_contingent and o.size * side < 0]:
            pending.cancel()
        for trade in [t for t in self._broker.trades if t.size * side < 0]:
            trade.close()

    def _close_instead(self, side: int, opposite: int, place: Callable[..., Any], order: Mapping[str, Any]) -> None:
        """Carry out the closing part of a skipped order that would have turned the position."""
        if order.get("limit") is not None or order.get("stop") is not None:
            place(size=opposite, limit=order.get("limit"), stop=order.get("stop"), tag=order.get("tag"))
            return
        for trade in [t for t in self._broker.trades if t.size * side < 0]:
            trade.close()

    def _trade_returns(self) -> dict[str, float | None]:
        """Size-weighted return of each entry's trades after costs; None while a part of it is open."""
        cost: dict[str, float] = {}
        gain: dict[str, float] = {}
        for trade in self._broker.closed_trades:
            tag = raw_tag(trade)
            if isinstance(tag, EntryTag):
                cost[tag.pattern_id] = cost.get(tag.pattern_id, 0.0) + abs(trade.size) * trade.entry_price
                gain[tag.pattern_id] = gain.get(tag.pattern_id, 0.0) + trade.pl
        open_ids = {tag.pattern_id for tag in map(raw_tag, self._broker.trades) if isinstance(tag, EntryTag)}
        return {
            key: None if key in open_ids else float(gain[key] / cost[key]) for key in [*cost, *(open_ids - set(cost))]
        }

    def _run_record(self, stats: pd.Series | None, error: str | None) -> Run:
        settings, bars = self._settings, self._bars
        options = _host_options(self._host.backtest) if self._host else {}
        params = {"strategy": self._params, "host": options, "qml": settings.as_dict()}
        data_hash = bars.sha256()
        source = provenance.source_sha256(self._strategy_cls)
        commit, is_dirty = provenance.git_state(provenance.source_folder(self._strategy_cls))
        return Run(
            run_id=provenance.run_id(
                "backtest", self._strategy_name, source, bars.symbol, bars.timeframe, params, data_hash
            ),
            kind="backtest",
            status="failed" if error else "done",
            strategy_name=self._strategy_name,
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
                "feature_set": FEATURE_SET,
                "strategy_source": source or "unknown",
            },
            metrics=_metrics(stats, self.decisions),
            started_at=self._started_at,
            finished_at=_now(),
            git_hash=commit,
            is_git_dirty=is_dirty,
            error=error,
        )


def _strategy_params(strategy: Any, given: Mapping[str, Any]) -> dict[str, object]:
    """The strategy's own parameters: public plain class attributes, as they are in this run."""
    own: dict[str, object] = {}
    settings = {name for cls in type(strategy).__mro__ if cls.__name__ == "PatternMixin" for name in vars(cls)}
    for cls in reversed(type(strategy).__mro__):
        if cls is object or issubclass(Strategy, cls) or cls.__name__ == "PatternMixin":
            continue
        for name in vars(cls):
            value = getattr(strategy, name, None)
            if not name.startswith("_") and name not in settings and isinstance(value, (bool, int, float, str)):
                own[name] = value
    return own | {name: value for name, value in given.items() if name not in settings}


def _host_options(backtest: Any) -> dict[str, object]:
    options = {key: value for key, value in backtest._broker.keywords.items() if key != "index"}
    if callable(options.get("commission")):
        options["commission"] = getattr(options["commission"], "__qualname__", "callable")
    return options | {"finalize_trades": backtest._finalize_trades, "host": type(backtest).__name__}


def _metrics(stats: pd.Series | None, decisions: list[Decision]) -> dict[str, object]:
    metrics: dict[str, object] = {"n_entries": len(decisions)}
    for action in ("take", "skip", "abstain"):
        metrics[f"n_{action}"] = sum(decision.action == action for decision in decisions)
    if stats is not None:
        metrics |= {name: float(stats[key]) * scale for key, (name, scale) in _METRICS.items()}
    return metrics


def _unscaled(frame: pd.DataFrame, unit: float) -> pd.DataFrame:
    """Market prices of a frame that the fractional host has scaled."""
    if unit == 1.0:
        return frame
    return frame.assign(**{name: frame[name] / unit for name in PRICES}, Volume=frame["Volume"] * unit)


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
