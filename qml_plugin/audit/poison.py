"""Rows from the future, planted in a copy of a registry: whoever uses one decides otherwise than without them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from qml_plugin import provenance
from qml_plugin.audit.strategy_runs import StrategySubject
from qml_plugin.audit.trace import Trace
from qml_plugin.bars import bars_from_frame
from qml_plugin.errors import QmlError
from qml_plugin.records import Decision, Outcome, Pattern, Run
from qml_plugin.registry import PatternRegistry
from qml_plugin.registry.maintenance import backup

_SYMBOL = "AUDIT"
_MOST_ROWS = 100
_LIE_R = 9.0
_LIE_CONFIDENCE = (0.01, 0.99)


def poisoned_pairs(
    subject: StrategySubject, frame: pd.DataFrame, cuts: Sequence[int], registry: str | None = None
) -> Iterator[tuple[int, Trace, Trace]]:
    """(cut, trace, trace with planted rows) of runs on copies of one registry; the registry itself is not touched.

    The trace without them is one for all cuts and reaches the last, so compare up to the cut only.

    Every planted row has the features of an entry of the run, so that it is the nearest neighbour there is, the opposite
    outcome, a confident wrong score, and a ``resolved_at`` after the cut: nothing up to the cut may know of it. Half of them
    were also made after the cut.

    Parameters
    ----------
    subject : StrategySubject
        A strategy with a memory.
    frame : DataFrame
        Its bars.
    cuts : sequence of int
    registry : str, optional
        What to copy; by default one that the strategy fills itself, with the rows of the whole series.
    """
    symbol = subject.parameters.get("symbol") or getattr(subject.cls, "symbol", None) or _SYMBOL
    with tempfile.TemporaryDirectory(prefix="qml_audit_") as folder:
        clean = Path(folder) / "clean.db"
        if registry is not None:
            backup(registry, clean)
        url = f"sqlite:///{clean}" if registry is None else None
        _, run, patterns = subject.run_with_memory(frame, symbol=symbol, registry=url)
        if run is None or not patterns:
            return

        def traced(source: Path, state_bars: Sequence[int]) -> Trace:
            copy = source.with_stem(f"{source.stem}_run")
            shutil.copy(source, copy)  # a run adds to its registry
            return subject.run(
                frame, through_bar=max(state_bars), state_bars=state_bars, symbol=symbol, registry=f"sqlite:///{copy}"
            )

        without = traced(clean, cuts)
        for cut in cuts:
            planted = Path(folder) / f"planted_{cut}.db"
            shutil.copy(clean, planted)
            _plant(planted, frame, cut, run, patterns)
            yield cut, without, traced(planted, [cut])


def _plant(path: Path, frame: pd.DataFrame, cut: int, run: Run, patterns: Sequence[Pattern]) -> None:
    """Register rows that became known only after the cut, each a lie."""
    known_at = bars_from_frame(frame, symbol=run.symbol, timeframe=run.timeframe).known_at
    later = [int(at) for at in known_at[cut + 1 :]]
    lies: list[Pattern] = []
    past = [pattern for pattern in patterns if pattern.entry.bar <= cut][-_MOST_ROWS:]
    for i, pattern in enumerate(past):
        entry = replace(pattern.entry, strategy="planted")
        if i % 2:
            entry = replace(
                entry, bar=cut + 1, detection_at=later[0] + i, known_at=later[0] + i, pattern_type=f"planted_{i}"
            )
        is_win = pattern.outcome is not None and pattern.outcome.is_win
        outcome = Outcome(
            entry_bar=cut + 1, entry_px=entry.reference_px, exit_bar=min(cut + 2, len(frame) - 1), exit_px=entry.reference_px,
            exit_reason="stop" if is_win else "target", r_multiple=-_LIE_R if is_win else _LIE_R, resolved_at=later[-1],
        )  # fmt: skip
        lies.append(replace(pattern, entry=entry, outcome=outcome, confidence=_LIE_CONFIDENCE[not is_win]))
    decisions = [Decision(lie.pattern_id, "take", "record_only", confidence=lie.confidence) for lie in lies]
    planted = replace(
        run, run_id=provenance.run_id("planted", cut, run.run_id), strategy_name="planted", status="finished", metrics={},
        returns_frac=None,
    )  # fmt: skip
    try:
        PatternRegistry(f"sqlite:///{path}").save_run(planted, lies, decisions, {})
    except QmlError as error:
        error.add_note(
            "The copy of the registry that the audit poisons took no rows; the registry itself is as it was."
        )
        raise
