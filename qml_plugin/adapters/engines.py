"""Two engines, one answer: the same signals on backtesting.py and on vectorbt, compared row by row."""

from __future__ import annotations

import math
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qml_plugin.adapters.asked import Asked, read_board
from qml_plugin.adapters.vectorbt import GatedSignals, gate_signals
from qml_plugin.bars import read_bars
from qml_plugin.errors import DataError
from qml_plugin.records import Signals

REASONS = {
    "first_bar": "backtesting.py calls no strategy at the first bar, so what is asked there is asked of neither engine",
    "last_close": "an order at the last close is filled by vectorbt, and never looked at by backtesting.py",
}
TOLERANCE = 1e-9
_TABLES = {"ml_pattern_registry": "pattern_id", "run_decisions": "pattern_id"}
# Times of writing, the run that wrote, and the hash of a row with its trade's return to the last bit.
_NOT_COMPARED = frozenset({"created_at", "updated_at", "run_id", "row_sha256"})
_RETURNS = frozenset({"trade_outcome", "trade_return"})


@dataclass(frozen=True, slots=True)
class Difference:
    """One value in which the engines differ; ``reason`` is one of `REASONS`, or None where nothing explains it."""

    table: str
    column: str
    pattern_id: str
    backtesting: object
    vectorbt: object
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class EngineComparison:
    """What two engines made of the same signals.

    ``n_values`` counts the values that were compared, ``largest_gap`` is the largest difference between returns that
    count as equal. ``reasons`` counts by `REASONS` what is known to differ.
    """

    n_entries: int
    n_taken: int
    n_skipped: int
    n_trades: int
    n_values: int
    largest_gap: float
    differences: tuple[Difference, ...]
    reasons: Mapping[str, int]

    @property
    def unexplained(self) -> tuple[Difference, ...]:
        """Differences without a named reason."""
        return tuple(difference for difference in self.differences if difference.reason is None)


def compare_engines(
    ohlcv: pd.DataFrame,
    long_entries: Any,
    short_entries: Any = None,
    exits: Any = None,
    *,
    short_exits: Any = None,
    stop: Any = None,
    target: Any = None,
    symbol: str = "X",
    timeframe: str | None = None,
    strategy: str = "Signals",
    bar_label: str = "open",
    fill: str = "open",
    fees: float = 0.0,
    max_bars: int | None = None,
    **settings: Any,
) -> EngineComparison:
    """Play the same signals on both hosts, each into a new registry, and compare all that they recorded.

    Parameters
    ----------
    ohlcv : DataFrame
        Bars of one market.
    long_entries, short_entries, exits, short_exits, stop, target, max_bars, symbol, timeframe, strategy, bar_label, fill, fees
        As `gate_signals` takes them, of one column.
    **settings
        The other settings of `gate_signals`, but ``registry`` and ``slippage``, which backtesting.py does not have.

    Returns
    -------
    EngineComparison
        Compared are all columns of ``ml_pattern_registry`` and ``run_decisions`` but times of writing, run ids and
        hashes of rows; returns of trades to 1e-9, everything else to the last bit.

    Raises
    ------
    DataError
        If there are several columns, or `gate_signals` refuses what was given.
    MissingExtra
        If one of the hosts is not installed.
    """
    if refused := sorted({"registry", "slippage"} & settings.keys()):
        raise DataError(
            f"{refused[0]} cannot be compared: each engine writes a registry of its own, and backtesting.py has no slippage."
        )
    board = read_board(
        ohlcv, long_entries, short_entries, exits, short_exits, stop, target,
        symbol=symbol, timeframe=timeframe, bar_label=bar_label,
    )  # fmt: skip
    if len(board.asked) != 1:
        raise DataError(f"{len(board.asked)} columns were given. Compare the engines one column at a time.")
    asked, n_first = _without_first_bar(board.asked[0])
    signals = Signals(asked.side, asked.stop_px, asked.target_px, asked.exits_long, asked.setups)
    common = {"timeframe": timeframe, "strategy": strategy, "bar_label": bar_label, **settings}
    with tempfile.TemporaryDirectory(prefix="qml_engines_") as folder:
        urls = {engine: f"sqlite:///{Path(folder) / engine}.db" for engine in ("backtesting", "vectorbt")}
        gated = gate_signals(
            ohlcv, signals, short_exits=asked.exits_short, symbol=symbol, fill=fill, fees=fees, max_bars=max_bars,
            registry=urls["vectorbt"], **common,
        )  # fmt: skip
        pf = gated.portfolio(1e12, size=1.0, size_type="amount")
        gated.record(pf)
        _play_on_backtesting(asked, ohlcv, gated, urls["backtesting"], common)
        rows = {engine: _rows(Path(folder) / f"{engine}.db") for engine in urls}
    at_last_close = _closed_at_the_last_bar(gated, pf) if fill == "close" else frozenset()
    differences, n_values, largest_gap = _differences(rows["backtesting"], rows["vectorbt"], at_last_close)
    reasons = Counter({"first_bar": n_first})
    reasons.update(difference.reason for difference in differences if difference.reason)
    actions = [decision.action for decision in gated.decisions]
    return EngineComparison(
        n_entries=len(actions),
        n_taken=len(actions) - actions.count("skip"),
        n_skipped=actions.count("skip"),
        n_trades=len(gated.returns),
        n_values=n_values,
        largest_gap=largest_gap,
        differences=tuple(differences),
        reasons={reason: reasons[reason] for reason in REASONS},
    )


