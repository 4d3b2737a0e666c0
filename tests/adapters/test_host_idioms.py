"""Things that people's strategies do: the memory sees every entry and changes nothing else."""

import datetime
import os
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from backtesting import Backtest, Strategy
from backtesting.lib import SignalStrategy, crossover

from qml_plugin import PatternMixin, PatternRegistry
from qml_plugin.errors import DataError, QmlError
from tests.adapters.test_identity import assert_same_results
from tests.adapters.test_registering import contents, rows
from tests.adapters.test_skipping import scripted, skip_shorts  # noqa: F401

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:backtesting"),
    pytest.mark.filterwarnings("ignore:Some trades remain open"),
]


def mean(values, n):
    return pd.Series(values).rolling(n).mean().to_numpy()


class CloseThenEnter(Strategy):
    """The idiom of the host's own tutorial."""

    size = 0.9999

    def init(self):
        self.fast, self.slow = self.I(mean, self.data.Close, 10), self.I(mean, self.data.Close, 20)

    def next(self):
        if crossover(self.fast, self.slow):
            self.position.close()
            self.buy(size=self.size)
        elif crossover(self.slow, self.fast):
            self.position.close()
            self.sell(size=self.size)


class RememberedCloseThenEnter(PatternMixin, CloseThenEnter):
    symbol = "GOOG"


@pytest.mark.parametrize("size", [0.9999, 0.5, 7])
def test_close_then_enter_registers_every_entry(goog, size):
    host = {"cash": 10_000, "commission": 0.002, "finalize_trades": True}
    bare = Backtest(goog, CloseThenEnter, **host).run(size=size)
    stats = Backtest(goog, RememberedCloseThenEnter, **host).run(size=size, mode="record")
    assert_same_results(bare, stats)
    memory = stats["_strategy"].qml
    assert len(memory.patterns) >= len(stats["_trades"]) > 80
    assert memory.run.metrics["n_unregistered_trades"] == 0


def test_a_skipped_entry_after_an_explicit_close_leaves_the_position_flat(goog, skip_shorts):  # noqa: F811
    def turn(strategy):
        strategy.position.close()
        strategy.sell(size=5)

    for host in ({}, {"exclusive_orders": True}):
        strategy = scripted({10: lambda s: s.buy(size=10), 20: turn})
        seen = Backtest(goog.iloc[:40], strategy, cash=100_000, **host).run()["_strategy"].seen["position"]
        assert (seen[20], seen[22]) == (10, 0)


def test_two_sells_of_one_bar_close_and_then_enter(goog, skip_shorts):  # noqa: F811
    def sell_twice(strategy):
        strategy.sell(size=7)
        strategy.sell(size=7)

    strategy = Backtest(goog.iloc[:40], scripted({10: lambda s: s.buy(size=10), 20: sell_twice}), cash=100_000).run()[
        "_strategy"
    ]
    assert strategy.seen["position"][22] == 0
    assert [decision.action for decision in strategy.qml.decisions] == ["abstain", "skip"]


def test_the_closing_part_of_a_skipped_pending_order_can_never_open(goog, skip_shorts):  # noqa: F811
    price = float(goog["Close"].iloc[19])

    def pending(strategy):
        return strategy.sell(size=25, limit=price * 1.05)

    actions = {10: lambda s: s.buy(size=10), 20: pending, 21: lambda s: s.position.close()}
    strategy = Backtest(goog.iloc[:200], scripted(actions), cash=100_000).run()["_strategy"]
    assert min(strategy.seen["position"].values()) == 0
    assert set(list(strategy.seen["position"].values())[25:]) == {0}


def test_cancelling_a_skipped_pending_order_cancels_its_closing_part(goog, skip_shorts):  # noqa: F811
    price = float(goog["Close"].iloc[19])

    def pending(strategy):
        order = strategy.sell(size=25, limit=price * 1.05)
        assert len(strategy.orders) == 1
        order.cancel()
        order.cancel()
        return order, len(strategy.orders)

    strategy = Backtest(goog.iloc[:60], scripted({10: lambda s: s.buy(size=10), 20: pending}), cash=100_000).run()[
        "_strategy"
    ]
    order, n_orders = strategy.seen[20]
    assert n_orders == 0
    assert (order.is_long, order.is_short, order.is_contingent, order.parent_trade) == (False, True, False, None)


TAGS = [None, "text", 7, {"a": 1}, (1, 2), np.arange(3), object()]


