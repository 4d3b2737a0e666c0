"""What the values of one column look like: quantiles, what is missing, counts by bin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qml_plugin.errors import DataError
from qml_plugin.records import FloatArray, IntArray

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
_MOST_DISTINCT = 12
_TAIL_FRAC = 0.005


@dataclass(frozen=True, slots=True)
class Distribution:
    """Of ``n`` values, ``n_early`` are missing before `warmup` and ``n_missing`` after it.

    ``quantiles`` go with `QUANTILES`; empty where no value is finite. ``counts`` are those between ``edges``, the outer
    bins holding what lies beyond them too; where ``is_discrete``, ``edges`` are the values themselves.
    """

    n: int
    n_early: int
    n_missing: int
    quantiles: tuple[float, ...]
    edges: FloatArray
    counts: IntArray
    is_discrete: bool

    @property
    def missing_frac(self) -> float:
        """Share of all values that is missing, 0..1."""
        return (self.n_early + self.n_missing) / self.n


def distribution(values: FloatArray, *, warmup: int = 0, n_bins: int = 16) -> Distribution:
    """Quantiles, missing values and a histogram of a series; what is not finite is missing.

    Parameters
    ----------
    values : ndarray of shape (n,)
        At least one.
    warmup : int
        Values before it are expected to be missing, and counted apart.
    n_bins : int, default=16
        Bins of equal width from the 0.5 % to the 99.5 % quantile. Up to 12 distinct values get a bin each instead.

    Returns
    -------
    Distribution

    Point in time
    -------------
    Reads the whole series on purpose: it describes it.

    Raises
    ------
    DataError
        If there are no values.
    """
    if len(values) == 0:
        raise DataError("there are no values to describe. Pass at least one.")
    is_finite = np.isfinite(values)
    finite = values[is_finite]
    distinct = np.unique(finite)
    is_discrete = len(distinct) <= _MOST_DISTINCT
    if is_discrete:
        edges, counts = distinct, np.array([(finite == value).sum() for value in distinct], dtype=np.int64)
    else:
        low, high = np.quantile(finite, [_TAIL_FRAC, 1.0 - _TAIL_FRAC])
        if not high > low:
            low, high = distinct[0], distinct[-1]
        edges = np.linspace(low, high, n_bins + 1)
        counts = np.histogram(np.clip(finite, low, high), edges)[0]
    return Distribution(
        n=len(values),
        n_early=int((~is_finite[:warmup]).sum()),
        n_missing=int((~is_finite[warmup:]).sum()),
        quantiles=tuple(float(value) for value in np.quantile(finite, QUANTILES)) if len(finite) else (),
        edges=edges,
        counts=counts,
        is_discrete=is_discrete,
    )
