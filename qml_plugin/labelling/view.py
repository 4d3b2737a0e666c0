"""A registered pattern as a person sees it: the bars around the decision, the order's levels, the setup, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qml_plugin.bars import Bars
from qml_plugin.clock import from_datetime
from qml_plugin.errors import DataError
from qml_plugin.labelling.key_features import key_features
from qml_plugin.report.views import PatternView

_PRICES = ("open", "high", "low", "close")
_FEWEST_BEFORE = 20
_FEWEST_AFTER = 20
_MARGIN = 5
_BEFORE_SHARE = 2 / 3
_MOST_SETUP_ROWS = 100_000
_POINT_WORDS = {
    3: ("left shoulder", "head", "right shoulder"),
    5: ("left shoulder", "change of character", "head", "break of structure", "entry"),
}


def pattern_view(
    pattern: Mapping[str, Any], found: tuple[Bars, int] | None, *, n_bars: int, hide_future: bool = False
) -> PatternView:
    """What to show of a pattern to a person who labels it.

    Parameters
    ----------
    pattern : mapping
        As from `PatternRegistry.get_pattern`.
    found : (Bars, int) or None
        A series of its market and the position of its decision bar in it; None where there is none.
    n_bars : int
        Bars that there is room for. The setup, 20 bars before the decision and what happened up to the exit are shown
        even if they are more; the bars are then a multiple of `n_bars`.
    hide_future : bool, default=False
        Whether to show nothing that was not known at the decision: no later bar, no outcome, no fill.

    Returns
    -------
    PatternView

    Point in time
    -------------
    Shows bars after the decision on purpose, for a person's eye; nothing that decides may read it. With `hide_future`
    it depends on the bars up to the decision and on the order alone.
    """
    bar, order = _decision_bar(pattern), pattern["order"] or {}
    points = [
        (int(point["bar"]) - bar, float(point["px"]))
        for point in (pattern["setup"] or {}).get("points", ())
        if int(point["bar"]) <= bar
    ]
    reach = -min((offset for offset, _ in points), default=0)
    is_resolved = pattern["barrier_outcome"] is not None and not hide_future
    exit_row = None
    if found is None:
        opened_at, prices = np.empty(0, np.int64), dict.fromkeys(_PRICES, np.empty(0))
        entry_row = min(reach, _MOST_SETUP_ROWS)
        n_rows = entry_row + 1
    else:
        bars, at = found
        exit_bar = _exit_bar(bars, at, pattern) if is_resolved else None
        window = _window(len(bars), at, reach, exit_bar, n_bars, hide_future)
        opened_at, prices = bars.opened_at[window], {name: getattr(bars, name)[window] for name in _PRICES}
        entry_row, n_rows = at - window.start, len(opened_at)
        exit_row = None if exit_bar is None else exit_bar - window.start
    names = _POINT_WORDS.get(len(points), ())
    return PatternView(
        title=f"{pattern['symbol']} {pattern['timeframe']}",
        pattern_id=pattern["pattern_id"],
        pattern_type=pattern["pattern_type"],
        strategy=pattern["strategy"],
        symbol=pattern["symbol"],
        timeframe=pattern["timeframe"],
        side=int(pattern["side"]),
        detection_at=from_datetime(pattern["detection_time"]),
        opened_at=opened_at,
        **prices,
        n_rows=n_rows,
        entry_row=entry_row,
        exit_row=exit_row,
        entry_px=_entry_px(pattern, order, hide_future),
        stop_px=_price(pattern["stop_px"]),
        target_px=_price(pattern["target_px"]),
        points=tuple(
            (entry_row + offset, px, f"P{i}") for i, (offset, px) in enumerate(points, 1) if entry_row + offset >= 0
        ),
        point_words=tuple(
            names[i] if i < len(names) else "point" for i, (offset, _) in enumerate(points) if entry_row + offset >= 0
        ),
        exit_reason=pattern["exit_reason"] if is_resolved else None,
        r_multiple=pattern["r_multiple"] if is_resolved else None,
        key_features=_facts(pattern),
        label=pattern["user_label"],
        trade_outcome=None if hide_future else pattern["trade_outcome"],
        is_future_hidden=hide_future,
    )


def bars_from_series(bars: Bars, pattern: Mapping[str, Any]) -> tuple[Bars, int] | None:
    """The series and the position of a pattern's decision bar in it, None where no bar has that very stamp."""
    moment = from_datetime(pattern["detection_time"])
    at = int(np.searchsorted(bars.opened_at, moment))
    return (bars, at) if at < len(bars) and bars.opened_at[at] == moment else None


def one_market(patterns: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Symbol and timeframe of all the patterns.

    Raises
    ------
    DataError
        If they are of more than one market, so that no single series can be that of all.
    """
    markets = sorted({(str(pattern["symbol"]), str(pattern["timeframe"])) for pattern in patterns})
    if len(markets) > 1:
        named = ", ".join(f"{symbol} {timeframe}" for symbol, timeframe in markets[:10])
        raise DataError(
            f"the patterns are of {len(markets)} markets ({named}), and a file of bars is of one. Choose one with --symbol "
            "and --timeframe."
        )
    return markets[0]


def _decision_bar(pattern: Mapping[str, Any]) -> int:
    """Position of the decision bar in the series that the setup's points count in."""
    if pattern["order"] is not None:
        return int(pattern["order"]["bar"])
    return int((pattern["setup"] or {}).get("known_bar", 0))


def _window(n_series: int, at: int, reach: int, exit_bar: int | None, n_bars: int, hide_future: bool) -> slice:
    """Setup, decision and exit with a margin; what room is left goes two thirds before and one third after."""
    before = max(_FEWEST_BEFORE, reach + _MARGIN)
    after = 0 if hide_future else _FEWEST_AFTER if exit_bar is None else exit_bar - at + _MARGIN
    per_column = -(-(1 + before + after) // n_bars)  # bars that share a column where there are not enough columns
    n_bars *= per_column
    n_bars -= 2 * (per_column - 1)  # a column on either side of the decision need not be full
    spare = max(0, n_bars - 1 - before - after)
    before = min(at, before + (spare if hide_future else round(spare * _BEFORE_SHARE)))
    after = 0 if hide_future else max(after, n_bars - 1 - before)
    return slice(at - before, min(n_series, at + 1 + after))


def _exit_bar(bars: Bars, at: int, pattern: Mapping[str, Any]) -> int | None:
    """Position of the bar at whose close the outcome became known."""
    moment = from_datetime(pattern["resolved_at"])
    found = int(np.searchsorted(bars.known_at, moment))
    return found if at <= found < len(bars) and bars.known_at[found] == moment else None


def _entry_px(pattern: Mapping[str, Any], order: Mapping[str, Any], hide_future: bool) -> float:
    """The fill, or what the order asked for where there was none or it is not to be seen."""
    asked = (order.get(name) for name in ("limit_px", "trigger_px", "reference_px"))
    fill = None if hide_future else pattern["entry_px"]
    return next((_price(px) for px in (fill, *asked) if px is not None), math.nan)


def _price(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan


def _facts(pattern: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    score = pattern["validity_score"]
    said = () if score is None else (("validity_score", f"validity {score:.2f}"),)
    return said + key_features(pattern["features"])
