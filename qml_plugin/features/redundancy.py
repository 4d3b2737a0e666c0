"""How many different things a table of features says: those that tell the same story, and the effective number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from qml_plugin.errors import DataError
from qml_plugin.records import FloatArray

_FEWEST_ROWS = 30
_BLOCK = 8_192
_STILL = 1e-12


@dataclass(frozen=True, slots=True)
class Cluster:
    """Features that say what `representative` says; `others` are (name, correlation with it), in column order."""

    representative: str
    others: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Redundancy:
    """Clusters of features on one table, those of a single feature included.

    ``n_effective`` is the participation ratio of the eigenvalues of the correlation matrix: k for k uncorrelated
    features, 1 for k copies of one, NaN without any. ``constant`` and ``never_finite`` name the features left out.
    """

    threshold: float
    n_rows: int
    clusters: tuple[Cluster, ...]
    n_effective: float
    constant: tuple[str, ...]
    never_finite: tuple[str, ...]

    @property
    def n_features(self) -> int:
        """Features compared: all but those left out."""
        return sum(1 + len(cluster.others) for cluster in self.clusters)

    @property
    def representatives(self) -> tuple[str, ...]:
        """One feature of each cluster; none correlates with another by more than the threshold."""
        return tuple(cluster.representative for cluster in self.clusters)


def redundancy(features: pd.DataFrame, *, threshold: float = 0.95) -> Redundancy:
    """Clusters of features with an absolute correlation above a threshold, and how many independent ones they amount to.

    The columns are taken in their order. One joins the representative with which it correlates most, if by more than
    `threshold`, and else begins a cluster that it represents. So each member is close to its representative and no two
    representatives are close to each other. Single linkage, the rejected alternative, chains: its members may have
    next to nothing in common.

    Parameters
    ----------
    features : DataFrame of shape (n_rows, n_features)
        As `compute_features` returns it, at least 30 rows. What is not finite is missing.
    threshold : float, default=0.95
        Between 0 and 1.

    Returns
    -------
    Redundancy
        Correlations are Pearson's over the rows in which both features are finite; with fewer than 30 such rows, or
        where one of the two is constant in them, they count as 0.

    Point in time
    -------------
    Reads all rows on purpose: it describes a table. Features chosen by it have seen that whole table; choose them on
    bars before the ones a strategy is judged on.

    Raises
    ------
    DataError
        If the threshold is not between 0 and 1, there are too few rows, or a column is not numeric or there twice.

    References
    ----------
    Fraedrich, Ziehmann and Sielmann (1995), Estimates of spatial degrees of freedom, Journal of Climate 8: n_effective
    is n^2 over the sum of the squared eigenvalues of a correlation matrix. Bretherton et al. (1999), The effective
    number of spatial degrees of freedom of a time-varying field, Journal of Climate 12, for a covariance matrix.

    Examples
    --------
    >>> x = np.sin(np.arange(200.0))
    >>> found = redundancy(pd.DataFrame({"a": x, "b": x**3, "c": -2 * x, "d": np.cos(np.arange(200.0)), "e": 1.0}))
    >>> found.representatives, [name for name, _ in found.clusters[0].others], found.constant
    (('a', 'b', 'd'), ['c'], ('e',))
    """
    if not 0.0 < threshold < 1.0:
        raise DataError(f"threshold is {threshold}. Choose an absolute correlation between 0 and 1, such as 0.95.")
    matrix = _matrix(features)
    names = [str(name) for name in features.columns]
    lowest, highest = _range(matrix)
    is_finite = np.isfinite(lowest)
    size = np.maximum(abs(lowest), abs(highest), where=is_finite, out=np.zeros(len(names)))
    is_constant = is_finite & ~(np.subtract(highest, lowest, where=is_finite, out=np.zeros(len(names))) > _STILL * size)
    kept = np.flatnonzero(is_finite & ~is_constant)
    correlation = _correlation(matrix, kept)
    homes = _homes(abs(correlation), threshold)
    clusters = tuple(
        Cluster(
            names[kept[home]],
            tuple((names[kept[i]], float(correlation[home, i])) for i in np.flatnonzero(homes == home) if i != home),
        )
        for home in np.unique(homes)
    )
    return Redundancy(
        threshold=threshold,
        n_rows=len(matrix),
        clusters=clusters,
        n_effective=len(kept) ** 2 / float((correlation**2).sum()) if len(kept) else float("nan"),
        constant=tuple(names[i] for i in np.flatnonzero(is_constant)),
        never_finite=tuple(names[i] for i in np.flatnonzero(~is_finite)),
    )


def _matrix(features: pd.DataFrame) -> FloatArray:
    if len(features) < _FEWEST_ROWS:
        raise DataError(f"{len(features)} rows are too few for correlations; at least {_FEWEST_ROWS} are needed.")
    if not features.columns.is_unique:
        twice = features.columns[features.columns.duplicated()][0]
        raise DataError(f"column {twice!r} is there twice. Pass each feature once.")
    for name in features.columns:
        if not pd.api.types.is_numeric_dtype(features[name].dtype):
            raise DataError(f"column {name!r} holds {features[name].dtype}, not numbers. Pass features only.")
    matrix: FloatArray = features.to_numpy(np.float64, na_value=np.nan)
    return matrix


def _range(matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Smallest and largest finite value of each column; infinite where there is none."""
    lowest, highest = np.full(matrix.shape[1], np.inf), np.full(matrix.shape[1], -np.inf)
    for rows in _blocks(matrix):
        is_finite = np.isfinite(rows)
        lowest = np.minimum(lowest, np.where(is_finite, rows, np.inf).min(axis=0))
        highest = np.maximum(highest, np.where(is_finite, rows, -np.inf).max(axis=0))
    return lowest, highest


