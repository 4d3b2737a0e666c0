"""Volatility: oracles, values worked by hand and edges."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import ta
import talib
from backtesting.test import EURUSD, GOOG

from qml_plugin.bars import bars_from_frame
from qml_plugin.features import CATALOGUE, MarketFeatures, compute_features
from qml_plugin.features.series import SERIES

from .data import flat_bars, make_bars

N = 2500
LOG_2 = math.log(2)


@pytest.fixture(
    params=[make_bars(N, 7), bars_from_frame(GOOG, symbol="GOOG"), bars_from_frame(EURUSD, symbol="EURUSD")],
    ids=["random", "GOOG", "EURUSD"],
    scope="module",
)
def case(request):
    return request.param, compute_features(request.param).reset_index(drop=True)


def check(actual, expected):
    actual, expected = np.asarray(actual)[1000:], np.asarray(expected)[1000:]
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9 * np.std(expected))


def bars_of(**prices):
    return dataclasses.replace(make_bars(N), **{k: np.broadcast_to(v, N).astype(float) for k, v in prices.items()})


def of_returns(returns):
    """Bars whose opens, highs and lows add nothing to the closes."""
    close = 100.0 * np.exp(np.cumsum(np.resize(returns, N)))
    open_ = np.append(100.0, close[:-1])
    return bars_of(open=open_, high=np.maximum(open_, close), low=np.minimum(open_, close), close=close)


def value(bars, name, t=N - 1):
    return MarketFeatures(bars).rows([t])[0, CATALOGUE.place(name)]


def test_atr_ratios_equal_ta_and_talib(case):
    bars, table = case
    h, low, c = (pd.Series(x) for x in (bars.high, bars.low, bars.close))
    for fast, slow in ((7, 21), (14, 50)):
        name = f"vol_atr_ratio_{fast}_{slow}"
        of_ta = [ta.volatility.AverageTrueRange(h, low, c, w).average_true_range() for w in (fast, slow)]
        np.testing.assert_allclose(table[name][1300:], (of_ta[0] / of_ta[1])[1300:], rtol=1e-9)
        # TA-Lib leaves the first bar out of its seed, of which a share of (49/50)^1450 is left after 1,500 bars
        of_talib = [talib.ATR(bars.high, bars.low, bars.close, w) for w in (fast, slow)]
        np.testing.assert_allclose(table[name][1500:], (of_talib[0] / of_talib[1])[1500:], rtol=1e-9)


def test_ulcer_index_equals_ta(case):
    bars, table = case
    check(table["vol_ulcer_14"], ta.volatility.UlcerIndex(pd.Series(bars.close), 14).ulcer_index())


def test_band_width_behind_the_rank_equals_ta(case):
    bars, _ = case
    width = MarketFeatures(bars).series[SERIES.bb_width]
    of_ta = ta.volatility.BollingerBands(pd.Series(bars.close)).bollinger_wband() / 100
    np.testing.assert_allclose(width[19:], of_ta[19:], rtol=1e-9, atol=1e-8 * np.std(of_ta))


def test_moments_equal_scipy_and_pandas(case):
    bars, table = case
    r = np.diff(np.log(bars.close))
    last = len(bars) - 1
    for w in (50, 100):
        np.testing.assert_allclose(table[f"vol_skew_{w}"][last], scipy.stats.skew(r[-w:]), rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(table[f"vol_kurt_{w}"][last], scipy.stats.kurtosis(r[-w:]), rtol=1e-8, atol=1e-9)
    variance = pd.Series(r**2).ewm(alpha=0.06, adjust=False).mean().iloc[-1]
    np.testing.assert_allclose(
        table["vol_ewma94_ratio"][last], math.sqrt(variance) / np.std(r[-100:], ddof=1), rtol=1e-9
    )


def test_range_estimators_of_equal_bars_worked_by_hand():
    bars = bars_of(open=1.0, close=1.0, high=2.0, low=0.5)  # ln(H/L) = 2 ln 2
    k = 0.34 / (1.34 + 21 / 19)
    assert value(bars, "vol_parkinson_20") == pytest.approx(math.sqrt(LOG_2))
    assert value(bars, "vol_gk_20") == pytest.approx(math.sqrt(2) * LOG_2)
    assert value(bars, "vol_rs_20") == pytest.approx(math.sqrt(2) * LOG_2)
    assert value(bars, "vol_yz_20") == pytest.approx(math.sqrt((1 - k) * 2) * LOG_2)


def test_body_lowers_garman_klass_and_empties_rogers_satchell():
    bars = bars_of(open=1.0, close=2.0, high=2.0, low=1.0)
    assert value(bars, "vol_gk_20") == pytest.approx(LOG_2 * math.sqrt(0.5 - (2 * LOG_2 - 1)))
    assert value(bars, "vol_rs_20") == 0.0


def test_overnight_moves_are_all_of_yang_zhang_without_a_range():
    close = 100.0 * np.exp(np.cumsum(np.resize([0.01, -0.01], N)))
    bars = bars_of(open=close, high=close, low=close, close=close)
    assert value(bars, "vol_yz_20") == pytest.approx(value(bars, "vol_realized_20"))
    assert value(bars, "vol_realized_20") == pytest.approx(0.01 * math.sqrt(20 / 19))


def test_unchanging_range_is_all_spread_to_corwin_and_schultz():
    # with gamma = ln(H/L)^2 and beta twice that, alpha is ln(H/L), and the spread (H - L) / the middle
    bars = bars_of(open=100.0, high=102.0, low=98.0, close=100.0)
    assert value(bars, "vol_spread_cs_20") == pytest.approx(0.04)


@pytest.mark.parametrize("gap", [1.5, 1 / 1.5])
def test_corwin_schultz_takes_a_gap_out(gap):
    step = np.where(np.arange(N) < N - 5, 1.0, gap)
    bars = bars_of(open=100.0 * step, high=100.0 * step, low=100.0 * step, close=100.0 * step)
    assert value(bars, "vol_spread_cs_20") == 0.0


def test_bouncing_closes_are_a_spread_to_roll_and_trends_are_none():
    bounce = of_returns([0.01, -0.01])
    assert value(bounce, "vol_spread_roll_50") == pytest.approx(2 * 0.01 * math.sqrt(1 - 1 / 49**2))
    assert value(of_returns([0.01]), "vol_spread_roll_50") == 0.0
    assert value(of_returns([0.01, 0.01, 0.01, -0.01, -0.01, -0.01]), "vol_spread_roll_50") == 0.0


@pytest.mark.parametrize("w", [50, 100])
def test_moments_of_two_valued_returns(w):
    p = 1 / w
    lone = np.zeros(N)
    lone[-3] = 0.02
    bars = of_returns(lone)
    assert value(bars, f"vol_skew_{w}") == pytest.approx((1 - 2 * p) / math.sqrt(p * (1 - p)))
    assert value(bars, f"vol_kurt_{w}") == pytest.approx((1 - 6 * p * (1 - p)) / (p * (1 - p)))
    assert value(of_returns([0.01, -0.01]), f"vol_kurt_{w}") == pytest.approx(-2.0)


@pytest.mark.parametrize("w", [20, 50])
def test_a_lone_jump_is_all_of_the_variance_and_steady_moves_are_no_jump(w):
    lone = np.zeros(N)
    lone[-3] = -0.02
    bars = of_returns(lone)
    assert value(bars, f"vol_jump_share_{w}") == 1.0
    assert value(bars, f"vol_semi_down_{w}") == 1.0
    assert value(of_returns([0.01, -0.01]), f"vol_jump_share_{w}") == 0.0
    # products of 3 over mean squares of 5, the factor w / (w - 1) making up for the missing product
    assert value(of_returns([0.01, -0.03]), f"vol_jump_share_{w}") == pytest.approx(1 - math.pi / 2 * 3 / 5)
    assert value(of_returns([0.01, -0.01]), f"vol_semi_down_{w}") == pytest.approx(0.5)


def test_clusters_and_leverage_worked_by_hand():
    # sizes alternate, so 99 products of -1 stand over 100 squares of 1; a big move always follows a fall
    bars = of_returns([-0.01, 0.02])
    assert value(bars, "vol_abs_acf1_100") == pytest.approx(-0.99)
    assert value(bars, "vol_leverage_100") == pytest.approx(-1.0)


def test_largest_fall_counts_only_what_comes_after_the_top():
    close = np.full(N, 100.0)
    close[-30], close[-20], close[-10] = 90.0, 120.0, 105.0
    bars = bars_of(open=close, high=close + 1, low=close - 1, close=close)
    atr = value(bars, "ctx_atr_14_pct") / 100 * close[-1]
    assert value(bars, "vol_maxdd_50") == pytest.approx(20.0 / atr)
    rising = 100.0 + np.arange(N)
    assert value(bars_of(open=rising, high=rising + 1, low=rising - 1, close=rising), "vol_maxdd_50") == 0.0


def test_range_rank_counts_equal_ranges_half():
    spread = np.ones(N)
    bars = bars_of(open=100.0, close=100.0, high=100.0 + spread, low=100.0 - spread)
    assert value(bars, "vol_nr_rank_7") == 0.5
    spread[-1] = 0.5
    assert value(bars_of(open=100.0, close=100.0, high=100.0 + spread, low=100.0 - spread), "vol_nr_rank_7") == 0.0


def test_flat_prices_give_zero_estimates_and_no_ratios():
    matrix = MarketFeatures(flat_bars(N)).rows([N - 1])[0]
    zero = ("realized", "parkinson", "gk", "rs_", "yz", "ulcer", "spread")
    for feature in CATALOGUE:
        if feature.category == "vol":
            found = matrix[CATALOGUE.place(feature.name)]
            if feature.name.removeprefix("vol_").startswith(zero):
                assert found == 0.0, feature.name
            elif feature.name in ("vol_nr_rank_7", "vol_bbw_pctile_100"):
                assert found == 0.5, feature.name
            else:
                assert math.isnan(found), feature.name
