"""Bars one by one give the rows of the whole series, bit for bit, across saving, loading and making room."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from backtesting.test import EURUSD, GOOG
from hypothesis import given, settings
from hypothesis import strategies as st

from qml_plugin.bars import bars_from_frame
from qml_plugin.errors import DataError, FeatureMismatch
from qml_plugin.features import CATALOGUE, FeatureStream, MarketFeatures, compute_features, user_feature
from qml_plugin.features.user import remove_user_feature

from .data import HOUR, cut, flat_bars, make_bars, scaled

BAR = ("2024-01-01 00:00", 100.0, 101.0, 99.0, 100.5, 1200.0)


def rows_of(bars):
    columns = (bars.opened_at.tolist(), bars.open, bars.high, bars.low, bars.close, bars.volume)
    return list(zip(*columns, strict=True))


def pushed(stream, bars):
    return np.array([stream.push(row) for row in rows_of(bars)])


def gappy(bars, seed=5):
    hours = np.cumsum(np.random.default_rng(seed).choice([1, 1, 1, 1, 2, 49], len(bars)))
    at = bars.opened_at[0] + hours * HOUR
    return dataclasses.replace(bars, opened_at=at, known_at=at + HOUR)


SETS = {
    "random": make_bars(3000, 1),
    "ticks": make_bars(3000, 2, tick=0.05),
    "gappy": gappy(make_bars(1500, 3)),
    "flat": flat_bars(900),
    "no trades": dataclasses.replace(make_bars(900, 4), volume=np.zeros(900)),
    "no volume": dataclasses.replace(make_bars(900, 4), volume=np.full(900, np.nan)),
    "scaled": scaled(make_bars(900, 5), 1e6, 1e-3),
    "daily": make_bars(900, 6, bar=24 * HOUR, timeframe="1d"),
}


@pytest.mark.parametrize("bars", SETS.values(), ids=SETS)
def test_three_ways_give_the_same_bits(bars):
    dense = MarketFeatures(bars).rows()
    np.testing.assert_array_equal(pushed(FeatureStream(bars.timeframe), bars), dense)
    rows = np.random.default_rng(0).choice(len(bars), 50)
    np.testing.assert_array_equal(MarketFeatures(bars).rows(rows), dense[rows])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([None, 0.01, 0.5]), st.floats(1e-4, 1e4), st.booleans())
def test_three_ways_agree_on_any_series(seed, tick, price, is_gappy):
    bars = scaled(make_bars(700, seed, tick=tick), price)
    if is_gappy:
        bars = gappy(bars, seed % 1000)
    dense = MarketFeatures(bars).rows()
    np.testing.assert_array_equal(pushed(FeatureStream("1h"), bars), dense)
    np.testing.assert_array_equal(MarketFeatures(bars).rows([699, 31]), dense[[699, 31]])


@pytest.mark.parametrize("frame", [GOOG, EURUSD], ids=["GOOG", "EURUSD"])
def test_real_frames_stream_row_by_row_without_a_timeframe(frame):
    frame = frame.iloc[:900]
    stream = FeatureStream()
    streamed = np.array([stream.push(row) for row in frame.itertuples()])
    dense = compute_features(frame).to_numpy()
    # until the spacing of 100 bars is known the timeframe may still be another one
    np.testing.assert_array_equal(streamed[101:], dense[101:])
    assert stream.timeframe == bars_from_frame(frame, symbol="").timeframe


def test_a_bar_may_be_a_tuple_a_series_or_a_mapping():
    frame = GOOG.iloc[:120]
    by_tuple = [FeatureStream.push(s, row) for s in [FeatureStream("1d")] for row in frame.itertuples()]
    by_series = [FeatureStream.push(s, row) for s in [FeatureStream("1d")] for _, row in frame.iterrows()]
    records = frame.rename(columns=str.lower).rename_axis("date").reset_index().to_dict("records")
    by_mapping = [FeatureStream.push(s, row) for s in [FeatureStream("1d")] for row in records]
    np.testing.assert_array_equal(by_series, by_tuple)
    np.testing.assert_array_equal(by_mapping, by_tuple)


@pytest.mark.parametrize("n_before", [1, 50, 700, 2600])
def test_a_saved_stream_goes_on_bit_for_bit(tmp_path, n_before):
    bars = SETS["random"]
    stream = FeatureStream("1h")
    pushed(stream, cut(bars, 0, n_before))
    stream.save(tmp_path / "btc.stream")
    loaded = FeatureStream.load(tmp_path / "btc.stream")
    assert (loaded.n_seen, loaded.timeframe) == (n_before, "1h")
    rest = cut(bars, n_before, min(n_before + 700, 3000))
    np.testing.assert_array_equal(pushed(loaded, rest), pushed(stream, rest))
    assert [path.name for path in tmp_path.iterdir()] == ["btc.stream"]


def test_a_young_stream_is_saved_with_its_doubts(tmp_path):
    bars = SETS["random"]
    stream = FeatureStream()
    pushed(stream, cut(bars, 0, 3))
    stream.save(tmp_path / "s")
    loaded = FeatureStream.load(tmp_path / "s")
    rest = gappy(cut(bars, 3, 300))
    np.testing.assert_array_equal(pushed(loaded, rest), pushed(stream, rest))


def test_a_stream_after_a_history_goes_on_like_one_that_saw_it():
    bars = SETS["random"]
    stream = FeatureStream.after(cut(bars, 0, 2700))
    np.testing.assert_array_equal(pushed(stream, cut(bars, 2700, 3000)), MarketFeatures(bars).rows()[2700:])


@pytest.mark.parametrize(
    ("bar", "message"),
    [
        (("2024-01-01 00:30", *BAR[1:]), "begins before the one of 2024-01-01 00:00 has ended"),
        (BAR, "bar 2024-01-01 00:00 came after 2024-01-01 00:00"),
        (("2023-12-31 23:00", *BAR[1:]), "must strictly increase"),
        (("2024-01-01 01:00", 100.0, 99.0, 98.0, 99.0, 1.0), "Open 100, High 99, Low 98, Close 99"),
        (("2024-01-01 01:00", 0.0, 99.0, 0.0, 99.0, 1.0), "positive and finite"),
        (("2024-01-01 01:00", np.nan, 99.0, 98.0, 99.0, 1.0), "Open nan"),
        (("2024-01-01 01:00", 99.0, np.inf, 98.0, 99.0, 1.0), "High inf"),
        (("2024-01-01 01:00", 99.0, 99.0, 98.0, 99.0, -1.0), "Volume -1"),
        (("2024-01-01 01:00", 99.0, 99.0, 98.0, "x", 1.0), "holds what is no number"),
        (("2024-01-01 01:00", 99.0), "is no bar"),
        ("2024-01-01", "is no bar"),
        ((17, *BAR[1:]), "it is no count of UTC microseconds"),
        (("yesterday-ish", *BAR[1:]), "stamp 'yesterday-ish' is no time"),
        ((None, *BAR[1:]), "stamp None is no time"),
        ({"date": "2024-01-01 01:00", "open": 1.0, "high": 1.0, "close": 1.0}, "the bar has no Low"),
        (pd.Series({"Open": 1.0, "High": 1.0, "Low": 1.0, "Close": 1.0}, name=7), "stamp None is no time"),
    ],
)
def test_a_bad_bar_is_refused_and_changes_nothing(bar, message):
    stream, twin = FeatureStream("1h"), FeatureStream("1h")
    stream.push(BAR)
    twin.push(BAR)
    with pytest.raises(DataError, match=message):
        stream.push(bar)
    after = ("2024-01-01 01:00", 100.5, 101.0, 100.0, 100.0, 1.0)
    np.testing.assert_array_equal(stream.push(after), twin.push(after))
    assert stream.n_seen == 2


def test_an_error_of_the_users_feature_leaves_the_stream_as_it_was():
    is_broken = []

    @user_feature("fragile", warmup=0, definition="x")
    def fragile(bars):
        return bars.Close * (np.inf if is_broken else 1.0)

    try:
        bars = cut(SETS["random"], 0, 200)
        stream, twin = FeatureStream(), FeatureStream()
        for i, row in enumerate(rows_of(bars)):
            if i in (0, 1, 77, 150):
                is_broken.append(True)
                with pytest.raises(DataError, match="user_fragile is inf"):
                    stream.push(row)
                is_broken.clear()
                assert stream.n_seen == i
            np.testing.assert_array_equal(stream.push(row), twin.push(row))
    finally:
        remove_user_feature("fragile")


@pytest.mark.parametrize("form", [pd.Timestamp.to_pydatetime, lambda stamp: stamp])
def test_days_of_a_market_with_clock_changes_stream_by_their_zone(form):
    days = pd.date_range("2021-03-20", periods=60, freq="D", tz="Europe/London")
    frame = GOOG.iloc[:60].set_axis(days, axis=0)
    stream = FeatureStream("1d")
    for stamp, *values in frame.itertuples():
        stream.push((form(stamp), *values))
    assert stream.n_seen == 60


def test_a_timeframe_too_small_is_noticed():
    stream = FeatureStream("1m")
    with pytest.raises(DataError, match="timeframe is '1m', but no two of the first 101 bars lie closer"):
        pushed(stream, cut(SETS["random"], 0, 200))
    with pytest.raises(DataError, match="timeframe '1M' may mean months or minutes"):
        FeatureStream("1M")


def test_adjusted_prices_may_miss_one_another_by_the_last_digits():
    bar = ("2024-01-01", 100.0, 100.0 - 1e-8, 99.0, 100.0, 5.0)
    assert np.isfinite(FeatureStream("1d").push(bar)).any()
    assert np.isfinite(FeatureStream("1d").push(np.array(bar, dtype=object))).any()
    with pytest.raises(DataError, match="Prices must be known"):
        FeatureStream("1d").push(("2024-01-01", 100.0, 99.9, 99.0, 100.0, 5.0))


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "junk"])
def test_a_damaged_file_is_refused(tmp_path, damage):
    path = tmp_path / "s"
    stream = FeatureStream("1h")
    stream.push(BAR)
    if damage != "missing":
        stream.save(path)
        whole = path.read_bytes()
        path.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "junk": b"x" * 999}[damage])
    with pytest.raises(DataError, match="is no saved stream"):
        FeatureStream.load(path)


def test_a_file_of_another_shape_is_refused(tmp_path):
    stream = FeatureStream("1h")
    stream.push(BAR)
    stream.save(tmp_path / "s")
    with np.load(tmp_path / "s") as file:
        arrays = dict(file)
    np.savez(tmp_path / "t.npz", **{**arrays, "state": arrays["state"][:-1]})
    with pytest.raises(DataError, match="is no saved stream: state has the shape"):
        FeatureStream.load(tmp_path / "t.npz")


def test_a_folder_that_is_not_there_and_a_frame_for_bars_are_refused(tmp_path):
    with pytest.raises(DataError, match="nowhere is no folder"):
        FeatureStream("1h").save(tmp_path / "nowhere" / "s")
    with pytest.raises(DataError, match="a history is Bars, not a DataFrame"):
        FeatureStream.after(GOOG)


def test_a_pickle_is_refused_unread(tmp_path):
    np.save(tmp_path / "s.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="is no saved stream"):
        FeatureStream.load(tmp_path / "s.npy")


def test_a_stream_of_other_features_is_refused(tmp_path):
    user_feature("body", warmup=0, definition="C - O")(lambda bars: bars.Close - bars.Open)
    stream = FeatureStream("1h")
    stream.push(BAR)
    stream.save(tmp_path / "s")
    remove_user_feature("body")
    with pytest.raises(FeatureMismatch, match="with unknown user_body"):
        FeatureStream.load(tmp_path / "s")
    with pytest.raises(FeatureMismatch, match="the stream began with unknown user_body"):
        stream.push(("2024-01-01 01:00", *BAR[1:]))


def test_features_of_the_user_stream_too():
    @user_feature("gap_mean_900", warmup=900, definition="mean of |O - previous C| / C over 900 bars")
    def gap_mean(bars):
        return ((bars.Open - bars.Close.shift()).abs() / bars.Close).rolling(900).mean()

    try:
        bars = cut(SETS["random"], 0, 1200)
        dense = MarketFeatures(bars).rows()
        streamed = pushed(FeatureStream.after(cut(bars, 0, 1000)), cut(bars, 1000, 1200))
        assert streamed.shape[1] == len(CATALOGUE)
        assert np.isfinite(streamed[:, -1]).all()
        np.testing.assert_allclose(streamed[:, -1], dense[1000:, -1], rtol=1e-9)
    finally:
        remove_user_feature("gap_mean_900")
