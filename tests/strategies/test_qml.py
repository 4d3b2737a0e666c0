import pytest
from backtesting import Backtest
from backtesting.lib import FractionalBacktest
from backtesting.test import EURUSD, GOOG

from qml_plugin import PatternMixin
from qml_plugin.bars import bars_from_frame
from qml_plugin.detection import find_quasimodo
from strategies.qml import QMLStrategy
from tests.strategies.bare import without_memory

pytestmark = pytest.mark.filterwarnings("ignore:DatetimeIndex.dayofweek is deprecated")  # of the host's own statistics

MARKETS = {"GOOG": GOOG, "EURUSD": EURUSD}
HOSTS = [
    {},
    {"finalize_trades": True},
    {"exclusive_orders": True, "finalize_trades": True},
    {"hedging": True},
    {"trade_on_close": True, "spread": 0.001, "commission": 0.001},
]


class Recorded(QMLStrategy):
    mode = "record"


def bare_strategy():
    """QMLStrategy without the memory."""
    return without_memory(QMLStrategy)


def play(frame, strategy=Recorded, backtest=Backtest, *, params=None, **options):
    """Every trade of a run, open ones too, as (bar, size, price, setup)."""
    options.setdefault("finalize_trades", True)
    test = backtest(frame, strategy, cash=1_000_000, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TQDM_DISABLE", "1")
        stats = test.run(**(params or {}))
    run = stats["_strategy"]
    trades = sorted((*run.closed_trades, *run.trades), key=lambda trade: trade.entry_bar)
    return [(trade.entry_bar, trade.size, trade.entry_price, trade.tag) for trade in trades]


@pytest.mark.parametrize("name", MARKETS)
@pytest.mark.parametrize("options", HOSTS, ids=str)
@pytest.mark.filterwarnings("ignore:Some trades remain open")
def test_trades_its_setups_on_both_sides_under_any_host(name, options):
    frame = MARKETS[name]
    trades = play(frame, bare_strategy(), **options)
    setups = find_quasimodo(bars_from_frame(frame, symbol=name))
    assert {size > 0 for _, size, _, _ in trades} == {True, False}
    assert 0.8 * len(setups) <= len(trades) <= len(setups)
    delay = 0 if options.get("trade_on_close") else 1
    for bar, size, _, setup in trades:
        assert setup in setups
        assert bar == setup.known_bar + delay
        assert (size > 0) == (setup.side > 0)


@pytest.mark.parametrize("name", MARKETS)
def test_the_memory_changes_nothing_while_it_only_records(name):
    assert play(MARKETS[name]) == play(MARKETS[name], bare_strategy())


def test_symbol_and_timeframe_are_parameters():
    assert QMLStrategy.symbol is None
    assert QMLStrategy.timeframe is None
    assert issubclass(QMLStrategy, PatternMixin)
    assert play(GOOG, params={"symbol": "GOOG", "timeframe": "1d"}) == play(GOOG)


def test_detector_parameters_reach_the_detector():
    bars = bars_from_frame(GOOG, symbol="GOOG")
    params = {
        "atr_period": 10,
        "swing_atr": 0.8,
        "min_depth_ratio": 0.2,
        "max_depth_ratio": 1.5,
        "shoulder_tolerance": 0.4,
        "stop_loss_atr": 1.0,
        "take_profit_rr": 1.5,
        "max_wait_bars": 60,
    }
    setups = find_quasimodo(bars, **params)
    traded = [setup for *_, setup in play(GOOG, bare_strategy(), params=params)]
    assert len(traded) > 5
    assert all(setup in setups for setup in traded)
    assert setups != find_quasimodo(bars)


@pytest.mark.parametrize("cut", [300, 1100, 2000])
@pytest.mark.filterwarnings("ignore:Some trades remain open")
def test_the_past_does_not_change_with_the_future(cut):
    known = [trade for trade in play(GOOG, bare_strategy()) if trade[0] < cut]
    assert play(GOOG[:cut], bare_strategy(), finalize_trades=False) == known


def test_runs_twice_alike():
    assert play(EURUSD) == play(EURUSD)


def test_fractional_prices_give_the_same_entries():
    whole = play(GOOG, bare_strategy())
    scaled = play(GOOG, bare_strategy(), FractionalBacktest, fractional_unit=2.0**-10)
    assert [(bar, size > 0) for bar, size, _, _ in scaled] == [(bar, size > 0) for bar, size, _, _ in whole]


def test_passes_over_setups_that_the_spread_eats_up():
    assert play(EURUSD[:1000], bare_strategy(), spread=0.2) == []


def test_a_subclass_chooses_its_setups():
    class Best(bare_strategy()):
        def may_enter(self, bar):
            return self.asked.setups[bar].validity_score > 0.5 and super().may_enter(bar)

    trades = play(EURUSD, Best)
    assert 0 < len(trades) < len(play(EURUSD, bare_strategy()))
    assert all(setup.validity_score > 0.5 for *_, setup in trades)
