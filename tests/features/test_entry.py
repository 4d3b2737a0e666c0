"""Features of an entry: worked by hand, checked against whole slices, and refused where they would look ahead."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from qml_plugin.errors import DataError, LookAheadError
from qml_plugin.features import CATALOGUE, MarketFeatures, entry_features, user_feature
from qml_plugin.features.catalogue import N_BUILT_IN
from qml_plugin.features.entry import ORDER_NAMES, SETUP_NAMES
from qml_plugin.features.series import SERIES
from qml_plugin.features.user import remove_user_feature
from qml_plugin.records import Entry, Level, Point, Setup, Zone

from .data import cut, flat_bars, make_bars, scaled

N = 1500
BARS = make_bars(N, 11)
MARKET = MarketFeatures(BARS)
AT = 1040
OWN = ORDER_NAMES + SETUP_NAMES
WARMUP = {f.name: f.warmup for f in CATALOGUE}


def points(*places, lag=2):
    return tuple(Point(bar, px, bar + lag) for bar, px in places)


# a short Quasimodo: shoulder 100, neck 96, head 104, lower low 92, return to 101
BEAR = points((1000, 100.0), (1008, 96.0), (1016, 104.0), (1028, 92.0), (1036, 101.0))


def moved(by, setup_points=BEAR):
    return tuple(Point(p.bar + by, p.px, p.confirmed_bar + by) for p in setup_points)


def make_entry(side=-1, at=AT, setup_points=BEAR, stop=105.0, target=91.0, reference=100.0, known=None):
    setup = None
    if setup_points is not None:
        setup = Setup("qml", side, setup_points, at if known is None else known)
    return Entry("X", "1h", "s", "qml", side, at, 0, 0, reference, stop, target, setup=setup)


def values(entry, market=MARKET, last=None):
    return dict(zip(CATALOGUE.names, entry_features(market, entry, last_entry_bar=last), strict=True))


def own(entry, market=MARKET, last=None):
    got = values(entry, market, last)
    return np.array([got[name] for name in OWN])


def test_every_feature_of_an_entry_worked_by_hand():
    o, h, low, c, v = BARS.open, BARS.high, BARS.low, BARS.close, BARS.volume
    atr = MARKET.series[SERIES.wilder_14, AT]
    rsi = MARKET.rows()[:, CATALOGUE.place("ctx_rsi_14")]
    hist = MARKET.series[SERIES.macd] - MARKET.series[SERIES.macd_signal]
    pattern, body = slice(1000, 1037), abs(c - o)[1000 : AT + 1]
    expected = {
        "geo_risk_atr": 5 / atr,
        "geo_reward_atr": 9 / atr,
        "geo_rr_ratio": 1.8,
        "geo_entry_body_frac": (o[AT] - c[AT]) / (h[AT] - low[AT]),
        "geo_is_bullish": 0.0,
        "temp_since_last_signal_log": math.log(41),
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
        "geo_time_leg1_frac": 8 / 36,
        "geo_time_leg2_frac": 8 / 36,
        "geo_time_leg3_frac": 12 / 36,
        "geo_time_ratio": 16 / 20,
        "geo_speed_choch_atr": 4 / 8 / atr,
        "geo_speed_bos_atr": 12 / 12 / atr,
        "geo_area_ratio": abs(c[1000:1017] - 96).sum() / abs(c[1016:1037] - 96).sum(),
        "geo_noise_ratio": ((h - low)[1000 : AT + 1] - body).sum() / body.sum(),
        "geo_path_eff": abs(c[1036] - c[1000]) / abs(np.diff(c[pattern])).sum(),
        "geo_choch_body_frac": (o[1008] - c[1008]) / (h[1008] - low[1008]),
        "geo_bos_body_frac": (o[1028] - c[1028]) / (h[1028] - low[1028]),
        "geo_entry_neck_dist_atr": (96 - c[AT]) / atr,
        "geo_stop_head_gap_atr": 1 / atr,
        "geo_sr_dist_atr": (c[AT] - low[900:1000].min()) / atr,
        "geo_prior_trend_20_atr": (c[1000] - c[980]) / atr,
        "geo_prior_trend_50_atr": (c[1000] - c[950]) / atr,
        "geo_rsi_div_head": rsi[1000] - rsi[1016],
        "geo_macd_div_head_atr": (hist[1000] - hist[1016]) / atr,
        "temp_bars_pattern_log": math.log(37),
        "temp_bars_since_head_log": math.log(25),
        "temp_bars_since_bos_log": math.log(13),
        "temp_bars_since_choch_log": math.log(33),
        "vol_relative_at_head": v[1016] / v[996:1016].mean(),
        "vol_relative_at_bos": v[1028] / v[1008:1028].mean(),
        "vol_relative_at_choch": v[1008] / v[988:1008].mean(),
        "vol_relative_pattern_slope": np.polyfit(np.arange(37), v[pattern], 1)[0] * 37 / v[pattern].mean(),
    }
    got = values(make_entry(), last=1000)
    assert set(expected) == set(OWN)
    assert len(OWN) == sum(f.needs != "bars" for f in CATALOGUE)
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, rel=1e-10), name


def test_a_long_entry_looks_up_at_the_highest_high():
    got = values(make_entry(1, setup_points=tuple(Point(p.bar, 200 - p.px, p.confirmed_bar) for p in BEAR)))
    atr = MARKET.series[SERIES.wilder_14, AT]
    assert got["geo_sr_dist_atr"] == pytest.approx((BARS.high[900:1000].max() - BARS.close[AT]) / atr)


@pytest.mark.parametrize("side", [1, -1])
def test_resistance_is_sought_in_the_hundred_bars_before_the_shoulder_only(side):
    high, low = BARS.high.copy(), BARS.low.copy()
    high[[899, 1000]], low[[899, 1000]] = 1000.0, 1.0
    market = MarketFeatures(dataclasses.replace(BARS, high=high, low=low))
    distance = values(make_entry(side), market)["geo_sr_dist_atr"] * market.series[SERIES.wilder_14, AT]
    extreme = BARS.high[900:1000].max() if side > 0 else BARS.low[900:1000].min()
    assert distance == pytest.approx(side * (extreme - BARS.close[AT]))


def test_the_mirror_image_has_the_same_shape():
    """Prices 400 - p: what a long entry reads off the mirrored market is what the short one reads off this one."""
    mirror = dataclasses.replace(
        BARS, open=400 - BARS.open, high=400 - BARS.low, low=400 - BARS.high, close=400 - BARS.close
    )
    mirrored = tuple(Point(p.bar, 400 - p.px, p.confirmed_bar) for p in BEAR)
    bull = values(
        make_entry(1, setup_points=mirrored, stop=295.0, target=309.0, reference=300.0), MarketFeatures(mirror)
    )
    bear = values(make_entry())
    for name in OWN:
        if name == "geo_is_bullish":
            assert (bull[name], bear[name]) == (1.0, 0.0)
        elif name == "geo_rsi_div_head":
            assert bull[name] == pytest.approx(bear[name], abs=1e-9)
        else:
            assert bull[name] == pytest.approx(bear[name], rel=1e-9, nan_ok=True), name


def test_the_market_is_completed_and_not_touched():
    row, series = MARKET.rows([AT])[0], MARKET.series.copy()
    out = entry_features(MARKET, make_entry())
    is_market = ~np.isin(CATALOGUE.names, OWN)
    np.testing.assert_array_equal(out[is_market], row[is_market])
    assert np.isnan(row[~is_market]).all()
    np.testing.assert_array_equal(MARKET.series, series)


def test_features_of_the_users_own_stay_as_the_market_gave_them():
    @user_feature("body", warmup=0, definition="C - O in prices")
    def body(bars):
        return bars.Close - bars.Open

    try:
        out = entry_features(MarketFeatures(BARS), make_entry())
        assert len(out) == len(CATALOGUE) == N_BUILT_IN + 1
        assert out[-1] == BARS.close[AT] - BARS.open[AT]
    finally:
        remove_user_feature("body")


@pytest.mark.parametrize("setup_points", [None, (), BEAR[:4]], ids=["no setup", "no points", "four points"])
def test_without_five_points_only_the_order_speaks(setup_points):
    got = values(make_entry(setup_points=setup_points), last=900)
    assert all(np.isnan(got[name]) for name in SETUP_NAMES)
    assert all(np.isfinite(got[name]) for name in ORDER_NAMES)


@pytest.mark.parametrize("at", [140, 363, 364, 462, 463])
def test_before_the_warmup_there_is_no_value(at):
    got = values(make_entry(at=at, setup_points=moved(at - AT)), last=at)
    early = {"geo_rsi_div_head": 364, "geo_macd_div_head_atr": 463}  # these ask it of the left shoulder, 40 bars before
    for name in OWN:
        first = early[name] + 40 if name in early else WARMUP[name]
        if name == "geo_sr_dist_atr":
            first = max(first, 140)
        assert np.isnan(got[name]) == (at < first), name


@pytest.mark.parametrize(
    ("shoulder", "name"),
    [
        (20, "geo_prior_trend_20_atr"),
        (50, "geo_prior_trend_50_atr"),
        (100, "geo_sr_dist_atr"),
        (364, "geo_rsi_div_head"),
        (463, "geo_macd_div_head_atr"),
    ],
)
def test_what_looks_back_from_the_shoulder_needs_bars_before_it(shoulder, name):
    for first, is_there in ((shoulder - 1, False), (shoulder, True)):
        assert np.isfinite(values(make_entry(setup_points=(Point(first, 100.0, AT), *BEAR[1:])))[name]) == is_there


@pytest.mark.parametrize("name", ["at_choch", "at_head", "at_bos"])
def test_volume_at_a_point_needs_twenty_bars_before_it(name):
    number = {"at_choch": 1, "at_head": 2, "at_bos": 3}[name]
    for bar, is_there in ((19, False), (20, True)):
        setup_points = tuple(Point(bar, p.px, AT) if i == number else p for i, p in enumerate(BEAR))
        assert np.isfinite(values(make_entry(setup_points=setup_points))[f"vol_relative_{name}"]) == is_there


def test_degenerate_geometry_gives_nan_and_never_inf():
    got = values(make_entry(setup_points=points(*[(1000, 100.0)] * 5), stop=100.0))
    assert not any(np.isinf(value) for value in got.values())
    nothing = {
        "geo_rr_ratio", "geo_leg_ratio_21", "geo_leg_ratio_32", "geo_retrace_p5", "geo_shoulder_sym", "geo_time_ratio",
        "geo_neckline_slope_atr", "geo_speed_choch_atr", "geo_speed_bos_atr", "geo_time_leg1_frac", "geo_time_leg2_frac",
        "geo_time_leg3_frac", "geo_path_eff", "vol_relative_pattern_slope", "temp_since_last_signal_log",
    }  # fmt: skip
    assert {name for name in OWN if np.isnan(got[name])} == nothing
    assert got["geo_area_ratio"] == 1.0


def test_points_in_no_order_give_nan_and_never_a_false_zero():
    got = values(make_entry(setup_points=BEAR[::-1]))
    for name in ("geo_area_ratio", "geo_time_ratio", "geo_path_eff", "temp_bars_pattern_log", "geo_neckline_slope_atr"):
        assert np.isnan(got[name]), name
    assert np.isnan(values(make_entry(setup_points=(*BEAR[:2], Point(300, 104.0, AT), *BEAR[3:])))["geo_rsi_div_head"])


def test_flat_prices_give_no_ratio():
    got = values(make_entry(setup_points=points(*[(p.bar, 0.1) for p in BEAR]), stop=0.1), MarketFeatures(flat_bars(N)))
    counts = ("geo_is_bullish", "geo_time", "temp_bars", "vol_relative")
    assert {name for name in OWN if np.isfinite(got[name])} == {name for name in OWN if name.startswith(counts)}


@pytest.mark.parametrize("none", [math.nan, math.inf, -math.inf])
def test_no_stop_or_target_gives_no_risk_or_reward(none):
    without_stop, without_target = values(make_entry(stop=none)), values(make_entry(target=none))
    names = ("geo_risk_atr", "geo_rr_ratio", "geo_stop_head_gap_atr")
    assert all(np.isnan(without_stop[name]) for name in names)
    assert without_stop["geo_reward_atr"] == values(make_entry())["geo_reward_atr"]
    assert np.isnan(without_target["geo_reward_atr"])
    assert np.isfinite(without_target["geo_risk_atr"])


def test_bars_after_the_entry_change_nothing():
    expected = entry_features(MARKET, make_entry(), last_entry_bar=900)
    alone = entry_features(MarketFeatures(cut(BARS, 0, AT + 1)), make_entry(), last_entry_bar=900)
    np.testing.assert_array_equal(alone, expected)
    future = scaled(BARS, 5.0, 9.0)
    mixed = {
        name: np.append(getattr(BARS, name)[: AT + 1], getattr(future, name)[AT + 1 :])
        for name in ("open", "high", "low", "close", "volume")
    }
    changed = MarketFeatures(dataclasses.replace(BARS, **mixed))
    np.testing.assert_array_equal(entry_features(changed, make_entry(), last_entry_bar=900), expected)


def test_bars_long_before_the_shoulder_are_forgotten():
    late = own(make_entry(at=AT - 500, setup_points=moved(-500)), MarketFeatures(cut(BARS, 500, N)), last=0)
    assert np.isfinite(late).all()
    full = own(make_entry(), last=500)
    np.testing.assert_allclose(late, full, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("price", "volume"), [(1000.0, 1.0), (1e-3, 1.0), (1.0, 1000.0), (1 / 3, 7.0)])
@pytest.mark.parametrize("tick", [None, 0.05])
def test_units_do_not_matter(price, volume, tick):
    bars = make_bars(N, 12, tick=tick)
    grown = tuple(dataclasses.replace(p, px=p.px * price) for p in BEAR)
    entry = make_entry(setup_points=grown, stop=105 * price, target=91 * price, reference=100 * price)
    there = own(entry, MarketFeatures(scaled(bars, price, volume)))
    np.testing.assert_allclose(there, own(make_entry(), MarketFeatures(bars)), rtol=1e-9, atol=1e-9)


def test_a_head_as_high_as_a_shoulder_has_no_symmetry_in_any_unit():
    level = points((1000, 100.1), (1008, 96.0), (1016, 100.1), (1028, 92.0), (1036, 99.0))
    for price in (1.0, 1000.0, 1 / 3):
        setup_points = tuple(dataclasses.replace(p, px=p.px * price * (1 + 1e-16 * i)) for i, p in enumerate(level))
        entry = make_entry(setup_points=setup_points, stop=105 * price, target=91 * price, reference=100 * price)
        assert np.isnan(values(entry, MarketFeatures(scaled(BARS, price)))["geo_shoulder_sym"])


def test_missing_or_absent_volume_leaves_the_geometry_alone():
    full = own(make_entry())
    for volume in (np.nan, 0.0):
        got = own(make_entry(), MarketFeatures(dataclasses.replace(BARS, volume=np.full(N, volume))))
        for name, value, before in zip(OWN, got, full, strict=True):
            np.testing.assert_equal(value, math.nan if name.startswith("vol_relative") else before, err_msg=name)


def test_numbers_of_any_kind_give_the_same_values():
    whole = tuple(Point(np.int32(p.bar), round(p.px), np.int16(p.confirmed_bar)) for p in BEAR)
    entry = make_entry(np.int8(-1), np.int32(AT), whole, stop=105, target=np.float32(91), reference=100, known=AT)
    np.testing.assert_array_equal(own(entry, last=np.int16(900)), own(make_entry(), last=900))


def test_the_entry_before_may_be_of_the_same_bar():
    assert values(make_entry(), last=AT)["temp_since_last_signal_log"] == 0.0
    assert np.isnan(values(make_entry())["temp_since_last_signal_log"])


def test_a_setup_of_the_future_is_refused():
    with pytest.raises(LookAheadError, match="entry at bar 1040 is known at bar 1041 only"):
        values(make_entry(known=1041))
    with pytest.raises(LookAheadError, match="P5 lies at bar 1036, confirmed at bar 1100"):
        values(make_entry(setup_points=(*BEAR[:4], Point(1036, 101.0, 1100))))
    with pytest.raises(LookAheadError, match="P5 lies at bar 1041, confirmed at bar 1038"):
        values(make_entry(setup_points=(*BEAR[:4], Point(1041, 101.0, 1038))))
    with pytest.raises(LookAheadError, match="P1 lies at bar 1100"):
        values(make_entry(setup_points=(Point(1100, 101.0, 1100),)))


def test_impossible_places_and_prices_are_refused():
    for at in (-1, N):
        with pytest.raises(DataError, match=f"entry at bar {at} lies outside the {N} bars"):
            entry_features(MARKET, make_entry(at=at, known=0, setup_points=()))
    with pytest.raises(DataError, match="P1 lies at bar -1"):
        values(make_entry(setup_points=(Point(-1, 100.0, 2), *BEAR[1:])))
    for px in (math.nan, math.inf):
        with pytest.raises(DataError, match=f"P3, at bar 1016, has the price {px}"):
            values(make_entry(setup_points=(*BEAR[:2], Point(1016, px, 1018), *BEAR[3:])))
    for last in (AT + 1, -1):
        with pytest.raises(DataError, match=f"the last entry is at bar {last}, this one at bar 1040"):
            values(make_entry(), last=last)


def test_levels_and_order_blocks_of_the_future_are_refused():
    entry = make_entry()
    late = dataclasses.replace(entry.setup, levels=(Level("sweep", 100.0, AT + 1),))
    with pytest.raises(
        LookAheadError, match=f"the sweep of a setup lies at bar {AT + 1}, but the entry is at bar {AT}"
    ):
        entry_features(MARKET, dataclasses.replace(entry, setup=late))
    late = dataclasses.replace(entry.setup, order_block=Zone(99.0, 100.0, AT + 1))
    with pytest.raises(LookAheadError, match="the order block of a setup lies at bar"):
        entry_features(MARKET, dataclasses.replace(entry, setup=late))
