"""Promises that every market feature keeps: causal, forgetful, free of units, never infinite."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from backtesting.test import EURUSD, GOOG
from hypothesis import given, settings
from hypothesis import strategies as st

from qml_plugin.bars import bars_from_frame
from qml_plugin.errors import DataError
from qml_plugin.features import CATALOGUE, MarketFeatures, compute_features

from .data import HOUR, cut, flat_bars, make_bars, scaled

WARMUP = np.array([f.warmup for f in CATALOGUE])
IS_MARKET = np.array([f.needs == "bars" for f in CATALOGUE])
BARS = make_bars(4000, 1)
TICKS = make_bars(4000, 2, tick=0.05)
COLUMNS = ("open", "high", "low", "close", "volume")


def matrix_of(bars, rows=None):
    return MarketFeatures(bars).rows(rows)


MATRIX = matrix_of(BARS)


def assert_same_to_scale(actual, expected, rel=1e-9):
    """Equal to `rel` of each column's spread, and NaN in the same places."""
    differ = np.isnan(actual) != np.isnan(expected)
    assert not differ.any(), [CATALOGUE.names[i] for i in np.flatnonzero(differ.any(axis=0))]
    scale = np.max(np.where(np.isnan(expected), 0.0, abs(expected)), axis=0, initial=1e-3)
    worst = np.max(np.nan_to_num(abs(actual - expected)), axis=0, initial=0.0)
    assert not [(CATALOGUE.names[i], worst[i] / scale[i]) for i in np.flatnonzero(worst > rel * scale)]


def without_the_first(bars, dropped):
    """What the whole series gives for the bars left, NaN where they alone are still warming up."""
    full = matrix_of(bars)[dropped:].copy()
    full[np.arange(len(full))[:, None] < WARMUP] = np.nan
    return full


@pytest.mark.parametrize("bars", [BARS, TICKS], ids=["real", "ticks"])
def test_the_future_changes_nothing(bars):
    full = matrix_of(bars)
    rng = np.random.default_rng(4)
    for n in [1, 2, 7, 513, *rng.integers(8, 4000, 8).tolist()]:
        np.testing.assert_array_equal(matrix_of(cut(bars, 0, n)), full[:n])
    other = scaled(make_bars(4000, 99), 3.0, 0.01)
    for n in rng.integers(300, 3900, 4):
        mixed = {name: np.append(getattr(bars, name)[:n], getattr(other, name)[n:]) for name in COLUMNS}
        np.testing.assert_array_equal(matrix_of(dataclasses.replace(bars, **mixed))[:n], full[:n])


@pytest.mark.parametrize("bars", [BARS, TICKS], ids=["real", "ticks"])
@pytest.mark.parametrize("dropped", [1, 37, 500, 1201])
def test_the_start_is_forgotten_after_the_warmup(bars, dropped):
    assert_same_to_scale(matrix_of(cut(bars, dropped, len(bars))), without_the_first(bars, dropped))


@pytest.mark.parametrize("bars", [BARS, TICKS], ids=["real", "ticks"])
@pytest.mark.parametrize(("price", "volume"), [(1000.0, 1.0), (1e-3, 1.0), (1.0, 1000.0), (7.0, 0.3)])
def test_units_do_not_matter(bars, price, volume):
    assert_same_to_scale(matrix_of(scaled(bars, price, volume)), matrix_of(bars))


def still_bars(seed):
    """Coarse ticks, no volume in many bars, and stretches without any movement."""
    rng = np.random.default_rng(seed)
    bars = make_bars(4500, seed, tick=0.5)
    prices = {name: getattr(bars, name).copy() for name in COLUMNS[:4]}
    for begin in rng.integers(100, 4000, 5):
        for values in prices.values():
            values[begin : begin + 250] = bars.close[begin]
    return dataclasses.replace(bars, **prices, volume=np.where(rng.random(4500) < 0.5, 0.0, bars.volume))


