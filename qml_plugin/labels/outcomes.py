"""What became of an entry under its label rule: the only module that may read bars after the decision.

The result does not depend on the portfolio, so entries that were skipped are labelled like those that were taken.
"""

from __future__ import annotations

import numpy as np

from qml_plugin.bars import Bars
from qml_plugin.compiling import kernel
from qml_plugin.errors import DataError
from qml_plugin.records import BarrierRule, Entry, FloatArray, Outcome

_EXIT_REASONS = ("open", "stop", "target", "time")
# Keeps an R multiple finite on a market that does not move: a hundredth of a basis point of the price.
_LEAST_RISK = 1e-6
_Order = tuple[FloatArray, FloatArray, FloatArray, FloatArray, int, int, int, float, float, bool]


def check_rule(rule: BarrierRule) -> None:
    """Refuse a label rule under which nothing could be labelled.

    Raises
    ------
    DataError
        If a distance is not a positive finite number, or ``max_bars`` is not a whole number from 1 on.
    """
    if not isinstance(rule, BarrierRule):
        raise DataError(f"barriers is {rule!r}. Use BarrierRule(stop_atr=..., target_atr=..., max_bars=...).")
    for name in ("stop_atr", "target_atr"):
        value = getattr(rule, name)
        if not (isinstance(value, (int, float)) and 0 < value < float("inf")):
            raise DataError(f"{name} of the label rule is {value!r}. It is a distance in ATR: use a positive number.")
    if not (isinstance(rule.max_bars, int) and rule.max_bars >= 1):
        raise DataError(f"max_bars of the label rule is {rule.max_bars!r}. Use a whole number of bars from 1 on.")


def barriers_for(
    side: int,
    reference_px: float,
    atr_px: float,
    rule: BarrierRule,
    stop_px: float | None = None,
    target_px: float | None = None,
) -> tuple[float, float]:
    """Stop and target in force for the label of an entry.

    Parameters
    ----------
    side : {+1, -1}
    reference_px : float, price units
        Limit or trigger of a pending order, else the close of the decision bar.
    atr_px : float, price units, >= 0
        Average true range known at the decision.
    rule : BarrierRule
    stop_px, target_px : float, optional
        The order's own. One that lies on the wrong side of `reference_px` cannot be a barrier and counts as absent.

    Returns
    -------
    tuple of float, price units
        ``(stop, target)``; a missing one lies `rule`'s multiple of ATR away, and never closer than a hundredth of a
        basis point of the price.

    Point in time
    -------------
    Uses its arguments only.

    Raises
    ------
    DataError
        If `atr_px` or `reference_px` is not a usable number while a barrier must be derived from it.

    Examples
    --------
    >>> barriers_for(+1, 100.0, 2.0, BarrierRule(stop_atr=1.5, target_atr=3.0))
    (97.0, 106.0)
    """
    stop = stop_px if stop_px is not None and side * (reference_px - stop_px) > 0 else None
    target = target_px if target_px is not None and side * (target_px - reference_px) > 0 else None
    if (stop is None or target is None) and not (atr_px >= 0 and reference_px > 0):
        raise DataError(
            f"no barrier can be derived from ATR {atr_px} at price {reference_px}. "
            "Pass the order's own stop and target, or wait until the ATR is known."
        )
    least = reference_px * _LEAST_RISK
    if stop is None:
        stop = reference_px - side * max(rule.stop_atr * atr_px, least)
    if target is None:
        target = reference_px + side * max(rule.target_atr * atr_px, least)
    return float(stop), float(target)


def barrier_outcome(entry: Entry, bars: Bars, *, through_bar: int) -> Outcome | None:
    """Result of an entry as far as the bars up to `through_bar` decide it.

    A market order fills at the next open (``entry.fill == "open"``) or at the decision's close; a pending one at the
    first bar within ``max_bars`` that reaches it, at its price or at a better open. From the fill on, every bar is
    checked: a stop or target that the open has already passed fills at that open, and when one bar touches both, the
    stop counts. On the bar that fills a limit order only the stop is checked, because the target may have traded
    before the fill. The entry is closed at the close of the ``max_bars``-th bar so checked.

    Parameters
    ----------
    entry : Entry
    bars : Bars
        The series `entry` was made on.
    through_bar : int, bars
        Last bar that may be read.

    Returns
    -------
    Outcome or None
        None while the result is open, and for ever where a pending order is not reached in time.

    Point in time
    -------------
    Reads bars[: through_bar + 1]. ``resolved_at`` is the moment the close of the exit bar is known.

    References
    ----------
    López de Prado (2018), Advances in Financial Machine Learning, §3.4 (triple-barrier method); differs in: the
    barriers are the order's own prices, and a bar that touches both counts as the stop.
    """
    code, entry_bar, entry_px, exit_bar, exit_px = _walk(
        *_order(entry, bars, through_bar), entry.stop_px, entry.target_px, entry.rule.max_bars
    )
    if code == 0:
        return None
    return Outcome(
        entry_bar=entry_bar,
        entry_px=entry_px,
        exit_bar=exit_bar,
        exit_px=exit_px,
        exit_reason=_EXIT_REASONS[code],
        r_multiple=entry.side * (exit_px - entry_px) / abs(entry.reference_px - entry.stop_px),
        resolved_at=int(bars.known_at[exit_bar]),
    )


