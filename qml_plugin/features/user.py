"""Features of your own: a function of the bars joins the catalogue under ``user_…`` once it has been shown to be causal."""

from __future__ import annotations

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

_FUNCTIONS: dict[str, Values] = {}
_N_CUTS = 12


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
    Value t may read bars 0..t. The function is run on 12 pairs of sample series that differ after a bar only: its
    values up to there must be the same bit for bit.

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
    if not (name.isascii() and name.isidentifier() and name.islower()):
        raise DataError(f"feature name {name!r} refused. Use lower case letters, digits and underscores.")
    if full_name in CATALOGUE.names:
        raise DataError(
            f"there is a feature {full_name} already. Choose another name, or remove_user_feature({name!r})."
        )
    if warmup < 0:
        raise DataError(f"warmup of {full_name} is {warmup}. It counts the bars before the first value: 0 or more.")

    def register(function: F) -> F:
        _check(full_name, function, warmup)
        code = function_sha256(function)
        feature = Feature(full_name, "user", window or warmup + 1, warmup, definition, source, "bars", code)
        _FUNCTIONS[full_name] = function
        CATALOGUE.replace((*CATALOGUE, feature))
        return function

    return register


def remove_user_feature(name: str) -> None:
    """Take the feature ``user_<name>`` out of the catalogue; DataError if there is none."""
    place = CATALOGUE.place(f"user_{name}")
    del _FUNCTIONS[f"user_{name}"]
    CATALOGUE.replace((*CATALOGUE[:place], *CATALOGUE[place + 1 :]))


def user_values(feature: Feature, bars: pd.DataFrame) -> FloatArray:
    """Values of a user's feature for every bar, NaN before its warm-up.

    Raises
    ------
    DataError
        If the function returns another number of values than bars, or an infinite one.
    """
    values = np.array(_FUNCTIONS[feature.name](bars.copy()), dtype=np.float64)
    if values.shape != (len(bars),):
        raise DataError(f"{feature.name} gave values of shape {values.shape} for {len(bars)} bars. Return one a bar.")
    values[: feature.warmup] = np.nan
    infinite = np.flatnonzero(np.isinf(values))
    if len(infinite):
        raise DataError(
            f"{feature.name} is {values[infinite[0]]} at bar {infinite[0]}. Return NaN where there is no value."
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


def _check(name: str, function: Values, warmup: int) -> None:
    probe = Feature(name, "user", warmup + 1, warmup, "", "", "bars", "")
    n = 2 * warmup + 200
    rng = np.random.default_rng(0)
    sample, other = _sample_bars(n, rng), _sample_bars(n, rng)
    _FUNCTIONS[name] = function
    try:
        full = user_values(probe, sample)
        for cut in rng.integers(warmup + 1, n - 1, _N_CUTS):
            changed = pd.concat([sample.iloc[:cut], other.iloc[cut:]])
            _refuse_look_ahead(name, full[:cut], user_values(probe, changed)[:cut], int(cut))
        dropped = n - warmup - 100
        late = user_values(probe, sample.iloc[dropped:])[warmup:]
        spread = np.nanmax(np.abs(full), initial=0.0)
        wrong = np.flatnonzero(
            ~np.isclose(late, full[dropped + warmup :], rtol=0.0, atol=1e-9 * spread, equal_nan=True)
        )
        if len(wrong):
            raise DataError(
                f"{name} depends on bars older than its warm-up of {warmup}: with the first {dropped} bars dropped it is "
                f"{late[wrong[0]]:g} instead of {full[dropped + warmup + wrong[0]]:g}. Declare a longer warmup, in which "
                "the start is forgotten to 1e-9."
            )
    finally:
        del _FUNCTIONS[name]


def _refuse_look_ahead(name: str, before: FloatArray, after: FloatArray, cut: int) -> None:
    changed = np.flatnonzero(before.view(np.int64) != after.view(np.int64))
    changed = changed[~(np.isnan(before[changed]) & np.isnan(after[changed]))]
    if len(changed):
        bar = int(changed[0])
        raise LookAheadError(
            f"{name} looks ahead: at bar {bar} it is {before[bar]:g}, and {after[bar]:g} when the bars from {cut} on are "
            "others. Value t may read bars 0..t only: no centred window, backward fill, shift(-1) or whole-sample statistic."
        )


def _sample_bars(n: int, rng: np.random.Generator) -> pd.DataFrame:
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, n)))
    open_ = np.append(100.0, close[:-1]) * np.exp(rng.normal(0.0, 0.002, n))
    high = np.maximum(open_, close) * np.exp(np.abs(rng.normal(0.0, 0.003, n)))
    low = np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0.0, 0.003, n)))
    index = pd.date_range("2024-01-01", periods=n, freq="h", tz="UTC")
    volume = rng.lognormal(8.0, 1.0, n)
    return pd.DataFrame({"Open": open_, "High": high, "Low": low, "Close": close, "Volume": volume}, index=index)
