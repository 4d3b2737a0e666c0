"""One point of a search as a run of backtesting.py: described before it begins, run, and handed over whole."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from qml_plugin import provenance
from qml_plugin.adapters import backtesting_host
from qml_plugin.adapters.backtesting_host import Backtest, Strategy
from qml_plugin.adapters.backtesting_py import SETTINGS, PatternMixin
from qml_plugin.adapters.recorded_run import Cell, Start, begun_run
from qml_plugin.adapters.run_memory import METRICS, RunMemory, origin_of, run_params
from qml_plugin.adapters.settings import Settings
from qml_plugin.bars import Bars, bars_from_frame
from qml_plugin.errors import DataError
from qml_plugin.features import MarketFeatures
from qml_plugin.records import Run

HOST_OPTIONS = (
    "cash", "spread", "commission", "margin", "trade_on_close", "hedging", "exclusive_orders", "finalize_trades",
)  # fmt: skip
_NUMBER = re.compile(r"-?\d[\d.,]*(?<=\d)(e[+-]?\d+)?")
_OURS = f"{__name__.partition('.')[0]}."
# What a whole search shares: a point cannot have a market or a registry of its own.
SHARED_SETTINGS = ("symbol", "timeframe", "bar_label", "registry")
_MORE_METRICS = {
    "Return (Ann.) [%]": ("return_annual_frac", 0.01),
    "Volatility (Ann.) [%]": ("volatility_annual_frac", 0.01),
    "Sortino Ratio": ("sortino_annual", 1.0),
    "Calmar Ratio": ("calmar_annual", 1.0),
    "Exposure Time [%]": ("exposure_frac", 0.01),
    "Avg. Trade [%]": ("mean_trade_frac", 0.01),
    "Profit Factor": ("profit_factor", 1.0),
    "Expectancy [%]": ("expectancy_frac", 0.01),
    "SQN": ("sqn", 1.0),
    "Equity Final [$]": ("equity_final", 1.0),
}
CELL_METRICS = (*(name for name, _ in (METRICS | _MORE_METRICS).values()), "longest_trade_bars")


@dataclass(frozen=True, slots=True)
class Market:
    """The bars of one symbol as the host and the memory take them, with what was computed from them once.

    ``features`` and ``start`` are None where a strategy has no memory. Before ``trade_from_bar`` a strategy sees the
    bars and does not trade. ``pooled_with`` says what the symbols are that its runs learn from beside.
    """

    symbol: str
    frame: pd.DataFrame
    bars: Bars
    features: MarketFeatures | None = None
    start: Start | None = None
    trade_from_bar: int = 0
    pooled_with: Mapping[str, Mapping[str, object]] | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """What one point leaves: ``metrics`` by name, the trades, the equity by bar, and what the host warned of."""

    metrics: dict[str, float]
    objective: float
    trades: pd.DataFrame
    equity: pd.DataFrame
    memory: RunMemory | None
    warned: tuple[str, ...]


def is_remembering(strategy: type) -> bool:
    """Whether a strategy has the mixin."""
    return issubclass(strategy, PatternMixin)


def options_of(strategy: type, options: Mapping[str, Any], swept: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:  # fmt: skip
    """Options for the host, and fixed settings and parameters of the strategy; `swept` are the names of a grid.

    Raises
    ------
    DataError
        If a name is neither the host's nor an attribute of the strategy, or the strategy is none.
    """
    if not (isinstance(strategy, type) and issubclass(strategy, Strategy)):
        raise DataError(f"{strategy!r} is no strategy of backtesting.py. Give a subclass of backtesting.Strategy.")
    known = sorted(
        name
        for name in dir(strategy)
        if not _is_of_base(strategy, name) and not callable(getattr(strategy, name, None))
    )
    host = {name: value for name, value in options.items() if name in HOST_OPTIONS}
    fixed = {name: value for name, value in options.items() if name not in HOST_OPTIONS}
    for name in (*swept, *fixed):
        if not isinstance(name, str) or not hasattr(strategy, name) or _is_of_base(strategy, name):
            if name in SETTINGS and not is_remembering(strategy):
                raise DataError(
                    f"{name} is a setting of PatternMixin, which {strategy.__name__} does not have. Add the mixin, or leave "
                    f"{name} away."
                )
            near = difflib.get_close_matches(str(name), [*known, *HOST_OPTIONS], n=1)
            own = [found for found in known if found not in SETTINGS and not _owner(strategy, found).startswith(_OURS)]
            listed = (", ".join(own[:10]) + (", …" if len(own) > 10 else "")) or "none"
            raise DataError(
                f"{strategy.__name__} has no parameter {name!r}: it has {listed}. A parameter is a class "
                f"attribute; an option of the host is one of {', '.join(HOST_OPTIONS)}."
                + (f" Did you mean {near[0]!r}?" if near else "")
            )
    if taken := sorted(swept.keys() & (fixed.keys() | set(SHARED_SETTINGS))):
        raise DataError(
            f"{taken[0]!r} cannot be swept: it is one for the whole search, or was given beside the grid. Give it once; "
            "several symbols go into data={symbol: bars}."
        )
    return host, fixed


def _owner(strategy: type, name: str) -> str:
    """The module of the class that an attribute comes from."""
    return next((base.__module__ for base in strategy.__mro__ if name in vars(base)), "")


def _is_of_base(strategy: type, name: str) -> bool:
    """Whether a name belongs to the host, or is a method or a property of the mixin or of `ArrayStrategy`."""
    if name.startswith("_") or name in vars(Strategy):
        return True
    return any(
        base.__module__.startswith(_OURS) and hasattr(vars(base).get(name), "__get__") for base in strategy.__mro__
    )


def settings_of(strategy: type, given: Mapping[str, Any]) -> Settings:
    """The checked settings of a point: those of the mixin's defaults where the strategy has none."""
    base = strategy if is_remembering(strategy) else PatternMixin
    names = {name: given.get(name, getattr(base, name)) for name in SETTINGS}
    return Settings.of(SimpleNamespace(**names), strategy.__name__)