@pytest.mark.parametrize("seed", [3, 18, 48])
def test_stretches_without_movement_keep_the_promises(seed):
    bars = still_bars(seed)
    full = matrix_of(bars)
    assert not np.isinf(full).any()
    assert_same_to_scale(matrix_of(scaled(bars, 1 / 3, 1000.0)), full)
    for dropped in (1, 300):
        assert_same_to_scale(matrix_of(cut(bars, dropped, len(bars))), without_the_first(bars, dropped))


def test_warmup_is_nan_and_then_there_is_a_value():
    early = np.arange(len(BARS))[:, None] < WARMUP
    assert np.isnan(MATRIX[early]).all()
    assert np.isfinite(MATRIX[:, IS_MARKET][~early[:, IS_MARKET]]).all()
    assert np.isnan(MATRIX[:, ~IS_MARKET]).all()


def test_flat_prices_give_nan_or_the_declared_limit():
    matrix = matrix_of(flat_bars(3000))
    for i, feature in enumerate(CATALOGUE):
        values = matrix[WARMUP[i] :, i]
        if feature.category not in ("temp", "vol_relative"):
            assert np.isnan(values).all() or len(np.unique(values)) == 1, feature.name
            assert not np.isinf(values).any(), feature.name
            is_limit = "0 on flat" in feature.definition or "0 if flat" in feature.definition
            if is_limit:
                np.testing.assert_array_equal(values, 0.0, err_msg=feature.name)
            elif "flat" in feature.definition:
                assert np.isnan(values).all(), feature.name


def test_without_trades_volume_features_are_nan_except_the_rank_of_equals():
    matrix = matrix_of(dataclasses.replace(BARS, volume=np.zeros(len(BARS))))
    for i, feature in enumerate(CATALOGUE):
        if feature.name == "vol_relative_pctile_100":
            np.testing.assert_array_equal(matrix[feature.warmup :, i], 0.5)
        elif feature.category == "vol_relative":
            assert np.isnan(matrix[:, i]).all(), feature.name
        else:
            np.testing.assert_array_equal(matrix[:, i], MATRIX[:, i])


def test_missing_volume_leaves_the_rest_alone():
    matrix = matrix_of(dataclasses.replace(BARS, volume=np.full(len(BARS), np.nan)))
    is_volume = np.array([f.category == "vol_relative" for f in CATALOGUE])
    assert np.isnan(matrix[:, is_volume]).all()
    np.testing.assert_array_equal(matrix[:, ~is_volume], MATRIX[:, ~is_volume])


def test_one_missing_volume_is_forgotten():
    volume = BARS.volume.copy()
    volume[800] = np.nan
    matrix = matrix_of(dataclasses.replace(BARS, volume=volume))
    is_recursive = np.array(["pvo" in name for name in CATALOGUE.names])
    np.testing.assert_array_equal(matrix[921:, ~is_recursive], MATRIX[921:, ~is_recursive])
    assert_same_to_scale(matrix[1300:], MATRIX[1300:])
    pvo = [CATALOGUE.place(f"vol_relative_pvo_{part}") for part in ("line", "hist")]
    assert np.isnan(matrix[800:1264, pvo]).all()
    place = CATALOGUE.place("vol_relative_20")
    assert np.isnan(matrix[800:820, place]).all()
    assert np.isfinite(matrix[820, place])


def test_gaps_in_time_touch_only_what_reads_the_clock():
    opened = BARS.opened_at.copy()
    opened[3000:] += 60 * HOUR
    matrix = matrix_of(dataclasses.replace(BARS, opened_at=opened, known_at=opened + HOUR))
    reads_clock = np.array([f.category == "temp" or "_htf_" in f.name for f in CATALOGUE])
    np.testing.assert_array_equal(matrix[:, ~reads_clock], MATRIX[:, ~reads_clock])
    place = CATALOGUE.place("temp_gap_ratio")
    assert matrix[3000:3002, place].tolist() == [61.0, 1.0]


