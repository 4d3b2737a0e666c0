"""The memory behind a host that refuses orders, and behind settings that cannot work."""

from __future__ import annotations

import pytest
from backtesting import Backtest, Strategy

from qml_plugin import PatternMixin, PatternRegistry
from qml_plugin.errors import DataError, RegistryError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:backtesting")


class Careless(PatternMixin, Strategy):
    """Buys on a bar, then asks for the same again in a size that the host refuses."""

    symbol, timeframe, mode = "GOOG", "1d", "record"
    first_size = 10.0

    def init(self):
        pass

    def next(self):
        if len(self.data) == 100:
            if self.first_size:
                self.buy(size=self.first_size)
            with pytest.raises(AssertionError, match="size must be a positive"):
                self.buy(size=0.0)


class Impatient(PatternMixin, Strategy):
    """Enough entries for a first model."""

    symbol, timeframe = "GOOG", "1d"

    def init(self):
        pass

    def next(self):
        if len(self.data) % 10 == 0:
            self.buy(size=1)


def run(strategy, data, url, **parameters):
    return Backtest(data, strategy, cash=1_000_000, finalize_trades=True).run(registry=url, **parameters)


def test_an_entry_that_the_host_refuses_is_not_registered(goog, tmp_path):
    url = f"sqlite:///{tmp_path}/x.db"
    memory = run(Careless, goog.iloc[:300], url, first_size=0.0)["_strategy"].qml
    assert (memory.patterns, memory.decisions) == ([], [])
    assert PatternRegistry(url).get_statistics()["n_patterns"] == 0


def test_a_refused_repetition_leaves_the_first_entry(goog, tmp_path):
    url = f"sqlite:///{tmp_path}/x.db"
    memory = run(Careless, goog.iloc[:300], url)["_strategy"].qml
    assert len(memory.patterns) == len(memory.decisions) == 1
    assert PatternRegistry(url).get_statistics()["n_patterns"] == 1


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"mode": "live"}, "mode 'live' is unknown"),
        ({"min_confidence": 2.0}, r"min_confidence is 2\.0"),
        ({"n_neighbours": 0}, "n_neighbours is 0"),
        ({"gate_model": "magic"}, "model 'magic' is unknown"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_work_is_refused_before_anything_is_stored(goog, tmp_path, setting, message):
    path = tmp_path / "x.db"
    with pytest.raises(DataError, match=message):
        run(Impatient, goog, f"sqlite:///{path}", **setting)
    with pytest.raises(RegistryError, match="there is no database"):
        PatternRegistry(f"sqlite:///{path}", create=False)