def bars_of(strategy: type, frame: pd.DataFrame, given: Mapping[str, Any], symbol: str) -> Bars:
    """The bars of a symbol as a run of the strategy sees them."""
    if not is_remembering(strategy):  # what it calls so is its own
        return bars_from_frame(frame, symbol=symbol)
    timeframe, bar_label = (given.get(name, getattr(strategy, name)) for name in ("timeframe", "bar_label"))
    return bars_from_frame(frame, symbol=symbol, timeframe=timeframe, bar_label=bar_label)


def host_of(strategy: type, market: Market, host: Mapping[str, Any]) -> Any:
    """The backtest of a market; DataError where the host refuses its options."""
    # A copy, so that a strategy that writes into its data reaches no other cell.
    try:
        return Backtest(market.frame.copy(), trading_from(strategy, market.trade_from_bar), **host)
    except (TypeError, ValueError) as error:
        raise DataError(f"backtesting.py refuses these options or data of {market.symbol}: {error}") from error


def begun_cell(
    strategy: type,
    market: Market,
    host: Mapping[str, Any],
    given: Mapping[str, Any],
    *,
    backtest: Any,
    parent_run_id: str | None,
) -> Run:
    """The record of a point's run as of its start; nothing of the strategy's own code is run for it."""
    settings = settings_of(strategy, {**given, "symbol": market.symbol})
    start = market.start if settings.policy.mode != "record" else None
    params = run_params(strategy, _Values(strategy, given), given, SETTINGS, market.frame, backtest)
    if market.trade_from_bar:
        params["host"]["trade_from_bar"] = market.trade_from_bar
    if market.pooled_with:
        params["data"]["pooled_with"] = market.pooled_with
    run = begun_run(
        settings,
        strategy.__name__,
        market.bars,
        params,
        origin_of(strategy),
        start,
        kind="cell",
        parent_run_id=parent_run_id,
    )
    return replace(run, git_diff=None)  # the search's own record has it


class _Values:
    """Stands for an instance of a strategy with parameters, without running any of its code."""

    def __init__(self, strategy: type, given: Mapping[str, Any]) -> None:
        self._of, self._given = strategy, given

    def __getattr__(self, name: str) -> Any:
        return self._given[name] if name in self._given else getattr(self._of, name)


def run_cell(
    strategy: type,
    market: Market,
    host: Mapping[str, Any],
    given: Mapping[str, Any],
    run: Run,
    objective: str | Callable[[pd.Series], float],
) -> Finished:
    """Run one point; what it leaves for the registry is ``memory.batch()``."""
    cell = cell_of(market, run) if is_remembering(strategy) else None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with backtesting_host.no_progress_bars():
            stats = played(strategy, market, host, given, cell)
    return finished(stats, objective, caught, stats_from(stats, market.frame, market.trade_from_bar))


def cell_of(market: Market, run: Run) -> Cell:
    """What the memory of a run on a market is given."""
    return Cell(run, market.bars, None if run.snapshot_seq is None else market.start, market.features)


def played(
    strategy: type, market: Market, host: Mapping[str, Any], given: Mapping[str, Any], cell: Cell | None
) -> pd.Series:
    """The host's statistics of one run; `cell` is None where there is no memory."""
    backtest = host_of(strategy, market, host)
    if cell is not None:
        backtest._qml_cell = cell
    stats: pd.Series = backtest.run(**given)
    return stats


