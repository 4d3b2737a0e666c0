"""The page of a walk-forward: what was earned out of sample, what was promised before, and whether the choice wanders."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from qml_plugin.report import sweep_figures as draw
from qml_plugin.report.document import chart, render, write
from qml_plugin.report.dossier_figures import drawdown_figure
from qml_plugin.report.sweep_page import manifest_of
from qml_plugin.sweeps.walking import WalkForwardResult

_MOST_ROWS, _MOST_PARAMETERS = 500, 12


def render_walk_forward_page(result: WalkForwardResult, *, table_names: tuple[str, ...] = ()) -> str:
    """One self-contained HTML file, what was earned out of sample first: nothing is fetched from anywhere.

    Parameters
    ----------
    result : WalkForwardResult
        Names in it are escaped wherever they appear.
    table_names : tuple of str, optional
        Of the files beside the page that hold its numbers.

    Returns
    -------
    str
        The whole document.

    Point in time
    -------------
    Draws all windows: a look back on a finished walk.

    Raises
    ------
    DataError
        If the folder of the walk is gone, or a manifest in it is damaged.
    """
    manifest = manifest_of(result.folder)
    first = result.searches[0]
    names, grid = list(first.grid_names), first.grid
    folds = result.folds
    before, after = (folds[name].to_numpy(np.float64) for name in ("in_sample", "out_of_sample"))
    by = manifest["windows"]["by"]
    measure = first.objective if by in ("plateau", "objective") else by
    edges = (folds["test_start"] - folds["test_start"].iloc[0]).tolist()
    is_failed = folds["error"].notna().tolist()
    x = draw.milliseconds(result.equity.index)
    start = float(result.equity.iloc[0]) or 1.0
    charts = {
        "equity": chart("equity", "Equity out of sample", draw.windows_figure(result.equity, edges, is_failed)),
        "drawdown": chart("drawdown", "Drawdown out of sample", drawdown_figure(x, result.equity.to_numpy(np.float64) / start, is_time=True)),
        "samples": chart("samples", "In sample and out of sample", draw.in_and_out_figure(before, after, measure)),
    }  # fmt: skip
    varied = [name for name in names if len(grid[name]) > 1]
    choices = [
        chart(f"choice-{number}", name, draw.choices_figure(name, grid[name], _chosen(folds[name].tolist(), is_failed)))
        for number, name in enumerate(varied[:_MOST_PARAMETERS], 1)
    ]
    return render(
        "walk_forward.html.j2", result=result, manifest=manifest, charts=charts, choices=choices, names=names, varied=varied,
        wandering=[_wandering(name, grid[name], _chosen(folds[name].tolist(), is_failed)) for name in varied], measure=measure,
        rows=_rows(result)[:_MOST_ROWS], failed=result.failed.to_dict("records")[:_MOST_ROWS], kept=_kept(before, after),
        warned=dict(sum((Counter(search.warned) for search in result.searches), Counter())), table_names=table_names, grid=grid,
        n_points=sum(len(search.table) for search in result.searches), n_failed=sum(len(search.failed) for search in result.searches),
    )  # fmt: skip


def write_walk_forward_page(result: WalkForwardResult, path: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Absolute paths of the page and of its numbers beside it; earlier files are replaced whole, or not at all.

    Parameters
    ----------
    result : WalkForwardResult
    path : path
        Of the page; its folder must exist. ``NAME.folds.csv`` and ``NAME.equity.csv`` stand beside ``NAME.html``.

    Returns
    -------
    (html, folds, equity) : tuple of Path

    Raises
    ------
    DataError
        As `render_walk_forward_page`; nothing was written.
    OSError
        If a file cannot be written; the earlier one is intact.
    """
    place = Path(path)
    beside = {
        place.with_name(f"{place.stem}.folds.csv"): result.folds.to_csv(index=False),
        place.with_name(f"{place.stem}.equity.csv"): result.equity.to_csv(index_label="time"),
    }
    html = render_walk_forward_page(result, table_names=tuple(file.name for file in beside))
    written = [write(text, file) for file, text in beside.items()]
    return (write(html, place), *written)


def _chosen(values: list[Any], is_failed: list[bool]) -> list[Any]:
    return [None if failed else value for value, failed in zip(values, is_failed, strict=True)]


def _wandering(name: str, tried: list[Any], chosen: list[Any]) -> dict[str, Any]:
    """How often a parameter changed from one window to the next, how far, and what it was most often."""
    places = [tried.index(value) for value in chosen if value is not None]
    steps = np.abs(np.diff(places)) if len(places) > 1 else np.empty(0)
    usual, n_usual = Counter(places).most_common(1)[0] if places else (None, 0)
    return {
        "name": name, "n_tried": len(tried), "n_chosen": len(set(places)), "n_windows": len(places),
        "n_changes": int((steps > 0).sum()), "n_steps": len(steps), "longest": int(steps.max()) if len(steps) else 0,
        "usual": None if usual is None else tried[usual], "n_usual": n_usual,
    }  # fmt: skip


def _kept(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """Windows that have both measures: the middle of each, and how many came to more than nothing after."""
    both = np.isfinite(before) & np.isfinite(after)
    n = int(both.sum())
    return {
        "n": n, "before": float(np.median(before[both])) if n else None, "after": float(np.median(after[both])) if n else None,
        "n_above": int((after[both] > 0).sum()),
    }  # fmt: skip


def _rows(result: WalkForwardResult) -> list[dict[str, Any]]:
    counts = [{"n_tested": search.n_tested, "n_points": len(search.table)} for search in result.searches]
    return [
        {str(name): value for name, value in row.items()} | n
        for row, n in zip(result.folds.to_dict("records"), counts, strict=True)
    ]
