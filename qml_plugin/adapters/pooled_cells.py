"""One point of a search on several symbols that learn from one another: their backtests go through time together."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd

from qml_plugin.adapters import backtesting_host, cells
from qml_plugin.adapters.cells import Finished, Market
from qml_plugin.adapters.run_memory import data_of
from qml_plugin.adapters.turns import Await, Turns
from qml_plugin.memory import PooledPast
from qml_plugin.records import Run


def pooled(markets: Sequence[Market]) -> list[Market]:
    """The markets, each of which knows of the others; their runs are then others than those of each by itself."""
    of = {
        market.symbol: {
            "timeframe": market.bars.timeframe,
            "data_hash": market.bars.sha256(),
            **data_of(market.frame),
        }
        for market in sorted(markets, key=lambda market: market.symbol)
    }
    return [
        replace(market, pooled_with={symbol: about for symbol, about in of.items() if symbol != market.symbol})
        for market in markets
    ]


def run_pooled(
    strategy: type,
    markets: Sequence[Market],
    host: Mapping[str, Any],
    given: Mapping[str, Mapping[str, Any]],
    runs: Mapping[str, Run],
    objective: str | Callable[[pd.Series], float],
) -> dict[str, Finished]:
    """Run one point on several symbols; what each leaves for the registry is its ``memory.batch()``.

    backtesting.py runs one series from end to end, so each symbol has a thread, of which one runs at any moment. Between
    its entries a symbol needs nothing of the others, so it runs on to its next entry and waits there until no other
    symbol has an earlier one: of one moment the symbols decide by name.

    Parameters
    ----------
    strategy : type
        With the mixin.
    markets : sequence of Market
    host : mapping
        Options of the host.
    given, runs : mapping by symbol
        Parameters and settings of each run, and its record as of its start. The settings differ in the symbol only.
    objective : str or callable

    Returns
    -------
    dict of str to Finished

    Point in time
    -------------
    An entry at t is decided from the bars of its own symbol known by t and from the entries of all symbols whose outcome
    was known by t, at t included. No symbol's bars after t change it.

    Raises
    ------
    BaseException
        What the first symbol to fail raised; nothing is left of any then.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        said: dict[str, list[warnings.WarningMessage]] = {market.symbol: [] for market in markets}

        def after_turn(symbol: str) -> None:
            said[symbol] += caught
            caught.clear()

        turns = Turns(after_turn)
        first = markets[0]
        start = None if runs[first.symbol].snapshot_seq is None else first.start
        pool = PooledPast(
            None if start is None else start.known, cells.settings_of(strategy, given[first.symbol]).policy
        )

        def played(market: Market, await_turn: Await) -> pd.Series:
            cell = replace(cells.cell_of(market, runs[market.symbol]), pool=pool, await_turn=await_turn)
            return cells.played(strategy, market, host, given[market.symbol], cell)

        with backtesting_host.no_progress_bars(turns.stop_if_told):
            stats = turns.run({market.symbol: partial(played, market) for market in markets})
    return {symbol: cells.finished(own, objective, said[symbol]) for symbol, own in stats.items()}