def _correlation(matrix: FloatArray, kept: np.ndarray) -> FloatArray:
    """Pairwise complete correlations of some columns, from sums over blocks of rows of standardised values."""
    n_columns = len(kept)
    count, mean, square = np.zeros(n_columns), np.zeros(n_columns), np.zeros(n_columns)
    for rows in _blocks(matrix):
        is_finite = np.isfinite(rows[:, kept])
        count += is_finite.sum(axis=0)
        mean += np.where(is_finite, rows[:, kept], 0.0).sum(axis=0)
    mean /= count
    for rows in _blocks(matrix):
        square += (np.where(np.isfinite(rows[:, kept]), rows[:, kept] - mean, 0.0) ** 2).sum(axis=0)
    scale = np.sqrt(square / count)
    n, sums, squares, products = (np.zeros((n_columns, n_columns)) for _ in range(4))
    for rows in _blocks(matrix):
        is_there = np.isfinite(rows[:, kept])
        z = np.where(is_there, rows[:, kept] - mean, 0.0) / scale
        there = is_there.astype(np.float64)
        n += there.T @ there
        sums += z.T @ there  # of i over the rows in which j is there too
        squares += (z**2).T @ there
        products += z.T @ z
    n_pair = np.maximum(n, 1.0)
    variance = squares / n_pair - (sums / n_pair) ** 2
    covariance = products / n_pair - sums * sums.T / n_pair**2
    is_known = (n >= _FEWEST_ROWS) & (variance > _STILL) & (variance.T > _STILL)
    out = np.where(is_known, covariance / np.sqrt(np.where(is_known, variance * variance.T, 1.0)), 0.0)
    out = np.clip((out + out.T) / 2.0, -1.0, 1.0)
    np.fill_diagonal(out, 1.0)
    return out


def _homes(strength: FloatArray, threshold: float) -> np.ndarray:
    """For each feature the place of its representative; the earlier of equally close ones."""
    homes = np.arange(len(strength))
    representatives: list[int] = []
    for i in range(len(strength)):
        nearest = max(representatives, key=lambda home: strength[home, i], default=i)
        if nearest != i and strength[nearest, i] > threshold:
            homes[i] = nearest
        else:
            representatives.append(i)
    return homes


def _blocks(matrix: FloatArray) -> list[FloatArray]:
    return [matrix[start : start + _BLOCK] for start in range(0, len(matrix), _BLOCK)]
