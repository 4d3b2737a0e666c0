"""Context of the bar: oracles, values worked by hand and edges."""

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
from qml_plugin.features.series import SERIES

from .data import make_bars
from .twins import TWINS

N = 3500
RANDOM = make_bars(N, 7)
SETS = {
    "random": RANDOM,
    "ticks": make_bars(N, 8, tick=0.05),
    "GOOG": bars_from_frame(GOOG, symbol="GOOG"),
    "EURUSD": bars_from_frame(EURUSD, symbol="EURUSD"),
}


class Case:
    """Bars, their table, and the columns as numpy and pandas see them."""

    def __init__(self, bars):
        market = MarketFeatures(bars)
        self.table = pd.DataFrame(market.rows(), columns=CATALOGUE.names)
        self.arrays = (bars.high, bars.low, bars.close)
        self.h, self.l, self.c = (pd.Series(x) for x in self.arrays)
        self.atr = market.series[SERIES.wilder_14]

    def of(self, name, factor=1.0):
        return self.table[f"ctx_{name}"] * factor


@pytest.fixture(params=SETS, scope="module")
def case(request):
    return Case(SETS[request.param])


@pytest.fixture(scope="module")
def untied():
    """Bars without equal moves or extremes, where all conventions agree."""
    return Case(RANDOM)


def check(actual, expected, start=1000, atol=1e-9):
    actual, expected = np.asarray(actual)[start:], np.asarray(expected)[start:]
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=atol * np.std(expected))


def bars_of(n=600, **prices):
    return dataclasses.replace(make_bars(n), **{k: np.broadcast_to(v, n).astype(float) for k, v in prices.items()})


def last(bars, name):
    return MarketFeatures(bars).rows([len(bars) - 1])[0, CATALOGUE.place(f"ctx_{name}")]


def test_every_feature_has_a_twin():
    own = {f.name for f in CATALOGUE if f.category == "ctx"}
    assert own == {name for name in TWINS if name.startswith("ctx_")}


def test_range_and_strength_equal_ta_and_talib(case):
    check(
        case.of("atr_14_pct"),
        100 * ta.volatility.AverageTrueRange(case.h, case.l, case.c, 14).average_true_range() / case.c,
    )
    check(case.of("atr_14_pct"), 100 * talib.ATR(*case.arrays, 14) / case.c)
    for w in (7, 14):
        check(case.of(f"rsi_{w}"), ta.momentum.RSIIndicator(case.c, w).rsi())
        check(case.of(f"rsi_{w}"), talib.RSI(case.c.to_numpy(), w))


@pytest.mark.parametrize("w", [20, 50, 100, 200])
def test_distance_from_an_sma_equals_ta_and_talib(case, w):
    actual = case.of(f"dist_sma_{w}_atr", case.atr)
    check(actual, case.c - ta.trend.SMAIndicator(case.c, w).sma_indicator())
    check(actual, case.c - talib.SMA(case.c.to_numpy(), w))


@pytest.mark.parametrize("w", [5, 10, 20, 50, 100, 200])
def test_distance_from_an_ema_equals_ta_and_talib(case, w):
    actual = case.of(f"dist_ema_{w}_atr", case.atr)
    if CATALOGUE[f"ctx_dist_ema_{w}_atr"].warmup >= len(case.c):
        assert actual.isna().all()
        return
    of_ta = case.c - ta.trend.EMAIndicator(case.c, w).ema_indicator()
    check(actual, of_ta, max(1000, CATALOGUE[f"ctx_dist_ema_{w}_atr"].warmup))
    if w <= 50:  # TA-Lib seeds with a mean, which the longer ones remember beyond these bars
        check(actual, case.c - talib.EMA(case.c.to_numpy(), w))


