"""Where a strategy asks for nothing, nothing changes: the host's results are those without the mixin."""

import itertools
import pickle

import pandas as pd
import pytest
from backtesting import Backtest
from backtesting.lib import FractionalBacktest

from qml_plugin import PatternMixin
from strategies.moving_average import MovingAverageCross
from strategies.qml import QMLStrategy
from tests.adapters.hosts import Chaos, Remembered

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:backtesting"),
    pytest.mark.filterwarnings("ignore:Some trades remain open"),
]
SWITCHES = ("trade_on_close", "exclusive_orders", "hedging", "finalize_trades")


def assert_same_results(bare, remembered):
    pd.testing.assert_frame_equal(bare["_trades"], remembered["_trades"])
    pd.testing.assert_frame_equal(bare["_equity_curve"], remembered["_equity_curve"])
    figures = bare.index[~bare.index.str.startswith("_")]
    pd.testing.assert_series_equal(bare[figures], remembered[figures])


def bare_of(strategy):
    bases = tuple(base for base in strategy.__bases__ if base is not PatternMixin)
    body = {key: value for key, value in vars(strategy).items() if key not in ("__dict__", "__weakref__")}
    return type(strategy.__name__, bases, body | {"symbol": None, "timeframe": None, "bar_label": "open"})


@pytest.mark.parametrize(
    "options", list(itertools.product([False, True], repeat=4)), ids=lambda options: "".join("01"[o] for o in options)
)
@pytest.mark.parametrize("mode", ["record", "gate"])
def test_every_host_option(goog, mode, options):
    data = goog.iloc[:700]
    host = {
        "cash": 100_000,
        "commission": 0.001,
        "spread": 0.0005,
        "margin": 0.5,
        **dict(zip(SWITCHES, options, strict=True)),
    }
    for seed in (0, 1):
        bare = Backtest(data, Chaos, **host).run(chaos_seed=seed)
        remembered = Backtest(data, Remembered, **host).run(chaos_seed=seed, mode=mode)
        assert_same_results(bare, remembered)
        assert len(remembered["_strategy"].qml.patterns) > 20


@pytest.mark.parametrize("strategy", [QMLStrategy, MovingAverageCross])
@pytest.mark.parametrize("host", [Backtest, FractionalBacktest])
@pytest.mark.parametrize("exclusive", [False, True])
def test_shipped_strategies_on_real_data(goog, eurusd, strategy, host, exclusive):
    for data, symbol in ((goog, "GOOG"), (eurusd, "EURUSD")):
        options = {"cash": 1_000_000, "exclusive_orders": exclusive, "finalize_trades": True}
        bare = host(data, bare_of(strategy), **options).run()
        remembered = host(data, strategy, **options).run(mode="record", symbol=symbol)
        assert_same_results(bare, remembered)


def test_the_fractional_host_registers_market_prices(goog):
    plain = Backtest(goog, QMLStrategy, cash=1_000_000).run(symbol="GOOG")["_strategy"].qml
    fractional = FractionalBacktest(goog, QMLStrategy, cash=1_000_000).run(symbol="GOOG")["_strategy"].qml
    assert [p.pattern_id for p in fractional.patterns] == [p.pattern_id for p in plain.patterns]
    for a, b in zip(fractional.patterns, plain.patterns, strict=True):
        assert a.entry.stop_px == pytest.approx(b.entry.stop_px, rel=1e-12)
        assert a.features == pytest.approx(b.features, rel=1e-6, abs=1e-9, nan_ok=True)
        assert [one.px for one in a.entry.setup.levels] == pytest.approx([one.px for one in b.entry.setup.levels])
        zones = [(one.low_px, one.high_px) for one in (a.entry.setup.order_block, b.entry.setup.order_block) if one]
        assert not zones or zones[0] == pytest.approx(zones[1])


def test_results_pickle(goog):
    stats = Backtest(goog.iloc[:500], MovingAverageCross, exclusive_orders=True, finalize_trades=True).run(
        symbol="GOOG"
    )
    again = pickle.loads(pickle.dumps(stats))  # noqa: S301
    assert again["_strategy"].qml.patterns[0].pattern_id == stats["_strategy"].qml.patterns[0].pattern_id


def test_strategies_without_the_mixin_are_left_alone(goog):
    stats = Backtest(goog.iloc[:300], Chaos, cash=100_000).run()
    assert not hasattr(stats["_strategy"], "qml")
