"""What a page shows, as plain records: filled by the caller, drawn by the figures. Times are UTC microseconds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qml_plugin.records import Bucket, FloatArray, IntArray
from qml_plugin.stats.distribution import Distribution


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run in the summary table; None where a figure does not exist.

    ``n_would_skip`` counts entries that were taken although the gate would have skipped them (shadow).
    ``win_share`` is over resolved barrier outcomes of all entries. ``brier_skill`` compares the confidences with the
    base rate known at each moment; above 0 is skill.
    """

    strategy: str
    data: str
    mode: str
    n_entries: int
    n_taken: int
    n_skipped: int
    n_abstained: int
    main_reason: str | None
    win_share: float | None
    return_frac: float
    sharpe_annual: float | None
    brier_skill: float | None
    is_synthetic: bool
    n_would_skip: int = 0


@dataclass(frozen=True, slots=True)
class EquityView:
    """Equity of the same strategy with and without the gate, in money, one value a bar."""

    title: str
    opened_at: IntArray
    with_gate: FloatArray
    without_gate: FloatArray
    is_synthetic: bool


@dataclass(frozen=True, slots=True)
class ReliabilityView:
    """Confidences given before the outcome, and the outcomes."""

    title: str
    confidence: FloatArray
    is_win: NDArray[np.bool_]
    is_synthetic: bool


@dataclass(frozen=True, slots=True)
class NeighbourView:
    """A past pattern that a decision looked at; ``distance`` is in scaled feature units."""

    symbol: str
    timeframe: str
    strategy: str
    detection_at: int
    distance: float
    is_win: bool
    r_multiple: float


@dataclass(frozen=True, slots=True, eq=False)
class PathView:
    """Closes around an entry, aligned at its decision bar, which is bar 0.

    ``move_atr`` begins at ``first_bar``, a bar not later than 0; it is the move since the close of bar 0 in the entry's
    favour, in ATR of that moment. ``exit_bar`` is where the outcome became known, None where no bar of the path did.
    """

    first_bar: int
    move_atr: FloatArray
    exit_bar: int | None

    @property
    def last_bar(self) -> int:
        return self.first_bar + len(self.move_atr) - 1

    @property
    def before(self) -> FloatArray:
        """Up to bar 0."""
        return self.move_atr[: 1 - self.first_bar]

    @property
    def after(self) -> FloatArray:
        """From bar 0 on."""
        return self.move_atr[-self.first_bar :]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PastView(NeighbourView):
    """A neighbour with what happened next; ``path`` is None where no bars of it are kept."""

    pattern_id: str
    pattern_type: str
    resolved_at: int
    path: PathView | None