def test_slopes_of_averages_equal_ta(case):
    for w in (20, 50, 200):
        expected = ta.trend.SMAIndicator(case.c, w).sma_indicator().diff(5)
        check(case.of(f"slope_sma_{w}_atr", 5 * case.atr), expected)
    for w in (20, 50):
        expected = ta.trend.EMAIndicator(case.c, w).ema_indicator().diff(5)
        check(case.of(f"slope_ema_{w}_atr", 5 * case.atr), expected)


def test_bands_equal_ta_and_talib(case):
    bands = ta.volatility.BollingerBands(case.c)
    # both sum squares as they go along, which is good to 1e-8 only
    check(case.of("bb_20_pctb"), bands.bollinger_pband(), atol=1e-8)
    check(case.of("bb_20_width"), bands.bollinger_wband() / 100, atol=1e-8)
    upper, middle, lower = talib.BBANDS(case.c.to_numpy(), 20)
    spread = upper - lower
    is_calm = spread > 1e-3 * middle  # the squares of TA-Lib lose half their digits to the level
    np.testing.assert_allclose(case.of("bb_20_width")[is_calm][1000:], (spread / middle)[is_calm][1000:], rtol=1e-6)


def test_macd_equals_ta_and_talib(case):
    macd = ta.trend.MACD(case.c)
    of_talib = talib.MACD(case.c.to_numpy())
    of_ta = (macd.macd(), macd.macd_signal(), macd.macd_diff())
    for name, one, other in zip(("line", "signal", "hist"), of_ta, of_talib, strict=True):
        check(case.of(f"macd_{name}_atr", case.atr), one)
        check(case.of(f"macd_{name}_atr", case.atr), other)


def test_directional_movement_equals_ta_and_talib_where_nothing_ties(untied):
    adx = ta.trend.ADXIndicator(untied.h, untied.l, untied.c, 14)
    for name, of_ta, of_talib in (
        ("adx_14", adx.adx(), talib.ADX),
        ("di_plus_14", adx.adx_pos(), talib.PLUS_DI),
        ("di_minus_14", adx.adx_neg(), talib.MINUS_DI),
    ):
        check(untied.of(name), of_ta)
        check(untied.of(name), of_talib(*untied.arrays, 14))


def test_oscillators_equal_ta_and_talib(case):
    check(case.of("cci_20"), ta.trend.CCIIndicator(case.h, case.l, case.c, 20).cci(), atol=1e-8)
    check(case.of("cci_20"), talib.CCI(*case.arrays, 20), atol=1e-8)
    check(case.of("stoch_k_14"), ta.momentum.StochasticOscillator(case.h, case.l, case.c, 14).stoch())
    check(case.of("stoch_k_14"), talib.STOCHF(*case.arrays, 14)[0])
    check(case.of("stochrsi_14"), ta.momentum.StochRSIIndicator(case.c, 14).stochrsi())
    check(case.of("stochrsi_14", 100.0), talib.STOCHRSI(case.c.to_numpy(), 14, 14)[0])
    check(case.of("ultosc"), ta.momentum.UltimateOscillator(case.h, case.l, case.c).ultimate_oscillator())
    check(case.of("ultosc"), talib.ULTOSC(*case.arrays))
    check(case.of("vortex_diff_14"), ta.trend.VortexIndicator(case.h, case.l, case.c, 14).vortex_indicator_diff())


def test_kama_equals_ta_and_talib(case):
    check(case.of("kama_dist_10_atr", case.atr), case.c - ta.momentum.KAMAIndicator(case.c).kama())
    check(case.of("kama_dist_10_atr", case.atr), case.c - talib.KAMA(case.c.to_numpy(), 10))


def test_keltner_and_squeeze_equal_ta(case):
    keltner = ta.volatility.KeltnerChannel(case.h, case.l, case.c, 20, 10, original_version=False, multiplier=2)
    middle, upper, lower = (
        keltner.keltner_channel_mband(),
        keltner.keltner_channel_hband(),
        keltner.keltner_channel_lband(),
    )
    check(case.of("keltner_pos_20"), (case.c - middle) / (upper - middle))
    bands = ta.volatility.BollingerBands(case.c)
    expected = (bands.bollinger_hband() - bands.bollinger_lband()) / (upper - lower)
    check(case.of("squeeze_20"), expected, atol=1e-8)


