"""The Quasimodo read aloud: bar after bar as a trader would live it, slowly."""

from __future__ import annotations

import dataclasses

from qml_plugin.features.kernels import wilder_atr
from qml_plugin.records import Level, Point, Setup, Zone


def slow_setups(bars, swings, *, tolerance=0.5, depth=(0.1, 2.0), stop_atr=0.5, rr=2.0, max_wait=100):
    """Setups of both sides; the bullish ones are found on prices turned upside down."""
    turned = dataclasses.replace(bars, open=-bars.open, high=-bars.low, low=-bars.high, close=-bars.close)
    mirrored = [dataclasses.replace(swing, px=-swing.px, is_high=not swing.is_high) for swing in swings]
    atr = wilder_atr(bars.high, bars.low, bars.close, 14)
    rules = (tolerance, depth, stop_atr, rr, max_wait)
    bearish = _with_a_head_on_top(bars, swings, atr, *rules)
    bullish = [_upside_down(setup) for setup in _with_a_head_on_top(turned, mirrored, atr, *rules)]
    both = [setup for setup in bearish + bullish if setup.stop_px > 0 and setup.target_px > 0]
    return sorted(both, key=lambda setup: (setup.known_bar, setup.side, setup.points[0].bar))


def alternating(swings):
    """Of a run of swings of one kind only the farthest so far."""
    kept = []
    for swing in swings:
        if kept and kept[-1].is_high == swing.is_high:
            if (swing.px > kept[-1].px) if swing.is_high else (swing.px < kept[-1].px):
                kept[-1] = swing
        else:
            kept.append(swing)
    return kept


def _with_a_head_on_top(bars, swings, atr, tolerance, depth, stop_atr, rr, max_wait):
    setups, finished = [], set()
    for t in range(len(bars)):
        known = alternating([swing for swing in swings if swing.confirmed_bar <= t])
        for p0, p1, p2, p3, p4 in zip(known, known[1:], known[2:], known[3:], known[4:], strict=False):
            if not p1.is_high or p3.bar in finished or t > p4.confirmed_bar + max_wait:
                continue
            if not (p0.px < p2.px < p1.px < p3.px and p4.px < p2.px):
                continue
            if not depth[0] <= (p3.px - p1.px) / (p1.px - p2.px) <= depth[1]:
                continue
            changes = [u for u in range(p3.bar + 1, p4.confirmed_bar + 1) if bars.close[u] < p2.px]
            if not changes:
                continue
            if any(bars.close[u] > p3.px for u in range(p3.bar + 1, t + 1)):
                finished.add(p3.bar)
            elif bars.high[t] >= p1.px - tolerance * atr[t] and atr[t] > 0:
                finished.add(p3.bar)
                setups.append(_setup(bars, atr, (p0, p1, p2, p3, p4), changes[0], t, depth, stop_atr, rr))
    return setups


def _setup(bars, atr, swings, change, t, depth, stop_atr, rr):
    p0, p1, p2, p3, p4 = swings
    firsts = [u for u in range(p2.bar + 1, p3.bar + 1) if bars.close[u] > p1.px]
    seconds = [u for u in range(p3.bar + 1, t + 1) if bars.close[u] < p0.px]
    beyond = next(u for u in range(p2.bar + 1, p3.bar + 1) if bars.high[u] > p1.px)
    sweeps = [u for u in range(beyond, beyond + 3) if u <= t and bars.close[u] < p1.px]
    named = (
        ("first break", p1, firsts),
        ("change of character", p2, [change]),
        ("second break", p0, seconds),
        ("sweep", p1, sweeps),
    )
    rising = [u for u in range(p0.bar + 1, p1.bar + 1) if bars.close[u] > bars.open[u]]
    block = Zone(bars.low[rising[-1]], bars.high[rising[-1]], rising[-1]) if rising else None
    close = float(bars.close[t])
    stop = p3.px + stop_atr * atr[t]
    middle, ratio = sum(depth) / 2, (p3.px - p1.px) / (p1.px - p2.px)
    heights, times = (p3.px - p1.px, p2.px - p4.px), (p3.bar - p1.bar, t - p3.bar)
    parts = [
        1 - min(1, abs(close - p1.px) / atr[t]),
        1 - abs(ratio - middle) / (depth[1] - middle),
        min(heights) / max(heights),
        min(times) / max(times),
        bool(seconds),
        bool(sweeps),
        block is not None and bars.high[t] >= block.low_px and bars.low[t] <= block.high_px,
    ]
    points = tuple(Point(swing.bar, swing.px, swing.confirmed_bar) for swing in (p1, p2, p3, p4))
    return Setup(
        "bearish_qml", -1, (*points, Point(t, close, t)), t, stop, close - rr * (stop - close), sum(parts) / 7,
        tuple(Level(name, swing.px, bars_of[0]) for name, swing, bars_of in named if bars_of), block,
    )  # fmt: skip


def _upside_down(setup):
    block = setup.order_block
    return dataclasses.replace(
        setup,
        pattern_type="bullish_qml",
        side=1,
        points=tuple(dataclasses.replace(point, px=-point.px) for point in setup.points),
        stop_px=-setup.stop_px,
        target_px=-setup.target_px,
        levels=tuple(dataclasses.replace(level, px=-level.px) for level in setup.levels),
        order_block=block and Zone(-block.high_px, -block.low_px, block.bar),
    )