def check_engines(
    ohlcv: pd.DataFrame, *, symbol: str = "X", timeframe: str | None = None, fees: float = 0.0005, seed: int = 0
) -> Iterator[tuple[str, str, str, EngineComparison]]:
    """Compare the engines on a market: a cross of two averages, and entries and exits by chance, in every mode.

    Parameters
    ----------
    ohlcv : DataFrame
        Bars of one market.
    symbol, timeframe, fees
        As `gate_signals` takes them.
    seed : int, default=0
        Of the entries by chance.

    Yields
    ------
    tuple of str, str, str, EngineComparison
        Which signals, the mode, the fill, and what came of them.
    """
    bars = read_bars(ohlcv)
    close, rng = bars["Close"], np.random.default_rng(seed)
    fast, slow = close.rolling(10).mean(), close.rolling(30).mean()
    draw = rng.random(len(bars))
    asked: dict[str, dict[str, Any]] = {
        "cross": {
            "long_entries": (fast > slow) & (fast.shift() <= slow.shift()),
            "short_entries": (fast < slow) & (fast.shift() >= slow.shift()),
        },
        "chance": {
            "long_entries": draw < 0.03, "short_entries": draw > 0.97, "exits": rng.random(len(bars)) < 0.03,
            "stop": 0.005, "target": 0.008, "max_bars": 10,
        },
    }  # fmt: skip
    for name, signals in asked.items():
        for mode, fill in (("record", "close"), ("shadow", "open"), ("gate", "open")):
            common: dict[str, Any] = {
                "symbol": symbol,
                "timeframe": timeframe,
                "fees": fees,
                "mode": mode,
                "fill": fill,
            }
            yield name, mode, fill, compare_engines(bars, **signals, **common)


def _without_first_bar(asked: Asked) -> tuple[Asked, int]:
    side = asked.side.copy()
    side[0] = 0
    return replace(asked, side=side), int(asked.side[0] != 0)


def _play_on_backtesting(
    asked: Asked, ohlcv: pd.DataFrame, gated: GatedSignals, url: str, common: Mapping[str, Any]
) -> None:
    from qml_plugin.adapters.signal_player import play_signals

    play_signals(asked, read_bars(ohlcv), gated.terms, {**common, "barriers": gated.barriers, "registry": url})


def _rows(path: Path) -> dict[str, dict[str, dict[str, object]]]:
    """All rows of the compared tables, by table and pattern."""
    with closing(sqlite3.connect(path)) as database:
        database.row_factory = sqlite3.Row
        return {
            table: {row[key]: dict(row) for row in database.execute(f"SELECT * FROM {table}")}
            for table, key in _TABLES.items()
        }


def _closed_at_the_last_bar(gated: GatedSignals, pf: Any) -> frozenset[str | None]:
    """Patterns whose trade in vectorbt ended at the last bar."""
    trades = pf.entry_trades.records
    ended = trades[(trades["exit_idx"] == pf.wrapper.shape[0] - 1) & (trades["status"] == 1)]
    return frozenset(
        gated.pattern_of(int(bar), -1 if direction else 1)
        for bar, direction in zip(ended["entry_idx"], ended["direction"], strict=True)
    )


def _differences(
    one: Mapping[str, Mapping[str, Mapping[str, object]]],
    other: Mapping[str, Mapping[str, Mapping[str, object]]],
    at_last_close: frozenset[str | None],
) -> tuple[list[Difference], int, float]:
    """Values that differ, how many were compared, and the largest gap between returns that count as equal."""
    found: list[Difference] = []
    n_values, largest = 0, 0.0
    for table in _TABLES:
        for key in sorted(one[table].keys() | other[table].keys()):
            left, right = one[table].get(key), other[table].get(key)
            if left is None or right is None:
                found.append(Difference(table, "*", key, left is not None, right is not None))
                continue
            for column in left.keys() - _NOT_COMPARED:
                n_values += 1
                a, b = left[column], right[column]
                if a == b:
                    continue
                if column in _RETURNS and _is_close(a, b):
                    largest = max(largest, abs(a - b))  # type: ignore[operator]
                    continue
                is_last = column in _RETURNS and a is None and key in at_last_close
                found.append(Difference(table, column, key, a, b, "last_close" if is_last else None))
    return found, n_values, largest


def _is_close(a: object, b: object) -> bool:
    return isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
