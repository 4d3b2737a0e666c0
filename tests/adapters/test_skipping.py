"""What a skipped entry does to orders and positions. The decision is forced; everything around it is real."""

import pytest
from backtesting import Backtest, Strategy

from qml_plugin import PatternMemory, PatternMixin
from qml_plugin.errors import LookAheadError
from qml_plugin.records import Decision

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:backtesting"),
    pytest.mark.filterwarnings("ignore:Some trades remain open"),
]


@pytest.fixture
def skip_shorts(monkeypatch):
    """Every short entry is skipped, as an active gate would."""
    decide = PatternMemory.decide

    def decided(self, entry):
        decision = decide(self, entry)
        if entry.side < 0:
            decision = Decision(entry.pattern_id, "skip", "unconvinced: 0.100 < 0.500", confidence=0.1, threshold=0.5)
            self.decisions[entry.pattern_id] = decision
        return decision

    monkeypatch.setattr(PatternMemory, "decide", decided)


def scripted(actions, **attributes):
    """A strategy that does `actions[n]` when it has seen n bars."""

    class Scripted(PatternMixin, Strategy):
        def init(self):
            self.seen = {}

        def next(self):
            n = len(self.data)
            if n in actions:
                self.seen[n] = actions[n](self)
            self.seen.setdefault("position", {})[n] = self.position.size

    for name, value in attributes.items():
        setattr(Scripted, name, value)
    return Scripted


def play(data, strategy, **host):
    stats = Backtest(data.iloc[:60], strategy, cash=100_000, **host).run()
    return stats, stats["_strategy"]


@pytest.mark.parametrize(("on_skip", "size_after"), [("flat", 0), ("hold", 10)])
def test_a_skipped_reversal_goes_flat_or_holds(goog, skip_shorts, on_skip, size_after):
    actions = {10: lambda s: s.buy(size=10), 20: lambda s: s.sell(size=10)}
    stats, strategy = play(goog, scripted(actions, on_skip=on_skip), exclusive_orders=True, finalize_trades=True)
    assert strategy.seen["position"][20] == 10
    assert strategy.seen["position"][22] == size_after
    assert set(stats["_trades"]["Size"]) == {10}


@pytest.mark.parametrize(("on_skip", "n_orders"), [("flat", 0), ("hold", 1)])
def test_going_flat_cancels_pending_entries_of_the_other_side(goog, skip_shorts, on_skip, n_orders):
    def sell_and_count(strategy):
        strategy.sell(size=5)
        return len(strategy.orders)

    actions = {10: lambda s: s.buy(size=10, limit=1.0), 20: sell_and_count}
    _, strategy = play(goog, scripted(actions, on_skip=on_skip), exclusive_orders=True)
    assert strategy.seen[20] == n_orders


def test_the_skipped_order_is_falsy_and_harmless(goog, skip_shorts):
    def sell(strategy):
        order = strategy.sell(size=7, limit=500.0, sl=600.0, tag="mine")
        order.cancel()
        return order

    _, strategy = play(goog, scripted({20: sell}))
    order = strategy.seen[20]
    assert not order
    assert (order.size, order.limit, order.sl, order.stop, order.tp, order.tag) == (
        -7,
        500.0,
        600.0,
        None,
        None,
        "mine",
    )
    assert repr(order) == "<SkippedOrder size=-7.0 reason='unconvinced: 0.100 < 0.500'>"


def test_an_order_that_only_closes_is_neither_gated_nor_registered(goog, skip_shorts):
    actions = {10: lambda s: s.buy(size=10), 20: lambda s: s.sell(size=4), 30: lambda s: s.sell(size=6)}
    stats, strategy = play(goog, scripted(actions))
    assert [strategy.seen["position"][n] for n in (20, 22, 32)] == [10, 6, 0]
    assert len(strategy.qml.patterns) == 1
    assert len(stats["_trades"]) == 2


def test_the_closing_part_of_a_skipped_flip_is_carried_out(goog, skip_shorts):
    actions = {10: lambda s: s.buy(size=10), 20: lambda s: s.sell(size=25)}
    _, strategy = play(goog, scripted(actions))
    assert strategy.seen["position"][22] == 0
    assert [d.action for d in strategy.qml.decisions] == ["abstain", "skip"]


def test_a_skipped_pending_flip_still_closes_at_its_price(goog, skip_shorts):
    price = float(goog["Close"].iloc[19])
    actions = {10: lambda s: s.buy(size=10), 20: lambda s: s.sell(size=25, limit=price * 1.02, sl=price * 1.5)}
    _, strategy = play(goog, scripted(actions))
    sizes = [strategy.seen["position"][n] for n in range(20, 61)]
    assert min(sizes) == 0, "closed, and never short"


def test_with_hedging_a_skipped_entry_closes_nothing(goog, skip_shorts):
    actions = {10: lambda s: s.buy(size=10), 20: lambda s: s.sell(size=25)}
    _, strategy = play(goog, scripted(actions), hedging=True)
    assert strategy.seen["position"][22] == 10


def test_a_skipped_entry_is_registered_and_labelled(goog, skip_shorts):
    actions = {20: lambda s: s.sell(size=7), 30: lambda s: s.buy(size=7)}
    _, strategy = play(goog, scripted(actions), finalize_trades=True)
    table = strategy.qml.table()
    assert table["action"].tolist() == ["skip", "abstain"]
    assert table["r_multiple"].notna()[0]
    assert table["trade_return_frac"].isna().tolist() == [True, False]


def test_an_order_that_the_host_refuses_is_not_registered(goog):
    def sell(strategy):
        with pytest.raises(ValueError, match="Short orders require"):
            strategy.sell(sl=1.0)
        with pytest.raises(AssertionError, match="size must be"):
            strategy.sell(size=-3)

    _, strategy = play(goog, scripted({20: sell, 30: lambda s: s.sell(size=3)}))
    assert len(strategy.qml.patterns) == 1


def test_two_equal_orders_of_one_bar_are_one_pattern(goog):
    def twice(strategy):
        return strategy.buy(size=3), strategy.buy(size=3)

    stats, strategy = play(goog, scripted({20: twice}), finalize_trades=True)
    assert len(strategy.qml.patterns) == 1
    assert len(stats["_trades"]) == 2
    assert strategy.qml.patterns[0].trade_return_frac == pytest.approx(stats["_trades"]["ReturnPct"].mean())


def test_an_entry_of_the_last_bar_is_registered_without_an_outcome(goog):
    _, strategy = play(goog, scripted({60: lambda s: s.buy(size=3)}))
    (pattern,) = strategy.qml.patterns
    assert pattern.outcome is None
    assert strategy.qml.table()["barrier_outcome"].isna().all()


def test_the_first_bars_are_registered_with_what_is_known(goog):
    _, strategy = play(goog, scripted({2: lambda s: s.buy(size=3), 5: lambda s: s.sell(size=9)}))
    assert len(strategy.qml.patterns) == 2
    assert all(pattern.outcome is not None for pattern in strategy.qml.patterns)


def test_outcomes_cannot_be_read_during_the_run(goog):
    def look(strategy):
        assert [decision.action for decision in strategy.qml.decisions] == ["abstain"]
        with pytest.raises(LookAheadError, match="there after the run only"):
            strategy.qml.table()

    play(goog, scripted({20: lambda s: s.buy(size=3), 30: look}))
