"""A pattern in a dictionary gives the numbers of an entry with the same setup."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from backtesting.test import EURUSD, GOOG

from qml_plugin.bars import bars_from_frame
from qml_plugin.errors import DataError, LookAheadError
from qml_plugin.features import CATALOGUE, MarketFeatures, PatternFeatureExtractor, entry_features
from qml_plugin.records import Entry, Point, Setup

AT = 1240
BEAR = {
    "pattern_type": "bearish_qml",
    "left_shoulder_price": 1.20,
    "left_shoulder_idx": 1200,
    "head_price": 1.25,
    "head_idx": 1216,
    "right_shoulder_price": 1.21,
    "right_shoulder_idx": 1234,
    "entry_price": 1.205,
    "stop_loss": 1.26,
    "take_profit": 1.10,
    "detection_idx": 1238,
    "validity_score": 0.8,
}
extract = PatternFeatureExtractor().extract_pattern_features


def without(key):
    return {name: value for name, value in BEAR.items() if name != key}


def test_the_numbers_are_those_of_the_entry():
    bars = bars_from_frame(EURUSD, symbol="EURUSD")
    low = bars.low
    choch, bos = 1201 + int(low[1201:1216].argmin()), 1217 + int(low[1217:1234].argmin())
    prices = ((1200, 1.20), (choch, low[choch]), (1216, 1.25), (bos, low[bos]), (1234, 1.21))
    setup = Setup("bearish_qml", -1, tuple(Point(bar, float(px), 1238) for bar, px in prices), 1238)
    entry = Entry("EURUSD", "1h", "s", "bearish_qml", -1, AT, 0, 0, 1.205, 1.26, 1.10, setup=setup)
    expected = entry_features(MarketFeatures(bars), entry, last_entry_bar=1100)
    got = extract({**BEAR, "last_signal_idx": 1100}, EURUSD, AT)
    assert tuple(got) == CATALOGUE.names
    np.testing.assert_array_equal(list(got.values()), expected)
    assert all(math.isfinite(got[f.name]) for f in CATALOGUE if f.warmup <= AT)


def test_the_points_between_may_be_given():
    given = {**BEAR, "choch_price": 1.15, "choch_idx": 1208, "bos_price": 1.12, "bos_idx": 1226}
    got = extract(given, EURUSD, AT)
    assert got["temp_bars_since_choch_log"] == pytest.approx(math.log(33))
    assert got["geo_leg_ratio_21"] == pytest.approx(2.0)
    assert got["temp_bars_since_bos_log"] == pytest.approx(math.log(15))


def test_a_bullish_pattern_takes_the_highs_between():
    bull = {
        **BEAR, "pattern_type": "bullish_qml", "left_shoulder_price": 1.10, "head_price": 1.05,
        "right_shoulder_price": 1.09, "stop_loss": 1.04, "take_profit": 1.30,
    }  # fmt: skip
    got = extract(bull, EURUSD, AT)
    high = EURUSD.High.to_numpy()
    assert got["geo_is_bullish"] == 1.0
    assert got["temp_bars_since_choch_log"] == pytest.approx(math.log1p(AT - 1201 - high[1201:1216].argmax()))


def test_other_detectors_name_their_side():
    assert extract({**BEAR, "pattern_type": "head_and_shoulders", "side": -1}, EURUSD, AT)["geo_is_bullish"] == 0.0
    with pytest.raises(DataError, match="pattern_type 'head_and_shoulders' has no known side. Use bullish_qml"):
        extract({**BEAR, "pattern_type": "head_and_shoulders"}, EURUSD, AT)


def test_later_rows_are_not_looked_at():
    expected = extract(BEAR, EURUSD, AT)
    changed = EURUSD.copy()
    changed.iloc[AT + 1 :] = np.nan
    for frame in (EURUSD.iloc[: AT + 1], changed):
        np.testing.assert_array_equal(list(extract(BEAR, frame, AT).values()), list(expected.values()))


@pytest.mark.parametrize("key", BEAR)
def test_a_missing_key_is_named(key):
    with pytest.raises(DataError, match=f"the pattern has no '{key}'"):
        extract(without(key), EURUSD, AT)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("entry_price", -1.0, "entry_price is -1.0. It must be a positive, finite price"),
        ("stop_loss", "low", "stop_loss is 'low'"),
        ("head_price", math.nan, "head_price is nan"),
        ("head_idx", 3.5, "head_idx is 3.5. It must be a row number"),
        ("head_idx", -4, "head_idx is -4"),
        ("head_idx", math.inf, "head_idx is inf"),
        ("head_idx", 1199, "left_shoulder_idx 1200, head_idx 1199, right_shoulder_idx 1234 are not in this order"),
        ("validity_score", 1.5, "validity_score is 1.5. It must lie between 0 and 1"),
        ("pattern_type", 7, "pattern_type is 7. Use bullish_qml"),
        ("side", 1, "side is 1, but pattern_type 'bearish_qml' has side -1"),
        ("side", "short", "side is 'short'"),
    ],
)
def test_an_impossible_value_is_named(key, value, message):
    with pytest.raises(DataError, match=message):
        extract({**BEAR, key: value}, EURUSD, AT)


def test_a_point_outside_those_beside_it_is_refused():
    with pytest.raises(DataError, match="choch_idx is 1220, but shoulder and head lie at bars 1200 and 1216"):
        extract({**BEAR, "choch_idx": 1220, "choch_price": 1.1}, EURUSD, AT)


def test_the_future_is_refused():
    with pytest.raises(LookAheadError, match="detection_idx is 1238, the decision is at bar 1237"):
        extract(BEAR, EURUSD, 1237)
    with pytest.raises(LookAheadError, match="right_shoulder_idx is 1239, but the pattern was known at bar 1238"):
        extract({**BEAR, "right_shoulder_idx": 1239}, EURUSD, AT)


@pytest.mark.parametrize(
    ("bar_idx", "message"),
    [
        (-1, "lies outside the 5000 rows"),
        (5000, "lies outside"),
        (1240.0, "bar_idx is 1240.0"),
        (None, "bar_idx is None"),
    ],
)
def test_a_row_outside_is_refused(bar_idx, message):
    with pytest.raises(DataError, match=message):
        extract(BEAR, EURUSD, bar_idx)


def test_neighbouring_points_leave_nothing_to_take_between():
    with pytest.raises(DataError, match="no bar lies between bars 1215 and 1216"):
        extract({**BEAR, "left_shoulder_idx": 1215}, EURUSD, AT)


def test_a_misspelt_key_is_hinted_at():
    with pytest.raises(DataError, match="the pattern has no 'stop_loss', which it needs. Rename 'stoploss'"):
        extract({**without("stop_loss"), "stoploss": 1.26}, EURUSD, AT)


def test_bars_are_checked():
    bad = GOOG.copy()
    bad.iloc[3, bad.columns.get_loc("Close")] = np.nan
    with pytest.raises(DataError, match="Close is nan at row 3"):
        extract(BEAR, bad, AT)


def test_positions_may_be_numpy_integers():
    given = {key: np.int64(value) if key.endswith("idx") else value for key, value in BEAR.items()}
    expected = extract(BEAR, EURUSD, AT)
    np.testing.assert_array_equal(list(extract(given, EURUSD, np.int64(AT)).values()), list(expected.values()))
    assert pd.Series(expected).notna().sum() > 190
