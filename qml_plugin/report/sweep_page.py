"""The page of a sweep: what it came to and why, where it is good, what all points came to, and what failed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qml_plugin.errors import DataError
from qml_plugin.report import sweep_figures as draw
from qml_plugin.report.document import Chart, chart, render, write
from qml_plugin.report.dossier_figures import equity_figure
from qml_plugin.sweeps.folder import Folder
from qml_plugin.sweeps.result import SweepResult, is_no_gain
from qml_plugin.vrd.sensitivity import PickingCost, picking_cost

_MOST_ROWS, _MOST_FAILED, _MOST_MAPS = 500, 100, 10
_MOST_PICKED_POINTS, _MOST_PICKED_VALUES = 1_000, 5_000_000
_YEAR = pd.Timedelta(days=365.25)
_STYLES = ("Solid blue", "Dashed orange", "Dotted")
PLATEAU, HIGHEST, MIDDLE = "plateau", "highest", "middle of all"


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """One point that the page speaks of."""

    row: int
    parameters: Mapping[str, Any]
    objective: float
    plateau: float


def render_sweep_page(result: SweepResult, *, table_name: str | None = None) -> str:
    """One self-contained HTML file, what to go on with first: nothing is fetched from anywhere.

    Parameters
    ----------
    result : SweepResult
        Names in it are escaped wherever they appear.
    table_name : str, optional
        Of the file beside the page that has every point.

    Returns
    -------
    str
        The whole document. A part that there is nothing for says why.

    Point in time
    -------------
    Draws all that the sweep kept: a look back on finished points.

    Raises
    ------
    DataError
        If the folder of the sweep is gone, or its manifest is damaged.
    """
    manifest = manifest_of(result.folder)
    points = result.points()
    choices, why_none = choices_of(result, points)
    picking, why_no_picking = _picking(result, len(points))
    order = points["objective"].sort_values(ascending=False, na_position="last", kind="stable").index[:_MOST_ROWS]
    values = points["objective"].to_numpy(np.float64)
    objective = None
    if np.isfinite(values).any():
        marks = {name: choice.objective for name, choice in choices.items() if name != MIDDLE}
        objective = chart(
            "objective", "The objective of all points", draw.objective_figure(values, result.objective, marks)
        )
    equity, drawn = _equity(result, choices, len(points))
    varied = [name for name in result.grid_names if len(result.grid[name]) > 1]
    return render(
        "sweep.html.j2", result=result, manifest=manifest, points=points, choices=choices, why_none=why_none, varied=varied,
        picking=picking, why_no_picking=why_no_picking, objective=objective, names=list(result.grid_names),
        maps=_maps(result, result.grid, varied, choices), equity=equity, lines=list(zip(_STYLES, drawn, strict=False)), rows=_rows(result, order.tolist(), points),
        failed=result.failed.to_dict("records")[:_MOST_FAILED], n_pairs=len(varied) * (len(varied) - 1) // 2, table_name=table_name,
        symbols=manifest["symbols"],
        is_no_gain=PLATEAU in choices and is_no_gain(result.objective, choices[PLATEAU].objective),
    )  # fmt: skip


def write_sweep_page(result: SweepResult, path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Absolute paths of the page and of the table of all points beside it; earlier files are replaced whole, or not at all.

    Parameters
    ----------
    result : SweepResult
    path : path
        Of the page; its folder must exist. The table is ``NAME.points.csv`` beside ``NAME.html``.

    Returns
    -------
    (html, csv) : pair of Path

    Raises
    ------
    DataError
        As `render_sweep_page`; nothing was written.
    OSError
        If a file cannot be written; the earlier one is intact.
    """
    place = Path(path)
    beside = place.with_name(f"{place.stem}.points.csv")
    html = render_sweep_page(result, table_name=beside.name)
    written = write(result.table.to_csv(index=False), beside)
    return write(html, place), written


def manifest_of(folder: Path) -> dict[str, Any]:
    """What a search says of itself; DataError where it is gone."""
    manifest = Folder(folder).read_manifest()
    if manifest is None:
        raise DataError(f"{folder} holds no search any more. Search again, and write the page before the folder goes.")
    return manifest


