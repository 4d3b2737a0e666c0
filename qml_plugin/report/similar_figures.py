"""Charts of past patterns laid on one another: their prices around the entry, the fan of them, their R multiples."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import plotly.graph_objects as go

from qml_plugin.clock import isoformat
from qml_plugin.report import words
from qml_plugin.report.figures import BLUE, ORANGE, SLATE, empty_figure, hover_text
from qml_plugin.report.views import AnswerView, PastView, PathView

_MOVE = "move in the entry's favour (ATR)"
_BARS = "bars after the decision"
_BANDS = ((0, 4, "10 to 90 %", "rgba(42,122,185,0.16)"), (1, 3, "25 to 75 %", "rgba(42,122,185,0.30)"))
_MOST_R = 10.0
_N_BINS = 24


def paths_figure(answer: AnswerView, before: PathView | None) -> go.Figure:
    """Chart of the neighbours' closes aligned at the decision: thin before it, blue (win) or dashed orange (loss) after it.

    Parameters
    ----------
    answer : AnswerView
        With at least one path.
    before : PathView, optional
        The path up to the decision of the pattern asked about, drawn heavy.

    Returns
    -------
    plotly Figure
        A diamond marks the bar at which a neighbour's outcome became known.

    Point in time
    -------------
    Draws all rows given.
    """
    figure = empty_figure(height=400)
    for past in answer.neighbours:
        if past.path is not None:
            _draw_path(figure, past, past.path)
    if before is not None:
        figure.add_scatter(
            x=np.arange(before.first_bar, 1), y=before.before, mode="lines", name="asked about", line={"color": SLATE, "width": 3},
            hovertemplate="asked about<br>bar %{x}: %{y:+.2f} ATR<extra></extra>",
        )  # fmt: skip
    _entry_line(figure)
    figure.update_xaxes(title_text=_BARS)
    figure.update_yaxes(title_text=_MOVE)
    return figure


def fan_figure(answer: AnswerView) -> go.Figure:
    """Chart of the quantiles of the neighbours' moves by bar after the decision.

    Parameters
    ----------
    answer : AnswerView
        With a fan.

    Returns
    -------
    plotly Figure
        Bands of 10 to 90 % and 25 to 75 %, and the median.

    Point in time
    -------------
    Draws all rows given.
    """
    figure = empty_figure(height=340)
    is_there = np.isfinite(answer.fan[2])
    bars, fan, n_paths = np.flatnonzero(is_there), answer.fan[:, is_there], answer.n_paths[is_there]
    for low, high, name, colour in _BANDS:
        figure.add_scatter(
            x=np.concatenate([bars, bars[::-1]]), y=np.concatenate([fan[high], fan[low][::-1]]), mode="lines", name=name,
            fill="toself", fillcolor=colour, line={"width": 0, "color": BLUE}, hoverinfo="skip",
        )  # fmt: skip
    figure.add_scatter(
        x=bars, y=fan[2], mode="lines", name="median", line={"color": BLUE, "width": 2.2},
        customdata=np.column_stack([fan[[0, 1, 3, 4]].T, n_paths]),
        hovertemplate=(
            "bar %{x}, %{customdata[4]:.0f} paths<br>90 &#37; %{customdata[3]:+.2f}<br>75 &#37; %{customdata[2]:+.2f}"
            "<br>median %{y:+.2f}<br>25 &#37; %{customdata[1]:+.2f}<br>10 &#37; %{customdata[0]:+.2f}<extra></extra>"
        ),
    )  # fmt: skip
    _entry_line(figure)
    figure.update_xaxes(title_text=_BARS)
    figure.update_yaxes(title_text=_MOVE)
    return figure


def r_figure(answer: AnswerView) -> go.Figure:
    """Chart of the share of R multiples in each bin: of all that were eligible as bars, of the neighbours as a line.

    Parameters
    ----------
    answer : AnswerView
        With at least one R multiple; those beyond 10 are counted as 10.

    Returns
    -------
    plotly Figure
        Bins of equal width, shares of each group.

    Point in time
    -------------
    Draws all rows given.
    """
    nearest = np.array([past.r_multiple for past in answer.neighbours])
    groups = [np.clip(r[np.isfinite(r)], -_MOST_R, _MOST_R) for r in (answer.eligible_r, nearest)]
    edges = np.histogram_bin_edges(np.concatenate(groups), _N_BINS)
    shares = [np.histogram(r, edges)[0] / max(len(r), 1) for r in groups]
    spans = [f"{low:+.2f} to {high:+.2f} R" for low, high in pairwise(edges.tolist())]
    figure = empty_figure(height=340)
    figure.add_bar(
        x=(edges[:-1] + edges[1:]) / 2, y=shares[0], width=0.94 * np.diff(edges), name="all eligible", customdata=spans,
        marker={"color": "rgba(100,116,139,0.45)", "line": {"width": 0}},
        hovertemplate="%{customdata}<br>%{y:.1%} of all eligible<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=np.repeat(edges, 2)[1:-1], y=np.repeat(shares[1], 2), mode="lines", name="nearest", line={"color": BLUE, "width": 2.2},
        customdata=np.repeat(spans, 2), hovertemplate="%{customdata}<br>%{y:.1%} of the nearest<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title_text="R multiple", zeroline=True, zerolinecolor=SLATE, zerolinewidth=1)
    figure.update_yaxes(title_text="share", tickformat=".0%", rangemode="tozero")
    return figure


def _draw_path(figure: go.Figure, past: PastView, path: PathView) -> None:
    """One neighbour: before and after the decision, and the bar at which its outcome became known."""
    colour, dash = (BLUE, "solid") if past.is_win else (ORANGE, "4px,2px")
    told = f"{past.symbol} {past.timeframe}, {isoformat(past.detection_at)}, {words.win_word(past.is_win)}"
    hover = hover_text(told) + "<br>bar %{x}: %{y:+.2f} ATR<extra></extra>"
    figure.add_scatter(
        x=np.arange(path.first_bar, 1), y=path.before, mode="lines", name="before", hovertemplate=hover,
        line={"color": "rgba(100,116,139,0.55)", "width": 0.8},
    )  # fmt: skip
    figure.add_scatter(
        x=np.arange(path.last_bar + 1), y=path.after, mode="lines", name=words.win_word(past.is_win), hovertemplate=hover,
        line={"color": colour, "width": 1.6, "dash": dash},
    )  # fmt: skip
    if path.exit_bar is not None:
        figure.add_scatter(
            x=[path.exit_bar], y=[path.after[path.exit_bar]], mode="markers", name="exit", hovertemplate=hover,
            marker={"symbol": "diamond", "size": 8, "color": colour, "line": {"color": "#ffffff", "width": 1}},
        )  # fmt: skip


def _entry_line(figure: go.Figure) -> None:
    figure.update_yaxes(zeroline=True, zerolinecolor=SLATE, zerolinewidth=1)
    figure.add_shape(
        type="line", x0=0, x1=0, y0=0, y1=1, yref="paper", line={"color": SLATE, "width": 1, "dash": "dot"}
    )
