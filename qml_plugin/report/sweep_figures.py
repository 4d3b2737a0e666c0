"""Charts of searches: a metric over one parameter or two, over all points, and window by window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from qml_plugin.records import FloatArray
from qml_plugin.report.dossier_figures import thinned
from qml_plugin.report.figures import BLUE, ORANGE, PALE, SLATE, empty_figure, hover_text

_MOST_WRITTEN = 150
_N_HISTOGRAM = 40
_BAND, _SHADE, _FAILED = "rgba(42,122,185,0.16)", "rgba(100,116,139,0.10)", "rgba(212,106,23,0.20)"
# The first of the points that are marked, and the second; a white rim keeps them apart from any ground.
_MARKS = ({"symbol": "circle-open", "size": 22}, {"symbol": "diamond-open", "size": 17})


def heat_map_figure(
    values: pd.DataFrame, name: str, *, low: pd.DataFrame | None = None, n_failed: pd.DataFrame | None = None,
    marks: Mapping[str, tuple[Any, Any]] | None = None,
) -> go.Figure:  # fmt: skip
    """Map of a metric over two parameters, its values written in where there is room.

    Parameters
    ----------
    values : DataFrame
        A row and a column for each value of the two parameters, which name its axes; NaN leaves a hole.
    name : str
        Of the metric.
    low : DataFrame, optional
        The lowest value of those that a place stands for, said when it is pointed at.
    n_failed : DataFrame, optional
        How many points failed at each place; those places get a cross.
    marks : mapping of str to (row, column), optional
        Two places at most that are ringed, by name.

    Returns
    -------
    plotly Figure
        Blue is better. Where all values have one sign the palest is the one nearest to zero.

    Point in time
    -------------
    Draws all values given.
    """
    z = values.to_numpy(np.float64)
    rows, columns = labels(values.index), labels(values.columns)
    n_rows, n_columns = z.shape
    is_written = n_rows * n_columns <= _MOST_WRITTEN and n_columns <= 12
    figure = empty_figure(height=min(560, 130 + 36 * n_rows))
    x_name, y_name = hover_text(str(values.columns.name)), hover_text(str(values.index.name))
    hover = f"{y_name} %{{y}}, {x_name} %{{x}}<br>{hover_text(name)} %{{z:.4g}}"
    figure.add_heatmap(
        x=columns, y=rows, z=z, xgap=2, ygap=2, showscale=not is_written, **_colours(z),
        colorbar={"thickness": 12, "outlinewidth": 0, "tickfont": {"color": SLATE}},
        text=[[f"{v:.3g}" if np.isfinite(v) else "" for v in row] for row in z] if is_written else None,
        texttemplate="%{text}" if is_written else None, textfont={"size": 11}, hoverongaps=False,
        customdata=None if low is None else low.to_numpy(np.float64),
        hovertemplate=hover + ("" if low is None else ", lowest %{customdata:.4g}") + "<extra></extra>",
    )  # fmt: skip
    if n_failed is not None and (found := np.argwhere(n_failed.to_numpy() > 0)).size:
        figure.add_scatter(
            x=[columns[at] for _, at in found], y=[rows[at] for at, _ in found], mode="markers", name="failed",
            marker={"symbol": "x", "size": 11, "color": ORANGE, "line": {"color": "#ffffff", "width": 1.5}},
            customdata=n_failed.to_numpy(np.int64)[tuple(found.T)],
            hovertemplate=f"{y_name} %{{y}}, {x_name} %{{x}}<br>%{{customdata}} failed<extra></extra>",
        )  # fmt: skip
    for (what, (row, column)), style in zip((marks or {}).items(), _MARKS, strict=False):
        place = {"x": [columns[_place(values.columns, column)]], "y": [rows[_place(values.index, row)]]}
        for colour, width in (("#ffffff", 5.5), ("#1e293b", 2.5)):
            figure.add_scatter(
                **place, mode="markers", name=escape(what), hoverinfo="skip",
                marker={**style, "color": colour, "line": {"width": width, "color": colour}},
            )  # fmt: skip
    axis = {"type": "category", "categoryorder": "array", "showline": False}
    figure.update_xaxes(title_text=escape(str(values.columns.name)), categoryarray=columns, nticks=14, **axis)
    figure.update_yaxes(title_text=escape(str(values.index.name)), categoryarray=rows, nticks=24, **axis)
    return figure


def profile_figure(
    values: pd.DataFrame, name: str, *, is_ordered: bool, marks: Mapping[str, Any] | None = None
) -> go.Figure:
    """Chart of a metric over one parameter.

    Parameters
    ----------
    values : DataFrame
        Index: the values of the parameter, which names it. Columns ``mean``, ``low``, ``high`` of the points there, NaN
        where none has a value, and ``n_failed``.
    name : str
        Of the metric.
    is_ordered : bool
        Whether the values are numbers.
    marks : mapping of str to value, optional
        Two values at most that are marked, by name.

    Returns
    -------
    plotly Figure
        A line, a band from the lowest to the highest where points differ in other parameters, and a cross at the foot for
        points that failed.

    Point in time
    -------------
    Draws all values given.
    """
    x: list[Any] = [float(value) for value in values.index] if is_ordered else labels(values.index)
    mean, low, high = (values[column].to_numpy(np.float64) for column in ("mean", "low", "high"))
    figure = empty_figure(height=320)
    if is_ordered and np.nanmax(np.append(high - low, 0.0)) > 0:
        known = np.isfinite(low)
        at = np.asarray(x)[known]
        figure.add_scatter(
            x=np.concatenate([at, at[::-1]]), y=np.concatenate([high[known], low[known][::-1]]), mode="lines", fill="toself",
            fillcolor=_BAND, line={"width": 0, "color": BLUE}, hoverinfo="skip", name="lowest to highest",
        )  # fmt: skip
    figure.add_scatter(
        x=x, y=mean, mode="lines+markers" if is_ordered else "markers", line={"color": BLUE, "width": 1.8},
        marker={"size": 7, "color": BLUE}, name=escape(name), connectgaps=False,
        hovertemplate=f"{hover_text(str(values.index.name))} %{{x}}<br>{hover_text(name)} %{{y:.4g}}<extra></extra>",
    )  # fmt: skip
    known = np.append(mean, low)[np.isfinite(np.append(mean, low))]
    foot = float(known.min()) if len(known) else 0.0
    is_failed = values["n_failed"].to_numpy() > 0
    if is_failed.any():
        figure.add_scatter(
            x=[value for value, failed in zip(x, is_failed, strict=True) if failed], y=[foot] * int(is_failed.sum()),
            mode="markers", name="failed", marker={"symbol": "x", "size": 10, "color": ORANGE},
            customdata=values["n_failed"].to_numpy()[is_failed],
            hovertemplate=f"{hover_text(str(values.index.name))} %{{x}}<br>%{{customdata}} failed<extra></extra>",
        )  # fmt: skip
    for (what, value), style in zip((marks or {}).items(), _MARKS, strict=False):
        at_row = _place(values.index, value)
        if np.isfinite(mean[at_row]):
            figure.add_scatter(
                x=[x[at_row]], y=[mean[at_row]], mode="markers", name=escape(what), hoverinfo="skip",
                marker={**style, "color": SLATE, "line": {"width": 2.5, "color": SLATE}},
            )  # fmt: skip
    figure.update_xaxes(
        title_text=escape(str(values.index.name)), **({"nticks": 8} if is_ordered else {"type": "category"})
    )
    figure.update_yaxes(title_text=escape(name), zeroline=True, zerolinecolor=SLATE, zerolinewidth=1)
    return figure


def objective_figure(values: FloatArray, name: str, marks: Mapping[str, float]) -> go.Figure:
    """Histogram of a metric over all points, with some of them marked.

    Parameters
    ----------
    values : ndarray of shape (n_points,)
        At least one finite.
    name : str
        Of the metric.
    marks : mapping of str to float
        Two at most: the first is drawn as a solid line, the second as a dashed one.

    Returns
    -------
    plotly Figure

    Point in time
    -------------
    Draws all values given.
    """
    known = values[np.isfinite(values)]
    edges = np.histogram_bin_edges(known, bins=min(_N_HISTOGRAM, max(5, len(known) // 3)))
    counts, _ = np.histogram(known, bins=edges)
    figure = empty_figure(height=280)
    figure.add_bar(
        x=(edges[:-1] + edges[1:]) / 2, y=counts, width=np.diff(edges), marker={"color": SLATE, "opacity": 0.6},
        customdata=np.column_stack([edges[:-1], edges[1:]]),
        hovertemplate="%{customdata[0]:.4g} to %{customdata[1]:.4g}: %{y} points<extra></extra>",
    )  # fmt: skip
    middle = (edges[0] + edges[-1]) / 2
    for row, ((what, value), (colour, dash)) in enumerate(zip(marks.items(), ((BLUE, "solid"), (ORANGE, "dash")), strict=False)):  # fmt: skip
        is_right = value > middle
        figure.add_vline(x=value, line={"color": colour, "width": 2.2, "dash": dash})
        figure.add_annotation(
            x=value, y=1, yref="paper", yshift=-16 * row, text=f"{escape(what)} {value:.3g}", showarrow=False, yanchor="top",
            xanchor="right" if is_right else "left", xshift=-6 if is_right else 6, font={"color": colour, "size": 12},
        )  # fmt: skip
    figure.update_layout(bargap=0)
    figure.update_xaxes(title_text=escape(name), nticks=8, tickformat="~g")
    figure.update_yaxes(title_text="points", nticks=4)
    return figure


def windows_figure(equity: pd.Series, edges: Sequence[int], is_failed: Sequence[bool]) -> go.Figure:
    """Chart of a stitched equity over its windows, every second of which is shaded.

    Parameters
    ----------
    equity : Series
        In money, over UTC times or times of a zone.
    edges : sequence of int
        Where each window begins in it.
    is_failed : sequence of bool
        Windows in which nothing was traded because something failed; they are orange.

    Returns
    -------
    plotly Figure
        Of at most 1,200 points, and the first of each window.

    Point in time
    -------------
    Draws all rows given.
    """
    x = milliseconds(equity.index)
    rows = np.unique(np.concatenate([thinned(len(equity)), np.asarray(edges, np.int64)]))
    figure = empty_figure(height=360)
    for number, (begin, failed) in enumerate(zip(edges, is_failed, strict=True)):
        end = edges[number + 1] if number + 1 < len(edges) else len(equity) - 1
        if failed or number % 2:
            figure.add_shape(
                type="rect", x0=x[begin], x1=x[end], y0=0, y1=1, yref="paper", layer="below", line={"width": 0},
                fillcolor=_FAILED if failed else _SHADE,
            )  # fmt: skip
    figure.add_scatter(
        x=x[rows], y=equity.to_numpy(np.float64)[rows], mode="lines", line={"color": BLUE, "width": 1.8}, name="equity",
        hovertemplate="%{y:,.2f}<extra></extra>",
    )  # fmt: skip
    figure.update_layout(hovermode="x unified")
    figure.update_xaxes(type="date", nticks=5, tickangle=0)
    figure.update_yaxes(title_text="equity (money)", tickformat=",~f")
    return figure


def in_and_out_figure(in_sample: FloatArray, out_of_sample: FloatArray, name: str) -> go.Figure:
    """Bars of a metric in each training window beside the one of the test window that followed.

    Parameters
    ----------
    in_sample, out_of_sample : ndarray of shape (n_windows,)
        NaN leaves a gap.
    name : str
        Of the metric.

    Returns
    -------
    plotly Figure
        Grey before, blue after.

    Point in time
    -------------
    Draws all values given.
    """
    windows = np.arange(1, len(in_sample) + 1)
    figure = empty_figure(height=300)
    for what, values, colour, opacity in (("in sample", in_sample, SLATE, 0.55), ("out of sample", out_of_sample, BLUE, 1.0)):  # fmt: skip
        figure.add_bar(
            x=windows, y=values, name=what, marker={"color": colour, "opacity": opacity},
            hovertemplate="window %{x}: %{y:.3g}<extra>" + what + "</extra>",
        )  # fmt: skip
    figure.update_layout(barmode="group", bargap=0.3, bargroupgap=0.05)
    figure.update_xaxes(title_text="window", nticks=min(12, len(windows) + 1), tickformat="d")
    figure.update_yaxes(title_text=escape(name), zeroline=True, zerolinecolor=SLATE, zerolinewidth=1)
    return figure


def choices_figure(name: str, tried: Sequence[Any], chosen: Sequence[Any]) -> go.Figure:
    """Chart of the value of one parameter that was chosen in each window.

    Parameters
    ----------
    name : str
        Of the parameter.
    tried : sequence
        Its values in the grid, in order.
    chosen : sequence
        One a window; None where nothing was chosen.

    Returns
    -------
    plotly Figure
        All values that were tried on the axis, so that wandering is seen against the room there was.

    Point in time
    -------------
    Draws all values given.
    """
    texts = labels(tried)
    values = list(tried)
    at = [None if value is None else texts[values.index(value)] for value in chosen]
    figure = empty_figure(height=min(320, 110 + 22 * len(texts)))
    figure.add_scatter(
        x=np.arange(1, len(at) + 1), y=at, mode="lines+markers", line={"color": BLUE, "width": 1.4, "shape": "hv"},
        marker={"size": 7, "color": BLUE}, connectgaps=False, hovertemplate="window %{x}: %{y}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title_text="window", nticks=min(12, len(at) + 1), tickformat="d")
    figure.update_yaxes(
        title_text=escape(name), type="category", categoryorder="array", categoryarray=texts, nticks=12,
        range=[-0.5, len(texts) - 0.5],
    )  # fmt: skip
    return figure


def milliseconds(times: Any) -> FloatArray:
    """Times of an index as plotly's numeric dates."""
    return pd.DatetimeIndex(times).as_unit("ms").asi8.astype(np.float64)


def labels(values: Any) -> list[str]:
    """Values as short texts, no two alike, that plotly takes as text."""
    short = [escape(f"{value:.5g}" if isinstance(value, float) else str(value)) for value in values]
    return short if len(set(short)) == len(short) else [escape(repr(value)) for value in values]


def _place(values: Any, value: Any) -> int:
    return list(values).index(value)


def _colours(z: FloatArray) -> dict[str, Any]:
    """Range and scale: from orange over pale to blue about zero, or the half of it that is in use."""
    known = z[np.isfinite(z)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (-1.0, 1.0)
    if low == high:
        low, high = low - (abs(low) or 1.0), high + (abs(high) or 1.0)
    if low < 0 < high:
        reach = max(-low, high)
        return {"zmin": -reach, "zmax": reach, "colorscale": [[0, ORANGE], [0.5, PALE], [1, BLUE]]}
    scale = [[0, PALE], [1, BLUE]] if low >= 0 else [[0, ORANGE], [1, PALE]]
    return {"zmin": low, "zmax": high, "colorscale": scale}
