"""vectorbt: signals as arrays go through the same memory as the orders of a strategy, and come back gated.

vectorbt itself is imported by `GatedSignals.portfolio` and `GatedSignals.record` only: gating needs arrays alone.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from qml_plugin import provenance
from qml_plugin.adapters.asked import Asked, Board, BoolArray, px_or_none, read_board
from qml_plugin.adapters.playing import Orders, play
from qml_plugin.adapters.recorded_run import (
    Cell,
    Origin,
    RecordedRun,
    Start,
    begun_run,
    heartbeat,
    now_us,
    registry_of,
    start_of,
)
from qml_plugin.adapters.settings import Settings
from qml_plugin.adapters.vectorbt_portfolio import (
    SIZE_TYPES,
    Left,
    equity_table,
    left_by,
    portfolio_of,
    refuse_shared_cash,
    trade_table,
)
from qml_plugin.bars import Bars
from qml_plugin.errors import DataError, QmlError
from qml_plugin.features import MarketFeatures
from qml_plugin.records import BarrierRule, Decision, Pattern, Run, Setup, Signals

FILLS = ("open", "close")
_ATR_BARRIERS = BarrierRule()


def gate_signals(
    ohlcv: pd.DataFrame | Mapping[str, pd.DataFrame],
    long_entries: Any,
    short_entries: Any = None,
    exits: Any = None,
    *,
    short_exits: Any = None,
    stop: Any = None,
    target: Any = None,
    max_bars: int | None = None,
    symbol: str | None = None,
    timeframe: str | None = None,
    registry: str | None = None,
    strategy: str = "Signals",
    mode: str = "gate",
    on_skip: str = "flat",
    barriers: BarrierRule = _ATR_BARRIERS,
    min_confidence: float | None = None,
    on_abstain: str = "fail_open",
    teachers: str = "shadow",
    cost_r: float = 0.0,
    gate_model: str = "auto",
    n_neighbours: int = 10,
    seed: int = 0,
    bar_label: str = "open",
    fill: str = "open",
    fees: float = 0.0,
    slippage: float = 0.0,
) -> GatedSignals:
    """Signals gated by the memory, ready for vectorbt: every entry is registered, scored, and taken or skipped.

    Parameters
    ----------
    ohlcv : DataFrame, or dict of symbol to DataFrame
        Bars that `read_bars` accepts. One frame serves all columns; a dictionary gives each column the bars of the
        symbol that its label, or one level of it, names. All frames have the same times.
    long_entries, short_entries : array of bool of shape (n_bars,) or (n_bars, n_columns), Series or DataFrame
        What is asked at the close of each bar. In the place of `long_entries` also a `qml_plugin.records.Signals`, which
        holds sides, prices, exits and setups, or a dictionary of column to `Signals`; of these an entry is passed over
        where the close does not lie between its stop and its target.
    exits : like the entries, optional
        Closes what is open; longs only where `short_exits` is given.
    short_exits : like the entries, optional
        Closes shorts.
    stop, target : float, or array of prices like the entries, optional
        A number is a fraction of the close, as vectorbt's ``sl_stop``; an array holds prices, NaN for none. They are
        the trade's own and the barriers of the label, which takes multiples of ATR from `barriers` where there are none.
    max_bars : int, bars, optional
        Closes a trade that has been open for so many bars, and ends the label then; without it the label ends by
        `barriers`, and the trade does not.
    symbol, timeframe, registry, mode, on_skip, barriers, min_confidence, on_abstain, teachers, cost_r, gate_model, n_neighbours, seed, bar_label
        As `PatternMixin` explains them.
    strategy : str, default="Signals"
        Name under which the entries are registered.
    fill : {"open", "close"}, default="open"
        Whether what is asked at the close of a bar fills at the next open, or at that close.
    fees, slippage : float, fraction of the price, default=0
        Of each fill. They are in the trades and their returns; the barrier outcome is before costs, as with
        `PatternMixin`, and `cost_r` tells the threshold of them.

    Returns
    -------
    GatedSignals

    Point in time
    -------------
    A decision at bar t reads bars 0..t and patterns whose outcome was known at the close of bar t. All columns see one
    snapshot of the registry, and nothing of each other.

    Raises
    ------
    DataError
        If the signals do not fit the bars, ask for both sides at one bar, have a barrier on the wrong side of the
        close, or a setting is unknown; nothing has been stored then.
    LookAheadError
        If a frozen model is asked about entries from before what it has seen.
    RegistryError
        If the registry cannot be opened.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> close = 100 + np.sin(np.arange(60.0))
    >>> bars = pd.DataFrame({"Open": close, "High": close + 1, "Low": close - 1, "Close": close},
    ...                     index=pd.date_range("2024-01-01", periods=60, freq="h"))
    >>> gated = gate_signals(bars, close < 99.1, stop=0.02, target=0.02)
    >>> int(gated.entries.sum()), gated.table()["reason"].iloc[0]
    (9, 'few_labels: 0 of 62 outcomes known')
    """
    board = read_board(
        ohlcv, long_entries, short_entries, exits, short_exits, stop, target,
        symbol=symbol, timeframe=timeframe, bar_label=bar_label,
    )  # fmt: skip
    settings, terms = settings_of(
        {
            "symbol": symbol if isinstance(ohlcv, pd.DataFrame) else board.asked[0].bars.symbol,
            "timeframe": timeframe, "registry": registry, "mode": mode, "on_skip": on_skip, "barriers": barriers,
            "min_confidence": min_confidence, "on_abstain": on_abstain, "teachers": teachers, "cost_r": cost_r,
            "gate_model": gate_model, "n_neighbours": n_neighbours, "seed": seed, "bar_label": bar_label,
            "max_bars": max_bars, "fill": fill, "fees": fees, "slippage": slippage,
        },
        "gate_signals",
    )  # fmt: skip
    return GatedSignals(board, settings, strategy, terms)


def settings_of(given: Mapping[str, Any], name: str) -> tuple[Settings, dict[str, Any]]:
    """Settings of the memory, and the terms on which orders fill, of the options of `gate_signals`; messages say `name`.

    Raises
    ------
    DataError
        If one is refused.
    """
    if given["fill"] not in FILLS:
        raise DataError(f"fill {given['fill']!r} is unknown. Use one of {', '.join(map(repr, FILLS))}.")
    for cost in ("fees", "slippage"):
        if not 0 <= given[cost] < 1:
            raise DataError(f"{cost} is {given[cost]!r}. It is a fraction of the price, such as 0.0002.")
    barriers, max_bars = given["barriers"], given["max_bars"]
    if max_bars is not None:
        barriers = replace(barriers, max_bars=max_bars)
    settings = Settings.of(
        SimpleNamespace(**{**given, "barriers": barriers, "kelly_fraction": None, "risk_cap_frac": 1.0}), name
    )
    costs = {cost: float(given[cost]) for cost in ("fees", "slippage")}
    return settings, {"fill": given["fill"], **costs, "max_bars": max_bars}


def begun_column(
    settings: Settings,
    strategy: str,
    bars: Bars,
    params: Mapping[str, object],
    terms: Mapping[str, Any],
    tz: str | None,
    origin: Origin,
    start: Start | None,
    *,
    parent_run_id: str | None = None,
    columns: Mapping[str, object] | None = None,
) -> Run:
    """The record of a column's run as of its start: a cell of the search that it is a part of, or a backtest."""
    return begun_run(
        settings,
        strategy,
        bars,
        {
            "strategy": {**params, "max_bars": terms["max_bars"]},
            "host": {"host": "vectorbt", **terms},
            "data": {"tz": tz, "columns": dict(columns or {})},
        },
        origin,
        start,
        kind="backtest" if parent_run_id is None else "cell",
        parent_run_id=parent_run_id,
    )


