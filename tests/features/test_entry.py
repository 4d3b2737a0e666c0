from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from qml_plugin.errors import DataError, LookAheadError
from qml_plugin.features import CATALOGUE, MarketFeatures, entry_features
from qml_plugin.features.entry import ORDER_NAMES, SETUP_NAMES
from qml_plugin.records import Entry, Point, Setup

from .data import cut, make_bars, scaled
from .twins.ctx import macd, rsis
from .twins.past import Past, emas

NAMES = CATALOGUE.names
BARS = make_bars(1600, 11)
MARKET = MarketFeatures(BARS)
AT = 1240


def points(*places, lag=2):
    return tuple(Point(bar, px, bar + lag) for bar, px in places)


# a short Quasimodo: shoulder 100, neck 96, head 104, lower low 92, return to 101
BEAR = points((1200, 100.0), (1208, 96.0), (1216, 104.0), (1228, 92.0), (1236, 101.0))


def make_entry(side=-1, at=AT, setup_points=BEAR, stop=105.0, target=91.0, reference=100.0, known=None):
    setup = None
    if setup_points is not None:
        setup = Setup("qml", side, setup_points, at if known is None else known)
    return Entry("X", "1h", "s", "qml", side, at, 0, 0, reference, stop, target, setup=setup)


def values(entry, market=MARKET, **given):
    return dict(zip(NAMES, entry_features(market, entry, **given), strict=True))


def test_geometry_worked_by_hand():
    got = values(make_entry(), last_entry_bar=AT - 9)
    past = Past(BARS, AT)
    atr, c, v, body = past.atr, BARS.close, BARS.volume, abs(BARS.close - BARS.open)
    signed_body = (BARS.open - BARS.close) / (BARS.high - BARS.low)
    rsi = rsis(past, 14)
    histogram = macd(past) - emas(macd(past), 9)
    pattern, pattern_v = slice(1200, AT + 1), v[1200:1237]
    expected = {
        "geo_risk_atr": 5 / atr,
        "geo_reward_atr": 9 / atr,
        "geo_rr_ratio": 1.8,
        "geo_is_bullish": 0.0,
        "geo_head_depth_atr": 4 / atr,
        "geo_leg1_atr": 4 / atr,
        "geo_leg2_atr": 8 / atr,
        "geo_leg3_atr": 12 / atr,
        "geo_leg4_atr": 9 / atr,
        "geo_leg_ratio_21": 2.0,
        "geo_leg_ratio_32": 1.5,
        "geo_bos_depth_atr": 4 / atr,
        "geo_retrace_p5": 0.75,
        "geo_shoulder_diff_atr": 1 / atr,
        "geo_shoulder_sym": 0.75,
        "geo_neckline_slope_atr": 4 / 20 / atr,
        "geo_time_ratio": 16 / 20,
        "geo_entry_neck_dist_atr": (96 - c[AT]) / atr,
        "geo_stop_head_gap_atr": 1 / atr,
        "geo_path_eff": abs(c[1236] - c[1200]) / abs(np.diff(c[1200:1237])).sum(),
        "geo_prior_trend_50_atr": (c[1200] - c[1150]) / atr,
        "temp_bars_pattern_log": math.log(37),
        "temp_bars_since_head_log": math.log(25),
        "temp_bars_since_bos_log": math.log(13),
        "temp_bars_since_choch_log": math.log(33),
        "vol_relative_at_head": v[1216] / v[1196:1216].mean(),
        "vol_relative_at_bos": v[1228] / v[1208:1228].mean(),
        "vol_relative_at_choch": v[1208] / v[1188:1208].mean(),
        "geo_time_leg1_frac": 8 / 36,
        "geo_time_leg2_frac": 8 / 36,
        "geo_time_leg3_frac": 12 / 36,
        "geo_speed_choch_atr": 4 / 8 / atr,
        "geo_speed_bos_atr": 12 / 12 / atr,
        "geo_area_ratio": abs(c[1200:1217] - 96).sum() / abs(c[1216:1237] - 96).sum(),
        "geo_noise_ratio": ((BARS.high - BARS.low)[pattern] - body[pattern]).sum() / body[pattern].sum(),
        "geo_choch_body_frac": signed_body[1208],
        "geo_bos_body_frac": signed_body[1228],
        "geo_entry_body_frac": signed_body[AT],
        "geo_sr_dist_atr": (c[AT] - BARS.low[1100:1200].min()) / atr,
        "geo_prior_trend_20_atr": (c[1200] - c[1180]) / atr,
        "geo_rsi_div_head": rsi[1200] - rsi[1216],
        "geo_macd_div_head_atr": (histogram[1200] - histogram[1216]) / atr,
        "temp_since_last_signal_log": math.log(10),
        "vol_relative_pattern_slope": np.polyfit(np.arange(37), pattern_v, 1)[0] * 37 / pattern_v.mean(),
    }
    assert set(expected) == set(ORDER_NAMES + SETUP_NAMES)
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, rel=1e-9), name


SEEN_FROM_THE_SIDE = ("body_frac", "prior_trend", "_div_head")


