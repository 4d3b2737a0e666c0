from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from qml_plugin.errors import DataError, LookAheadError
from qml_plugin.features import CATALOGUE, entry_features, market_features
from qml_plugin.features.entry import ORDER_NAMES, SETUP_NAMES
from qml_plugin.records import Entry, Point, Setup

from .data import cut, make_bars, scaled

NAMES = [f.name for f in CATALOGUE]
BARS = make_bars(1000, 11)
MATRIX = market_features(BARS)
AT = 640


def points(*places, lag=2):
    return tuple(Point(bar, px, bar + lag) for bar, px in places)


# a short Quasimodo: shoulder 100, neck 96, head 104, lower low 92, return to 101
BEAR = points((600, 100.0), (608, 96.0), (616, 104.0), (628, 92.0), (636, 101.0))


def make_entry(side=-1, at=AT, setup_points=BEAR, stop=105.0, target=91.0, reference=100.0, known=None):
    setup = None
    if setup_points is not None:
        setup = Setup("qml", side, setup_points, at if known is None else known)
    return Entry("X", "1h", "s", "qml", side, at, 0, 0, reference, stop, target, setup=setup)


def values(entry, bars=BARS, matrix=MATRIX):
    return dict(zip(NAMES, entry_features(bars, matrix[entry.bar], entry), strict=True))


def test_geometry_worked_by_hand():
    got = values(make_entry())
    atr = MATRIX[AT, NAMES.index("ctx_atr_14_pct")] * BARS.close[AT] / 100
    c, v = BARS.close, BARS.volume
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
        "geo_path_eff": abs(c[636] - c[600]) / abs(np.diff(c[600:637])).sum(),
        "geo_prior_trend_50_atr": (c[600] - c[550]) / atr,
        "temp_bars_pattern_log": math.log(37),
        "temp_bars_since_head_log": math.log(25),
        "temp_bars_since_bos_log": math.log(13),
        "temp_bars_since_choch_log": math.log(33),
        "vol_relative_at_head": v[616] / v[596:616].mean(),
        "vol_relative_at_bos": v[628] / v[608:628].mean(),
        "vol_relative_at_choch": v[608] / v[588:608].mean(),
    }
    assert set(expected) == set(ORDER_NAMES + SETUP_NAMES)
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, rel=1e-12), name


def test_the_mirror_image_has_the_same_shape():
    mirrored = tuple(Point(p.bar, 200 - p.px, p.confirmed_bar) for p in BEAR)
    bull = values(make_entry(1, setup_points=mirrored, stop=95.0, target=109.0))
    bear = values(make_entry())
    for name in ORDER_NAMES + SETUP_NAMES:
        if name == "geo_is_bullish":
            assert (bull[name], bear[name]) == (1.0, 0.0)
        elif name == "geo_prior_trend_50_atr":
            assert bull[name] == -bear[name]
        elif name != "geo_entry_neck_dist_atr":
            assert bull[name] == pytest.approx(bear[name], rel=1e-12), name


def test_the_market_features_are_kept_and_the_row_is_not_touched():
    row = MATRIX[AT].copy()
    out = entry_features(BARS, row, make_entry())
    np.testing.assert_array_equal(row, MATRIX[AT])
    is_market = ~np.isin(NAMES, ORDER_NAMES + SETUP_NAMES)
    np.testing.assert_array_equal(out[is_market], row[is_market])


@pytest.mark.parametrize("setup_points", [None, (), BEAR[:4]], ids=["no setup", "no points", "four points"])
def test_without_five_points_only_the_order_speaks(setup_points):
    got = values(make_entry(setup_points=setup_points))
    assert all(np.isnan(got[name]) for name in SETUP_NAMES)
    assert all(np.isfinite(got[name]) for name in ORDER_NAMES)


def test_during_the_warmup_atr_units_are_nan():
    early = tuple(Point(p.bar - 500, p.px, p.confirmed_bar - 500) for p in BEAR)
    got = values(make_entry(at=140, setup_points=early))
    for name in ORDER_NAMES + SETUP_NAMES:
        assert np.isnan(got[name]) == name.endswith("_atr"), name


def test_degenerate_geometry_gives_nan_and_never_inf():
    same = points(*[(600, 100.0)] * 5)
    out = entry_features(BARS, MATRIX[AT], make_entry(setup_points=same, stop=100.0))
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
    expected = entry_features(BARS, MATRIX[AT], make_entry())
    np.testing.assert_array_equal(entry_features(cut(BARS, 0, AT + 1), MATRIX[AT], make_entry()), expected)
    future = scaled(BARS, 5.0, 9.0)
    mixed = {
        name: np.append(getattr(BARS, name)[: AT + 1], getattr(future, name)[AT + 1 :])
        for name in ("open", "high", "low", "close", "volume")
    }
    changed = dataclasses.replace(BARS, **mixed)
    np.testing.assert_array_equal(entry_features(changed, market_features(changed)[AT], make_entry()), expected)


@pytest.mark.parametrize(("price", "volume"), [(1000.0, 1.0), (1.0, 1000.0)])
def test_units_do_not_matter(price, volume):
    bars = scaled(BARS, price, volume)
    grown = tuple(dataclasses.replace(p, px=p.px * price) for p in BEAR)
    entry = make_entry(setup_points=grown, stop=105 * price, target=91 * price, reference=100 * price)
    expected = entry_features(BARS, MATRIX[AT], make_entry())
    np.testing.assert_allclose(entry_features(bars, market_features(bars)[AT], entry), expected, rtol=1e-9, atol=1e-9)


def test_missing_volume_leaves_the_geometry_alone():
    bars = dataclasses.replace(BARS, volume=np.full(len(BARS), np.nan))
    got = values(make_entry(), bars, market_features(bars))
    assert np.isnan(got["vol_relative_at_head"])
    assert got["geo_rr_ratio"] == pytest.approx(1.8)


def test_a_setup_of_the_future_is_refused():
    with pytest.raises(LookAheadError, match="entry at bar 640 is known at bar 641 only"):
        values(make_entry(known=641))
    with pytest.raises(LookAheadError, match="P5 lies at bar 636, confirmed at bar 700"):
        values(make_entry(setup_points=(*BEAR[:4], Point(636, 101.0, 700))))


def test_impossible_places_are_refused():
    with pytest.raises(DataError, match="entry at bar 1000 lies outside the 1000 bars"):
        entry_features(BARS, MATRIX[AT], make_entry(at=1000))
    with pytest.raises(DataError, match="P1 lies at bar -1"):
        values(make_entry(setup_points=(Point(-1, 100.0, 2), *BEAR[1:])))
    with pytest.raises(DataError, match=r"row of shape \(3,\)"):
        entry_features(BARS, np.zeros(3), make_entry())
