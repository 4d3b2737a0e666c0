"""Whether the confidences have earned the right to skip entries, and whether they still deserve it."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from qml_plugin.errors import DataError

_CERTAIN = 1e-6
_LEAST_NATS = 2.0
_HORIZON = 75


@dataclass(frozen=True, slots=True)
class Requirements:
    """What past scores must show before the gate may skip an entry.

    ``min_labels`` counts effective labels (summed weights), ``min_per_class`` wins and losses each. ``level`` bounds
    the chance that a gate without skill ever becomes active, however often it is asked.
    """

    min_labels: float = 200.0
    min_per_class: int = 50
    level: float = 0.10


REQUIREMENTS = Requirements()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the gate is active, and why.

    ``reason`` is ``"active"``, or the first requirement not met and the numbers seen. ``evidence`` is the weighted log
    of the odds by which the confidences beat the base rate, in nats; ``brier_skill`` a share, NaN before any score.
    """

    is_active: bool
    reason: str
    effective_labels: float
    evidence: float
    brier_skill: float


class Evidence:
    """A running account of how much better than the base rate the confidences foretold the outcomes.

    Each entry adds ``log(P / Q)``, where P and Q are the probabilities that its confidence and the base rate known at
    the time gave to what happened. If the confidences know nothing, the exponential of the sum has mean 1 or less at
    all times, so by Ville's inequality it ever reaches ``1 / level`` with probability ``level`` at most: the gate may be
    asked after every entry without charge. An entry counts as far as its label's interval is not covered by labels that
    resolved earlier in its group, so that the same price move is not counted twice.

    The gate becomes active when the sum reaches ``log(1 / level)``. It lets go when the sum, each entry counted in
    full, has fallen since its best by 2 nats or, if that is more, by 1 nat plus what the confidences promised over 75
    entries; and it returns when the sum has risen by 2 nats since its lowest. Falls are counted in full because
    letting go too early costs less than holding on.

    Parameters
    ----------
    requirements : Requirements

    Point in time
    -------------
    A verdict reads the entries added so far. Add each when its outcome is known, in the order in which they resolved.

    References
    ----------
    Ville (1939), Étude critique de la notion de collectif, ch. 5; Shafer (2021), Testing by betting, JRSS A 184(2),
    §2; Page (1954), Continuous inspection schemes, Biometrika 41, §2 (the fall since the best). Differs in: the base
    rate is estimated, and overlapping labels are weighted, so the bound holds approximately; it is measured by
    simulation.
    """

    def __init__(self, requirements: Requirements = REQUIREMENTS) -> None:
        self.requirements = requirements
        self.n_wins = self.n_losses = 0
        self.effective_labels = self.evidence = 0.0
        self.is_active = self.was_active = False
        self._in_full = 0.0
        self._best = self._lowest = 0.0
        self._promised: deque[float] = deque(maxlen=_HORIZON)
        self._brier = self._reference_brier = 0.0
        self._covered: dict[str, list[tuple[int, int]]] = {}

    def add(
        self, confidence: float, reference: float, is_win: bool, known_at: int, resolved_at: int, group: str = ""
    ) -> None:
        """Count one entry whose outcome has become known.

        Parameters
        ----------
        confidence, reference : float, 0..1
            P(win) as given at the time, and the base rate known then.
        is_win : bool
            The outcome.
        known_at, resolved_at : int, UTC microseconds
            The interval of its label; ``resolved_at`` never goes backwards within a group.
        group : str
            Labels of different groups do not overlap.

        Raises
        ------
        DataError
            If a probability lies outside 0..1, the interval is none, or an earlier resolution follows a later one.
        """
        for name, p in (("confidence", confidence), ("reference", reference)):
            if not 0 <= p <= 1:
                raise DataError(f"{name} is {p}. It is a probability: use 0 to 1, and leave entries without one out.")
        weight = self._uncovered(known_at, resolved_at, group)
        confidence, reference = (min(max(p, _CERTAIN), 1 - _CERTAIN) for p in (confidence, reference))
        gain = math.log(confidence / reference) if is_win else math.log((1 - confidence) / (1 - reference))
        self.n_wins += is_win
        self.n_losses += not is_win
        self.effective_labels += weight
        self.evidence += weight * gain
        self._in_full += gain
        self._brier += weight * (confidence - is_win) ** 2
        self._reference_brier += weight * (reference - is_win) ** 2
        self._promised.append(
            confidence * math.log(confidence / reference)
            + (1 - confidence) * math.log((1 - confidence) / (1 - reference))
        )
        self._move()

    def verdict(self) -> Verdict:
        """Whether the gate is active now, and why."""
        requirements = self.requirements
        skill = 1 - self._brier / self._reference_brier if self._reference_brier > 0 else math.nan
        needed = -math.log(requirements.level)
        if self.is_active:
            reason = "active"
        elif self.effective_labels < requirements.min_labels:
            reason = f"few_labels: {math.floor(self.effective_labels)} of {requirements.min_labels:g} effective"
        elif min(self.n_wins, self.n_losses) < requirements.min_per_class:
            kind = f"{self.n_wins} of {requirements.min_per_class} wins"
            if self.n_losses < self.n_wins:
                kind = f"{self.n_losses} of {requirements.min_per_class} losses"
            reason = f"one_class: {kind}"
        elif self.was_active:
            reason = f"no_skill: let go, regained {self.evidence - self._lowest:.1f} of {_LEAST_NATS:.1f} nats"
        else:
            reason = f"no_skill: evidence {self.evidence:.1f} of {needed:.1f} nats, Brier skill {skill:.3f}"
        return Verdict(self.is_active, reason, self.effective_labels, self.evidence, skill)

    def _move(self) -> None:
        """Become active, let go or return."""
        if self.is_active:
            self._best = max(self._best, self._in_full)
            promised = 1 + _HORIZON * sum(self._promised) / len(self._promised)
            if self._best - self._in_full >= max(_LEAST_NATS, promised):
                self.is_active, self._lowest = False, self.evidence
            return
        self._lowest = min(self._lowest, self.evidence)
        if self.was_active:
            self.is_active = self.evidence - self._lowest >= _LEAST_NATS
        else:
            requirements = self.requirements
            self.is_active = (
                self.effective_labels >= requirements.min_labels
                and min(self.n_wins, self.n_losses) >= requirements.min_per_class
                and self.evidence >= -math.log(requirements.level)
                and self._brier < self._reference_brier
            )
        if self.is_active:
            self.was_active, self._best = True, self._in_full

    def _uncovered(self, known_at: int, resolved_at: int, group: str) -> float:
        """Share of a label's interval that no earlier label of the group covers; 0 or 1 for one of no length."""
        spans = self._covered.setdefault(group, [])
        if resolved_at < known_at or (spans and resolved_at < spans[-1][1]):
            raise DataError(
                f"a label from {known_at} to {resolved_at} came after one that resolved at "
                f"{spans[-1][1] if spans else known_at}. Add labels in the order in which they resolved."
            )
        covered, first = 0, known_at
        is_covered = bool(spans) and spans[-1][1] >= known_at
        while spans and spans[-1][1] >= known_at:
            begin, end = spans.pop()
            covered += end - max(begin, known_at)
            first = min(first, begin)
        spans.append((first, resolved_at))
        length = resolved_at - known_at
        return (length - covered) / length if length else float(not is_covered)
