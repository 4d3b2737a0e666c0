"""Regime: published and hand-worked values, consistency with other features, and completed higher bars only."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from backtesting.test import EURUSD, GOOG
from scipy.stats import percentileofscore

from qml_plugin.bars import bars_from_frame
from qml_plugin.clock import timeframe_seconds
from qml_plugin.features import CATALOGUE, MarketFeatures, compute_features

from .data import HOUR, cut, flat_bars, make_bars
from .twins.regime import entropy

RANDOM = make_bars(3200, 7)


def of_closes(closes, spread=0.0):
    """Features of the last of some closes, with highs and lows at a spread around each."""
    c = np.asarray(closes, dtype=float)
    bars = dataclasses.replace(make_bars(len(c)), open=c, high=c * (1 + spread), low=c * (1 - spread), close=c)
    return dict(zip(CATALOGUE.names, MarketFeatures(bars).rows([len(c) - 1])[0], strict=True))


def of_returns(pattern, n=300):
    return of_closes(np.exp(np.cumsum(np.resize(pattern, n))))


def test_variance_ratios_of_returns_that_alternate():
    # overlapping sums of 2 and 10 vanish, those of 5 are one return: 96 squares over 5 * 96 * 0.95
    row = of_returns([0.01, -0.01])
    actual = [row[f"regime_vr_{q}_100"] for q in (2, 5, 10)]
    np.testing.assert_allclose(actual, [0.0, 0.99 / 4.75, 0.0], atol=1e-12)


def test_variance_ratios_of_returns_in_pairs():
    # of 99 sums of two, 50 are twice a return and 49 vanish; of 91 sums of ten 46 and 45; all 96 sums of five are one
    row = of_returns([0.01, 0.01, -0.01, -0.01])
    actual = [row[f"regime_vr_{q}_100"] for q in (2, 5, 10)]
    expected = [50 * 4 * 0.99 / (2 * 99 * 0.98), 0.99 / 4.75, 46 * 4 * 0.99 / (10 * 91 * 0.9)]
    np.testing.assert_allclose(actual, expected, rtol=1e-9)


def test_variance_ratios_of_noise_are_one_on_average():
    """The bias that the estimator corrects would leave 1 - q/100 of it."""
    closes = np.exp(np.cumsum(np.random.default_rng(11).normal(0, 0.01, 60_000)))
    bars = dataclasses.replace(make_bars(60_000), open=closes, high=closes, low=closes, close=closes)
    table = compute_features(bars, rows=list(range(200, 60_000, 101)))
    for q, error in ((2, 0.0042), (5, 0.0093), (10, 0.0148)):  # standard errors of the mean, by simulation
        assert abs(table[f"regime_vr_{q}_100"].mean() - 1.0) < 3 * error


def test_permutation_entropy_of_the_worked_example():
    """Bandt and Pompe (2002): of 4, 7, 9, 10, 6, 11, 3 it is 1.522 bits at order 3."""
    assert round(entropy(np.array([4, 7, 9, 10, 6, 11, 3])) * math.log2(6), 3) == 1.522


def test_permutation_entropy_worked_by_hand():
    assert of_closes(np.arange(1, 101))["regime_perm_entropy_50"] == 0.0
    # 1, 2, 1 and 2, 1, 2, each in 24 of 48 places
    np.testing.assert_allclose(of_closes([1, 2] * 50)["regime_perm_entropy_50"], math.log(2) / math.log(6))
    # the earlier of equals is the smaller: 1, 1, 2 is as much a rise as 1, 2, 3, and 2, 3, 1 and 3, 1, 1 are apart
    row = of_closes([1, 1, 2, 3] * 25)
    np.testing.assert_allclose(row["regime_perm_entropy_50"], 1.5 * math.log(2) / math.log(6))
    assert of_closes([1, 1, 1, 2] + [2] * 60)["regime_perm_entropy_50"] == 0.0


def test_hurst_of_a_parabola_worked_by_hand():
    # changes of t^2 over k bars lie 2 k apart in equal steps, so their sd over m of them is 2 k sqrt((m^2 - 1) / 12)
    row = of_closes(np.exp(1e-6 * np.arange(300.0) ** 2))
    k = np.array([2, 4, 8, 16, 32])
    expected = np.polyfit(np.log(k), np.log(2 * k * np.sqrt(((128 - k) ** 2 - 1) / 12)), 1)[0]
    np.testing.assert_allclose(row["regime_hurst_128"], expected, rtol=1e-7)


@pytest.mark.parametrize(("is_summed", "expected"), [(True, 0.412), (False, 0.0)])
def test_hurst_of_noise_and_of_its_sums(is_summed, expected):
    """Few long changes fit into 128 bars: 20,000 random walks have 0.412 on average, not 0.5, with an sd of 0.109."""
    noise = np.random.default_rng(5).normal(0, 0.01, 30_000)
    closes = np.exp(np.cumsum(noise) if is_summed else noise)
    bars = dataclasses.replace(make_bars(30_000), open=closes, high=closes, low=closes, close=closes)
    hurst = compute_features(bars, rows=list(range(200, 30_000, 131)))["regime_hurst_128"]
    assert abs(hurst.mean() - expected) < 0.03


def test_choppiness_of_a_line_is_0_and_of_a_box_100():
    close = np.arange(101.0, 201.0)
    line = dataclasses.replace(make_bars(100), open=close - 1, high=close, low=close - 1, close=close)
    np.testing.assert_allclose(compute_features(line)["regime_chop_14"].iloc[14:], 0.0, atol=1e-9)
    np.testing.assert_allclose(of_closes([100.0] * 60, spread=0.01)["regime_chop_14"], 100.0, rtol=1e-12)


def test_choppiness_counts_the_gap_into_the_window():
    closes = [*[120.0] * 60, *[100.0] * 14]  # the first bar of the window falls from 120, which is its true high
    expected = 100 * math.log10((21 + 13 * 2) / 21) / math.log10(14)
    np.testing.assert_allclose(of_closes(closes, spread=0.01)["regime_chop_14"], expected, rtol=1e-9)


def test_the_stack_of_averages_follows_the_trend():
    rise = np.linspace(100, 200, 3000)
    assert [of_closes(closes)["regime_ma_stack"] for closes in (rise, rise[::-1])] == [1.0, -1.0]
    assert of_closes(rise)["regime_above_ema200_frac_50"] == 1.0
    # one bar of -5 puts EMA10 below EMA20 and EMA50 and leaves the other pairs in order: 8 against 2
    assert of_closes([*rise, 195.0])["regime_ma_stack"] == 0.6


def test_the_drawdown_is_counted_from_the_highest_high():
    table = compute_features(RANDOM).reset_index(drop=True)
    atr = table["ctx_atr_14_pct"] * RANDOM.close / 100
    expected = RANDOM.close - pd.Series(RANDOM.high).rolling(250).max()
    np.testing.assert_allclose(table["regime_dd_250_atr"][700:] * atr[700:], expected[700:], rtol=1e-9)


@pytest.mark.parametrize(
    "bars",
    [RANDOM, make_bars(3200, 9, tick=0.5), bars_from_frame(EURUSD, symbol="E")],
    ids=["random", "ticks", "EURUSD"],
)
def test_flags_follow_from_the_features_they_name(bars):
    table = compute_features(bars).reset_index(drop=True).iloc[900:]
    adx, efficiency, rank = table["ctx_adx_14"], table["mom_er_20"], table["vol_atr_pctile_250"]
    np.testing.assert_array_equal(table["regime_is_trending"], (adx > 25) & (efficiency > 0.3 + 1e-9))
    np.testing.assert_array_equal(table["regime_is_ranging"], adx < 20)
    np.testing.assert_array_equal(table["regime_is_volatile"], rank > 0.8)
    np.testing.assert_array_equal(abs(table["regime_trend_strength"]), adx / 100)
    flags = table["regime_is_trending"].to_numpy()
    for t in range(260, len(flags), 97):
        bars_in = next((back - 1 for back in range(1, 251) if flags[t - back] != flags[t]), 250)
        np.testing.assert_allclose(table["regime_bars_in_log"].iloc[t], math.log1p(bars_in))
        expected = percentileofscore(adx.iloc[t - 250 : t], adx.iloc[t], kind="mean") / 100
        np.testing.assert_allclose(table["regime_adx_pctile_250"].iloc[t], expected, atol=1e-12)


def test_flat_prices_are_no_regime():
    row = compute_features(flat_bars(3000)).iloc[-1]
    zero = {"regime_perm_entropy_50", "regime_ma_stack", "regime_above_ema200_frac_50"}
    zero |= {"regime_htf_align_4", "regime_htf_align_16"}
    for name in (f.name for f in CATALOGUE if f.category == "regime"):
        assert row[name] == 0.0 if name in zero else math.isnan(row[name]), name


def shifted(bars, us):
    return dataclasses.replace(bars, opened_at=bars.opened_at + us, known_at=bars.known_at + us)


def gappy(bars):
    at = bars.opened_at[0] + np.cumsum(np.random.default_rng(5).choice([1, 1, 1, 2, 49], len(bars))) * HOUR
    return dataclasses.replace(bars, opened_at=at, known_at=at + HOUR)


HIGHER = {
    "hourly": make_bars(2000, 1),
    "between the hours": shifted(make_bars(2000, 1), HOUR // 2),
    "coarse ticks": make_bars(2000, 2, tick=0.5),
    "gappy": gappy(make_bars(2000, 3)),
    "daily": make_bars(2000, 5, bar=24 * HOUR, timeframe="1d"),
    "GOOG": bars_from_frame(GOOG, symbol="GOOG"),
    "across 1970": shifted(make_bars(2000, 5, bar=24 * HOUR, timeframe="1d"), -19_500 * 24 * HOUR),
}


def resampled(bars, k):
    """Sign of close - SMA20 of the higher bars that had ended by each bar's end, by pandas."""
    length = pd.Timedelta(seconds=k * timeframe_seconds(bars.timeframe))
    closes = pd.Series(bars.close, index=pd.DatetimeIndex(bars.known_at.view("M8[us]")))
    higher = closes.resample(length, closed="right", label="right", origin="epoch").last().dropna()
    gap = higher - higher.rolling(20).mean()
    sign = np.sign(gap.where(gap.abs() > 1e-9 * higher, 0.0)).where(gap.notna())
    ended = pd.DataFrame({"at": sign.index.as_unit("us"), "sign": sign.to_numpy()})
    return pd.merge_asof(pd.DataFrame({"at": closes.index}), ended, on="at")["sign"].to_numpy()


@pytest.mark.parametrize("k", [4, 16])
@pytest.mark.parametrize("dropped", [0, 1, 3, 6, 15, 37])
@pytest.mark.parametrize("bars", HIGHER.values(), ids=HIGHER)
def test_higher_bars_are_read_once_they_have_ended(bars, dropped, k):
    bars = cut(bars, dropped, len(bars))
    feature = CATALOGUE[f"regime_htf_align_{k}"]
    actual = compute_features(bars)[feature.name].to_numpy()
    expected = resampled(bars, k)
    assert np.isfinite(expected[feature.warmup :]).all()
    np.testing.assert_array_equal(actual[feature.warmup :], expected[feature.warmup :])
    assert len(set(expected[feature.warmup :])) >= 2
