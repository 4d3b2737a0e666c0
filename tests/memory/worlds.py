"""Entries made by hand, snapshots made from finished memories, and the memory's slow obvious twin."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from qml_plugin.bars import bars_from_frame
from qml_plugin.features import CATALOGUE, MarketFeatures, entry_features
from qml_plugin.features.kernels import wilder_atr
from qml_plugin.gate import fit_confidence
from qml_plugin.labels.outcomes import barrier_outcome, barriers_for
from qml_plugin.labels.weights import average_uniqueness
from qml_plugin.memory import PatternMemory
from qml_plugin.records import BarrierRule, Entry, KnownPatterns
from qml_plugin.retrieval import Scaler
from tests.gate import naive

CATEGORIES = [feature.category for feature in CATALOGUE]
RULE = BarrierRule(max_bars=30)


def make_bars(frame, symbol="X", timeframe="1h"):
    return bars_from_frame(frame, symbol=symbol, timeframe=timeframe)


def make_entry(bars, bar, side=+1, *, strategy="Cross", rule=RULE, limit_px=None, fill="open"):
    """An order at the close of `bar` with stop and target by the rule."""
    atr = wilder_atr(bars.high, bars.low, bars.close, 14)
    reference = limit_px or float(bars.close[bar])
    stop, target = barriers_for(side, reference, float(atr[bar]), rule)
    return Entry(
        symbol=bars.symbol,
        timeframe=bars.timeframe,
        strategy=strategy,
        pattern_type="long_signal" if side > 0 else "short_signal",
        side=side,
        bar=bar,
        detection_at=int(bars.opened_at[bar]),
        known_at=int(bars.known_at[bar]),
        reference_px=reference,
        stop_px=stop,
        target_px=target,
        rule=rule,
        limit_px=limit_px,
        fill=fill,
    )


def cross_entries(bars, fast=5, slow=20, **options):
    """An entry at every cross of two moving averages, in time order."""
    above = mean(bars.close, fast) > mean(bars.close, slow)
    crosses = [bar for bar in range(slow, len(bars)) if above[bar] != above[bar - 1]]
    return [make_entry(bars, bar, +1 if above[bar] else -1, **options) for bar in crosses]


def mixed_entries(bars):
    """Crosses ordered in every way: at the open, at the close, near and hopeless limits, two on one bar."""
    entries = []
    for i, cross in enumerate(cross_entries(bars)):
        price, side = float(bars.close[cross.bar]), cross.side
        if i % 5 == 1:
            entries.append(make_entry(bars, cross.bar, side, limit_px=price * (1 - side * 0.0005)))
        elif i % 11 == 3:
            entries.append(make_entry(bars, cross.bar, side, limit_px=price * (1 - side * 0.5)))
        elif i % 7 == 2:
            entries.append(make_entry(bars, cross.bar, side, fill="close"))
        else:
            entries.append(cross)
        if i % 13 == 5:
            entries.append(make_entry(bars, cross.bar, -side, strategy="Contrary"))
    return entries


def mean(values, period):
    padded = np.concatenate([np.full(period - 1, np.nan), values])
    return np.array([padded[i : i + period].mean() for i in range(len(values))])


def walk(bars, entries, known=None, policy=None):
    """A memory that has decided all entries."""
    memory = PatternMemory(bars, known, policy)
    for entry in entries:
        memory.decide(entry)
    return memory


def snapshot(patterns, *, has_confidence=True):
    """What a registry would hand out after these patterns were saved."""
    rows = sorted((p for p in patterns if p.outcome), key=lambda p: (p.outcome.resolved_at, p.pattern_id))
    scores = [p.confidence if has_confidence and p.confidence is not None else math.nan for p in rows]
    return KnownPatterns(
        feature_set=CATALOGUE.feature_set,
        pattern_id=tuple(p.pattern_id for p in rows),
        group=tuple(f"{p.entry.symbol}|{p.entry.timeframe}" for p in rows),
        side=np.array([p.entry.side for p in rows], np.int8),
        known_at=np.array([p.entry.known_at for p in rows], np.int64),
        resolved_at=np.array([p.outcome.resolved_at for p in rows], np.int64),
        is_win=np.array([p.outcome.is_win for p in rows], np.bool_),
        r_multiple=np.array([p.outcome.r_multiple for p in rows]),
        confidence=np.array(scores),
        features=np.array([p.features for p in rows], np.float32).reshape(-1, len(CATALOGUE)),
    )


@dataclass
class Row:
    """A resolved pattern as the twin knows it."""

    pattern_id: str
    group: str
    side: int
    known_at: int
    resolved_at: int
    is_win: bool
    r_multiple: float
    features: np.ndarray
    confidence: float


class Twin:
    """Recomputes each decision from nothing but the bars, the entries before it and the scores given before it."""

    def __init__(self, bars, known, policy):
        self.bars, self.known, self.policy = bars, known, policy
        self.market = MarketFeatures(bars)
        self.entries, self.scores, self.fitted = [], {}, {}

    def features(self, entry):
        earlier = itertools.takewhile(lambda other: other is not entry, self.entries)
        before = [other.bar for other in earlier if other.strategy == entry.strategy]
        return entry_features(self.market, entry, last_entry_bar=before[-1] if before else None)

    def visible(self, now):
        """Every resolved pattern of snapshot and run whose outcome is known at `now`, in the memory's order."""
        rows = {}
        for entry in self.entries:
            outcome = barrier_outcome(entry, self.bars, through_bar=now.bar)
            if outcome is not None:
                rows[entry.pattern_id] = Row(
                    entry.pattern_id, f"{entry.symbol}|{entry.timeframe}", entry.side, entry.known_at,
                    outcome.resolved_at, outcome.is_win, outcome.r_multiple,
                    self.features(entry).astype(np.float32), self.scores.get(entry.pattern_id, math.nan),
                )  # fmt: skip
        known = self.known
        for i in range(len(known) if known is not None else 0):
            if known.resolved_at[i] <= now.known_at:
                rows[known.pattern_id[i]] = Row(
                    known.pattern_id[i], known.group[i], int(known.side[i]), int(known.known_at[i]),
                    int(known.resolved_at[i]), bool(known.is_win[i]), float(known.r_multiple[i]),
                    known.features[i], float(known.confidence[i]),
                )  # fmt: skip
        assert all(row.resolved_at <= now.known_at for row in rows.values())
        for row in rows.values():
            row.r_multiple = max(-10.0, min(10.0, row.r_multiple))
        return sorted(rows.values(), key=lambda row: (row.resolved_at, row.pattern_id))

    def nearest(self, scaler, rows, features, side, as_of):
        """(row, distance) of the nearest by brute force, equals in the order in which they resolved."""
        candidates = [row for row in rows if row.side == side and row.resolved_at <= as_of]
        query = scaler.transform(features[None])[0].astype(np.float64)
        distances = [
            math.sqrt(sum((scaler.transform(row.features[None])[0].astype(np.float64) - query) ** 2))
            for row in candidates
        ]
        order = sorted(range(len(candidates)), key=lambda i: (distances[i], i))[: self.policy.n_neighbours]
        return [(candidates[i], distances[i]) for i in order]

    def inputs(self, features, side, found):
        if not found:
            return np.concatenate([features, [side], [np.nan] * 5]).astype(np.float32)
        r = np.array([row.r_multiple for row, _ in found])
        distances = np.array([distance for _, distance in found])
        share = np.mean([row.is_win for row, _ in found])
        return np.concatenate([features, [side], [share, r.mean(), r.std(), distances.min(), distances.mean()]]).astype(
            np.float32
        )

    def epoch(self, rows):
        """(scaler, model, threshold, R that skipping would have saved, distances) of the prefix that the schedule allows."""
        prefix = rows[: schedule(len(rows))]
        if len(prefix) not in self.fitted:
            scaler = Scaler.fit(np.array([row.features for row in prefix]), CATEGORIES) if prefix else None
            wins = np.array([row.is_win for row in prefix])
            model, threshold, saved, distances = None, math.nan, 0.0, []
            if len(prefix) >= 60 and min(wins.sum(), (~wins).sum()) >= 10:
                weight = uniqueness(prefix)
                scored = [
                    (row.confidence, row.r_multiple, row.is_win, w)
                    for row, w in zip(prefix, weight, strict=True) if not math.isnan(row.confidence)
                ]  # fmt: skip
                threshold = naive.threshold(scored, [row.r_multiple for row in prefix], wins)
                if self.policy.min_confidence is not None:
                    threshold = self.policy.min_confidence
                worth = naive.worth_of(scored)
                saved = -sum(w for w, row in zip(worth, scored, strict=True) if row[0] < threshold)
                inputs = np.array([
                    self.inputs(row.features, row.side, self.nearest(scaler, prefix, row.features, row.side, row.known_at))
                    for row in prefix
                ])  # fmt: skip
                distances = [d for d in inputs[:, -2] if not math.isnan(d)]
                model = fit_confidence(
                    inputs, wins, weight,
                    np.array([row.known_at for row in prefix]), np.array([row.resolved_at for row in prefix]),
                    seed=self.policy.seed, model=self.policy.model,
                )  # fmt: skip
            self.fitted[len(prefix)] = (scaler, model, threshold, saved, distances)
        return self.fitted[len(prefix)]

    def base_rate(self, rows, at):
        """Share of wins among what had resolved by then, half a win and half a loss added."""
        before = [row.is_win for row in rows if row.resolved_at <= at]
        return (sum(before) + 0.5) / (len(before) + 1)

    def verdict(self, rows):
        scored = [
            (row.confidence, self.base_rate(rows, row.known_at), row.is_win, row.known_at, row.resolved_at, row.group)
            for row in rows if not math.isnan(row.confidence)
        ]  # fmt: skip
        return naive.account(scored, self.policy.requirements)

    def decide(self, entry):
        """What is expected of the memory's decision, as a dict."""
        rows = self.visible(entry)
        scaler, model, threshold, saved, distances = self.epoch(rows)
        features = self.features(entry).astype(np.float32)
        found = self.nearest(scaler, rows, features, entry.side, entry.known_at) if scaler else []
        expected = {"n_known": len(rows), "neighbours": found, "confidence": None, "model": None}
        if model is None:
            expected |= {"action": "abstain", "code": "few_labels" if schedule(len(rows)) < 60 else "one_class"}
        else:
            base_rate = self.base_rate(rows, entry.known_at)
            confidence = float(model.predict(self.inputs(features, entry.side, found)[None], base_rate)[0])
            is_active, code, *_ = self.verdict(rows)
            as_far = sum(d >= found[0][1] for d in distances) if found else len(distances)
            if not is_active or model.name == "base_rate":
                action, code = "abstain", "no_skill" if is_active else code
            elif saved <= 0:
                action, code = "abstain", "no_gain"
            elif (as_far + 1) / (len(distances) + 1) < 0.005:
                action, code = "abstain", "novel"
            elif confidence >= threshold:
                action, code = "take", "confident"
            else:
                action, code = ("take", "would_skip") if self.policy.mode == "shadow" else ("skip", "unconvinced")
            expected |= {
                "confidence": confidence, "threshold": threshold, "model": model.name, "action": action, "code": code,
                "base_rate": base_rate,
            }  # fmt: skip
            self.scores[entry.pattern_id] = confidence
        self.entries.append(entry)
        return expected


def uniqueness(rows):
    at = np.array([[row.known_at, row.resolved_at] for row in rows], np.int64).reshape(-1, 2)
    return average_uniqueness(at[:, 0], at[:, 1], [row.group for row in rows])


def schedule(n_known):
    """20, then each a fifth more, rounded up: the largest not above `n_known`."""
    sizes = [20]
    while sizes[-1] <= n_known:
        sizes.append((6 * sizes[-1] + 4) // 5)
    return max([0, *(size for size in sizes if size <= n_known)])
