"""``import qml_plugin.pandas`` gives every frame of bars the accessor ``frame.qml``."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd


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
