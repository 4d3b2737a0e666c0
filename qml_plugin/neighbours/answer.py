"""The nearest past patterns of a question, with what became of them and of all that could have been chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import numpy as np

from qml_plugin.bars import Bars
from qml_plugin.clock import canonical_timeframe, timeframe_seconds
from qml_plugin.features import CATALOGUE
from qml_plugin.neighbours.paths import aligned_path, fan_of
from qml_plugin.neighbours.question import Question
from qml_plugin.records import FloatArray, IntArray, KnownPatterns
from qml_plugin.registry import PatternRegistry
from qml_plugin.registry.known import PatternFacts
from qml_plugin.report.views import AnswerView, PastView
from qml_plugin.retrieval.filters import Filters
from qml_plugin.retrieval.similar import Nearest, nearest_known
from qml_plugin.stats.inference import wilson_interval

_Market = tuple[str, str]


def answers(
    registry: PatternRegistry,
    questions: Sequence[Question],
    *,
    k: int = 10,
    strategy: str | None = None,
    **filters: Unpack[Filters],
) -> tuple[AnswerView, ...]:
    """The nearest resolved patterns of the side of each question, and what happened next.

    Parameters
    ----------
    registry : PatternRegistry
    questions : sequence of Question
    k : int, >= 1
        At most so many neighbours.
    strategy : str, optional
        Only patterns of this strategy.
    **filters
        ``symbol``, ``timeframe``, ``pattern_type``, ``max_age`` and ``apart_bars`` of `VectorStore.search`. Bars apart are
        those of a series kept of the market, and lengths of a bar where it has none.

    Returns
    -------
    tuple of AnswerView
        One a question. Eligible are all patterns that meet the filters and were known, overlapping ones too.

    Point in time
    -------------
    Scaler, neighbours, outcomes and the base rate are of patterns with ``resolved_at <= as_of``; prices are of bars that
    were closed by ``as_of``.

    Raises
    ------
    DataError, RetrievalError
        If a filter is wrong.
    """
    if isinstance(timeframe := filters.get("timeframe"), str):
        filters["timeframe"] = {timeframe, canonical_timeframe(timeframe)}
    known = registry.known_patterns(CATALOGUE.feature_set, CATALOGUE.names)
    by_id = registry.pattern_facts(CATALOGUE.feature_set)
    facts = [by_id[pattern_id] for pattern_id in known.pattern_id]
    series = _KeptSeries(registry)
    return tuple(_answer(question, known, facts, series, k, strategy, filters) for question in questions)


class _KeptSeries:
    """The series of the registry, each read once."""

    def __init__(self, registry: PatternRegistry) -> None:
        self._registry = registry
        self._read: dict[_Market, list[Bars]] = {}

    def around(self, pattern_id: str, facts: PatternFacts) -> tuple[Bars, int] | None:
        """As `PatternRegistry.bars_of`, but for a series at hand that holds the decision bar too."""
        at_hand = self._read.setdefault((facts.symbol, facts.timeframe), [])
        for bars in at_hand:
            bar = int(np.searchsorted(bars.opened_at, facts.detection_at))
            if bar < len(bars) and bars.opened_at[bar] == facts.detection_at:
                return bars, bar
        found = self._registry.bars_of(pattern_id)
        if found is not None:
            at_hand.append(found[0])
        return found


def _answer(
    question: Question,
    known: KnownPatterns,
    facts: Sequence[PatternFacts],
    series: _KeptSeries,
    k: int,
    strategy: str | None,
    filters: Filters,
) -> AnswerView:
    columns: dict[str, Sequence[str] | IntArray] = {
        name: [getattr(fact, name) for fact in facts] for name in ("symbol", "timeframe", "pattern_type")
    }
    if filters.get("apart_bars") is not None:
        n_resolved = int(np.searchsorted(known.resolved_at, question.as_of, side="right"))
        columns["bar"] = _positions(known.pattern_id, facts, n_resolved, series, question.as_of)
    wanted: Filters = {**filters, "side": question.side}
    found = nearest_known(
        known,
        question.features,
        [feature.category for feature in CATALOGUE],
        as_of=question.as_of,
        k=k,
        columns=columns,
        among=None if strategy is None else np.array([fact.strategy == strategy for fact in facts], np.bool_),
        **wanted,
    )
    neighbours = tuple(
        _neighbour(row, distance, known, facts[row], series, question.as_of)
        for row, distance in zip(found.rows.tolist(), found.distances.tolist(), strict=True)
    )
    return _summed_up(question, known, found, neighbours)


def _neighbour(
    row: int, distance: float, known: KnownPatterns, facts: PatternFacts, series: _KeptSeries, as_of: int
) -> PastView:
    around = series.around(known.pattern_id[row], facts)
    side, resolved_at = int(known.side[row]), int(known.resolved_at[row])
    return PastView(
        symbol=facts.symbol,
        timeframe=facts.timeframe,
        strategy=facts.strategy,
        detection_at=facts.detection_at,
        distance=distance,
        is_win=bool(known.is_win[row]),
        r_multiple=float(known.r_multiple[row]),
        pattern_id=known.pattern_id[row],
        pattern_type=facts.pattern_type,
        resolved_at=resolved_at,
        path=None if around is None else aligned_path(*around, side, as_of=as_of, resolved_at=resolved_at),
    )


def _summed_up(
    question: Question, known: KnownPatterns, found: Nearest, neighbours: tuple[PastView, ...]
) -> AnswerView:
    n, n_wins = len(neighbours), sum(past.is_win for past in neighbours)
    low, high = wilson_interval(n_wins, n) if n else (None, None)
    r_multiple, eligible_r = known.r_multiple[found.rows], known.r_multiple[found.eligible]
    fan, n_paths = fan_of([past.path for past in neighbours if past.path is not None])
    return AnswerView(
        side=question.side,
        as_of=question.as_of,
        neighbours=neighbours,
        win_share=n_wins / n if n else None,
        share_low=low,
        share_high=high,
        mean_r=_mean(r_multiple),
        median_r=_median(r_multiple),
        eligible_r=eligible_r,
        base_share=float(known.is_win[found.eligible].mean()) if len(found.eligible) else None,
        base_mean_r=_mean(eligible_r),
        fan=fan,
        n_paths=n_paths,
    )


def _mean(values: FloatArray) -> float | None:
    """Mean of those that are finite, None where none is."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else None


