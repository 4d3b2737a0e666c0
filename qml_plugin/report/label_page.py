"""The page of patterns to be labelled: a chart each, what is known of it, and the command that labels it."""

from __future__ import annotations

import os
from pathlib import Path

from qml_plugin.errors import DataError
from qml_plugin.report import figures
from qml_plugin.report.document import chart, render, write
from qml_plugin.report.views import PatternsPage


def render_label_page(page: PatternsPage) -> str:
    """One self-contained HTML file with a chart a pattern: nothing is fetched from anywhere.

    Parameters
    ----------
    page : PatternsPage
        At least one pattern, and a command for each. Text from outside is escaped wherever it appears.

    Returns
    -------
    str
        The whole document.

    Point in time
    -------------
    Draws all that the views hold, and marks what a decision could not see.

    Raises
    ------
    DataError
        If there is no pattern, or not a command for each.
    """
    if not page.patterns or len(page.patterns) != len(page.commands):
        raise DataError(
            f"the page has {len(page.patterns)} patterns and {len(page.commands)} commands. It needs at least one pattern, "
            "and one command for each."
        )
    charts = [
        chart(f"pattern-{i}", f"{view.title}: bars around the decision", figures.pattern_figure(view))
        for i, view in enumerate(page.patterns, 1)
    ]
    return render("label.html.j2", page=page, items=list(zip(page.patterns, page.commands, charts, strict=True)))


def write_label_page(page: PatternsPage, path: str | os.PathLike[str]) -> Path:
    """Absolute path of the written page; an earlier file there is replaced whole, or not at all.

    Parameters
    ----------
    page : PatternsPage
        What to show.
    path : path
        Where; its folder must exist.

    Raises
    ------
    DataError
        As `render_label_page`; nothing was written.
    OSError
        If the file cannot be written; the earlier file is intact.
    """
    return write(render_label_page(page), path)
