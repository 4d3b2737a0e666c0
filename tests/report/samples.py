"""Small made-up pages."""

from __future__ import annotations

import numpy as np

from qml_plugin.report.views import DecisionCard, DemoPage, EquityView, NeighbourView, ReliabilityView, RunRow

HOUR_US = 3_600_000_000
START_AT = 1_700_000_000_000_000 // HOUR_US * HOUR_US


def run_row(**changes) -> RunRow:
    values = {
        "strategy": "QML", "data": "EURUSD 1h", "mode": "gate", "n_entries": 1412, "n_taken": 1000, "n_skipped": 12,
        "n_abstained": 400, "main_reason": "no_skill", "win_share": 0.41, "return_frac": -0.034, "sharpe_annual": -0.21,
        "brier_skill": 0.0125, "is_synthetic": False,
    }  # fmt: skip
    return RunRow(**(values | changes))


def equity(n_bars: int = 50, **changes) -> EquityView:
    money = 10_000 + np.arange(n_bars, dtype=float)
    values = {
        "title": "QML on EURUSD", "opened_at": START_AT + HOUR_US * np.arange(n_bars), "with_gate": money + 1,
        "without_gate": money, "is_synthetic": False,
    }  # fmt: skip
    return EquityView(**(values | changes))


def reliability(n: int = 200, **changes) -> ReliabilityView:
    rng = np.random.default_rng(3)
    confidence = rng.uniform(0.2, 0.8, n)
    values = {
        "title": "QML on EURUSD", "confidence": confidence, "is_win": rng.random(n) < confidence, "is_synthetic": False,
    }  # fmt: skip
    return ReliabilityView(**(values | changes))


def neighbour(**changes) -> NeighbourView:
    values = {
        "symbol": "GBPUSD", "timeframe": "4h", "strategy": "Cross", "detection_at": START_AT - 100 * HOUR_US,
        "distance": 3.25, "is_win": True, "r_multiple": 1.9,
    }  # fmt: skip
    return NeighbourView(**(values | changes))


def card(n_bars: int = 30, **changes) -> DecisionCard:
    close = 100 + np.sin(np.arange(n_bars) / 3)
    values = {
        "title": "A skipped loss", "is_synthetic": False, "pattern_id": "6f7b9a50-1d43-5e26-9a0e-1d2f3c4b5a69",
        "strategy": "QML", "symbol": "EURUSD", "timeframe": "1h", "side": 1, "detection_at": START_AT + 20 * HOUR_US,
        "action": "skip", "reason": "unconvinced: 0.312 < 0.405", "confidence": 0.312, "threshold": 0.405,
        "model": "xgboost", "opened_at": START_AT + HOUR_US * np.arange(n_bars), "open": close - 0.1,
        "high": close + 0.3, "low": close - 0.3, "close": close, "entry_row": 20, "exit_row": 25, "stop_px": 98.0,
        "target_px": 104.0, "points": ((3, 100.5, "P1"), (8, 99.5, "P2"), (12, 101.0, "P3"), (16, 99.0, "P4"), (20, 100.2, "P5")),
        "exit_reason": "stop", "r_multiple": -1.0, "neighbours": (neighbour(), neighbour(is_win=False, r_multiple=-1.0)),
        "contributions": (("vol_atr", 0.4), ("mom_rsi", -0.6), ("sim_share", 0.1)),
    }  # fmt: skip
    return DecisionCard(**(values | changes))


def page(**changes) -> DemoPage:
    values = {
        "title": "What the memory found", "findings": ("The gate abstained.", "Nothing was lost."),
        "rows": (run_row(), run_row(strategy="Planted", is_synthetic=True)),
        "equities": (equity(), equity(is_synthetic=True)), "reliabilities": (reliability(), reliability(is_synthetic=True)),
        "cards": (card(), card(model="logistic"), card(side=-1)), "database": "sqlite:///results/experiments.db",
        "versions": (("qml_plugin", "0.1.0"), ("numpy", "2.4.6")),
    }  # fmt: skip
    return DemoPage(**(values | changes))
