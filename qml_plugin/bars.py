"""Read OHLCV bars, refuse bad ones with the first bad row named, and hand them on as columns or arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from qml_plugin import clock
from qml_plugin.errors import DataError
from qml_plugin.records import FloatArray, IntArray

COLUMNS = ("Open", "High", "Low", "Close", "Volume")
PRICES = COLUMNS[:4]
_ALIASES = {"o": "open", "h": "high", "l": "low", "c": "close", "v": "volume", "vol": "volume"}
_STAMP_NAMES = ("datetime", "timestamp", "date", "time", "open_time")
_ROUNDING = 1e-9  # adjusted prices miss one another by the last digits
_UNNAMED = "unnamed: 0"  # the index of a frame that was saved without a name for it


@dataclass(frozen=True, slots=True)
class Bars:
    """Validated bars of one symbol as arrays of shape (n_bars,), oldest first.

    ``opened_at`` holds the stamps and ``known_at`` the moments at which each close is known (UTC microseconds).
    ``volume`` is NaN throughout where the market reports none.
    """

    symbol: str
    timeframe: str
    opened_at: IntArray
    known_at: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray

    def __len__(self) -> int:
        return len(self.close)

    def sha256(self) -> str:
        """Full hash of stamps, prices and volumes, so that a run can name the data it saw."""
        digest = hashlib.sha256()
        for column in (self.known_at, self.open, self.high, self.low, self.close, self.volume):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()


def read_bars(source: pd.DataFrame | str | Path, *, tz: str | None = None, min_bars: int = 2) -> pd.DataFrame:
    """OHLCV bars as a frame with columns Open, High, Low, Close, Volume and a UTC index.

    Parameters
    ----------
    source : DataFrame, or path of a ``.csv`` or ``.parquet`` file
        Columns in any case, in any order; short names (o, h, l, c, v) are understood. The stamps are the index or a
        column called datetime, timestamp, date, time or open_time. Other columns are dropped.
    tz : str, optional
        Time zone of naive stamps; without it they are taken as UTC.
    min_bars : int, default=2
        Fewest rows accepted.

    Returns
    -------
    DataFrame of shape (n_bars, 5), float64
        A copy; Volume is NaN throughout where there is none.

    Point in time
    -------------
    Row t depends on row t of the source only. Nothing is filled, sorted or repaired.

    Raises
    ------
    DataError
        If a column is missing, the index is no date, unsorted or has duplicates, or a row holds NaN, a price that is
        not positive, an infinite or negative value, or a High or Low that its own bar contradicts. The first bad row
        is named.

    Examples
    --------
    >>> frame = pd.DataFrame({"o": [1.0, 2.0], "h": [2.0, 3.0], "l": [0.5, 1.5], "c": [1.5, 2.5]},
    ...                      index=pd.to_datetime(["2024-01-01", "2024-01-02"]))
    >>> read_bars(frame)["Close"].tolist()
    [1.5, 2.5]
    """
    frame = _with_date_index(_load(source), tz)
    names = _columns_of(frame)
    missing = [name for name in PRICES if name not in names]
    if missing:
        found = sorted(map(str, frame.columns))[:10]
        raise DataError(
            f"bars have no column {missing[0]}; found {found}. Bars need Open, High, Low, Close and, where known, Volume."
        )
    columns = {name: _numeric(frame[names[name]], name) for name in PRICES}
    columns["Volume"] = _numeric(frame[names["Volume"]], "Volume") if "Volume" in names else np.full(len(frame), np.nan)
    bars = pd.DataFrame(columns, index=frame.index)
    _refuse_bad_rows(bars, min_bars)
    return bars


def bars_from_frame(frame: pd.DataFrame, *, symbol: str, timeframe: str | None = None, bar_label: str = "open") -> Bars:
    """Validated arrays of a frame that `read_bars` accepts; the timeframe is inferred where it is None."""
    checked = read_bars(frame)
    index = frame.index if isinstance(frame.index, pd.DatetimeIndex) else checked.index
    assert isinstance(index, pd.DatetimeIndex)
    timeframe = clock.canonical_timeframe(timeframe) if timeframe else clock.infer_timeframe(index)
    open_, high, low, close, volume = (checked[name].to_numpy() for name in COLUMNS)
    return Bars(
        symbol=symbol,
        timeframe=timeframe,
        opened_at=clock.to_micros(index),
        known_at=clock.known_at(index, timeframe, bar_label),
        open=open_,
        high=high,
        low=low,
        close=close,
        volume=volume,
    )


def _load(source: pd.DataFrame | str | Path) -> pd.DataFrame:
    if isinstance(source, pd.DataFrame):
        return source
    if not isinstance(source, (str, Path)):
        raise DataError(f"bars cannot be read from a {type(source).__name__}. Pass a DataFrame, or the path of a file.")
    path = Path(source)
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {".csv": pd.read_csv, ".parquet": pd.read_parquet}
    if path.suffix.lower() not in readers:
        raise DataError(f"{path} is neither .csv nor .parquet. Convert it, or pass a DataFrame.")
    try:
        return readers[path.suffix.lower()](path)
    except (OSError, ValueError) as error:  # pandas and pyarrow raise subclasses of these for a missing or damaged file
        raise DataError(
            f"{path} cannot be read: {error}. Check the path and that the file is a whole {path.suffix} file."
        ) from error


def _with_date_index(frame: pd.DataFrame, tz: str | None) -> pd.DataFrame:
    stamps = frame.index
    if not isinstance(stamps, pd.DatetimeIndex):
        column = next((c for c in frame.columns if str(c).strip().lower() in (*_STAMP_NAMES, _UNNAMED)), None)
        if column is None and stamps.dtype.kind in "OU" and len(stamps):
            stamps = _parse(pd.Series(stamps), "the index")
        elif column is not None:
            stamps = _parse(frame[column], f"column {column}")
        elif len(frame):
            raise DataError(
                f"bars have no times: the index is {type(frame.index).__name__} and no column is called {', '.join(_STAMP_NAMES)}. "
                "Set a DatetimeIndex: without times nothing can be placed in the past."
            )
        else:
            stamps = pd.DatetimeIndex([])
    assert isinstance(stamps, pd.DatetimeIndex)
    if tz is not None and stamps.tz is None:
        stamps = _localized(stamps, tz)
    stamps = stamps.tz_localize("UTC") if stamps.tz is None else stamps.tz_convert("UTC")
    return frame.set_axis(stamps, axis=0)


def _localized(stamps: pd.DatetimeIndex, tz: str) -> pd.DatetimeIndex:
    try:
        return stamps.tz_localize(tz)
    except (KeyError, ValueError) as error:  # an unknown zone; a local time that does not exist, or exists twice
        raise DataError(
            f"the times are not times of tz={tz!r}: {error}. Name a zone such as 'America/New_York'; local times that a "
            "clock change skips or repeats need stamps with their offset, or UTC."
        ) from error


def _columns_of(frame: pd.DataFrame) -> dict[str, object]:
    """Which column holds what: the exact name before another case, another case before a short name."""
    found: dict[str, object] = {}
    for name in COLUMNS:
        ranked: dict[int, list[object]] = {}
        for column in dict.fromkeys(frame.columns):
            key = str(column).strip().lower()
            if _ALIASES.get(key, key) == name.lower():
                ranked.setdefault(0 if column == name else 1 if key == name.lower() else 2, []).append(column)
        if ranked:
            first, *others = ranked[min(ranked)]
            if others:
                raise DataError(f"columns {first!r} and {others[0]!r} may both be {name}. Rename or drop one.")
            found[name] = first
    return found


def _parse(stamps: pd.Series, where: str) -> pd.DatetimeIndex:
    if stamps.dtype.kind in "iuf":
        raise DataError(
            f"{where} holds numbers such as {stamps.iloc[0]}, not times. Convert it first, for example pd.to_datetime(frame[column], unit='ms')."
        )
    try:
        has_offsets = stamps.astype(str).str.contains(r"[+-]\d\d:?\d\d$|Z$").any()  # they may differ from row to row
        return pd.DatetimeIndex(pd.to_datetime(stamps, format="ISO8601", utc=bool(has_offsets)))
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{where} cannot be read as times: {error}. Use ISO 8601 stamps such as 2024-03-31 02:00."
        ) from error


def _numeric(column: pd.Series | pd.DataFrame, name: str) -> FloatArray:
    if isinstance(column, pd.DataFrame):
        raise DataError(
            f"bars have {column.shape[1]} columns called {name}. Keep one; a frame of several symbols must be split first."
        )
    values = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    unread = np.flatnonzero(np.isnan(values) & column.notna().to_numpy())
    if len(unread):
        row = int(unread[0])
        raise DataError(
            f"{name} is {column.iloc[row]!r} at row {row} ({column.index[row]}). Bars hold numbers only; convert or drop that row."
        )
    return values


def _refuse_bad_rows(bars: pd.DataFrame, min_bars: int) -> None:
    index = bars.index
    assert isinstance(index, pd.DatetimeIndex)
    if len(bars) == 0:
        raise DataError("bars are empty. Check the download or the date range.")

    def refuse(bad: NDArray[np.bool_], what: Callable[[int], str], rule: str) -> None:
        if bad.any():
            row = int(np.argmax(bad))
            raise DataError(f"{what(row)} at row {row} ({index[row]}). {rule}")

    refuse(np.asarray(index.isna()), lambda row: "the time is missing", "Every bar needs its time; drop that row.")
    steps = np.diff(index.asi8, prepend=index.asi8[0] - 1)
    refuse(steps == 0, lambda row: "duplicate time", "Bars must strictly increase in UTC; drop the repeated row.")
    refuse(
        steps < 0,
        lambda row: f"bar index goes backwards: {index[row]} after {index[row - 1]}",
        "Bars must strictly increase in UTC; sort them, or pass tz= if these are local times.",
    )
    if len(bars) < min_bars:
        raise DataError(f"{len(bars)} bars are too few; at least {min_bars} are needed. Ask for a longer date range.")
    prices = bars[list(PRICES)].to_numpy()
    unusable = ~(np.isfinite(prices) & (prices > 0))

    def first_unusable(row: int) -> str:
        column = int(np.argmax(unusable[row]))
        return f"{PRICES[column]} is {prices[row, column]:g}"

    refuse(
        unusable.any(axis=1),
        first_unusable,
        "Prices must be known, positive and finite; drop the row rather than filling it.",
    )
    volume = bars["Volume"].to_numpy()
    refuse(
        (volume < 0) | np.isinf(volume),
        lambda row: f"Volume is {volume[row]:g}",
        "Volume must be finite and not negative; use NaN where it is unknown.",
    )
    open_, high, low, close = prices.T
    refuse(
        high < np.maximum(open_, close) * (1 - _ROUNDING),
        lambda row: (
            f"High {high[row]:g} is below {'Open' if open_[row] > high[row] else 'Close'} {max(open_[row], close[row]):g}"
        ),
        "High must be the highest price of its bar; the data are damaged there.",
    )
    refuse(
        low > np.minimum(open_, close) * (1 + _ROUNDING),
        lambda row: (
            f"Low {low[row]:g} is above {'Open' if open_[row] < low[row] else 'Close'} {min(open_[row], close[row]):g}"
        ),
        "Low must be the lowest price of its bar; the data are damaged there.",
    )
