"""Sizes that follow the confidence. The stake is forced; orders, trades and records are real."""

from __future__ import annotations

from dataclasses import replace

import pytest
from backtesting import Backtest
from backtesting.lib import FractionalBacktest

from qml_plugin import PatternMemory, PatternRegistry
from qml_plugin.errors import DataError
from tests.adapters.test_skipping import play, scripted

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:backtesting"),
    pytest.mark.filterwarnings("ignore:Some trades remain open"),
]


@pytest.fixture
def stake(monkeypatch):
    """Returns a function that makes every entry put this share of equity at risk, as an active gate might."""
    decide = PatternMemory.decide

    def force(risk_frac):
        def decided(self, entry):
            decision = replace(decide(self, entry), action="take", reason="confident: 0.6 >= 0.4", risk_frac=risk_frac)
            self.decisions[entry.pattern_id] = decision
            return decision

        monkeypatch.setattr(PatternMemory, "decide", decided)

    return force


def sizes(stats):
    return [trade.size for trade in stats["_strategy"].closed_trades]


def bought(goog, order, host=None, strategy=None):
    """Sizes of the trades of one purchase after ten bars with a stop five dollars away, and the close then."""
    price = goog.Close.iloc[9]
    stats, _ = play(goog, scripted({10: lambda s: s.buy(sl=price - 5, **order)}, **strategy or {}), finalize_trades=True, **host or {})  # fmt: skip
    return sizes(stats)


def test_the_size_is_the_equity_at_risk_over_the_distance_of_the_stop(goog, stake):
    stake(0.001)  # 100 of 100,000 at risk, 5 a unit
    assert bought(goog, {"size": 500}) == [20]
    assert bought(goog, {"size": 0.9}) == [20]
    assert bought(goog, {}) == [20]
    assert bought(goog, {}, {"exclusive_orders": True}) == [20]


def test_it_is_never_above_what_the_order_asked_for(goog, stake):
    plain = bought(goog, {"size": 0.01})
    stake(0.02)
    assert bought(goog, {"size": 7}) == [7]
    assert bought(goog, {"size": 0.01}) == plain
    assert plain[0] < 400


def test_it_is_at_least_one_unit(goog, stake):
    stake(1e-9)
    assert bought(goog, {"size": 500}) == [1]
    assert bought(goog, {}) == [1]


def test_an_order_without_a_stop_and_a_shadow_run_keep_their_sizes(goog, stake):
    stake(0.001)
    stats, _ = play(goog, scripted({10: lambda s: s.buy(size=50)}), finalize_trades=True)
    assert sizes(stats) == [50]
    assert bought(goog, {"size": 50}, strategy={"mode": "shadow"}) == [50]


def test_what_a_reversal_closes_comes_on_top(goog, stake):
    stake(0.001)
    price = goog.Close.iloc[19]
    actions = {10: lambda s: s.buy(size=30), 20: lambda s: s.sell(size=500, sl=price + 5)}
    stats, strategy = play(goog, scripted(actions), finalize_trades=True)
    assert strategy.seen["position"][20] == 30
    assert sum(size for size in sizes(stats) if size < 0) == pytest.approx(-20, abs=1)


def test_an_exclusive_reversal_counts_the_margin_that_comes_free(goog, stake):
    stake(0.001)
    price = goog.Close.iloc[19]
    actions = {10: lambda s: s.buy(), 20: lambda s: s.sell(sl=price + 5)}
    stats, strategy = play(goog, scripted(actions), exclusive_orders=True, finalize_trades=True)
    assert strategy.seen["position"][20] > 500
    assert sum(size for size in sizes(stats) if size < 0) == pytest.approx(-20, abs=2)


def test_a_fractional_host_is_sized_in_its_own_units(goog, stake):
    stake(0.001)
    price = goog.Close.iloc[9]
    strategy = scripted({10: lambda s: s.buy(sl=s.data.Close[-1] * (price - 5) / price)})
    host = FractionalBacktest(goog.iloc[:60], strategy, fractional_unit=0.01, cash=100_000, finalize_trades=True)
    assert host.run()["_trades"].Size.iloc[0] == pytest.approx(20, abs=0.5)  # the fill gapped by 1 %


def test_the_stake_is_recorded_with_the_decision(goog, stake, tmp_path):
    stake(0.001)
    url = f"sqlite:///{tmp_path}/sized.db"
    price = goog.Close.iloc[9]
    strategy = scripted({10: lambda s: s.buy(sl=price - 5)}, symbol="GOOG", registry=url, kelly_fraction=0.25)
    stats, _ = play(goog, strategy, finalize_trades=True)
    memory, registry = stats["_strategy"].qml, PatternRegistry(url)
    (decision,) = memory.decisions
    assert registry.get_decision(memory.run.run_id, decision.pattern_id).risk_frac == 0.001
    settings = registry.get_run(memory.run.run_id)["params"]["qml"]
    assert (settings["kelly_fraction"], settings["risk_cap_frac"]) == (0.25, 0.02)


def test_a_run_without_it_is_the_run_that_it_always_was(goog):
    stats, _ = play(goog, scripted({10: lambda s: s.buy(size=5)}))
    assert "kelly_fraction" not in stats["_strategy"].qml.run.params["qml"]


def test_impossible_settings_are_refused(goog):
    with pytest.raises(DataError, match=r"kelly_fraction is 2\. It is a share of the Kelly stake"):
        Backtest(goog.iloc[:20], scripted({})).run(kelly_fraction=2)
    Backtest(goog.iloc[:20], scripted({})).run(kelly_fraction=float("nan"))