@dataclass(frozen=True, slots=True, eq=False)
class AnswerView:
    """The neighbours of one question, nearest first, and what became of them and of all that were eligible.

    ``eligible_r`` has shape (n_eligible,), NaN where only a label is known; ``base_share`` is the share of wins among
    them. ``share_low`` and ``share_high`` bound the share of wins among the neighbours at 95 %. ``fan`` has shape
    (5, n_bars): the 10, 25, 50, 75 and 90 % quantiles of the paths at each bar after the decision, from bar 0 on, NaN
    where there are too few; ``n_paths`` has shape (n_bars,). Shares and means are None where there is nothing to count.
    """

    side: int
    as_of: int
    neighbours: tuple[PastView, ...]
    win_share: float | None
    share_low: float | None
    share_high: float | None
    mean_r: float | None
    median_r: float | None
    eligible_r: FloatArray
    base_share: float | None
    base_mean_r: float | None
    fan: FloatArray
    n_paths: IntArray

    @property
    def n_eligible(self) -> int:
        return len(self.eligible_r)


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryView:
    """One entry and the bars around it.

    The bar arrays cover a window around the entry; ``entry_row`` and ``exit_row`` are positions in that window.
    ``points`` are (row, price, name) of the setup's geometry.
    """

    title: str
    pattern_id: str
    strategy: str
    symbol: str
    timeframe: str
    side: int
    detection_at: int
    opened_at: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    entry_row: int
    exit_row: int | None
    stop_px: float
    target_px: float
    points: tuple[tuple[int, float, str], ...]
    exit_reason: str | None
    r_multiple: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionCard(EntryView):
    """Why one decision was made: the chart around the entry, its neighbours, what the model weighed.

    ``contributions`` are log-odds; ``confidence_low`` and ``confidence_high`` are its 90 % interval; ``bucket`` is what had become of past
    entries of a like confidence; ``risk_frac`` the share of the equity to put at risk. None where there is none.
    """

    is_synthetic: bool
    action: str
    reason: str
    confidence: float | None
    threshold: float | None
    model: str | None
    neighbours: tuple[NeighbourView, ...]
    contributions: tuple[tuple[str, float], ...]
    confidence_low: float | None = None
    confidence_high: float | None = None
    base_rate: float | None = None
    n_known: int = 0
    bucket: Bucket | None = None
    risk_frac: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PatternView(EntryView):
    """A registered pattern as a person sees it who is to label it.

    ``entry_row`` is the decision bar. Without bars the arrays are empty, and rows count the bars of the setup: ``n_rows``
    of them, the decision bar being the last. ``entry_px``, ``stop_px`` and ``target_px`` are NaN where there is none.
    ``point_words`` names what each of the ``points`` is. ``key_features`` are (feature, value in words).
    ``is_future_hidden`` tells that nothing later than the decision is in the view.
    """

    pattern_type: str
    n_rows: int
    entry_px: float
    point_words: tuple[str, ...]
    key_features: tuple[tuple[str, str], ...]
    label: str | None
    trade_outcome: float | None
    is_future_hidden: bool

    @property
    def has_bars(self) -> bool:
        return len(self.close) > 0


@dataclass(frozen=True, slots=True)
class DemoPage:
    """Everything on the demo's page; ``findings`` are the plain sentences at its top."""

    title: str
    findings: tuple[str, ...]
    rows: tuple[RunRow, ...]
    equities: tuple[EquityView, ...]
    reliabilities: tuple[ReliabilityView, ...]
    cards: tuple[DecisionCard, ...]
    database: str
    versions: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class FeatureView:
    """One feature on one series: what it means, its values under the price, its distribution.

    The arrays cover the bars that are drawn, which may be the last of the ``n_bars`` that `distribution` counts.
    """

    name: str
    definition: str
    source: str
    needs: str
    window: int
    warmup: int
    version: str
    symbol: str
    timeframe: str
    n_bars: int
    opened_at: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    values: FloatArray
    distribution: Distribution


@dataclass(frozen=True, slots=True)
class PatternsPage:
    """Patterns to be labelled; ``commands`` holds what labels each of them, less the label."""

    title: str
    patterns: tuple[PatternView, ...]
    commands: tuple[str, ...]
    n_left: int
    is_future_hidden: bool


@dataclass(frozen=True, slots=True, eq=False)
class SimilarPage:
    """Questions with their answers: the pattern asked about, its path before, its neighbours, and all of it in words."""

    title: str
    patterns: tuple[PatternView, ...]
    befores: tuple[PathView | None, ...]
    answers: tuple[AnswerView, ...]
    sentences: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class SetupView:
    """A setup that a detector found, in the bars around it.

    Places are rows of the bars; ``entry_row`` is the bar at which it became known. ``points`` are (row, price), ``levels``
    (name, price, row), ``order_block`` (row, low, high) or None. ``when`` is the stamp of the entry's bar in words.
    """

    when: str
    pattern_type: str
    side: int
    opened_at: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    entry_row: int
    points: tuple[tuple[int, float], ...]
    levels: tuple[tuple[str, float, int], ...]
    order_block: tuple[int, float, float] | None
    entry_px: float
    stop_px: float
    target_px: float
    validity_score: float
