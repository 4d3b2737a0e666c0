"""The page's charts: records in, plotly figures out. Names from outside are escaped, for plotly reads tags in text."""

from __future__ import annotations

import math
from html import escape
from itertools import pairwise

import numpy as np
import plotly.graph_objects as go

from qml_plugin.clock import isoformat, to_datetime
from qml_plugin.errors import DataError
from qml_plugin.records import IntArray
from qml_plugin.report import words
from qml_plugin.report.reliability import ReliabilityBin
from qml_plugin.report.views import DecisionCard, EntryView, EquityView, FeatureView, PatternView, SetupView

BLUE, ORANGE, SLATE, PALE = "#2a7ab9", "#d46a17", "#64748b", "#eef1f5"
_GRID, _INK = "#e5e9ef", "#475569"
_CLEAR = "rgba(0,0,0,0)"
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
_N_TICKS = 5
_DAY_US = 86_400_000_000
_BAR_ROW_PX = 26
_NEAR_THE_END = 0.93  # where a word in the middle of its bar would be cut off
_LEVEL_REACH = 8  # bars that a level goes back from a decision with nothing after it


def equity_figure(view: EquityView) -> go.Figure:
    """Chart of the money over time, with the gate (solid blue) and without it (dashed orange).

    Parameters
    ----------
    view : EquityView
        One pair of runs; both equities in money, one value a bar, NaN leaves a gap.

    Returns
    -------
    plotly Figure
        Two lines over UTC time.

    Point in time
    -------------
    Draws all rows given.

    Raises
    ------
    DataError
        If the lengths differ.
    """
    if not len(view.opened_at) == len(view.with_gate) == len(view.without_gate):
        raise DataError(
            f"equity {view.title!r} has {len(view.opened_at)} times, {len(view.with_gate)} values with and "
            f"{len(view.without_gate)} without the gate. Each bar needs one of each."
        )
    figure = empty_figure(height=270)
    lines = (
        ("without gate", view.without_gate, {"color": ORANGE, "width": 2.6, "dash": "5px,3px"}),
        ("with gate", view.with_gate, {"color": BLUE, "width": 1.7}),
    )
    for name, equity, line in lines:
        figure.add_scatter(x=_milliseconds(view.opened_at), y=equity, name=name, mode="lines", line=line)
    figure.update_traces(hovertemplate="%{y:,.2f}")
    figure.update_layout(hovermode="x unified")
    figure.update_xaxes(type="date", nticks=3, tickangle=0)
    figure.update_yaxes(title_text="equity (money)", tickformat=",~f")
    return figure


def reliability_figure(bins: tuple[ReliabilityBin, ...]) -> go.Figure:
    """Chart of the share that won over the confidence given, with 95 % intervals and the diagonal.

    Parameters
    ----------
    bins : tuple of ReliabilityBin
        At least one.

    Returns
    -------
    plotly Figure
        Square axes, both 0 to 100 %.

    Point in time
    -------------
    Draws all rows given.
    """
    figure = empty_figure(height=340)
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", name="perfect", line={"color": SLATE, "width": 1, "dash": "dot"},
        hoverinfo="skip",
    )  # fmt: skip
    share = np.array([b.win_share for b in bins])
    figure.add_scatter(
        x=[b.confidence for b in bins],
        y=share,
        name="observed",
        mode="lines+markers",
        line={"color": BLUE, "width": 1.5},
        marker={"size": 8, "color": BLUE},
        error_y={
            "type": "data", "symmetric": False, "array": np.array([b.high for b in bins]) - share,
            "arrayminus": share - np.array([b.low for b in bins]), "color": BLUE, "thickness": 1.2, "width": 3,
        },
        customdata=[[b.n, b.low, b.high] for b in bins],
        hovertemplate=(
            "confidence %{x:.1%}<br>won %{y:.1%} (95 %: %{customdata[1]:.1%} to %{customdata[2]:.1%})"
            "<br>n = %{customdata[0]}<extra></extra>"
        ),
    )  # fmt: skip
    share_axis = {"range": [-0.02, 1.02], "tickformat": ".0%", "dtick": 0.25}
    figure.update_xaxes(title_text="confidence given beforehand", **share_axis)
    figure.update_yaxes(title_text="share that won", **share_axis)
    return figure


