"""The page of a certification: how often noise was called an edge, by world and judge, and which gates let it pass."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

import plotly.graph_objects as go

from qml_plugin.report.document import Chart, chart, render, write
from qml_plugin.report.figures import BLUE, ORANGE, SLATE, empty_figure
from qml_plugin.vrd.certification import NO_EDGE, Certification, Count
from qml_plugin.vrd.gates import GATES

JUDGES = {
    "ours": "qml vrd",
    "permuted": "qml vrd, permuted search",
    "naive": "best of the sweep, PSR",
    "classic": "classic recipe",
}
_COLOURS = {"ours": BLUE, "permuted": "#7c6bb0", "naive": ORANGE, "classic": SLATE}
_SYMBOLS = {"ours": "circle", "permuted": "square", "naive": "diamond", "classic": "x"}
WORLD_NAMES = {
    "null": "noise",
    "drift": "noise with a drift",
    "real": "real bars in blocks",
    "edge1": "edge of Sharpe 1",
    "edge2": "edge of Sharpe 2",
    "edge3": "edge of Sharpe 3",
}
_ROW_PX, _APART = 74, 0.17


def render_certification_page(found: Certification) -> str:
    """One self-contained HTML file about a certification: nothing is fetched from anywhere.

    Parameters
    ----------
    found : Certification
        Names in it are escaped wherever they appear.

    Returns
    -------
    str
        The whole document.

    Point in time
    -------------
    Draws finished counts: a look back.
    """
    worlds = list(dict.fromkeys(row.world for row in found.counts))
    by_world = [[row for row in found.counts if row.world == world] for world in worlds]
    totals = [rows[-1] for rows in by_world]
    judges = [name for name in JUDGES if name in found.judges]
    charts: dict[str, Chart | None] = {"noise": None, "edges": None, "gates": None}
    for key, label, rows in (
        ("noise", "Share of markets without an edge called DEPLOY", [row for row in totals if row.world in NO_EDGE]),
        ("edges", "Share of markets with an edge called DEPLOY", [row for row in totals if row.world not in NO_EDGE]),
    ):
        if rows:
            charts[key] = chart(f"shares-{key}", label, shares_figure(rows, judges))
    if totals:
        charts["gates"] = chart("gates-passed", "Share of markets that passed each gate", passes_figure(totals))
    return render(
        "certification.html.j2", found=found, groups=list(zip(worlds, by_world, strict=True)), judges=judges,
        judge_names=JUDGES, world_names=WORLD_NAMES, charts=charts, gates=GATES,
        families=[name for name in dict.fromkeys(row.family for row in found.counts) if name != "all"],
    )  # fmt: skip


def write_certification_page(found: Certification, path: str | os.PathLike[str]) -> Path:
    """Absolute path of the written page; an earlier file there is replaced whole, or not at all.

    Parameters
    ----------
    found : Certification
        What to show.
    path : path
        Where; its folder must exist.

    Raises
    ------
    OSError
        If the file cannot be written; the earlier file is intact.
    """
    return write(render_certification_page(found), path)


def shares_figure(rows: Sequence[Count], judges: Sequence[str]) -> go.Figure:
    """Chart of the share called DEPLOY, a line of points a world, a point with its interval a judge.

    Parameters
    ----------
    rows : sequence of Count
        One a world, from top to bottom.
    judges : sequence of str

    Returns
    -------
    plotly Figure
        Shares of 0 to 1 from left to right.

    Point in time
    -------------
    Draws finished counts.
    """
    figure = empty_figure(height=92 + _ROW_PX * len(rows))
    for place, judge in enumerate(judges):
        known = [(i, row.shares[judge]) for i, row in enumerate(rows) if judge in row.shares]
        shift = (place - (len(judges) - 1) / 2) * _APART
        figure.add_scatter(
            x=[share.share for _, share in known], y=[i + shift for i, _ in known], name=JUDGES[judge], mode="markers",
            marker={"color": _COLOURS[judge], "size": 9, "symbol": _SYMBOLS[judge]},
            error_x={
                "type": "data", "symmetric": False, "array": [max(share.high - share.share, 0.0) for _, share in known],
                "arrayminus": [max(share.share - share.low, 0.0) for _, share in known], "color": _COLOURS[judge],
                "thickness": 1.6, "width": 4,
            },
            customdata=[(share.n_deploy, rows[i].n, share.low, share.high) for i, share in known],
            hovertemplate="%{customdata[0]} of %{customdata[1]}: %{x:.1%} (%{customdata[2]:.1%} to %{customdata[3]:.1%})<extra>"
            + escape(JUDGES[judge]) + "</extra>",
        )  # fmt: skip
    for edge in range(1, len(rows)):
        figure.add_hline(y=edge - 0.5, line={"color": "rgba(100,116,139,0.25)", "width": 1})
    figure.update_layout(
        showlegend=True, legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom"},
    )  # fmt: skip
    figure.update_xaxes(title_text="called DEPLOY", tickformat=".0%", range=[-0.02, 1.02], showgrid=True)
    figure.update_yaxes(
        tickmode="array", tickvals=list(range(len(rows))), range=[len(rows) - 0.5, -0.5], showgrid=False,
        ticktext=[escape(WORLD_NAMES.get(row.world, row.world)) for row in rows],
    )  # fmt: skip
    return figure


def passes_figure(rows: Sequence[Count]) -> go.Figure:
    """Map of the share that passed each gate: a column a gate, a row a world.

    Parameters
    ----------
    rows : sequence of Count
        One a world, from top to bottom.

    Returns
    -------
    plotly Figure

    Point in time
    -------------
    Draws finished counts.
    """
    shares = [[row.passes[gate] for gate in GATES] for row in rows]
    figure = empty_figure(height=96 + 38 * len(rows))
    figure.add_heatmap(
        x=list(GATES), y=[WORLD_NAMES.get(row.world, row.world) for row in rows], z=shares, zmin=0, zmax=1, showscale=False,
        colorscale=[[0, "rgba(42,122,185,0.04)"], [1, "rgba(42,122,185,0.75)"]], xgap=2, ygap=2,
        text=[[f"{share:.0%}" for share in line] for line in shares], texttemplate="%{text}",
        textfont={"size": 11}, hovertemplate="%{y}: %{x} passes on %{z:.1%}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(side="top", showline=False, tickangle=-40)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure
