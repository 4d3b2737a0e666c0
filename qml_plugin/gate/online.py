"""The gate, driven event by event: what became known is learnt, what is asked is judged."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field, replace

import numpy as np

from qml_plugin.clock import isoformat
from qml_plugin.errors import DataError, FeatureMismatch, LookAheadError
from qml_plugin.gate.confidence import ConfidenceModel, fit_confidence
from qml_plugin.gate.evidence import Evidence, Requirements
from qml_plugin.gate.rungs import BoolArray, Float32Array
from qml_plugin.gate.threshold import best_threshold, break_even_confidence, expected_r
from qml_plugin.labels.weights import average_uniqueness
from qml_plugin.records import Bucket, FloatArray

MODELS = ("auto", "logistic", "xgboost")
FAIL = ("fail_open", "fail_closed")

_FIRST_EPOCH = 20
_FIRST_MODEL = 62  # a size of the schedule: 20, 24, 29, 35, 42, 51, 62
_FEWEST_OF_A_CLASS = 10
_GROWTH = 1.2
_NOVELTY_LEVEL = 0.005
_N_BUCKETS = 5
# One order with a stop a hair away must not outweigh all others in a mean.
_MOST_R = 10.0


@dataclass(frozen=True, slots=True)
class GateSettings:
    """How a gate decides; the defaults are safe.

    ``min_confidence`` is the P(win) below which an entry is skipped; None chooses the threshold that would have earned
    most on past scores. ``cost_r`` is the cost of an entry in R as far as the R multiples given do not hold it.
    ``on_abstain`` says what becomes of an entry that the gate cannot judge: ``"fail_open"`` takes it, ``"fail_closed"``
    skips it.
    """

    model: str = "auto"
    min_confidence: float | None = None
    cost_r: float = 0.0
    on_abstain: str = "fail_open"
    requirements: Requirements = field(default_factory=Requirements)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise DataError(f"gate model {self.model!r} is unknown. Use one of {', '.join(map(repr, MODELS))}.")
        if self.on_abstain not in FAIL:
            raise DataError(f"on_abstain {self.on_abstain!r} is unknown. Use one of {', '.join(map(repr, FAIL))}.")
        minimum = self.min_confidence
        if minimum is not None and not (isinstance(minimum, (int, float)) and 0 <= minimum <= 1):
            raise DataError(f"min_confidence is {minimum!r}. It is a probability: use 0 to 1, or None.")
        if not (isinstance(self.cost_r, (int, float)) and 0 <= self.cost_r < math.inf):
            raise DataError(f"cost_r is {self.cost_r!r}. It is a cost in R: use a finite number from 0 on.")
        if not (isinstance(self.seed, int) and 0 <= self.seed < 2**31):
            raise DataError(f"seed is {self.seed!r}. Use a whole number from 0 to 2147483647.")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the gate says of one entry; None or NaN where it has nothing to say.

    ``action`` is ``"take"``, ``"skip"`` or ``"abstain"``; ``reason`` a code, a colon and the numbers seen. ``bucket``
    is what became of past entries of a like confidence.
    """

    action: str
    reason: str
    confidence: float = math.nan
    low: float = math.nan
    high: float = math.nan
    threshold: float = math.nan
    base_rate: float = math.nan
    model: str | None = None
    n_known: int = 0
    bucket: Bucket | None = None


class OnlineGate:
    """Learns outcomes in the order in which they become known, refits when they have grown by a fifth, and judges.

    Three calls make a walk: `learn` each outcome once it is known; `refit` when `due` says so, with the inputs of the
    outcomes learnt first; `judge` an entry. Who drives it decides what the inputs are, and they may be computed afresh
    for each fit, as neighbour features are.

    Parameters
    ----------
    settings : GateSettings, optional

    Attributes
    ----------
    model : ConfidenceModel or None
        The one that speaks now.
    threshold : float
        The confidence below which entries are skipped, NaN before the first fit.
    evidence : Evidence
        The account of past scores.

    Point in time
    -------------
    Everything fitted is a function of a prefix of the outcomes learnt, and a judgement of an entry refuses a moment
    at which it would already know too much. So nothing that resolves later changes a judgement.
    """

    def __init__(self, settings: GateSettings | None = None) -> None:
        self.settings = settings or GateSettings()
        self.model: ConfidenceModel | None = None
        self.threshold = math.nan
        self.evidence = Evidence(self.settings.requirements)
        self._known_at: list[int] = []
        self._resolved_at: list[int] = []
        self._is_win: list[bool] = []
        self._r_multiple: list[float] = []
        self._group: list[str] = []
        self._confidence: list[float] = []
        self._n_wins = [0]
        self._sum_r = {True: 0.0, False: 0.0}
        self._fitted_size = 0
        self._distances: FloatArray = np.empty(0)
        self._longest_silence = 0
        self._saved_r = 0.0
        self._buckets: list[Bucket] = []

    def __len__(self) -> int:
        """Number of outcomes learnt."""
        return len(self._known_at)

    @property
    def due(self) -> int:
        """How many of the outcomes learnt first should be fitted now; 0 while the last fit is good enough."""
        size = schedule_size(len(self))
        n_wins = self._n_wins[size]
        is_enough = size >= _FIRST_MODEL and min(n_wins, size - n_wins) >= _FEWEST_OF_A_CLASS
        return size if is_enough and size > self._fitted_size else 0

    def learn(
        self,
        known_at: int,
        resolved_at: int,
        is_win: bool,
        r_multiple: float,
        *,
        confidence: float = math.nan,
        group: str = "",
    ) -> None:
        """Take in one outcome that has become known.

        Parameters
        ----------
        known_at, resolved_at : int, UTC microseconds
            The interval of the label; `resolved_at` never goes backwards.
        is_win : bool
        r_multiple : float, R
            Beyond 10 it counts as 10, beyond -10 as -10.
        confidence : float, 0..1
            The P(win) that the entry got when it was made; NaN where it got none.
        group : str
            Labels of different groups, such as ``"EURUSD|1h"``, do not overlap.

        Raises
        ------
        DataError
            If the outcomes are not in order, an R is not finite, or a confidence is no probability.
        """
        if resolved_at < known_at or (self._resolved_at and resolved_at < self._resolved_at[-1]):
            raise DataError(
                f"an outcome of an entry known at {known_at} resolved at {resolved_at}, after one of "
                f"{self._resolved_at[-1] if self._resolved_at else known_at} was learnt. Learn outcomes in the order in "
                "which they resolved, and no sooner than the entry was known."
            )
        if not math.isfinite(r_multiple):
            raise DataError(f"r_multiple is {r_multiple}. An outcome in R is finite; leave open entries out.")
        if not math.isnan(confidence):
            self.evidence.add(confidence, self.base_rate(known_at), is_win, known_at, resolved_at, group)
        self._known_at.append(known_at)
        self._resolved_at.append(resolved_at)
        self._is_win.append(is_win)
        self._r_multiple.append(min(max(r_multiple, -_MOST_R), _MOST_R) - self.settings.cost_r)
        self._group.append(group)
        self._confidence.append(confidence)
        self._n_wins.append(self._n_wins[-1] + is_win)
        self._sum_r[is_win] += self._r_multiple[-1]

    @property
    def payoff(self) -> tuple[float, float] | None:
        """Mean gain of the wins learnt and mean loss of the losses, in R net of costs.

        None below 10 of each, or where wins did not gain or losses did not lose.
        """
        n_wins, n_losses = self._n_wins[-1], len(self) - self._n_wins[-1]
        if min(n_wins, n_losses) < _FEWEST_OF_A_CLASS:
            return None
        win_r, loss_r = self._sum_r[True] / n_wins, -self._sum_r[False] / n_losses
        return (win_r, loss_r) if win_r > 0 and loss_r > 0 else None

    def base_rate(self, as_of: int) -> float:
        """Share of wins among the outcomes learnt that had resolved by `as_of`, half a win and half a loss added."""
        n_known = bisect_right(self._resolved_at, as_of)
        return (self._n_wins[n_known] + 0.5) / (n_known + 1)

    def refit(self, inputs: Float32Array, distances: FloatArray | None = None) -> None:
        """Fit model, threshold and limits to the outcomes learnt first.

        Parameters
        ----------
        inputs : ndarray of shape (n_rows, n_features), float32
            One row for each of the `n_rows` outcomes learnt first, as known when its entry was made. NaN is missing.
        distances : ndarray of shape (n_rows,), optional
            How far the nearest neighbour of each was when it was made; NaN where there was none.

        Raises
        ------
        DataError
            If there are more rows than outcomes, or a value is infinite.
        """
        size = len(inputs)
        if size > len(self):
            raise DataError(f"{size} rows refused: {len(self)} outcomes are known. Pass one row for each of the first.")
        known_at, resolved_at = np.array(self._known_at[:size]), np.array(self._resolved_at[:size])
        is_win, r_multiple = np.array(self._is_win[:size], dtype=np.bool_), np.array(self._r_multiple[:size])
        weight = average_uniqueness(known_at, resolved_at, self._group[:size])
        self.model = fit_confidence(
            inputs, is_win, weight, known_at, resolved_at, seed=self.settings.seed, model=self.settings.model
        )
        self._fitted_size = size
        self._longest_silence = int(resolved_at[-1] - known_at.min())
        distances = np.empty(0) if distances is None else np.asarray(distances, dtype=np.float64)
        self._distances = np.sort(distances[np.isfinite(distances)])

        confidence = np.array(self._confidence[:size])
        scored = np.isfinite(confidence)
        confidence, won, r_scored = confidence[scored], is_win[scored], r_multiple[scored]
        worth_r = weight[scored] * expected_r(confidence, r_scored, won)
        chosen = self.settings.min_confidence
        if chosen is None:
            chosen = best_threshold(confidence, worth_r, break_even_confidence(r_multiple, is_win))
        self.threshold = float(chosen)
        self._saved_r = -float(worth_r[confidence < self.threshold].sum())
        self._buckets = _buckets(confidence, won)

    def judge(
        self,
        row: Float32Array,
        known_at: int,
        *,
        distance: float = math.nan,
        is_late: bool = False,
    ) -> Judgement:
        """What to do with an entry.

        Parameters
        ----------
        row : ndarray of shape (n_features,), float32
            Its inputs; NaN is missing.
        known_at : int, UTC microseconds
            The moment of the decision.
        distance : float
            How far its nearest neighbour is; NaN where that is not known, and then nothing is novel.
        is_late : bool
            Whether something that the inputs need missed its deadline.

        Returns
        -------
        Judgement

        Raises
        ------
        LookAheadError
            If an outcome was learnt that resolved after `known_at`.
        """
        if self._resolved_at and self._resolved_at[-1] > known_at:
            raise LookAheadError(
                f"an entry of {isoformat(known_at)} was to be judged with an outcome of "
                f"{isoformat(self._resolved_at[-1])}. Judge entries before learning what resolved after them."
            )
        n_known, model = len(self), self.model
        if model is None:
            return self._abstained(Judgement("abstain", self._why_no_model(), n_known=n_known))
        base_rate = self.base_rate(known_at)
        bucket, action = None, "abstain"
        try:
            confidence, low, high = (float(p[0]) for p in model.predict_interval(np.reshape(row, (1, -1)), base_rate))
        except FeatureMismatch:
            confidence = low = high = math.nan
            reason = f"feature_mismatch: {np.size(row)} features, fitted on {model.n_features}"
        else:
            bucket, reason = self._bucket(confidence), self._why_not(known_at, distance, is_late)
            if not reason and confidence >= self.threshold:
                action, reason = "take", f"confident: {confidence:.3f} >= {self.threshold:.3f}"
            elif not reason:
                action, reason = "skip", f"unconvinced: {confidence:.3f} < {self.threshold:.3f}"
        said = Judgement(action, reason, confidence, low, high, self.threshold, base_rate, model.name, n_known, bucket)
        return self._abstained(said) if action == "abstain" else said

    def _why_not(self, known_at: int, distance: float, is_late: bool) -> str:
        """Reason to abstain although a model speaks; empty where there is none."""
        verdict = self.evidence.verdict()
        if is_late:
            return "deadline: neighbours came too late"
        if not verdict.is_active:
            return verdict.reason
        if self.model is not None and self.model.name == "base_rate":
            return "no_skill: no model beats the base rate now"
        if not self._saved_r > 0:
            return f"no_gain: skipping would have saved {self._saved_r:.1f} R"
        silence = known_at - self._resolved_at[-1]
        if silence > self._longest_silence:
            return f"stale_model: no outcome since {isoformat(self._resolved_at[-1])}, longer than all it has seen"
        n_past = len(self._distances)
        n_as_far = n_past - bisect_left(self._distances, distance) if math.isfinite(distance) else n_past
        if (n_as_far + 1) / (n_past + 1) < _NOVELTY_LEVEL:
            return f"novel: nearest at {distance:.2f}, of past entries {self._distances[-1]:.2f} at most"
        return ""

    def _why_no_model(self) -> str:
        size = schedule_size(len(self))
        if size < _FIRST_MODEL:
            return f"few_labels: {len(self)} of {_FIRST_MODEL} outcomes known"
        return f"one_class: fewer than {_FEWEST_OF_A_CLASS} wins or losses of {size}"

    def _abstained(self, said: Judgement) -> Judgement:
        if self.settings.on_abstain == "fail_open":
            return said
        return replace(said, action="skip", reason=f"{said.reason} (fail_closed)")

    def _bucket(self, confidence: float) -> Bucket | None:
        return next((bucket for bucket in reversed(self._buckets) if confidence >= bucket.low), None)


def schedule_size(n_known: int) -> int:
    """Largest size of the geometric schedule that `n_known` has reached; 0 before the first."""
    size, following = 0, _FIRST_EPOCH
    while following <= n_known:
        size, following = following, math.ceil(following * _GROWTH)
    return size


def _buckets(confidence: FloatArray, is_win: BoolArray) -> list[Bucket]:
    """Past scores in five groups of nearly equal number, lowest first, with what became of each."""
    order = np.argsort(confidence, kind="stable")
    groups = [rows for rows in np.array_split(order, _N_BUCKETS) if len(rows)]
    return [
        Bucket(float(confidence[rows[0]]), float(confidence[rows[-1]]), len(rows), float(is_win[rows].mean()))
        for rows in groups
    ]
