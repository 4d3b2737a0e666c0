"""The calendar against the datetime module, and gaps between bars against the plain median."""

from __future__ import annotations

import calendar
import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from qml_plugin.clock import from_datetime, to_datetime
from qml_plugin.features import CATALOGUE, compute_features, temp
from qml_plugin.features.catalogue import N_BUILT_IN

from .data import HOUR, START, make_bars

DAY = 24 * HOUR
NAMES = CATALOGUE.names[temp.PLACE]


def fill(stamps, bar_us=HOUR, rows=None, age=0):
    """Columns of the category by name."""
    stamps = np.asarray(stamps, dtype=np.int64)
    rows = np.arange(len(stamps)) if rows is None else np.asarray(rows)
    out = np.zeros((len(rows), N_BUILT_IN))
    temp.fill(stamps, bar_us, rows, age, out)
    return dict(zip(NAMES, out[:, temp.PLACE].T, strict=True))


def test_any_stamp_of_three_centuries_is_dated_like_datetime():
    first, last = from_datetime(datetime(1890, 1, 1)), from_datetime(datetime(2201, 1, 1))
    stamps = np.sort(np.random.default_rng(0).integers(first, last, 20_000))
    columns = fill(stamps)
    moments = [to_datetime(int(at)) for at in stamps]
    month = np.array([m.month - 1 for m in moments]) / 12
    weekday = np.array([m.weekday() for m in moments])
    clock_time = np.array(
        [(m - m.replace(hour=0, minute=0, second=0, microsecond=0)) / timedelta(days=1) for m in moments]
    )
    for name, share in (("month", month), ("dow", weekday / 7), ("hour", clock_time)):
        np.testing.assert_allclose(columns[f"temp_{name}_sin"], np.sin(math.tau * share), atol=1e-12)
        np.testing.assert_allclose(columns[f"temp_{name}_cos"], np.cos(math.tau * share), atol=1e-12)
    dom = [(m.day - 1) / calendar.monthrange(m.year, m.month)[1] for m in moments]
    np.testing.assert_array_equal(columns["temp_dom_frac"], dom)
    np.testing.assert_array_equal(columns["temp_is_weekend"], weekday >= 5)


@pytest.mark.parametrize("year", [1900, 1999, 2000, 2024, 2100])
def test_every_day_of_common_and_leap_years(year):
    days = [datetime(year, 1, 1) + timedelta(days=k) for k in range(365 + calendar.isleap(year))]
    columns = fill([from_datetime(day) for day in days], DAY)
    for k, day in enumerate(days):
        angle = math.atan2(columns["temp_month_sin"][k], columns["temp_month_cos"][k]) % math.tau
        assert round(angle * 12 / math.tau) % 12 == day.month - 1
        assert columns["temp_dom_frac"][k] == (day.day - 1) / calendar.monthrange(year, day.month)[1]


def test_sessions_begin_and_end_on_the_minute():
    moments = [datetime(2024, 3, 1, tzinfo=UTC) + timedelta(minutes=k) for k in range(1440)]
    columns = fill([from_datetime(moment) for moment in moments], HOUR // 60)
    hours = np.array([moment.hour for moment in moments])
    sessions = {"asia": (0, 8), "europe": (7, 16), "us": (13, 22), "overlap": (13, 16)}
    for name, (opens, closes) in sessions.items():
        np.testing.assert_array_equal(columns[f"temp_is_{name}"], (opens <= hours) & (hours < closes))


@pytest.mark.parametrize(
    ("bar_us", "known"),
    [
        (0, ""),
        (HOUR, "hour is dow dom month"),
        (DAY - 1, "hour is dow dom month"),
        (DAY, "dow dom month"),
        (7 * DAY, "month"),
        (30 * DAY, "month"),
        (90 * DAY, ""),
    ],
)
def test_what_the_length_of_a_bar_hides(bar_us, known):
    columns = fill(START + np.arange(120) * 5 * HOUR, bar_us)
    for name in (f.name for f in CATALOGUE if f.category == "temp"):
        is_known = name.split("_")[1] in known.split()
        if CATALOGUE[name].needs != "bars":
            assert np.isnan(columns[name]).all(), name
        elif name == "temp_gap_ratio":
            assert columns[name][100:].tolist() == [1.0] * 20
        else:
            assert (np.isfinite(columns[name]) == is_known).all(), name


GAPS = {
    "one gap": [1] * 400,
    "weekends": ([1] * 23 + [49]) * 20,
    "just over half": ([1] * 51 + [2] * 49) * 4,
    "half and half": ([1, 3] * 50) * 4,
    "half, and the rest on both sides": ([2] * 50 + [1] * 25 + [5] * 25) * 4,
    "a majority that changes": [1] * 200 + [2] * 200,
    "any": np.random.default_rng(1).integers(1, 10**9, 400),
    "few": np.random.default_rng(2).integers(1, 4, 400),
}


@pytest.mark.parametrize("gaps", GAPS.values(), ids=GAPS)
def test_the_gap_is_compared_with_the_median_of_a_hundred(gaps):
    stamps = START + np.cumsum(np.asarray(gaps, dtype=np.int64))
    ratio = fill(stamps)["temp_gap_ratio"]
    assert np.isnan(ratio[:100]).all()
    steps = np.diff(stamps).astype(float)
    expected = [steps[t - 1] / np.median(steps[t - 100 : t]) for t in range(100, len(stamps))]
    np.testing.assert_array_equal(ratio[100:], expected)


def test_bars_that_are_gone_count_as_seen():
    stamps = START + np.cumsum(np.random.default_rng(3).integers(1, 9, 300)) * HOUR
    whole, late = fill(stamps), fill(stamps[150:], rows=[149, 100], age=150)
    for name in NAMES:
        np.testing.assert_array_equal(late[name], whole[name][[299, 250]])
    assert np.isnan(fill(stamps[150:], age=0)["temp_gap_ratio"][:100]).all()


def test_the_clock_is_utc_whatever_the_zone_of_the_frame():
    bars = make_bars(200)
    table = compute_features(bars)
    assert str(table.index.tz) == "UTC"
    local = bars_in_new_york(bars)
    np.testing.assert_array_equal(compute_features(local)[list(NAMES)], table[list(NAMES)])


def bars_in_new_york(bars):
    index = pd.DatetimeIndex(bars.opened_at.view("M8[us]"), tz="UTC").tz_convert("America/New_York")
    columns = {name.capitalize(): getattr(bars, name) for name in ("open", "high", "low", "close", "volume")}
    return pd.DataFrame(columns, index=index)
