import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from qml_plugin.errors import RetrievalError
from qml_plugin.retrieval import Scaler


def naive_transform(past, groups, rows):
    """Column by column, with numpy's own quantiles."""
    out = np.zeros(rows.shape)
    kept = [column[np.isfinite(column)].astype(float) for column in past.T]
    usable = [len(values) > 0 and values.min() < values.max() for values in kept]
    for column, values in enumerate(kept):
        if not usable[column]:
            continue
        q1, centre, q3 = np.quantile(values, [0.25, 0.5, 0.75])
        scale = (q3 - q1) / 1.349 or values.std()
        size = sum(is_usable for is_usable, group in zip(usable, groups, strict=True) if group == groups[column])
        for row, value in enumerate(rows[:, column].astype(float)):
            if not np.isnan(value):
                out[row, column] = np.clip((value - centre) / scale, -4, 4) / np.sqrt(size)
    return out


cells = st.one_of(st.floats(-100, 100, width=32), st.sampled_from([np.nan, np.inf, 0.0, 1.0]))


@settings(max_examples=60, deadline=None)
@given(
    past=npst.arrays(np.float32, st.tuples(st.integers(1, 12), st.just(4)), elements=cells),
    rows=npst.arrays(np.float32, (3, 4), elements=cells),
)
def test_equals_the_columnwise_twin(past, rows):
    groups = ["trend", "trend", "trend", "volume"]
    scaled = Scaler.fit(past, groups).transform(rows)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, naive_transform(past, groups, rows), rtol=1e-4, atol=1e-5)


def test_fallbacks():
    rng = np.random.default_rng(0)
    past = np.zeros((20, 4), np.float32)
    past[:, 0] = rng.normal(size=20)
    past[:3, 1] = 5.0  # no interquartile range
    past[:, 2] = 7.0  # constant
    past[:, 3] = np.nan
    scaler = Scaler.fit(past, ["a", "a", "a", "b"])
    np.testing.assert_allclose(scaler.weight, [2**-0.5, 2**-0.5, 0, 0])
    assert scaler.scale[1] == pytest.approx(past[:, 1].std())
    scaled = scaler.transform(np.array([[np.nan, 1e30, 99.0, 1.0], [-np.inf, 0, 7, np.nan]], np.float32))
    np.testing.assert_allclose(scaled, [[0, 4 * 2**-0.5, 0, 0], [-4 * 2**-0.5, 0, 0, 0]], rtol=1e-6)


def test_the_id_names_the_parameters():
    past = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    scaler = Scaler.fit(past, ["a", "a", "b"])
    assert len(scaler.scaler_id) == 64
    assert scaler.scaler_id == Scaler.fit(past.copy(), ["a", "a", "b"]).scaler_id
    assert scaler.scaler_id != Scaler.fit(past, ["a", "b", "b"]).scaler_id
    assert scaler.scaler_id != Scaler.fit(past[:-1], ["a", "a", "b"]).scaler_id


def test_a_row_is_scaled_by_itself():
    rng = np.random.default_rng(1)
    past = rng.normal(size=(50, 20)).astype(np.float32)
    scaler = Scaler.fit(past, ["a"] * 20)
    rows = rng.normal(size=(30, 20)).astype(np.float32)
    together = scaler.transform(rows)
    changed = rows.copy()
    changed[11:] = 100.0
    np.testing.assert_array_equal(scaler.transform(changed)[:11], together[:11])
    np.testing.assert_array_equal(scaler.transform(rows[10:11])[0], together[10])


def test_refuses_nothing_to_fit():
    with pytest.raises(RetrievalError, match=r"shape \(0, 3\) with 3 groups"):
        Scaler.fit(np.empty((0, 3), np.float32), ["a"] * 3)


def test_refuses_a_missing_group():
    with pytest.raises(RetrievalError, match=r"shape \(2, 3\) with 2 groups"):
        Scaler.fit(np.zeros((2, 3), np.float32), ["a"] * 2)


def test_refuses_another_width():
    scaler = Scaler.fit(np.zeros((2, 3), np.float32), ["a"] * 3)
    with pytest.raises(RetrievalError, match=r"shape \(1, 4\) do not fit a scaler of 3"):
        scaler.transform(np.zeros((1, 4), np.float32))