class ColumnRun(RecordedRun):
    """The run of one column: its candidates are decided in time order, and its trades joined to them.

    `run` is its record as of its start, and it records nothing before `commit`.
    """

    def __init__(
        self,
        asked: Asked,
        run: Run,
        settings: Settings,
        terms: Mapping[str, Any],
        tz: str | None,
        start: Start | None,
        market: MarketFeatures | None,
    ) -> None:
        self.asked, self._at_close = asked, terms["fill"] == "close"
        super().__init__(
            settings,
            run.strategy_name,
            asked.bars,
            tz=tz,
            params={},
            origin=Origin(run.versions["strategy_source"], run.strategy_path, Path.cwd()),
            start=start,
            market=market,
            cell=Cell(run, asked.bars),
        )
        self.is_taken = np.zeros(len(asked.side), np.bool_)
        self._by_fill: dict[tuple[int, int], str] = {}

    def decide(self, tick: Callable[[], None] = lambda: None) -> None:
        """Ask the memory about every entry; `tick` is called between them."""
        memory, asked, last = self._walk, self.asked, len(self.asked.side) - 1
        for bar in np.flatnonzero(asked.side).tolist():
            tick()
            setup, side = asked.setups.get(bar), int(asked.side[bar])
            entry = memory.entry(
                bar,
                side,
                stop_px=px_or_none(asked.stop_px[bar]),
                target_px=px_or_none(asked.target_px[bar]),
                fill="close" if self._at_close else "open",
                strategy=self._strategy_name,
                setup=setup if isinstance(setup, Setup) else None,
                rule=self._settings.barriers,
            )
            decision = memory.decide(entry)
            self.is_taken[bar] = decision.is_taken
            if self._at_close or bar < last:
                self._by_fill[bar if self._at_close else bar + 1, side] = decision.pattern_id

    def pattern_of(self, entry_bar: int, side: int) -> str | None:
        """Id of the pattern whose order fills at `entry_bar`."""
        return self._by_fill.get((entry_bar, side))

    def settle(self) -> None:
        """The outcomes that the bars resolve; after it the memory takes no more entries."""
        if self._memory is not None:
            self.patterns, self._memory, self._registry = self._memory.patterns(), None, None

    def join(self, left: Left) -> None:
        """Join the trades of a portfolio by the bar of their entry; `commit` stores what came of it."""
        gain: dict[str, float] = {}
        cost: dict[str, float] = {}
        still_open: set[str] = set()
        n_unregistered = 0
        columns = (left.trades[name] for name in ("entry_idx", "direction", "status", "pnl", "size", "entry_price"))
        for entry_bar, direction, status, pnl, size, px in zip(*columns, strict=True):
            key = self.pattern_of(int(entry_bar), -1 if direction else 1)
            if key is None:
                n_unregistered += 1
                continue
            gain[key] = gain.get(key, 0.0) + float(pnl)
            cost[key] = cost.get(key, 0.0) + float(size) * float(px)
            if status == 0:
                still_open.add(key)
        returns: dict[str, float | None] = {key: gain[key] / cost[key] for key in cost}
        self._reopen()
        metrics = {**left.metrics, "n_unregistered_trades": n_unregistered}
        self._close(returns | dict.fromkeys(still_open), metrics, left.returns_frac)

    def tags_of(self, left: Left) -> list[str | None]:
        """Ids of the patterns that trades came from."""
        sides = np.where(left.trades["direction"] == 1, -1, 1)
        return [
            self.pattern_of(*where) for where in zip(left.trades["entry_idx"].tolist(), sides.tolist(), strict=True)
        ]

    def fail(self, error: BaseException) -> None:
        """Record that the run did not come to its end."""
        self._reopen()
        self._close({}, {}, None, error)
        self.commit()

    def _reopen(self) -> None:
        """What is recorded from here on waits for `commit`."""
        self._registry, self._cell = registry_of(self._settings.registry), Cell(self.run, self._bars)