def finished(
    stats: pd.Series,
    objective: str | Callable[[pd.Series], float],
    caught: list[warnings.WarningMessage],
    measured: pd.Series | None = None,
) -> Finished:
    """What a run leaves, from the host's statistics of it and what was warned of; `measured` are those it is judged by."""
    measured = stats if measured is None else measured
    memory: RunMemory | None = stats["_strategy"].qml if is_remembering(type(stats["_strategy"])) else None
    metrics = _metrics(measured) if memory is None else add_metrics(memory, measured)
    value = metrics[objective] if isinstance(objective, str) else float(objective(measured))
    trades, equity = _plain_trades(stats["_trades"]), stats["_equity_curve"][["Equity", "DrawdownPct"]]
    return Finished(metrics, value, trades, equity, memory, _said(caught))


def add_metrics(memory: RunMemory, stats: pd.Series) -> dict[str, float]:
    """Give the record of a run all metrics of a cell, which are returned."""
    metrics = {name: float(str(value)) for name, value in (memory.run.metrics or {}).items()} | _metrics(stats)
    memory.run = replace(memory.run, metrics=metrics)
    return metrics


def _metrics(stats: pd.Series) -> dict[str, float]:
    found = {
        name: float(stats[key]) * scale for key, (name, scale) in (METRICS | _MORE_METRICS).items() if key in stats
    }
    trades = stats["_trades"]
    found["longest_trade_bars"] = float((trades["ExitBar"] - trades["EntryBar"]).max()) if len(trades) else 0.0
    return {name: value if np.isfinite(value) else np.nan for name, value in found.items()}


def stats_from(stats: pd.Series, frame: pd.DataFrame, first_bar: int) -> pd.Series:
    """The host's statistics of a run, of the bars from `first_bar` on, before which it did not trade; bars count from there."""
    if first_bar == 0:
        return stats
    equity = stats["_equity_curve"]["Equity"].iloc[first_bar:]
    part = _stats_of(stats["_trades"], equity, frame.iloc[first_bar:], first_bar)
    whole = stats.copy()  # what is said of neither bars nor trades is the same for both: the strategy, the commissions
    for key in part.index.drop("_strategy"):
        whole[key] = part[key]
    return whole


def metrics_of(trades: pd.DataFrame, equity: pd.Series, frame: pd.DataFrame, first_bar: int) -> dict[str, float]:
    """Metrics of an equity that is no single run's; `trades` count their bars from `first_bar` before the frame's first."""
    if trades.empty:
        trades = pd.DataFrame(columns=["EntryBar", "ExitBar", "PnL", "ReturnPct", "Duration"], dtype=float)
    return _metrics(_stats_of(trades, equity, frame, first_bar))


def _stats_of(trades: pd.DataFrame, equity: pd.Series, frame: pd.DataFrame, first_bar: int) -> pd.Series:
    placed = trades.assign(EntryBar=trades["EntryBar"] - first_bar, ExitBar=trades["ExitBar"] - first_bar)
    with np.errstate(invalid="ignore", divide="ignore"):
        stats: pd.Series = backtesting_host.compute_stats(
            trades=placed,
            equity=equity.to_numpy(np.float64),
            ohlc_data=frame,
            strategy_instance=None,
            risk_free_rate=0.0,
        )
    return stats


def label_bars(strategy: type, fixed: Mapping[str, Any]) -> int:
    """Bars after an entry within which its label rule resolves it; 0 without a memory."""
    if not is_remembering(strategy):
        return 0
    rule = fixed.get("barriers", getattr(strategy, "barriers", None))
    return 2 * int(rule.max_bars) if rule is not None else 0  # as long to wait for the fill, and as long to be exposed


def _said(caught: list[warnings.WarningMessage]) -> tuple[str, ...]:
    """What was warned of, once each; the host names bars and amounts, of which there are as many as orders."""
    kinds = (UserWarning, RuntimeWarning)
    return tuple(sorted({_NUMBER.sub("…", str(one.message)) for one in caught if issubclass(one.category, kinds)}))


def _plain_trades(trades: pd.DataFrame) -> pd.DataFrame:
    """Trades in columns that a file can hold: numbers, times and text."""
    columns = {}
    for name in trades.columns:
        column = trades[name]
        if column.dtype == object and name in ("SL", "TP"):
            column = pd.to_numeric(column).astype(np.float64)
        elif column.dtype == object:
            column = pd.Series(
                [None if value is None else str(provenance.plain(value)) for value in column], dtype="str"
            )
        columns[str(name)] = column
    return pd.DataFrame(columns)


def trading_from(strategy: type, bar: int) -> type:
    """The strategy itself, or one of its name that sleeps through the bars before `bar`."""
    if bar == 0:
        return strategy

    def next_(self: Any) -> None:
        if len(self.data) > bar:
            strategy.next(self)  # type: ignore[attr-defined]

    body = {"next": next_, "__module__": strategy.__module__, "__qualname__": strategy.__qualname__}
    return type(strategy.__name__, (strategy,), body)
