"""Answers from registries that real runs filled, against brute force over the rows of the database."""

from __future__ import annotations

import dataclasses
import math
import statistics
from datetime import timedelta

import numpy as np
import pytest

from qml_plugin.bars import bars_from_frame
from qml_plugin.clock import from_datetime, to_datetime
from qml_plugin.errors import DataError, FeatureMismatch
from qml_plugin.features import CATALOGUE
from qml_plugin.neighbours.answer import answers
from qml_plugin.neighbours.question import question_of, questions_now
from qml_plugin.neighbours.sentences import sentences
from qml_plugin.registry import PatternRegistry
from qml_plugin.retrieval import Scaler
from tests.neighbours.conftest import CHANGED_FROM
from tests.registry.registry_samples import execute

DAY = 86_400_000_000
GROUPS = [feature.category for feature in CATALOGUE]


def every(registry):
    return sorted(registry.get_patterns(limit=100_000), key=lambda p: (p["detection_time"], p["pattern_id"]))


def late(registry, symbol="GOOG", back=20):
    return [p for p in every(registry) if p["symbol"] == symbol][-back]


def known_then(registry, as_of):
    return [p for p in every(registry) if p["resolved_at"] is not None and from_datetime(p["resolved_at"]) <= as_of]


def ranked(registry, question, is_wanted):
    """Ids of the wanted, nearest first, by the plainest arithmetic."""
    past = known_then(registry, question.as_of)
    features = np.array([[p["features"][name] for name in CATALOGUE.names] for p in past], np.float32)
    scaler = Scaler.fit(features, GROUPS)
    vectors, query = (
        scaler.transform(features).astype(float),
        scaler.transform(question.features[None])[0].astype(float),
    )
    found = [
        (math.dist(vector, query), from_datetime(p["resolved_at"]), p["pattern_id"], p)
        for vector, p in zip(vectors, past, strict=True)
        if p["side"] == question.side and is_wanted(p)
    ]
    return [p for *_, p in sorted(found, key=lambda row: row[:3])]


