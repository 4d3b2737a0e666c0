"""Bootstrap bounds for dependent values."""

from __future__ import annotations

import numpy as np

from qml_plugin.errors import DataError
from qml_plugin.records import FloatArray


def bootstrap_lower_bound(
    values: FloatArray,
    level: float = 0.10,
    n_resamples: int = 1000,
    *,
    seed: int,
    block_length: int | None = None,
) -> float:
    """Lower bound of the SUM of `values` under a circular block bootstrap.

    Parameters
    ----------
    values : ndarray of shape (n_values,), any unit
        In order of time, finite.
    level : float, 0..1, default=0.10
        One-sided error: the bound is this quantile of the resampled sums.
    n_resamples : int, >= 1, default=1000
        Number of resamples.
    seed : int
        Seed of the resampling.
    block_length : int, >= 1, optional
        Consecutive values drawn together; without it the cube root of n_values, rounded, so that overlapping
        neighbours stay together.

    Returns
    -------
    float, unit of `values`
        The `level` quantile (linear interpolation) of the sums of resamples of n_values values each.

    Point in time
    -------------
    Reads all values given: pass only outcomes already known.

    Raises
    ------
    DataError
        If there are no values, one is not finite, or an option lies outside its range.

    References
    ----------
    Politis & Romano (1992), A circular block-resampling procedure for stationary data. Block length of order
    n^(1/3): Hall, Horowitz & Jing (1995), On blocking rules for the bootstrap with dependent data, Biometrika 82(3).
    """
    values = np.asarray(values, dtype=np.float64)
    n_values = len(values)
    if n_values == 0 or not np.isfinite(values).all():
        raise DataError(
            f"a bound was asked of {n_values} values, {np.count_nonzero(~np.isfinite(values))} of them not finite. "
            "At least one value and only finite ones are needed; leave unresolved ones out."
        )
    length = max(1, round(n_values ** (1 / 3))) if block_length is None else min(block_length, n_values)
    if not 0 < level < 1 or n_resamples < 1 or length < 1:
        raise DataError(
            f"level {level}, n_resamples {n_resamples}, block_length {block_length} refused. "
            "level lies between 0 and 1, the other two are at least 1."
        )
    n_blocks, rest = divmod(n_values, length)
    starts = np.random.default_rng(seed).integers(n_values, size=(n_resamples, n_blocks + (rest > 0)))
    cumulative = np.concatenate([[0.0], np.cumsum(np.concatenate([values, values[:length]]))])
    lengths = np.full(starts.shape[1], length)
    if rest:
        lengths[-1] = rest
    sums = (cumulative[starts + lengths] - cumulative[starts]).sum(axis=1)
    return float(np.quantile(sums, level))
