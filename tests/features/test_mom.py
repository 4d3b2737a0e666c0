"""Momentum: agreement with `ta` and TA-Lib after 1,000 bars, values worked by hand, ties and flat prices."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import ta
import talib
from backtesting.test import EURUSD, GOOG

from qml_plugin.bars import bars_from_frame
from qml_plugin.features import CATALOGUE, MarketFeatures, compute_features
from qml_plugin.features.kernels import wilder_atr

from .data import flat_bars, make_bars

RANDOM = make_bars(2500, 7)
SETS = {
    "random": RANDOM,
    "ticks": make_bars(2500, 8, tick=0.05),
    "GOOG": bars_from_frame(GOOG, symbol="GOOG"),
    "EURUSD": bars_from_frame(EURUSD, symbol="EURUSD"),
}


@pytest.fixture(params=SETS, scope="module")
def case(request):
    bars = SETS[request.param]
    h, low, c = (pd.Series(x) for x in (bars.high, bars.low, bars.close))
    return compute_features(bars).reset_index(drop=True), h, low, c, wilder_atr(bars.high, bars.low, bars.close, 14)


def check(actual, expected, rtol=1e-9):
    actual, expected = np.asarray(actual)[1000:], np.asarray(expected)[1000:]
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol * np.std(expected))


def of_closes(closes):
    """Features of the last of some closes, with highs and lows 1 % around each."""
    close = np.asarray(closes, dtype=float)
    bars = dataclasses.replace(make_bars(len(close)), open=close, high=1.01 * close, low=0.99 * close, close=close)
    return dict(zip(CATALOGUE.names, MarketFeatures(bars).rows([len(close) - 1])[0], strict=True))


def test_oscillators_equal_ta(case):
    table, h, low, c, atr = case
    check(table["mom_tsi"], ta.momentum.TSIIndicator(c).tsi())
    check(table["mom_ao_atr"] * atr, ta.momentum.AwesomeOscillatorIndicator(h, low).awesome_oscillator())


@pytest.mark.parametrize("w", [20, 50, 200])
def test_the_place_in_the_channel_equals_ta(case, w):
    table, h, low, c, _ = case
    check(table[f"mom_position_{w}"], ta.volatility.DonchianChannel(h, low, c, w).donchian_channel_pband())


@pytest.mark.parametrize("w", [20, 50, 100])
def test_slopes_equal_talib(case, w):
    table, _, _, c, atr = case
    check(table[f"mom_slope_{w}_norm"] * atr / c / w, talib.LINEARREG_SLOPE(np.log(c.to_numpy()), w))


@pytest.mark.parametrize("w", [20, 50])
def test_the_fit_of_the_trend_equals_talib(case, w):
    table, _, _, c, _ = case
    level = np.log(c.to_numpy() / c[0])
    check(table[f"mom_r2_{w}"], talib.CORREL(level, np.arange(len(c), dtype=float), w) ** 2, rtol=1e-7)


@pytest.mark.parametrize("w", [50, 100])
def test_z_scores_equal_talib(w):
    c = RANDOM.close
    expected = (c - talib.SMA(c, w)) / talib.STDDEV(c, w)
    check(compute_features(RANDOM)[f"mom_zscore_{w}"], expected, rtol=1e-7)


def test_extremes_lie_where_talib_finds_them():
    table, row = compute_features(RANDOM), np.arange(len(RANDOM))
    check(table["mom_since_high_50"], (row - talib.MAXINDEX(RANDOM.high, 50)) / 50)
    check(table["mom_since_low_50"], (row - talib.MININDEX(RANDOM.low, 50)) / 50)


def test_the_last_of_equal_extremes_counts():
    row = of_closes([2.0, 1.0] * 30)
    assert (row["mom_since_high_50"], row["mom_since_low_50"]) == (0.02, 0.0)


def test_a_steady_rise_worked_by_hand():
    row = of_closes(1.01 ** np.arange(600))
    np.testing.assert_allclose(
        [row["mom_er_10"], row["mom_er_20"], row["mom_er_50"], row["mom_tsi"] / 100], 1, rtol=1e-9
    )
    np.testing.assert_allclose([row["mom_r2_20"], row["mom_r2_50"]], 1.0, rtol=1e-9)
    assert (row["mom_streak"], row["mom_up_frac_20"], row["mom_discreteness_50"]) == (10.0, 1.0, -1.0)
    # 200 bars from lowest low to highest high, both 1 % around their closes
    top, bottom = 1.01, 0.99 * 1.01**-199
    np.testing.assert_allclose(row["mom_position_200"], (1 - bottom) / (top - bottom), rtol=1e-9)
    assert math.isnan(row["mom_return_20_norm"])  # equal returns have no sd


def test_returns_that_alternate_worked_by_hand():
    log_return = np.tile([0.02, -0.01], 60)
    row = of_closes(np.exp(np.cumsum(log_return)))
    deviation = 0.015 * math.sqrt(100 / 99)
    expected = {1: -0.01, 5: -0.01 + 2 * 0.01, 10: 0.05, 20: 0.1, 50: 0.25, 100: 0.5}
    for k, move in expected.items():
        np.testing.assert_allclose(row[f"mom_return_{k}_norm"], move / (deviation * math.sqrt(k)), rtol=1e-9)
    np.testing.assert_allclose([row["mom_max_20_norm"], row["mom_min_20_norm"]], [0.02 / deviation, -0.01 / deviation])
    np.testing.assert_allclose([row["mom_acf1_20"], row["mom_acf1_100"]], [-0.95, -0.99], rtol=1e-9)
    np.testing.assert_allclose([row["mom_accel_10"], row["mom_er_20"] - row["mom_er_10"]], 0.0, atol=0.01)
    assert (row["mom_streak"], row["mom_up_frac_20"], row["mom_discreteness_50"]) == (-1.0, 0.5, 0.0)


def test_one_jump_is_discrete_and_many_steps_are_not():
    """Da, Gurun and Warachka (2014): the sign of the move times (share of falls - share of rises)."""
    assert of_closes([1.0] * 60 + [1.5])["mom_discreteness_50"] == -0.02
    assert of_closes([1.5] * 60 + [1.0])["mom_discreteness_50"] == -0.02
    assert of_closes([1.0, *1.5 - 0.001 * np.arange(50)])["mom_discreteness_50"] == 0.96


def test_a_price_that_is_back_but_for_rounding_has_not_moved():
    path = [1.0, *1.0 + 0.01 * np.arange(1, 50), 1.0 + 1e-12]
    assert of_closes(path)["mom_discreteness_50"] == 0.0
    assert of_closes([*path[:-1], 1.0 + 1e-6])["mom_discreteness_50"] == -0.96


def test_a_sleeping_price_counts_for_neither_side():
    row = of_closes([*np.linspace(1.0, 1.5, 60), 1.5])
    assert (row["mom_streak"], row["mom_up_frac_20"]) == (0.0, 0.95)
    assert of_closes([*np.linspace(1.0, 1.5, 60), 1.5, 1.4, 1.3])["mom_streak"] == -2.0


def test_flat_prices_have_no_momentum():
    table = compute_features(flat_bars(1000)).iloc[-1]
    counts = {"mom_streak", "mom_up_frac_20", "mom_discreteness_50", "mom_since_high_50", "mom_since_low_50"}
    for name in (f.name for f in CATALOGUE if f.category == "mom"):
        assert table[name] == 0.0 if name in counts else math.isnan(table[name]), name


def test_what_is_left_of_an_old_move_is_no_momentum():
    """After a move, averages fade on still prices: TSI keeps its sign and then is NaN, not a ratio of rounding errors."""
    closes = np.append(np.linspace(90.0, 100.0, 300), np.full(1200, 100.0))
    bars = dataclasses.replace(make_bars(1500), open=closes, high=closes, low=closes, close=closes)
    tsi = compute_features(bars)["mom_tsi"].to_numpy()[500:]
    n_known = np.isfinite(tsi).sum()
    assert n_known < 100
    assert np.isnan(tsi[n_known:]).all()
    np.testing.assert_allclose(tsi[:n_known], 100.0, rtol=1e-6)


def test_returns_too_small_to_tell_from_rounding_have_no_memory():
    quiet = 100.0 * (1.0 + 1e-10 * np.random.default_rng(0).normal(size=200))
    row = of_closes(quiet)
    for name in ("mom_acf1_20", "mom_acf1_100", "mom_r2_50", "mom_zscore_50", "mom_er_10", "mom_return_5_norm"):
        assert math.isnan(row[name]), name