def test_the_mirror_image_has_the_same_shape():
    mirrored = tuple(Point(p.bar, 200 - p.px, p.confirmed_bar) for p in BEAR)
    bull = values(make_entry(1, setup_points=mirrored, stop=95.0, target=109.0))
    bear = values(make_entry())
    of_the_market = ("geo_entry_neck_dist_atr", "geo_sr_dist_atr", "geo_area_ratio", "temp_since_last_signal_log")
    for name in ORDER_NAMES + SETUP_NAMES:
        if name == "geo_is_bullish":
            assert (bull[name], bear[name]) == (1.0, 0.0)
        elif any(part in name for part in SEEN_FROM_THE_SIDE):
            assert bull[name] == pytest.approx(-bear[name]), name
        elif name not in of_the_market:
            assert bull[name] == pytest.approx(bear[name], rel=1e-12), name


def test_the_market_features_are_those_of_the_bar():
    out = entry_features(MARKET, make_entry())
    is_market = np.array([feature.needs == "bars" for feature in CATALOGUE])
    np.testing.assert_array_equal(out[is_market], MARKET.rows([AT])[0, is_market])


@pytest.mark.parametrize("setup_points", [None, (), BEAR[:4]], ids=["no setup", "no points", "four points"])
def test_without_five_points_only_the_order_speaks(setup_points):
    got = values(make_entry(setup_points=setup_points))
    assert all(np.isnan(got[name]) for name in SETUP_NAMES)
    assert all(np.isfinite(got[name]) for name in ORDER_NAMES if name != "temp_since_last_signal_log")


def test_during_the_warmup_there_is_no_value():
    early = tuple(Point(p.bar - 1100, p.px, p.confirmed_bar - 1100) for p in BEAR)
    got = values(make_entry(at=140, setup_points=early), last_entry_bar=139)
    for name in ORDER_NAMES + SETUP_NAMES:
        assert np.isnan(got[name]) == (CATALOGUE[name].warmup > 140), name


@pytest.mark.parametrize(("shift", "name"), [(-340 - 600, "geo_rsi_div_head"), (-800, "geo_macd_div_head_atr")])
def test_a_divergence_needs_a_left_shoulder_after_the_warmup(shift, name):
    moved = tuple(Point(p.bar + shift, p.px, p.confirmed_bar + shift) for p in BEAR)
    assert np.isnan(values(make_entry(setup_points=moved))[name])


def test_degenerate_geometry_gives_nan_and_never_inf():
    same = points(*[(1200, 100.0)] * 5)
    out = entry_features(MARKET, make_entry(setup_points=same, stop=100.0))
    assert not np.isinf(out).any()
    got = dict(zip(NAMES, out, strict=True))
    for name in ("geo_rr_ratio", "geo_leg_ratio_21", "geo_retrace_p5", "geo_shoulder_sym", "geo_time_ratio"):
        assert np.isnan(got[name]), name


def test_no_stop_gives_no_risk():
    got = values(make_entry(stop=math.nan))
    assert np.isnan(got["geo_risk_atr"])
    assert np.isnan(got["geo_rr_ratio"])
    assert np.isfinite(got["geo_reward_atr"])


def test_bars_after_the_entry_change_nothing():
    expected = entry_features(MARKET, make_entry())
    np.testing.assert_array_equal(entry_features(MarketFeatures(cut(BARS, 0, AT + 1)), make_entry()), expected)
    future = scaled(BARS, 5.0, 9.0)
    mixed = {
        name: np.append(getattr(BARS, name)[: AT + 1], getattr(future, name)[AT + 1 :])
        for name in ("open", "high", "low", "close", "volume")
    }
    changed = MarketFeatures(dataclasses.replace(BARS, **mixed))
    np.testing.assert_array_equal(entry_features(changed, make_entry()), expected)


@pytest.mark.parametrize(("price", "volume"), [(1000.0, 1.0), (1.0, 1000.0)])
def test_units_do_not_matter(price, volume):
    grown = tuple(dataclasses.replace(p, px=p.px * price) for p in BEAR)
    entry = make_entry(setup_points=grown, stop=105 * price, target=91 * price, reference=100 * price)
    actual = entry_features(MarketFeatures(scaled(BARS, price, volume)), entry)
    np.testing.assert_allclose(actual, entry_features(MARKET, make_entry()), rtol=1e-9, atol=1e-9)


def test_missing_volume_leaves_the_geometry_alone():
    market = MarketFeatures(dataclasses.replace(BARS, volume=np.full(len(BARS), np.nan)))
    got = values(make_entry(), market)
    assert all(np.isnan(got[name]) for name in SETUP_NAMES if name.startswith("vol_relative_"))
    assert got["geo_rr_ratio"] == pytest.approx(1.8)


def test_a_setup_of_the_future_is_refused():
    with pytest.raises(LookAheadError, match="entry at bar 1240 is known at bar 1241 only"):
        values(make_entry(known=1241))
    with pytest.raises(LookAheadError, match="P5 lies at bar 1236, confirmed at bar 1300"):
        values(make_entry(setup_points=(*BEAR[:4], Point(1236, 101.0, 1300))))


def test_impossible_places_are_refused():
    with pytest.raises(DataError, match="entry at bar 1600 lies outside the 1600 bars"):
        entry_features(MARKET, make_entry(at=1600))
    with pytest.raises(DataError, match="P1 lies at bar -1"):
        values(make_entry(setup_points=(Point(-1, 100.0, 2), *BEAR[1:])))
    with pytest.raises(DataError, match="the last entry is at bar 1241, this one at bar 1240"):
        values(make_entry(), last_entry_bar=1241)
