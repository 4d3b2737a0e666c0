"""Trades from anywhere, such as a broker's export: their returns, costs and number a year."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    """Returns in order of their exits, fractions; ``costs`` are None where the file has none.

    Returns are net of the costs. ``warnings`` are sentences about rows that may be wrong.
    """

    returns: FloatArray
    costs: FloatArray | None
    per_year: float
    warnings: tuple[str, ...] = ()


def read_returns(path: Path | str) -> ReturnsFile:
    """Returns of trades or bars from a CSV file.

    Parameters
    ----------
    path : path
        Columns, in any case: the return as a fraction of equity (``return_frac``, ``ReturnPct``, ``return``), the time of the
        exit (``exit_at``, ``ExitTime``, ``Exit Timestamp``, ``time``), and, where known, the costs that were
        paid (``cost_frac``), of which the return is net.

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
        If the file cannot be read, a column is missing, a value is no number or time, a cost is negative, or all have the same time.
    """
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            header = file.readline()
        is_by_semicolons = ";" in header and "," not in header and "\ufffd" not in header  # that is a packed file
        frame = pd.read_csv(path, sep=";" if is_by_semicolons else ",")
    except (OSError, ValueError) as error:  # of pandas too, for a file that is empty or no CSV
        raise DataError(f"{path} cannot be read: {error}. Pass a CSV file with a header.") from error
    if is_by_semicolons:
        raise DataError(
            f"{path} has its columns separated by semicolons. Save it with commas between columns and points in numbers."
        )
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
    lines = _Lines(path, len(frame))
    if frame[of_times].isna().any():
        raise DataError(
            f"{of_times} is missing in {lines.of(frame[of_times].isna())}. Leave out trades that are still open."
        )
    times = pd.to_datetime(frame[of_times], format="ISO8601", utc=True, errors="coerce")
    if times.isna().any():
        wrong = str(frame[of_times][times.isna()].iloc[0])
        raise DataError(
            f"{of_times} is {wrong!r} in {lines.of(times.isna())}, which is no time. Use ISO 8601, such as 2024-01-31T15:30."
        )
    order = np.argsort(times.to_numpy(), kind="stable")
    span = times.max() - times.min()
    if not span > pd.Timedelta(0):
        raise DataError(
            f"all {len(frame)} rows of {path} have the same time. How many there are a year is then not known."
        )
    returns = _numbers(frame, of_returns, lines)
    if (returns < -1).any():
        raise DataError(
            f"{of_returns} is {returns[returns < -1][0]:g} in {lines.of(returns < -1)}: more than all of the equity was lost. "
            "Write fractions, so -0.012 for a loss of 1.2 %."
        )
    costs = None if of_costs is None else _numbers(frame, of_costs, lines)
    if costs is not None and (costs < 0).any():
        raise DataError(
            f"{of_costs} is {costs[costs < 0][0]:g} in {lines.of(costs < 0)}. Costs are what was paid, as fractions of 0 or more."
        )
    return ReturnsFile(
        returns[order], None if costs is None else costs[order], (len(frame) - 1) / (span / _YEAR), _warnings(frame, lines)
    )  # fmt: skip


class _Lines:
    """Rows of a file by the numbers of their lines; the header is the first."""

    def __init__(self, path: Path | str, n_rows: int) -> None:
        self._path = path
        text = Path(path).read_bytes().decode("utf-8", "replace").splitlines()
        filled = [number for number, line in enumerate(text, 1) if line.strip()][1:]
        # Where a cell holds a line of its own they cannot be told apart, and rows are counted.
        self._numbers = filled if len(filled) == n_rows else range(2, n_rows + 2)

    def of(self, is_meant: Any) -> str:
        """Where the first row is that is meant."""
        return f"line {self._numbers[int(np.flatnonzero(is_meant)[0])]} of {self._path}"


def _warnings(frame: pd.DataFrame, lines: _Lines) -> tuple[str, ...]:
    is_repeated = frame.duplicated().to_numpy()
    n = int(is_repeated.sum())
    if not n:
        return ()
    rows = "1 row repeats another" if n == 1 else f"{n} rows repeat others"
    return (f"{rows} exactly, the first in {lines.of(is_repeated)}. They are counted as they stand.",)


def _numbers(frame: pd.DataFrame, name: str, lines: _Lines) -> FloatArray:
    values = pd.to_numeric(frame[name], errors="coerce").to_numpy(np.float64)
    is_bad = ~np.isfinite(values)
    if is_bad.any():
        wrong = str(frame[name][is_bad].iloc[0])
        raise DataError(f"{name} is {wrong!r} in {lines.of(is_bad)}. Write fractions such as 0.012.")
    return values
