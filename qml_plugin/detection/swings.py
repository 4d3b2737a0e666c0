"""Swings: turns of the price, by how far it has moved away from them or by the bars around them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qml_plugin.bars import Bars
from qml_plugin.compiling import kernel
from qml_plugin.errors import DataError
from qml_plugin.features.kernels import wilder_atr
from qml_plugin.records import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Swing:
    """A turning point; nobody can know it before the close of ``confirmed_bar``, which lies after ``bar``."""

    bar: int
    px: float
    is_high: bool
    confirmed_bar: int


def directional_change_swings(bars: Bars, *, atr_period: int = 14, threshold_atr: float = 1.0) -> list[Swing]:
    """Alternating swing highs and lows, in the order in which they were confirmed.

    A swing high is the highest high since the last swing low. It is confirmed by the first later bar whose close lies
    `threshold_atr` ATRs below it, where ATR is that of the bar of the high: the level that will confirm a swing is
    fixed when the extreme is made. Lows mirror this. The search begins at the first bar
    with an ATR. One bar confirms one swing at most, and the next swing is sought in the bars after the last extreme.

    Parameters
    ----------
    bars : Bars
        Of one symbol.
    atr_period : int, bars, default=14
        Period of Wilder's ATR.
    threshold_atr : float, ATRs, default=1.0
        How far the close must move away from an extreme.

    Returns
    -------
    list of Swing
        ``bar`` and ``confirmed_bar`` both increase strictly; empty where the bars are too few for an ATR.

    Point in time
    -------------
    Swings with ``confirmed_bar < n`` depend on bars[:n] only. The last extreme of the series, not yet confirmed, is
    not in the list. Ties: the first of equal highs wins.

    Raises
    ------
    DataError
        If a parameter is not positive.

    References
    ----------
    Guillaume et al. (1997), "From the bird's eye to the microscope", Finance and Stochastics 1, 95-129: directional
    changes; differs in: the threshold is in ATRs instead of a fixed return.
    """
    refuse_unless_positive(atr_period=atr_period, threshold_atr=threshold_atr)
    if len(bars) < atr_period:
        return []
    atr = wilder_atr(bars.high, bars.low, bars.close, int(atr_period))
    return directional_changes(bars, atr, threshold_atr).as_list()


def fractal_swings(bars: Bars, *, fractal_bars: int = 3) -> list[Swing]:
    """Swing highs and lows by the bars around them, in the order in which they were confirmed.

    A swing high is a high above those of the `fractal_bars` bars before it and not below those of the `fractal_bars`
    bars after it, the last of which confirms it. Lows mirror this. A bar that is both is neither. Highs and lows need
    not alternate.

    Parameters
    ----------
    bars : Bars
        Of one symbol.
    fractal_bars : int, bars, default=3
        Bars needed on each side.

    Returns
    -------
    list of Swing
        ``bar`` increases strictly; ``confirmed_bar`` is ``bar + fractal_bars``.

    Point in time
    -------------
    Swings with ``confirmed_bar < n`` depend on bars[:n] only. Ties: the first of equal highs wins.

    Raises
    ------
    DataError
        If `fractal_bars` is not a positive whole number.

    References
    ----------
    Williams (1995), Trading Chaos: fractals of two bars on each side; differs in: any number of bars, tie rule.
    """
    refuse_unless_positive(fractal_bars=fractal_bars)
    return fractals(bars, int(fractal_bars)).as_list()


@dataclass(frozen=True, slots=True, eq=False)
class Swings:
    """Swings as arrays of shape (n_swings,), in the order in which they were confirmed."""

    bar: IntArray
    px: FloatArray
    is_high: NDArray[np.bool_]
    confirmed_bar: IntArray

    def as_list(self) -> list[Swing]:
        columns = (self.bar.tolist(), self.px.tolist(), self.is_high.tolist(), self.confirmed_bar.tolist())
        return [Swing(*values) for values in zip(*columns, strict=True)]


def directional_changes(bars: Bars, atr: FloatArray, threshold_atr: float) -> Swings:
    """`directional_change_swings` as arrays, of an ATR that is at hand."""
    bar, is_high, confirmed_bar = _confirm(bars.high, bars.low, bars.close, atr, float(threshold_atr))
    return Swings(bar, np.where(is_high, bars.high[bar], bars.low[bar]), is_high, confirmed_bar)


def fractals(bars: Bars, fractal_bars: int) -> Swings:
    """`fractal_swings` as arrays."""
    is_high, is_low = _is_peak(bars.high, fractal_bars), _is_peak(-bars.low, fractal_bars)
    bar = np.flatnonzero(is_high != is_low)
    return Swings(bar, np.where(is_high[bar], bars.high[bar], bars.low[bar]), is_high[bar], bar + fractal_bars)


def _is_peak(px: FloatArray, k: int) -> NDArray[np.bool_]:
    """Above the k values before it, and not below the k after it."""
    n = len(px)
    out = np.zeros(n, np.bool_)
    if n > 2 * k:
        highest = np.lib.stride_tricks.sliding_window_view(px, k).max(axis=1)  # entry i: of px[i : i + k]
        middle = px[k : n - k]
        out[k : n - k] = (middle > highest[: n - 2 * k]) & (middle >= highest[k + 1 : n - k + 1])
    return out


def refuse_unless_positive(**parameters: float) -> None:
    """Refuse the first parameter that is not a positive, finite number; periods and waits must be whole."""
    for name, value in parameters.items():
        if not (np.isfinite(value) and value > 0):
            raise DataError(
                f"{name} is {value!r}. It must be a positive, finite number; pass one, or leave the default."
            )
        if name.endswith(("_period", "_bars")) and int(value) != value:
            raise DataError(f"{name} is {value!r}. It counts bars; pass a whole number.")


@kernel
def _confirm(
    high: FloatArray, low: FloatArray, close: FloatArray, atr: FloatArray, threshold_atr: float
) -> tuple[IntArray, np.ndarray, IntArray]:
    """Bars, kinds and confirming bars of the swings, one pass."""
    n = len(close)
    swing_bar, confirmed_bar = np.empty(n, np.int64), np.empty(n, np.int64)
    is_high = np.empty(n, np.bool_)
    count, start = 0, 0
    while start < n and np.isnan(atr[start]):
        start += 1
    top, bottom = start, start  # bars of the running extremes
    direction = 0  # the swing sought next: +1 a high, -1 a low, 0 whichever is confirmed first
    for t in range(start + 1, n):
        if high[t] > high[top]:
            top = t
        if low[t] < low[bottom]:
            bottom = t
        fall, rise = high[top] - close[t], close[t] - low[bottom]
        is_top = direction >= 0 and t > top and fall > 0 and fall >= threshold_atr * atr[top]
        is_bottom = direction <= 0 and t > bottom and rise > 0 and rise >= threshold_atr * atr[bottom]
        if is_top and is_bottom:
            if top == bottom:  # one wide bar holds both extremes: wait until one of them is passed
                continue
            is_top, is_bottom = top < bottom, bottom < top
        if not (is_top or is_bottom):
            continue
        extreme = top if is_top else bottom
        swing_bar[count], is_high[count], confirmed_bar[count] = extreme, is_top, t
        count += 1
        direction = -1 if is_top else 1
        top, bottom = extreme + 1, extreme + 1
        for k in range(extreme + 2, t + 1):
            if high[k] > high[top]:
                top = k
            if low[k] < low[bottom]:
                bottom = k
    return swing_bar[:count], is_high[:count], confirmed_bar[:count]
