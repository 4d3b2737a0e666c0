from __future__ import annotations

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
from backtesting.test import EURUSD, GOOG
from hypothesis import given, settings
from hypothesis import strategies as st

from qml_plugin.bars import bars_from_frame
from qml_plugin.errors import DataError
from qml_plugin.features import CATALOGUE, compute_features, market_features
from qml_plugin.features.entry import ORDER_NAMES, SETUP_NAMES

from .data import HOUR, cut, flat_bars, make_bars, scaled
from .naive import TWINS, Past

NAMES = [f.name for f in CATALOGUE]
WARMUP = np.array([f.warmup for f in CATALOGUE])
IS_MARKET = np.array([f.name not in ORDER_NAMES + SETUP_NAMES for f in CATALOGUE])
BARS = make_bars(1500, 1)
TICKS = make_bars(1500, 2, tick=0.05)
MATRIX = market_features(BARS)


def assert_same_to_scale(actual, expected, rel=1e-9):
    """Equal to `rel` of each column's spread, and NaN in the same places."""
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected))
    with np.errstate(invalid="ignore"):
        scale = np.where(IS_MARKET, np.nanmax(np.where(np.isnan(expected), 0.0, abs(expected)), axis=0), 1.0)
    worst = np.nan_to_num(abs(actual - expected)).max(axis=0)
    bad = [(NAMES[i], worst[i] / scale[i]) for i in np.flatnonzero(worst > rel * np.maximum(scale, 1e-3))]
    assert not bad


@pytest.mark.parametrize(
    "bars", [BARS, TICKS, make_bars(900, 5, bar=24 * HOUR, timeframe="1d")], ids=["real", "ticks", "1d"]
)
def test_every_market_feature_equals_its_twin(bars):
    matrix = market_features(bars)
    for t in np.random.default_rng(3).choice(np.arange(700, len(bars)), 12, replace=False):
        past = Past(bars, int(t))
        for name, twin in TWINS.items():
            value = matrix[t, NAMES.index(name)]
            if bars.timeframe == "1d" and re.match("temp_(hour|is)_", name):
                assert np.isnan(value), name
            else:
                np.testing.assert_allclose(value, float(twin(past)), rtol=1e-8, atol=1e-9, err_msg=f"{name} at {t}")


@pytest.mark.parametrize("bars", [BARS, TICKS], ids=["real", "ticks"])
def test_the_future_changes_nothing(bars):
    full = market_features(bars)
    rng = np.random.default_rng(4)
    for n in [1, 2, 7, *rng.integers(8, 1500, 10).tolist()]:
        np.testing.assert_array_equal(market_features(cut(bars, 0, n)), full[:n])
    for n in rng.integers(300, 1400, 4):
        other = scaled(make_bars(1500, 99), 3.0, 0.01)
        mixed = {
            name: np.append(getattr(bars, name)[:n], getattr(other, name)[n:])
            for name in ("open", "high", "low", "close", "volume")
        }
        changed = market_features(dataclasses.replace(bars, **mixed))
        np.testing.assert_array_equal(changed[:n], full[:n])


@pytest.mark.parametrize("bars", [BARS, TICKS], ids=["real", "ticks"])
@pytest.mark.parametrize("dropped", [1, 37, 500])
def test_the_start_is_forgotten_after_the_warmup(bars, dropped):
    full = market_features(bars)[dropped:].copy()
    full[np.arange(len(full))[:, None] < WARMUP] = np.nan
    assert_same_to_scale(market_features(cut(bars, dropped, len(bars))), full)


@pytest.mark.parametrize("bars", [BARS, TICKS], ids=["real", "ticks"])
@pytest.mark.parametrize(("price", "volume"), [(1000.0, 1.0), (1e-3, 1.0), (1.0, 1000.0), (7.0, 0.3)])
def test_units_do_not_matter(bars, price, volume):
    assert_same_to_scale(market_features(scaled(bars, price, volume)), market_features(bars))


