"""Every market feature equals its slow twin."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from backtesting.test import EURUSD, GOOG

from qml_plugin.bars import bars_from_frame
from qml_plugin.features import CATALOGUE, MarketFeatures

from .data import HOUR, make_bars
from .twins import TWINS, Past

N = 3000


def gappy(bars):
    hours = np.cumsum(np.random.default_rng(5).choice([1, 1, 1, 2, 49], len(bars)))
    at = bars.opened_at[0] + hours * HOUR
    return dataclasses.replace(bars, opened_at=at, known_at=at + HOUR)


SETS = {
    "random": make_bars(N, 1),
    "ticks": make_bars(N, 2, tick=0.05),
    "gappy": gappy(make_bars(N, 3)),
    "15m": make_bars(N, 4, bar=HOUR // 4, timeframe="15m"),
    "1d": make_bars(N, 5, bar=24 * HOUR, timeframe="1d"),
    "some volumes are zero": dataclasses.replace(
        (b := make_bars(N, 6)), volume=np.where(np.random.default_rng(0).random(N) < 0.3, 0.0, b.volume)
    ),
    "GOOG": bars_from_frame(GOOG, symbol="GOOG"),
    "EURUSD": bars_from_frame(EURUSD, symbol="EURUSD"),
}


@pytest.mark.parametrize("bars", SETS.values(), ids=SETS)
def test_every_market_feature_equals_its_twin(bars):
    market = MarketFeatures(bars)
    late = np.random.default_rng(3).choice(np.arange(2000, len(bars)), 6, replace=False).tolist()
    matrix = {t: market.rows([t])[0] for t in late}
    is_daily = bars.timeframe == "1d"
    for name, twin in TWINS.items():
        feature = CATALOGUE[name]
        first = feature.warmup + 1
        for t in [*([first] if first < len(bars) else []), *late]:
            if t < feature.warmup:
                continue
            value = (matrix[t] if t in matrix else market.rows([t])[0])[CATALOGUE.place(name)]
            if (is_daily and name.startswith(("temp_hour", "temp_is"))) or (
                name.startswith("vol_relative_z") and bars.volume[t] == 0.0
            ):
                assert math.isnan(value), name
            else:
                expected = float(twin(Past(bars, t)))
                np.testing.assert_allclose(value, expected, rtol=1e-8, atol=1e-9, err_msg=f"{name} at {t}")