def fill_bar(entry: Entry, bars: Bars, *, through_bar: int) -> int | None:
    """Bar at which the entry's order fills, None if the bars up to `through_bar` do not reach it.

    Point in time
    -------------
    Reads bars[: through_bar + 1].
    """
    bar, _ = _fill(*_order(entry, bars, through_bar), entry.rule.max_bars)
    return bar if bar >= 0 else None


def _order(entry: Entry, bars: Bars, through_bar: int) -> _Order:
    """What the kernels need to find the fill; a missing price is NaN."""
    return (
        bars.open,
        bars.high,
        bars.low,
        bars.close,
        min(through_bar + 1, len(bars)),
        entry.bar,
        entry.side,
        np.nan if entry.limit_px is None else entry.limit_px,
        np.nan if entry.trigger_px is None else entry.trigger_px,
        entry.fill == "close",
    )


def last_resolving_bar(entry: Entry) -> int:
    """Last bar at which the entry can still resolve; after it an open entry was never filled."""
    return entry.bar + 2 * entry.rule.max_bars


@kernel
def _fill(
    open_: FloatArray,
    high: FloatArray,
    low: FloatArray,
    close: FloatArray,
    n_bars: int,
    bar: int,
    side: int,
    limit: float,
    trigger: float,
    at_close: bool,
    max_bars: int,
) -> tuple[int, float]:
    """Bar and price (mirrored for shorts) of the fill; bar -1 while there is none."""
    has_limit, has_trigger = not np.isnan(limit), not np.isnan(trigger)
    if not has_limit and not has_trigger:
        if at_close:
            return bar, side * close[bar]
        return (bar + 1, side * open_[bar + 1]) if bar + 1 < n_bars else (-1, 0.0)
    is_triggered = not has_trigger
    for i in range(bar + 1, min(bar + 1 + max_bars, n_bars)):
        price = side * open_[i]
        best, worst = (high[i], low[i]) if side > 0 else (-low[i], -high[i])
        if not is_triggered:
            if best < side * trigger:
                continue
            is_triggered = True
            price = max(price, side * trigger)
            if has_limit and price > side * limit:
                continue
            return i, price
        if worst <= side * limit:
            return i, min(price, side * limit)
    return -1, 0.0


@kernel
def _walk(
    open_: FloatArray,
    high: FloatArray,
    low: FloatArray,
    close: FloatArray,
    n_bars: int,
    bar: int,
    side: int,
    limit: float,
    trigger: float,
    at_close: bool,
    stop_px: float,
    target_px: float,
    max_bars: int,
) -> tuple[int, int, float, int, float]:
    """(exit code, entry bar, entry price, exit bar, exit price); prices are mirrored for shorts inside."""
    entry_bar, entry = _fill(open_, high, low, close, n_bars, bar, side, limit, trigger, at_close, max_bars)
    if entry_bar < 0:
        return 0, -1, 0.0, -1, 0.0
    stop, target = side * stop_px, side * target_px
    is_market = np.isnan(limit) and np.isnan(trigger)
    first = entry_bar + 1 if is_market and at_close else entry_bar
    last = first + max_bars - 1
    for i in range(first, min(last + 1, n_bars)):
        start = entry if i == entry_bar else side * open_[i]
        best, worst = (high[i], low[i]) if side > 0 else (-low[i], -high[i])
        if worst <= stop or start <= stop:
            return 1, entry_bar, side * entry, i, side * min(stop, start)
        if best >= target and (i > entry_bar or np.isnan(limit)):
            return 2, entry_bar, side * entry, i, side * max(target, start)
        if i == last:
            return 3, entry_bar, side * entry, i, close[i]
    return 0, entry_bar, side * entry, -1, 0.0
