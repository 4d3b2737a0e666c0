"""The page of the setups that a detector found on one series: one chart at a time, chosen from a list."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from qml_plugin.bars import Bars
from qml_plugin.clock import isoformat
from qml_plugin.errors import DataError
from qml_plugin.records import Setup
from qml_plugin.report.document import chart, render, write
from qml_plugin.report.setup_figures import setup_figure
from qml_plugin.report.views import SetupView

_BEFORE_BARS, _AFTER_BARS = 25, 30


def render_setups_page(bars: Bars, setups: Sequence[Setup], n_found: int) -> str:
    """One self-contained HTML file with a chart a setup: nothing is fetched from anywhere.

    Parameters
    ----------
    bars : Bars
        The series that was searched. Its symbol is escaped wherever it appears.
    setups : sequence of Setup
        At least one, each with a point and with prices for stop and target; the first is shown first.
    n_found : int
        How many there are on the series.

    Returns
    -------
    str
        The whole document.

    Point in time
    -------------
    Draws bars after the entry too, for a person's eye, and marks them.

    Raises
    ------
    DataError
        If there is no setup to draw, or one has no points, no stop or no target.
    """
    if not setups:
        raise DataError(f"no setup was found on {bars.symbol} {bars.timeframe}, so there is no page to draw.")
    views = [setup_view(bars, setup) for setup in setups]
    items = [
        (view, chart(f"setup-{i}", f"Setup of {view.when}", setup_figure(view))) for i, view in enumerate(views, 1)
    ]
    return render(
        "setups.html.j2", title=f"Setups on {bars.symbol} {bars.timeframe}", items=items, n_found=n_found, bars=bars
    )


def write_setups_page(bars: Bars, setups: Sequence[Setup], n_found: int, path: str | os.PathLike[str]) -> Path:
    """Absolute path of the written page; an earlier file there is replaced whole, or not at all.

    Parameters
    ----------
    bars, setups, n_found
        As `render_setups_page` takes them.
    path : path
        Where; its folder must exist.

    Raises
    ------
    DataError
        As `render_setups_page`; nothing was written.
    OSError
        If the file cannot be written; the earlier file is intact.
    """
    return write(render_setups_page(bars, setups, n_found), path)


def setup_view(bars: Bars, setup: Setup) -> SetupView:
    """The bars around a setup, and its geometry in rows of them."""
    if not setup.points or setup.stop_px is None or setup.target_px is None:
        raise DataError(
            f"the setup known at bar {setup.known_bar} lacks points, a stop or a target, and cannot be drawn. Pass setups "
            "that have all three."
        )
    block = setup.order_block
    first = max(0, min([point.bar for point in setup.points] + ([block.bar] if block else [])) - _BEFORE_BARS)
    cut = slice(first, setup.known_bar + 1 + _AFTER_BARS)
    return SetupView(
        when=isoformat(int(bars.opened_at[setup.known_bar])),
        pattern_type=setup.pattern_type,
        side=setup.side,
        **{name: getattr(bars, name)[cut] for name in ("opened_at", "open", "high", "low", "close")},
        entry_row=setup.known_bar - first,
        points=tuple((point.bar - first, point.px) for point in setup.points),
        levels=tuple((level.name, level.px, level.bar - first) for level in setup.levels),
        order_block=None if block is None else (block.bar - first, block.low_px, block.high_px),
        entry_px=float(bars.close[setup.known_bar]),
        stop_px=setup.stop_px,
        target_px=setup.target_px,
        validity_score=np.nan if setup.validity_score is None else setup.validity_score,
    )
