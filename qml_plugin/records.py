"""The records that travel between the layers: frozen, slotted, without behaviour beyond naming themselves.

Times ending in ``_at`` are integers: microseconds since 1970-01-01 UTC (``qml_plugin.clock`` converts).
Sides are +1 (long) and -1 (short). Bars are integer positions in one series.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_PATTERN_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "qml_plugin/pattern")


@dataclass(frozen=True, slots=True)
class Point:
    """A turning point of the price: where it lies and the bar whose close confirmed it."""

    bar: int
    px: float
    confirmed_bar: int


@dataclass(frozen=True, slots=True)
class Level:
    """A price, and the bar whose close broke it, or came back from beyond it."""

    name: str
    px: float
    bar: int


@dataclass(frozen=True, slots=True)
class Zone:
    """A range of prices, and the bar that it is the range of."""

    low_px: float
    high_px: float
    bar: int


@dataclass(frozen=True, slots=True)
class Setup:
    """Geometry that a detector found; usable from the close of ``known_bar`` on.

    ``points`` are P1..P5 for a Quasimodo: left shoulder, the swing whose break is the change of character,
    head, break of structure, entry. Other detectors may use other points, or none; ``levels`` and ``order_block`` are
    what else they saw.
    """

    pattern_type: str
    side: int
    points: tuple[Point, ...]
    known_bar: int
    stop_px: float | None = None
    target_px: float | None = None
    validity_score: float | None = None
    levels: tuple[Level, ...] = ()
    order_block: Zone | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Signals:
    """What a strategy asks for at the close of each bar, as arrays of shape (n_bars,) that every host can read.

    ``side`` is int8: +1 asks to buy, -1 to sell, 0 for nothing. ``stop_px`` and ``target_px`` are float64 prices of that
    entry, NaN where it has none. ``exits`` is bool: close what is open. ``setups`` holds, by bar, the geometry behind an
    entry. Row t knows bars 0..t only.
    """

    side: NDArray[np.int8]
    stop_px: FloatArray
    target_px: FloatArray
    exits: NDArray[np.bool_]
    setups: Mapping[int, Setup] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.side)


@dataclass(frozen=True, slots=True)
class BarrierRule:
    """How an entry is labelled: its own stop and target, else ATR multiples, and a time limit in bars.

    ``stop_atr`` and ``target_atr`` are distances in ATR(14) of the decision bar and serve only where the entry
    brings no stop or target of its own. ``max_bars`` counts the bars on which a filled entry is exposed, and limits in the
    same way how long a pending order waits for its fill.
    """

    stop_atr: float = 1.5
    target_atr: float = 3.0
    max_bars: int = 50

    def __str__(self) -> str:
        return f"barrier(stop={self.stop_atr:g}atr,target={self.target_atr:g}atr,max={self.max_bars}bars)"


@dataclass(frozen=True, slots=True)
class Entry:
    """A strategy's request to open a position, made at the close of ``bar``.

    ``stop_px`` and ``target_px`` are the barriers in force for the label, filled in by the rule where the order had
    none. ``limit_px`` and ``trigger_px`` describe a pending order; both None is a market order. ``fill`` says whether
    a market order fills at the next ``"open"`` or at this bar's ``"close"``.
    """

    symbol: str
    timeframe: str
    strategy: str
    pattern_type: str
    side: int
    bar: int
    detection_at: int
    known_at: int
    reference_px: float
    stop_px: float
    target_px: float
    rule: BarrierRule = BarrierRule()
    limit_px: float | None = None
    trigger_px: float | None = None
    fill: str = "open"
    setup: Setup | None = None

    @property
    def plan(self) -> str:
        """The order in words: two entries of one bar that differ here are two patterns."""
        parts = (
            ("limit", self.limit_px),
            ("trigger", self.trigger_px),
            ("stop", self.stop_px),
            ("target", self.target_px),
        )
        return ",".join([self.fill, *(f"{name}={px:.9g}" for name, px in parts if px is not None)])

    @property
    def pattern_id(self) -> str:
        """UUIDv5 of everything that makes this entry what it is: the same backtest gives the same id."""
        key = (
            self.symbol,
            self.timeframe,
            self.detection_at,
            self.strategy,
            self.pattern_type,
            self.side,
            self.rule,
            self.plan,
        )
        return _uuid("|".join(map(str, key)))


@lru_cache(maxsize=4096)
def _uuid(name: str) -> str:
    """An entry is asked for its id a few times on its way."""
    return str(uuid.uuid5(_PATTERN_NAMESPACE, name))


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of an entry under its label rule, whether or not it was traded.

    ``exit_reason`` is ``"stop"``, ``"target"`` or ``"time"``. ``r_multiple`` is the move in the entry's favour in units
    of the risk planned at the decision. A win is ``r_multiple > 0``.
    """

    entry_bar: int
    entry_px: float
    exit_bar: int
    exit_px: float
    exit_reason: str
    r_multiple: float
    resolved_at: int

    @property
    def is_win(self) -> bool:
        return self.r_multiple > 0


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A past pattern whose outcome was known when it was retrieved; ``distance`` is in scaled feature units."""

    pattern_id: str
    distance: float
    resolved_at: int
    is_win: bool
    r_multiple: float


@dataclass(frozen=True, slots=True)
class Bucket:
    """Past entries of a like confidence: `n` of them scored ``low`` to ``high``, and ``win_frac`` of those won."""

    low: float
    high: float
    n: int
    win_frac: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What was done with an entry, and why.

    ``action`` is ``"take"``, ``"skip"`` or ``"abstain"`` (the entry passes unjudged). ``confidence`` is the calibrated
    P(win), None where no model could speak, and ``low`` and ``high`` its 90 % interval; ``base_rate`` is the share of
    wins among the patterns known then, half a win and half a loss added. ``contributions`` are the largest that
    its inputs made to the log-odds of ``model``, computed when they are first looked at; none where the base rate spoke. ``bucket`` is what
    became of past entries of a like confidence. ``risk_frac`` is the share of the equity to put at risk, None where the size does not follow
    the confidence.
    """

    pattern_id: str
    action: str
    reason: str
    confidence: float | None = None
    base_rate: float | None = None
    threshold: float | None = None
    model: str | None = None
    n_known: int = 0
    neighbours: tuple[Neighbour, ...] = ()
    contributions: Sequence[tuple[str, float]] = ()
    low: float | None = None
    high: float | None = None
    bucket: Bucket | None = None
    risk_frac: float | None = None

    @property
    def is_taken(self) -> bool:
        return self.action != "skip"

    @property
    def judgement(self) -> str:
        """What the gate thought of the entry, done or not: ``"take"``, ``"skip"``, or ``"abstain"`` if it could not judge."""
        if self.reason == "record_only" or self.reason.endswith("(fail_closed)"):
            return "abstain"
        return "skip" if self.reason.startswith("would_skip:") else self.action

    def explain(self) -> Explanation:
        """Everything that led to the decision: ``.data`` for programs, ``str()`` of it for people."""
        code, _, detail = self.reason.partition(":")
        return Explanation({
            "pattern_id": self.pattern_id,
            "action": self.action,
            "is_taken": self.is_taken,
            "reason": code,
            "reason_detail": detail.strip(),
            "confidence": self.confidence,
            "confidence_low": self.low,
            "confidence_high": self.high,
            "base_rate": self.base_rate,
            "threshold": self.threshold,
            "model": self.model,
            "n_known": self.n_known,
            "risk_frac": self.risk_frac,
            "bucket": None if self.bucket is None else asdict(self.bucket),
            "contributions": [{"feature": name, "log_odds": value} for name, value in self.contributions],
            "neighbours": [asdict(neighbour) for neighbour in self.neighbours],
        })  # fmt: skip


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a decision was made: ``data`` holds plain numbers, text and lists that JSON can take."""

    data: dict[str, Any]

    def __str__(self) -> str:
        data = self.data
        lines = [
            f"{data['action']} ({data['reason']})" + (f": {data['reason_detail']}" if data["reason_detail"] else "")
        ]
        if data["confidence"] is not None:
            interval = (
                ""
                if data["confidence_low"] is None
                else f", {data['confidence_low']:.3f} to {data['confidence_high']:.3f}"
            )
            lines.append(
                f"P(win) {data['confidence']:.3f}{interval}; base rate {data['base_rate']:.3f}, threshold "
                f"{data['threshold']:.3f}; {data['model']} spoke, {data['n_known']} outcomes known"
            )
        else:
            lines.append(f"no confidence; {data['n_known']} outcomes known")
        if bucket := data["bucket"]:
            lines.append(
                f"of {bucket['n']} past entries with P(win) {bucket['low']:.3f} to {bucket['high']:.3f}, "
                f"{bucket['win_frac']:.1%} won"
            )
        if data["risk_frac"] is not None:
            lines.append(f"{data['risk_frac']:.2%} of the equity to be put at risk")
        if near := data["neighbours"]:
            won = sum(neighbour["is_win"] for neighbour in near)
            mean_r = sum(neighbour["r_multiple"] for neighbour in near) / len(near)
            lines.append(f"of {len(near)} nearest past patterns {won} won, mean {mean_r:+.2f} R")
        if data["contributions"]:
            lines.append(
                "log-odds added: " + ", ".join(f"{c['feature']} {c['log_odds']:+.3f}" for c in data["contributions"])
            )
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Pattern:
    """One registered entry with what is known about it: a row of ``ml_pattern_registry``.

    ``features`` is a float64 array in the order of the catalogue, NaN where a feature has no value.
    ``trade_return_frac`` is the return of the real trade after costs, None while open or never traded.
    """

    entry: Entry
    features: FloatArray
    feature_set: str
    outcome: Outcome | None = None
    confidence: float | None = None
    trade_return_frac: float | None = None

    @property
    def pattern_id(self) -> str:
        return self.entry.pattern_id


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One execution of a strategy: a row of ``experiments``.

    ``kind`` is ``"backtest"``; ``status`` is ``"running"``, ``"finished"``, ``"failed"`` or ``"interrupted"``; ``metrics``
    and ``finished_at`` come with the end. ``run_id`` is a UUIDv5 of everything that determines the run, so that repeating
    it replaces its row instead of adding one. ``returns_frac`` are the returns of the equity, one for each bar but the
    first. ``snapshot_…`` name the known patterns that it started from, all None where it asked for none.
    """

    run_id: str
    kind: str
    status: str
    strategy_name: str
    symbol: str
    timeframe: str
    params: Mapping[str, object]
    data_hash: str
    data_start_at: int
    data_end_at: int
    data_bars: int
    seed: int
    versions: Mapping[str, str]
    started_at: int
    metrics: Mapping[str, object] | None = None
    finished_at: int | None = None
    returns_frac: FloatArray | None = None
    git_hash: str | None = None
    is_git_dirty: bool | None = None
    git_diff: str | None = None
    strategy_path: str | None = None
    snapshot_seq: int | None = None
    snapshot_patterns: int | None = None
    snapshot_sha256: str | None = None
    parent_run_id: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TrialEntries:
    """The entries of one finished run as columns, sorted by (``known_at``, ``pattern_id``): what is put on trial.

    ``action`` is what the gate thought, done or not: ``"take"``, ``"skip"`` or ``"abstain"``. ``r_multiple`` is NaN while an
    entry is open, or where a person labelled it ``"ignore"``; ``is_win`` obeys a label given by hand. ``return_frac`` is in
    fractions of what an entry cost: where ``returns_of`` is ``"trades"``, of the real trades after costs, 0 where none came about;
    where it is ``"barriers"``, because trades that were skipped have none, of the barrier outcomes before costs.
    """

    name: str
    pattern_id: tuple[str, ...]
    known_at: IntArray
    action: tuple[str, ...]
    confidence: FloatArray
    r_multiple: FloatArray
    is_win: NDArray[np.bool_]
    return_frac: FloatArray
    returns_of: str

    def __len__(self) -> int:
        return len(self.pattern_id)