def test_aroon_equals_talib_where_nothing_ties(untied):
    check(untied.of("aroon_osc_25"), talib.AROONOSC(*untied.arrays[:2], 25))


def test_ichimoku_equals_ta(case):
    now, drawn = (ta.trend.IchimokuIndicator(case.h, case.l, visual=visual) for visual in (False, True))
    expected = now.ichimoku_conversion_line() - now.ichimoku_base_line()
    check(case.of("ichi_tk_diff_atr", case.atr), expected)
    a, b = drawn.ichimoku_a(), drawn.ichimoku_b()
    top, bottom = np.maximum(a, b), np.minimum(a, b)
    expected = np.where(case.c > top, case.c - top, np.where(case.c < bottom, case.c - bottom, 0.0))
    check(case.of("ichi_cloud_dist_atr", case.atr), expected)
    assert {-1, 0, 1} == set(np.sign(expected[1000:]))


def test_parabolic_stop_meets_talibs_once_both_have_turned(untied):
    # Wilder leaves open what happens on a bar that makes a new extreme and turns as well
    sar = untied.c - untied.of("psar_dist_atr", untied.atr)
    of_talib = talib.SAR(*untied.arrays[:2])
    is_same = np.isclose(sar, of_talib, rtol=1e-9)[1000:]
    assert is_same.mean() > 0.9


def test_parabolic_stop_of_a_steady_climb_worked_by_hand():
    steps = np.arange(600.0)
    bars = bars_of(open=100 + steps, high=101 + steps, low=99 + steps, close=100 + steps)
    stop, top, pace = 99.0 + 550, 101.0 + 550, 0.02
    for j in range(1, 50):  # never above the lows of the two bars before
        stop = min(stop + pace * (top - stop), 99.0 + 550 + max(j - 2, 0))
        top, pace = top + 1, min(pace + 0.02, 0.2)
    assert last(bars, "psar_dist_atr") == pytest.approx((bars.close[-1] - stop) / 2)
    assert last(bars, "psar_dist_atr") == pytest.approx(2.0, abs=1e-4)  # in the limit 5 below the top


def test_parabolic_stop_turns_to_the_extreme_and_starts_anew():
    high = np.concatenate([np.arange(102.0, 150.0), [140.0, 139.0]])  # a climb of 48 bars, a fall through the stop
    low = high - 1.0
    low[48] = 100.0
    pad = bars_of()
    h, low_ = np.append(pad.high[:550], high), np.append(pad.low[:550], low)
    c = (h + low_) / 2
    c[:550] = pad.close[:550]
    o = np.append(pad.open[:550], c[550:])
    bars = bars_of(open=o, high=h, low=low_, close=c)
    atr = MarketFeatures(bars).series[SERIES.atr, -1]
    # turned at 149, the highest high, towards 100; never below the highs of the two bars before: 149 and 140
    assert last(bars, "psar_dist_atr") == pytest.approx((c[-1] - 149.0) / atr)


def test_candle_worked_by_hand():
    bars = bars_of(open=10.0, high=14.0, low=8.0, close=13.0)
    worked = {
        "candle_body_frac": 0.5, "candle_upper_frac": 1 / 6, "candle_lower_frac": 1 / 3, "close_loc_bar": 5 / 6,
        "close_loc_5": 5 / 6, "range_bar": 1.0, "gap_bar": -0.5, "atr_14_pct": 600 / 13, "stoch_k_14": 500 / 6,
        "vortex_diff_14": 0.0, "adx_14": 0.0, "di_plus_14": 0.0, "aroon_osc_25": 0.0, "ultosc": 500 / 6,
        "squeeze_20": 0.0, "keltner_pos_20": 0.0, "bb_20_width": 0.0, "dist_sma_20_atr": 0.0, "macd_hist_atr": 0.0,
    }  # fmt: skip
    for name, expected in worked.items():
        assert last(bars, name) == pytest.approx(expected, abs=1e-9), name
    for name in ("rsi_14", "bb_20_pctb", "cci_20", "stochrsi_14"):  # the close never moved
        assert math.isnan(last(bars, name)), name