def candles_figure(card: EntryView) -> go.Figure:
    """Candlestick chart around one entry, with its plan, its setup and its exit; what came later is shaded.

    Bars stand side by side by position, so nights and weekends leave no gap. Rising bars are hollow, falling filled.

    Parameters
    ----------
    card : EntryView
        The entry; prices in price units.

    Returns
    -------
    plotly Figure
        The shade begins after the decision bar, which is the last bar not later than ``detection_at``.

    Point in time
    -------------
    Draws all rows given, and marks those that the decision could not see.

    Raises
    ------
    DataError
        If the bar columns differ in length, or the entry or exit lies outside them.
    """
    _check_card(card)
    n_bars, decision_row = len(card.open), _decision_row(card)
    last_row = n_bars - 1 if card.exit_row is None else card.exit_row
    figure = empty_figure(height=420)
    draw_candles(figure, card)
    for name, price, colour, dash in (("stop", card.stop_px, ORANGE, "dash"), ("target", card.target_px, BLUE, "dot")):
        if math.isfinite(price):
            is_above = (name == "target") == (card.side > 0)
            _level(figure, name, price, colour, dash, _span(decision_row, last_row), is_above)
    _setup(figure, card)
    _markers(figure, card)
    if decision_row + 1 < n_bars:
        shade_future(figure, decision_row + 0.5, n_bars - 0.5)
    time_axis(figure, card)
    figure.update_yaxes(title_text="price")
    return figure


def pattern_figure(view: PatternView) -> go.Figure:
    """Chart of a pattern to be labelled: as `candles_figure`, or its setup and its levels alone where there are no bars.

    Parameters
    ----------
    view : PatternView
        Prices in price units.

    Returns
    -------
    plotly Figure
        Without bars, positions count the bars before the decision.

    Point in time
    -------------
    Draws all that the view holds, and marks what the decision could not see.

    Raises
    ------
    DataError
        As `candles_figure`.
    """
    if view.has_bars:
        figure = candles_figure(view)
        span = _span(view.entry_row, len(view.close) - 1)
    else:
        figure = empty_figure(height=320)
        _setup(figure, view)
        span = (0, max(view.n_rows - 1, 1))
        for name, price, colour, dash in (
            ("stop", view.stop_px, ORANGE, "dash"),
            ("target", view.target_px, BLUE, "dot"),
        ):
            if math.isfinite(price):
                _level(figure, name, price, colour, dash, span, (name == "target") == (view.side > 0))
        rows = np.unique(np.linspace(0, view.n_rows - 1, _N_TICKS).round().astype(int))
        figure.update_xaxes(
            title_text="bars before the decision", tickvals=rows, ticktext=[str(view.n_rows - 1 - row) for row in rows],
            range=[-0.5, span[1] + 0.5],
        )  # fmt: skip
        figure.update_yaxes(title_text="price")
    if math.isfinite(view.entry_px):
        _level(figure, "entry", view.entry_px, SLATE, "solid", span, view.side > 0)
    return figure


