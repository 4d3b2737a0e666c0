"""Columns that were gated in one call as a sweep: their labels are its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qml_plugin import provenance
from qml_plugin.adapters.vectorbt import GatedSignals, level_names
from qml_plugin.adapters.vectorbt_portfolio import METRICS, refuse_shared_cash
from qml_plugin.errors import DataError
from qml_plugin.processes import Process
from qml_plugin.registry import PatternRegistry
from qml_plugin.sweeps.folder import Folder, finite, home_of, in_parquet
from qml_plugin.sweeps.points import Grid, Places
from qml_plugin.sweeps.result import SweepResult, point_table
from qml_plugin.sweeps.search import (
    MEMORY_METRICS,
    RESERVED,
    Objective,
    check_objective,
    kept_grid,
    name_of,
    resumed,
)

CLOSING = "A position is closed by exits, by stop or target, or after max_bars"


def sweep_of(
    gated: GatedSignals, pf: Any = None, *, objective: Objective = "sharpe_annual", folder: str | Path | None = None
) -> SweepResult:
    """Columns that were gated in one call as a sweep: their labels are the parameters, and the portfolio is recorded.

    Parameters
    ----------
    gated : GatedSignals
        Of two columns or more. The levels of their labels are the parameters; one that names the markets is none.
    pf : vectorbt.Portfolio, optional
        As for `GatedSignals.record`; ``gated.portfolio()`` unless given.
    objective : str or callable, default="sharpe_annual"
        A metric, or a function of the metrics of a column; the higher the better.
    folder : path, optional
        As for `sweep`.

    Returns
    -------
    SweepResult
        A row a column, in order of the parameters.

    Raises
    ------
    DataError
        If there is one column only, the labels are no parameters, two columns have the same, or columns share cash.
    """
    if gated.search is None:
        raise DataError("one column is no search. Give gate_signals a table with a column for each point.")
    check_objective(objective, (*MEMORY_METRICS, *METRICS))
    pf = gated.portfolio() if pf is None else pf
    refuse_shared_cash(pf)
    grid, at, symbols = _grid_of_columns(gated)
    gated.record(pf)
    file = PatternRegistry(gated.registry).file if gated.registry is not None else None
    kept = Folder(home_of(folder, file) / gated.search.run_id)
    resumed(kept, is_resumed=False)
    manifest = manifest_of(gated.search.run_id, gated.search.strategy_name, symbols, grid)
    kept.claim(manifest)
    records: dict[str, dict[str, Any]] = {}
    for run, trades, equity in gated.columns(pf):
        assert run.metrics is not None
        records[run.run_id] = kept_record(kept, run.run_id, run.metrics, trades, equity, objective)
    kept.note_end(manifest, "finished")
    run_ids = [gated.runs[column].run_id for _, column in sorted(at.items())]
    places = sorted({place for _, place in at})
    metrics = (*MEMORY_METRICS, *METRICS)
    table = point_table(grid, places, symbols, run_ids, [records[run_id] for run_id in run_ids], metrics)
    return SweepResult(
        gated.search.run_id, table, kept.path, name_of(objective), gated.n_feature_passes, {}, grid, places, tuple(symbols),
        _closing=CLOSING,
    )  # fmt: skip


def _grid_of_columns(gated: GatedSignals) -> tuple[Grid, dict[tuple[int, Places], int], list[str]]:
    """The grid that the labels span, the column at each number of a symbol and place, and the symbols."""
    labels, found = gated.labels, [run.symbol for run in gated.runs]
    symbols = list(dict.fromkeys(found))
    values: dict[str, list[Any]] = {}
    codes: dict[str, list[int]] = {}
    for level, name in enumerate(level_names(labels)):
        of_level = labels.get_level_values(level)
        if len(symbols) > 1 and list(of_level) == found:
            continue
        if name in values or name in (*RESERVED, *MEMORY_METRICS, *METRICS):
            raise DataError(f"a level of the columns is called {name!r}, which the table has already. Rename it.")
        places, uniques = pd.factorize(of_level)
        if (places < 0).any():
            raise DataError(f"the level {name!r} of the columns has no value for column {int(np.argmin(places))}.")
        values[name], codes[name] = uniques.tolist(), places.tolist()
    if not values:
        raise DataError("the columns are told apart by their market only: they hold no parameter, and so no search.")
    given = set(zip(*([values[name][code] for code in codes[name]] for name in values), strict=True))
    grid = Grid(values, lambda point: tuple(point.values()) in given)
    order = {name: {value: place for place, value in enumerate(tried)} for name, tried in grid.values.items()}
    at: dict[tuple[int, Places], int] = {}
    for column, symbol in enumerate(found):
        place = tuple(order[name][values[name][codes[name][column]]] for name in values)
        key = (symbols.index(symbol), place)
        if key in at:
            raise DataError(
                f"columns {at[key]} and {column} have the same label {provenance.plain(labels[column])}. Give each its own."
            )
        at[key] = column
    if len(at) != len(symbols) * len({place for _, place in at}):
        raise DataError("not every market has the same columns. Give each the same, or make a sweep of each market.")
    return grid, at, symbols


def kept_record(
    folder: Folder, run_id: str, metrics: Mapping[str, Any], trades: pd.DataFrame, equity: pd.DataFrame,
    objective: Objective, commit: Callable[[], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Keep a point that finished; it counts as done when its record is there."""
    numbers = {name: float(value) for name, value in metrics.items()}
    value = numbers[objective] if isinstance(objective, str) else float(objective(pd.Series(numbers)))
    record: dict[str, Any] = {
        "status": "finished", "metrics": finite(numbers), "objective": finite({"": value})[""], "error": None, "warned": [],
    }  # fmt: skip
    hashes = folder.write_tables(run_id, {"trades": in_parquet(trades), "equity": in_parquet(equity)})
    if commit is not None:
        commit()
    folder.write_cell(run_id, record | {"sha256": hashes})
    return record


def manifest_of(run_id: str, name: str, symbols: Sequence[str], grid: Grid) -> dict[str, Any]:
    return {
        "run_id": run_id, "strategy": name, "search": "columns", "status": "running", "symbols": list(symbols),
        "grid": kept_grid(grid),
        "process": asdict(Process.own()), "versions": provenance.library_versions(), "snapshot": None,
    }  # fmt: skip
