"""The one-call form gives what `entry_features` gives, and names the key it cannot use."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from backtesting.test import GOOG

from qml_plugin.bars import bars_from_frame
from qml_plugin.detection.quasimodo import find_quasimodo
from qml_plugin.errors import DataError, LookAheadError
from qml_plugin.features import CATALOGUE, MarketFeatures, PatternFeatureExtractor, entry_features
from qml_plugin.records import Entry, Point, Setup

FRAME = GOOG.iloc[:1200]
BARS = bars_from_frame(FRAME, symbol="GOOG")
MARKET = MarketFeatures(BARS)
AT = 1042
PATTERN = {
    "pattern_type": "bearish_qml",
    "left_shoulder_price": 500.0,
    "left_shoulder_idx": 1000,
    "head_price": 520.0,
    "head_idx": 1016,
    "right_shoulder_price": 505.0,
    "right_shoulder_idx": 1036,
    "entry_price": 503.0,
    "stop_loss": 525.0,
    "take_profit": 460.0,
    "detection_idx": 1040,
    "validity_score": 0.8,
}
NECK = {"choch_price": 481.5, "choch_idx": 1007, "bos_price": 470.25, "bos_idx": 1030}


def extract(frame=FRAME, at=AT, **changes):
    return PatternFeatureExtractor().extract_pattern_features({**PATTERN, **changes}, frame, at)


def expected(p2, p4, side=-1, at=AT, last=None):
    places = ((1000, 500.0), p2, (1016, 520.0), p4, (1036, 505.0))
    setup = Setup("any", side, tuple(Point(bar, px, 1040) for bar, px in places), 1040)
    entry = Entry("", "1d", "", "any", side, at, 0, 0, 503.0, 525.0, 460.0, setup=setup)
    return dict(zip(CATALOGUE.names, entry_features(MARKET, entry, last_entry_bar=last).tolist(), strict=True))


def lowest(first, last):
    values = FRAME.Low.iloc[first + 1 : last]
    return first + 1 + int(np.argmin(values)), float(values.min())


def highest(first, last):
    values = FRAME.High.iloc[first + 1 : last]
    return first + 1 + int(np.argmax(values)), float(values.max())


def test_all_five_points_give_the_features_of_the_entry():
    np.testing.assert_equal(extract(**NECK), expected((1007, 481.5), (1030, 470.25)))


def test_keys_are_the_catalogue_in_order_and_values_plain_floats():
    got = extract(**NECK)
    assert tuple(got) == CATALOGUE.names
    assert {type(value) for value in got.values()} == {float}
    assert math.isnan(got["temp_since_last_signal_log"])
    assert sum(math.isnan(value) for value in got.values()) < 20


def test_points_left_out_are_the_lowest_lows_between_shoulder_and_head():
    np.testing.assert_equal(extract(), expected(lowest(1000, 1016), lowest(1016, 1036)))


def test_points_left_out_of_a_bullish_pattern_are_the_highest_highs():
    got = extract(pattern_type="bullish_qml")
    np.testing.assert_equal(got, expected(highest(1000, 1016), highest(1016, 1036), side=1))
    assert got["geo_is_bullish"] == 1.0


def test_the_bars_of_shoulder_and_head_are_not_their_own_neck():
    frame = FRAME.copy()
    frame.iloc[[1000, 1016, 1036], frame.columns.get_loc("Low")] = 1.0
    assert extract(frame)["temp_bars_since_choch_log"] == math.log1p(AT - lowest(1000, 1016)[0])
    assert extract(frame)["temp_bars_since_bos_log"] == math.log1p(AT - lowest(1016, 1036)[0])


def test_of_equal_lows_the_first_is_the_neck():
    frame = FRAME.copy()
    frame.iloc[[1005, 1009], frame.columns.get_loc("Low")] = 1.0
    assert extract(frame)["temp_bars_since_choch_log"] == math.log1p(AT - 1005)


def test_one_point_may_be_given_and_the_other_found():
    got = extract(choch_price=481.5, choch_idx=1007)
    np.testing.assert_equal(got, expected((1007, 481.5), lowest(1016, 1036)))


def test_a_type_of_your_own_needs_a_side_and_gets_it():
    np.testing.assert_equal(extract(pattern_type="flag", side=-1, **NECK), extract(**NECK))
    np.testing.assert_equal(extract(pattern_type="bearish_qml", side=-1, **NECK), extract(**NECK))


def test_setups_of_our_detector_come_out_the_same():
    setups = [s for s in find_quasimodo(BARS) if s.known_bar > 600]
    assert setups
    for setup in setups:
        p1, p2, p3, p4, p5 = setup.points
        data = {
            "pattern_type": setup.pattern_type, "entry_price": p5.px, "stop_loss": setup.stop_px,
            "take_profit": setup.target_px, "detection_idx": setup.known_bar, "validity_score": setup.validity_score,
            "left_shoulder_price": p1.px, "left_shoulder_idx": p1.bar, "choch_price": p2.px, "choch_idx": p2.bar,
            "head_price": p3.px, "head_idx": p3.bar, "bos_price": p4.px, "bos_idx": p4.bar,
            "right_shoulder_price": p5.px, "right_shoulder_idx": p5.bar,
        }  # fmt: skip
        at = setup.known_bar
        entry = Entry(
            "", "1d", "", "", setup.side, at, 0, 0, p5.px, setup.stop_px, setup.target_px, setup=setup
        )  # fmt: skip
        got = PatternFeatureExtractor().extract_pattern_features(data, FRAME, at)
        np.testing.assert_array_equal(list(got.values()), entry_features(MARKET, entry))


def test_the_entry_before_this_one_may_be_given():
    np.testing.assert_equal(
        extract(last_signal_idx=990, **NECK), expected((1007, 481.5), (1030, 470.25), last=990)
    )  # fmt: skip
    with pytest.raises(LookAheadError, match="last_signal_idx is 1043, after bar_idx 1042"):
        extract(last_signal_idx=1043)


def test_rows_after_the_decision_are_not_looked_at():
    broken = FRAME.astype(object)
    broken.iloc[AT + 1 :] = "not yet known"
    np.testing.assert_equal(extract(broken), extract())
    np.testing.assert_equal(extract(FRAME.iloc[: AT + 1]), extract())


def test_the_frame_and_the_dictionary_are_not_touched():
    frame, data = FRAME.copy(), {**PATTERN, "symbol": "GOOG", "left_shoulder_time": FRAME.index[1000]}
    before = dict(data)
    PatternFeatureExtractor().extract_pattern_features(data, frame, AT)
    pd.testing.assert_frame_equal(frame, FRAME)
    assert data == before


def test_numbers_of_numpy_pandas_and_decimals_are_numbers():
    data = pd.Series({key: value for key, value in PATTERN.items() if key != "pattern_type"})  # all become floats
    got = PatternFeatureExtractor().extract_pattern_features(
        {**data.to_dict(), "pattern_type": "bearish_qml", "stop_loss": Decimal(525)}, FRAME, np.int64(AT)
    )
    np.testing.assert_equal(got, extract())
    np.testing.assert_equal(extract(validity_score=np.float32(0.5), head_idx=np.int16(1016)), extract())


def test_stamps_that_mark_the_close_and_a_timeframe_of_your_own_are_understood():
    extractor = PatternFeatureExtractor(timeframe="12h", bar_label="close")
    assert math.isfinite(extractor.extract_pattern_features(PATTERN, FRAME, AT)["temp_hour_sin"])
    assert math.isnan(extract()["temp_hour_sin"])


@pytest.mark.parametrize("key", list(PATTERN))
def test_a_missing_key_is_named(key):
    data = {name: value for name, value in PATTERN.items() if name != key}
    with pytest.raises(DataError, match=f"the pattern has no '{key}'"):
        PatternFeatureExtractor().extract_pattern_features(data, FRAME, AT)
    with pytest.raises(DataError, match=f"the pattern has no '{key}'"):
        extract(**{key: None})


def test_a_misspelt_key_is_pointed_at():
    data = {("head_index" if key == "head_idx" else key): value for key, value in PATTERN.items()}
    with pytest.raises(DataError, match=r"no 'head_idx', which it needs. Rename 'head_index'"):
        PatternFeatureExtractor().extract_pattern_features(data, FRAME, AT)


@pytest.mark.parametrize("half", ["choch_price", "choch_idx", "bos_price", "bos_idx"])
def test_half_a_point_is_refused(half):
    other = half.replace("price", "IDX").replace("idx", "price").replace("IDX", "idx")
    with pytest.raises(DataError, match=f"the pattern has no '{other}'"):
        extract(**{half: NECK[half]})


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, "500", True, [500.0]])
@pytest.mark.parametrize("key", ["left_shoulder_price", "head_price", "entry_price", "stop_loss", "take_profit"])
def test_an_impossible_price_is_refused(key, value):
    with pytest.raises(DataError, match=rf"{key} is .*It must be a positive, finite price"):
        extract(**{key: value})


@pytest.mark.parametrize("value", [-1, 10.5, math.nan, math.inf, "10", True])
@pytest.mark.parametrize("key", ["left_shoulder_idx", "head_idx", "right_shoulder_idx", "detection_idx"])
def test_an_impossible_row_of_a_point_is_refused(key, value):
    with pytest.raises(DataError, match=rf"{key} is .*It must be a row number"):
        extract(**{key: value})


def test_points_out_of_order_are_refused():
    with pytest.raises(DataError, match=r"left_shoulder_idx 1020, head_idx 1016.*not in this order"):
        extract(left_shoulder_idx=1020)
    with pytest.raises(DataError, match="choch_idx is 1017, but shoulder and head lie at bars 1000 and 1016"):
        extract(choch_price=480.0, choch_idx=1017)
    with pytest.raises(DataError, match="bos_idx is 1015, but shoulder and head lie at bars 1016 and 1036"):
        extract(bos_price=480.0, bos_idx=1015)


def test_neighbouring_bars_leave_no_point_to_find():
    with pytest.raises(DataError, match=r"no bar lies between bars 1015 and 1016.*Give choch_price and choch_idx"):
        extract(left_shoulder_idx=1015)
    assert math.isfinite(extract(left_shoulder_idx=1015, choch_price=481.5, choch_idx=1015)["geo_leg1_atr"])


@pytest.mark.parametrize("key", ["left_shoulder_idx", "head_idx", "right_shoulder_idx"])
def test_a_point_after_the_detection_is_refused(key):
    with pytest.raises(LookAheadError, match=f"{key} is 1041, but the pattern was known at bar 1040"):
        extract(**{key: 1041})


def test_a_decision_before_the_detection_is_refused():
    with pytest.raises(LookAheadError, match="detection_idx is 1040, the decision is at bar 1039"):
        extract(at=1039)
    assert math.isfinite(extract(at=1040)["geo_risk_atr"])


@pytest.mark.parametrize("at", [-1, 1200])
def test_a_decision_outside_the_frame_is_refused(at):
    with pytest.raises(DataError, match=f"bar_idx {at} lies outside the 1200 rows"):
        extract(at=at)


@pytest.mark.parametrize("at", [1042.0, "1042", None])
def test_a_decision_at_no_row_is_refused(at):
    with pytest.raises(DataError, match=r"bar_idx is .*It must be a row number"):
        extract(at=at)


def test_an_unknown_type_needs_a_side_that_fits():
    with pytest.raises(DataError, match="pattern_type 'flag' has no known side"):
        extract(pattern_type="flag")
    with pytest.raises(DataError, match="pattern_type is 3"):
        extract(pattern_type=3)
    for side in (0, "long", True):
        with pytest.raises(DataError, match=f"side is {side!r}. Use"):
            extract(pattern_type="flag", side=side)
    with pytest.raises(DataError, match="side is 1, but pattern_type 'bearish_qml' has side -1"):
        extract(side=1)


@pytest.mark.parametrize("score", [-0.1, 1.1, math.nan, "good"])
def test_a_score_is_a_share(score):
    with pytest.raises(DataError, match=r"validity_score is .*between 0 and 1"):
        extract(validity_score=score)


def test_other_things_than_a_dictionary_and_a_frame_are_refused():
    with pytest.raises(DataError, match="market_df is a ndarray"):
        extract(FRAME.to_numpy())
    with pytest.raises(DataError, match="pattern_data is a list"):
        PatternFeatureExtractor().extract_pattern_features([1], FRAME, AT)