def contributions_figure(card: DecisionCard) -> go.Figure:
    """Horizontal bars of the largest contributions, the strongest on top: blue towards a win, orange towards a loss.

    Parameters
    ----------
    card : DecisionCard
        The decision, with at least one contribution in log-odds; those that are not finite are left out.

    Returns
    -------
    plotly Figure
        One bar a feature, each labelled with its signed value.

    Point in time
    -------------
    Draws what the decision weighed.
    """
    pairs = sorted(((n, v) for n, v in card.contributions if math.isfinite(v)), key=lambda p: (abs(p[1]), p[0]))
    values = [value for _, value in pairs]
    figure = empty_figure(height=90 + _BAR_ROW_PX * len(pairs))
    figure.add_bar(
        x=values,
        y=[escape(name) for name, _ in pairs],
        orientation="h",
        marker={"color": [BLUE if value > 0 else ORANGE for value in values]},
        text=[words.number(value, signed=True) for value in values],
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{y}: %{text} log-odds<extra></extra>",
    )
    figure.update_layout(bargap=0.35, margin={"l": 8, "r": 16})
    reach = 1.3 * max(map(abs, values), default=1.0)
    figure.update_xaxes(
        title_text="← towards a loss   log-odds   towards a win →", range=[-reach, reach], zeroline=True,
        zerolinecolor=SLATE, zerolinewidth=1,
    )  # fmt: skip
    figure.update_yaxes(type="category", showgrid=False)
    return figure


def feature_figure(view: FeatureView) -> go.Figure:
    """Chart of the price over the feature's values, bar by bar; drag to look closer, double-click to come back.

    Parameters
    ----------
    view : FeatureView
        Prices in price units; NaN values leave a gap.

    Returns
    -------
    plotly Figure
        Candles above, the feature as a line below, on one axis of positions.

    Point in time
    -------------
    Draws all rows given.

    Raises
    ------
    DataError
        If the columns differ in length.
    """
    lengths = {name: len(getattr(view, name)) for name in ("opened_at", "open", "high", "low", "close", "values")}
    if len(set(lengths.values())) != 1:
        raise DataError(f"{view.name} has columns of {lengths} bars. Cut all from the same window.")
    figure = empty_figure(height=560)
    draw_candles(figure, view)
    figure.add_scatter(
        x=np.arange(len(view.values)), y=view.values, yaxis="y2", name=escape(view.name), mode="lines", connectgaps=False,
        line={"color": BLUE, "width": 1.4}, customdata=[isoformat(at) for at in view.opened_at.tolist()],
        hovertemplate="%{customdata}<br>%{y:,.6~g}<extra></extra>",
    )  # fmt: skip
    time_axis(figure, view)
    figure.update_xaxes(fixedrange=False, anchor="y2")
    figure.update_yaxes(title_text="price", domain=[0.42, 1.0])
    below = figure.layout.yaxis.to_plotly_json() | {
        "domain": [0.0, 0.36],
        "anchor": "x",
        "title": {"text": escape(view.name)},
    }
    figure.update_layout(yaxis2=below, dragmode="zoom")
    return figure


def distribution_figure(view: FeatureView) -> go.Figure:
    """Bars of how many values lie where; the outer ones hold what lies beyond them too.

    Parameters
    ----------
    view : FeatureView
        With at least one finite value.

    Returns
    -------
    plotly Figure
        One bar a bin, or a value where there are few distinct ones.

    Point in time
    -------------
    Draws all rows counted.
    """
    found = view.distribution
    edges = found.edges
    figure = empty_figure(height=300)
    if found.is_discrete:
        figure.add_bar(
            x=[f"{value:.6g}" for value in edges], y=found.counts, hovertemplate="%{x}: %{y:,}<extra></extra>"
        )
        figure.update_xaxes(type="category")
    else:
        spans = [f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges)]
        figure.add_bar(
            x=(edges[:-1] + edges[1:]) / 2, y=found.counts, width=np.diff(edges), customdata=spans,
            hovertemplate="%{customdata}: %{y:,}<extra></extra>",
        )  # fmt: skip
    figure.update_traces(marker={"color": BLUE, "line": {"color": "#ffffff", "width": 1}})
    figure.update_xaxes(title_text=escape(view.name))
    figure.update_yaxes(title_text="bars")
    return figure


def hover_text(text: str) -> str:
    """Text from outside that plotly takes as text, in a template of hover."""
    return escape(text).replace("%", "&#37;")


