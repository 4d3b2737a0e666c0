from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from qml_plugin.bars import Bars
from qml_plugin.cli.candles import chart_lines, n_columns
from qml_plugin.cli.pattern_text import pattern_lines, wrapped
from qml_plugin.clock import isoformat
from qml_plugin.labelling.view import pattern_view
from tests.labelling.samples import pattern, series

RISING, FALLING, WICKS = "┃╹╻╽╿", "█▀▄", "│╵╷"
HOUR = 3_600_000_000


def bars_of(closes, spread=0.0, opens=None):
    close = np.asarray(closes, float)
    open_ = close if opens is None else np.asarray(opens, float)
    opened_at = 1_600_000_000_000_000 + HOUR * np.arange(len(close))
    high, low = np.maximum(open_, close) + spread, np.minimum(open_, close) - spread
    return Bars("WALK", "1h", opened_at, opened_at + HOUR, open_, high, low, close, np.full(len(close), np.nan))


def view_of(bars, at=None, **changes):
    """A view of all the bars, with no setup, levels or outcome unless asked for."""
    at = len(bars) - 1 if at is None else at
    bare = {"exit_bars": None, "n_points": 0, "stop_px": None, "target_px": None, "order": None}
    made = pattern_view(pattern(bars, at, **bare), (bars, at), n_bars=max(1, len(bars)))
    rows = {name: getattr(bars, name) for name in ("opened_at", "open", "high", "low", "close")}
    return dataclasses.replace(made, **rows, n_rows=len(bars), entry_row=at, **changes)


def plot(view, width=100, height=12):
    """Rows of the chart from the bottom, without the scale on the left."""
    lines = chart_lines(view, width, height)[:height]
    return [line.partition("┤" if "┤" in line else "│")[2] for line in lines][::-1]


def tops(rows, n):
    """Highest row with something in it, for each column."""
    return [max((r for r, row in enumerate(rows) if row.ljust(n)[c] != " "), default=-1) for c in range(n)]


prices = st.floats(1e-6, 1e9)
steps = st.lists(st.floats(-0.2, 0.2), min_size=1, max_size=120)


