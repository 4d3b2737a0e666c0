"""A pattern as lines of text for a person who labels it: what it is, its chart, its setup, its market in words."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from qml_plugin.cli.candles import chart_lines
from qml_plugin.clock import isoformat
from qml_plugin.report import words
from qml_plugin.report.views import PatternView

_HEIGHT_WITHOUT_BARS = 9


def pattern_lines(view: PatternView, width: int, height: int) -> list[str]:
    """Everything that a terminal shows of a pattern; no line longer than `width` cells.

    Parameters
    ----------
    view : PatternView
        What to show. Characters in its texts that would command the terminal are replaced.
    width : int, cells, >= 1
    height : int, lines of the price chart
    """
    side = "long" if view.side > 0 else "short"
    lines = wrapped(f"{view.symbol} {view.timeframe} · {side} · {view.pattern_type} · {view.strategy}", width)
    label = f" · labelled {view.label}" if view.label else ""
    # Without bars there is no axis of times.
    decided = "" if view.has_bars else f" · decided {isoformat(view.detection_at).removesuffix(' 00:00')}"
    lines += wrapped(f"{view.pattern_id}{decided}{label}", width)
    lines += chart_lines(view, width, height if view.has_bars else min(height, _HEIGHT_WITHOUT_BARS))
    for text in _notes(view):
        lines += wrapped(text, width)
    return lines


def wrapped(text: str, width: int) -> list[str]:
    """Text in lines of at most `width` cells, without characters that would command a terminal."""
    shown = "".join(char if char.isprintable() else "\ufffd" for char in text)
    console = Console(width=width, color_system=None)
    return [line.plain.rstrip() for line in Text(shown).wrap(console, width, overflow="fold")]


def _notes(view: PatternView) -> list[str]:
    notes = []
    if not view.has_bars:
        notes.append("No bars around it are kept here: its setup and its levels only. --data FILE draws the bars.")
    if view.points:
        named = zip(view.points, view.point_words, strict=True)
        notes.append(" · ".join(f"{name[1:]} {word} {px:.6g}" for (_, px, name), word in named))
    if view.is_future_hidden:
        notes.append("What came after the decision is hidden.")
    elif view.exit_reason is not None:
        mark = "◆ " if view.exit_row is not None else ""
        later = "" if view.exit_row is None else f" {view.exit_row - view.entry_row} bars after the decision."
        notes.append(f"{mark}{words.outcome(view)}{later}")
    else:
        notes.append("Its barriers have not ended it.")
    if view.trade_outcome is not None:
        notes.append(f"Result of its trade: {words.number(view.trade_outcome, signed=True)} %.")
    notes.append(" · ".join(text for _, text in view.key_features) or "No feature of it has a value.")
    return notes
