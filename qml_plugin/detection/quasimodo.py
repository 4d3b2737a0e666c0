"""The Quasimodo: a higher head, a break of the structure below it, and the way back to the left shoulder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qml_plugin.bars import Bars
from qml_plugin.detection.swings import Swing, directional_change_swings, refuse_unless_positive
from qml_plugin.errors import DataError
from qml_plugin.features.kernels import wilder_atr
from qml_plugin.records import FloatArray, Point, Setup


def find_quasimodo(
    bars: Bars,
    *,
    atr_period: int = 14,
    swing_atr: float = 1.0,
    min_depth_ratio: float = 0.1,
    max_depth_ratio: float = 2.0,
    shoulder_tolerance: float = 0.5,
    stop_loss_atr: float = 0.5,
    take_profit_rr: float = 2.0,
    max_wait_bars: int = 100,
) -> list[Setup]:
    """Quasimodo setups of both sides, in the order in which they became known.

    The bearish one is made of five swings that follow one another, and a retest:

    - an up-trend: the low P2 lies above the low before the left shoulder P1;
    - P1, the left shoulder: a swing high;
    - P2: the next swing low, whose break is the change of character;
    - P3, the head: the next swing high, above P1 by `min_depth_ratio` to `max_depth_ratio` of the leg from P1 to P2;
    - P4, the break of structure: the next swing low, below P2;
    - P5, the entry: the first bar, from the one that confirmed P4 on, whose high comes within `shoulder_tolerance` ATRs
      of P1 or passes it. Its price is the close, at which the decision is made.

    A close beyond the head before or at the retest ends the setup; so do `max_wait_bars` bars without a retest. Every
    P1 to P4 gives one setup at most. The bullish one is the same on negated prices.

    Parameters
    ----------
    bars : Bars
        Of one symbol.
    atr_period : int, bars, default=14
        Period of Wilder's ATR, used for swings, tolerance and stop.
    swing_atr : float, ATRs, default=1.0
        How far the close must move away from an extreme to make it a swing.
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
        ``validity_score`` is the mean of four parts, each 0 to 1: entry near the shoulder (none at 1 ATR away), depth
        in the middle of its range, head as high as the break is deep, and as many bars from P1 to the head as from the
        head to the entry. A setup whose stop or target would not be a positive price is left out.

    Point in time
    -------------
    Setups with ``known_bar < n`` depend on bars[:n] only. ``known_bar`` is the bar of P5, whose close it needs.

    Raises
    ------
    DataError
        If a parameter is not positive, or `min_depth_ratio` is not below `max_depth_ratio`.
    """
    rule = _Rule(min_depth_ratio, max_depth_ratio, shoulder_tolerance, stop_loss_atr, take_profit_rr, max_wait_bars)
    swings = directional_change_swings(bars, atr_period=atr_period, threshold_atr=swing_atr)
    if not swings:
        return []
    atr = wilder_atr(bars.high, bars.low, bars.close, atr_period)
    mirrored = [Swing(swing.bar, -swing.px, not swing.is_high, swing.confirmed_bar) for swing in swings]
    bearish = _bearish(bars.high, bars.close, atr, swings, rule)
    bullish = [_mirror(setup) for setup in _bearish(-bars.low, -bars.close, atr, mirrored, rule)]
    setups = [setup for setup in bearish + bullish if min(setup.stop_px or 0.0, setup.target_px or 0.0) > 0]
    return sorted(setups, key=lambda setup: (setup.known_bar, setup.side, setup.points[0].bar))


@dataclass(frozen=True, slots=True)
class _Rule:
    min_depth_ratio: float
    max_depth_ratio: float
    shoulder_tolerance: float
    stop_loss_atr: float
    take_profit_rr: float
    max_wait_bars: int

    def __post_init__(self) -> None:
        refuse_unless_positive(**{name: getattr(self, name) for name in self.__slots__})
        if self.min_depth_ratio >= self.max_depth_ratio:
            raise DataError(
                f"min_depth_ratio is {self.min_depth_ratio!r} and max_depth_ratio {self.max_depth_ratio!r}: no head can "
                "fit between them. Pass min_depth_ratio < max_depth_ratio."
            )


def _bearish(high: FloatArray, close: FloatArray, atr: FloatArray, swings: list[Swing], rule: _Rule) -> list[Setup]:
    """Setups with a head on top, in the prices given, which are negative for the bullish ones."""
    setups = []
    for before, p1, p2, p3, p4 in zip(swings, swings[1:], swings[2:], swings[3:], swings[4:], strict=False):
        if not (p1.is_high and before.px < p2.px and p4.px < p2.px):
            continue
        depth_ratio = (p3.px - p1.px) / (p1.px - p2.px)
        if not rule.min_depth_ratio <= depth_ratio <= rule.max_depth_ratio:
            continue
        wait = slice(p4.confirmed_bar, p4.confirmed_bar + int(rule.max_wait_bars) + 1)
        is_over = close[wait] > p3.px
        is_retest = (high[wait] >= p1.px - rule.shoulder_tolerance * atr[wait]) & (atr[wait] > 0)
        first = int(np.argmax(is_over | is_retest))
        if is_retest[first] and not is_over[first]:
            setups.append(_setup((p1, p2, p3, p4), p4.confirmed_bar + first, close, atr, depth_ratio, rule))
    return setups


def _setup(
    swings: tuple[Swing, Swing, Swing, Swing],
    bar: int,
    close: FloatArray,
    atr: FloatArray,
    depth_ratio: float,
    rule: _Rule,
) -> Setup:
    p1, p2, p3, p4 = swings
    entry_px, unit = float(close[bar]), float(atr[bar])
    stop_px = p3.px + rule.stop_loss_atr * unit
    middle = (rule.min_depth_ratio + rule.max_depth_ratio) / 2
    parts = (
        1 - min(1.0, abs(entry_px - p1.px) / unit),
        1 - abs(depth_ratio - middle) / (rule.max_depth_ratio - middle),
        _balance(p3.px - p1.px, p2.px - p4.px),
        _balance(p3.bar - p1.bar, bar - p3.bar),
    )
    return Setup(
        pattern_type="bearish_qml",
        side=-1,
        points=(*(Point(swing.bar, swing.px, swing.confirmed_bar) for swing in swings), Point(bar, entry_px, bar)),
        known_bar=bar,
        stop_px=stop_px,
        target_px=entry_px - rule.take_profit_rr * (stop_px - entry_px),
        validity_score=sum(parts) / len(parts),
    )


def _balance(one: float, other: float) -> float:
    """1 for equal sizes, towards 0 the more they differ."""
    return min(one, other) / max(one, other)


def _mirror(setup: Setup) -> Setup:
    """The same setup on negated prices."""
    assert setup.stop_px is not None
    assert setup.target_px is not None
    return Setup(
        pattern_type="bullish_qml",
        side=-setup.side,
        points=tuple(Point(point.bar, -point.px, point.confirmed_bar) for point in setup.points),
        known_bar=setup.known_bar,
        stop_px=-setup.stop_px,
        target_px=-setup.target_px,
        validity_score=setup.validity_score,
    )
