"""Volume relative to its past: oracles, values worked by hand and edges."""

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

from .data import make_bars

N = 2500
BARS = make_bars(N, 7)
NAMES = [f.name for f in CATALOGUE if f.category == "vol_relative" and f.needs == "bars"]


@pytest.fixture(
    params=[BARS, bars_from_frame(GOOG, symbol="GOOG"), bars_from_frame(EURUSD, symbol="EURUSD")],
    ids=["random", "GOOG", "EURUSD"],
    scope="module",
)
def case(request):
    bars = request.param
    series = [pd.Series(x) for x in (bars.high, bars.low, bars.close, bars.volume)]
    return bars, series, compute_features(bars).reset_index(drop=True)


def check(actual, expected):
    actual, expected = np.asarray(actual)[1000:], np.asarray(expected)[1000:]
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9 * np.std(expected))


def values(bars, t=N - 1):
    row = MarketFeatures(bars).rows([t])[0]
    return {name: row[CATALOGUE.place(name)] for name in NAMES}


def with_volume(volume, bars=BARS):
    return dataclasses.replace(bars, volume=np.broadcast_to(volume, N).astype(float))


def test_chaikin_money_flow_equals_ta(case):
    _, (h, low, c, v), table = case
    check(table["vol_relative_cmf_20"], ta.volume.ChaikinMoneyFlowIndicator(h, low, c, v, 20).chaikin_money_flow())


def test_money_flow_index_equals_ta_and_talib_where_no_step_ties(case):
    _, (h, low, c, v), table = case
    step = ((h + low + c) / 3).diff().abs()
    is_clear = np.array((step > 1e-8 * c).rolling(14).sum() == 14)
    is_clear[:1000] = False
    assert is_clear.sum() > 500
    mine = table["vol_relative_mfi_14"][is_clear]
    of_ta = ta.volume.MFIIndicator(h, low, c, v, 14).money_flow_index()
    np.testing.assert_allclose(mine, of_ta[is_clear], rtol=1e-9, atol=1e-8)
    of_talib = talib.MFI(*(x.to_numpy(dtype=float) for x in (h, low, c, v)), 14)
    np.testing.assert_allclose(mine, of_talib[is_clear], rtol=1e-9, atol=1e-8)


def test_volume_oscillator_equals_ta(case):
    _, (*_, v), table = case
    pvo = ta.momentum.PercentageVolumeOscillator(v)
    check(table["vol_relative_pvo_line"], pvo.pvo())
    check(table["vol_relative_pvo_hist"], pvo.pvo_hist())


def test_vwap_equals_ta(case):
    bars, (h, low, c, v), table = case
    atr = table["ctx_atr_14_pct"] / 100 * c
    for w in (20, 50):
        vwap = ta.volume.VolumeWeightedAveragePrice(h, low, c, v, w).volume_weighted_average_price()
        actual, expected = (table[f"vol_relative_vwap_dist_{w}_atr"] * atr)[1000:], (c - vwap)[1000:]
        # ta's sums of price times volume keep 1e-15 of the price, not of the distance
        np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-11 * np.max(bars.close))


def test_correlation_and_slope_equal_talib(case):
    bars, (*_, v), table = case
    r = np.append(0.0, np.diff(np.log(bars.close)))
    v = v.to_numpy(dtype=float)
    np.testing.assert_allclose(table["vol_relative_return_corr_20"][1000:], talib.CORREL(r, v, 20)[1000:], atol=1e-6)
    np.testing.assert_allclose(table["vol_relative_pv_corr_20"][1000:], talib.CORREL(abs(r), v, 20)[1000:], atol=1e-6)
    slope = talib.LINEARREG_SLOPE(v, 20) * 20 / talib.SMA(v, 20)
    np.testing.assert_allclose(table["vol_relative_slope_20"][1000:], slope[1000:], rtol=1e-8, atol=1e-9)


def test_even_volume_has_no_shape():
    x = values(with_volume(500.0))
    for name in ("10", "20", "50", "trend_5_20"):
        assert x[f"vol_relative_{name}"] == pytest.approx(1.0)
    for name in ("slope_20", "hhi_20", "pvo_line", "pvo_hist"):
        assert x[f"vol_relative_{name}"] == pytest.approx(0.0, abs=1e-12)
    assert x["vol_relative_pctile_100"] == 0.5
    for name in ("z_20", "z_100", "pv_corr_20", "return_corr_20"):
        assert math.isnan(x[f"vol_relative_{name}"]), name


def test_volume_even_but_for_rounding_correlates_with_nothing():
    x = values(with_volume(500.0 * (1 + 1e-10 * np.random.default_rng(0).random(N))))
    assert math.isnan(x["vol_relative_pv_corr_20"])
    assert math.isnan(x["vol_relative_return_corr_20"])


def test_volume_in_one_bar_worked_by_hand():
    volume = np.zeros(N)
    volume[-1] = 7.0
    x = values(with_volume(volume))
    assert x["vol_relative_hhi_20"] == pytest.approx(1.0)
    assert x["vol_relative_20"] == pytest.approx(20.0)
    assert x["vol_relative_trend_5_20"] == pytest.approx(4.0)
    assert x["vol_relative_slope_20"] == pytest.approx(20 * 20 * 9.5 / 665)
    assert x["vol_relative_obv_slope_20"] == np.sign(BARS.close[-1] - BARS.close[-2])
    assert math.isnan(x["vol_relative_z_20"])


def test_log_score_is_that_of_the_bars_that_traded():
    volume = np.zeros(N)
    volume[-9], volume[-5], volume[-1] = math.exp(1), math.exp(2), math.exp(3)
    assert values(with_volume(volume))["vol_relative_z_20"] == pytest.approx(math.sqrt(1.5))
    volume[-1] = 0.0
    assert math.isnan(values(with_volume(volume))["vol_relative_z_20"])


def test_rising_closes_at_their_highs_are_all_accumulation():
    close = 100.0 + np.arange(N)
    bars = dataclasses.replace(BARS, open=close - 1, low=close - 1, high=close, close=close)
    x = values(bars)
    assert x["vol_relative_cmf_20"] == pytest.approx(1.0)
    assert x["vol_relative_obv_slope_20"] == pytest.approx(1.0)
    assert x["vol_relative_obv_slope_50"] == pytest.approx(1.0)
    assert x["vol_relative_mfi_14"] == pytest.approx(100.0)


def test_closes_apart_by_rounding_alone_sign_no_volume():
    close = np.resize([0.3, 0.1 + 0.2], N)
    bars = dataclasses.replace(BARS, open=close, high=close + 0.01, low=close - 0.01, close=close)
    x = values(bars)
    assert x["vol_relative_obv_slope_20"] == x["vol_relative_obv_slope_50"] == 0.0
    assert math.isnan(x["vol_relative_mfi_14"])


def test_no_trades_give_nan_and_a_rank_of_equals():
    for name, value in values(with_volume(0.0)).items():
        if name == "vol_relative_pctile_100":
            assert value == 0.5
        else:
            assert math.isnan(value), name


def test_missing_volume_gives_nan():
    assert all(math.isnan(value) for value in values(with_volume(math.nan)).values())


@pytest.mark.parametrize("name", ["cmf_20", "mfi_14", "hhi_20", "obv_slope_20", "vwap_dist_20_atr", "pv_corr_20"])
def test_one_missing_volume_in_the_window_gives_nan(name):
    volume = BARS.volume.copy()
    volume[-10] = math.nan
    assert math.isnan(values(with_volume(volume))[f"vol_relative_{name}"])
    assert math.isfinite(values(BARS)[f"vol_relative_{name}"])
