"""Does the edge last? A rolling mean with its interval, and the bar at which the mean changed, if it did."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qml_plugin.errors import DataError
from qml_plugin.records import FloatArray, IntArray
from qml_plugin.stats.checked import checked_returns, is_constant
from qml_plugin.stats.inference import largest_cusum
from qml_plugin.stats.kernels import resampled_rows
from qml_plugin.stats.nulls import exceeding
from qml_plugin.stats.resampling import automatic_block_length, bootstrap_interval


@dataclass(frozen=True, slots=True, eq=False)
class Decay:
    """The edge over time; arrays of shape (n_windows,).

    Row i judges the window that ends with bar ``end_bar[i]``: its mean result a bar and the 90 % interval of it.
    ``half_ratio`` is the mean of the second half over that of the first, NaN where the first earned nothing.
    ``change_bar`` is the first bar after the likeliest change of the mean, ``change_p`` its p-value (null hypothesis: the
    mean never changed), ``mean_before`` and ``mean_after`` the means on either side.
    """

    window_bars: int
    end_bar: IntArray
    mean: FloatArray
    low: FloatArray
    high: FloatArray
    half_ratio: float
    change_bar: int
    change_p: float
    mean_before: float
    mean_after: float


def edge_decay(
    excess: FloatArray,
    *,
    n_windows: int = 12,
    window_frac: float = 0.25,
    n_draws: int = 499,
    seed: int,
) -> Decay:
    """Rolling edge with interval, and a test for a change of the mean.

    Parameters
    ----------
    excess : ndarray of shape (n_bars,), fractions
        Results, in order of time.
    n_windows : int, default=12
        Overlapping windows, the first as early and the last as late as there is room.
    window_frac : float, 0..1, default=0.25
        Length of a window as a share of all bars.
    n_draws : int, default=499
        Resamples.
    seed : int

    Returns
    -------
    Decay
        The change is where the cumulated sum lies farthest from its straight line; its p-value compares that distance
        with those of block resamples, in which the mean never changes; a resample that does not vary counts against the
        change.

    Point in time
    -------------
    The mean of a window reads that window only; the change point reads all bars and was not known at the time.

    Raises
    ------
    DataError
        If there are fewer than 40 results, one is not finite, all are the same, or a share is impossible.

    References
    ----------
    Inclán & Tiao (1994) and Csörgő & Horváth (1997), Limit theorems in change-point analysis, §2.1 (CUSUM of the mean);
    differs in: p-value by the stationary bootstrap, which keeps dependence.
    """
    values = checked_returns(excess, at_least=40)
    if not 0 < window_frac < 1 or n_windows < 1 or n_draws < 1 or is_constant(values):
        raise DataError(
            f"window_frac {window_frac}, n_windows {n_windows}, n_draws {n_draws} on {len(values)} results refused. Results "
            "vary, a window is a share between 0 and 1 of them, and there is at least one window and draw."
        )
    n = len(values)
    width = max(20, int(n * window_frac))
    ends = np.unique(np.linspace(width, n, n_windows).round().astype(np.int64))
    block = automatic_block_length(values)
    found = [
        bootstrap_interval(
            values[end - width : end], n_draws=n_draws, block_length=min(block, width / 4), seed=seed + i
        )
        for i, end in enumerate(ends)
    ]
    distance, at = largest_cusum(values)
    draws = np.array(
        [largest_cusum(values[resampled_rows(n, n, block, 1, seed + draw)[0]])[0] for draw in range(n_draws)]
    )
    p_value = (1 + exceeding(draws, distance)) / (1 + n_draws)
    first, second = float(values[: n // 2].mean()), float(values[n // 2 :].mean())
    return Decay(
        width, ends - 1, np.array([one.estimate for one in found]), np.array([one.low for one in found]),
        np.array([one.high for one in found]), second / first if first > 0 else np.nan, at, p_value,
        float(values[:at].mean()), float(values[at:].mean()),
    )  # fmt: skip
