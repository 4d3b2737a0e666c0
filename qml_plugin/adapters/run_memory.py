"""One run of a backtesting.py strategy: from the host's orders to entries, and from its trades to outcomes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Mapping
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
from qml_plugin.adapters.recorded_run import Cell, Origin, RecordedRun, start_of
from qml_plugin.adapters.settings import Settings
from qml_plugin.bars import COLUMNS, PRICES, Bars, bars_from_frame
from qml_plugin.records import Decision, Entry, FloatArray, Setup

METRICS = {
    "Return [%]": ("return_frac", 0.01),
    "Buy & Hold Return [%]": ("buy_hold_return_frac", 0.01),
    "Max. Drawdown [%]": ("max_drawdown_frac", 0.01),
    "Win Rate [%]": ("trade_win_share", 0.01),
    "Sharpe Ratio": ("sharpe_annual", 1.0),
    "# Trades": ("n_trades", 1.0),
}
_DIGITS = 15  # as many as a float64 always holds


@dataclass(slots=True)
class Host:
    """The backtest that is running now, and the memory that its strategy opened."""

    backtest: Any
    memory: RunMemory | None = None


current_host: ContextVar[Host | None] = ContextVar("current_host", default=None)


class RunMemory(RecordedRun):
    """One run of one strategy of backtesting.py: its memory, and the way from the host's orders to entries and back."""

    def __init__(
        self, strategy: Any, broker: Any, frame: pd.DataFrame, params: Mapping[str, Any], settings: Collection[str]
    ) -> None:
        checked = Settings.of(strategy, type(strategy).__name__)
        cls: type = type(strategy)
        host = current_host.get()
        self._host = host
        self._px_unit = float(getattr(host.backtest, "_fractional_unit", 1.0)) if host else 1.0
        cell: Cell | None = getattr(host.backtest, "_qml_cell", None) if host else None
        bars = cell.bars if cell else _bars_of(frame, checked, self._px_unit)
        start = cell.start if cell else getattr(host.backtest, "_qml_start", None) if host else None
        self._broker = broker
        super().__init__(
            checked,
            cls.__name__,
            bars,
            tz=_zone_of(frame),
            params={} if cell else run_params(cls, strategy, params, settings, frame, host.backtest if host else None),
            origin=origin_of(cls),
            start=start if cell else start_of(checked, cls.__name__, bars.timeframe, start),
            market=cell.market if cell else None,
            cell=cell,
        )
        if host is not None:
            host.memory = self

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
        self._await_turn(entry)
        is_new = entry.pattern_id not in memory.decisions
        decision = memory.decide(entry)
        if decision.is_taken:
            try:
                size = self._size(side, order, entry, decision)
                return place(**{**order, **size, "tag": EntryTag(entry.pattern_id, order.get("tag"))})
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
        returns = self._trade_returns()
        trades = (*self._broker.closed_trades, *self._broker.trades)
        metrics = _metrics(stats) | {"n_unregistered_trades": sum(pattern_id(trade) is None for trade in trades)}
        self._broker = self._host = None
        self._close(returns, metrics, None if stats is None else returns_of(stats["_equity_curve"]["Equity"]), error)

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

    def _size(self, side: int, order: Mapping[str, Any], entry: Entry, decision: Decision) -> dict[str, float]:
        """The size that the confidence allows, where that is less than the order asked for; nothing otherwise."""
        if decision.risk_frac is None or self._settings.policy.mode != "gate" or not order.get("sl"):
            return {}
        broker = self._broker
        risk_px = abs(entry.reference_px - entry.stop_px) * self._px_unit
        allowed = decision.risk_frac * broker.equity / risk_px if risk_px > 0 else math.inf
        return closing.smaller_size(broker, side, order, allowed)

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


def run_params(
    cls: type, strategy: Any, given: Mapping[str, Any], names: Collection[str], frame: pd.DataFrame, backtest: Any
) -> dict[str, dict[str, object]]:
    """What determines a run beside its settings; `strategy` is an instance of `cls`, or what stands for one.

    `names` are those of the mixin's settings.
    """
    return {
        "strategy": _strategy_params(cls, strategy, given, names),
        "host": _host_options(backtest) if backtest else {},
        "data": data_of(frame),
    }


def data_of(frame: pd.DataFrame) -> dict[str, object]:
    """What a strategy may read of its frame, and the hash of the bars knows nothing of."""
    others = frame.columns.difference(list(COLUMNS))
    return {"tz": _zone_of(frame), "columns": {str(name): provenance.plain(frame[name]) for name in others}}


def origin_of(cls: type) -> Origin:
    """Where a strategy comes from."""
    return Origin(provenance.source_sha256(cls), provenance.class_path(cls), provenance.source_folder(cls))


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


def _host_options(backtest: Any) -> dict[str, object]:
    options = {key: value for key, value in backtest._broker.keywords.items() if key != "index"}
    options |= {"finalize_trades": backtest._finalize_trades, "host": type(backtest).__name__}
    if hasattr(backtest, "_fractional_unit"):
        options["fractional_unit"] = backtest._fractional_unit
    return {name: provenance.plain(value) for name, value in options.items()}


def _metrics(stats: pd.Series | None) -> dict[str, object]:
    return {} if stats is None else {name: float(stats[key]) * scale for key, (name, scale) in METRICS.items()}


def returns_of(equity: pd.Series) -> FloatArray:
    """Returns of an equity curve, one for each bar but the first; 0 from bars on which nothing is left."""
    values = equity.to_numpy(np.float64)
    before = values[:-1]
    returns: FloatArray = np.divide(values[1:] - before, before, out=np.zeros(len(before)), where=before > 0)
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
    block = setup.order_block
    return replace(
        setup,
        points=tuple(replace(point, px=point.px / unit) for point in setup.points),
        levels=tuple(replace(level, px=level.px / unit) for level in setup.levels),
        order_block=block and replace(block, low_px=block.low_px / unit, high_px=block.high_px / unit),
        stop_px=None if setup.stop_px is None else setup.stop_px / unit,
        target_px=None if setup.target_px is None else setup.target_px / unit,
    )