def _median(values: FloatArray) -> float | None:
    """As `_mean`."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else None


def _positions(
    ids: Sequence[str], facts: Sequence[PatternFacts], n_resolved: int, series: _KeptSeries, as_of: int
) -> IntArray:
    """Where each of the resolved patterns lies in the bars of its market; 0 for the others, which are not asked."""
    rows_of: dict[_Market, list[int]] = {}
    for row in range(n_resolved):
        rows_of.setdefault((facts[row].symbol, facts[row].timeframe), []).append(row)
    positions = np.zeros(len(facts), np.int64)
    for (_, timeframe), rows in rows_of.items():
        bar_us = round(timeframe_seconds(timeframe) * 1_000_000)
        moments = np.array([facts[row].detection_at for row in rows], np.int64)
        around = series.around(ids[rows[-1]], facts[rows[-1]])
        opened_at = np.empty(0, np.int64) if around is None else around[0].opened_at[around[0].known_at <= as_of]
        positions[rows] = _places(moments, opened_at, bar_us)
    return positions


def _places(moments: IntArray, opened_at: IntArray, bar_us: int) -> IntArray:
    """Position of each moment in a series, carried on beyond both of its ends by the length of a bar."""
    if len(opened_at) == 0:
        return moments // bar_us
    places = np.searchsorted(opened_at, moments)
    before = (moments - opened_at[0]) // bar_us
    beyond = len(opened_at) - 1 + (moments - opened_at[-1]) // bar_us
    return np.where(moments < opened_at[0], before, np.where(moments > opened_at[-1], beyond, places))
