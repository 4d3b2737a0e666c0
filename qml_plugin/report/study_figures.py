"""Charts of a study: a number by strategy and market, and what a search found over its first parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

from qml_plugin.records import FloatArray
from qml_plugin.report.figures import empty_figure

_SCALE = [[0, "#d46a17"], [0.5, "#eef1f5"], [1, "#2a7ab9"]]
_MOST_WRITTEN = 150


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
    _add_map(figure, columns, rows[::-1], values[::-1], f"%{{y}}, %{{x}}<br>{_plain(unit)} %{{z:.2f}}<extra></extra>")
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
    places = f"{_plain(x_name)} %{{x}}" + (f", {_plain(y_name)} %{{y}}" if y_name else "")
    hover = f"{places}<br>{_plain(objective)} %{{z:.3f}}<extra></extra>"
    _add_map(figure, [_short(v) for v in surface["x_values"]], [_short(v) for v in surface["y_values"]], values, hover)
    figure.update_xaxes(title_text=escape(x_name), showline=False)
    figure.update_yaxes(title_text=escape(y_name), showticklabels=bool(y_name))
    return figure


def _add_map(figure: go.Figure, columns: Sequence[str], rows: Sequence[str], values: FloatArray, hover: str) -> None:
    reach = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
    is_written = values.size <= _MOST_WRITTEN
    text = [[f"{value:.2f}" if np.isfinite(value) else "" for value in row] for row in values]
    figure.add_heatmap(
        x=[escape(name) for name in columns], y=[escape(name) for name in rows], z=values, zmin=-reach or -1, zmax=reach or 1,
        xgap=2, ygap=2, showscale=not is_written, colorscale=_SCALE, text=text if is_written else None,
        texttemplate="%{text}" if is_written else None, textfont={"size": 11}, hovertemplate=hover, hoverongaps=False,
    )  # fmt: skip
    figure.update_xaxes(type="category")
    figure.update_yaxes(type="category")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(name: str) -> str:
    """A name that plotly takes as text, in a template of hover."""
    return escape(name).replace("%", "&#37;")
