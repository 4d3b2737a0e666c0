"""`qml compare-engines`: a table of comparisons, what differs, and an exit code for scripts."""

import pytest

from experiments.compare_engines import random_market
from qml_plugin.adapters import engines
from qml_plugin.adapters.engines import Difference, EngineComparison


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "walk.csv"
    random_market(4, 160).to_csv(path)
    return path


def test_the_table_counts_what_was_compared(qml, data):
    code, out, err = qml("compare-engines", data, "--symbol", "WALK")
    assert code == 0, err
    assert "unexplained" in out
    assert [out.count(name) for name in ("cross", "chance", "record", "shadow", "gate")] == [3, 3, 2, 2, 2]
    assert "first_bar: backtesting.py calls no strategy at the first bar" in out


def test_an_unexplained_difference_is_named_and_exits_with_one(qml, data, monkeypatch):
    difference = Difference("run_decisions", "trade_return", "8f2c", 0.01, 0.02)
    found = EngineComparison(1, 1, 0, 1, 40, 0.0, (difference,), dict.fromkeys(engines.REASONS, 0))
    monkeypatch.setattr(engines, "compare_engines", lambda *_, **__: found)
    code, out, _ = qml("compare-engines", data)
    assert code == 1
    assert "unexplained: run_decisions.trade_return of 8f2c: backtesting.py 0.01, vectorbt 0.02" in out
