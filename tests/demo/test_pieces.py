"""The made-up market and the decision cards."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from qml_plugin.bars import read_bars
from qml_plugin.demo.cards import decision_card
from qml_plugin.demo.synthetic import planted_edge_market
from qml_plugin.labels.outcomes import barrier_outcome
from qml_plugin.memory import MODES
from qml_plugin.records import Decision, Neighbour, Pattern, Point, Setup
from tests.conftest import random_walk
from tests.memory.worlds import make_bars, make_entry

# The market


@pytest.mark.parametrize("n_bars", [2, 3, 250, 1_999])
def test_a_longer_market_begins_with_the_shorter(n_bars):
    pd.testing.assert_frame_equal(planted_edge_market(n_bars), planted_edge_market(2_000).iloc[:n_bars])


def test_the_market_is_seeded():
    pd.testing.assert_frame_equal(planted_edge_market(500, seed=5), planted_edge_market(500, seed=5))
    assert not planted_edge_market(500, seed=5)["Close"].equals(planted_edge_market(500, seed=6)["Close"])


def test_the_market_is_fit_to_trade():
    market = planted_edge_market()
    assert len(read_bars(market)) == len(market) == 12_000
    assert list(market.columns) == ["Open", "High", "Low", "Close", "Volume"]
    np.testing.assert_array_equal(market["Open"].iloc[1:], market["Close"].iloc[:-1])
    assert market["Close"].between(1, 10_000).all()


def test_the_market_trends_while_calm_and_reverses_while_wild():
    """The edge is where the description says: the sign of the carry follows the volatility seen so far."""
    returns = np.log(planted_edge_market()["Close"]).diff()
    trend = returns.ewm(span=5, adjust=False).mean().shift()
    volatility = returns.abs().rolling(30).mean().shift()
    calm, wild = volatility < volatility.quantile(0.3), volatility > volatility.quantile(0.7)
    assert returns[calm].corr(trend[calm]) > 0.05
    assert returns[wild].corr(trend[wild]) < -0.05


def test_there_are_three_modes():
    assert MODES == ("record", "shadow", "gate")


# Cards


@pytest.fixture(scope="module")
def bars():
    return make_bars(random_walk(400, 3), "X")


def card_of(bars, bar, side=1, decision=None, past=None, setup=None, is_synthetic=False):
    entry = replace(make_entry(bars, bar, side), setup=setup)
    outcome = barrier_outcome(entry, bars, through_bar=len(bars) - 1)
    pattern = Pattern(entry, np.zeros(3), "f" * 64, outcome)
    decision = decision or Decision(pattern.pattern_id, "take", "confident: 0.7 >= 0.4", confidence=0.7, threshold=0.4)
    return decision_card(bars, pattern, decision, past or {}, is_synthetic=is_synthetic), pattern


@pytest.mark.parametrize("bar", [14, 59, 60, 61, 200, 379, 399])
@pytest.mark.parametrize("side", [1, -1])
def test_the_window_holds_entry_and_exit(bars, bar, side):
    card, pattern = card_of(bars, bar, side)
    first = max(0, bar - 60)
    assert card.opened_at[0] == bars.opened_at[first]
    assert card.opened_at[card.entry_row] == pattern.entry.detection_at == card.detection_at
    last = bar if pattern.outcome is None else pattern.outcome.exit_bar
    assert len(card.opened_at) == min(len(bars), last + 20) - first
    for name in ("open", "high", "low", "close", "opened_at"):
        column = getattr(card, name)
        np.testing.assert_array_equal(column, getattr(bars, name)[first : first + len(column)])
    if pattern.outcome is None:
        assert card.exit_row is card.exit_reason is card.r_multiple is None
    else:
        assert card.opened_at[card.exit_row] == bars.opened_at[pattern.outcome.exit_bar]
        assert (card.exit_reason, card.r_multiple) == (pattern.outcome.exit_reason, pattern.outcome.r_multiple)


def test_the_window_reaches_back_to_the_setup(bars):
    points = tuple(Point(bar, float(bars.close[bar]), bar + 2) for bar in (100, 120, 140, 160, 200))
    card, _ = card_of(bars, 202, setup=Setup("bullish_qml", 1, points, 202))
    assert card.opened_at[0] == bars.opened_at[95]
    assert [name for _, _, name in card.points] == ["P1", "P2", "P3", "P4", "P5"]
    for (row, px, _), point in zip(card.points, points, strict=True):
        assert card.opened_at[row] == bars.opened_at[point.bar]
        assert card.close[row] == px == point.px
    near = tuple(Point(bar, 100.0, bar) for bar in (2, 4, 6, 8, 15))
    assert card_of(bars, 20, setup=Setup("bullish_qml", 1, near, 20))[0].opened_at[0] == bars.opened_at[0]
    assert card_of(bars, 200)[0].points == ()


def test_a_card_says_what_was_decided(bars):
    decision = Decision(
        "p", "skip", "unconvinced: 0.2 < 0.4", 0.2, 0.3, 0.4, "xgboost", 99, contributions=(("rsi_14", -0.5),)
    )
    card, pattern = card_of(bars, 200, decision=decision, is_synthetic=True)
    assert card.is_synthetic
    assert (card.action, card.reason, card.model) == ("skip", "unconvinced: 0.2 < 0.4", "xgboost")
    assert (card.confidence, card.threshold, card.contributions) == (0.2, 0.4, (("rsi_14", -0.5),))
    assert (card.stop_px, card.target_px) == (pattern.entry.stop_px, pattern.entry.target_px)
    assert card.title == "Cross: long signal on X 1h"


def test_neighbours_are_looked_up_and_missing_ones_left_out(bars):
    past = [card_of(bars, bar)[1] for bar in (50, 80)]
    near = tuple(
        Neighbour(key, distance, 1, True, 1.5)
        for key, distance in ((past[1].pattern_id, 0.5), ("gone", 0.6), (past[0].pattern_id, 0.7))
    )
    decision = Decision("p", "abstain", "few_labels: 30 of 62 outcomes known", neighbours=near)
    card, _ = card_of(bars, 200, decision=decision, past={p.pattern_id: p for p in past})
    assert [(n.detection_at, n.distance) for n in card.neighbours] == [
        (past[1].entry.detection_at, 0.5),
        (past[0].entry.detection_at, 0.7),
    ]
