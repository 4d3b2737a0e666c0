"""The features of a series of bars: all bars, some bars, or the bar of an entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from qml_plugin.bars import COLUMNS, Bars, bars_from_frame
from qml_plugin.clock import timeframe_seconds
from qml_plugin.errors import DataError
from qml_plugin.features import ctx, mom, regime, temp, vol, vol_relative
from qml_plugin.features.catalogue import CATALOGUE, N_BUILT_IN, Feature, columns_of
from qml_plugin.features.series import N_STATE, SERIES, advance
from qml_plugin.features.user import user_values
from qml_plugin.records import FloatArray, IntArray

_WARMUPS = np.array([feature.warmup for feature in CATALOGUE[:N_BUILT_IN]])
_LONGEST_WARMUP = int(_WARMUPS.max())
_GEO, _ = columns_of("geo")


def fill_rows(
    bars: FloatArray,
    opened_at: IntArray,
    bar_us: int,
    series: FloatArray,
    rows: IntArray,
    age: int,
    out: FloatArray,
) -> None:
    """Write the features of some bars into the rows of `out`, NaN before each one's warm-up.

    Parameters
    ----------
    bars, series : ndarray of shape (5, n) and (n_series, n)
        As `series.advance` takes and leaves them.
    opened_at : ndarray of shape (n,), UTC microseconds
        Stamps of the bars.
    bar_us : int, microseconds
        Length of a bar; 0 where it is not known yet, which leaves NaN what depends on it.
    rows : ndarray of shape (n_rows,)
        Bars wanted.
    age : int
        Bars that came before column 0.
    out : ndarray of shape (n_rows, n_features)
        Columns in the order of ``CATALOGUE``; those of the user's own features are left alone.
    """
    for category in (ctx, vol, mom, vol_relative, regime):
        category.fill(bars, series, rows, age, out)
    temp.fill(opened_at, bar_us, rows, age, out)
    out[:, _GEO] = np.nan
    early = np.flatnonzero(rows + age < _LONGEST_WARMUP)
    if len(early):
        young = out[early, :N_BUILT_IN]
        young[(rows[early] + age)[:, None] < _WARMUPS] = np.nan
        out[early, :N_BUILT_IN] = young


class MarketFeatures:
    """Features of one series of bars: its recursions are computed once, its windows where they are asked for.

    Parameters
    ----------
    bars : Bars

    Attributes
    ----------
    matrix : ndarray of shape (5, n_bars)
        The bars, rows as in `series.BAR`.
    series : ndarray of shape (n_series, n_bars)
        The recursions, rows as in `series.SERIES`.
    n_passes : int
        Of the class: how often this process has computed recursions.

    Point in time
    -------------
    Row t, and column t of `series`, read bars 0..t.
    """

    n_passes = 0

    def __init__(self, bars: Bars) -> None:
        MarketFeatures.n_passes += 1
        self.bars = bars
        self.matrix = np.array([bars.open, bars.high, bars.low, bars.close, bars.volume])
        self._bar_us = round(timeframe_seconds(bars.timeframe) * 1_000_000)
        self.series = np.empty((len(SERIES), len(bars)))
        advance(np.zeros(N_STATE), self.matrix, bars.known_at, self._bar_us, self.series, 0, len(bars))
        self._user: dict[str, FloatArray] = {}

    @classmethod
    def computed(
        cls, bars: Bars, matrix: FloatArray, series: FloatArray, user: Mapping[str, FloatArray] | None = None
    ) -> MarketFeatures:
        """Features whose recursions were computed before, here or in another process.

        Parameters
        ----------
        bars : Bars
        matrix, series : ndarray
            The attributes of those of the same bars.
        user : mapping of version to ndarray of shape (n_bars,), optional
            Values of the user's own features, as `user_columns` gives them.
        """
        market = cls.__new__(cls)
        market.bars, market.matrix, market.series = bars, matrix, series
        market._bar_us = round(timeframe_seconds(bars.timeframe) * 1_000_000)
        market._user = dict(user or {})
        return market

    def user_columns(self) -> dict[str, FloatArray]:
        """Values of the user's own features for all bars, by the version of the feature."""
        return {feature.version: self._user_values(feature) for feature in CATALOGUE[N_BUILT_IN:]}

    def rows(self, rows: int | Sequence[int] | IntArray | None = None) -> FloatArray:
        """Features of some bars, or of all.

        Parameters
        ----------
        rows : int, sequence of int, or mask of shape (n_bars,), optional
            Positions of the bars wanted, 0 the first, in any order.

        Returns
        -------
        ndarray of shape (n_rows, n_features)
            Columns in the order of ``CATALOGUE``, units as in each definition. NaN before a feature's warm-up, where
            its definition says so, and throughout for the features of an entry.

        Raises
        ------
        DataError
            If a row lies outside the bars.
        """
        return self._rows(_positions(rows, len(self.bars)), CATALOGUE.features)

    def _rows(self, wanted: IntArray, features: Sequence[Feature]) -> FloatArray:
        out = np.empty((len(wanted), len(features)))
        fill_rows(self.matrix, self.bars.opened_at, self._bar_us, self.series, wanted, 0, out)
        for place, feature in enumerate(features[N_BUILT_IN:], N_BUILT_IN):
            out[:, place] = self._user_values(feature)[wanted]
        return out

    def _user_values(self, feature: Feature) -> FloatArray:
        if feature.version not in self._user:
            index = pd.DatetimeIndex(self.bars.opened_at.view("M8[us]"), tz="UTC")
            frame = pd.DataFrame(self.matrix.T, index=index, columns=COLUMNS)
            self._user[feature.version] = user_values(feature, frame)
        return self._user[feature.version]


