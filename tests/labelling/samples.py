"""Patterns and bars to be labelled."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

from qml_plugin.bars import Bars, bars_from_frame
from qml_plugin.clock import to_datetime
from tests.conftest import random_walk


def series(n_bars: int = 200, seed: int = 1) -> Bars:
    return bars_from_frame(random_walk(n_bars, seed), symbol="WALK", timeframe="1h")


def pattern(
    bars: Bars, at: int = 100, *, exit_bars: int | None = 12, n_points: int = 5, **changes: Any
) -> dict[str, Any]:
    """A long entry at the close of a bar, as `PatternRegistry.get_pattern` gives it."""
    close = float(bars.close[at])
    points = [
        {"bar": at - 30 + 7 * i, "px": float((bars.low if i % 2 else bars.high)[at - 30 + 7 * i]), "confirmed_bar": at}
        for i in range(n_points)
    ]
    is_open = exit_bars is None
    values = {
        "pattern_id": "6f7b9a50-1d43-5e26-9a0e-1d2f3c4b5a69", "symbol": bars.symbol, "timeframe": bars.timeframe,
        "strategy": "QML", "pattern_type": "bullish_qml", "side": 1, "detection_time": to_datetime(int(bars.opened_at[at])),
        "known_at": to_datetime(int(bars.known_at[at])), "entry_px": None if is_open else close * 1.001,
        "stop_px": close * 0.97, "target_px": close * 1.06, "user_label": None, "trade_outcome": None,
        "validity_score": 0.625, "barrier_outcome": None if is_open else "win",
        "resolved_at": None if is_open else to_datetime(int(bars.known_at[at + exit_bars])),
        "r_multiple": None if is_open else 2.0, "exit_reason": None if is_open else "target",
        "features": {"ctx_rsi_14": 28.4, "geo_rr_ratio": 2.0, "ctx_adx_14": math.nan},
        "order": {"bar": at, "fill": "open", "reference_px": close, "limit_px": None, "trigger_px": None},
        "setup": {"pattern_type": "bullish_qml", "side": 1, "points": points, "known_bar": at} if n_points else None,
    }  # fmt: skip
    return values | changes


LABELLED_BY_HAND = {"resolved_at": datetime(2026, 1, 2, 3, 4), "user_label": "win", "barrier_outcome": None}