@pytest.mark.parametrize("tag", TAGS, ids=lambda tag: type(tag).__name__)
def test_orders_and_trades_show_the_users_own_tag(goog, tag):
    def enter(strategy):
        order = strategy.buy(size=3, sl=1.0, tag=tag)
        assert order.tag is tag
        return order

    def look(strategy):
        assert [trade.tag is tag for trade in strategy.trades] == [True]
        strategy.trades[0].close(0.5)
        assert strategy.orders[0].tag is tag

    stats = Backtest(goog.iloc[:60], scripted({20: enter, 30: look}), cash=100_000, finalize_trades=True).run()
    assert all(shown is tag or (isinstance(tag, str) and shown == tag) for shown in stats["_trades"]["Tag"])
    assert stats["_strategy"].qml.patterns[0].trade_return_frac is not None


def test_orders_in_init_are_passed_on_and_said_not_to_be_registered(goog):
    class Early(Strategy):
        def init(self):
            self.buy(size=5)

        def next(self):
            if len(self.data) == 30:
                self.sell(size=9)

    class RememberedEarly(PatternMixin, Early):
        pass

    bare = Backtest(goog.iloc[:60], Early, cash=100_000, finalize_trades=True).run()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stats = Backtest(goog.iloc[:60], RememberedEarly, cash=100_000, finalize_trades=True).run()
    assert any("placed in init() is passed on but not registered" in str(warning.message) for warning in caught)
    assert_same_results(bare, stats)
    assert len(stats["_strategy"].qml.patterns) == 1
    assert stats["_strategy"].qml.run.metrics["n_unregistered_trades"] == 1


@pytest.mark.parametrize("zeros", [{"sl": 0, "tp": 0}, {"limit": 0, "stop": 0}])
def test_zero_prices_are_absent_prices(goog, zeros):
    stats = Backtest(goog.iloc[:60], scripted({20: lambda s: s.buy(size=3, **zeros)}), cash=100_000).run()
    (pattern,) = stats["_strategy"].qml.patterns
    assert pattern.entry.limit_px is None
    assert pattern.entry.stop_px > 50
    assert pattern.outcome is not None


def test_a_limit_that_can_never_fill_does_not_break_the_run(goog):
    stats = Backtest(goog.iloc[:60], scripted({20: lambda s: s.buy(size=3, limit=-5)}), cash=100_000).run()
    assert stats["_strategy"].qml.patterns[0].outcome is None


def test_a_refused_second_order_does_not_forget_the_first(goog):
    def buy_and_fail(strategy):
        strategy.buy(size=10)
        with pytest.raises(AssertionError, match="size must be"):
            strategy.buy(size=-3)

    stats = Backtest(goog.iloc[:60], scripted({20: buy_and_fail}), cash=100_000, finalize_trades=True).run()
    assert len(stats["_strategy"].qml.patterns) == len(stats["_trades"]) == 1


def test_a_setting_hidden_by_the_mixin_is_refused():
    class Mine(Strategy):
        seed = 5

    with pytest.raises(
        DataError, match=r"Mine.seed would be hidden by the setting of that name of PatternMixin in Both"
    ):

        class Both(PatternMixin, Mine):
            pass


def test_the_name_qml_is_taken(goog):
    with pytest.raises(DataError, match=r"Taken.qml hides the memory of the run"):

        class Taken(PatternMixin, Strategy):
            qml = 1

    class Assigns(PatternMixin, Strategy):
        def init(self):
            self.qml = self.data.Close

        def next(self): ...

    with pytest.raises(AttributeError, match=r"property 'qml' of .*Assigns' object has no setter"):
        Backtest(goog.iloc[:50], Assigns).run()


def test_a_constructor_that_goes_round_the_mixin_is_named(goog):
    class Round(PatternMixin, Strategy):
        def __init__(self, broker, data, params):
            Strategy.__init__(self, broker, data, params)

        def init(self): ...

        def next(self):
            self.buy()

    with pytest.raises(QmlError, match=r"Round has no memory because PatternMixin.__init__ did not run"):
        Backtest(goog.iloc[:50], Round).run()


def test_signal_strategies_of_the_host_go_through_the_memory(goog):
    class Signals(PatternMixin, SignalStrategy):
        def init(self):
            super().init()
            change = self.data.Close.s.pct_change().to_numpy()
            self.set_signal(np.where(np.abs(change) > 0.03, np.sign(change), 0))

        def next(self):
            super().next()

    stats = Backtest(goog.iloc[:300], Signals, cash=1_000_000, exclusive_orders=True).run()
    assert len(stats["_strategy"].qml.patterns) > 20