FILTERS = {
    "none": ({}, lambda p, as_of: True),
    "symbol": ({"symbol": "GOOG"}, lambda p, as_of: p["symbol"] == "GOOG"),
    "other symbol": ({"symbol": "EURUSD"}, lambda p, as_of: p["symbol"] == "EURUSD"),
    "timeframe": ({"timeframe": "24h"}, lambda p, as_of: p["timeframe"] == "1d"),
    "strategy": ({"strategy": "MovingAverageCross"}, lambda p, as_of: True),
    "no strategy": ({"strategy": "QML"}, lambda p, as_of: False),
    "pattern type": ({"pattern_type": "short_signal"}, lambda p, as_of: p["pattern_type"] == "short_signal"),
    "age": ({"max_age": 200 * DAY}, lambda p, as_of: from_datetime(p["resolved_at"]) >= as_of - 200 * DAY),
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("symbol", ["GOOG", "EURUSD"])
def test_neighbours_and_base_rate_by_brute_force(registry, name, symbol):
    filters, is_wanted = FILTERS[name]
    question = question_of(registry, late(registry, symbol)["pattern_id"])
    wanted = ranked(registry, question, lambda p: is_wanted(p, question.as_of))
    (answer,) = answers(registry, [question], k=7, **filters)
    assert [past.pattern_id for past in answer.neighbours] == [p["pattern_id"] for p in wanted[:7]]
    assert answer.n_eligible == len(wanted)
    for past, p in zip(answer.neighbours, wanted, strict=False):
        assert (past.symbol, past.timeframe, past.strategy) == (p["symbol"], p["timeframe"], p["strategy"])
        assert past.pattern_type == p["pattern_type"]
        assert (to_datetime(past.detection_at), to_datetime(past.resolved_at)) == (
            p["detection_time"],
            p["resolved_at"],
        )
        assert (past.is_win, past.r_multiple) == (p["barrier_outcome"] == "win", p["r_multiple"])
        assert past.path.exit_bar is not None
    if not wanted:
        assert {answer.win_share, answer.mean_r, answer.median_r, answer.base_share, answer.base_mean_r} == {None}
        return
    wins = [p["barrier_outcome"] == "win" for p in wanted]
    r_multiple = [p["r_multiple"] for p in wanted]
    assert answer.win_share == pytest.approx(statistics.fmean(wins[:7]))
    assert answer.share_low <= answer.win_share <= answer.share_high
    assert answer.mean_r == pytest.approx(statistics.fmean(r_multiple[:7]))
    assert answer.median_r == pytest.approx(statistics.median(r_multiple[:7]))
    assert answer.base_share == pytest.approx(statistics.fmean(wins))
    assert answer.base_mean_r == pytest.approx(statistics.fmean(r_multiple))
    assert sorted(answer.eligible_r) == pytest.approx(sorted(r_multiple))


@pytest.mark.parametrize("apart_bars", [0, 3, 30])
def test_neighbours_apart_are_chosen_one_after_the_other(registry, goog, apart_bars):
    question = question_of(registry, late(registry)["pattern_id"])
    bar_of = {stamp.to_pydatetime(): bar for bar, stamp in enumerate(goog.index)}
    chosen = []
    for p in ranked(registry, question, lambda p: p["symbol"] == "GOOG"):
        bar = bar_of[p["detection_time"]]
        if all(abs(bar - bar_of[other["detection_time"]]) > apart_bars for other in chosen):
            chosen.append(p)
    (answer,) = answers(registry, [question], k=12, symbol="GOOG", apart_bars=apart_bars)
    assert [past.pattern_id for past in answer.neighbours] == [p["pattern_id"] for p in chosen[:12]]
    assert answer.n_eligible == len(ranked(registry, question, lambda p: p["symbol"] == "GOOG"))
    assert apart_bars < 30 or answer.n_eligible > len(chosen)


def test_a_strategy_is_chosen_before_the_search(two_markets, tmp_path):
    path = tmp_path / "strategies.db"
    path.write_bytes(two_markets.read_bytes())
    execute(path, "UPDATE ml_pattern_registry SET strategy = 'Other' WHERE pattern_id < '8'")
    registry = PatternRegistry(f"sqlite:///{path}", create=False)
    question = question_of(registry, late(registry)["pattern_id"])
    for strategy in ("Other", "MovingAverageCross"):
        wanted = ranked(registry, question, lambda p, strategy=strategy: p["strategy"] == strategy)
        (answer,) = answers(registry, [question], k=6, strategy=strategy)
        assert [past.pattern_id for past in answer.neighbours] == [p["pattern_id"] for p in wanted[:6]]
        assert answer.n_eligible == len(wanted) > 6


def test_bars_apart_are_lengths_of_a_bar_where_none_are_kept(two_markets, tmp_path):
    path = tmp_path / "bare.db"
    path.write_bytes(two_markets.read_bytes())
    execute(path, "DELETE FROM bars")
    registry = PatternRegistry(f"sqlite:///{path}", create=False)
    question = question_of(registry, late(registry)["pattern_id"])
    chosen = []
    for p in ranked(registry, question, lambda p: p["symbol"] == "GOOG"):
        if all(abs(p["detection_time"] - other["detection_time"]) > timedelta(days=9) for other in chosen):
            chosen.append(p)
    (answer,) = answers(registry, [question], k=12, symbol="GOOG", apart_bars=9)
    assert [past.pattern_id for past in answer.neighbours] == [p["pattern_id"] for p in chosen[:12]]
    assert {past.path for past in answer.neighbours} == {None}
    assert answer.fan.shape == (5, 0)
    assert sentences(answer)[-1].startswith("No bars around them are kept")


def test_paths_are_of_the_bars_that_were_closed(registry, goog):
    for back in (1, 20, 40):
        question = question_of(registry, late(registry, back=back)["pattern_id"])
        (answer,) = answers(registry, [question], k=40)
        for past in answer.neighbours:
            if past.symbol == "GOOG":
                bar = goog.index.get_loc(to_datetime(past.detection_at))
                as_of_bar = goog.index.searchsorted(to_datetime(question.as_of)) - 1
                assert past.path.last_bar == min(50, as_of_bar - bar)
                close = goog["Close"].to_numpy()[bar : bar + past.path.last_bar + 1]
                moved = question.side * (close - close[0])
                assert np.corrcoef(moved, past.path.after)[0, 1] == pytest.approx(1.0)
        assert answer.n_paths[0] == len(answer.neighbours)


def same(one, other):
    """Whether two answers are equal, bit for bit."""
    assert repr(one.neighbours) == repr(other.neighbours)
    for a, b in zip(one.neighbours, other.neighbours, strict=True):
        assert (a.distance, a.r_multiple) == (b.distance, b.r_multiple)
        assert a.path.move_atr.tobytes() == b.path.move_atr.tobytes()
    for name in ("win_share", "share_low", "share_high", "mean_r", "median_r", "base_share", "base_mean_r", "as_of"):
        assert getattr(one, name) == getattr(other, name)
    for name in ("eligible_r", "fan", "n_paths"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes()
    return True


@pytest.mark.parametrize("filters", [{}, {"apart_bars": 5, "max_age": 300 * DAY}], ids=["plain", "filtered"])
def test_another_future_changes_no_answer(same_past, goog, filters):
    one, other = (PatternRegistry(f"sqlite:///{path}", create=False) for path in same_past)
    until = goog.index[CHANGED_FROM]
    asked = [p["pattern_id"] for p in every(one) if p["detection_time"] < until]
    assert asked == [p["pattern_id"] for p in every(other) if p["detection_time"] < until]
    last = [p["r_multiple"] for registry in (one, other) for p in [registry.get_pattern(asked[-1])]]
    assert last[0] != last[1], "the future did change"
    for pattern_id in asked[-25:]:
        pairs = [
            answers(registry, [question_of(registry, pattern_id)], k=15, **filters)[0] for registry in (one, other)
        ]
        assert same(*pairs)
        assert len(pairs[0].neighbours) > 3


def test_asking_now_is_asking_at_that_bar(same_past, goog):
    """The bars up to a moment, against a registry that knows all that came later."""
    one, other = (PatternRegistry(f"sqlite:///{path}", create=False) for path in same_past)
    bars = bars_from_frame(goog.iloc[:CHANGED_FROM], symbol="GOOG", timeframe="1d")
    questions = questions_now(bars)
    assert [question.side for question in questions] == [1, -1]
    assert {question.as_of for question in questions} == {int(bars.known_at[-1])}
    pairs = list(zip(answers(one, questions, k=9), answers(other, questions, k=9), strict=True))
    for a, b in pairs:
        assert same(a, b)
        assert all(past.resolved_at <= a.as_of for past in a.neighbours)
    (short,) = questions_now(bars, [-1])
    assert short.features.tobytes() == questions[1].features.tobytes()
    assert short.pattern["target_px"] < bars.close[-1] < short.pattern["stop_px"]


def test_the_features_of_now_are_those_that_a_run_registers(registry, goog):
    """But for what a strategy's own entries before it say."""
    pattern = late(registry)
    at = goog.index.get_loc(pattern["detection_time"])
    bars = bars_from_frame(goog.iloc[: at + 1], symbol="GOOG", timeframe="1d")
    (question,) = questions_now(bars, [pattern["side"]])
    registered = question_of(registry, pattern["pattern_id"])
    needs = np.array([feature.needs == "bars" for feature in CATALOGUE])
    assert needs.sum() > 100
    assert question.features[needs].tobytes() == registered.features[needs].tobytes()
    assert question.as_of == registered.as_of


def test_a_label_by_hand_decides_and_ignore_leaves_out(two_markets, tmp_path):
    path = tmp_path / "labelled.db"
    path.write_bytes(two_markets.read_bytes())
    registry = PatternRegistry(f"sqlite:///{path}")
    question = question_of(registry, late(registry)["pattern_id"])
    (before,) = answers(registry, [question])
    first, second = before.neighbours[:2]
    registry.label_pattern(first.pattern_id, "loss" if first.is_win else "win")
    registry.label_pattern(second.pattern_id, "ignore")
    (after,) = answers(registry, [question])
    assert (after.neighbours[0].pattern_id, after.neighbours[0].is_win) == (first.pattern_id, not first.is_win)
    assert second.pattern_id not in [past.pattern_id for past in after.neighbours]
    assert after.n_eligible == before.n_eligible - 1


def by_hand(registry, n, **changes):
    given = {
        "symbol": "BTC/USDT", "timeframe": "4h", "pattern_type": "bullish_qml", "detection_time": f"2024-03-{n + 1:02d} 12:00",
        "detection_idx": 120, "entry_price": 100.0, "stop_loss": 95.0, "take_profit": 110.0, "left_shoulder_price": 99.0,
        "left_shoulder_idx": 90, "head_price": 96.0, "head_idx": 102, "right_shoulder_price": 100.0, "right_shoulder_idx": 120,
        "validity_score": 0.8,
    }  # fmt: skip
    return registry.register_pattern(given | changes, {"ctx_rsi_14": 30.0 + n, "ctx_adx_14": 20.0 - n})


def test_patterns_registered_by_hand_have_outcomes_and_no_prices(tmp_path):
    registry = PatternRegistry(f"sqlite:///{tmp_path}/hand.db")
    for n in range(6):
        registry.label_pattern(by_hand(registry, n), "win" if n % 3 else "loss")
    last = by_hand(registry, 0, detection_time="2999-01-01 00:00")
    (answer,) = answers(registry, [question_of(registry, last)], k=3, apart_bars=2)
    assert [past.is_win for past in answer.neighbours] == [False, True, True]
    assert all(math.isnan(past.r_multiple) and past.path is None for past in answer.neighbours)
    assert (answer.mean_r, answer.median_r, answer.base_mean_r) == (None, None, None)
    assert (answer.n_eligible, answer.base_share) == (6, pytest.approx(4 / 6))
    said = " ".join(sentences(answer))
    assert "2 of the 3 nearest won" in said
    assert "6 long patterns were eligible; of all of them 66.7\u202f% won." in said
    assert "Mean" not in said


def test_nothing_known_is_said(registry):
    first = every(registry)[0]
    (answer,) = answers(registry, [question_of(registry, first["pattern_id"])])
    assert (answer.neighbours, answer.n_eligible, answer.win_share) == ((), 0, None)
    assert sentences(answer)[0].endswith("pattern that meets the filters had a known outcome then.")


def test_a_base_rate_outside_the_interval_is_no_finding(registry):
    question = question_of(registry, late(registry)["pattern_id"])
    (answer,) = answers(registry, [question])
    inside = dataclasses.replace(answer, share_low=0.0, share_high=1.0)
    outside = dataclasses.replace(answer, share_low=answer.base_share + 0.01, share_high=1.0)
    assert "lies within the interval" in " ".join(sentences(inside))
    assert "lies outside the interval" in " ".join(sentences(outside))
    for found in (inside, outside):
        assert "describes the past and foretells nothing" in " ".join(sentences(found))


def test_what_cannot_be_asked_is_refused(registry, two_markets, tmp_path):
    with pytest.raises(DataError, match="pattern 'nobody' is not in"):
        question_of(registry, "nobody")
    question = question_of(registry, late(registry)["pattern_id"])
    with pytest.raises(DataError, match="timeframe '5x' is not understood"):
        answers(registry, [question], timeframe="5x")
    path = tmp_path / "old.db"
    path.write_bytes(two_markets.read_bytes())
    pattern_id = question.pattern["pattern_id"]
    execute(path, "UPDATE ml_pattern_registry SET feature_set = ? WHERE pattern_id = ?", ("0" * 64, pattern_id))
    with pytest.raises(FeatureMismatch, match=r"Run its backtest again with this version"):
        question_of(PatternRegistry(f"sqlite:///{path}", create=False), pattern_id)


def test_facts_are_of_every_pattern_of_the_set(registry):
    facts = registry.pattern_facts(CATALOGUE.feature_set)
    patterns = every(registry)
    assert len(facts) == len(patterns)
    for p in patterns:
        fact = facts[p["pattern_id"]]
        assert (fact.symbol, fact.timeframe, fact.pattern_type, fact.strategy) == tuple(
            p[name] for name in ("symbol", "timeframe", "pattern_type", "strategy")
        )
        assert to_datetime(fact.detection_at) == p["detection_time"]
    assert registry.pattern_facts("0" * 64) == {}
