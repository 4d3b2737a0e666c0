"""One walk through a series: bars so far and an entry in, a decision out."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from qml_plugin.bars import Bars
from qml_plugin.clock import isoformat
from qml_plugin.errors import DataError, FeatureMismatch, LookAheadError
from qml_plugin.features import CATALOGUE, MarketFeatures, entry_features
from qml_plugin.features.kernels import wilder_atr
from qml_plugin.gate import Judgement, kelly_risk_frac
from qml_plugin.gate.predictor import XGBoostPredictor
from qml_plugin.labels.outcomes import barrier_outcome, barriers_for, fill_bar, last_resolving_bar
from qml_plugin.memory.explained import Explained
from qml_plugin.memory.past import NEIGHBOUR_FEATURES, Resolved
from qml_plugin.memory.policy import Policy
from qml_plugin.memory.pooled import PooledPast
from qml_plugin.records import (
    BarrierRule,
    Decision,
    Entry,
    FloatArray,
    KnownPatterns,
    Neighbour,
    Outcome,
    Pattern,
    Setup,
)


class PatternMemory:
    """Decides entries of one series from the patterns whose outcome is known at each moment.

    Parameters
    ----------
    bars : Bars
        The whole series; row t of what is computed from it reads bars[: t + 1] only.
    known : KnownPatterns, optional
        Snapshot of a registry; None starts without a past.
    policy : Policy, optional
    frozen : XGBoostPredictor, optional
        A model that was trained once and decides in the place of the gate: below ``policy.min_confidence`` an entry is
        skipped.
    market : MarketFeatures, optional
        Of `bars`, where several memories walk over them: the features are then computed once.
    pool : PooledPast, optional
        A past to share with memories of other series; it has the snapshot and the policy. Entries of all of them must then
        come in time order.

    Attributes
    ----------
    decisions : dict of str to Decision
        By pattern id, in time order.
    n_late : int
        How many entries had the search of their neighbours cut short by ``policy.deadline_s``.

    Point in time
    -------------
    `decide` uses bars up to ``entry.bar`` and patterns with ``resolved_at <= entry.known_at``, of a pool those of every
    series.

    Raises
    ------
    FeatureMismatch
        If `known` holds another feature set than this version computes.
    DataError
        If `bars` are none, `market` is of others, there is a frozen model and no ``min_confidence``, or `known` or
        `policy` comes beside a pool.
    """

    def __init__(
        self,
        bars: Bars,
        known: KnownPatterns | None = None,
        policy: Policy | None = None,
        *,
        frozen: XGBoostPredictor | None = None,
        market: MarketFeatures | None = None,
        pool: PooledPast | None = None,
    ) -> None:
        if not isinstance(bars, Bars):
            raise DataError(
                f"a memory walks over Bars, not over a {type(bars).__name__}. "
                "Use qml_plugin.bars.bars_from_frame(frame, symbol=..., timeframe=...)."
            )
        if market is not None and market.bars is not bars:
            raise DataError("the market features given are of other bars. Use MarketFeatures(bars) of the same bars.")
        if pool is not None and (known is not None or policy is not None):
            raise DataError("a memory in a pool has the pool's snapshot and policy. Give them to PooledPast alone.")
        self._pool = pool if pool is not None else PooledPast(known, policy)
        self.bars = bars
        self.policy = self._pool.policy
        if frozen is not None and self.policy.min_confidence is None:
            raise DataError(
                "a frozen model was given without min_confidence. Say below which P(win) an entry is skipped."
            )
        self._frozen = frozen
        self.decisions: dict[str, Decision] = {}
        self.n_late = 0
        self._entries: dict[str, tuple[Entry, FloatArray]] = {}
        self._open: dict[str, Entry] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._cancelled: set[str] = set()
        self._market = market
        self._feature_set = CATALOGUE.feature_set
        self._model_inputs = (*CATALOGUE.names, "entry_side", *NEIGHBOUR_FEATURES)
        self._entry_bars: dict[str, list[int]] = {}
        self._atr: FloatArray | None = None
        self._past = self._pool.past
        self._explained: Explained | None = None
        self._pool.join(self)

    def entry(
        self,
        bar: int,
        side: int,
        *,
        stop_px: float | None = None,
        target_px: float | None = None,
        limit_px: float | None = None,
        trigger_px: float | None = None,
        fill: str = "open",
        strategy: str = "",
        setup: Setup | None = None,
        rule: BarrierRule | None = None,
    ) -> Entry:
        """An entry at the close of `bar` of this series, with its times and the barriers that it lacks filled in.

        Parameters
        ----------
        bar : int
            Decision bar, 0 the first.
        side : {+1, -1}
        stop_px, target_px : float, optional, price units
            Barriers of the order; a missing one comes from `rule`.
        limit_px, trigger_px : float, optional, price units
            Of a pending order.
        fill : {"open", "close"}, default="open"
            Where a market order fills: at the next open or at this close.
        strategy : str
        setup : Setup, optional
            Names the pattern and brings its geometry.
        rule : BarrierRule, optional

        Returns
        -------
        Entry

        Point in time
        -------------
        Reads bars up to `bar`.

        Raises
        ------
        DataError
            If `bar` lies outside the series, or `side` or `fill` is unknown.
        """
        bars, rule = self.bars, rule or BarrierRule()
        if not 0 <= bar < len(bars):
            raise DataError(
                f"entry at bar {bar} lies outside the {len(bars)} bars of {bars.symbol}. Bars count from 0."
            )
        if side not in (+1, -1) or fill not in ("open", "close"):
            raise DataError(
                f"side {side!r} with fill {fill!r} is no entry. Use side +1 or -1, and fill 'open' or 'close'."
            )
        close = float(bars.close[bar])
        reference = limit_px or trigger_px or close
        if not reference > 0:  # such an order never fills, but it must not break a run
            reference = close
        stop, target = barriers_for(side, reference, self._atr_at(bar), rule, stop_px, target_px)
        return Entry(
            symbol=bars.symbol,
            timeframe=bars.timeframe,
            strategy=strategy,
            pattern_type=setup.pattern_type if setup else "long_signal" if side > 0 else "short_signal",
            side=side,
            bar=bar,
            detection_at=int(bars.opened_at[bar]),
            known_at=int(bars.known_at[bar]),
            reference_px=reference,
            stop_px=stop,
            target_px=target,
            rule=rule,
            limit_px=limit_px,
            trigger_px=trigger_px,
            fill=fill,
            setup=setup,
        )

    def decide(self, entry: Entry) -> Decision:
        """What to do with an entry, from what is known at its ``known_at``.

        The same entry asked twice gives the same decision. Entries must come in time order.

        Raises
        ------
        DataError
            If `entry` is not of this series; `entry` makes one that is.
        LookAheadError
            If `entry` is older than one already decided: the memory has moved on and would know too much.
        """
        self._refuse_foreign(entry)
        pattern_id = entry.pattern_id
        if pattern_id in self.decisions:
            return self.decisions[pattern_id]
        if entry.known_at < self._pool.as_of:
            raise LookAheadError(
                f"entry of {isoformat(entry.known_at)} came after one of {isoformat(self._pool.as_of)}. "
                "A memory only moves forwards; sort the entries by time, or use a new PatternMemory."
            )
        self._pool.as_of = entry.known_at
        features = self._features(entry)
        if self.policy.mode == "record":
            decision = Decision(pattern_id, "take", "record_only")
        else:
            self._pool.advance(entry.known_at)
            decision = self._score(pattern_id, entry, features)
        self._entries[pattern_id] = (entry, features)
        self._entry_bars.setdefault(entry.strategy, []).append(entry.bar)
        self._open[pattern_id] = entry
        self.decisions[pattern_id] = decision
        return decision

    def withdraw(self, pattern_id: str) -> None:
        """Forget an entry that the host refused."""
        if pattern_id in self._entries:
            entry = self._entries[pattern_id][0]
            self._entry_bars[entry.strategy].remove(entry.bar)
        for book in (self.decisions, self._entries, self._open):
            book.pop(pattern_id, None)

    def cancel(self, pattern_id: str, bar: int) -> None:
        """The order of an entry was cancelled at the close of `bar`: one that had not filled gets no outcome."""
        entry = self._open.get(pattern_id)
        if entry is not None and fill_bar(entry, self.bars, through_bar=bar) is None:
            del self._open[pattern_id]
            self._cancelled.add(pattern_id)

    def patterns(self) -> list[Pattern]:
        """Every entry decided, in time order, with its barrier outcome where the bars resolve it.

        Reads the whole series, and leaves the walk as it is: later decisions do not change by looking.
        """
        last_bar = len(self.bars) - 1
        return [
            Pattern(
                entry=entry,
                features=features,
                feature_set=self._feature_set,
                outcome=self._outcomes.get(pattern_id) or self._outcome_by(pattern_id, entry, last_bar),
                confidence=self.decisions[pattern_id].confidence,
            )
            for pattern_id, (entry, features) in self._entries.items()
        ]

    def newly_resolved(self, as_of: int) -> list[Resolved]:
        """Entries of this series that teach, and whose outcome has become known by `as_of` since this was last asked."""
        through_bar = int(np.searchsorted(self.bars.known_at, as_of, side="right")) - 1
        return [
            Resolved(
                pattern_id=pattern_id,
                group=f"{self.bars.symbol}|{self.bars.timeframe}",
                side=self._entries[pattern_id][0].side,
                known_at=self._entries[pattern_id][0].known_at,
                resolved_at=outcome.resolved_at,
                is_win=outcome.is_win,
                r_multiple=outcome.r_multiple,
                features=self._entries[pattern_id][1].astype(np.float32),
            )
            for pattern_id, outcome in self._resolve_open(through_bar).items()
            if self.policy.teachers == "shadow" or self.decisions[pattern_id].is_taken
        ]

    def _refuse_foreign(self, entry: Entry) -> None:
        bars = self.bars
        is_inside = 0 <= entry.bar < len(bars)
        if not is_inside or entry.known_at != bars.known_at[entry.bar] or entry.symbol != bars.symbol:
            raise DataError(
                f"the entry of {entry.symbol} at bar {entry.bar}, known at {isoformat(entry.known_at)}, is not of the "
                f"{len(bars)} bars of {bars.symbol} {bars.timeframe} that this memory walks. Make entries with memory.entry()."
            )

    def _atr_at(self, bar: int) -> float:
        """ATR(14), or the mean range so far while it warms up."""
        bars = self.bars
        if self._atr is None:
            self._atr = wilder_atr(bars.high, bars.low, bars.close, 14)
        atr = float(self._atr[bar])
        return atr if math.isfinite(atr) else float(np.mean(bars.high[: bar + 1] - bars.low[: bar + 1]))

    def _outcome_by(self, pattern_id: str, entry: Entry, bar: int) -> Outcome | None:
        return None if pattern_id in self._cancelled else barrier_outcome(entry, self.bars, through_bar=bar)

    def _features(self, entry: Entry) -> FloatArray:
        if CATALOGUE.feature_set != self._feature_set:
            raise FeatureMismatch(
                "features were added or removed during the run. Register features of your own before it begins."
            )
        if self._market is None:
            self._market = MarketFeatures(self.bars)
        before = self._entry_bars.get(entry.strategy)
        return entry_features(self._market, entry, last_entry_bar=before[-1] if before else None)

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

    def _score(self, pattern_id: str, entry: Entry, features: FloatArray) -> Decision:
        past = self._past
        neighbours, similar, is_late = past.neighbours(features.astype(np.float32), entry.side, entry.known_at)
        if self._frozen is not None:
            return self._score_frozen(self._frozen, pattern_id, entry, features, neighbours)
        row = np.concatenate([features, [entry.side], similar]).astype(np.float32)
        nearest = neighbours[0].distance if neighbours else math.nan
        said = self._staked(past.gate.judge(row, entry.known_at, distance=nearest, is_late=is_late))
        self.n_late += is_late
        action, reason = self._allowed(said)
        model = past.gate.model
        if model is None:
            return Decision(pattern_id, action, reason, n_known=said.n_known, neighbours=neighbours)
        if self._explained is None or self._explained.model is not model:
            self._explained = Explained(model, self._model_inputs)
        return Decision(
            pattern_id,
            action,
            reason,
            confidence=said.confidence,
            base_rate=said.base_rate,
            threshold=said.threshold,
            model=said.model,
            contributions=() if model.name == "base_rate" else self._explained.add(row),
            n_known=said.n_known,
            neighbours=neighbours,
            low=said.low,
            high=said.high,
            bucket=said.bucket,
            risk_frac=self._risk_frac(said),
        )

    def _score_frozen(
        self,
        frozen: XGBoostPredictor,
        pattern_id: str,
        entry: Entry,
        features: FloatArray,
        neighbours: tuple[Neighbour, ...],
    ) -> Decision:
        """The decision of a model that was trained once; it refuses entries from before what it has seen."""
        row = dict(zip(CATALOGUE.names, features.tolist(), strict=True))
        confidence, threshold = (
            float(frozen.predict(row, as_of=entry.known_at)),
            float(self.policy.min_confidence or 0.0),
        )
        if frozen.card.speaks == "base_rate":
            action, reason = "abstain", "no_skill: the frozen model only knows its base rate"
            if self.policy.on_abstain == "fail_closed":
                action, reason = "skip", f"{reason} (fail_closed)"
        elif confidence >= threshold:
            action, reason = "take", f"confident: {confidence:.3f} >= {threshold:.3f}"
        else:
            action, reason = "skip", f"unconvinced: {confidence:.3f} < {threshold:.3f}"
        said = self._staked(
            Judgement(action, reason, confidence, threshold=threshold, base_rate=frozen.card.base_rate, model="frozen")
        )
        action, reason = self._allowed(said)
        return Decision(
            pattern_id,
            action,
            reason,
            confidence=confidence,
            base_rate=frozen.card.base_rate,
            threshold=threshold,
            model="frozen",
            n_known=len(self._past),
            neighbours=neighbours,
            risk_frac=self._risk_frac(said),
        )

    def _risk_frac(self, said: Judgement) -> float | None:
        """Share of equity that an entry which the gate takes is to put at risk; None where sizes do not follow confidence."""
        fraction = self.policy.kelly_fraction
        if fraction is None or said.action != "take" or (payoff := self._past.gate.payoff) is None:
            return None
        return float(kelly_risk_frac(said.confidence, *payoff, fraction=fraction, cap_frac=self.policy.risk_cap_frac))

    def _staked(self, said: Judgement) -> Judgement:
        """What the gate said, but that an entry which deserves no stake is skipped."""
        if self._risk_frac(said) != 0:
            return said
        win_r, loss_r = self._past.gate.payoff or (math.nan, math.nan)
        reason = f"no_stake: P(win) {said.confidence:.3f}, wins of {win_r:.2f} R and losses of {loss_r:.2f} R"
        return replace(said, action="skip", reason=reason)

    def _allowed(self, said: Judgement) -> tuple[str, str]:
        """Action and reason of what the gate said; in the mode shadow nothing is skipped."""
        if said.action != "skip" or self.policy.mode != "shadow":
            return said.action, said.reason
        code, _, detail = said.reason.partition(": ")
        return "take", f"would_skip: {detail if code == 'unconvinced' else said.reason}"