def _positions(rows: int | Sequence[int] | IntArray | None, n: int) -> IntArray:
    """Positions asked for: whole numbers, one of them, or a mask of all bars."""
    if rows is None:
        return np.arange(n)
    asked = np.asarray(rows)
    if asked.dtype == np.bool_ and asked.shape == (n,):
        return np.flatnonzero(asked)
    if asked.size == 0:
        asked = asked.astype(np.int64)
    if asked.ndim > 1 or asked.dtype.kind not in "iu":
        raise DataError(
            f"rows of type {asked.dtype} and shape {asked.shape} are no positions. Give whole numbers, 0 for the first bar, "
            f"or a mask of {n} booleans; for times use frame.index.get_indexer(times)."
        )
    wanted = asked.astype(np.int64).reshape(-1)
    outside = wanted[(wanted < 0) | (wanted >= n)]
    if len(outside):
        raise DataError(f"row {outside[0]} lies outside the {n} bars. Rows count from 0 at the first bar.")
    return wanted


def compute_features(
    bars: pd.DataFrame | Bars,
    rows: int | Sequence[int] | IntArray | None = None,
    *,
    timeframe: str | None = None,
    bar_label: str = "open",
) -> pd.DataFrame:
    """Features as a table, for reading and analysis.

    Parameters
    ----------
    bars : DataFrame or Bars
        A frame that `read_bars` accepts, or validated bars.
    rows : int, sequence of int, or mask of shape (n_bars,), optional
        Positions of the bars wanted, 0 the first; all without it. A thousand rows of a hundred thousand bars cost a
        fifteenth of all.
    timeframe : str, optional
        Length of a bar of a frame, such as ``"1h"``. Without it the median spacing of the first 100 bars decides.
    bar_label : {"open", "close"}, default="open"
        What the stamps of a frame mark.

    Returns
    -------
    DataFrame of shape (n_rows, n_features), float64
        Columns in the order of ``CATALOGUE``; the index is that of the rows, UTC stamps for Bars. NaN before a
        feature's warm-up, where it has no value, and throughout for the features of an entry.

    Point in time
    -------------
    The row of bar t reads bars 0..t. Without `timeframe`, which features of the clock have a value in the first 100
    rows depends on the stamps of those 100.

    Raises
    ------
    DataError
        If the frame is refused by `read_bars`, or a row lies outside the bars.
    """
    index: pd.Index | None = None
    if not isinstance(bars, Bars):
        index = getattr(bars, "index", None)
        bars = bars_from_frame(bars, symbol="", timeframe=timeframe, bar_label=bar_label)
    wanted, features = _positions(rows, len(bars)), CATALOGUE.features
    matrix = MarketFeatures(bars)._rows(wanted, features)
    if index is None:
        index = pd.DatetimeIndex(bars.opened_at[wanted].view("M8[us]"), tz="UTC")
    elif rows is not None:
        index = index[wanted]
    return pd.DataFrame(matrix, index=index, columns=[feature.name for feature in features], copy=False)
