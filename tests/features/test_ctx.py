"""Agreement of the context features with `ta` and TA-Lib after 1,000 bars, and the ties on which those two differ."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import ta
import talib
from backtesting.test import EURUSD, GOOG

from qml_plugin.bars import bars_from_frame
from qml_plugin.features import compute_features
from qml_plugin.features.kernels import wilder_atr

from .data import make_bars

RANDOM = make_bars(4000, 7)
SETS = {
    "random": RANDOM,
    "GOOG": bars_from_frame(GOOG, symbol="GOOG"),
    "EURUSD": bars_from_frame(EURUSD, symbol="EURUSD"),
}


@pytest.fixture(params=SETS, scope="module")
def case(request):
    bars = SETS[request.param]
    table = compute_features(bars).reset_index(drop=True)
    series = [pd.Series(x) for x in (bars.open, bars.high, bars.low, bars.close, bars.volume)]
    return table, series, wilder_atr(bars.high, bars.low, bars.close, 14)


def check(actual, expected, atol=1e-9, start=1000):
    actual, expected = np.asarray(actual)[start:], np.asarray(expected)[start:]
    assert np.isfinite(expected).all()
    is_there = np.isfinite(actual)
    assert is_there.any()
    np.testing.assert_allclose(actual[is_there], expected[is_there], rtol=1e-9, atol=atol * np.std(expected))


def test_atr_seeds_like_ta(case):
    _, (_, h, low, c, _), atr = case
    expected = ta.volatility.AverageTrueRange(h, low, c, 14).average_true_range()
    np.testing.assert_allclose(atr[13:], expected[13:], rtol=1e-12)
    assert np.isnan(atr[:13]).all()


def test_averages_equal_ta(case):
    table, (*_, c, _), atr = case
    for w in (20, 50, 100, 200):
        check(table[f"ctx_dist_sma_{w}_atr"] * atr, c - ta.trend.SMAIndicator(c, w).sma_indicator())
    for w in (5, 10, 20, 50, 100):
        check(table[f"ctx_dist_ema_{w}_atr"] * atr, c - ta.trend.EMAIndicator(c, w).ema_indicator(), start=1300)
    for w in (20, 50, 200):
        check(table[f"ctx_slope_sma_{w}_atr"] * atr * 5, ta.trend.SMAIndicator(c, w).sma_indicator().diff(5))
    for w in (20, 50):
        check(table[f"ctx_slope_ema_{w}_atr"] * atr * 5, ta.trend.EMAIndicator(c, w).ema_indicator().diff(5))
    macd = ta.trend.MACD(c)
    check(table["ctx_macd_line_atr"] * atr, macd.macd())
    check(table["ctx_macd_signal_atr"] * atr, macd.macd_signal())
    check(table["ctx_macd_hist_atr"] * atr, macd.macd_diff())
    check(table["ctx_kama_dist_10_atr"] * atr, c - ta.momentum.KAMAIndicator(c, 10, 2, 30).kama())


def test_the_longest_average_equals_ta():
    table, c = compute_features(RANDOM), pd.Series(RANDOM.close)
    atr = wilder_atr(RANDOM.high, RANDOM.low, RANDOM.close, 14)
    check(table["ctx_dist_ema_200_atr"] * atr, c - ta.trend.EMAIndicator(c, 200).ema_indicator(), start=2513)
    check(table["ctx_dist_ema_200_atr"] * atr, c - talib.EMA(RANDOM.close, 200), start=2800)


def test_oscillators_equal_ta(case):
    table, (_, h, low, c, _), _ = case
    check(table["ctx_rsi_7"], ta.momentum.RSIIndicator(c, 7).rsi())
    check(table["ctx_rsi_14"], ta.momentum.RSIIndicator(c, 14).rsi())
    check(table["ctx_atr_14_pct"], 100 * ta.volatility.AverageTrueRange(h, low, c, 14).average_true_range() / c)
    bands = ta.volatility.BollingerBands(c)
    check(table["ctx_bb_20_pctb"], bands.bollinger_pband(), atol=1e-8)
    check(table["ctx_bb_20_width"], bands.bollinger_wband() / 100, atol=1e-8)
    check(table["ctx_cci_20"], ta.trend.CCIIndicator(h, low, c, 20).cci())
    check(table["ctx_stoch_k_14"], ta.momentum.StochasticOscillator(h, low, c, 14).stoch())
    check(table["ctx_stochrsi_14"], ta.momentum.StochRSIIndicator(c, 14).stochrsi())
    check(table["ctx_ultosc"], ta.momentum.UltimateOscillator(h, low, c).ultimate_oscillator())
    vortex = ta.trend.VortexIndicator(h, low, c, 14)
    check(table["ctx_vortex_diff_14"], vortex.vortex_indicator_diff())


def test_the_cloud_equals_ta_where_its_fill_does_not_matter(case):
    table, (_, h, low, c, _), atr = case
    ichimoku = ta.trend.IchimokuIndicator(h, low, visual=False)
    lines = ichimoku.ichimoku_conversion_line() - ichimoku.ichimoku_base_line()
    check(table["ctx_ichi_tk_diff_atr"] * atr, lines)
    edges = pd.concat([ichimoku.ichimoku_a().shift(26), ichimoku.ichimoku_b().shift(26)], axis=1)
    above, below = (c - edges.max(axis=1)).clip(lower=0), (c - edges.min(axis=1)).clip(upper=0)
    check(table["ctx_ichi_cloud_dist_atr"] * atr, above + below)


def test_talib_agrees(case):
    table, series, atr = case
    _, h, low, c, _ = (x.to_numpy() for x in series)
    check(atr, talib.ATR(h, low, c, 14))
    check(table["ctx_rsi_14"], talib.RSI(c, 14))
    check(table["ctx_macd_hist_atr"] * atr, talib.MACD(c)[2])
    check(table["ctx_stoch_k_14"], talib.STOCHF(h, low, c, 14)[0])
    check(table["ctx_cci_20"], talib.CCI(h, low, c, 20))
    check(table["ctx_ultosc"], talib.ULTOSC(h, low, c))
    check(table["ctx_kama_dist_10_atr"] * atr, c - talib.KAMA(c, 10))


def test_directional_movement_and_aroon_equal_both_where_nothing_ties():
    bars, table = RANDOM, compute_features(RANDOM)
    h, low, c = bars.high, bars.low, bars.close
    check(table["ctx_adx_14"], talib.ADX(h, low, c, 14))
    check(table["ctx_di_plus_14"], talib.PLUS_DI(h, low, c, 14))
    check(table["ctx_di_minus_14"], talib.MINUS_DI(h, low, c, 14))
    check(table["ctx_adx_14"], ta.trend.ADXIndicator(pd.Series(h), pd.Series(low), pd.Series(c), 14).adx())
    check(table["ctx_aroon_osc_25"], talib.AROONOSC(h, low, 25))


def test_the_parabolic_stop_is_mostly_that_of_talib():
    """Started afresh 49 bars ago it has met the one that never started afresh, unless a trend is older than that."""
    table = compute_features(RANDOM)
    atr = wilder_atr(RANDOM.high, RANDOM.low, RANDOM.close, 14)
    ours = (RANDOM.close - table["ctx_psar_dist_atr"].to_numpy() * atr)[1000:]
    expected = talib.SAR(RANDOM.high, RANDOM.low)[1000:]
    assert np.isclose(ours, expected, rtol=1e-9).mean() > 0.9


def test_equal_moves_count_for_neither_side_whatever_the_unit():
    high = np.tile([10.0, 10.1, 10.3, 10.4], 200)
    low = np.tile([9.0, 8.9, 8.7, 8.6], 200)
    bars = make_bars(800)
    one, thousand = (
        compute_features(
            dataclasses.replace(bars, open=low * k, high=high * k, low=low * k, close=(high + low) / 2 * k)
        )
        for k in (1.0, 1000.0)
    )
    names = ["ctx_adx_14", "ctx_di_plus_14", "ctx_di_minus_14"]
    np.testing.assert_allclose(thousand[names], one[names], rtol=1e-12)
    assert (one[names[1:]].iloc[400:] == 0.0).all(axis=None)