def empty_figure(height: int) -> go.Figure:
    """An empty figure in the page's look."""
    figure = go.Figure(layout=go.Layout(template="none"))
    figure.update_layout(
        height=height, showlegend=False, dragmode=False, paper_bgcolor=_CLEAR, plot_bgcolor=_CLEAR,
        font={"family": _FONT, "size": 12, "color": _INK}, margin={"l": 8, "r": 12, "t": 14, "b": 8},
        hoverlabel={"bgcolor": "#ffffff", "bordercolor": "#cbd5e1", "font": {"color": "#1e293b", "family": _FONT}},
    )  # fmt: skip
    axis = {"automargin": True, "gridcolor": _GRID, "zeroline": False, "fixedrange": True, "title_standoff": 10}
    figure.update_xaxes(showgrid=False, showline=True, linecolor=_GRID, **axis)
    figure.update_yaxes(**axis)
    return figure


def _milliseconds(opened_at: IntArray) -> np.ndarray:
    """Plotly's numeric dates, read as UTC."""
    return np.asarray(opened_at, dtype=np.float64) / 1000


def _decision_row(card: EntryView) -> int:
    """Position of the decision bar in the window; the entry's where the window does not reach back so far."""
    row = int(np.searchsorted(card.opened_at, card.detection_at, side="right")) - 1
    return row if row >= 0 else card.entry_row


def draw_candles(figure: go.Figure, view: EntryView | FeatureView | SetupView) -> None:
    """Candles side by side by position; rising bars are hollow."""
    figure.add_candlestick(
        x=np.arange(len(view.open)), open=view.open, high=view.high, low=view.low, close=view.close, name="price",
        increasing={"line": {"color": SLATE, "width": 1}, "fillcolor": _CLEAR},
        decreasing={"line": {"color": SLATE, "width": 1}, "fillcolor": SLATE},
        hovertext=[isoformat(at) for at in view.opened_at.tolist()],
        hovertemplate=(
            "%{hovertext}<br>open %{open:,.6~g} · high %{high:,.6~g}<br>low %{low:,.6~g} · close %{close:,.6~g}"
            "<extra></extra>"
        ),
    )  # fmt: skip


def time_axis(figure: go.Figure, view: EntryView | FeatureView | SetupView) -> None:
    """Positions below, times of some of them as labels."""
    n_bars = len(view.open)
    rows = np.unique(np.linspace(0, n_bars - 1, _N_TICKS).round().astype(int))
    figure.update_xaxes(
        tickvals=rows,
        ticktext=[_tick(view, int(row)) for row in rows],
        tickangle=0,
        tickfont_size=11,
        range=[-1, n_bars],
        rangeslider_visible=False,
    )


def _tick(view: EntryView | FeatureView | SetupView, row: int) -> str:
    """Day and month over the hour, or over the year where bars are days."""
    opened = to_datetime(int(view.opened_at[row]))
    is_daily = not np.any(view.opened_at % _DAY_US)
    return f"{opened:%d %b}<br>{opened:%Y}" if is_daily else f"{opened:%d %b}<br>{opened:%H:%M}"


def _check_card(card: EntryView) -> None:
    lengths = {name: len(getattr(card, name)) for name in ("opened_at", "open", "high", "low", "close")}
    n_bars = lengths["open"]
    if len(set(lengths.values())) != 1:
        raise DataError(f"card {card.title!r} has columns of {lengths} bars. Cut all from the same window.")
    rows = {"entry_row": card.entry_row, "exit_row": card.entry_row if card.exit_row is None else card.exit_row}
    for name, row in rows.items():
        if not 0 <= row < n_bars:
            raise DataError(
                f"{name} of card {card.title!r} is {row}, but its window has {n_bars} bars. Rows are positions in it."
            )


def _level(
    figure: go.Figure, name: str, price: float, colour: str, dash: str, rows: tuple[int, int], is_above: bool
) -> None:
    """A planned price as a horizontal line, with its name at the right end on the side away from the entry."""
    figure.add_scatter(
        x=rows, y=[price, price], mode="lines", name=name, line={"color": colour, "width": 2, "dash": dash},
        hovertemplate=f"{name} %{{y:,.6~g}}<extra></extra>",
    )  # fmt: skip
    figure.add_annotation(
        x=rows[1], y=price, text=f"{name} {price:,.6g}", showarrow=False, xanchor="right",
        yanchor="bottom" if is_above else "top", font={"color": colour, "size": 11},
    )  # fmt: skip


