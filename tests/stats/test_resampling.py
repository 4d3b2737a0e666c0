import numpy as np
import pytest
from scipy.stats import norm

from qml_plugin.errors import DataError
from qml_plugin.stats.resampling import bootstrap_lower_bound


def naive_bound(values, level, n_resamples, seed, length):
    """The same draws, each resample written out value by value."""
    n_values = len(values)
    n_blocks = -(-n_values // length)
    starts = np.random.default_rng(seed).integers(n_values, size=(n_resamples, n_blocks))
    sums = []
    for row in starts:
        drawn = [values[(start + step) % n_values] for start in row for step in range(length)]
        sums.append(sum(drawn[:n_values]))
    return np.quantile(sums, level)


@pytest.mark.parametrize(("n_values", "length"), [(1, 1), (10, 3), (12, 3), (30, None), (7, 100)])
def test_equals_resamples_written_out(n_values, length):
    values = np.random.default_rng(1).normal(size=n_values)
    slow_length = round(n_values ** (1 / 3)) if length is None else min(length, n_values)
    expected = naive_bound(values, 0.1, 200, 5, slow_length)
    assert bootstrap_lower_bound(values, 0.1, 200, seed=5, block_length=length) == pytest.approx(expected)


def test_independent_values_have_the_normal_bound():
    values = np.random.default_rng(0).normal(0.1, 1, 2000)
    bound = bootstrap_lower_bound(values, 0.10, 4000, seed=1, block_length=1)
    expected = values.sum() + norm.ppf(0.10) * values.std() * np.sqrt(2000)
    assert bound == pytest.approx(expected, abs=0.08 * values.std() * np.sqrt(2000))


def test_blocks_widen_the_bound_of_dependent_values():
    rng = np.random.default_rng(2)
    values = np.repeat(rng.normal(size=100), 10)
    assert bootstrap_lower_bound(values, seed=1) < bootstrap_lower_bound(values, seed=1, block_length=1)


def test_same_seed_same_bound_and_constants_are_certain():
    values = np.random.default_rng(3).normal(size=50)
    assert bootstrap_lower_bound(values, seed=9) == bootstrap_lower_bound(values, seed=9)
    assert bootstrap_lower_bound(values, seed=9) != bootstrap_lower_bound(values, seed=10)
    assert bootstrap_lower_bound(np.full(20, 2.0), seed=1) == pytest.approx(40.0)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([], {}, "asked of 0 values"),
        ([1.0, np.nan], {}, "2 values, 1 of them not finite"),
        ([1.0], {"level": 1.0}, "level 1.0"),
        ([1.0], {"n_resamples": 0}, "n_resamples 0"),
        ([1.0], {"block_length": 0}, "block_length 0"),
    ],
)
def test_refuses(values, options, message):
    with pytest.raises(DataError, match=message):
        bootstrap_lower_bound(np.array(values), seed=1, **options)