ODD = [
    pd.Timestamp("2024-01-01"),
    pd.Timedelta("1h"),
    {3, 1},
    b"x",
    2**70,
    "\ud800",
    {1: (2, None)},
    len,
    mean,
    np.int64(4),
    float("nan"),
    datetime.UTC,
]


@pytest.mark.parametrize("value", ODD, ids=lambda value: type(value).__name__)
def test_any_parameter_can_be_recorded(goog, tmp_path, value):
    strategy = scripted({20: lambda s: s.buy(size=3)}, symbol="GOOG", thing=None)
    registry = f"sqlite:///{tmp_path}/x.db"
    stats = Backtest(goog.iloc[:60], strategy, cash=100_000).run(thing=value, registry=registry)
    assert PatternRegistry(registry).get_runs()[0]["run_id"] == stats["_strategy"].qml.run.run_id


def run_id(goog, strategy=RememberedCloseThenEnter, commission=0.0, **parameters):
    return (
        Backtest(goog.iloc[:100], strategy, cash=100_000, commission=commission)
        .run(mode="record", **parameters)["_strategy"]
        .qml.run.run_id
    )


def make_child(threshold):
    class Base(CloseThenEnter):
        def bias(self):
            return threshold if threshold == 1 else threshold * 2

    class Child(PatternMixin, Base):
        periods = (5, threshold)

    return Child


def test_what_changes_a_result_changes_the_run_id(goog):
    assert run_id(goog) == run_id(goog)
    assert run_id(goog, commission=lambda size, price: 1.0) == run_id(goog, commission=lambda size, price: 1.0)
    assert run_id(goog, commission=lambda size, price: 1.0) != run_id(goog, commission=lambda size, price: 50.0)
    assert run_id(goog, size=3) != run_id(goog, size=4)
    assert run_id(goog, make_child(1)) != run_id(goog, make_child(2)), "a parameter that is a tuple"


class Breaks(RememberedCloseThenEnter):
    symbol = "GOOG"

    def next(self):
        super().next()
        if len(self.data) == 80 and os.environ.get("BREAK"):
            raise {"error": ValueError, "interrupt": KeyboardInterrupt}[os.environ["BREAK"]]("now")


def test_a_run_that_was_done_is_not_replaced_by_one_that_failed(goog, tmp_path, monkeypatch):
    path = tmp_path / "x.db"
    host = Backtest(goog.iloc[:300], Breaks, cash=100_000)
    host.run(registry=f"sqlite:///{path}")
    before = contents(path)
    monkeypatch.setenv("BREAK", "error")
    with pytest.raises(ValueError, match="now"):
        host.run(registry=f"sqlite:///{path}")
    assert contents(path) == before


def test_an_interrupted_run_is_recorded_as_interrupted(goog, tmp_path, monkeypatch):
    monkeypatch.setenv("BREAK", "interrupt")
    with pytest.raises(KeyboardInterrupt, match="now"):
        Backtest(goog.iloc[:300], Breaks, cash=100_000).run(registry=f"sqlite:///{tmp_path}/x.db")
    assert rows(tmp_path / "x.db", "SELECT status, error FROM experiments") == [
        ("interrupted", "KeyboardInterrupt: now")
    ]


SEARCH = """
import sys, warnings
warnings.simplefilter("ignore")
from backtesting import Backtest
from backtesting.test import EURUSD
from strategies.moving_average import MovingAverageCross
options = dict(cash=1_000_000, exclusive_orders=True, finalize_trades=True)
for order in sys.argv[2:]:
    stats, heatmap = Backtest(EURUSD.iloc[:2500], MovingAverageCross, **options).optimize(
        fast=[int(n) for n in order.split(",")], slow=15, symbol="EURUSD", timeframe="1h", mode="shadow",
        registry=f"sqlite:///{sys.argv[1]}/{order}.db", maximize="Return [%]", return_heatmap=True)
    assert abs(stats["Return [%]"] - heatmap.max()) < 1e-9
"""


def test_the_cells_of_a_search_do_not_influence_one_another(tmp_path):
    orders = ("4,5", "5,4", "5", "4")
    environment = {**os.environ, "TQDM_DISABLE": "1"}
    subprocess.run([sys.executable, "-c", SEARCH, str(tmp_path), *orders], env=environment, check=True, timeout=240)
    query = "SELECT params_hash, run_decisions.* FROM run_decisions JOIN experiments USING (run_id) ORDER BY 1, 3"
    together, reversed_, five, four = (rows(tmp_path / f"{order}.db", query) for order in orders)
    assert together == reversed_
    assert together == sorted(five + four, key=lambda row: (row[0], row[2]))
    assert sum(row[4] is not None for row in together) > 50


