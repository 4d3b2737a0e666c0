"""The strategies that come with the package see no future; `experiments/audit_self_test.py` asks more of them."""

from __future__ import annotations

import pytest

from qml_plugin.audit import audit
from strategies.donchian import DonchianBreakout
from strategies.moving_average import MovingAverageCross
from strategies.qml import QMLStrategy
from strategies.rsi_reversion import RSIReversion


@pytest.mark.parametrize("strategy", [DonchianBreakout, MovingAverageCross, QMLStrategy, RSIReversion])
def test_a_shipped_strategy_is_clean(goog, strategy):
    report = audit(strategy, goog.iloc[-600:], n_cuts=4)  # one for each other future
    assert report.verdict == "clean", str(report)
    assert report.compared["decision"] > 1
    assert set(report.checks) == {"rerun", "future", "threads", "registry", "start"}