@dataclass(frozen=True, slots=True)
class KnownPatterns:
    """Resolved patterns as columns, sorted by (``resolved_at``, ``pattern_id``): what a memory starts from.

    ``features`` has shape (n_patterns, n_features), float32, in the order of ``feature_set``; ``is_win`` already obeys a
    label given by hand; ``confidence`` is the score given when the entry was made, NaN where there was none.
    ``ignored`` are the ids that a person labelled ``"ignore"``: nothing may learn from them. ``versions`` are those of
    the features of the set, by name, as far as they are known.
    """

    feature_set: str
    pattern_id: tuple[str, ...]
    group: tuple[str, ...]
    side: NDArray[np.int8]
    known_at: IntArray
    resolved_at: IntArray
    is_win: NDArray[np.bool_]
    r_multiple: FloatArray
    confidence: FloatArray
    features: NDArray[np.float32]
    ignored: frozenset[str] = frozenset()
    versions: Mapping[str, str | None] = field(default_factory=dict, hash=False, compare=False)

    def __len__(self) -> int:
        return len(self.pattern_id)

    @classmethod
    def empty(cls, feature_set: str, n_features: int) -> KnownPatterns:
        """A memory without a past."""
        return cls(
            feature_set=feature_set,
            pattern_id=(),
            group=(),
            side=np.empty(0, np.int8),
            known_at=np.empty(0, np.int64),
            resolved_at=np.empty(0, np.int64),
            is_win=np.empty(0, np.bool_),
            r_multiple=np.empty(0),
            confidence=np.empty(0),
            features=np.empty((0, n_features), np.float32),
        )


@dataclass(frozen=True, slots=True, eq=False)
class TrainingRows:
    """What the rows of a table of training data are, one entry a pattern, and the versions of its columns in order.

    The interval of a label is [``known_at``, ``resolved_at``]. It travels in the ``attrs`` of a DataFrame, which copies
    them deeply at every step; being frozen it is handed on as it is.
    """

    pattern_id: tuple[str, ...]
    symbol: tuple[str, ...]
    timeframe: tuple[str, ...]
    strategy: tuple[str, ...]
    known_at: IntArray
    resolved_at: IntArray
    versions: Mapping[str, str | None]

    def __deepcopy__(self, memo: object) -> TrainingRows:
        """Itself."""
        return self