class GatedSignals:
    """Signals that the memory has seen: what is left of them for vectorbt, and why.

    ``entries``, ``exits``, ``short_entries``, ``short_exits`` and ``price`` are for
    ``vbt.Portfolio.from_signals(close, gated.entries, gated.exits, gated.short_entries, gated.short_exits,
    price=gated.price)``: each stands at the bar at which it fills, which with ``fill="open"`` is the bar after the one
    that asked. `portfolio` is exact where `from_signals` cannot be: it has the stops and targets of each entry, on
    the bar of the entry too, and entry and exit within one bar.

    Made by `gate_signals`. ``runs`` holds the record of each column; ``decisions``, ``patterns`` and ``returns`` those of
    the first; ``table()`` all entries; ``terms`` how orders fill and what they cost. It holds no database handle.
    """

    def __init__(self, board: Board, settings: Settings, strategy: str, terms: Mapping[str, Any]) -> None:
        self.terms = dict(terms)
        self._board, self._settings = board, settings
        self._columns: list[ColumnRun] = []
        tz = getattr(board.index, "tz", None)
        self._tz = None if tz is None else str(tz)
        start = start_of(settings, strategy, board.asked[0].bars.timeframe)
        self.search, begun = self._begun(strategy, start)
        registry = registry_of(settings.registry)
        if registry is not None:
            registry.start_runs([*([self.search] if self.search is not None else []), *begun])
        beat = heartbeat(registry, (self.search or begun[0]).run_id)
        markets: dict[int, MarketFeatures] = {}
        try:
            for asked, run in zip(board.asked, begun, strict=True):
                if id(asked.bars) not in markets and asked.side.any():
                    markets[id(asked.bars)] = MarketFeatures(asked.bars)
                column = ColumnRun(asked, run, settings, self.terms, self._tz, start, markets.get(id(asked.bars)))
                self._columns.append(column)
                column.decide(beat)
                column.settle()
        except BaseException as error:
            self._fail(begun, error)
            raise
        self.n_feature_passes = len(markets)

    def _begun(self, strategy: str, start: Start | None) -> tuple[Run | None, list[Run]]:
        """The records as of their start: of each column, and of the search that several of them are."""
        board = self._board
        hashes = [_signals_sha256(asked) for asked in board.asked]
        is_search = len(board.asked) > 1
        search_id = provenance.run_id("columns", strategy, list(board.labels), hashes) if is_search else None

        def begun(asked: Asked, sha256: str, parent_run_id: str | None) -> Run:
            params, origin = label_params(asked.label, board.labels), Origin(sha256, None, Path.cwd())
            return begun_column(
                self._settings, strategy, asked.bars, params, self.terms, self._tz, origin, start, parent_run_id=parent_run_id
            )  # fmt: skip

        runs = [begun(asked, sha256, search_id) for asked, sha256 in zip(board.asked, hashes, strict=True)]
        if search_id is None:
            return None, runs
        names = label_params(board.labels[0], board.labels)
        grid = {name: provenance.plain(list(board.labels.unique(level))) for level, name in enumerate(names)}
        # What the working tree had changed stands in the record of the search.
        search = search_run(search_id, runs, {"search": "columns", "grid": grid})
        return search, [replace(run, git_diff=None) for run in runs]

    def _fail(self, begun: Sequence[Run], error: BaseException) -> None:
        """Record that the gating did not come to its end."""
        status = "failed" if isinstance(error, Exception) else "interrupted"
        text = f"{type(error).__name__}: {error}"
        registry = registry_of(self._settings.registry)
        rest = [*begun[len(self._columns) :], *([self.search] if self.search is not None else [])]
        try:
            for column in self._columns:
                column.fail(error)
            for run in rest:
                if registry is not None:
                    registry.save_run(replace(run, status=status, finished_at=now_us(), error=text), [], [], {})
        except QmlError as second:
            error.add_note(f"The run could not be recorded either: {second}")

    def __repr__(self) -> str:
        actions = [decision.action for column in self._columns for decision in column.decisions]
        n_skipped = actions.count("skip")
        return (
            f"GatedSignals({len(self._columns)} columns, {len(actions)} entries, {len(actions) - n_skipped} taken, "
            f"{n_skipped} skipped)"
        )

    @property
    def entries(self) -> pd.Series | pd.DataFrame:
        """Long entries that were taken, at the bar of their fill."""
        return self._at_fill(lambda column: (column.asked.side > 0) & column.is_taken)

    @property
    def short_entries(self) -> pd.Series | pd.DataFrame:
        """Short entries that were taken, at the bar of their fill."""
        return self._at_fill(lambda column: (column.asked.side < 0) & column.is_taken)

    @property
    def exits(self) -> pd.Series | pd.DataFrame:
        """Exits of longs, those by skipped reversals too where ``on_skip`` is ``"flat"``, at the bar of their fill."""
        return self._at_fill(lambda column: column.asked.exits_long | self._skipped(column, -1))

    @property
    def short_exits(self) -> pd.Series | pd.DataFrame:
        """Exits of shorts, like `exits`."""
        return self._at_fill(lambda column: column.asked.exits_short | self._skipped(column, +1))

    @property
    def price(self) -> pd.Series | pd.DataFrame:
        """The price at which each bar fills: its open or its close."""
        return self._board.shaped(
            np.column_stack([getattr(column.asked.bars, self.terms["fill"]) for column in self._columns])
        )

    @property
    def labels(self) -> pd.Index:
        """Labels of the columns."""
        return self._board.labels

    @property
    def registry(self) -> str | None:
        """URL of the registry, None where nothing is recorded."""
        return self._settings.registry

    @property
    def runs(self) -> list[Run]:
        """The record of each column, as it stands."""
        return [column.run for column in self._columns]

    @property
    def barriers(self) -> BarrierRule:
        """The label rule in force."""
        return self._settings.barriers

    @property
    def decisions(self) -> list[Decision]:
        """Decisions of the first column, in time order."""
        return self._columns[0].decisions

    @property
    def patterns(self) -> list[Pattern]:
        """Patterns of the first column, in time order."""
        return self._columns[0].patterns

    @property
    def returns(self) -> dict[str, float | None]:
        """Returns of the trades of the first column by pattern, once a portfolio is recorded; None while open."""
        return self._columns[0].returns

    def table(self) -> pd.DataFrame:
        """One row per entry: when, which side, what was decided and why, and what became of it.

        With several columns the first column of the table, ``column``, holds their labels.
        """
        tables = [column.table() for column in self._columns]
        if not self._board.is_table:
            return tables[0]
        for column, table in zip(self._columns, tables, strict=True):
            table.insert(0, "column", pd.Series([column.asked.label] * len(table), dtype=object))
        filled = [table for table in tables if len(table)] or tables[:1]
        return pd.concat(filled, ignore_index=True)

    def portfolio(
        self, init_cash: float = 100_000.0, *, size: float = 1.0, size_type: str = "percent", **options: Any
    ) -> Any:
        """The exact ``vbt.Portfolio`` of what was taken: its orders fill as backtesting.py would fill them.

        Parameters
        ----------
        init_cash : float, cash
            Of each column; columns share none.
        size : float, default=1
            Of each entry: a fraction of the free cash, units, or cash, as `size_type` says.
        size_type : {"percent", "amount", "value"}, default="percent"
        **options
            Of ``vbt.Portfolio.from_orders``, such as ``fixed_fees``, ``size_granularity`` or ``freq``.

        Returns
        -------
        vectorbt.Portfolio
            Trades that no signal has closed stay open, marked to the last close.

        Raises
        ------
        DataError
            If `size_type` is unknown, or an option would change what fills when.
        MissingExtra
            If vectorbt is not installed.
        """
        if size_type not in SIZE_TYPES:
            raise DataError(f"size_type {size_type!r} is unknown. Use one of {', '.join(map(repr, SIZE_TYPES))}.")
        return portfolio_of(self._board, self._orders(), self.terms, float(init_cash), float(size), size_type, options)

    def record(self, pf: Any) -> GatedSignals:
        """Join the trades of a portfolio to the entries they came from, and write the runs to the registry.

        Parameters
        ----------
        pf : vectorbt.Portfolio
            From `portfolio`, or from a call of your own with `entries` and the rest. Recording another one replaces
            the runs; what the registry knows of an entry's trade stays.

        Returns
        -------
        GatedSignals
            Itself, with ``returns`` and the table's ``trade_return_frac`` filled.

        Raises
        ------
        DataError
            If it is no portfolio, has other rows or columns, fills an entry at another price than `price` (with or
        without the slippage of ``terms``), or has trades of which none is an entry's; nothing is recorded then.
        RegistryError
            If the registry cannot be written.
        """
        shape = (len(self._board.index), len(self._columns))
        if not (hasattr(pf, "wrapper") and hasattr(pf, "entry_trades")):
            raise DataError(
                f"record was given a {type(pf).__name__}, not a vectorbt.Portfolio. Give gated.portfolio(), or one of your own."
            )
        if tuple(pf.wrapper.shape_2d) != shape or not pf.wrapper.index.equals(self._board.index):
            raise DataError(
                f"the portfolio has the shape {tuple(pf.wrapper.shape_2d)}, the signals {shape}, or other times. Record the "
                "portfolio that was made from these signals, whole and not sliced."
            )
        trades = pf.entry_trades.records
        self._check_fills(trades)
        for column, left in zip(self._columns, left_by(pf, self._board.asked), strict=True):
            column.join(left)
            column.commit()
        registry = registry_of(self._settings.registry)
        if self.search is not None and registry is not None:
            counts = {"n_points": len(self._columns), "n_finished": len(self._columns), "n_failed": 0}
            self.search = replace(self.search, status="finished", finished_at=now_us(), metrics=counts)
            registry.save_run(self.search, [], [], {})
        return self

    def columns(self, pf: Any) -> Iterator[tuple[Run, pd.DataFrame, pd.DataFrame]]:
        """The run, the trades and the equity of each column of a portfolio that was recorded.

        Raises
        ------
        DataError
            If the columns share cash.
        """
        refuse_shared_cash(pf)
        index = self._board.index
        for column, left in zip(self._columns, left_by(pf, self._board.asked), strict=True):
            yield column.run, trade_table(left, index, column.tags_of(left)), equity_table(left, index)

    def pattern_of(self, entry_bar: int, side: int, column: int = 0) -> str | None:
        """Id of the pattern whose order fills at `entry_bar`, None where none asked for it."""
        return self._columns[column].pattern_of(entry_bar, side)

    def _check_fills(self, trades: pd.DataFrame) -> None:
        """Refuse trades that are not at the prices at which the signals fill; warn of those of no entry."""
        price, slippage = self.price.to_numpy().reshape(-1, len(self._columns)), self.terms["slippage"]
        n_unregistered = 0
        names = ("col", "entry_idx", "direction", "entry_price")
        for place, bar, direction, px in zip(*(trades[name].tolist() for name in names), strict=True):
            side = -1 if direction else 1
            if self._columns[place].pattern_of(bar, side) is None:
                n_unregistered += 1
                continue
            expected = price[bar, place]
            if not any(math.isclose(px, expected * (1 + side * cost), rel_tol=1e-9) for cost in (0.0, slippage)):
                raise DataError(
                    f"the portfolio enters at bar {bar} ({self._board.index[bar]}) at {px:g}, but the signals fill there at "
                    f"{expected:g}{f' with a slippage of {slippage:g}' if slippage else ''}. Make it with "
                    "price=gated.price, and give a slippage to gate_signals too."
                )
        if n_unregistered and n_unregistered == len(trades):
            bar, px, place = (trades[name].iloc[0] for name in ("entry_idx", "entry_price", "col"))
            raise DataError(
                f"none of the portfolio's {len(trades)} trades is of an entry of these signals: the first is at bar {bar} "
                f"({self._board.index[bar]}) at {px:g}, where the price is {price[bar, place]:g} and no entry of that side fills. Make it from "
                "gated.entries and the rest, with price=gated.price."
            )
        if n_unregistered:
            warnings.warn(
                f"{n_unregistered} of the portfolio's {len(trades)} trades are of no entry of these signals; they have no "
                "row in the registry.",
                UserWarning,
                stacklevel=3,
            )

    def _orders(self) -> list[Orders]:
        return [
            play(
                column.asked,
                column.is_taken,
                at_close=self.terms["fill"] == "close",
                max_bars=self.terms["max_bars"],
                is_flat_on_skip=self._settings.on_skip == "flat",
            )
            for column in self._columns
        ]

    def _skipped(self, column: ColumnRun, side: int) -> BoolArray:
        """Where an entry of `side` was skipped and closes what stands against it."""
        if self._settings.on_skip != "flat":
            return np.zeros(len(column.asked.side), np.bool_)
        skipped: BoolArray = (column.asked.side == side) & ~column.is_taken
        return skipped

    def _at_fill(self, flags: Callable[[ColumnRun], BoolArray]) -> pd.Series | pd.DataFrame:
        values = np.column_stack([flags(column) for column in self._columns])
        if self.terms["fill"] == "open":
            values = np.vstack([np.zeros_like(values[:1]), values[:-1]])
        return self._board.shaped(values)