@st.composite
def views(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["walk", "flat", "jump", "missing"]))
    n = draw(st.integers(1, 150))
    close = draw(prices) * np.exp(np.cumsum(rng.normal(0, 0.0 if kind == "flat" else 0.02, n)))
    if kind == "jump":
        close[n // 2 :] *= 1e4
    open_ = close * np.exp(rng.normal(0, 0.0 if kind == "flat" else 0.01, n))
    if kind == "missing":
        close[rng.random(n) < 0.5] = np.nan
    at = draw(st.integers(0, n - 1))
    near = st.one_of(st.just(math.nan), st.floats(0.5, 2.0).map(lambda times: float(open_[at] * times)), prices)
    points = sorted(draw(st.lists(st.integers(0, at), max_size=11, unique=True)))
    return view_of(
        bars_of(close, opens=open_, spread=draw(st.sampled_from([0.0, float(open_[0] / 100)]))), at,
        entry_px=draw(near), stop_px=draw(near), target_px=draw(near),
        exit_row=draw(st.one_of(st.none(), st.integers(at, n - 1))), exit_reason=draw(st.sampled_from([None, "stop", "time"])),
        points=tuple((row, float(open_[row]), f"P{i}") for i, row in enumerate(points, 1)), point_words=("point",) * len(points),
    )  # fmt: skip


@given(views(), st.integers(1, 200), st.integers(1, 40))
def test_no_line_is_wider_than_asked_and_the_height_is_as_asked(view, width, height):
    lines = chart_lines(view, width, height)
    assert max(map(cell_len, lines), default=0) <= width
    assert len(lines) in (0, max(height, 3) + 2)
    assert all(line.isprintable() for line in lines)


@given(views(), st.integers(1, 200))
def test_everything_about_a_pattern_fits_too(view, width):
    assert max(map(cell_len, pattern_lines(view, width, 10))) <= width


@given(views(), st.integers(20, 200))
def test_without_bars_it_fits_too(view, width):
    empty = {name: np.empty(0) for name in ("open", "high", "low", "close")} | {"opened_at": np.empty(0, np.int64)}
    bare = dataclasses.replace(view, **empty, n_rows=view.entry_row + 1, exit_row=None)
    lines = chart_lines(bare, width, 10)
    assert max(map(cell_len, lines), default=0) <= width
    assert not any(set(line) & set(RISING + FALLING) for line in lines)


@given(steps, st.integers(3, 30))
def test_a_higher_price_is_never_drawn_lower(moves, height):
    closes = 100 * np.exp(np.cumsum(moves))
    n = len(closes)
    drawn = tops(plot(view_of(bars_of(closes)), width=n + 40, height=height), n)
    order = np.argsort(closes, kind="stable")
    heights = np.array(drawn)[order]
    assert (np.diff(heights) >= 0).all()
    assert (np.array(drawn) >= 0).all(), "every bar is drawn"


@given(views(), st.integers(15, 120))
def test_the_future_never_shares_a_column_with_the_past(view, width):
    """The columns left of the mark depend on the bars up to the decision alone, where the scale is the same."""
    at = view.entry_row
    lines = chart_lines(view, width, 10)
    if not lines or at == view.n_rows - 1:
        return
    future = {
        name: np.where(np.arange(view.n_rows) > at, getattr(view, name)[::-1].copy(), getattr(view, name))
        for name in ("open", "high", "low", "close")
    }
    changed = dataclasses.replace(view, **future, exit_row=None)
    if (np.nanmax(changed.high), np.nanmin(changed.low)) != (np.nanmax(view.high), np.nanmin(view.low)):
        return
    plain = dataclasses.replace(view, exit_row=None)
    before = [line.partition("┊")[0] for line in chart_lines(plain, width, 10)[:10]]
    assert before == [line.partition("┊")[0] for line in chart_lines(changed, width, 10)[:10]]


def test_rising_and_falling_bars_differ_without_colour():
    rows = plot(view_of(bars_of([11.0, 10.0], opens=[10.0, 11.0], spread=0.5)), height=12)
    columns = ["".join(row.ljust(2)[c] for row in rows) for c in range(2)]
    assert set(columns[0]) <= set(RISING + WICKS + " ")
    assert set(columns[1]) <= set(FALLING + WICKS + " ")
    assert "┃" in columns[0]
    assert "█" in columns[1]
    assert len(columns[0].strip()) == len(columns[1].strip())


def test_a_bar_is_as_high_as_its_slow_twin_says():
    """The obvious way: each half line asks the bar whether it is there."""
    bars = series(60)
    rows = plot(view_of(bars), width=120, height=15)
    low, high = bars.low.min(), bars.high.max()

    def half(px):
        return 2 + round((px - low) / (high - low) * 25)

    for column in range(60):
        is_there = [half(bars.low[column]) <= at <= half(bars.high[column]) for at in range(30)]
        drawn = [row.ljust(60)[column] != " " for row in rows]
        assert drawn == [is_there[2 * r] or is_there[2 * r + 1] for r in range(15)]


def test_several_bars_share_a_column_where_it_is_narrow():
    closes = np.repeat([10.0, 30.0, 20.0], 40)
    rows = plot(view_of(bars_of(closes)), width=44, height=9)
    width = max(len(row) for row in rows)
    assert 20 < width <= 40
    heights = tops(rows, width)
    assert heights[0] < heights[-1] < heights[width // 2]


def test_levels_points_exit_and_decision_are_marked_and_labelled():
    bars = series()
    view = pattern_view(pattern(bars), (bars, 100), n_bars=n_columns((100.0, 97.0), 100))
    lines = chart_lines(view, 100, 20)
    text = "\n".join(lines)
    for name, px, sign in (("target", view.target_px, "┈"), ("entry", view.entry_px, "─"), ("stop", view.stop_px, "┄")):
        (line,) = [line for line in lines if line.endswith(f" {name} {px:.6g}")]
        assert sign in line
    for sign in "12345◆▲":
        assert sign in text
    assert "decided 2020-01-05 04:00" in lines[-1]
    assert all(line.count("┊") == 1 for line in lines[:20])
    assert lines[-2].index("▲") + 1 == lines[0].index("┊")
    hidden = chart_lines(dataclasses.replace(view, exit_row=None), 100, 20)
    assert "◆" not in "\n".join(hidden)


def test_a_level_far_away_stands_at_the_edge_and_squashes_nothing():
    bars = series()
    near, far = (view_of(bars, stop_px=float(bars.low.min()), target_px=px) for px in (math.nan, 1e6))
    assert tops(plot(near, 250, 12), 190) == tops(plot(far, 250, 12), 190)
    assert chart_lines(far, 250, 12)[1].endswith(" target 1e+06 ↑")


def test_names_of_levels_that_meet_stand_one_under_the_other():
    bars = series()
    px = float(bars.close[-1])
    lines = chart_lines(view_of(bars, entry_px=px, stop_px=px * 0.99999, target_px=px * 1.00001), 250, 12)
    named = [i for i, line in enumerate(lines) for name in ("target", "entry", "stop") if f" {name} " in line]
    assert named == list(range(named[0], named[0] + 3))


@pytest.mark.parametrize("closes", [[5.0], [5.0] * 30, [1e-9] * 3, [1e12, 1e12]])
def test_flat_series_and_single_bars_are_drawn(closes):
    rows = plot(view_of(bars_of(closes)), height=8)
    assert min(tops(rows, len(closes))) == max(tops(rows, len(closes))) >= 0


def test_no_price_at_all_draws_nothing():
    view = view_of(bars_of([math.nan] * 3))
    assert chart_lines(dataclasses.replace(view, entry_px=math.nan), 80, 10) == []
    assert pattern_lines(dataclasses.replace(view, entry_px=math.nan), 80, 10)


def test_the_date_of_the_decision_is_shown_with_bars_and_without():
    bars = series()
    decided = "decided " + isoformat(int(bars.opened_at[100]))
    for found in ((bars, 100), None):
        view = pattern_view(pattern(bars), found, n_bars=40)
        assert sum(decided in line for line in pattern_lines(view, 100, 10)) == 1


def test_daily_bars_have_no_hours():
    bars = bars_of([1.0, 2.0, 3.0])
    day = 86_400_000_000
    opened_at = 1_600_000_000_000_000 // day * day + day * np.arange(3)
    view = dataclasses.replace(view_of(bars), opened_at=opened_at, detection_at=int(opened_at[-1]))
    assert chart_lines(view, 60, 5)[-1].strip() == "decided 2020-09-15"


def test_the_chart_fills_the_width():
    bars = series(400)
    for width in (60, 80, 100, 160, 250):
        found = pattern_view(pattern(bars, 200), (bars, 200), n_bars=n_columns((97.0, 106.0), width))
        longest = max(map(cell_len, chart_lines(found, width, 12)))
        assert 0.85 * width <= longest <= width


def test_texts_of_others_do_not_command_the_terminal():
    bars = series()
    evil = "\x1b]0;owned\x07\x1b[2J\r\nGOOG\u202e\u0000"
    view = dataclasses.replace(
        view_of(bars), symbol=evil, strategy=evil, pattern_type=evil, label=evil, pattern_id=evil
    )
    for line in pattern_lines(view, 80, 10):
        assert line.isprintable()


@given(st.text(max_size=200), st.integers(2, 60))
def test_wrapped_text_fits_and_loses_nothing_that_prints(text, width):
    lines = wrapped(text, width)
    assert all(cell_len(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join("".join(c if c.isprintable() else "\ufffd" for c in text).split())
