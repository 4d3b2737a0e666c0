"""The decisions of a run and what became of its entries, as the columns of a trial."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import sqlalchemy as sa

from qml_plugin.clock import from_datetime
from qml_plugin.errors import DataError
from qml_plugin.records import Decision, Pattern, TrialEntries
from qml_plugin.registry.schema import ml_pattern_registry, run_decisions

_DECIDED, _PATTERNS = run_decisions.c, ml_pattern_registry.c


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One entry: its decision, and its result as far as there is one."""

    decision: Decision
    known_at: int
    r_multiple: float | None
    is_win: bool
    risk_frac: float
    trade_return_frac: float | None


def trial_entries(name: str, rows: Iterable[TrialRow]) -> TrialEntries:
    """The columns of a trial, in order of (``known_at``, ``pattern_id``).

    Parameters
    ----------
    name : str
        Of the run, for messages and titles.
    rows : iterable of TrialRow
        Of all its entries. ``risk_frac`` is the planned risk as a fraction of the fill's price.

    Returns
    -------
    TrialEntries

    Point in time
    -------------
    Reads the outcomes of a finished run on purpose.

    Raises
    ------
    DataError
        If there are no entries, or the run was made in the mode ``"record"``, in which nothing is judged.
    """
    ordered = sorted(rows, key=lambda row: (row.known_at, row.decision.pattern_id))
    if not ordered:
        raise DataError(f"{name} decided nothing, so there is nothing to try. Run a strategy that enters.")
    if all(row.decision.reason == "record_only" for row in ordered):
        raise DataError(
            f"{name} was made in the mode 'record', in which nothing is judged. Run it in the mode 'shadow' or 'gate'."
        )
    is_each_traded = all(row.decision.is_taken for row in ordered)
    r_multiple = np.array([math.nan if row.r_multiple is None else row.r_multiple for row in ordered])
    if is_each_traded:
        return_frac = np.array([row.trade_return_frac or 0.0 for row in ordered])
    else:
        return_frac = r_multiple * np.array([row.risk_frac for row in ordered])
    return TrialEntries(
        name=name,
        pattern_id=tuple(row.decision.pattern_id for row in ordered),
        known_at=np.array([row.known_at for row in ordered], np.int64),
        action=tuple(row.decision.judgement for row in ordered),
        confidence=np.array(
            [math.nan if row.decision.confidence is None else row.decision.confidence for row in ordered]
        ),
        r_multiple=r_multiple,
        is_win=np.array([row.is_win for row in ordered], np.bool_),
        return_frac=return_frac,
        returns_of="trades" if is_each_traded else "barriers",
    )


def rows_of_run(patterns: Sequence[Pattern], decisions: Sequence[Decision]) -> list[TrialRow]:
    """The rows of a run that is in memory; `decisions` belong to `patterns` one by one."""
    rows = []
    for pattern, decision in zip(patterns, decisions, strict=True):
        entry, outcome = pattern.entry, pattern.outcome
        rows.append(
            TrialRow(
                decision,
                entry.known_at,
                outcome.r_multiple if outcome else None,
                outcome.is_win if outcome else False,
                abs(entry.reference_px - entry.stop_px) / outcome.entry_px if outcome else math.nan,
                pattern.trade_return_frac,
            )
        )
    return rows


def stored_rows(connection: sa.Connection, run_id: str) -> list[TrialRow]:
    """The rows of a recorded run."""
    query = (
        sa.select(
            _DECIDED.pattern_id, _DECIDED.action, _DECIDED.reason, _DECIDED.confidence, _DECIDED.trade_return,
            _PATTERNS.known_at, _PATTERNS.r_multiple, _PATTERNS.user_label, _PATTERNS.entry_px, _PATTERNS.stop_px,
            _PATTERNS.setup_json,
        )
        .join(ml_pattern_registry, _PATTERNS.pattern_id == _DECIDED.pattern_id)
        .where(_DECIDED.run_id == run_id)
    )  # fmt: skip
    return [_stored_row(row) for row in connection.execute(query)]


def _stored_row(row: Any) -> TrialRow:
    label, r_multiple = row.user_label, None if row.user_label == "ignore" else row.r_multiple
    order = (orjson.loads(row.setup_json)["order"] if row.setup_json else None) or {}
    has_risk = "reference_px" in order and row.entry_px is not None and row.stop_px is not None
    return TrialRow(
        Decision(row.pattern_id, row.action, row.reason, confidence=row.confidence),
        from_datetime(row.known_at),
        r_multiple,
        label == "win" if label in ("win", "loss") else r_multiple is not None and r_multiple > 0,
        abs(order["reference_px"] - row.stop_px) / row.entry_px if has_risk else math.nan,
        row.trade_return,
    )
