"""The matrix of features: one row per bar, one column per feature of the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from qml_plugin.bars import Bars, bars_from_frame
from qml_plugin.errors import DataError
from qml_plugin.features import ctx, mom, regime, temp, vol, vol_relative
from qml_plugin.features.catalogue import CATALOGUE
from qml_plugin.features.series import Columns, Series
from qml_plugin.records import FloatArray

# in this order: the regime reads columns of the categories before it
_CATEGORIES: tuple[Callable[[Series, Columns], dict[str, FloatArray]], ...] = (
    ctx.compute,
    temp.compute,
    vol.compute,
    mom.compute,
    vol_relative.compute,
    regime.compute,
)


def market_features(bars: Bars) -> FloatArray:
    """All features of every bar that need no entry.

    Parameters
    ----------
    bars : Bars
        Of one symbol, any length.

    Returns
    -------
    ndarray of shape (n_bars, n_features)
        Columns in the order of ``CATALOGUE``, units as in each definition. NaN before a feature's warm-up, where its
        definition says so, and throughout for the features of an entry.

    Point in time
    -------------
    Row t reads bars 0..t.
    """
    columns: dict[str, FloatArray] = {}
    series = Series.of(bars)
    for compute in _CATEGORIES:
        columns.update(compute(series, columns))
    out = np.full((len(bars), len(CATALOGUE)), np.nan)
    for place, feature in enumerate(CATALOGUE):
        if feature.name in columns:
            out[feature.warmup :, place] = columns[feature.name][feature.warmup :]
    return out


def compute_features(bars: pd.DataFrame | Bars, rows: Sequence[int] | None = None) -> pd.DataFrame:
    """Features as a table, for reading and analysis.

    Parameters
    ----------
    bars : DataFrame or Bars
        A frame that `read_bars` accepts, of evenly spaced bars whose timeframe is inferred; or validated bars.
    rows : sequence of int, optional
        Positions of the bars wanted, 0 the first; all without it.

    Returns
    -------
    DataFrame of shape (n_rows, n_features), float64
        Columns in the order of ``CATALOGUE``; the index is that of the rows, UTC stamps for Bars. NaN before a
        feature's warm-up, where it has no value, and throughout for the features of an entry.

    Point in time
    -------------
    The row of bar t reads bars 0..t.

    Raises
    ------
    DataError
        If the frame is refused by `read_bars`, or a row lies outside the bars.
    """
    if isinstance(bars, Bars):
        index: pd.Index = pd.DatetimeIndex(bars.opened_at.view("M8[us]"), tz="UTC")
    else:
        index = bars.index
        bars = bars_from_frame(bars, symbol="")
    picked = np.arange(len(bars)) if rows is None else np.asarray(rows, dtype=np.int64)
    outside = picked[(picked < 0) | (picked >= len(bars))]
    if len(outside):
        raise DataError(f"row {outside[0]} lies outside the {len(bars)} bars. Rows count from 0 at the first bar.")
    return pd.DataFrame(market_features(bars)[picked], index=index[picked], columns=[f.name for f in CATALOGUE])