def still_bars(seed):
    """Coarse ticks, no volume in many bars, and stretches without any movement."""
    rng = np.random.default_rng(seed)
    bars = make_bars(1800, seed, tick=0.5)
    prices = {name: getattr(bars, name).copy() for name in ("open", "high", "low", "close")}
    for begin in rng.integers(100, 1500, 3):
        for values in prices.values():
            values[begin : begin + 250] = bars.close[begin]
    return dataclasses.replace(bars, **prices, volume=np.where(rng.random(1800) < 0.5, 0.0, bars.volume))


@pytest.mark.parametrize("seed", [3, 18, 48])
def test_stretches_without_movement_keep_the_promises(seed):
    bars = still_bars(seed)
    full = market_features(bars)
    assert not np.isinf(full).any()
    assert_same_to_scale(market_features(scaled(bars, 1 / 3, 1000.0)), full)
    for dropped in (1, 300):
        rest = full[dropped:].copy()
        rest[np.arange(len(rest))[:, None] < WARMUP] = np.nan
        assert_same_to_scale(market_features(cut(bars, dropped, len(bars))), rest)


def test_warmup_is_nan_and_then_there_is_a_value():
    early = np.arange(len(BARS))[:, None] < WARMUP
    assert np.isnan(MATRIX[early]).all()
    assert np.isfinite(MATRIX[:, IS_MARKET][~early[:, IS_MARKET]]).all()
    assert np.isnan(MATRIX[:, ~IS_MARKET]).all()


def test_flat_prices_give_nan_or_the_declared_limit():
    matrix = market_features(flat_bars(1200))
    limits = {
        "ctx_atr_14_pct", "ctx_bb_20_width", "ctx_aroon_osc_25", "vol_realized_20", "vol_realized_50",
        "vol_parkinson_20", "vol_gk_20", "vol_yz_20", "vol_ulcer_14", "mom_up_frac_20", "mom_streak",
        "mom_since_high_50", "mom_since_low_50", "vol_relative_obv_slope_20", "vol_relative_cmf_20",
        "regime_perm_entropy_50",
    }  # fmt: skip
    for i, name in enumerate(NAMES):
        values = matrix[WARMUP[i] :, i]
        if name in limits:
            np.testing.assert_array_equal(values, 0.0, err_msg=name)
        elif not name.startswith(("temp_", "vol_relative_")):
            assert np.isnan(values).all(), name


def test_zero_volume_gives_nan_except_ranks_of_equals():
    matrix = market_features(dataclasses.replace(BARS, volume=np.zeros(len(BARS))))
    for i, feature in enumerate(CATALOGUE):
        if feature.name == "vol_relative_pctile_100":
            np.testing.assert_array_equal(matrix[feature.warmup :, i], 0.5)
        elif feature.category == "vol_relative":
            assert np.isnan(matrix[:, i]).all(), feature.name
        else:
            np.testing.assert_array_equal(matrix[:, i], MATRIX[:, i])


def test_missing_volume_leaves_the_rest_alone():
    matrix = market_features(dataclasses.replace(BARS, volume=np.full(len(BARS), np.nan)))
    is_volume = np.array([f.category == "vol_relative" for f in CATALOGUE])
    assert np.isnan(matrix[:, is_volume]).all()
    np.testing.assert_array_equal(matrix[:, ~is_volume], MATRIX[:, ~is_volume])


def test_one_missing_volume_is_forgotten_with_its_window():
    volume = BARS.volume.copy()
    volume[800] = np.nan
    matrix = market_features(dataclasses.replace(BARS, volume=volume))
    np.testing.assert_array_equal(matrix[901:], MATRIX[901:])
    place = NAMES.index("vol_relative_20")
    assert np.isnan(matrix[800:820, place]).all()
    assert np.isfinite(matrix[820, place])


