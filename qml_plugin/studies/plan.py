"""The cells of a study: each strategy on each market, with the bars it sees and the ids of its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from qml_plugin import provenance
from qml_plugin.bars import Bars, bars_from_frame
from qml_plugin.clock import infer_timeframe
from qml_plugin.errors import DataError
from qml_plugin.features import CATALOGUE
from qml_plugin.studies.description import Description, MarketEntry, StrategyEntry, folder_name
from qml_plugin.studies.job import load_frame


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """One strategy on one market: its folder's name, the hash of its bars, and the ids of its parts."""

    name: str
    entry: StrategyEntry
    market: MarketEntry
    bars: Bars
    source_sha256: str
    part_ids: Mapping[str, str]

    def shown(self) -> dict[str, Any]:
        """What the manifest says of it."""
        return {
            "name": self.name, "strategy": self.entry.name, "symbol": self.market.symbol, "timeframe": self.market.timeframe,
            "strategy_path": provenance.class_path(self.entry.cls), "source_sha256": self.source_sha256,
            "data_sha256": self.bars.sha256(), "n_bars": len(self.bars), "first_at": int(self.bars.opened_at[0]),
            "last_at": int(self.bars.opened_at[-1]), "part_ids": dict(self.part_ids),
        }  # fmt: skip

    @property
    def series(self) -> tuple[str, str]:
        """Cells of one class on one series share a ledger of trials."""
        return self.entry.cls.__name__, self.bars.sha256()


def cells_of(description: Description, snapshot: Mapping[str, Any]) -> list[Cell]:
    """All cells with their bars, each market read once.

    Raises
    ------
    DataError
        If the bars of a market are refused, or its timeframe is another one.
    """
    markets = {id(market): _bars_of(description, market) for market in description.markets}
    d = description
    shared = [snapshot["sha256"], snapshot["seq"], provenance.library_versions(), CATALOGUE.feature_set]
    found = []
    for entry, market in description.cells():
        source, bars = provenance.source_sha256(entry.cls), markets[id(market)]
        series = [bars.symbol, bars.timeframe, bars.sha256()]
        what = [shared, entry.cls.__name__, source, series, entry.grid, entry.fixed, d.host, d.seed]
        judged = [d.is_quick, asdict(d.plan), asdict(d.thresholds), d.fees]
        sweep_id = provenance.run_id("study sweep", what, d.gate, d.gate_grid, d.objective)
        part_ids = {"sweep": sweep_id, "validation": provenance.run_id("study validation", what, judged, sweep_id)}
        name = folder_name(entry.name, market.symbol, market.timeframe)
        found.append(Cell(name, entry, market, bars, source, part_ids))
    return found


def _bars_of(description: Description, market: MarketEntry) -> Bars:
    try:
        frame = load_frame(market.symbol, market.file, market.last_bars)
        true = infer_timeframe(pd.DatetimeIndex(frame.index))
        if true != market.timeframe:
            raise DataError(f"its bars are {true} long, not {market.timeframe}. Correct timeframe:, or the file.")
        return bars_from_frame(frame, symbol=market.symbol, timeframe=market.timeframe)
    except DataError as error:
        raise DataError(
            f"{description.file.name}: {market.at}, {market.symbol} {market.timeframe}, is refused: {error}"
        ) from error
