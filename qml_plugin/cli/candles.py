"""A pattern as candles made of characters: lines of text in their width, nothing printed.

A bar is a column, or several bars are where the width is less. Heights have half a line's resolution. Rising bodies are
heavy lines, falling ones full blocks, so that no colour is needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from rich.cells import cell_len, set_cell_size

from qml_plugin.clock import isoformat
from qml_plugin.records import FloatArray, IntArray
from qml_plugin.report.views import PatternView

_NONE, _WICK, _BODY = 0, 1, 2
# (upper half, lower half) of a cell; a half body hides the half wick beside it where there is no sign for both.
_RISING = {
    (_NONE, _WICK): "╷", (_WICK, _NONE): "╵", (_WICK, _WICK): "│", (_NONE, _BODY): "╻", (_BODY, _NONE): "╹",
    (_BODY, _BODY): "┃", (_WICK, _BODY): "╽", (_BODY, _WICK): "╿",
}  # fmt: skip
_FALLING = _RISING | {
    (_NONE, _BODY): "▄", (_BODY, _NONE): "▀", (_BODY, _BODY): "█", (_WICK, _BODY): "▄", (_BODY, _WICK): "▀",
}  # fmt: skip
_LEVELS = {"target": "┈", "entry": "─", "stop": "┄"}
_POINT_SIGNS = "123456789"
_EXIT, _DECISION, _NOW, _PATH = "◆", "▲", "┊", "·"
_FEWEST_COLUMNS = 12
_LEVEL_REACH = 8  # columns that a level goes back from a decision with nothing after it
_FAR = 1.0  # a level so many ranges of the bars away would squash them; it stands at the edge instead
_DAY_US = 86_400_000_000


def chart_lines(view: PatternView, width: int, height: int) -> list[str]:
    """The bars around the decision with entry, stop, target, setup and exit; none longer than `width` cells.

    Parameters
    ----------
    view : PatternView
        What to draw; without bars, its setup and its levels.
    width : int, cells, >= 1
        Scale and names of the levels give way where it is narrow.
    height : int, >= 3
        Lines of the price chart; two more tell the times.

    Returns
    -------
    list of str, shape (height + 2,)
        Empty where there is no price at all.
    """
    height = max(height, 3)
    scale = _scale(view, height)
    if scale is None:
        return []
    left, right = _gutters(view, scale, width)
    n_future = view.n_rows - view.entry_row - 1
    columns = _columns(view, max(1, width - left - right - (n_future > 0)))
    grid = _Grid(height, columns.n, scale)
    if view.has_bars:
        for column in range(columns.n):
            grid.candle(column, *(float(values[column]) for values in columns.prices))
    _draw_points(grid, view, columns)
    _draw_levels(grid, view, columns.decision)
    if view.exit_row is not None and math.isfinite(exit_px := _exit_px(view, view.exit_row)):
        grid.put(columns.of(view.exit_row), scale.row(exit_px), _EXIT)
    names = _level_names(view, scale) if right else {}
    price = {height - 1: scale.high, 0: scale.low} if left else {}
    split = columns.decision + 1
    lines = []
    for row in range(height - 1, -1, -1):
        text = "".join(grid.cells[row])
        if n_future > 0:
            text = text[:split] + _NOW + text[split:]
        scaled = f"{price[row]:>{left - 2}.6g} ┤" if row in price else " " * max(0, left - 1) + "│" * (left > 0)
        lines.append(set_cell_size(scaled + text + names.get(row, ""), width).rstrip())
    return [*lines, *(line[:width].rstrip() for line in _time_lines(view, columns, left, n_future > 0))]


def n_columns(prices: Sequence[float | None], width: int) -> int:
    """Columns for bars that a chart of that width has, judged by prices that it will name."""
    digits = max([7, *(len(f"{px:.6g}") for px in prices if px is not None)])  # 7 of six digits and a point
    room = width - (2 + digits) - (len(" target ") + digits) - 1
    return max(room, _FEWEST_COLUMNS)


@dataclass(frozen=True, slots=True)
class _Scale:
    """Prices onto half lines: `row` grows with the price, 0 at the bottom."""

    low: float
    high: float
    height: int

    def half(self, px: float) -> int:
        """Half line of a price; a spare line above and below is left to the signs of points."""
        margin = 2 if self.height >= 5 else 0
        last = 2 * self.height - 1 - 2 * margin
        frac = (px - self.low) / (self.high - self.low)
        return margin + round(min(max(frac, 0.0), 1.0) * last)

    def row(self, px: float) -> int:
        return self.half(px) // 2


def _scale(view: PatternView, height: int) -> _Scale | None:
    """From the lowest to the highest price drawn; levels and points far from the bars do not count."""
    planned = [px for px in (view.entry_px, view.stop_px, view.target_px) if math.isfinite(px)]
    planned += [px for _, px, _ in view.points if math.isfinite(px)]
    drawn = np.concatenate([view.high, view.low])
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) == 0:
        drawn = np.array(planned)
    if len(drawn) == 0:
        return None
    low, high = float(drawn.min()), float(drawn.max())
    reach = _FAR * (high - low)
    near = [px for px in planned if low - reach <= px <= high + reach] if reach > 0 else planned
    low, high = min([low, *near]), max([high, *near])
    if not high - low > 1e-12 * max(abs(low), abs(high)):
        pad = 0.005 * abs(high) or 1.0
        low, high = low - pad, high + pad
    return _Scale(low, high, height)


@dataclass(frozen=True, slots=True)
class _Columns:
    """Rows of the view as columns of the chart, so that none holds bars of before and after the decision."""

    per: int
    decision: int
    n: int
    entry_row: int
    prices: tuple[FloatArray, FloatArray, FloatArray, FloatArray]

    def of(self, row: int) -> int:
        """The column of a row."""
        return self.decision + math.ceil((row - self.entry_row) / self.per)


def _columns(view: PatternView, n_most: int) -> _Columns:
    n_before, n_after = view.entry_row + 1, view.n_rows - view.entry_row - 1
    per = 1
    while math.ceil(n_before / per) + math.ceil(n_after / per) > max(n_most, 1 + (n_after > 0)):
        per = max(per + 1, (n_before + n_after) // max(n_most, 1))
    decision = math.ceil(n_before / per) - 1
    n = decision + 1 + math.ceil(n_after / per)
    prices: tuple[FloatArray, ...] = (view.open, view.high, view.low, view.close)
    if view.has_bars and per > 1:
        groups: IntArray = decision + np.ceil((np.arange(view.n_rows) - view.entry_row) / per).astype(np.int64)
        starts = np.flatnonzero(np.diff(groups, prepend=-1))
        ends = np.append(starts[1:], view.n_rows) - 1
        high, low = np.maximum.reduceat(view.high, starts), np.minimum.reduceat(view.low, starts)
        prices = (view.open[starts], high, low, view.close[ends])
    return _Columns(per, decision, n, view.entry_row, prices)  # type: ignore[arg-type]


class _Grid:
    """Cells of the chart, row 0 at the bottom."""

    def __init__(self, height: int, width: int, scale: _Scale) -> None:
        self.cells = [[" "] * width for _ in range(height)]
        self.scale = scale
        self.spans: list[tuple[int, int] | None] = [None] * width

    def put(self, column: int, row: int, sign: str) -> None:
        self.cells[min(max(row, 0), len(self.cells) - 1)][column] = sign

    def candle(self, column: int, open_: float, high: float, low: float, close: float) -> None:
        """One bar; nothing where a price is missing."""
        if not all(map(math.isfinite, (open_, high, low, close))):
            return
        half = self.scale.half
        bottom, top = half(low), half(high)
        body = range(half(min(open_, close)), half(max(open_, close)) + 1)
        signs = _RISING if close >= open_ else _FALLING
        for row in range(bottom // 2, top // 2 + 1):
            upper, lower = (
                _BODY if at in body else _WICK if bottom <= at <= top else _NONE for at in (2 * row + 1, 2 * row)
            )
            self.cells[row][column] = signs[upper, lower]
        self.spans[column] = (bottom // 2, top // 2)


def _draw_points(grid: _Grid, view: PatternView, columns: _Columns) -> None:
    """Signs of the setup's points above a high and below a low; in their own place where there are no bars."""
    places = [(columns.of(row), px) for row, px, _ in view.points if math.isfinite(px)]
    if not view.has_bars:
        for (start, from_px), (end, to_px) in pairwise(places):
            for column in range(start, end + 1):
                px = from_px + (to_px - from_px) * (column - start) / max(end - start, 1)
                grid.put(column, grid.scale.row(px), _PATH)
    taken: set[tuple[int, int]] = set()
    for sign, (column, px) in zip(_POINT_SIGNS, places, strict=False):
        span, row, step = grid.spans[column], grid.scale.row(px), 1
        if span is not None:
            step = 1 if 2 * row >= sum(span) else -1
            row = span[1] + 1 if step > 0 else span[0] - 1
        while (column, row) in taken and 0 < row < len(grid.cells) - 1:
            row += step
        taken.add((column, row))
        grid.put(column, row, sign)