def choices_of(result: SweepResult, points: pd.DataFrame) -> tuple[dict[str, Choice], str]:
    """The plateau, the highest point and the one in the middle, as far as there are such; and why there is no plateau."""
    found, why_none = {}, ""
    for name, by in ((PLATEAU, "plateau"), (HIGHEST, "objective")):
        try:
            best = result.best(by=by)
        except DataError as error:
            why_none = why_none or str(error)
            continue
        is_it = np.logical_and.reduce([points[one] == best[one] for one in result.grid_names])
        found[name] = _choice(points, int(np.flatnonzero(is_it)[0]), result.grid_names)
    known = points["objective"].dropna()
    if len(known) > len(found):
        middle = known.sort_values(kind="stable").index[len(known) // 2]
        found[MIDDLE] = _choice(points, int(middle), result.grid_names)
    return found, why_none


def _choice(points: pd.DataFrame, row: int, names: Sequence[str]) -> Choice:
    objective, plateau = (float(points[name].to_numpy(np.float64)[row]) for name in ("objective", "plateau"))
    return Choice(row, {name: points[name].iat[row] for name in names}, objective, plateau)


def _maps(
    result: SweepResult, grid: Mapping[str, list[Any]], varied: Sequence[str], choices: Mapping[str, Choice]
) -> list[Chart]:
    """A map for each pair of parameters that vary, pairs of numbers first; a line where one varies."""
    marks = {name: choice.parameters for name, choice in choices.items() if name != MIDDLE}
    table = result.table
    if len(varied) == 1:
        (name,) = varied
        by = table.where(table["status"] == "finished").groupby(table[name])["objective"]
        values = pd.DataFrame(
            {"mean": by.mean(), "low": by.min(), "high": by.max(), "n_failed": _n_failed(table, [name])}
        )
        values = values.reindex(pd.Index(grid[name], name=name))
        figure = draw.profile_figure(
            values, result.objective, is_ordered=is_number(grid[name]),
            marks={what: parameters[name] for what, parameters in marks.items()},
        )  # fmt: skip
        return [chart("profile", f"{result.objective} by {name}", figure)]
    pairs = sorted(combinations(varied, 2), key=lambda pair: -sum(is_number(grid[name]) for name in pair))
    found = []
    for number, (row, column) in enumerate(pairs[:_MOST_MAPS], 1):
        mean, low = (result.surface(row, column, how=how) for how in ("mean", "min"))
        failed = (
            _n_failed(table, [row, column]).unstack(column).reindex(index=mean.index, columns=mean.columns).fillna(0)
        )
        figure = draw.heat_map_figure(
            mean, result.objective, low=low, n_failed=failed,
            marks={what: (parameters[row], parameters[column]) for what, parameters in marks.items()},
        )  # fmt: skip
        found.append(chart(f"map-{number}", f"{row} and {column}", figure))
    return found


def _n_failed(table: pd.DataFrame, names: list[str]) -> pd.Series:
    return (table["status"] == "failed").groupby([table[name] for name in names]).sum()


def is_number(values: Sequence[Any]) -> bool:
    """Whether the values of a parameter are numbers."""
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def _returns(result: SweepResult, row: int, n_points: int) -> pd.Series:
    """Returns of a point by bar; with several symbols their mean, where a symbol without a bar earns nothing."""
    own = [
        result.equity(run_id)["Equity"].pct_change().fillna(0.0)
        for run_id in result.table["run_id"].iloc[row::n_points]
    ]
    return own[0] if len(own) == 1 else pd.concat(own, axis=1).fillna(0.0).mean(axis=1)


def _equity(result: SweepResult, choices: Mapping[str, Choice], n_points: int) -> tuple[Chart | None, list[str]]:
    """The equity of the choices and their names; one line where two are one point."""
    lines: dict[str, pd.Series] = {}
    rows: set[int] = set()
    for name, choice in choices.items():
        if choice.row not in rows:
            rows.add(choice.row)
            lines[name] = (1 + _returns(result, choice.row, n_points)).cumprod()
    if not lines:
        return None, []
    first = next(iter(lines.values()))
    figure = equity_figure(
        draw.milliseconds(first.index), {name: line.to_numpy(np.float64) for name, line in lines.items()}, is_time=True
    )
    return chart("equity", "Equity of the chosen points", figure), list(lines)


def _picking(result: SweepResult, n_points: int) -> tuple[PickingCost | None, str]:
    """What the best point owes to having been picked, or why it was not asked."""
    table = result.table
    is_done = ((table["status"] == "finished") & (table["n_trades"] > 0)).to_numpy().reshape(-1, n_points).all(axis=0)
    rows = np.flatnonzero(is_done).tolist()
    if len(rows) < 2:
        return None, "fewer than two points closed a trade"
    if len(rows) > _MOST_PICKED_POINTS:
        return None, f"{len(rows):,} points are more than the {_MOST_PICKED_POINTS:,} that are drawn from again"
    first = _returns(result, rows[0], n_points)
    if len(first) * len(rows) > _MOST_PICKED_VALUES:
        return None, f"{len(rows):,} points of {len(first):,} bars are too much to be drawn from again"
    matrix = np.column_stack([first, *(_returns(result, row, n_points) for row in rows[1:])])
    try:
        per_year = (len(first) - 1) / ((first.index[-1] - first.index[0]) / _YEAR)
        return picking_cost(matrix, per_year, seed=0), ""
    except (DataError, ZeroDivisionError) as error:
        return None, str(error)


def _rows(result: SweepResult, order: Sequence[int], points: pd.DataFrame) -> list[dict[str, Any]]:
    """The points of the table as the page lists them, best first, symbol by symbol within each."""
    rows = []
    for row in order:
        for at in range(row, len(result.table), len(points)):
            kept = result.table.iloc[at].to_dict()
            if kept["status"] == "finished":
                rows.append(kept | {"plateau": points["plateau"].iat[row]})
    return rows[:_MOST_ROWS]
