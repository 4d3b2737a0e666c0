"""Agreement with `ta` and TA-Lib after 1,000 bars."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import ta
import talib
from backtesting.test import EURUSD, GOOG

from qml_plugin.bars import bars_from_frame
from qml_plugin.features import compute_features
from qml_plugin.features.kernels import directional_movement, ema, rsi, wilder_atr

from .data import make_bars

RANDOM = make_bars(2500, 7)
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
    return request.param, table, series, wilder_atr(bars.high, bars.low, bars.close, 14)


def check(actual, expected, atol=1e-9):
    actual, expected = np.asarray(actual)[1000:], np.asarray(expected)[1000:]
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=atol * np.std(expected))


def test_atr_seeds_like_ta(case):
    _, _, (_, h, low, c, _), atr = case
    expected = ta.volatility.AverageTrueRange(h, low, c, 14).average_true_range()
    np.testing.assert_allclose(atr[13:], expected[13:], rtol=1e-12)
    assert np.isnan(atr[:13]).all()


def test_ema_and_rsi_seed_like_ta(case):
    _, _, (*_, c, _), _ = case
    np.testing.assert_allclose(
        ema(c.to_numpy(), 20)[19:], ta.trend.EMAIndicator(c, 20).ema_indicator()[19:], rtol=1e-12
    )
    np.testing.assert_allclose(rsi(c.to_numpy(), 14)[14:], ta.momentum.RSIIndicator(c, 14).rsi()[14:], rtol=1e-10)


def test_trend_features_equal_ta(case):
    _, table, (_, h, low, c, _), atr = case
    for w in (20, 50, 200):
        check(table[f"ctx_dist_sma_{w}_atr"] * atr, c - ta.trend.SMAIndicator(c, w).sma_indicator())
    for w in (10, 20, 50):
        check(table[f"ctx_dist_ema_{w}_atr"] * atr, c - ta.trend.EMAIndicator(c, w).ema_indicator())
    check(table["ctx_slope_sma_50_atr"] * atr * 5, ta.trend.SMAIndicator(c, 50).sma_indicator().diff(5))
    check(table["ctx_slope_ema_20_atr"] * atr * 5, ta.trend.EMAIndicator(c, 20).ema_indicator().diff(5))
    macd = ta.trend.MACD(c)
    check(table["ctx_macd_line_atr"] * atr, macd.macd())
    check(table["ctx_macd_signal_atr"] * atr, macd.macd_signal())
    check(table["ctx_macd_hist_atr"] * atr, macd.macd_diff())
    check(table["ctx_cci_20"], ta.trend.CCIIndicator(h, low, c, 20).cci())


def test_momentum_and_volatility_equal_ta(case):
    _, table, (_, h, low, c, _), _ = case
    check(table["ctx_rsi_7"], ta.momentum.RSIIndicator(c, 7).rsi())
    check(table["ctx_atr_14_pct"], 100 * ta.volatility.AverageTrueRange(h, low, c, 14).average_true_range() / c)
    bands = ta.volatility.BollingerBands(c)
    check(table["ctx_bb_20_pctb"], bands.bollinger_pband(), atol=1e-8)
    check(table["ctx_bb_20_width"], bands.bollinger_wband() / 100, atol=1e-8)
    check(table["ctx_stoch_k_14"], ta.momentum.StochasticOscillator(h, low, c, 14).stoch())
    check(table["mom_tsi"], ta.momentum.TSIIndicator(c).tsi())
    check(table["mom_position_20"], ta.volatility.DonchianChannel(h, low, c, 20).donchian_channel_pband())
    check(table["vol_ulcer_14"], ta.volatility.UlcerIndex(c, 14).ulcer_index())
    slow = ta.volatility.AverageTrueRange(h, low, c, 21).average_true_range()
    check(table["vol_atr_ratio_7_21"], ta.volatility.AverageTrueRange(h, low, c, 7).average_true_range() / slow)


def test_talib_agrees(case):
    _, table, series, atr = case
    _, h, low, c, _ = (x.to_numpy() for x in series)
    check(atr, talib.ATR(h, low, c, 14))
    check(table["ctx_rsi_14"], talib.RSI(c, 14))
    check(table["ctx_macd_hist_atr"] * atr, talib.MACD(c)[2])
    check(table["ctx_stoch_k_14"], talib.STOCHF(h, low, c, 14)[0])
    check(table["ctx_cci_20"], talib.CCI(h, low, c, 20))


def test_directional_movement_and_flows_equal_both_where_nothing_ties():
    bars, table = RANDOM, compute_features(RANDOM)
    h, low, c, v = bars.high, bars.low, bars.close, bars.volume
    check(table["ctx_adx_14"], talib.ADX(h, low, c, 14))
    check(table["ctx_di_plus_14"], talib.PLUS_DI(h, low, c, 14))
    check(table["ctx_di_minus_14"], talib.MINUS_DI(h, low, c, 14))
    hs, ls, cs, vs = (pd.Series(x) for x in (h, low, c, v))
    adx = ta.trend.ADXIndicator(hs, ls, cs, 14)
    check(table["ctx_adx_14"], adx.adx())
    check(table["vol_relative_mfi_14"], ta.volume.MFIIndicator(hs, ls, cs, vs, 14).money_flow_index())
    check(table["vol_relative_mfi_14"], talib.MFI(h, low, c, v, 14))
    check(table["vol_relative_cmf_20"], ta.volume.ChaikinMoneyFlowIndicator(hs, ls, cs, vs, 20).chaikin_money_flow())


def test_aroon_equals_talib_where_nothing_ties():
    table = compute_features(RANDOM)
    check(table["ctx_aroon_osc_25"], talib.AROONOSC(RANDOM.high, RANDOM.low, 25))


def test_equal_moves_count_for_neither_side_whatever_the_unit():
    high = np.array([10.0, 10.1, 10.3, 10.4] * 20)
    low = np.array([9.0, 8.9, 8.7, 8.6] * 20)
    close = (high + low) / 2
    one = directional_movement(high, low, close, 14)
    np.testing.assert_allclose(directional_movement(1000 * high, 1000 * low, 1000 * close, 14), one, rtol=1e-12)
    assert (one[1:, 14:] == 0.0).all()
