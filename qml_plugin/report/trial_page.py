"""The page of a gate's trial: the verdict, then what it rests on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from qml_plugin.gate import GateTrial
from qml_plugin.report import figures, trial_figures
from qml_plugin.report.document import chart, render, write
from qml_plugin.report.reliability import FEWEST_SCORES, ReliabilityBin
from qml_plugin.stats.inference import wilson_interval
from qml_plugin.stats.scores import Reliability

VERDICTS = {
    "WORTH_IT": "The gate was worth it.",
    "NOT_SHOWN": "That the gate is worth it was not shown.",
    "HARMFUL": "The gate did harm.",
    "TOO_FEW": "Too few entries: this is no result.",
}


def render_trial_page(trial: GateTrial, facts: Mapping[str, str] | None = None) -> str:
    """One self-contained HTML file, the verdict first: nothing is fetched from anywhere.

    Parameters
    ----------
    trial : GateTrial
    facts : mapping of str to str, optional
        What was tried, such as the strategy and its market, by name. Text is escaped.

    Returns
    -------
    str
        The whole document. A chart that there is nothing for is left out, and the page says why.

    Point in time
    -------------
    Draws all that the trial holds: a look back on a finished run.
    """
    cumulative = None
    if len(trial.cumulative_r.get("gated", ())):
        cumulative = chart("cumulative", "R so far, gated, ungated and random", trial_figures.cumulative_figure(trial))
    reliability = lift = None
    if trial.reliability is not None and trial.reliability.n.sum() >= FEWEST_SCORES:
        bins = shown_bins(trial.reliability)
        reliability = chart("reliability", "Reliability of the confidences", figures.reliability_figure(bins))
    if trial.lift is not None and trial.base_rate > 0:
        lift = chart("lift", "Lift of the confidences", trial_figures.lift_figure(trial.lift))
    arms = (
        ("gated", "as the gate decided", trial.gated),
        ("ungated", "every entry taken", trial.ungated),
        ("random", "as many skipped, at random", trial.random),
    )
    return render(
        "trial.html.j2",
        trial=trial,
        facts=dict(facts or {}),
        verdict=VERDICTS[trial.verdict],
        arms=arms,
        cumulative=cumulative,
        reliability=reliability,
        lift=lift,
    )


def write_trial_page(trial: GateTrial, path: str | os.PathLike[str], facts: Mapping[str, str] | None = None) -> Path:
    """Absolute path of the written page; an earlier file there is replaced whole, or not at all.

    Parameters
    ----------
    trial, facts
        As for `render_trial_page`.
    path : path
        Where; its folder must exist.

    Raises
    ------
    OSError
        If the file cannot be written; the earlier file is intact.
    """
    return write(render_trial_page(trial, facts), path)


def shown_bins(found: Reliability) -> tuple[ReliabilityBin, ...]:
    """The same bins with 95 % intervals."""
    bins = []
    for confidence, share, n in zip(found.confidence, found.win_frac, found.n.tolist(), strict=True):
        low, high = wilson_interval(round(share * n), n)
        bins.append(ReliabilityBin(float(confidence), float(share), low, high, n))
    return tuple(bins)
