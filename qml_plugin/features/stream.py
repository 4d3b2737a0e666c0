"""Features of a live market: one closed bar in, its row of features out, with the bits of a backtest."""

from __future__ import annotations

import json
import math
import os
import threading
import zipfile
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qml_plugin import clock
from qml_plugin.bars import Bars
from qml_plugin.errors import DataError, FeatureMismatch
from qml_plugin.features.catalogue import CATALOGUE, N_BUILT_IN, difference
from qml_plugin.features.market import fill_rows
from qml_plugin.features.series import LOOKBACK, N_STATE, SERIES, advance
from qml_plugin.features.user import user_values
from qml_plugin.records import FloatArray

_FORMAT = 1
_ALIASES = {"o": "open", "h": "high", "l": "low", "c": "close", "v": "volume", "vol": "volume"}
_STAMPS = ("datetime", "timestamp", "date", "time", "open_time", "opened_at", "index")
_N_INFERRED = 101
_ABOVE, _BELOW = 1.0 + 1e-9, 1.0 - 1e-9  # adjusted prices miss one another by the last digits
_FIRST_MICROS = 100_000_000_000_000  # smaller integers are row numbers, or times in another unit
_PRICES = ("Open", "High", "Low", "Close")


class FeatureStream:
    """Features of bars that arrive one by one.

    Parameters
    ----------
    timeframe : str, optional
        Length of a bar, such as ``"1h"``. Without it the median spacing of the first 100 bars decides, as it does for a
        frame; until there are two bars, what depends on it is NaN.
    bar_label : {"open", "close"}, default="open"
        What the stamp of a bar marks.

    Point in time
    -------------
    A row reads the bars pushed so far. Push closed bars only: a bar cannot be taken back.

    Examples
    --------
    >>> stream = FeatureStream("1h")
    >>> row = stream.push(("2024-01-01 00:00", 100.0, 101.0, 99.0, 100.5, 1200.0))
    >>> round(float(row[CATALOGUE.place("ctx_close_loc_bar")]), 2)
    0.75
    """

    def __init__(self, timeframe: str | None = None, *, bar_label: str = "open") -> None:
        if bar_label not in ("open", "close"):
            raise DataError(f"bar_label {bar_label!r} is unknown. Use 'open' or 'close': what a bar's stamp marks.")
        self._is_inferred = timeframe is None
        self._bar_label = bar_label
        self._timeframe: str | None = None
        self._bar_us = 0
        self._set_timeframe(None if timeframe is None else clock.canonical_timeframe(timeframe))
        self._feature_set, self._versions = CATALOGUE.feature_set, dict(CATALOGUE.versions)
        longest = max((feature.warmup for feature in CATALOGUE[N_BUILT_IN:]), default=0)
        self._keep = max(LOOKBACK, longest + 1)
        size = 4 * self._keep
        self._bars = np.full((5, size), np.nan)
        self._series = np.full((len(SERIES), size), np.nan)
        self._opened_at = np.zeros(size, np.int64)
        self._known_at = np.zeros(size, np.int64)
        self._state = np.zeros(N_STATE)
        self._filled = 0
        self._n_seen = 0

    @classmethod
    def after(cls, bars: Bars, *, bar_label: str = "open") -> FeatureStream:
        """A stream that has seen a whole history, at the speed of a backtest.

        Parameters
        ----------
        bars : Bars
            At least as many as the longest warm-up, for a row without NaN.
        bar_label : {"open", "close"}, default="open"
            What the stamps of `bars` mark.
        """
        if not isinstance(bars, Bars):
            raise DataError(
                f"a history is Bars, not a {type(bars).__name__}. Use qml_plugin.bars.bars_from_frame(frame, symbol=...)."
            )
        stream = cls(bars.timeframe, bar_label=bar_label)
        matrix = np.array([bars.open, bars.high, bars.low, bars.close, bars.volume])
        series = np.empty((len(SERIES), len(bars)))
        advance(stream._state, matrix, bars.known_at, stream._bar_us, series, 0, len(bars))
        kept = min(len(bars), stream._keep)
        stream._bars[:, :kept], stream._series[:, :kept] = matrix[:, -kept:], series[:, -kept:]
        stream._opened_at[:kept], stream._known_at[:kept] = bars.opened_at[-kept:], bars.known_at[-kept:]
        stream._filled, stream._n_seen = kept, len(bars)
        return stream

    def __repr__(self) -> str:
        return f"<FeatureStream of {self.timeframe or 'unknown'} bars, {self._n_seen} seen>"

    @property
    def n_seen(self) -> int:
        """Bars pushed so far."""
        return self._n_seen

    @property
    def timeframe(self) -> str | None:
        """Length of a bar; None until it is known."""
        return self._timeframe

    def push(self, bar: Sequence[Any] | Mapping[str, Any] | pd.Series) -> FloatArray:
        """Row of features of the next closed bar.

        Parameters
        ----------
        bar : (stamp, open, high, low, close, volume), or a mapping or Series with these names
            The stamp is a datetime, an ISO 8601 text or integer UTC microseconds; naive is UTC, and days are
            lengthened in the time zone of a datetime that has one. A Series may carry it
            as its name, a row of ``itertuples()`` as its index. Volume may be left out.

        Returns
        -------
        ndarray of shape (n_features,)
            In the order of ``CATALOGUE``; NaN before a feature's warm-up, and throughout for the features of an entry.

        Raises
        ------
        DataError
            If the bar is not after the last one, or its prices or volume are impossible. The stream is as before.
        FeatureMismatch
            If features were added or removed since the stream began.
        """
        if self._feature_set != CATALOGUE.feature_set:
            raise FeatureMismatch(
                f"the stream began {difference(self._versions)}. Register features first, then make a new stream."
            )
        at, known_at, values = self._checked(bar)
        if self._filled == self._bars.shape[1]:
            self._make_room()
        t = self._filled
        self._bars[:, t] = values
        self._opened_at[t] = at
        self._known_at[t] = known_at
        before = (self._timeframe, self._bar_us, self._state.copy())
        try:
            row = self._row(t)
        except BaseException:
            # what lies beyond the filled columns is written anew by the next push
            self._timeframe, self._bar_us, self._state = before
            raise
        self._filled, self._n_seen = t + 1, self._n_seen + 1
        return row

    def _row(self, t: int) -> FloatArray:
        if self._is_young:
            self._infer(t)
        advance(self._state, self._bars, self._known_at, self._bar_us, self._series, t, t + 1)
        out: FloatArray = np.empty((1, len(CATALOGUE)))
        fill_rows(self._bars, self._opened_at, self._bar_us, self._series, np.array([t]), self._n_seen - t, out)
        if len(CATALOGUE) > N_BUILT_IN:
            self._fill_user(out[0], t)
        return out.reshape(-1)

    def save(self, path: str | Path) -> None:
        """Write the state to a file, whole or not at all; `load` continues from it bit for bit."""
        kept = slice(max(0, self._filled - self._keep), self._filled)
        head = {
            "format": _FORMAT,
            "timeframe": self._timeframe,
            "is_inferred": self._is_inferred,
            "bar_label": self._bar_label,
            "n_seen": self._n_seen,
            "versions": self._versions,
        }
        path = Path(path)
        scratch = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
        if not path.parent.is_dir():
            raise DataError(f"{path.parent} is no folder, so {path.name} cannot be written there. Make it first.")
        try:
            with scratch.open("wb") as file:
                np.savez(
                    file,
                    head=np.frombuffer(json.dumps(head).encode(), np.uint8),
                    bars=self._bars[:, kept],
                    series=self._series[:, kept],
                    opened_at=self._opened_at[kept],
                    known_at=self._known_at[kept],
                    state=self._state,
                )
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> FeatureStream:
        """A stream that goes on where the saved one stopped.

        Raises
        ------
        DataError
            If the file is missing, damaged or no stream.
        FeatureMismatch
            If it was saved with other features; the message names them. Replay the history with `after`.
        """
        try:
            with Path(path).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                arrays = {name: file[name] for name in ("bars", "series", "opened_at", "known_at", "state")}
                head = json.loads(file["head"].tobytes())
            if head["format"] != _FORMAT:
                raise ValueError(f"format {head['format']}, this version reads {_FORMAT}")
            kept = arrays["bars"].shape[-1]
            shapes = {"bars": (5, kept), "series": (len(SERIES), kept), "state": (N_STATE,)}
            for name, array in arrays.items():
                if array.shape != shapes.get(name, (kept,)):
                    raise ValueError(f"{name} has the shape {array.shape}")
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{path} is no saved stream: {error}. Pass a file that FeatureStream.save wrote, or replay the history "
                "with FeatureStream.after(bars)."
            ) from error
        if head["versions"] != dict(CATALOGUE.versions):
            raise FeatureMismatch(
                f"the stream in {path} was saved {difference(head['versions'])}. "
                "Replay the history with FeatureStream.after(bars)."
            )
        stream = cls(head["timeframe"], bar_label=head["bar_label"])
        kept = arrays["bars"].shape[1]
        stream._bars[:, :kept], stream._series[:, :kept] = arrays["bars"], arrays["series"]
        stream._opened_at[:kept], stream._known_at[:kept] = arrays["opened_at"], arrays["known_at"]
        stream._state[:] = arrays["state"]
        stream._filled, stream._n_seen, stream._is_inferred = kept, head["n_seen"], head["is_inferred"]
        return stream

    @property
    def _is_young(self) -> bool:
        """Whether the timeframe may still change."""
        return self._is_inferred and self._n_seen < _N_INFERRED

    def _set_timeframe(self, timeframe: str | None) -> None:
        self._timeframe = timeframe
        self._bar_us = 0 if timeframe is None else round(clock.timeframe_seconds(timeframe) * 1_000_000)

    def _infer(self, t: int) -> None:
        """As for a frame: the median spacing so far. Where it changes, the series are computed anew."""
        if t == 0:
            return
        stamps = pd.DatetimeIndex(self._opened_at[: t + 1].view("M8[us]"), tz="UTC")
        timeframe = clock.infer_timeframe(stamps)
        if timeframe != self._timeframe:
            self._set_timeframe(timeframe)
            for j in range(t + 1):
                self._known_at[j] = clock.bar_end(int(self._opened_at[j]), timeframe, self._bar_label)
            self._state[:] = 0.0
            advance(self._state, self._bars, self._known_at, self._bar_us, self._series, 0, t)

    def _checked(self, bar: Any) -> tuple[int, int, tuple[float, ...]]:
        """Stamp, moment it is known, and values of a bar, or a DataError."""
        stamp, open_, high, low, close, volume = _parts(bar)
        at, zone = _moment(stamp)
        values = (open_, high, low, close, volume)
        if self._filled and at <= self._opened_at[self._filled - 1]:
            raise DataError(
                f"bar {clock.isoformat(at)} came after {clock.isoformat(int(self._opened_at[self._filled - 1]))}. "
                "Bars must strictly increase in UTC, each pushed once, after its close."
            )
        if self._filled and at < self._known_at[self._filled - 1] and not self._is_young:
            raise DataError(
                f"bar {clock.isoformat(at)} begins before the one of {clock.isoformat(int(self._opened_at[self._filled - 1]))} "
                f"has ended: the timeframe is {self._timeframe}. Pass the true timeframe to FeatureStream; days of a "
                "market with clock changes need stamps with their time zone."
            )
        if not (0.0 < low <= min(open_, close) * _ABOVE and max(open_, close) * _BELOW <= high < math.inf):
            prices = ", ".join(f"{name} {value:g}" for name, value in zip(_PRICES, values, strict=False))
            raise DataError(
                f"bar {clock.isoformat(at)} has {prices}. Prices must be known, positive and finite, High the highest and "
                "Low the lowest."
            )
        if volume < 0.0 or volume == math.inf:
            raise DataError(
                f"bar {clock.isoformat(at)} has Volume {volume:g}. It must be finite, or NaN where unknown."
            )
        if self._timeframe is None:
            return at, at, values
        if self._n_seen == _N_INFERRED and not self._is_inferred:
            self._refuse_a_timeframe_too_small()
        return at, clock.bar_end(at if zone is None else zone, self._timeframe, self._bar_label), values

    def _refuse_a_timeframe_too_small(self) -> None:
        shortest = int(np.diff(self._opened_at[: self._filled]).min())
        if shortest > 1.5 * self._bar_us:
            raise DataError(
                f"timeframe is {self._timeframe!r}, but no two of the first {self._filled} bars lie closer together than "
                f"{timedelta(microseconds=shortest)}. Begin anew with the true timeframe."
            )

    def _make_room(self) -> None:
        for array in (self._bars, self._series):
            array[:, : self._keep] = array[:, -self._keep :]
        for stamps in (self._opened_at, self._known_at):
            stamps[: self._keep] = stamps[-self._keep :]
        self._filled = self._keep

    def _fill_user(self, out: FloatArray, t: int) -> None:
        recent = slice(max(0, t + 1 - self._keep), t + 1)
        frame = pd.DataFrame(
            self._bars[:, recent].T,
            index=pd.DatetimeIndex(self._opened_at[recent].view("M8[us]"), tz="UTC"),
            columns=[*_PRICES, "Volume"],
        )
        for place, feature in enumerate(CATALOGUE[N_BUILT_IN:], N_BUILT_IN):
            out[place] = user_values(feature, frame)[-1]