def label_params(label: Hashable, labels: pd.Index) -> dict[str, object]:
    """What tells a column from the others, by the names of the levels of its label."""
    parts = label if isinstance(label, tuple) else (label,)
    return {name: provenance.plain(part) for name, part in zip(level_names(labels), parts, strict=True)}


def level_names(labels: pd.Index) -> list[str]:
    """What the levels of labels are called; those without a name by their number, or ``column`` where there is one."""
    return [
        str(name) if name is not None else f"column_{i}" if labels.nlevels > 1 else "column"
        for i, name in enumerate(labels.names)
    ]


def search_run(run_id: str, runs: Sequence[Run], about: Mapping[str, object]) -> Run:
    """The record of a search as of its start, whose cells are `runs`; it is no trial of its own."""
    first = runs[0]
    hashes = dict.fromkeys(run.data_hash for run in runs)
    return replace(
        first,
        run_id=run_id,
        parent_run_id=None,
        kind="sweep",
        symbol=", ".join(dict.fromkeys(run.symbol for run in runs)),
        data_hash=first.data_hash if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest(),
        params={"sweep": about, "host": first.params["host"], "data": first.params["data"]},
    )


def _signals_sha256(asked: Asked) -> str:
    """Hash of all that was asked in a column: it stands for the source that a run of arrays does not have."""
    digest = hashlib.sha256()
    for values in (asked.side, asked.stop_px, asked.target_px, asked.exits_long, asked.exits_short):
        digest.update(np.ascontiguousarray(values).tobytes())
    digest.update(repr(sorted(asked.setups.items())).encode())
    return digest.hexdigest()


__all__ = ["GatedSignals", "Signals", "gate_signals"]