def test_a_steady_climb_worked_by_hand():
    steps = np.arange(3000.0)
    bars = bars_of(3000, open=100 + steps, high=101 + steps, low=99 + steps, close=100 + steps)
    ema_lag = {w: (w - 1) / 2 for w in (5, 10, 20, 50, 100, 200)}
    worked = {
        **{f"dist_ema_{w}_atr": lag / 2 for w, lag in ema_lag.items()},
        **{f"dist_sma_{w}_atr": (w - 1) / 4 for w in (20, 50, 100, 200)},
        **{f"slope_sma_{w}_atr": 0.5 for w in (20, 50, 200)},
        **{f"slope_ema_{w}_atr": 0.5 for w in (20, 50)},
        "rsi_14": 100.0, "rsi_7": 100.0, "adx_14": 100.0, "di_plus_14": 50.0, "di_minus_14": 0.0,
        "macd_line_atr": 3.5, "macd_signal_atr": 3.5, "macd_hist_atr": 0.0, "aroon_osc_25": 100.0,
        "vortex_diff_14": 1.0, "ichi_tk_diff_atr": (17 / 2) / 2, "kama_dist_10_atr": (1 / (2 / 3) ** 2 - 1) / 2,
        "stoch_k_14": 100 * 14 / 15, "keltner_pos_20": 9.5 / 4, "cci_20": 9.5 / (0.015 * 5),
        "bb_20_pctb": 0.5 + 9.5 / (4 * math.sqrt(399 / 12)), "squeeze_20": math.sqrt(399 / 12) / 2,
        "ultosc": 50.0,
    }  # fmt: skip
    for name, expected in worked.items():
        assert last(bars, name) == pytest.approx(expected, abs=1e-7), name


def test_the_last_of_equal_extremes_counts_for_aroon():
    high, low = np.full(600, 100.0), np.full(600, 90.0)
    high[[-20, -5]], low[[-15, -3]] = 110.0, 80.0
    bars = bars_of(open=95.0, high=high, low=low, close=95.0)
    assert last(bars, "aroon_osc_25") == 4.0 * (2 - 4)


def test_flat_bars_are_left_out_of_the_mean_place():
    high, low, close = np.full(600, 11.0), np.full(600, 10.0), np.full(600, 10.5)
    high[[-1, -3]] = low[[-1, -3]] = 10.5
    close[-2] = 11.0
    bars = bars_of(open=10.5, high=high, low=low, close=close)
    assert last(bars, "close_loc_5") == pytest.approx((0.5 + 0.5 + 1.0) / 3)
    assert math.isnan(last(bars, "close_loc_bar"))
    assert math.isnan(last(bars_of(open=10.5, high=10.5, low=10.5, close=10.5), "close_loc_5"))


@pytest.mark.parametrize("unit", [1000.0, 1e-3, 1 / 3])
def test_equal_moves_count_for_neither_side_whatever_the_unit(unit):
    high = np.resize([10.0, 10.1, 10.3, 10.4], 600)
    low = np.resize([9.0, 8.9, 8.7, 8.6], 600)
    bars = bars_of(open=unit * high, high=unit * high, low=unit * low, close=unit * (high + low) / 2)
    for name in ("adx_14", "di_plus_14", "di_minus_14"):
        assert last(bars, name) == 0.0, name


def test_volume_does_not_matter():
    other = dataclasses.replace(RANDOM, volume=np.full(N, np.nan))
    names = [f.name for f in CATALOGUE if f.category == "ctx"]
    pd.testing.assert_frame_equal(compute_features(other)[names], compute_features(RANDOM)[names])
