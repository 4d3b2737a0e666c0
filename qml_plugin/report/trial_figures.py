"""Charts of a gate's trial: the R of its three arms, and what its confidences lifted."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from qml_plugin.gate import GateTrial
from qml_plugin.records import FloatArray
from qml_plugin.report.figures import BLUE, ORANGE, SLATE, empty_figure


def cumulative_figure(trial: GateTrial) -> go.Figure:
    """Chart of the R so far: gated (solid blue), ungated (dashed orange), random (dotted, with its band).

    Parameters
    ----------
    trial : GateTrial
        With at least one resolved entry.

    Returns
    -------
    plotly Figure
        Lines over the number of the entry, from 0 R before the first.

    Point in time
    -------------
    Draws all rows given.
    """
    curves = {name: np.concatenate([[0.0], column]) for name, column in trial.cumulative_r.items()}
    entries = np.arange(len(curves["gated"]))
    figure = empty_figure(height=360)
    if "random_high" in curves:
        figure.add_scatter(
            x=np.concatenate([entries, entries[::-1]]), y=np.concatenate([curves["random_high"], curves["random_low"][::-1]]),
            mode="lines", name="90 % of random gates", fill="toself", fillcolor="rgba(100,116,139,0.18)",
            line={"width": 0, "color": SLATE}, hoverinfo="skip",
        )  # fmt: skip
    lines = (
        ("random", {"color": SLATE, "width": 1.2, "dash": "dot"}),
        ("ungated", {"color": ORANGE, "width": 2.2, "dash": "5px,3px"}),
        ("gated", {"color": BLUE, "width": 2}),
    )
    for name, line in lines:
        figure.add_scatter(
            x=entries, y=curves[name], mode="lines", name=name, line=line, hovertemplate=f"{name} %{{y:+.1f}} R<extra></extra>"
        )  # fmt: skip
    figure.update_layout(hovermode="x unified")
    figure.update_xaxes(title_text="resolved entries, in order of time")
    figure.update_yaxes(title_text="R so far", zeroline=True, zerolinecolor=SLATE, zerolinewidth=1)
    return figure


def lift_figure(lift: dict[str, FloatArray]) -> go.Figure:
    """Chart of the share of wins among the entries of highest confidence, over that of all, by the share kept.

    Parameters
    ----------
    lift : dict
        As from `lift_curve`.

    Returns
    -------
    plotly Figure
        A line that ends at 1, where all are kept.

    Point in time
    -------------
    Draws all rows given.
    """
    figure = empty_figure(height=340)
    figure.add_scatter(
        x=[0, 1], y=[1, 1], mode="lines", name="no lift", line={"color": SLATE, "width": 1, "dash": "dot"},
        hoverinfo="skip",
    )  # fmt: skip
    figure.add_scatter(
        x=lift["kept_frac"], y=lift["lift"], mode="lines", name="lift", line={"color": BLUE, "width": 1.8},
        customdata=np.column_stack([lift["mean_r"], lift["recall"]]),
        hovertemplate=(
            "the %{x:.1%} of highest confidence<br>lift %{y:.2f}, mean %{customdata[0]:+.2f} R"
            "<br>%{customdata[1]:.1%} of all wins<extra></extra>"
        ),
    )  # fmt: skip
    figure.update_xaxes(title_text="share kept, highest confidence first", tickformat=".0%", range=[-0.02, 1.02])
    figure.update_yaxes(title_text="share of wins over that of all")
    return figure
