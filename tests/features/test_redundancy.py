"""Clusters and effective numbers against pandas, eigenvalues and worlds made for the purpose."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from qml_plugin.errors import DataError
from qml_plugin.features import CATALOGUE, compute_features
from qml_plugin.features.redundancy import redundancy


def noise(n_rows, n_columns, seed=0):
    columns = [f"x{i}" for i in range(n_columns)]
    return pd.DataFrame(np.random.default_rng(seed).normal(size=(n_rows, n_columns)), columns=columns)


def slow_redundancy(features, threshold):
    """Clusters and participation ratio from pandas' correlations and numpy's eigenvalues, one pair at a time."""
    features = features.replace([np.inf, -np.inf], np.nan)
    correlation = features.corr(min_periods=30).fillna(0.0)
    kept = [name for name in features if features[name].nunique() > 1]
    clusters = {}
    for name in kept:
        strengths = {first: abs(correlation.loc[first, name]) for first in clusters}
        nearest = max(strengths, key=strengths.get, default=None)
        if nearest is not None and strengths[nearest] > threshold:
            clusters[nearest].append(name)
        else:
            clusters[name] = []
    matrix = correlation.loc[kept, kept].to_numpy(copy=True)
    np.fill_diagonal(matrix, 1.0)
    eigenvalues = np.linalg.eigvalsh(matrix)
    return clusters, eigenvalues.sum() ** 2 / (eigenvalues**2).sum(), correlation


def assert_is_the_slow_one(features, threshold):
    found = redundancy(features, threshold=threshold)
    clusters, n_effective, correlation = slow_redundancy(features, threshold)
    assert {one.representative: [name for name, _ in one.others] for one in found.clusters} == clusters
    assert found.n_effective == pytest.approx(n_effective, rel=1e-9)
    for one in found.clusters:
        for name, r in one.others:
            assert r == pytest.approx(correlation.loc[one.representative, name], abs=1e-12)


@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.95])
def test_mixed_columns_with_gaps(threshold):
    rng = np.random.default_rng(1)
    common = rng.normal(size=(20_000, 4))  # more than two blocks of rows
    features = pd.DataFrame(
        {
            f"x{i}": common[:, i % 4] * rng.choice([-1.0, 1.0]) * 10.0**i + rng.normal(size=20_000) * 10.0**i * i / 12
            for i in range(20)
        }
    )
    features = features.mask(rng.random(features.shape) < 0.2)
    features.iloc[:9000, 3] = np.nan
    features.iloc[5, 4] = np.inf
    assert_is_the_slow_one(features, threshold)


def test_the_features_of_real_bars(goog):
    features = compute_features(goog)[[f.name for f in CATALOGUE if f.needs == "bars"]]
    assert_is_the_slow_one(features, 0.95)
    found = redundancy(features)
    assert "temp_hour_sin" in found.never_finite, "daily bars have no hour"
    left_out = {*found.constant, *found.never_finite}
    assert found.n_features + len(left_out) == features.shape[1]
    kept = features[list(found.representatives)].corr(min_periods=30).abs().to_numpy(copy=True)
    np.fill_diagonal(kept, 0.0)
    assert np.nanmax(kept) <= 0.95


def test_the_effective_number_of_independent_columns_is_their_number():
    assert redundancy(noise(100_000, 8)).n_effective == pytest.approx(8.0, rel=1e-2)


def test_copies_are_one_whatever_their_sign_and_scale():
    x = noise(500, 1)["x0"]
    found = redundancy(pd.DataFrame({"a": x, "b": -3.0 * x, "c": x * 1e-9 + 1e3}))
    assert found.n_effective == pytest.approx(1.0)
    assert [one.representative for one in found.clusters] == ["a"]
    assert dict(found.clusters[0].others) == {"b": pytest.approx(-1.0), "c": pytest.approx(1.0)}
    many = pd.DataFrame({f"x{i}": x * (i + 0.1) for i in range(60)})
    assert max(r for _, r in redundancy(many).clusters[0].others) <= 1.0


def test_a_chain_is_not_one_cluster():
    """Each link correlates with the next by more than the threshold, the ends do not."""
    x = noise(5000, 3, 2).to_numpy()
    angles = np.deg2rad([0.0, 25.0, 50.0])
    chain = pd.DataFrame(
        {name: np.cos(a) * x[:, 0] + np.sin(a) * x[:, 1] for name, a in zip("abc", angles, strict=True)}
    )
    found = redundancy(chain, threshold=0.85)
    assert found.representatives == ("a", "c")
    assert [name for name, _ in found.clusters[0].others] == ["b"]


def test_what_cannot_vary_is_left_out_and_named():
    features = noise(100, 2)
    features["still"] = 7.0
    features["empty"] = np.nan
    features["infinite"] = np.inf
    features["flag"] = (features.index > 50).astype(float)
    found = redundancy(features)
    assert (found.constant, found.never_finite) == (("still",), ("empty", "infinite"))
    assert found.representatives == ("x0", "x1", "flag")
    assert (found.n_rows, found.n_features) == (100, 3)


def test_nothing_left_is_no_number():
    found = redundancy(pd.DataFrame({"still": np.ones(40)}))
    assert found.clusters == ()
    assert np.isnan(found.n_effective)


def test_too_few_common_rows_are_no_correlation():
    x = noise(80, 1)["x0"]
    features = pd.DataFrame({"a": x.mask(x.index >= 54), "b": x.mask(x.index < 25)})
    assert redundancy(features).representatives == ("a", "b")
    features = pd.DataFrame({"a": x.mask(x.index >= 55), "b": x.mask(x.index < 25)})
    assert redundancy(features).representatives == ("a",)


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.5, 95, float("nan")])
def test_a_threshold_outside_is_refused(threshold):
    with pytest.raises(DataError, match=f"threshold is {threshold}. Choose an absolute correlation between 0 and 1"):
        redundancy(noise(100, 2), threshold=threshold)


def test_what_is_no_table_of_features_is_refused():
    with pytest.raises(DataError, match="29 rows are too few for correlations; at least 30"):
        redundancy(noise(29, 2))
    with pytest.raises(DataError, match="column 'x0' is there twice"):
        redundancy(noise(50, 2).set_axis(["x0", "x0"], axis=1))
    with pytest.raises(DataError, match=r"column 'name' holds .*, not numbers"):
        redundancy(noise(50, 2).assign(name="a"))
