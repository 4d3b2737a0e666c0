"""Trades from anywhere, such as a broker's export: their returns, costs and number a year."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from qml_plugin.errors import DataError
from qml_plugin.records import FloatArray

_RETURNS = ("return_frac", "returnpct", "return", "returns", "pnl_frac")
_COSTS = ("cost_frac", "costs", "cost")
_TIMES = ("exit_at", "exittime", "exit_time", "exit timestamp", "time", "date", "datetime", "timestamp")
_YEAR = pd.Timedelta(days=365.25)


@dataclass(frozen=True, slots=True, eq=False)
class ReturnsFile:
    """Returns in order of their exits, fractions; ``costs`` are None where the file has none."""

    returns: FloatArray
    costs: FloatArray | None
    per_year: float


def read_returns(path: Path | str) -> ReturnsFile:
    """Returns of trades or bars from a CSV file.

    Parameters
    ----------
    path : path
        Columns, in any case: the return as a fraction of equity (``return_frac``, ``ReturnPct``, ``return``), the time of the
        exit (``exit_at``, ``ExitTime``, ``Exit Timestamp``, ``time``), and, where known, the costs that the return holds
        (``cost_frac``).

    Returns
    -------
    ReturnsFile
        Sorted by time, equal times as they stand.

    Point in time
    -------------
    Judges a finished record.

    Raises
    ------
    DataError
        If the file cannot be read, a column is missing, a value is no number or time, or all have the same time.
    """
    try:
        frame = pd.read_csv(path)
    except (OSError, ValueError) as error:  # of pandas too, for a file that is empty or no CSV
        raise DataError(f"{path} cannot be read: {error}. Pass a CSV file with a header.") from error
    names = {str(column).strip().lower(): column for column in frame.columns}

    def column(wanted: tuple[str, ...]) -> str | None:
        return next((names[name] for name in wanted if name in names), None)

    of_returns, of_costs, of_times = column(_RETURNS), column(_COSTS), column(_TIMES)
    if of_returns is not None and of_times is not None and len(frame) < 2:
        raise DataError(
            f"{path} has {len(frame)} rows. At least two trades are needed: of fewer it is not known how many there are a year."
        )
    if of_returns is None or of_times is None:
        raise DataError(
            f"{path} has {len(frame)} rows and the columns {sorted(names)[:10]}. It needs {_RETURNS[0]} (a fraction of equity) "
            f"and {_TIMES[0]} (a time)."
        )
    try:
        times = pd.to_datetime(frame[of_times], format="ISO8601", utc=True)
    except (ValueError, TypeError) as error:
        raise DataError(f"{of_times} of {path} cannot be read as times: {error}. Use ISO 8601.") from error
    if times.isna().any():
        row = int(np.flatnonzero(times.isna())[0])
        raise DataError(f"{of_times} is missing in row {row} of {path}. Leave out trades that are still open.")
    order = np.argsort(times.to_numpy(), kind="stable")
    span = times.max() - times.min()
    if not span > pd.Timedelta(0):
        raise DataError(
            f"all {len(frame)} rows of {path} have the same time. How many there are a year is then not known."
        )
    returns = _numbers(frame, of_returns, path)
    if (returns < -1).any():
        row = int(np.flatnonzero(returns < -1)[0])
        raise DataError(
            f"{of_returns} is {returns[row]:g} in row {row} of {path}: more than all of the equity was lost. Write fractions, so "
            "-0.012 for a loss of 1.2 %."
        )
    return ReturnsFile(
        returns[order],
        None if of_costs is None else _numbers(frame, of_costs, path)[order],
        (len(frame) - 1) / (span / _YEAR),
    )


def _numbers(frame: pd.DataFrame, name: str, path: Path | str) -> FloatArray:
    values = pd.to_numeric(frame[name], errors="coerce").to_numpy(np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise DataError(
            f"{name} is {str(frame[name].iloc[bad[0]])!r} in row {bad[0]} of {path}. Write fractions such as 0.012."
        )
    return values
