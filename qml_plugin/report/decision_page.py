"""The page of one decision: what was done and why, its past, its neighbours, what the model weighed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from qml_plugin.records import Decision
from qml_plugin.report.document import render, write
from qml_plugin.report.page import shown_card
from qml_plugin.report.views import DecisionCard, NeighbourView, PatternView


def card_of(view: PatternView, decision: Decision, neighbours: Sequence[NeighbourView]) -> DecisionCard:
    """The card of a decision on a registered pattern.

    Parameters
    ----------
    view : PatternView
        Of the pattern, with what came after it.
    decision : Decision
    neighbours : sequence of NeighbourView
        Those that the decision looked at, nearest first.

    Returns
    -------
    DecisionCard

    Point in time
    -------------
    Shows bars after the entry on purpose, marked as unknown at the decision; decides nothing.
    """
    shared = {name: getattr(view, name) for name in _SHARED}
    return DecisionCard(
        **shared,
        is_synthetic=False,
        action=decision.action,
        reason=decision.reason,
        confidence=decision.confidence,
        threshold=decision.threshold,
        model=decision.model,
        neighbours=tuple(neighbours),
        contributions=tuple(decision.contributions),
        confidence_low=decision.low,
        confidence_high=decision.high,
        base_rate=decision.base_rate,
        n_known=decision.n_known,
        bucket=decision.bucket,
        risk_frac=decision.risk_frac,
    )


def render_decision_page(card: DecisionCard, facts: Mapping[str, str] | None = None) -> str:
    """One self-contained HTML file: nothing is fetched from anywhere.

    Parameters
    ----------
    card : DecisionCard
        Text from outside is escaped wherever it appears.
    facts : mapping of str to str, optional
        Of the run, by name.

    Returns
    -------
    str
        The whole document.

    Point in time
    -------------
    Draws all that the card holds, and marks what the decision could not see.

    Raises
    ------
    DataError
        If the columns of the bars differ in length, or the entry lies outside them.
    """
    return render("decision.html.j2", shown=shown_card(1, card), facts=dict(facts or {}))


def write_decision_page(
    card: DecisionCard, path: str | os.PathLike[str], facts: Mapping[str, str] | None = None
) -> Path:
    """Absolute path of the written page; an earlier file there is replaced whole, or not at all.

    Parameters
    ----------
    card, facts
        As for `render_decision_page`.
    path : path
        Where; its folder must exist.

    Raises
    ------
    DataError
        As `render_decision_page`; nothing was written.
    OSError
        If the file cannot be written; the earlier file is intact.
    """
    return write(render_decision_page(card, facts), path)


_SHARED = (
    "title", "pattern_id", "strategy", "symbol", "timeframe", "side", "detection_at", "opened_at", "open", "high", "low",
    "close", "entry_row", "exit_row", "stop_px", "target_px", "points", "exit_reason", "r_multiple",
)  # fmt: skip
