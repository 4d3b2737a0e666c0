"""Answers of a person, pattern by pattern: each committed at once, the last ones undone on request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qml_plugin.features import CATALOGUE
from qml_plugin.registry import PatternRegistry
from qml_plugin.registry.patterns import MIN_LABELS

Mark = tuple[str | None, float | None]


@dataclass(frozen=True, slots=True)
class Answer:
    """What was done with one pattern: label and outcome before and after; the same where it was skipped."""

    pattern_id: str
    before: Mark
    after: Mark


@dataclass(frozen=True, slots=True)
class Progress:
    """``n_left`` patterns without a label, ``n_known`` results to train on, ``n_missing`` until that is possible."""

    n_left: int
    n_known: int
    n_missing: int


class LabellingSession:
    """A queue of patterns and the answers given so far.

    Every answer is one committed transaction before the call returns: whatever ends the program afterwards, it stays.

    Parameters
    ----------
    registry : PatternRegistry
    patterns : sequence of dict
        As from `PatternRegistry.get_patterns`, in the order in which they are shown.

    Examples
    --------
    >>> session = LabellingSession(PatternRegistry("sqlite://"), [])
    >>> session.current is None, session.undo()
    (True, None)
    """

    def __init__(self, registry: PatternRegistry, patterns: Sequence[Mapping[str, Any]]) -> None:
        self._registry = registry
        self._patterns = patterns
        self._answers: list[Answer] = []

    @property
    def current(self) -> Mapping[str, Any] | None:
        """The pattern to be answered next, None at the end."""
        return self._patterns[self.position] if self.position < len(self._patterns) else None

    @property
    def position(self) -> int:
        """How many patterns have been answered or skipped."""
        return len(self._answers)

    @property
    def n_labelled(self) -> int:
        """How many answers changed a pattern and were not undone."""
        return sum(answer.before != answer.after for answer in self._answers)

    def label(self, label: str) -> bool:
        """Label the current pattern and go on to the next.

        Returns
        -------
        bool
            True if it is stored. False if somebody else changed the pattern since it was read: theirs stays.
        """
        pattern = self._patterns[self.position]
        before: Mark = (pattern["user_label"], pattern["trade_outcome"])
        after: Mark = (label, before[1])
        is_stored = self._registry.replace_label(pattern["pattern_id"], *after, seen=before)
        self._answers.append(Answer(pattern["pattern_id"], before, after if is_stored else before))
        return is_stored

    def outcome(self, percent: float) -> bool:
        """Give the pattern that was labelled last its outcome; as `label` otherwise."""
        last = self._answers[-1]
        after: Mark = (last.after[0], percent)
        is_stored = self._registry.replace_label(last.pattern_id, *after, seen=last.after)
        if is_stored:
            self._answers[-1] = Answer(last.pattern_id, last.before, after)
        return is_stored

    def skip(self) -> None:
        """Leave the current pattern as it is and go on to the next."""
        pattern = self._patterns[self.position]
        mark: Mark = (pattern["user_label"], pattern["trade_outcome"])
        self._answers.append(Answer(pattern["pattern_id"], mark, mark))

    def undo(self) -> bool | None:
        """Go back one pattern, and put its label and its outcome back to what they were.

        Returns
        -------
        bool or None
            True if they are back. False if somebody else changed them since: theirs stay. None if there is no answer to
            undo.
        """
        if not self._answers:
            return None
        last = self._answers[-1]
        is_back = last.before == last.after or self._registry.replace_label(
            last.pattern_id, *last.before, seen=last.after
        )
        self._answers.pop()
        return is_back


def progress(registry: PatternRegistry, symbol: str | None = None, timeframe: str | None = None) -> Progress:
    """How far the labels have come.

    Parameters
    ----------
    registry : PatternRegistry
    symbol, timeframe : str, optional
        Count only these as left; whether there is enough to train on is asked of all.

    Returns
    -------
    Progress
        ``n_missing`` is what `PatternRegistry.get_training_data` needs beyond ``n_known`` by default.
    """
    n_known = registry.feature_sets().get(CATALOGUE.feature_set, (0, {}))[0]
    return Progress(registry.count_unlabeled(symbol, timeframe), n_known, max(0, MIN_LABELS - n_known))
