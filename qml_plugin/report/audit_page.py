"""The page of an audit: the verdict, what has seen the future and where, what was compared."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path

import plotly.graph_objects as go

from qml_plugin.audit.findings import AuditReport, Finding, shown
from qml_plugin.report.document import chart, render, write
from qml_plugin.report.figures import BLUE, ORANGE, empty_figure

_GRADES = {
    "leak": "Has seen the future",
    "unstable": "Differs from run to run",
    "blind": "Nothing to compare",
    "raised": "Fails on other bars",
    "start": "Depends on where the bars begin",
}
_CHECKS = {
    "rerun": "Two runs on the same bars do the same.",
    "future": "Another future, the same past.",
    "threads": "One thread and two threads do the same.",
    "registry": "Rows of a registry that became known later are not used.",
    "start": "How long the first bars matter.",
}


def render_audit_page(report: AuditReport) -> str:
    """One self-contained HTML file about an audit: nothing is fetched from anywhere.

    Parameters
    ----------
    report : AuditReport
        What to show. Text from outside is escaped wherever it appears.

    Returns
    -------
    str
        The whole document.

    Point in time
    -------------
    Draws a finished audit: a look back.
    """
    groups = [(title, [f for f in report.findings if f.grade == grade]) for grade, title in _GRADES.items()]
    return render(
        "audit.html.j2",
        report=report,
        groups=[(title, [_row(finding) for finding in found]) for title, found in groups if found],
        checks=[(_CHECKS[check], _found_by(report, check)) for check in report.checks],
        cuts=chart("cuts", "Where the bars were cut, and how far back a change of the future reached", _figure(report)),
    )


def write_audit_page(report: AuditReport, path: str | os.PathLike[str]) -> Path:
    """Absolute path of the written page; an earlier file there is replaced whole, or not at all.

    Parameters
    ----------
    report : AuditReport
        What to show.
    path : path
        Where; its folder must exist.

    Raises
    ------
    OSError
        If the file cannot be written; the earlier file is intact.
    """
    return write(render_audit_page(report), path)


def _row(finding: Finding) -> dict[str, object]:
    name = finding.kind if finding.kind == finding.name else f"{finding.kind} {finding.name}"
    return {
        "name": name,
        "field": finding.field or "",
        "bar": finding.bar,
        "stamp": finding.stamp or "",
        "value": shown(finding.value),
        "other": shown(finding.other),
        "cuts": f"{finding.n_cuts} of {finding.n_compared}" if finding.check == "future" else "",
        "text": finding.text,
    }


def _found_by(report: AuditReport, check: str) -> int:
    return sum(finding.check == check for finding in report.findings)


def _figure(report: AuditReport) -> go.Figure:
    """The cuts on an axis of bars, and a line from the first difference of each leak to its cut."""
    leaks = [leak for leak in report.leaks if leak.bar is not None and leak.cut is not None]
    figure = empty_figure(height=120 + 26 * len(leaks))
    figure.add_scatter(
        x=list(report.cuts), y=["cuts"] * len(report.cuts), mode="markers", marker={"color": BLUE, "size": 7},
        hovertemplate="cut after bar %{x}<extra></extra>",
    )  # fmt: skip
    for leak in leaks:
        name = escape(leak.kind if leak.kind == leak.name else f"{leak.kind} {leak.name}")
        figure.add_scatter(
            x=[leak.bar, leak.cut], y=[name, name], mode="lines+markers", line={"color": ORANGE, "width": 2},
            marker={"color": ORANGE, "size": [9, 5]}, hovertemplate="bar %{x}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(showlegend=False)
    figure.update_xaxes(title_text="bar", range=[-0.02 * report.n_bars, 1.02 * report.n_bars])
    figure.update_yaxes(type="category")
    return figure
