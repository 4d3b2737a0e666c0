import numpy as np
import pandas as pd
import pytest

from qml_plugin.bars import COLUMNS, bars_from_frame, read_bars
from qml_plugin.errors import DataError
from tests.conftest import random_walk


@pytest.fixture
def frame():
    return random_walk(20, seed=1)


@pytest.mark.parametrize(
    "rename", [str.lower, str.upper, lambda name: name[0].lower(), str.title, lambda name: f" {name} "]
)
def test_any_usual_column_case(frame, rename):
    read = read_bars(frame.rename(columns=rename))
    assert tuple(read.columns) == COLUMNS
    assert np.array_equal(read.to_numpy(), frame.to_numpy())


def test_bundled_data_are_accepted(goog, eurusd):
    assert bars_from_frame(goog, symbol="GOOG").timeframe == "1d"
    assert bars_from_frame(eurusd, symbol="EURUSD").timeframe == "1h"


def test_files_read_like_frames(frame, tmp_path):
    frame.rename_axis("Date").to_csv(tmp_path / "bars.csv")
    frame.to_csv(tmp_path / "unnamed.csv")
    frame.to_parquet(tmp_path / "bars.parquet")
    expected = read_bars(frame)
    for name in ("bars.csv", "unnamed.csv", "bars.parquet"):
        pd.testing.assert_frame_equal(read_bars(tmp_path / name), expected, check_freq=False, check_names=False)


def test_naive_times_are_utc_unless_told_and_aware_times_are_converted(frame):
    naive = read_bars(frame)
    assert str(naive.index.tz) == "UTC"
    assert naive.index[0] == pd.Timestamp("2020-01-01", tz="UTC")
    local = read_bars(frame, tz="America/New_York")
    assert local.index[0] == pd.Timestamp("2020-01-01 05:00", tz="UTC")
    aware = read_bars(frame.tz_localize("America/New_York"))
    assert aware.index.equals(local.index)


def test_exact_names_win_over_other_columns_that_could_mean_the_same(frame):
    crowded = frame.assign(vol=1.0, close=2.0, C=3.0, L=4.0)
    pd.testing.assert_frame_equal(read_bars(crowded), read_bars(frame))


def test_two_equally_good_columns_are_refused(frame):
    with pytest.raises(DataError, match=r"columns 'CLOSE' and 'close' may both be Close"):
        read_bars(frame.rename(columns={"Close": "CLOSE"}).assign(close=1.0))


def test_missing_volume_is_nan_not_zero(frame):
    assert read_bars(frame.drop(columns="Volume"))["Volume"].isna().all()


def test_the_source_is_left_alone(frame):
    before = frame.copy()
    copy = read_bars(frame)
    copy.iloc[:, :] = 0
    pd.testing.assert_frame_equal(frame, before)


def break_row(frame, column, value, row=7):
    broken = frame.astype(object) if isinstance(value, str) else frame.copy()
    broken.iloc[row, broken.columns.get_loc(column)] = value
    return broken


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.iloc[[0, 2, 1, *range(3, 20)]], r"bar index goes backwards: 2020-01-01 01:00.* after 2020-01-01 02:00.* at row 2"),
        (lambda f: f.iloc[[0, 1, 1, *range(2, 20)]], r"duplicate time at row 2 \(2020-01-01 01:00"),
        (lambda f: break_row(f, "Close", np.nan), r"Close is nan at row 7 \(2020-01-01 07:00"),
        (lambda f: break_row(f, "Open", -1.0), "Open is -1 at row 7"),
        (lambda f: break_row(f, "Low", 0.0), "Low is 0 at row 7"),
        (lambda f: break_row(f, "High", np.inf), "High is inf at row 7"),
        (lambda f: break_row(f, "Volume", -3.0), "Volume is -3 at row 7"),
        (lambda f: break_row(f, "High", f["Low"].iloc[7]), "High .* is below (Open|Close) .* at row 7"),
        (lambda f: break_row(f, "Low", f["High"].iloc[7] + 1), "Low .* is above (Open|Close) .* at row 7"),
        (lambda f: break_row(f, "Close", "n/a"), r"Close is 'n/a' at row 7"),
        (lambda f: f.iloc[:0], "bars are empty"),
        (lambda f: f.iloc[:1], "1 bars are too few; at least 2"),
        (lambda f: f.drop(columns="High"), "bars have no column High"),
        (lambda f: f.reset_index(drop=True), "bars have no times: the index is RangeIndex"),
        (lambda f: f.reset_index(names="time").assign(time=range(20)), "column time holds numbers such as 0"),
        (lambda f: f.reset_index(names="time").assign(time="soon"), "column time cannot be read as times"),
        (lambda f: f.set_axis([*f.index[:7], pd.NaT, *f.index[8:]]), "the time is missing at row 7"),
        (lambda f: pd.concat([f, f[["Close"]]], axis=1), "2 columns called Close"),
    ],
)  # fmt: skip
def test_bad_bars_are_refused_with_the_first_bad_row(frame, spoil, message):
    with pytest.raises(DataError, match=message):
        read_bars(spoil(frame))


def test_the_first_of_two_bad_rows_is_named(frame):
    with pytest.raises(DataError, match="at row 3"):
        read_bars(break_row(break_row(frame, "Close", np.nan, 9), "Open", np.nan, 3))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("bars.xlsx", "", "neither .csv nor .parquet"), ("bars.parquet", "junk", "cannot be read")],
)
def test_unreadable_files(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_bars(path)


def test_local_times_with_changing_offsets_are_read_from_a_file(frame, tmp_path):
    local = frame.set_axis(pd.date_range("2024-03-09 12:00", periods=20, freq="h", tz="America/New_York"))
    local.to_csv(tmp_path / "bars.csv")
    assert read_bars(tmp_path / "bars.csv").index.equals(local.index.tz_convert("UTC"))


@pytest.mark.parametrize("source", [None, [1, 2], 7])
def test_what_is_no_table_is_refused(source):
    with pytest.raises(DataError, match="bars cannot be read from a"):
        read_bars(source)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nothing.csv cannot be read"):
        read_bars(tmp_path / "nothing.csv")


def test_the_hash_names_the_data(frame):
    bars = bars_from_frame(frame, symbol="X")
    assert bars.sha256() == bars_from_frame(frame.copy(), symbol="X").sha256()
    assert bars.sha256() != bars_from_frame(break_row(frame, "Volume", 5.0), symbol="X").sha256()
    assert len(bars.sha256()) == 64


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Mars/Olympus"])
def test_times_that_are_none_in_their_zone_are_refused(zone):
    frame = random_walk(2, seed=1).set_axis(pd.DatetimeIndex(["2024-03-31 01:00", "2024-03-31 02:30"]), axis=0)
    with pytest.raises(DataError, match=f"the times are not times of tz='{zone}'"):
        read_bars(frame, tz=zone)
