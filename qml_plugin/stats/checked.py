"""Returns as an array, or the first thing that is wrong with them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from qml_plugin.errors import DataError
from qml_plugin.records import FloatArray


def checked_returns(values: ArrayLike, *, name: str = "returns", at_least: int = 2) -> FloatArray:
    """One finite value a bar or trade, float64, in order of time.

    Parameters
    ----------
    values : array of shape (n_obs,)
    name : str, default="returns"
        What the message calls them.
    at_least : int, default=2
        Observations that the caller needs.

    Returns
    -------
    ndarray of shape (n_obs,)

    Point in time
    -------------
    Only looks; changes nothing.

    Raises
    ------
    DataError
        If there is more than one dimension, too few values, or one that is not finite.
    """
    array = np.ascontiguousarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise DataError(f"{name} has shape {array.shape}. Pass one value an observation, in order of time.")
    if len(array) < at_least:
        raise DataError(f"{name} has {len(array)} observations. At least {at_least} are needed; pass a longer series.")
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise DataError(
            f"{name} is {array[bad[0]]} at observation {bad[0]}, the first of {len(bad)} that are not finite. "
            "Missing is not zero: leave the observation out, or find out what it was."
        )
    return array


def checked_matrix(values: ArrayLike, *, name: str = "returns_matrix", at_least: int = 2) -> FloatArray:
    """Returns of several trials: a row an observation, a column a trial; finite, float64.

    Parameters
    ----------
    values : array of shape (n_obs, n_trials)
    name : str, default="returns_matrix"
        What the message calls them.
    at_least : int, default=2
        Observations that the caller needs.

    Returns
    -------
    ndarray of shape (n_obs, n_trials)

    Point in time
    -------------
    Only looks; changes nothing.

    Raises
    ------
    DataError
        If there are not two dimensions, no trial, too few rows, or a value is not finite.
    """
    matrix = np.ascontiguousarray(values, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[1] < 1:
        raise DataError(
            f"{name} has shape {matrix.shape}. Pass a row an observation and a column a trial; one trial alone is "
            "returns[:, None]."
        )
    if len(matrix) < at_least:
        raise DataError(f"{name} has {len(matrix)} rows. At least {at_least} observations are needed.")
    bad = np.argwhere(~np.isfinite(matrix))
    if len(bad):
        row, column = bad[0]
        raise DataError(
            f"{name} is {matrix[row, column]} at row {row}, column {column}, the first of {len(bad)} that are not "
            "finite. A trial without a position has return 0; leave out bars that not all trials know."
        )
    return matrix


def is_constant(values: FloatArray) -> bool:
    """Whether the spread is nothing but rounding.

    Parameters
    ----------
    values : ndarray of shape (n_obs,)
        At least one, finite.

    Returns
    -------
    bool
        True where maximum and minimum differ by less than 1e-12 of the largest size.

    Point in time
    -------------
    Reads all values.
    """
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())