class Breakout(PatternMixin, Strategy):
    """Cancels and places its stop entries anew on every bar."""

    symbol = "GOOG"

    def init(self): ...

    def next(self):
        for order in self.orders:
            if not order.is_contingent:
                order.cancel()
        if len(self.data) > 20 and not self.position:
            high, low = self.data.High[-20:].max(), self.data.Low[-20:].min()
            self.buy(size=0.5, stop=high * 1.001, sl=high * 0.98, tp=high * 1.03)
            self.sell(size=0.5, stop=low * 0.999, sl=low * 1.02, tp=low * 0.97)


def test_an_order_cancelled_before_its_fill_has_no_outcome(goog):
    memory = Backtest(goog.iloc[:600], Breakout, cash=100_000, finalize_trades=True).run()["_strategy"].qml
    table = memory.table()
    cancelled = table[table["trade_return_frac"].isna()]
    assert len(cancelled) > 100
    assert cancelled["r_multiple"].isna().all()
    assert table.loc[table["trade_return_frac"].notna(), "r_multiple"].notna().all()
    assert memory.decisions[-1].n_known < len(table) / 3


def test_a_run_without_entries_has_an_empty_table_with_its_columns(goog):
    table = Backtest(goog.iloc[:40], scripted({}), cash=100_000).run()["_strategy"].qml.table()
    assert len(table) == 0
    assert {"detection_time", "side", "action", "reason", "confidence", "r_multiple"} <= set(table.columns)


@pytest.mark.parametrize("symbol", ["x" * 101, "line\nbreak", 7, "\x00"])
def test_a_symbol_that_is_no_name_is_refused(goog, symbol):
    with pytest.raises(DataError, match="is no name of a market"):
        Backtest(goog.iloc[:40], scripted({}), cash=100_000).run(symbol=symbol)


def test_the_return_of_a_partly_closed_entry_is_that_of_its_legs_by_size(goog):
    actions = {10: lambda s: s.buy(size=10), 20: lambda s: s.trades[0].close(0.3), 30: lambda s: s.position.close()}
    stats = Backtest(goog.iloc[:60], scripted(actions), cash=100_000, commission=0.01).run()
    legs = stats["_trades"]
    assert sorted(legs["Size"]) == [3, 7]
    (pattern,) = stats["_strategy"].qml.patterns
    assert pattern.trade_return_frac == pytest.approx(
        legs["PnL"].sum() / (legs["Size"] * legs["EntryPrice"]).sum(), abs=1e-12
    )


IDENTICAL = """
import warnings
warnings.simplefilter("ignore")
import pandas as pd
from backtesting import Backtest
from backtesting.test import GOOG
from strategies.moving_average import MovingAverageCross
from tests.adapters.test_identity import bare_of, assert_same_results

Bare = bare_of(MovingAverageCross)
Bare.__module__, Bare.__qualname__ = "__main__", "Bare"  # so that the host's workers find it
options = dict(cash=1_000_000, commission=0.001, exclusive_orders=True, finalize_trades=True)
search = dict(fast=[5, 10], slow=[20, 40], maximize="Return [%]", return_heatmap=True)
bare, bare_map = Backtest(GOOG, Bare, **options).optimize(**search)
mine, map_ = Backtest(GOOG, MovingAverageCross, **options).optimize(symbol="GOOG", mode="record", **search)
assert len(map_) == 4
assert sorted(bare_map) == sorted(map_)
assert_same_results(bare, mine)
"""


def test_a_search_in_record_mode_finds_what_the_bare_host_finds():
    subprocess.run([sys.executable, "-c", IDENTICAL], env={**os.environ, "TQDM_DISABLE": "1"}, check=True, timeout=240)


def test_a_misspelt_setting_is_warned_of_and_ordinary_parameters_are_not():
    with pytest.warns(
        UserWarning, match=r"Misspelt.kelly_fracton is no setting of PatternMixin, which has 'kelly_frac"
    ):
        type("Misspelt", (PatternMixin, Strategy), {"kelly_fracton": 0.5})
    ordinary = {
        "mode1": 1,
        "seeds": 2,
        "symbols": 3,
        "barrier": 4,
        "stop_loss_atr": 2.0,
        "n_entries": 5,
        "take_profit": 1,
    }
    type("Ordinary", (PatternMixin, Strategy), ordinary)  # warnings are errors here
