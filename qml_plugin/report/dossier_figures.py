"""Charts of a dossier: equity with its regimes, drawdown, nulls, paths, surfaces, and the edge over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from qml_plugin.records import FloatArray
from qml_plugin.report.figures import BLUE, ORANGE, PALE, SLATE, empty_figure, hover_text
from qml_plugin.stats.nulls import NullResult
from qml_plugin.stats.resampling import MonteCarlo
from qml_plugin.vrd.decay import Decay
from qml_plugin.vrd.sensitivity import OneAtATime, Surface

MOST_POINTS = 1_200
_MOST_WRITTEN = 150
_N_HISTOGRAM = 50
# By trend and volatility, as the regimes are coded; the stronger tint is the volatile one.
_REGIME_COLOURS = (
    "rgba(212,106,23,0.12)", "rgba(212,106,23,0.30)", "rgba(100,116,139,0.06)", "rgba(100,116,139,0.22)",
    "rgba(42,122,185,0.12)", "rgba(42,122,185,0.30)",
)  # fmt: skip
_BAND = "rgba(42,122,185,0.16)"


def equity_figure(
    x: Sequence[Any] | NDArray[Any],
    lines: Mapping[str, FloatArray],
    regimes: tuple[Sequence[str], NDArray[np.int8]] | None = None,
    *,
    is_time: bool,
) -> go.Figure:
    """Chart of equities that start at 1, over a ground that is tinted by regime.

    Parameters
    ----------
    x : array of shape (n_bars,)
        Milliseconds UTC where `is_time`, else numbers.
    lines : mapping of str to ndarray of shape (n_bars,)
        The first is drawn solid blue, the others dashed.
    regimes : (names, code), optional
        ``code`` of shape (n_bars,) is a position in the six names, -1 where unknown.
    is_time : bool

    Returns
    -------
    plotly Figure
        Of at most 1,200 points of each line: long ones are thinned evenly, the last bar kept.

    Point in time
    -------------
    Draws all rows given.
    """
    rows = thinned(len(x))
    at = np.asarray(x)[rows]
    figure = empty_figure(height=360)
    if regimes is not None:
        names, code = regimes
        own = code[rows].astype(float)
        own[own < 0] = np.nan
        steps = [
            [(i + edge) / len(_REGIME_COLOURS), colour] for i, colour in enumerate(_REGIME_COLOURS) for edge in (0, 1)
        ]
        figure.add_heatmap(
            x=at, y=[0], z=[own], zmin=-0.5, zmax=len(_REGIME_COLOURS) - 0.5, colorscale=steps, showscale=False, yaxis="y2",
            text=[[escape(names[int(c)]) if np.isfinite(c) else "not known yet" for c in own]],
            hovertemplate="%{text}<extra>regime</extra>",
        )  # fmt: skip
        figure.update_layout(yaxis2={"overlaying": "y", "visible": False, "range": [-0.5, 0.5], "fixedrange": True})
    styles = [
        {"color": BLUE, "width": 1.8},
        {"color": ORANGE, "width": 2, "dash": "5px,3px"},
        {"color": SLATE, "width": 1.4, "dash": "dot"},
    ]
    for (name, values), style in reversed(list(zip(lines.items(), styles, strict=False))):
        figure.add_scatter(
            x=at, y=values[rows], name=name, mode="lines", line=style, hovertemplate="%{y:.3f}<extra>" + escape(name) + "</extra>"
        )  # fmt: skip
    figure.update_layout(hovermode="x unified")
    _time_axis(figure, is_time)
    figure.update_layout(yaxis={"title": {"text": "equity, start = 1"}})
    return figure


def drawdown_figure(x: Sequence[Any] | NDArray[Any], equity: FloatArray, *, is_time: bool) -> go.Figure:
    """Chart of how far equity lies below its highest so far, the start included.

    Parameters
    ----------
    x, is_time
        As for `equity_figure`.
    equity : ndarray of shape (n_bars,)

    Returns
    -------
    plotly Figure
        Long series are thinned to the deepest bar of each stretch.

    Point in time
    -------------
    Draws all rows given.
    """
    fall = drawdown(equity)
    edges = thinned(len(fall) + 1)
    rows = np.array([a + int(fall[a:b].argmin()) for a, b in pairwise(edges.tolist())], dtype=np.int64)
    figure = empty_figure(height=210)
    figure.add_scatter(
        x=np.asarray(x)[rows], y=fall[rows], mode="lines", fill="tozeroy", fillcolor="rgba(212,106,23,0.18)",
        line={"color": ORANGE, "width": 1.2}, hovertemplate="%{y:.1%}<extra>drawdown</extra>",
    )  # fmt: skip
    _time_axis(figure, is_time)
    figure.update_yaxes(title_text="below the highest", tickformat=".2~%")
    return figure


def drawdown(equity: FloatArray) -> FloatArray:
    """Equity over its highest so far, less 1: fractions of shape (n_bars,), 0 or below."""
    return np.asarray(equity / np.maximum(np.maximum.accumulate(equity), 1.0) - 1.0)


def null_figure(null: NullResult, unit: str) -> go.Figure:
    """Histogram of the statistic under the null, with the observed value.

    Parameters
    ----------
    null : NullResult
        With draws.
    unit : str
        Title of the axis.

    Returns
    -------
    plotly Figure
        Bars that count against the strategy, those at or above the observed value, are orange.

    Point in time
    -------------
    Draws all values given.
    """
    draws = null.null_draws[np.isfinite(null.null_draws)]
    edges = np.histogram_bin_edges(np.append(draws, null.statistic), bins=_N_HISTOGRAM)
    counts, _ = np.histogram(draws, bins=edges)
    middle = (edges[:-1] + edges[1:]) / 2
    figure = empty_figure(height=250)
    figure.add_bar(
        x=middle, y=counts, width=np.diff(edges), marker={"color": [ORANGE if m >= null.statistic else SLATE for m in middle], "opacity": 0.7},
        hovertemplate="%{x:.4g}: %{y} draws<extra></extra>",
    )  # fmt: skip
    is_right = null.statistic > (edges[0] + edges[-1]) / 2
    figure.add_vline(x=null.statistic, line={"color": BLUE, "width": 2.5})
    figure.add_annotation(
        x=null.statistic, y=1, yref="paper", text=f"observed, p = {null.p_value:.3g}", showarrow=False,
        xanchor="right" if is_right else "left", xshift=-6 if is_right else 6, yanchor="top", font={"color": BLUE, "size": 12},
    )  # fmt: skip
    figure.update_layout(bargap=0)
    figure.update_xaxes(title_text=escape(unit), nticks=6, zeroline=False, tickformat="~g")
    figure.update_yaxes(title_text="draws", nticks=4)
    return figure


def fan_figure(paths: MonteCarlo, years: float) -> go.Figure:
    """Chart of the equity of resampled paths: the middle, half and nine tenths of them; the line of ruin where it is near.

    Parameters
    ----------
    paths : MonteCarlo
    years : float
        How long the paths are.

    Returns
    -------
    plotly Figure

    Point in time
    -------------
    Draws all rows given.
    """
    x = paths.fan_steps / max(int(paths.fan_steps[-1]), 1) * years * 12
    low, quarter, middle, three, high = paths.fan.T
    figure = empty_figure(height=300)
    for name, a, b in (("nine tenths of paths", low, high), ("half of paths", quarter, three)):
        figure.add_scatter(
            x=np.concatenate([x, x[::-1]]), y=np.concatenate([b, a[::-1]]), mode="lines", fill="toself", fillcolor=_BAND,
            line={"width": 0, "color": BLUE}, name=name, hoverinfo="skip",
        )  # fmt: skip
    figure.add_scatter(
        x=x, y=middle, mode="lines", line={"color": BLUE, "width": 2}, name="middle",
        customdata=np.column_stack([low, high]),
        hovertemplate="month %{x:.1f}: %{y:.3f} (nine tenths: %{customdata[0]:.3f} to %{customdata[1]:.3f})<extra></extra>",
    )  # fmt: skip
    lowest, highest = float(low.min()), float(high.max())
    is_near = lowest - paths.ruin_equity <= 3 * (highest - lowest)  # else it would press the paths flat
    if is_near:
        figure.add_hline(y=paths.ruin_equity, line={"color": ORANGE, "width": 1.5, "dash": "dash"})
    figure.add_annotation(
        x=0, xref="paper", xanchor="left", y=paths.ruin_equity if is_near else 0, yref="y" if is_near else "paper",
        yanchor="bottom", text="ruin" if is_near else f"ruin, at {paths.ruin_equity:g}, lies far below", showarrow=False,
        font={"color": ORANGE, "size": 11},
    )  # fmt: skip
    figure.update_xaxes(title_text="months")
    figure.update_yaxes(title_text="equity, start = 1")
    return figure


def surface_figure(surface: Surface) -> go.Figure:
    """Map of the annual Sharpe ratio of excess over two parameters, its values written in.

    Parameters
    ----------
    surface : Surface

    Returns
    -------
    plotly Figure
        Blue above zero, orange below.

    Point in time
    -------------
    Draws all rows given.
    """
    z = surface.metric
    figure = empty_figure(height=min(520, 130 + 34 * len(z)))
    places = f"{hover_text(surface.x_name)} %{{x}}, {hover_text(surface.y_name)} %{{y}}"
    columns, rows = ([escape(str(v)) for v in _short(values)] for values in (surface.x_values, surface.y_values))
    add_map(
        figure, columns, rows, z, f"{places}<br>mean %{{z:.2f}}, best %{{customdata:.2f}}<extra></extra>", surface.best
    )
    figure.update_xaxes(title_text=escape(surface.x_name), showline=False)
    figure.update_yaxes(title_text=escape(surface.y_name))
    return figure


def add_map(
    figure: go.Figure, columns: Sequence[str], rows: Sequence[str], values: FloatArray, hover: str,
    customdata: FloatArray | None = None,
) -> None:  # fmt: skip
    """Draw a number by row and column, blue above zero and orange below, written in where there is room.

    Names and the template of hover are escaped by the caller; NaN leaves a hole.
    """
    reach = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
    is_written = values.size <= _MOST_WRITTEN
    text = [[f"{value:.2f}" if np.isfinite(value) else "" for value in row] for row in values]
    figure.add_heatmap(
        x=columns, y=rows, z=values, zmin=-reach or -1, zmax=reach or 1, xgap=2, ygap=2, showscale=not is_written,
        colorscale=[[0, ORANGE], [0.5, PALE], [1, BLUE]], text=text if is_written else None,
        texttemplate="%{text}" if is_written else None, textfont={"size": 11}, customdata=customdata, hovertemplate=hover,
        hoverongaps=False,
    )  # fmt: skip
    figure.update_xaxes(type="category")
    figure.update_yaxes(type="category")


def moves_figure(moves: Sequence[OneAtATime], centre: float) -> go.Figure:
    """Chart of the annual Sharpe ratio when one parameter alone is moved.

    Parameters
    ----------
    moves : sequence of OneAtATime
    centre : float
        The ratio where none is moved.

    Returns
    -------
    plotly Figure
        A row for each parameter: the choice as a line, each move as a dot.

    Point in time
    -------------
    Draws all rows given.
    """
    figure = empty_figure(height=90 + 30 * len(moves))
    for move in reversed(moves):
        values, changes = np.asarray(move.values), np.asarray(move.change_frac)
        figure.add_scatter(
            x=move.metric, y=[escape(move.name)] * len(values), mode="markers", name=escape(move.name),
            marker={
                "size": 9, "color": [BLUE if change > 0 else SLATE for change in changes],
                "symbol": ["triangle-right" if change > 0 else "triangle-left" for change in changes],
            },
            customdata=np.column_stack([values, changes]),
            hovertemplate="%{y} = %{customdata[0]:.4g} (%{customdata[1]:+.0%}): %{x:.2f}<extra></extra>",
        )  # fmt: skip
    figure.add_vline(x=centre, line={"color": ORANGE, "width": 1.5, "dash": "dash"})
    figure.update_xaxes(title_text="annual Sharpe ratio of the excess", zeroline=True, zerolinecolor=SLATE)
    figure.update_yaxes(type="category")
    return figure


def decay_figure(decay: Decay, x: NDArray[Any], per_year: float, *, is_time: bool) -> go.Figure:
    """Chart of the mean result of overlapping windows, a year of it, with 90 % intervals.

    Parameters
    ----------
    decay : Decay
    x : ndarray of shape (n_bars,)
        As for `equity_figure`; a window stands at its last bar.
    per_year : float
        Results a year.
    is_time : bool

    Returns
    -------
    plotly Figure

    Point in time
    -------------
    Draws all rows given.
    """
    at = x[decay.end_bar]
    mean, low, high = (values * per_year for values in (decay.mean, decay.low, decay.high))
    figure = empty_figure(height=260)
    figure.add_scatter(
        x=np.concatenate([at, at[::-1]]), y=np.concatenate([high, low[::-1]]), fill="toself", mode="lines", fillcolor=_BAND,
        line={"width": 0, "color": BLUE}, hoverinfo="skip",
    )  # fmt: skip
    figure.add_scatter(
        x=at, y=mean, mode="lines+markers", line={"color": BLUE, "width": 1.8}, hovertemplate="%{y:+.1%} a year<extra></extra>"
    )  # fmt: skip
    figure.update_yaxes(
        title_text="excess a year", tickformat="+.2~%", zeroline=True, zerolinecolor=SLATE, zerolinewidth=1
    )
    _time_axis(figure, is_time)
    return figure


def thinned(n: int) -> NDArray[np.int64]:
    """Positions of at most `MOST_POINTS` rows of n, evenly apart, the first and the last among them."""
    return np.unique(np.linspace(0, n - 1, min(n, MOST_POINTS)).round().astype(np.int64))


def _time_axis(figure: go.Figure, is_time: bool) -> None:
    if is_time:
        figure.update_xaxes(type="date", nticks=5, tickangle=0)
    else:
        figure.update_xaxes(title_text="result, in order of time", nticks=6)


def _short(values: Sequence[Any]) -> list[Any]:
    return [float(f"{v:.4g}") if isinstance(v, float) else v for v in values]