def _span(decision_row: int, last_row: int) -> tuple[int, int]:
    """Rows over which a level is drawn: after the decision, or before it where nothing comes after it."""
    return (
        (decision_row, last_row) if last_row > decision_row else (max(0, decision_row - _LEVEL_REACH), decision_row + 1)
    )


def _setup(figure: go.Figure, card: EntryView) -> None:
    """The setup's points, joined and named."""
    if not card.points:
        return
    figure.add_scatter(
        x=[row for row, _, _ in card.points],
        y=[px for _, px, _ in card.points],
        name="setup",
        mode="lines+markers+text",
        line={"color": BLUE, "width": 1.5},
        marker={"size": 6, "color": BLUE},
        text=[escape(name) for _, _, name in card.points],
        textposition=_text_positions(card),
        textfont={"color": BLUE, "size": 12},
        cliponaxis=False,
        hovertemplate="%{text} %{y:,.6~g}<extra></extra>",
    )


def _text_positions(card: EntryView) -> list[str]:
    """Names above the highs and below the lows, away from the line; at the entry bar, away from its arrow."""
    prices = [px for _, px, _ in card.points]
    around = [prices[max(0, i - 1) : i] + prices[i + 1 : i + 2] for i in range(len(prices))]
    is_above = [
        card.side > 0 if row == card.entry_row else not near or px >= sum(near) / len(near)
        for (row, px, _), near in zip(card.points, around, strict=True)
    ]
    return ["top center" if above else "bottom center" for above in is_above]


def _markers(figure: go.Figure, card: EntryView) -> None:
    """An arrow that points at the entry bar in the trade's direction, and a diamond at the exit."""
    row, is_long = card.entry_row, card.side > 0
    figure.add_annotation(
        x=row, y=float(card.low[row] if is_long else card.high[row]), text=f"<b>entry {words.side(card)}</b>",
        showarrow=True, arrowhead=2, arrowwidth=1.8, arrowcolor=BLUE, ax=0, ay=46 if is_long else -46,
        xanchor="right" if row > _NEAR_THE_END * len(card.close) else "center",
        font={"color": BLUE, "size": 12},
    )  # fmt: skip
    if card.exit_row is None:
        return
    levels = {"stop": card.stop_px, "target": card.target_px}
    price = levels.get(card.exit_reason or "", float(card.close[card.exit_row]))
    colour = BLUE if (card.r_multiple or 0) > 0 else ORANGE
    figure.add_scatter(
        x=[card.exit_row], y=[price], name="exit", mode="markers",
        marker={"symbol": "diamond", "size": 11, "color": colour, "line": {"color": "#ffffff", "width": 1.5}},
        hovertemplate=hover_text(words.outcome(card)) + "<extra></extra>",
    )  # fmt: skip
    figure.add_annotation(
        x=card.exit_row, y=price, text="<b>exit</b>", showarrow=False, xanchor="left", xshift=10,
        font={"color": colour, "size": 12},
    )  # fmt: skip


def shade_future(figure: go.Figure, start: float, end: float) -> None:
    """Grey ground behind the bars that the decision could not see, with a label that says so."""
    figure.add_shape(
        type="rect", x0=start, x1=end, y0=0, y1=1, yref="paper", layer="below", line={"width": 0},
        fillcolor="rgba(100,116,139,0.13)",
    )  # fmt: skip
    figure.add_annotation(
        x=end, y=1, yref="paper", xanchor="right", yanchor="bottom", align="right", showarrow=False,
        font={"color": SLATE, "size": 11}, text="what happened next<br>(not known at the decision)",
    )  # fmt: skip
    figure.update_layout(margin={"t": 44})
