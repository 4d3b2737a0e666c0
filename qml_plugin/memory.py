"""Bars so far and an entry in, a decision out: the memory that every host shares.

A memory walks one series forwards. It is pure: no host, no database, no clock of its own. What it may know at an entry
is what has resolved by then, from the registry's snapshot and from its own run, in one order (``resolved_at``, then
``pattern_id``). Scalers, models and verdicts are functions of a prefix of that order, so a richer snapshot, a rerun
or a longer series cannot change a decision that was already determined.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from qml_plugin.bars import Bars
from qml_plugin.clock import isoformat
from qml_plugin.errors import DataError, FeatureMismatch, LookAheadError
from qml_plugin.features import CATALOGUE, FEATURE_SET, entry_features, market_features
from qml_plugin.gate import ConfidenceModel, Requirements, Verdict, break_even_confidence, fit_confidence, judge
from qml_plugin.labels.outcomes import barrier_outcome, last_resolving_bar
from qml_plugin.labels.weights import average_uniqueness
from qml_plugin.records import Decision, Entry, FloatArray, IntArray, KnownPatterns, Neighbour, Outcome, Pattern
from qml_plugin.retrieval import Scaler, VectorStore

MODES = ("record", "shadow", "gate")
NEIGHBOUR_FEATURES = ("sim_win_share", "sim_mean_r", "sim_std_r", "sim_nearest_distance", "sim_mean_distance")
MODEL_INPUTS = (*(feature.name for feature in CATALOGUE), "entry_side", *NEIGHBOUR_FEATURES)

_FIRST_EPOCH = 20
_FIRST_MODEL = 60
_FEWEST_OF_A_CLASS = 10
_EPOCH_GROWTH = 1.2
_VERDICT_STEP = 10
_N_CONTRIBUTIONS = 8


@dataclass(frozen=True, slots=True)
class Policy:
    """How a memory decides; the defaults are safe.

    ``min_confidence`` is the P(win) below which an entry is skipped, None for the break-even of past wins and losses.
    """

    mode: str = "gate"
    model: str = "auto"
    min_confidence: float | None = None
    n_neighbours: int = 10
    requirements: Requirements = field(default_factory=Requirements)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise DataError(f"mode {self.mode!r} is unknown. Use one of {', '.join(map(repr, MODES))}.")
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise DataError(f"min_confidence is {self.min_confidence}. It is a probability: use 0 to 1, or None.")
        if self.n_neighbours < 1:
            raise DataError(f"n_neighbours is {self.n_neighbours}. At least one neighbour is needed.")


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
        self._past = _Past(known)
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
        """Every entry decided, in time order, with its barrier outcome where the bars resolve it."""
        self._resolve_open(len(self.bars) - 1)
        return [
            Pattern(
                entry=entry,
                features=features,
                feature_set=FEATURE_SET,
                outcome=self._outcomes.get(pattern_id),
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
            _Resolved(
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
        """Verdict on the past scores, renewed with every tenth of them and with the threshold."""
        past = self._past
        n_scored = past.n_scored // _VERDICT_STEP * _VERDICT_STEP
        if self._verdict is None or (n_scored, threshold) != self._judged_at:
            self._verdict = past.judge(n_scored, threshold, self.policy)
            self._judged_at = (n_scored, threshold)
        return self._verdict


@dataclass(frozen=True, slots=True)
class _Resolved:
    pattern_id: str
    group: str
    side: int
    known_at: int
    resolved_at: int
    is_win: bool
    r_multiple: float
    features: NDArray[np.float32]
    confidence: float = math.nan


class _Past:
    """Everything that has resolved by now, in one order, with the scaler, stores and model of the current epoch."""

    def __init__(self, snapshot: KnownPatterns) -> None:
        self._snapshot = snapshot
        self._not_own = snapshot.ignored.union(snapshot.pattern_id)
        self._read = 0
        self._rows: list[_Resolved] = []
        self._n_wins = 0
        self._epoch_size = 0
        self._scaler: Scaler | None = None
        self._stores: dict[int, tuple[VectorStore, list[int]]] = {}
        self._scored: list[int] = []
        self.model: ConfidenceModel | None = None
        self.break_even = math.nan

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def n_scored(self) -> int:
        return len(self._scored)

    def advance(self, as_of: int, own: Sequence[_Resolved], decisions: Mapping[str, Decision]) -> None:
        """Append what has resolved by `as_of`; a pattern that the snapshot holds is taken from there.

        A score that the snapshot lacks is taken from this run's decision, which was made before the outcome.
        """
        fresh = [row for row in own if row.pattern_id not in self._not_own]
        end = int(np.searchsorted(self._snapshot.resolved_at, as_of, side="right"))
        fresh += [self._from_snapshot(i) for i in range(self._read, end)]
        self._read = end
        for row in sorted(fresh, key=lambda row: (row.resolved_at, row.pattern_id)):
            decision = decisions.get(row.pattern_id)
            if math.isnan(row.confidence) and decision is not None and decision.confidence is not None:
                row = replace(row, confidence=decision.confidence)
            if not math.isnan(row.confidence):
                self._scored.append(len(self._rows))
            self._rows.append(row)
            self._n_wins += row.is_win
            if self._scaler is not None:
                self._index([len(self._rows) - 1], self._scaler.transform(row.features[None, :]))

    def open_epoch(self, policy: Policy) -> None:
        """Refit scaler and model when the past has grown by a fifth; both see a prefix of the past only."""
        size = _epoch_size(len(self))
        if size == self._epoch_size:
            return
        self._epoch_size = size
        rows = self._rows[:size]
        features = np.stack([row.features for row in self._rows])
        self._scaler = Scaler.fit(features[:size], [feature.category for feature in CATALOGUE])
        vectors = self._scaler.transform(features)
        self._stores = {}
        self._index(range(len(self)), vectors)
        is_win = np.array([row.is_win for row in rows])
        n_wins = int(is_win.sum())
        self.model = None
        if size >= _FIRST_MODEL and min(n_wins, size - n_wins) >= _FEWEST_OF_A_CLASS:
            r_multiple = np.array([row.r_multiple for row in rows])
            self.break_even = break_even_confidence(r_multiple, is_win)
            self.model = fit_confidence(
                self._training_inputs(rows, vectors, policy.n_neighbours),
                is_win,
                self._uniqueness(rows),
                np.array([row.known_at for row in rows]),
                np.array([row.resolved_at for row in rows]),
                seed=policy.seed,
                model=policy.model,
            )

    def why_no_model(self) -> str:
        """Reason to abstain while nothing has been fitted."""
        if self._epoch_size < _FIRST_MODEL:
            return f"few_labels: {len(self)} of {_FIRST_MODEL} resolved"
        return f"one_class: fewer than {_FEWEST_OF_A_CLASS} wins or losses of {self._epoch_size}"

    def base_rate(self) -> float:
        """Share of wins among everything known now."""
        return self._n_wins / len(self._rows)

    def neighbours(
        self, features: NDArray[np.float32], side: int, as_of: int, k: int
    ) -> tuple[tuple[Neighbour, ...], FloatArray]:
        """The nearest resolved patterns of the same side, and their summary as model inputs."""
        if self._scaler is None:
            return (), _summary([], np.empty(0))
        found, distances = self._nearest(self._scaler.transform(features[None, :])[0], side, as_of, k)
        neighbours = tuple(
            Neighbour(row.pattern_id, float(distance), row.resolved_at, row.is_win, row.r_multiple)
            for row, distance in zip(found, distances, strict=True)
        )
        return neighbours, _summary(found, distances)

    def judge(self, n_scored: int, threshold: float, policy: Policy) -> Verdict:
        """Verdict on the first `n_scored` scores whose outcome is known."""
        rows = [self._rows[position] for position in self._scored[:n_scored]]
        resolved_at = np.array([row.resolved_at for row in self._rows])
        n_known = np.searchsorted(resolved_at, [row.known_at for row in rows], side="right")
        wins = np.concatenate([[0], np.cumsum([row.is_win for row in self._rows])])
        return judge(
            np.array([row.confidence for row in rows]),
            threshold,
            np.array([row.is_win for row in rows], dtype=np.bool_),
            np.array([row.r_multiple for row in rows]),
            self._uniqueness(rows),
            np.where(n_known > 0, wins[n_known] / np.maximum(n_known, 1), 0.5),
            seed=policy.seed,
            requirements=policy.requirements,
        )

    def _from_snapshot(self, i: int) -> _Resolved:
        snapshot = self._snapshot
        return _Resolved(
            pattern_id=snapshot.pattern_id[i],
            group=snapshot.group[i],
            side=int(snapshot.side[i]),
            known_at=int(snapshot.known_at[i]),
            resolved_at=int(snapshot.resolved_at[i]),
            is_win=bool(snapshot.is_win[i]),
            r_multiple=float(snapshot.r_multiple[i]),
            features=snapshot.features[i],
            confidence=float(snapshot.confidence[i]),
        )

    def _index(self, positions: Sequence[int], vectors: NDArray[np.float32]) -> None:
        """Add scaled rows to the store of their side."""
        for side in (+1, -1):
            own = [i for i, position in enumerate(positions) if self._rows[position].side == side]
            if own:
                store, places = self._stores.setdefault(side, (VectorStore(vectors.shape[1]), []))
                store.add(vectors[own], np.array([self._rows[positions[i]].resolved_at for i in own]))
                places.extend(positions[i] for i in own)

    def _nearest(
        self, vector: NDArray[np.float32], side: int, as_of: int, k: int
    ) -> tuple[list[_Resolved], FloatArray]:
        if side not in self._stores:
            return [], np.empty(0)
        store, places = self._stores[side]
        hits = store.search(vector, as_of=as_of, k=k)
        return [self._rows[places[row]] for row in hits.rows], hits.distances

    def _training_inputs(self, rows: Sequence[_Resolved], vectors: NDArray[np.float32], k: int) -> NDArray[np.float32]:
        """Features, side and neighbour summaries, each row's neighbours as of the moment it was decided."""
        inputs = [
            np.concatenate([row.features, [row.side], _summary(*self._nearest(vector, row.side, row.known_at, k))])
            for row, vector in zip(rows, vectors[: len(rows)], strict=True)
        ]
        return np.array(inputs, dtype=np.float32)

    @staticmethod
    def _uniqueness(rows: Sequence[_Resolved]) -> FloatArray:
        known_at: IntArray = np.array([row.known_at for row in rows], dtype=np.int64)
        resolved_at: IntArray = np.array([row.resolved_at for row in rows], dtype=np.int64)
        return average_uniqueness(known_at, resolved_at, [row.group for row in rows])


def _epoch_size(n_known: int) -> int:
    """Largest size of the geometric schedule that `n_known` has reached; 0 before the first."""
    size, following = 0, _FIRST_EPOCH
    while following <= n_known:
        size, following = following, math.ceil(following * _EPOCH_GROWTH)
    return size


def _summary(found: Sequence[_Resolved], distances: FloatArray) -> FloatArray:
    """Values of `NEIGHBOUR_FEATURES`; all NaN where there are no neighbours."""
    if not found:
        return np.full(len(NEIGHBOUR_FEATURES), np.nan)
    r_multiple = np.array([row.r_multiple for row in found])
    win_share = sum(row.is_win for row in found) / len(found)
    return np.array([win_share, r_multiple.mean(), r_multiple.std(), distances[0], distances.mean()])


def _largest(contributions: FloatArray) -> tuple[tuple[str, float], ...]:
    order = np.argsort(-np.abs(contributions), kind="stable")[:_N_CONTRIBUTIONS]
    return tuple((MODEL_INPUTS[i], float(contributions[i])) for i in order)
