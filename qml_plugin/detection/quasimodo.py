"""The Quasimodo: a higher head, a break of the structure below it, and the way back to the left shoulder."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qml_plugin.bars import Bars
from qml_plugin.compiling import kernel
from qml_plugin.detection.swings import Swings, directional_changes, fractals, refuse_unless_positive
from qml_plugin.errors import DataError
from qml_plugin.features.kernels import wilder_atr
from qml_plugin.records import FloatArray, IntArray, Level, Point, Setup, Zone

SWING_MODELS = ("atr", "fractal")
SWEEP_BARS = 3
_ROW: Any = namedtuple("_ROW", "p1 p2 p3 p4 entry first_break change second_break sweep order_block")(*range(10))


def find_quasimodo(
    bars: Bars,
    *,
    swing_model: str = "atr",
    swing_atr: float = 1.0,
    fractal_bars: int = 3,
    atr_period: int = 14,
    min_depth_ratio: float = 0.1,
    max_depth_ratio: float = 2.0,
    shoulder_tolerance: float = 0.5,
    stop_loss_atr: float = 0.5,
    take_profit_rr: float = 2.0,
    max_wait_bars: int = 100,
) -> list[Setup]:
    """Quasimodo setups of both sides, in the order in which they became known.

    The bearish one is made of five swings that follow one another, and a retest:

    - an up-trend: the low P2 lies above P0, the low before the left shoulder;
    - P1, the left shoulder: a swing high;
    - P2: the next swing low;
    - P3, the head: the next swing high, above P1 by `min_depth_ratio` to `max_depth_ratio` of the leg from P1 to P2;
    - the change of character: a close below P2 after the head, by the time that P4 is confirmed;
    - P4, the low of that break: the next swing low, below P2;
    - P5, the entry: the first bar, from the one that confirmed P4 on, whose high comes within `shoulder_tolerance` ATRs
      of P1 or passes it. Its price is the close, at which the decision is made.

    A close beyond the head, from the head to the retest, ends the setup; so do `max_wait_bars` bars without a retest.
    Every P1 to P3 gives one setup at most. Where swings of one kind follow one another, the farthest so far counts. The
    bullish one is the same on negated prices.

    Parameters
    ----------
    bars : Bars
        Of one symbol.
    swing_model : {"atr", "fractal"}, default="atr"
        Swings by directional change (`directional_change_swings`), or by the bars around them (`fractal_swings`).
    swing_atr : float, ATRs, default=1.0
        With ``"atr"``: how far the close must move away from an extreme to make it a swing.
    fractal_bars : int, bars, default=3
        With ``"fractal"``: bars needed on each side of a swing.
    atr_period : int, bars, default=14
        Period of Wilder's ATR, used for swings, tolerance and stop.
    min_depth_ratio, max_depth_ratio : float, default=0.1 and 2.0
        Allowed height of the head above the left shoulder, in legs from P1 to P2.
    shoulder_tolerance : float, ATRs of the retest's bar, default=0.5
        How near to P1 the retest must come.
    stop_loss_atr : float, ATRs of the retest's bar, default=0.5
        Distance of the stop beyond the head.
    take_profit_rr : float, default=2.0
        Distance of the target, in distances from the entry's close to the stop.
    max_wait_bars : int, bars, default=100
        Longest wait for the retest, counted from the bar that confirmed P4.

    Returns
    -------
    list of Setup
        Sorted by ``known_bar``, bearish before bullish in one bar, then by the left shoulder. ``pattern_type`` is
        ``"bearish_qml"`` (side -1) or ``"bullish_qml"`` (side +1); ``points`` are P1 to P5, prices of real bars.
        ``levels`` (bearish; each with its first such bar, and left out where there was none):

        - ``"first break"``: a close above P1 on the way to the head, the last break with the trend;
        - ``"change of character"``: the close below P2, the first break against it;
        - ``"second break"``: a close below P0 by the time of the entry;
        - ``"sweep"``: at most 2 bars after the first one that trades above P1 on the way to the head, a close below P1:
          stops beyond the shoulder were taken, and the price came back.

        ``order_block`` is the range of the last rising bar of the leg to P1, up to P1's own bar, from which the fall to
        P2 began; None if no bar of the leg rises.
        ``validity_score`` is the mean of seven parts, each 0 to 1: entry near the shoulder (none at 1 ATR away), depth
        in the middle of its range, head as high as the break is deep, as many bars from P1 to the head as from the
        head to the entry; and 1 each for a second break, a sweep, and an entry bar that trades in the order block.
        A setup whose stop or target would not be a positive price is left out.

    Point in time
    -------------
    Setups with ``known_bar < n`` depend on bars[:n] only. ``known_bar`` is the bar of P5, whose close it needs.

    Raises
    ------
    DataError
        If a parameter is not positive, `swing_model` is unknown, or `min_depth_ratio` is not below `max_depth_ratio`.
    """
    rule = {
        "min_depth_ratio": min_depth_ratio, "max_depth_ratio": max_depth_ratio, "shoulder_tolerance": shoulder_tolerance,
        "stop_loss_atr": stop_loss_atr, "take_profit_rr": take_profit_rr, "max_wait_bars": max_wait_bars,
    }  # fmt: skip
    refuse_unless_positive(swing_atr=swing_atr, fractal_bars=fractal_bars, atr_period=atr_period, **rule)
    if swing_model not in SWING_MODELS:
        raise DataError(f"swing_model is {swing_model!r}. Use one of {', '.join(SWING_MODELS)}.")
    if min_depth_ratio >= max_depth_ratio:
        raise DataError(
            f"min_depth_ratio is {min_depth_ratio!r} and max_depth_ratio {max_depth_ratio!r}: no head can "
            "fit between them. Pass min_depth_ratio < max_depth_ratio."
        )
    if len(bars) < atr_period:
        return []
    atr = wilder_atr(bars.high, bars.low, bars.close, int(atr_period))
    swings = directional_changes(bars, atr, swing_atr) if swing_model == "atr" else fractals(bars, int(fractal_bars))
    numbers = np.array(list(rule.values()), np.float64)
    prices = np.array([bars.open, bars.high, bars.low, bars.close])
    bearish = _search(prices, atr, swings.bar, swings.px, swings.is_high, swings.confirmed_bar, numbers)
    mirrored = -prices[[0, 2, 1, 3]]
    bullish = _search(mirrored, atr, swings.bar, -swings.px, ~swings.is_high, swings.confirmed_bar, numbers)
    setups = _setups(bars, swings, *bearish, -1) + _setups(bars, swings, *bullish, +1)
    return sorted(setups, key=lambda setup: (setup.known_bar, setup.side, setup.points[0].bar))


def _setups(bars: Bars, swings: Swings, rows: IntArray, values: FloatArray, side: int) -> list[Setup]:
    """Rows of a search as setups with the prices of the bars; `values` are on the prices that were searched."""
    at, px, confirmed_bar = swings.bar.tolist(), swings.px.tolist(), swings.confirmed_bar.tolist()
    levels = (("first break", _ROW.p1), ("change of character", _ROW.p2), ("second break", -1), ("sweep", _ROW.p1))
    setups = []
    for row, (stop_px, target_px, score, p0_px) in zip(
        rows.tolist(), (values * [-side, -side, 1, -side]).tolist(), strict=True
    ):
        if stop_px <= 0 or target_px <= 0:
            continue
        entry, block = row[_ROW.entry], row[_ROW.order_block]
        swing = [Point(at[i], px[i], confirmed_bar[i]) for i in row[:4]]
        setups.append(
            Setup(
                pattern_type="bearish_qml" if side < 0 else "bullish_qml",
                side=side,
                points=(*swing, Point(entry, float(bars.close[entry]), entry)),
                known_bar=entry,
                stop_px=stop_px,
                target_px=target_px,
                validity_score=score,
                levels=tuple(
                    Level(name, p0_px if point < 0 else swing[point].px, bar)
                    for (name, point), bar in zip(levels, row[_ROW.first_break : _ROW.order_block], strict=True)
                    if bar >= 0
                ),
                order_block=Zone(float(bars.low[block]), float(bars.high[block]), block) if block >= 0 else None,
            )
        )
    return setups


@kernel
def _search(
    prices: FloatArray,
    atr: FloatArray,
    swing_bar: IntArray,
    swing_px: FloatArray,
    is_high: NDArray[np.bool_],
    confirmed_bar: IntArray,
    rule: FloatArray,
) -> tuple[IntArray, FloatArray]:
    """Setups with a head on top: `_ROW` of places of swings and bars (-1: none); stop, target, score, price of P0."""
    n = len(swing_bar)
    rows, values = np.empty((n, 10), np.int64), np.empty((n, 4))
    chain = np.empty(n, np.int64)  # places of the swings that alternate: of a run of one kind, the farthest so far
    count, length, settled = 0, 0, -1
    for j in range(n):
        if length > 0 and is_high[chain[length - 1]] == is_high[j]:
            gained = swing_px[j] - swing_px[chain[length - 1]]
            if (gained if is_high[j] else -gained) <= 0:
                continue
            chain[length - 1] = j
        else:
            chain[length] = j
            length += 1
        if length < 5 or is_high[j]:
            continue
        p0, p1, p2, p3 = chain[length - 5], chain[length - 4], chain[length - 3], chain[length - 2]
        if p3 == settled or not (swing_px[p0] < swing_px[p2] < swing_px[p1] and swing_px[j] < swing_px[p2]):
            continue
        depth_ratio = (swing_px[p3] - swing_px[p1]) / (swing_px[p1] - swing_px[p2])
        if not rule[0] <= depth_ratio <= rule[1]:
            continue
        change = _first_beyond(-prices[3], -swing_px[p2], swing_bar[p3] + 1, confirmed_bar[j])
        if change < 0:
            continue
        last = min(confirmed_bar[j] + int(rule[5]), prices.shape[1] - 1)
        for later in range(j + 1, n):  # until a lower low takes the place of P4
            if is_high[later]:
                break
            if swing_px[later] < swing_px[j]:
                last = min(last, confirmed_bar[later] - 1)
                break
        over = _first_beyond(prices[3], swing_px[p3], swing_bar[p3] + 1, last)
        entry = -1
        for t in range(confirmed_bar[j], last + 1):
            if atr[t] > 0 and prices[1, t] >= swing_px[p1] - rule[2] * atr[t]:
                entry = t
                break
        if over >= 0 and (entry < 0 or over <= entry):
            settled = p3
            continue
        if entry < 0:
            continue
        settled = p3
        _describe(
            prices,
            atr,
            swing_bar,
            swing_px,
            (p0, p1, p2, p3, j),
            (entry, change),
            depth_ratio,
            rule,
            rows[count],
            values[count],
        )
        count += 1
    return rows[:count], values[:count]


@kernel
def _first_beyond(px: FloatArray, level: float, first: int, last: int) -> int:
    """First bar from `first` to `last` whose price lies above the level; -1 if none does."""
    for t in range(first, last + 1):
        if px[t] > level:
            return t
    return -1


@kernel
def _describe(
    prices: FloatArray,
    atr: FloatArray,
    swing_bar: IntArray,
    swing_px: FloatArray,
    swings: tuple[int, int, int, int, int],
    bars: tuple[int, int],
    depth_ratio: float,
    rule: FloatArray,
    row: IntArray,
    value: FloatArray,
) -> None:
    """Fill one row of `_search`: what else was seen, stop, target and score."""
    p0, p1, p2, p3, p4 = swings
    entry, change = bars
    row[0], row[1], row[2], row[3] = p1, p2, p3, p4
    row[_ROW.entry], row[_ROW.change] = entry, change
    row[_ROW.first_break] = _first_beyond(prices[3], swing_px[p1], swing_bar[p2] + 1, swing_bar[p3])
    row[_ROW.second_break] = _first_beyond(-prices[3], -swing_px[p0], swing_bar[p3] + 1, entry)
    beyond = _first_beyond(prices[1], swing_px[p1], swing_bar[p2] + 1, swing_bar[p3])
    row[_ROW.sweep] = _first_beyond(-prices[3], -swing_px[p1], beyond, min(beyond + SWEEP_BARS - 1, entry))
    block = swing_bar[p1]
    while block > swing_bar[p0] and not prices[3, block] > prices[0, block]:
        block -= 1
    row[_ROW.order_block] = block if block > swing_bar[p0] else -1
    close = prices[3, entry]
    stop = swing_px[p3] + rule[3] * atr[entry]
    value[0], value[1], value[3] = stop, close - rule[4] * (stop - close), swing_px[p0]
    middle = (rule[0] + rule[1]) / 2
    parts = 1.0 - min(1.0, abs(close - swing_px[p1]) / atr[entry])
    parts += 1.0 - abs(depth_ratio - middle) / (rule[1] - middle)
    parts += _balance(swing_px[p3] - swing_px[p1], swing_px[p2] - swing_px[p4])
    parts += _balance(swing_bar[p3] - swing_bar[p1], entry - swing_bar[p3])
    parts += row[_ROW.second_break] >= 0
    parts += row[_ROW.sweep] >= 0
    if block > swing_bar[p0]:
        parts += prices[1, entry] >= prices[2, block] and prices[2, entry] <= prices[1, block]
    value[2] = parts / 7


@kernel
def _balance(one: float, other: float) -> float:
    """1 for equal sizes, towards 0 the more they differ."""
    return min(one, other) / max(one, other)
