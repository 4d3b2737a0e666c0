"""``import qml_plugin.pandas`` gives every frame of bars the accessor ``frame.qml``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from qml_plugin.adapters.vectorbt import GatedSignals


@pd.api.extensions.register_dataframe_accessor("qml")
class BarsAccessor:
    """What this package knows about a frame of bars.

    Examples
    --------
    >>> bars = pd.DataFrame({"Open": [1.0, 2.0], "High": [2.0, 3.0], "Low": [0.5, 1.5], "Close": [1.25, 2.5]},
    ...                     index=pd.to_datetime(["2024-01-01", "2024-01-02"]))
    >>> bars.qml.features()["ctx_close_loc_bar"].round(2).tolist()
    [0.5, 0.67]
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame

    def features(
        self, rows: int | Sequence[int] | None = None, *, timeframe: str | None = None, bar_label: str = "open"
    ) -> pd.DataFrame:
        """Features of all bars, or of some: `qml_plugin.compute_features` of the frame.

        Parameters
        ----------
        rows : int, sequence of int, or mask of shape (n_bars,), optional
            Positions of the bars wanted, 0 the first.
        timeframe : str, optional
            Length of a bar, such as ``"1h"``; the median spacing of the first 100 bars unless given.
        bar_label : {"open", "close"}, default="open"
            What the stamps mark.

        Returns
        -------
        DataFrame of shape (n_rows, n_features), float64
            As `compute_features` returns it.

        Point in time
        -------------
        The row of bar t reads bars 0..t.

        Raises
        ------
        DataError
            If the frame is refused by `read_bars`, or a row lies outside the bars.
        """
        from qml_plugin.features import compute_features

        return compute_features(self._frame, rows, timeframe=timeframe, bar_label=bar_label)

    def gate(self, long_entries: Any, short_entries: Any = None, exits: Any = None, **settings: Any) -> GatedSignals:
        """Signals on these bars, gated: `qml_plugin.gate_signals` of the frame.

        Parameters
        ----------
        long_entries, short_entries, exits
            Arrays, Series or frames of bool with a row for each bar, or `Signals` in the place of the first.
        **settings
            Of `gate_signals`.

        Returns
        -------
        GatedSignals

        Point in time
        -------------
        A decision at bar t reads bars 0..t and what had resolved by the close of bar t.

        Raises
        ------
        DataError
            As `gate_signals` does.
        """
        from qml_plugin.adapters.vectorbt import gate_signals

        return gate_signals(self._frame, long_entries, short_entries, exits, **settings)

    def setups(self, *, timeframe: str | None = None, bar_label: str = "open", **parameters: Any) -> pd.DataFrame:
        """Quasimodo setups of these bars, a row each, in the order in which they became known.

        Parameters
        ----------
        timeframe, bar_label
            As in `features`.
        **parameters
            Of `qml_plugin.detection.find_quasimodo`.

        Returns
        -------
        DataFrame of shape (n_setups, 7)
            Columns known_bar, pattern_type, side, stop_px, target_px, validity_score, and setup, the geometry. The
            index is the stamp of the bar at whose close the setup was known.

        Point in time
        -------------
        A row reads bars up to its known_bar; more bars add rows below and change none.

        Raises
        ------
        DataError
            If the frame is refused by `read_bars`, or a parameter is out of range.
        """
        from qml_plugin.bars import bars_from_frame
        from qml_plugin.detection import find_quasimodo

        bars = bars_from_frame(self._frame, symbol="", timeframe=timeframe, bar_label=bar_label)
        found = sorted(find_quasimodo(bars, **parameters), key=lambda setup: setup.known_bar)
        known = [setup.known_bar for setup in found]
        stamps = pd.DatetimeIndex(bars.opened_at.view("M8[us]"), tz="UTC")
        index = self._frame.index if isinstance(self._frame.index, pd.DatetimeIndex) else stamps
        names = ("known_bar", "pattern_type", "side", "stop_px", "target_px", "validity_score")
        table = pd.DataFrame({name: [getattr(s, name) for s in found] for name in names}, index=index[known])
        table["setup"] = np.array([*found, None], dtype=object)[:-1]  # an array of records, not of their fields
        return table
