"""A decision as a card: the bars around it, the past patterns it looked at, what the model weighed."""

from __future__ import annotations

from collections.abc import Mapping

from qml_plugin.bars import Bars
from qml_plugin.records import Decision, Pattern
from qml_plugin.report.views import DecisionCard, NeighbourView

_BARS_BEFORE = 60
_BARS_AFTER = 20


def decision_card(
    bars: Bars, pattern: Pattern, decision: Decision, past: Mapping[str, Pattern], *, is_synthetic: bool
) -> DecisionCard:
    """Everything that a page needs to show why one decision was made.

    Parameters
    ----------
    bars : Bars
        The series of the entry.
    pattern, decision : Pattern, Decision
        Of the same entry.
    past : mapping of pattern id to Pattern
        Where the neighbours are looked up; one that is missing is left out.
    is_synthetic : bool
        Whether the market was made up.

    Returns
    -------
    DecisionCard

    Point in time
    -------------
    Shows bars after the entry on purpose, marked as unknown at the decision; decides nothing.
    """
    entry, outcome = pattern.entry, pattern.outcome
    setup_bars = [point.bar for point in entry.setup.points] if entry.setup else []
    first = max(0, min([entry.bar - _BARS_BEFORE, *(bar - 5 for bar in setup_bars)]))
    last = min(len(bars), max(entry.bar, outcome.exit_bar if outcome else 0) + _BARS_AFTER)
    window = slice(first, last)
    neighbours = tuple(
        NeighbourView(
            symbol=found.entry.symbol,
            timeframe=found.entry.timeframe,
            strategy=found.entry.strategy,
            detection_at=found.entry.detection_at,
            distance=neighbour.distance,
            is_win=neighbour.is_win,
            r_multiple=neighbour.r_multiple,
        )
        for neighbour in decision.neighbours
        if (found := past.get(neighbour.pattern_id)) is not None
    )
    return DecisionCard(
        title=f"{entry.strategy}: {entry.pattern_type.replace('_', ' ')} on {entry.symbol} {entry.timeframe}",
        is_synthetic=is_synthetic,
        pattern_id=pattern.pattern_id,
        strategy=entry.strategy,
        symbol=entry.symbol,
        timeframe=entry.timeframe,
        side=entry.side,
        detection_at=entry.detection_at,
        action=decision.action,
        reason=decision.reason,
        confidence=decision.confidence,
        threshold=decision.threshold,
        model=decision.model,
        opened_at=bars.opened_at[window],
        open=bars.open[window],
        high=bars.high[window],
        low=bars.low[window],
        close=bars.close[window],
        entry_row=entry.bar - first,
        exit_row=outcome.exit_bar - first if outcome else None,
        stop_px=entry.stop_px,
        target_px=entry.target_px,
        points=tuple((p.bar - first, p.px, f"P{i}") for i, p in enumerate(entry.setup.points, 1))
        if entry.setup
        else (),
        exit_reason=outcome.exit_reason if outcome else None,
        r_multiple=outcome.r_multiple if outcome else None,
        neighbours=neighbours,
        contributions=tuple(decision.contributions),
        confidence_low=decision.low,
        confidence_high=decision.high,
        base_rate=decision.base_rate,
        n_known=decision.n_known,
        bucket=decision.bucket,
        risk_frac=decision.risk_frac,
    )