def test_gaps_in_time_touch_only_the_time_features():
    opened = BARS.opened_at.copy()
    opened[1000:] += 60 * HOUR
    matrix = market_features(dataclasses.replace(BARS, opened_at=opened, known_at=opened + HOUR))
    is_temp = np.array([f.category == "temp" for f in CATALOGUE])
    np.testing.assert_array_equal(matrix[:, ~is_temp], MATRIX[:, ~is_temp])
    assert matrix[1000, NAMES.index("temp_gap_ratio")] == 61.0
    assert matrix[1001, NAMES.index("temp_gap_ratio")] == 1.0


def test_sessions_follow_utc():
    bars = make_bars(200)
    table = compute_features(bars)
    for stamp, row in table.iloc[100:148].iterrows():
        assert row["temp_is_asia"] == (stamp.hour < 8)
        assert row["temp_is_europe"] == (7 <= stamp.hour < 16)
        assert row["temp_is_us"] == (13 <= stamp.hour < 22)
        assert row["temp_is_weekend"] == (stamp.weekday() >= 5)
    assert str(table.index.tz) == "UTC"


@st.composite
def random_bars(draw):
    n = draw(st.integers(1, 130))
    ticks = st.integers(0, 4)
    shape = draw(st.lists(st.tuples(ticks, ticks, ticks, ticks, st.integers(0, 3)), min_size=n, max_size=n))
    open_, a, b, close, volume = np.array(shape, dtype=float).T
    prices = np.stack([open_, a, b, close])
    bars = make_bars(n)
    return dataclasses.replace(
        bars,
        open=0.1 * open_ + 1, close=0.1 * close + 1, volume=volume,
        high=0.1 * prices.max(axis=0) + 1, low=0.1 * prices.min(axis=0) + 1,
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(random_bars(), st.data())
def test_any_bars_give_causal_finite_values_or_nan(bars, data):
    repeated = {name: np.tile(getattr(bars, name), 8) for name in ("open", "high", "low", "close", "volume")}
    at = BARS.opened_at[0] + np.arange(8 * len(bars)) * HOUR
    bars = dataclasses.replace(bars, **repeated, opened_at=at, known_at=at + HOUR)
    matrix = market_features(bars)
    assert not np.isinf(matrix).any()
    n = data.draw(st.integers(1, len(bars)))
    np.testing.assert_array_equal(market_features(cut(bars, 0, n)), matrix[:n])
    assert_same_to_scale(market_features(scaled(bars, 1000.0, 1000.0)), matrix)


def test_a_frame_and_its_bars_give_the_same_table():
    frame = GOOG.iloc[:900]
    table = compute_features(frame)
    assert list(table.columns) == NAMES
    assert table.index.equals(frame.index)
    np.testing.assert_array_equal(table.to_numpy(), market_features(bars_from_frame(frame, symbol="GOOG")))
    picked = compute_features(frame, rows=[800, 5])
    pd.testing.assert_frame_equal(picked, table.iloc[[800, 5]])


@pytest.mark.parametrize("row", [-1, 900])
def test_a_row_outside_the_bars_is_refused(row):
    with pytest.raises(DataError, match=f"row {row} lies outside the 900 bars"):
        compute_features(GOOG.iloc[:900], rows=[3, row])


@pytest.mark.parametrize("frame", [GOOG, EURUSD], ids=["GOOG", "EURUSD"])
def test_real_bars_have_values_after_the_warmup(frame):
    bars = bars_from_frame(frame, symbol="X")
    matrix = market_features(bars)
    assert not np.isinf(matrix).any()
    late = matrix[700:, IS_MARKET]
    names = np.array(NAMES)[IS_MARKET]
    share = np.isnan(late).mean(axis=0)
    daily_nan = {"temp_hour_sin", "temp_hour_cos"} | {n for n in names if n.startswith("temp_is_")}
    for name, missing in zip(names, share, strict=True):
        if bars.timeframe == "1d" and name in daily_nan:
            assert missing == 1.0
        else:
            assert missing < 0.01, name
