from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qml_plugin import clock
from qml_plugin.errors import DataError


@pytest.mark.parametrize(
    ("text", "seconds"), [("1s", 1), ("15m", 900), ("4H", 14400), ("2w", 1209600), ("5ms", 0.005), ("1mo", 2592000)]
)
def test_timeframes(text, seconds):
    assert clock.timeframe_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "0h", "1.5h", "1y", "-1h", None, 60])
def test_unknown_timeframes_are_refused(text):
    with pytest.raises(DataError, match=r"timeframe .* is not understood"):
        clock.parse_timeframe(text)


@pytest.mark.parametrize("freq", ["MS", "ME", "QS", "QE", "YS"])
def test_months_quarters_and_years_are_inferred_and_known_when_they_end(freq):
    index = pd.date_range("2019-01-01", periods=12, freq=freq)
    timeframe = clock.infer_timeframe(index)
    assert timeframe == {"M": "1mo", "Q": "3mo", "Y": "12mo"}[freq[0]]
    gap_days = (clock.to_micros(index[1:]) - clock.known_at(index, timeframe)[:-1]) / 86_400_000_000
    assert gap_days.min() >= 0
    assert gap_days.max() <= 3


def test_milliseconds():
    index = pd.date_range("2024-01-01", periods=5, freq="100ms")
    assert clock.infer_timeframe(index) == "100ms"
    assert clock.known_at(index, "100ms")[:-1].tolist() == clock.to_micros(index[1:]).tolist()


def test_an_open_stamp_is_known_one_timeframe_later():
    index = pd.date_range("2024-01-01", periods=3, freq="h")
    assert clock.known_at(index, "1h").tolist() == clock.to_micros(index + pd.Timedelta(hours=1)).tolist()
    assert clock.known_at(index, "1h", "close").tolist() == clock.to_micros(index).tolist()


def test_a_bar_before_a_gap_is_known_at_its_own_close():
    index = pd.DatetimeIndex(["2024-01-05", "2024-01-08"])
    assert clock.known_at(index, "1d")[0] == clock.to_micros(pd.DatetimeIndex(["2024-01-06"]))[0]


def test_local_days_stay_one_day_through_a_clock_change():
    index = pd.date_range("2024-03-29", periods=5, freq="D", tz="Europe/Berlin")
    assert clock.known_at(index, "1d")[:-1].tolist() == clock.to_micros(index[1:]).tolist()


def test_later_bars_never_change_when_a_bar_is_known():
    index = pd.date_range("2024-01-01", periods=50, freq="15min")
    assert np.array_equal(clock.known_at(index, "15m")[:20], clock.known_at(index[:20], "15m"))


def test_bars_closer_than_their_timeframe_are_refused():
    index = pd.DatetimeIndex(["2024-01-01 00:00", "2024-01-01 01:00", "2024-01-01 01:30"])
    with pytest.raises(
        DataError, match=r"bar 2 \(2024-01-01 01:30:00\) begins 0:30:00 after the bar before it, but timeframe is '1h'"
    ):
        clock.known_at(index, "1h")


@pytest.mark.parametrize(("freq", "timeframe"), [("4h", "15m"), ("D", "1h"), ("B", "4h")])
def test_a_timeframe_that_would_make_bars_known_too_early_is_refused(freq, timeframe):
    index = pd.date_range("2024-01-01", periods=30, freq=freq)
    with pytest.raises(DataError, match=r"A bar would count as known long before its close"):
        clock.known_at(index, timeframe)


def test_missing_minutes_are_no_reason_to_refuse():
    index = pd.date_range("2024-01-01", periods=300, freq="min")[np.random.default_rng(0).random(300) > 0.8]
    assert len(clock.known_at(index, "1m")) == len(index)


def test_unknown_bar_label():
    with pytest.raises(DataError, match="bar_label 'middle' is unknown"):
        clock.known_at(pd.date_range("2024", periods=2), "1d", "middle")


def test_inferred_timeframe_reads_the_beginning_only():
    index = pd.date_range("2024-01-01", periods=200, freq="4h")
    assert clock.infer_timeframe(index) == "4h"
    slower = index[:101].append(pd.date_range(index[101], periods=500, freq="D"))
    assert clock.infer_timeframe(slower) == "4h"
    assert clock.infer_timeframe(pd.bdate_range("2024-01-01", periods=50)) == "1d"


def test_one_bar_has_no_timeframe():
    with pytest.raises(DataError, match="one bar has no timeframe"):
        clock.infer_timeframe(pd.DatetimeIndex(["2024-01-01"]))


@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1)))
def test_datetimes_round_trip(moment):
    assert clock.to_datetime(clock.from_datetime(moment)) == moment


def test_aware_datetimes_are_converted():
    aware = datetime(2024, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    assert clock.from_datetime(aware) == clock.from_datetime(datetime(2024, 1, 1, 10, tzinfo=UTC))


def test_stamps_of_any_resolution_and_zone_become_utc_microseconds():
    for unit in ("s", "ms", "us", "ns"):
        index = pd.DatetimeIndex(["2024-01-01 12:00"]).as_unit(unit)
        assert clock.to_micros(index)[0] == 1_704_110_400_000_000
        assert clock.to_micros(index.tz_localize("Europe/Berlin"))[0] == 1_704_106_800_000_000