def _parts(bar: Any) -> tuple[Any, float, float, float, float, float]:
    """Stamp, open, high, low, close and volume of a bar in any of the accepted forms."""
    if isinstance(bar, (pd.Series, Mapping)):
        named = {str(key).strip().lower(): value for key, value in bar.items()}
        named = {_ALIASES.get(key, key): value for key, value in named.items()}
        label = getattr(bar, "name", None)
        stamp = next((named[key] for key in _STAMPS if key in named), label if isinstance(label, datetime) else None)
        missing = [name for name in _PRICES if name.lower() not in named]
        if missing:
            raise DataError(f"the bar has no {missing[0]}; found {sorted(named)[:10]}. A bar needs a stamp and prices.")
        bar = (stamp, *(named[name.lower()] for name in _PRICES), named.get("volume", math.nan))
    bar = bar.tolist() if isinstance(bar, np.ndarray) else bar
    if not isinstance(bar, Sequence) or isinstance(bar, str) or len(bar) not in (5, 6):
        raise DataError(f"{bar!r} is no bar. Push (stamp, open, high, low, close, volume), a mapping or a Series.")
    try:
        stamp, open_, high, low, close = bar[0], float(bar[1]), float(bar[2]), float(bar[3]), float(bar[4])
        volume = math.nan if len(bar) == 5 or bar[5] is None or bar[5] is pd.NA else float(bar[5])
    except (TypeError, ValueError) as error:
        raise DataError(
            f"the bar {tuple(bar)!r} holds what is no number: {error}. Prices and volume are numbers."
        ) from None
    return stamp, open_, high, low, close, volume


def _moment(stamp: Any) -> tuple[int, pd.Timestamp | None]:
    """UTC microseconds, and the stamp itself where it knows its time zone, by which days are lengthened."""
    if isinstance(stamp, (int, np.integer)) and _FIRST_MICROS <= stamp < 10**18:
        return int(stamp), None
    try:
        if isinstance(stamp, (int, float, np.number)):
            raise ValueError("it is no count of UTC microseconds; seconds and milliseconds must be multiplied")
        moment = pd.Timestamp(stamp)
        if pd.isna(moment):
            raise ValueError("it is missing")
        return clock.from_datetime(moment), None if moment.tz is None else moment
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"the bar's stamp {stamp!r} is no time: {error}. Use a datetime, ISO 8601 or UTC microseconds."
        ) from None