def _draw_levels(grid: _Grid, view: PatternView, decision: int) -> None:
    """Entry, stop and target from the decision on, behind everything else."""
    n_columns = len(grid.spans)
    first = decision if n_columns - decision > _LEVEL_REACH else max(0, n_columns - _LEVEL_REACH)
    for name, px in _levels(view):
        row = grid.cells[grid.scale.row(px)]
        for column in range(first, n_columns):
            if row[column] == " ":
                row[column] = _LEVELS[name]


def _levels(view: PatternView) -> list[tuple[str, float]]:
    levels = (("target", view.target_px), ("entry", view.entry_px), ("stop", view.stop_px))
    return [(name, px) for name, px in levels if math.isfinite(px)]


def _level_texts(view: PatternView, scale: _Scale) -> list[tuple[float, str]]:
    """Names and prices of the levels, highest first; an arrow where one lies beyond the chart."""
    found = []
    for name, px in sorted(_levels(view), key=lambda level: -level[1]):
        beyond = " ↑" if px > scale.high else " ↓" if px < scale.low else ""
        found.append((px, f" {name} {px:.6g}{beyond}"))
    return found


def _level_names(view: PatternView, scale: _Scale) -> dict[int, str]:
    """Line of each name: its own, or the next where that is taken."""
    texts = _level_texts(view, scale)
    rows: list[int] = []
    for px, _ in texts:
        rows.append(min([scale.row(px), *(row - 1 for row in rows[-1:])]))
    for i in range(len(rows) - 1, -1, -1):
        rows[i] = max([rows[i], 0, *(row + 1 for row in rows[i + 1 : i + 2])])
    return {row: text for row, (_, text) in zip(rows, texts, strict=True)}


