"""Features of your own: a function of the bars joins the catalogue under ``user_…`` once it has been shown to be causal."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from qml_plugin.errors import DataError, LookAheadError
from qml_plugin.features.catalogue import CATALOGUE, Feature
from qml_plugin.features.versions import function_sha256
from qml_plugin.records import FloatArray

ENTRY_POINTS = "qml_plugin.features"
"""Group of entry points: each names a module whose import registers features, or a function that does."""

Values = Callable[[pd.DataFrame], Any]
F = TypeVar("F", bound=Values)

_LOCK = threading.Lock()
_N_CUTS = 6
_SCALES = (100.0, 1e-4, 1e5)


def user_feature(
    name: str, *, warmup: int, definition: str, window: int | None = None, source: str = ""
) -> Callable[[F], F]:
    """Decorator: the function's values become the feature ``user_<name>``, after a check on sample bars.

    Parameters
    ----------
    name : str
        Lower case letters, digits and underscores.
    warmup : int, bars
        First bar with a value; from there on the bars before the last `warmup` must not matter.
    definition : str
        What it means, in words: units, and when it is NaN.
    window : int, bars, optional
        Bars it looks at in earnest; ``warmup + 1`` unless given.
    source : str
        Author and year.

    Returns
    -------
    decorator
        Of a function that takes a frame of shape (n_bars, 5) with Open, High, Low, Close, Volume and a UTC index, and
        returns n_bars floats, NaN where there is no value. The function itself is handed back unchanged.

    Point in time
    -------------
    Value t may read bars 0..t. The function is run on sample series of three price levels, with gaps in time, still
    bars, and bars without trades or with unknown volume. Where only the bars after one are others, its values up to
    there must be the same bit for bit; where there are none, the same to 1e-9. The check cannot see what a function
    keeps outside of itself, or does on bars unlike the samples.

    Raises
    ------
    LookAheadError
        If a value changes when later bars do.
    DataError
        If the name is taken or malformed, the values have another shape or are infinite, or bars older than the
        warm-up still matter.

    Examples
    --------
    >>> @user_feature("body_3", warmup=2, definition="mean of (C - O) / C over 3 bars")
    ... def body_3(bars):
    ...     return ((bars.Close - bars.Open) / bars.Close).rolling(3).mean()
    >>> CATALOGUE["user_body_3"].window
    3
    >>> remove_user_feature("body_3")
    """
    full_name = f"user_{name}"
    if not (isinstance(name, str) and name.isascii() and name.isidentifier() and name.islower()):
        raise DataError(f"feature name {name!r} refused. Use lower case letters, digits and underscores.")
    _refuse_taken(full_name)
    for what, value, least in (("warmup", warmup, 0), ("window", 1 if window is None else window, 1)):
        if not isinstance(value, int) or value < least:
            raise DataError(f"{what} of {full_name} is {value!r}. It is a number of bars, {least} or more.")

    def register(function: F) -> F:
        try:
            code = function_sha256(function)
        except TypeError as error:
            raise DataError(f"{full_name} cannot be registered: {error}. Pass a function.") from error
        size = warmup + 1 if window is None else window
        feature = Feature(full_name, "user", size, warmup, definition, source, "bars", code, function)
        _check(feature)
        with _LOCK:
            _refuse_taken(full_name)
            CATALOGUE.replace((*CATALOGUE.features, feature))
        return function

    return register


def _refuse_taken(full_name: str) -> None:
    if full_name in CATALOGUE.names:
        name = full_name.removeprefix("user_")
        raise DataError(
            f"there is a feature {full_name} already. Choose another name, or remove_user_feature({name!r}) first."
        )


def remove_user_feature(name: str) -> None:
    """Take the feature ``user_<name>`` out of the catalogue; DataError if there is none."""
    with _LOCK:
        place, features = CATALOGUE.place(f"user_{name}"), CATALOGUE.features
        CATALOGUE.replace((*features[:place], *features[place + 1 :]))


def user_values(feature: Feature, bars: pd.DataFrame) -> FloatArray:
    """Values of a user's feature for every bar, NaN before its warm-up.

    Raises
    ------
    DataError
        If the function returns another number of values than bars, or an infinite one.
    """
    assert feature.function is not None
    values = np.array(feature.function(bars.copy()), dtype=np.float64)
    if values.shape != (len(bars),):
        raise DataError(f"{feature.name} gave values of shape {values.shape} for {len(bars)} bars. Return one a bar.")
    values[: feature.warmup] = np.nan
    infinite = np.flatnonzero(np.isinf(values))
    if len(infinite):
        raise DataError(
            f"{feature.name} is {values[infinite[0]]} at the bar of {bars.index[infinite[0]]}. "
            "Return NaN where there is no value."
        )
    return values


def load_entry_points() -> None:
    """Import the modules that other packages offer in the group `ENTRY_POINTS`; one that fails is named in a warning."""
    for point in entry_points(group=ENTRY_POINTS):
        try:
            loaded = point.load()
            if callable(loaded):
                loaded()
        except Exception as error:  # noqa: BLE001 whatever another package raises must not lock ours
            warnings.warn(
                f"features of the entry point {point.name!r} ({point.value}) are left out: {error}. "
                "Mend or uninstall that package; what was recorded with them belongs to another feature set.",
                RuntimeWarning,
                stacklevel=2,
            )


def _check(feature: Feature) -> None:
    name, warmup = feature.name, feature.warmup
    rng = np.random.default_rng(0)
    n = 2 * warmup + 200
    for level in _SCALES:
        sample, other = _sample_bars(n, rng, level, "2021-06-04"), _sample_bars(n, rng, 3.0 * level, "2023-02-01")
        full = user_values(feature, sample)
        spread = np.nanmax(np.abs(full), initial=0.0)
        for cut in _cuts(sample, warmup, rng):
            later = other.iloc[cut:].set_axis(other.index[cut:] - other.index[cut] + sample.index[cut - 1] + _STEP)
            changed = user_values(feature, pd.concat([sample.iloc[:cut], later]))[:cut]
            _refuse_look_ahead(name, full[:cut], changed, int(cut), 0.0)
            _refuse_look_ahead(name, full[:cut], user_values(feature, sample.iloc[:cut]), int(cut), 1e-9 * spread)
        dropped = n - warmup - 100
        late = user_values(feature, sample.iloc[dropped:])[warmup:]
        expected = full[dropped + warmup :]
        wrong = np.flatnonzero(~np.isclose(late, expected, rtol=0.0, atol=1e-9 * spread, equal_nan=True))
        if len(wrong):
            raise DataError(
                f"{name} depends on bars older than its warm-up of {warmup}: with the first {dropped} bars dropped it is "
                f"{late[wrong[0]]:g} instead of {expected[wrong[0]]:g}. Declare a longer warmup, in which the start is "
                "forgotten to 1e-9."
            )


def _cuts(sample: pd.DataFrame, warmup: int, rng: np.random.Generator) -> list[int]:
    """Bars before which the past ends: anywhere, and right after a bar that a backward fill would fill."""
    is_odd = (sample.Volume.isna(), sample.Volume == 0.0, sample.High == sample.Low, sample.Close.diff() == 0.0)
    cuts: list[int] = rng.integers(warmup + 1, len(sample) - 1, _N_CUTS).tolist()
    for mask in is_odd:
        after = np.flatnonzero(mask.to_numpy()[: len(sample) - 2]) + 1
        cuts += after[after > warmup][:1].tolist()
    return cuts


def _refuse_look_ahead(name: str, before: FloatArray, after: FloatArray, cut: int, tolerance: float) -> None:
    changed = np.flatnonzero(~np.isclose(before, after, rtol=0.0, atol=tolerance, equal_nan=True))
    if len(changed):
        bar = int(changed[0])
        raise LookAheadError(
            f"{name} looks ahead: at bar {bar} it is {before[bar]:g}, and {after[bar]:g} when the bars from {cut} on are "
            "others or absent. Value t may read bars 0..t only: no centred window, backward fill, shift(-1), last bar or "
            "whole-sample statistic."
        )


_STEP = pd.Timedelta("3h")


def _sample_bars(n: int, rng: np.random.Generator, level: float, start: str) -> pd.DataFrame:
    """A random walk with gaps in time, and with still bars, bars without trades and unknown volumes among the others."""
    is_still = rng.random(n) < 0.15
    close = level * np.exp(np.cumsum(np.where(is_still, 0.0, rng.normal(0.0, 0.01, n))))
    open_ = np.append(level, close[:-1]) * np.where(is_still, 1.0, np.exp(rng.normal(0.0, 0.002, n)))
    high = np.maximum(open_, close) * np.where(is_still, 1.0, np.exp(np.abs(rng.normal(0.0, 0.003, n))))
    low = np.minimum(open_, close) * np.where(is_still, 1.0, np.exp(-np.abs(rng.normal(0.0, 0.003, n))))
    hours = pd.to_timedelta(np.cumsum(rng.choice([1, 1, 1, 1, 2, 49], n)), unit="h")
    volume = rng.choice([1.0, 0.0, np.nan], n, p=[0.8, 0.15, 0.05]) * rng.lognormal(8.0, 1.0, n)
    columns = {"Open": open_, "High": high, "Low": low, "Close": close, "Volume": volume}
    return pd.DataFrame(columns, index=pd.Timestamp(start, tz="UTC") + hours)
