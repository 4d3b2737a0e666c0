"""Charts of a study: a number by strategy and market, and what a search found over its first parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

from qml_plugin.records import FloatArray
from qml_plugin.report.dossier_figures import add_map
from qml_plugin.report.figures import empty_figure, hover_text
from qml_plugin.report.sweep_figures import labels


def matrix_figure(rows: Sequence[str], columns: Sequence[str], values: FloatArray, unit: str) -> go.Figure:
    """Map of a number by strategy (rows) and market (columns), its values written in.

    Parameters
    ----------
    rows, columns : sequence of str
    values : ndarray of shape (n_rows, n_columns)
        NaN where a cell has none: it stays empty.
    unit : str
        What the number is.

    Returns
    -------
    plotly Figure
        Blue above zero, orange below.

    Point in time
    -------------
    Draws all rows given.
    """
    figure = empty_figure(height=min(900, 110 + 36 * len(rows)))
    strategies, markets = ([escape(name) for name in names] for names in (rows[::-1], columns))
    add_map(
        figure, markets, strategies, values[::-1], f"%{{y}}, %{{x}}<br>{hover_text(unit)} %{{z:.2f}}<extra></extra>"
    )
    figure.update_xaxes(side="top", showline=False)
    return figure


def search_figure(surface: Mapping[str, Any], objective: str) -> go.Figure:
    """Map of the objective of a search over two parameters, the mean over the others; one parameter alone is a row.

    Parameters
    ----------
    surface : mapping
        ``x_name``, ``y_name`` (empty for one parameter), ``x_values``, ``y_values``, and ``values`` of shape (n_y, n_x) with
        None where no point finished.
    objective : str

    Returns
    -------
    plotly Figure
        Blue above zero, orange below.

    Point in time
    -------------
    Draws all rows given.
    """
    values = np.array(surface["values"], dtype=np.float64)
    figure = empty_figure(height=min(520, 120 + 34 * len(values)))
    x_name, y_name = surface["x_name"], surface["y_name"]
    places = f"{hover_text(x_name)} %{{x}}" + (f", {hover_text(y_name)} %{{y}}" if y_name else "")
    hover = f"{places}<br>{hover_text(objective)} %{{z:.3f}}<extra></extra>"
    add_map(figure, labels(surface["x_values"]), labels(surface["y_values"]), values, hover)
    figure.update_xaxes(title_text=escape(x_name), showline=False)
    figure.update_yaxes(title_text=escape(y_name), showticklabels=bool(y_name))
    return figure