def _gutters(view: PatternView, scale: _Scale, width: int) -> tuple[int, int]:
    """Cells for the scale on the left and the names of the levels on the right; 0 where there is no room."""
    left = 2 + max(len(f"{px:.6g}") for px in (scale.low, scale.high))
    right = max((cell_len(text) for _, text in _level_texts(view, scale)), default=0)
    if width - left - right < _FEWEST_COLUMNS:
        left = 0
    if width - left - right < _FEWEST_COLUMNS:
        right = 0
    return left, right


def _exit_px(view: PatternView, exit_row: int) -> float:
    """Price at which the barriers ended it: that of the barrier, or the close."""
    levels = {"stop": view.stop_px, "target": view.target_px}
    px = levels.get(view.exit_reason or "", math.nan)
    return px if math.isfinite(px) else float(view.close[exit_row])


def _time_lines(view: PatternView, columns: _Columns, left: int, has_future: bool) -> tuple[str, str]:
    """The axis with the decision marked, and under it the first, the decision's and the last time."""
    n_cells = columns.n + has_future
    axis = " " * max(0, left - 1) + ("└" if left else "")
    axis += "─" * columns.decision + _DECISION + "─" * (n_cells - columns.decision - 1)
    if not view.has_bars:
        return axis, " " * left + "bars before the decision: setup and levels only"
    is_daily = not np.any(view.opened_at % _DAY_US)
    start, end = (_stamp(int(view.opened_at[row]), is_daily) for row in (0, -1))
    decided = f"decided {_stamp(view.detection_at, is_daily)}"
    fits = columns.decision + len(decided) <= n_cells
    at = columns.decision if fits else max(0, columns.decision + 1 - len(decided))
    text = (start if len(start) < at else "").ljust(at) + decided
    if has_future and n_cells - len(text) > len(end):
        text = text.ljust(n_cells - len(end)) + end
    return axis, " " * left + text


def _stamp(at: int, is_daily: bool) -> str:
    return isoformat(at)[:10] if is_daily else isoformat(at)
