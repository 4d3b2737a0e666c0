from __future__ import annotations

import numpy as np
import pytest

from qml_plugin.errors import DataError
from qml_plugin.stats.distribution import QUANTILES, distribution


def test_missing_values_are_counted_before_and_after_the_warmup():
    values = np.arange(100.0)
    values[:20], values[[50, 60]], values[70] = np.nan, np.nan, np.inf
    found = distribution(values, warmup=25)
    assert (found.n, found.n_early, found.n_missing) == (100, 20, 3)
    assert found.missing_frac == pytest.approx(0.23)
    finite = values[np.isfinite(values)]
    assert found.quantiles == pytest.approx(np.quantile(finite, QUANTILES))


def test_every_finite_value_is_in_a_bin_and_outliers_are_in_the_outer_ones():
    values = np.append(np.random.default_rng(0).normal(size=5000), [1e9, -1e9, np.nan])
    found = distribution(values)
    assert not found.is_discrete
    assert len(found.edges) == len(found.counts) + 1 == 17
    assert found.counts.sum() == 5002
    assert abs(found.edges).max() < 5.0
    assert found.counts[-1] == (values >= found.edges[-2]).sum()


def test_few_distinct_values_have_a_bin_each():
    found = distribution(np.array([1.0, 0.0, 1.0, np.nan, -1.0, 1.0]))
    assert found.is_discrete
    assert found.edges.tolist() == [-1.0, 0.0, 1.0]
    assert found.counts.tolist() == [1, 1, 3]


def test_nearly_all_the_same_still_gives_a_width():
    found = distribution(np.append(np.zeros(100_000), np.arange(1.0, 20.0)))
    assert (found.edges[0], found.edges[-1], found.counts.sum()) == (0.0, 19.0, 100_019)


def test_no_finite_value_is_no_quantile():
    found = distribution(np.full(9, np.nan), warmup=4)
    assert (found.quantiles, found.n_early, found.n_missing, len(found.counts)) == ((), 4, 5, 0)
    with pytest.raises(DataError, match="no values to describe"):
        distribution(np.empty(0))
