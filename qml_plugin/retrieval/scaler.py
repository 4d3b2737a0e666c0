"""Robust scaling of features, frozen once fitted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qml_plugin.errors import RetrievalError
from qml_plugin.records import FloatArray

Float32Array = NDArray[np.float32]

CLIP = 4.0
_IQR_OF_UNIT_NORMAL = 1.349


@dataclass(frozen=True, slots=True, eq=False)
class Scaler:
    """Centre, scale and weight of each feature, arrays of shape (n_features,): what makes the distance between patterns.

    Robust and with clipping, so that one crash does not rule all distances; groups weigh alike, so that forty moving
    averages do not outvote one volume. No other distance that was tried foretold more, walk-forward:
    ``experiments/retrieval_metric.py`` holds the study, and ``ARCHITECTURE.md`` its figures.

    A weight of 0 means that the feature is ignored: it was constant, or never present, in the rows of the fit.
    """

    centre: FloatArray
    scale: FloatArray
    weight: FloatArray

    @classmethod
    def fit(cls, features: Float32Array, groups: Sequence[str]) -> Scaler:
        """Scaler of the rows given.

        Parameters
        ----------
        features : ndarray of shape (n_rows, n_features), float32
            NaN and infinite values are missing and do not count.
        groups : sequence of n_features str
            The group of each feature. A group of g usable features counts like one: each has the weight 1/sqrt(g).

        Returns
        -------
        Scaler
            Centre = median; scale = interquartile range / 1.349, or the standard deviation where that range is zero.

        Point in time
        -------------
        Reads all rows given: pass only rows known when the scaler is fitted. A fitted scaler never changes.

        Raises
        ------
        RetrievalError
            If there are no rows, or the number of groups is not the number of features.
        """
        features = np.asarray(features)
        if features.ndim != 2 or not len(features) or features.shape[1] != len(groups):
            raise RetrievalError(
                f"a scaler cannot be fitted on features of shape {features.shape} with {len(groups)} groups. "
                "At least one row and one group for each feature column are needed."
            )
        finite = np.isfinite(features)
        values = np.where(finite, features, np.nan).astype(np.float64)
        n_present = finite.sum(axis=0)
        values.sort(axis=0)  # NaN last
        lower, centre, upper = (_quantile(values, n_present, share) for share in (0.25, 0.5, 0.75))
        largest = np.take_along_axis(values, np.maximum(n_present - 1, 0)[None], axis=0)[0]
        is_usable = (n_present > 0) & (values[0] < largest)
        scale = (upper - lower) / _IQR_OF_UNIT_NORMAL
        for column in np.flatnonzero(is_usable & ~(scale > 0)):
            scale[column] = values[: n_present[column], column].std()
        names = np.asarray(groups, dtype=np.str_)
        group_size = np.array([np.count_nonzero(is_usable & (names == name)) for name in names])
        return cls(
            centre=np.where(is_usable, centre, 0.0),
            scale=np.where(is_usable, scale, 1.0),
            weight=np.where(is_usable, 1 / np.sqrt(np.maximum(group_size, 1)), 0.0),
        )

    @property
    def n_features(self) -> int:
        """Number of features expected."""
        return len(self.centre)

    @property
    def scaler_id(self) -> str:
        """SHA-256 of the parameters in hex: vectors of different ids must not be compared."""
        digest = hashlib.sha256(f"robust,clip={CLIP}".encode())
        for column in (self.centre, self.scale, self.weight):
            digest.update(column.astype("<f8").tobytes())
        return digest.hexdigest()

    def transform(self, features: Float32Array) -> Float32Array:
        """Scaled features: the vectors whose distances are compared.

        Parameters
        ----------
        features : ndarray of shape (n_rows, n_features), float32
            NaN is missing.

        Returns
        -------
        ndarray of shape (n_rows, n_features), float32
            Robust z-scores, clipped at -4 and 4, times the weight of the feature. Missing values lie at the centre: 0.
            Never NaN.

        Point in time
        -------------
        Row t reads features[t] only.

        Raises
        ------
        RetrievalError
            If the number of features is not that of the fit.
        """
        features = np.asarray(features)
        if features.ndim != 2 or features.shape[1] != self.n_features:
            raise RetrievalError(
                f"features of shape {features.shape} do not fit a scaler of {self.n_features} features. "
                "Pass rows of the features it was fitted on, or fit a new one."
            )
        scaled = np.clip((features.astype(np.float64) - self.centre) / self.scale, -CLIP, CLIP) * self.weight
        scaled[np.isnan(scaled)] = 0.0
        return scaled.astype(np.float32)


def _quantile(ascending: FloatArray, n_present: NDArray[np.int64], share: float) -> FloatArray:
    """Linear quantile of each column's first `n_present` values; meaningless where there are none."""
    position = share * np.maximum(n_present - 1, 0)
    below = np.floor(position).astype(np.int64)
    above = np.ceil(position).astype(np.int64)
    low = np.take_along_axis(ascending, below[None], axis=0)[0]
    high = np.take_along_axis(ascending, above[None], axis=0)[0]
    return np.asarray(low + (position - below) * (high - low))