@st.composite
def random_bars(draw):
    n = draw(st.integers(1, 130))
    ticks = st.integers(0, 4)
    shape = draw(st.lists(st.tuples(ticks, ticks, ticks, ticks, st.integers(0, 3)), min_size=n, max_size=n))
    open_, a, b, close, volume = np.tile(np.array(shape, dtype=float).T, 8)
    prices = np.stack([open_, a, b, close])
    at = BARS.opened_at[0] + np.arange(8 * n) * HOUR
    return dataclasses.replace(
        make_bars(8 * n), opened_at=at, known_at=at + HOUR,
        open=0.1 * open_ + 1, close=0.1 * close + 1, volume=volume,
        high=0.1 * prices.max(axis=0) + 1, low=0.1 * prices.min(axis=0) + 1,
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(random_bars(), st.data())
def test_any_bars_give_causal_finite_values_or_nan(bars, data):
    matrix = matrix_of(bars)
    assert not np.isinf(matrix).any()
    n = data.draw(st.integers(1, len(bars)))
    np.testing.assert_array_equal(matrix_of(cut(bars, 0, n)), matrix[:n])
    assert_same_to_scale(matrix_of(scaled(bars, 1000.0, 1000.0)), matrix)


def test_some_rows_are_the_rows_of_all():
    rows = [3999, 0, 17, 17, 2600]
    np.testing.assert_array_equal(matrix_of(BARS, rows), MATRIX[rows])
    assert matrix_of(BARS, []).shape == (0, len(CATALOGUE))


def test_a_frame_and_its_bars_give_the_same_table():
    frame = GOOG.iloc[:900]
    table = compute_features(frame)
    assert tuple(table.columns) == CATALOGUE.names
    assert set(table.dtypes) == {np.dtype(np.float64)}
    assert table.index.equals(frame.index)
    np.testing.assert_array_equal(table.to_numpy(), matrix_of(bars_from_frame(frame, symbol="GOOG")))
    pd.testing.assert_frame_equal(compute_features(frame, rows=[800, 5]), table.iloc[[800, 5]])
    by_bars = compute_features(bars_from_frame(frame, symbol="GOOG"))
    assert str(by_bars.index.tz) == "UTC"
    assert by_bars.index[0] == frame.index[0].tz_localize("UTC")


def test_rows_may_be_a_mask_or_one_number():
    mask = np.arange(len(BARS)) % 1000 == 7
    np.testing.assert_array_equal(matrix_of(BARS, mask), MATRIX[mask])
    np.testing.assert_array_equal(matrix_of(BARS, 700), MATRIX[[700]])
    table = compute_features(GOOG, rows=GOOG.index.get_indexer(GOOG.index[5:7]))
    assert table.index.equals(GOOG.index[5:7])


@pytest.mark.parametrize("rows", [[1.9], ["a"], [[1, 2]], slice(1, 5), [True, False], GOOG.index[5:7]])
def test_what_is_no_position_is_refused(rows):
    with pytest.raises(DataError, match=r"are no positions. Give whole numbers"):
        compute_features(GOOG, rows=rows)


def test_the_timeframe_may_be_given():
    frame = EURUSD.iloc[:400]
    assert compute_features(frame, timeframe="1h").equals(compute_features(frame))
    closes = frame.set_axis(frame.index + pd.Timedelta("1h"), axis=0)
    labelled = compute_features(closes, timeframe="1h", bar_label="close")
    np.testing.assert_array_equal(labelled["regime_htf_align_4"], compute_features(frame)["regime_htf_align_4"])


@pytest.mark.parametrize("row", [-1, 900])
def test_a_row_outside_the_bars_is_refused(row):
    with pytest.raises(DataError, match=f"row {row} lies outside the 900 bars"):
        compute_features(GOOG.iloc[:900], rows=[3, row])


@pytest.mark.parametrize("frame", [GOOG, EURUSD], ids=["GOOG", "EURUSD"])
def test_real_bars_have_at_least_150_values_without_a_setup(frame):
    matrix = compute_features(frame).to_numpy()
    assert not np.isinf(matrix).any()
    assert np.isfinite(matrix[1500:]).sum(axis=1).min() >= 150
