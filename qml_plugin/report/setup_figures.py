"""The chart of one setup as a trader draws it: candles, points, broken levels, order block, zones of stop and target."""

from __future__ import annotations

import plotly.graph_objects as go

from qml_plugin.report.figures import BLUE, ORANGE, SLATE, draw_candles, empty_figure, shade_future, time_axis
from qml_plugin.report.views import SetupView

_SHORT = {"first break": "BOS", "change of character": "CHoCH", "second break": "BOS 2", "sweep": "sweep"}
_FROM = {"first break": 0, "change of character": 1, "second break": 0, "sweep": 0}  # point at which a level begins
_BLUE_GROUND, _ORANGE_GROUND, _SLATE_GROUND = "rgba(42,122,185,0.16)", "rgba(212,106,23,0.16)", "rgba(100,116,139,0.22)"


def setup_figure(view: SetupView) -> go.Figure:
    """Candlestick chart of a setup; what came after its entry is shaded.

    Parameters
    ----------
    view : SetupView
        Prices in price units, places in rows of its bars.

    Returns
    -------
    plotly Figure
        Points are P1, P2, …; BOS and CHoCH are breaks of structure and the change of character.

    Point in time
    -------------
    Draws all rows given, and marks those that the entry could not see.
    """
    figure = empty_figure(height=470)
    n_bars = len(view.close)
    if view.entry_row + 1 < n_bars:
        shade_future(figure, view.entry_row + 0.5, n_bars - 0.5)
    _plan(figure, view, n_bars)
    if view.order_block is not None:
        row, low, high = view.order_block
        _ground(figure, row - 0.5, view.entry_row + 0.5, low, high, _SLATE_GROUND)
        far = low if view.side < 0 else high  # away from the shoulder and its names
        _word(figure, view.entry_row, far, "order block", SLATE, "right", is_above=view.side > 0)
    draw_candles(figure, view)
    for level in view.levels:
        _level(figure, view, *level)
    _points(figure, view)
    time_axis(figure, view)
    figure.update_yaxes(title_text="price")
    return figure


def _plan(figure: go.Figure, view: SetupView, n_bars: int) -> None:
    """Zones of stop and target from the entry on, each with its price at its far edge."""
    start, end = view.entry_row + 0.5, max(n_bars - 0.5, view.entry_row + 8.5)
    for name, px, colour, ground in (
        ("stop", view.stop_px, ORANGE, _ORANGE_GROUND),
        ("target", view.target_px, BLUE, _BLUE_GROUND),
    ):
        _ground(figure, start, end, view.entry_px, px, ground)
        figure.add_scatter(
            x=[start, end], y=[px, px], mode="lines", name=name, line={"color": colour, "width": 1.5},
            hovertemplate=f"{name} %{{y:,.6~g}}<extra></extra>",
        )  # fmt: skip
        _word(figure, end, px, f"{name} {px:,.6g}", colour, "right", is_above=(name == "target") == (view.side > 0))
    figure.add_scatter(
        x=[start, end], y=[view.entry_px] * 2, mode="lines", name="entry", line={"color": SLATE, "width": 1.5},
        hovertemplate="entry %{y:,.6~g}<extra></extra>",
    )  # fmt: skip
    _word(figure, end, view.entry_px, f"entry {view.entry_px:,.6g}", SLATE, "right", is_above=view.side > 0)


def _level(figure: go.Figure, view: SetupView, name: str, px: float, row: int) -> None:
    """A broken level from its turn to the bar that broke it, or the bar that came back from beyond it."""
    word = _SHORT.get(name, name)
    if name == "sweep":
        figure.add_scatter(
            x=[row], y=[px], mode="markers", name=name,
            marker={"symbol": "x", "size": 9, "color": ORANGE}, hovertemplate="sweep of %{y:,.6~g}<extra></extra>",
        )  # fmt: skip
        _word(figure, row, px, word, ORANGE, "left", is_above=view.side > 0)
        return
    start = view.points[min(_FROM.get(name, 0), len(view.points) - 1)][0]
    colour = BLUE if name == "first break" else ORANGE
    figure.add_scatter(
        x=[start, row], y=[px, px], mode="lines", name=name, line={"color": colour, "width": 1.5, "dash": "4px,3px"},
        hovertemplate=f"{name}, level %{{y:,.6~g}}<extra></extra>",
    )  # fmt: skip
    is_with_trend = name == "first break"
    _word(figure, row, px, word, colour, "right", is_above=is_with_trend == (view.side < 0))


def _points(figure: go.Figure, view: SetupView) -> None:
    """The points joined and named, highs above and lows below."""
    px = [price for _, price in view.points]
    neighbours = [px[max(0, i - 1) : i] + px[i + 1 : i + 2] for i in range(len(px))]
    is_above = [not near or price >= sum(near) / len(near) for price, near in zip(px, neighbours, strict=True)]
    figure.add_scatter(
        x=[row for row, _ in view.points], y=px, name="setup", mode="lines+markers+text",
        line={"color": BLUE, "width": 2}, marker={"size": 7, "color": BLUE},
        text=[f"<b>P{i}</b>" for i in range(1, len(px) + 1)],
        textposition=["top center" if above else "bottom center" for above in is_above],
        textfont={"color": BLUE, "size": 13}, cliponaxis=False, hovertemplate="%{text} %{y:,.6~g}<extra></extra>",
    )  # fmt: skip


def _ground(figure: go.Figure, x0: float, x1: float, y0: float, y1: float, colour: str) -> None:
    figure.add_shape(type="rect", x0=x0, x1=x1, y0=y0, y1=y1, layer="below", line={"width": 0}, fillcolor=colour)


def _word(figure: go.Figure, x: float, y: float, text: str, colour: str, anchor: str, *, is_above: bool) -> None:
    figure.add_annotation(
        x=x, y=y, text=text, showarrow=False, xanchor=anchor, yanchor="bottom" if is_above else "top",
        font={"color": colour, "size": 11},
    )  # fmt: skip
