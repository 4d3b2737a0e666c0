"""The portfolio of vectorbt that plays orders exactly, and what each of its columns leaves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from qml_plugin.adapters.asked import Asked, Board
from qml_plugin.adapters.playing import Orders
from qml_plugin.adapters.vectorbt_host import host
from qml_plugin.clock import timeframe_seconds
from qml_plugin.errors import DataError

SIZE_TYPES = ("percent", "amount", "value")
# What `metrics_of` measures where columns share no cash.
METRICS = (
    "n_trades", "trade_win_share", "buy_hold_return_frac", "return_frac", "max_drawdown_frac", "sharpe_annual",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Left:
    """What one column of a portfolio leaves.

    ``trades`` are vectorbt's entry trades, an array of its records; ``returns_frac`` of shape (n_bars - 1,) and ``equity`` of
    shape (n_bars,), in cash, are None where columns share cash.
    """

    trades: NDArray[Any]
    returns_frac: NDArray[np.float64] | None
    equity: NDArray[np.float64] | None
    metrics: dict[str, object]


def left_by(pf: Any, asked: Sequence[Asked]) -> Iterator[Left]:
    """What each column of a portfolio leaves, in their order."""
    trades = pf.entry_trades.values
    ordered = trades[np.argsort(trades["col"], kind="stable")]
    ends = np.searchsorted(ordered["col"], np.arange(len(asked) + 1))
    returns, equity = (
        (None, None)
        if _is_sharing_cash(pf)
        else (np.asarray(found()).reshape(-1, len(asked)) for found in (pf.returns, pf.value))
    )
    for place, column in enumerate(asked):
        own = ordered[ends[place] : ends[place + 1]]
        moves = None if returns is None else returns[1:, place]
        held = None if equity is None else equity[:, place]
        yield Left(own, moves, held, metrics_of(own, moves, column))


def portfolio_of(
    board: Board, orders: list[Orders], terms: Mapping[str, Any], init_cash: float, size: float, size_type: str,
    options: dict[str, Any],
) -> Any:  # fmt: skip
    """Orders on rows of their own, because vectorbt has one order per row, and then put back on their bars.

    Cash and position change with orders only, so the rows between them are not needed; and one row an order needs no
    callback, which spares the compilation that takes longer than the backtest.
    """
    vbt = host()
    from vectorbt.portfolio.enums import SizeType

    fixed = {
        "price",
        "fees",
        "slippage",
        "size",
        "size_type",
        "init_cash",
        "cash_sharing",
        "group_by",
        "close",
        "direction",
    }
    if refused := sorted(fixed & options.keys()):
        raise DataError(
            f"{refused[0]} is set by the signals and cannot be an option of portfolio(). Use vbt.Portfolio.from_signals "
            "with gated.entries and gated.exits for a portfolio of your own."
        )
    n_rows, n_columns = max([1, *(len(own.bar) for own in orders)]), len(orders)
    px = np.ones((n_rows, n_columns))
    sizes = np.full((n_rows, n_columns), np.nan)
    kinds = np.full((n_rows, n_columns), SizeType.TargetAmount)
    bars = np.zeros((n_rows, n_columns), np.int64)
    opening = {"percent": SizeType.Percent, "amount": SizeType.Amount, "value": SizeType.Value}[size_type]
    for place, own in enumerate(orders):
        n = len(own.bar)
        px[:n, place], bars[:n, place] = own.px, own.bar
        sizes[:n, place] = own.side * size
        kinds[:n, place] = np.where(own.side == 0, SizeType.TargetAmount, opening)
    freq = options.pop("freq", pd.Timedelta(seconds=timeframe_seconds(board.asked[0].bars.timeframe)))
    packed = vbt.Portfolio.from_orders(
        pd.DataFrame(px), sizes, size_type=kinds, price=px, fees=terms["fees"], slippage=terms["slippage"],
        init_cash=init_cash, **options,
    )  # fmt: skip
    records = packed.order_records.copy()
    records["idx"] = bars[records["idx"], records["col"]]
    close = board.shaped(np.column_stack([asked.bars.close for asked in board.asked]))
    wrapper = vbt.ArrayWrapper.from_obj(close, freq=freq)
    return vbt.Portfolio(wrapper, close, records, packed.log_records, np.full(n_columns, init_cash), cash_sharing=False)


def metrics_of(trades: NDArray[Any], moves: NDArray[np.float64] | None, asked: Asked) -> dict[str, object]:
    """What the host says of a column: trades, and what became of the equity."""
    closed = trades["return"][trades["status"] == 1]
    metrics: dict[str, object] = {"n_trades": len(closed)}
    metrics["trade_win_share"] = float((closed > 0).mean()) if len(closed) else math.nan
    metrics["buy_hold_return_frac"] = float(asked.bars.close[-1] / asked.bars.close[0] - 1)
    if moves is None:
        return metrics
    equity = np.cumprod(np.concatenate([[1.0], 1 + moves]))
    year = 365.25 * 86_400 / timeframe_seconds(asked.bars.timeframe)
    spread = moves.std(ddof=1)
    return metrics | {
        "return_frac": float(equity[-1] - 1),
        "max_drawdown_frac": float((equity / np.maximum.accumulate(equity) - 1).min()),
        "sharpe_annual": float(moves.mean() / spread * math.sqrt(year)) if spread > 0 else math.nan,
    }


def trade_table(left: Left, index: pd.Index, tags: Sequence[str | None]) -> pd.DataFrame:
    """The trades of a column by the names that backtesting.py has for them, and whether they are still open.

    Parameters
    ----------
    left : Left
    index : Index of shape (n_bars,)
        Times of the bars.
    tags : sequence of str or None, shape (n_trades,)
        Ids of the patterns that the trades came from.

    Returns
    -------
    DataFrame
        ``Size`` (negative: short), ``EntryBar``, ``ExitBar``, ``EntryPrice``, ``ExitPrice``, ``PnL`` and ``Commission`` in
        cash, ``ReturnPct`` (a fraction), ``EntryTime``, ``ExitTime``, ``Tag``, ``IsOpen``. A trade that nothing closed ends
        with the last bar, at its close.
    """
    found = left.trades
    entry, leave = found["entry_idx"].astype(np.int64), found["exit_idx"].astype(np.int64)
    return pd.DataFrame(
        {
            "Size": np.where(found["direction"] == 1, -found["size"], found["size"]),
            "EntryBar": entry,
            "ExitBar": leave,
            "EntryPrice": found["entry_price"],
            "ExitPrice": found["exit_price"],
            "PnL": found["pnl"],
            "Commission": found["entry_fees"] + found["exit_fees"],
            "ReturnPct": found["return"],
            "EntryTime": index[entry],
            "ExitTime": index[leave],
            "Tag": pd.Series(list(tags), dtype="str"),
            "IsOpen": found["status"] == 0,
        }
    )


def refuse_shared_cash(pf: Any) -> None:
    """DataError where the columns of a portfolio have no equity of their own."""
    if _is_sharing_cash(pf):
        raise DataError(
            "the columns of the portfolio share cash, so that none has an equity of its own. Make it without cash_sharing."
        )


def _is_sharing_cash(pf: Any) -> bool:
    return bool(pf.wrapper.grouper.is_grouped())


def equity_table(left: Left, index: pd.Index) -> pd.DataFrame:
    """Equity of a column in cash, and its drawdown as a fraction, a row a bar."""
    assert left.equity is not None, "refuse_shared_cash comes first"
    drawdown = 1 - left.equity / np.maximum.accumulate(left.equity)
    return pd.DataFrame({"Equity": left.equity, "DrawdownPct": drawdown}, index=index)
