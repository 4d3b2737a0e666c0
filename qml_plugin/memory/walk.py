"""One walk through a series: bars so far and an entry in, a decision out."""

from __future__ import annotations

import math

import numpy as np

from qml_plugin.bars import Bars
from qml_plugin.clock import isoformat
from qml_plugin.errors import FeatureMismatch, LookAheadError
from qml_plugin.features import CATALOGUE, FEATURE_SET, entry_features, market_features
from qml_plugin.gate import Verdict
from qml_plugin.labels.outcomes import barrier_outcome, last_resolving_bar
from qml_plugin.memory.past import NEIGHBOUR_FEATURES, Past, Resolved, schedule_size
from qml_plugin.memory.policy import Policy
from qml_plugin.records import Decision, Entry, FloatArray, KnownPatterns, Outcome, Pattern

MODEL_INPUTS = (*(feature.name for feature in CATALOGUE), "entry_side", *NEIGHBOUR_FEATURES)

_N_CONTRIBUTIONS = 8


class PatternMemory:
    """Decides entries of one series from the patterns whose outcome is known at each moment.

    Parameters
    ----------
    bars : Bars
        The whole series; row t of what is computed from it reads bars[: t + 1] only.
    known : KnownPatterns, optional
        Snapshot of a registry; None starts without a past.
    policy : Policy, optional

    Point in time
    -------------
    `decide` uses bars up to ``entry.bar`` and patterns with ``resolved_at <= entry.known_at``.

    Raises
    ------
    FeatureMismatch
        If `known` holds another feature set than this version computes.
    """

    def __init__(self, bars: Bars, known: KnownPatterns | None = None, policy: Policy | None = None) -> None:
        known = known if known is not None else KnownPatterns.empty(FEATURE_SET, len(CATALOGUE))
        if known.feature_set != FEATURE_SET:
            raise FeatureMismatch(
                f"the snapshot holds feature set {known.feature_set[:12]}, this version computes {FEATURE_SET[:12]}. "
                "Record the history again with this version: patterns of other feature sets stay in the registry."
            )
        self.bars = bars
        self.policy = policy or Policy()
        self.decisions: dict[str, Decision] = {}
        self._entries: dict[str, tuple[Entry, FloatArray]] = {}
        self._open: dict[str, Entry] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._market: FloatArray | None = None
        self._past = Past(known)
        self._judged_at = (-1, math.nan)
        self._verdict: Verdict | None = None
        self._as_of = np.iinfo(np.int64).min

    def decide(self, entry: Entry) -> Decision:
        """What to do with an entry, from what is known at its ``known_at``.

        The same entry asked twice gives the same decision. Entries must come in time order.

        Raises
        ------
        LookAheadError
            If `entry` is older than one already decided: the memory has moved on and would know too much.
        """
        if entry.pattern_id in self.decisions:
            return self.decisions[entry.pattern_id]
        if entry.known_at < self._as_of:
            raise LookAheadError(
                f"entry of {isoformat(entry.known_at)} came after one of {isoformat(int(self._as_of))}. "
                "A memory only moves forwards; sort the entries by time, or use a new PatternMemory."
            )
        self._as_of = entry.known_at
        features = self._features(entry)
        if self.policy.mode == "record":
            decision = Decision(entry.pattern_id, "take", "record_only")
        else:
            self._advance(entry)
            decision = self._score(entry, features)
        self._entries[entry.pattern_id] = (entry, features)
        self._open[entry.pattern_id] = entry
        self.decisions[entry.pattern_id] = decision
        return decision

    def withdraw(self, pattern_id: str) -> None:
        """Forget an entry that the host refused."""
        for book in (self.decisions, self._entries, self._open):
            book.pop(pattern_id, None)

    def patterns(self) -> list[Pattern]:
        """Every entry decided, in time order, with its barrier outcome where the bars resolve it.

        Reads the whole series, and leaves the walk as it is: later decisions do not change by looking.
        """
        last_bar = len(self.bars) - 1
        return [
            Pattern(
                entry=entry,
                features=features,
                feature_set=FEATURE_SET,
                outcome=self._outcomes.get(pattern_id) or barrier_outcome(entry, self.bars, through_bar=last_bar),
                confidence=self.decisions[pattern_id].confidence,
            )
            for pattern_id, (entry, features) in self._entries.items()
        ]

    def _features(self, entry: Entry) -> FloatArray:
        if self._market is None:
            self._market = market_features(self.bars)
        return entry_features(self.bars, self._market[entry.bar], entry)

    def _resolve_open(self, through_bar: int) -> dict[str, Outcome]:
        """Outcomes that became known by the close of `through_bar`; entries that can no longer fill are dropped."""
        resolved: dict[str, Outcome] = {}
        for pattern_id, entry in list(self._open.items()):
            outcome = barrier_outcome(entry, self.bars, through_bar=through_bar)
            if outcome is not None:
                resolved[pattern_id] = outcome
            if outcome is not None or through_bar > last_resolving_bar(entry):
                del self._open[pattern_id]
        self._outcomes |= resolved
        return resolved

    def _advance(self, entry: Entry) -> None:
        own = [
            Resolved(
                pattern_id=pattern_id,
                group=f"{entry.symbol}|{entry.timeframe}",
                side=self._entries[pattern_id][0].side,
                known_at=self._entries[pattern_id][0].known_at,
                resolved_at=outcome.resolved_at,
                is_win=outcome.is_win,
                r_multiple=outcome.r_multiple,
                features=self._entries[pattern_id][1].astype(np.float32),
            )
            for pattern_id, outcome in self._resolve_open(entry.bar).items()
        ]
        self._past.advance(entry.known_at, own, self.decisions)
        self._past.open_epoch(self.policy)

    def _score(self, entry: Entry, features: FloatArray) -> Decision:
        past, policy = self._past, self.policy
        neighbours, similar = past.neighbours(
            features.astype(np.float32), entry.side, entry.known_at, policy.n_neighbours
        )
        known = {"n_known": len(past), "neighbours": neighbours}
        if past.model is None:
            return Decision(entry.pattern_id, "abstain", past.why_no_model(), **known)  # type: ignore[arg-type]
        row = np.concatenate([features, [entry.side], similar]).astype(np.float32)
        confidence = float(past.model.predict(row[None, :])[0])
        threshold = policy.min_confidence if policy.min_confidence is not None else past.break_even
        verdict = self._judge(threshold)
        if not verdict.is_active:
            action, reason = "abstain", verdict.reason
        elif past.model.name == "base_rate":
            action, reason = "abstain", "no_skill: no model beats the base rate now"
        elif confidence >= threshold:
            action, reason = "take", f"confident: {confidence:.3f} >= {threshold:.3f}"
        elif policy.mode == "shadow":
            action, reason = "take", f"would_skip: {confidence:.3f} < {threshold:.3f}"
        else:
            action, reason = "skip", f"unconvinced: {confidence:.3f} < {threshold:.3f}"
        return Decision(
            entry.pattern_id,
            action,
            reason,
            confidence=confidence,
            base_rate=past.base_rate(),
            threshold=threshold,
            model=past.model.name,
            contributions=_largest(past.model.contributions(row)),
            n_known=len(past),
            neighbours=neighbours,
        )

    def _judge(self, threshold: float) -> Verdict:
        """Verdict on the past scores, renewed when they have grown by a fifth: each look is a chance to err."""
        past = self._past
        n_scored = schedule_size(past.n_scored)
        if self._verdict is None or (n_scored, threshold) != self._judged_at:
            self._verdict = past.judge(n_scored, threshold, self.policy)
            self._judged_at = (n_scored, threshold)
        return self._verdict


def _largest(contributions: FloatArray) -> tuple[tuple[str, float], ...]:
    order = np.argsort(-np.abs(contributions), kind="stable")[:_N_CONTRIBUTIONS]
    return tuple((MODEL_INPUTS[i], float(contributions[i])) for i in order)
