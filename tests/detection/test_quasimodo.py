import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qml_plugin.bars import bars_from_frame
from qml_plugin.detection import directional_change_swings, find_quasimodo, fractal_swings
from qml_plugin.errors import DataError
from qml_plugin.features.kernels import wilder_atr
from qml_plugin.records import Level, Point, Zone
from tests.detection.twin import slow_setups

BEARISH = [120.0, 90.0, 110.0, 100.0, 115.0, 95.0, 113.0]  # P0 90, P1 110, P2 100, P3 115, P4 95, way back


def upside_down(frame):
    """The mirror image: highs become lows."""
    turned = 205 - frame.rename(columns={"High": "Low", "Low": "High"})
    return turned[["Open", "High", "Low", "Close"]]


SWINGS = {
    "atr": lambda bars: directional_change_swings(bars),
    "fractal": lambda bars: fractal_swings(bars),
}


def agree(found, slow):
    """The same setups, but for rounding in the score."""
    assert [setup.validity_score for setup in found] == pytest.approx([setup.validity_score for setup in slow])
    unscored = [[dataclasses.replace(setup, validity_score=None) for setup in setups] for setups in (found, slow)]
    assert unscored[0] == unscored[1]


@pytest.mark.parametrize("model", SWINGS)
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_slow_twin(walk, as_bars, model, seed):
    bars = as_bars(walk(seed, 500))
    found = find_quasimodo(bars, swing_model=model)
    agree(found, slow_setups(bars, SWINGS[model](bars)))
    assert found


@pytest.mark.parametrize("seed", range(2))
def test_equals_the_slow_twin_with_other_parameters(walk, as_bars, seed):
    bars = as_bars(walk(seed, 500))
    rule = {"shoulder_tolerance": 1.0, "stop_loss_atr": 1.5, "take_profit_rr": 3.0, "max_wait_bars": 10}
    depth = {"min_depth_ratio": 0.3, "max_depth_ratio": 1.0}
    told = {"tolerance": 1.0, "depth": (0.3, 1.0), "stop_atr": 1.5, "rr": 3.0, "max_wait": 10}
    for model, model_bars, swings in (
        ("atr", {"swing_atr": 0.5}, directional_change_swings(bars, threshold_atr=0.5)),
        ("fractal", {"fractal_bars": 2}, fractal_swings(bars, fractal_bars=2)),
    ):
        found = find_quasimodo(bars, swing_model=model, **model_bars, **rule, **depth)
        agree(found, slow_setups(bars, swings, **told))
        assert found


def test_finds_the_bearish_pattern_where_it_was_built(path, as_bars):
    bars = as_bars(path(BEARISH))
    (setup,) = find_quasimodo(bars)
    atr = wilder_atr(bars.high, bars.low, bars.close, 14)
    assert (setup.pattern_type, setup.side) == ("bearish_qml", -1)
    assert [point.bar for point in setup.points] == [50, 60, 75, 95, 110]
    assert [point.px for point in setup.points] == [110.5, 99.5, 115.5, 94.5, 110.0]
    assert [point.confirmed_bar for point in setup.points] == [51, 61, 76, 96, 110]
    assert setup.known_bar == 110  # the first high within half an ATR (0.75) of 110.5
    assert setup.stop_px == pytest.approx(115.5 + 0.5 * atr[110])
    assert setup.target_px == pytest.approx(110 - 2 * (setup.stop_px - 110))
    near, depth = 1 - 0.5 / atr[110], 1 - abs(5 / 11 - 1.05) / 0.95
    assert setup.validity_score == pytest.approx((near + depth + 1.0 + 25 / 35) / 7)
    assert setup.levels == (Level("first break", 110.5, 71), Level("change of character", 99.5, 91))
    assert setup.order_block is None  # its bars close where they open


def test_sweep_second_break_and_order_block_are_found_where_they_were_built(path, as_bars):
    frame = path(
        [120.0, 97.0, 110.0, 100.0, 115.0, 95.0, 113.0]
    )  # P0 96.5 at bar 23, P1 110.5 at 36, P3 at 61, P4 at 81
    frame.iloc[33, [0, 2]] = 106.0, 105.5  # a rising bar: opens below its close of 107
    frame.iloc[57, 1] = 111.5  # trades above P1, and closes at 111 ...
    frame.iloc[58, [2, 3]] = 109.0, 110.0  # ... the next one closes below it
    (setup,) = [found for found in find_quasimodo(as_bars(frame)) if found.points[2].bar == 61]
    assert {level.name: (level.px, level.bar) for level in setup.levels} == {
        "first break": (110.5, 57),
        "change of character": (99.5, 77),
        "second break": (96.5, 80),
        "sweep": (110.5, 58),
    }
    assert setup.order_block == Zone(105.5, 107.5, 33)


def test_the_bullish_pattern_is_the_mirror_image(path, as_bars):
    (bearish,) = find_quasimodo(as_bars(path(BEARISH)))
    (bullish,) = find_quasimodo(as_bars(upside_down(path(BEARISH))))
    assert (bullish.pattern_type, bullish.side) == ("bullish_qml", 1)
    assert bullish.points == tuple(Point(p.bar, 205 - p.px, p.confirmed_bar) for p in bearish.points)
    assert bullish.stop_px == pytest.approx(205 - bearish.stop_px)
    assert bullish.target_px == pytest.approx(205 - bearish.target_px)
    assert bullish.validity_score == pytest.approx(bearish.validity_score)
    assert bullish.levels == tuple(Level(one.name, 205 - one.px, one.bar) for one in bearish.levels)


@pytest.mark.parametrize(
    ("waypoints", "why"),
    [
        ([120, 90, 110, 100, 109, 95, 113], "the head is not above the shoulder"),
        ([120, 90, 110, 100, 135, 95, 113], "the head is too high for the shoulder"),
        ([120, 90, 110, 100, 115, 101, 113], "the structure did not break"),
        ([120, 102, 110, 100, 115, 95, 113], "there was no up-trend"),
        ([120, 90, 110, 100, 115, 95, 108], "the retest did not come near enough"),
    ],
)
def test_refuses_what_is_no_quasimodo(path, as_bars, waypoints, why):
    assert find_quasimodo(as_bars(path([float(px) for px in waypoints]))) == [], why


def test_a_retest_that_comes_too_late_is_none(path, as_bars):
    bars = as_bars(path(BEARISH))  # P4 is confirmed at bar 96, the retest comes at bar 110
    assert len(find_quasimodo(bars, max_wait_bars=14)) == 1
    assert find_quasimodo(bars, max_wait_bars=13) == []


def test_a_close_beyond_the_head_ends_the_setup(path, as_bars):
    frame = path(BEARISH)
    frame.iloc[105, [1, 3]] = [117.0, 116.0]  # high and close of a bar on the way back
    assert all(setup.known_bar > 110 or setup.points[2].bar != 75 for setup in find_quasimodo(as_bars(frame)))
    frame.iloc[105, 3] = frame.iloc[105, 0]  # the same high, but closed below
    assert 105 in [setup.known_bar for setup in find_quasimodo(as_bars(frame))]


def test_without_a_positive_target_there_is_no_setup(path, as_bars):
    bars = as_bars(path(BEARISH))
    assert find_quasimodo(bars, take_profit_rr=20.0) == []


@pytest.mark.parametrize("model", SWINGS)
@given(seed=st.integers(0, 10_000), cut=st.integers(2, 499))
@settings(max_examples=60, deadline=None)
def test_the_past_does_not_change_with_the_future(walk, as_bars, model, seed, cut):
    frame, other = walk(seed, 500), walk(seed + 1, 500)
    known = [setup for setup in find_quasimodo(as_bars(frame), swing_model=model) if setup.known_bar < cut]
    replaced = find_quasimodo(as_bars(pd.concat([frame[:cut], other[cut:]])), swing_model=model)
    assert find_quasimodo(as_bars(frame[:cut]), swing_model=model) == known
    assert [setup for setup in replaced if setup.known_bar < cut] == known


@pytest.mark.parametrize("seed", range(5))
def test_bars_without_any_range_do_no_harm(walk, as_bars, seed):
    frame = walk(seed, 600)
    close = frame["Close"].where(np.arange(600) % 3 != 2).ffill()  # every third bar repeats the close before it
    flat = pd.DataFrame(dict.fromkeys(frame.columns, close))
    setups = find_quasimodo(as_bars(flat), atr_period=1, swing_atr=0.5)
    assert setups
    assert all(setup.side * (setup.points[4].px - setup.stop_px) > 0 for setup in setups)


@pytest.mark.parametrize("model", SWINGS)
def test_every_cut_of_one_series_agrees(walk, as_bars, model):
    frame = walk(1, 400)
    setups = find_quasimodo(as_bars(frame), swing_model=model, swing_atr=0.5, fractal_bars=2)
    assert len(setups) > 1
    for cut in range(2, 401):
        known = [setup for setup in setups if setup.known_bar < cut]
        assert find_quasimodo(as_bars(frame[:cut]), swing_model=model, swing_atr=0.5, fractal_bars=2) == known
        assert all(level.bar <= setup.known_bar for setup in known for level in setup.levels)


@given(seed=st.integers(0, 10_000), exponent=st.integers(-8, 8))
@settings(max_examples=25, deadline=None)
def test_scale_does_not_matter(walk, as_bars, seed, exponent):
    factor, frame = 2.0**exponent, walk(seed, 300)

    def scaled(setup):
        block = setup.order_block
        return dataclasses.replace(
            setup,
            points=tuple(Point(p.bar, p.px * factor, p.confirmed_bar) for p in setup.points),
            stop_px=setup.stop_px * factor,
            target_px=setup.target_px * factor,
            levels=tuple(Level(level.name, level.px * factor, level.bar) for level in setup.levels),
            order_block=block and Zone(block.low_px * factor, block.high_px * factor, block.bar),
        )

    assert find_quasimodo(as_bars(frame * factor)) == [scaled(setup) for setup in find_quasimodo(as_bars(frame))]


@pytest.fixture(scope="module", params=["GOOG", "EURUSD"])
def market(request):
    data = pytest.importorskip("backtesting.test")
    bars = bars_from_frame(getattr(data, request.param), symbol=request.param)
    return bars, find_quasimodo(bars)


def test_points_are_prices_of_real_bars(market):
    bars, setups = market
    for setup in setups:
        *turns, entry = setup.points
        for point, is_high in zip(turns, [True, False, True, False], strict=True):
            column = bars.high if is_high == (setup.side < 0) else bars.low
            assert point.px == column[point.bar]
            assert point.bar < point.confirmed_bar <= setup.known_bar
        assert entry == Point(setup.known_bar, bars.close[setup.known_bar], setup.known_bar)
        assert np.all(np.diff([point.bar for point in setup.points]) > 0)


def test_stop_entry_and_target_lie_in_order(market):
    _, setups = market
    for setup in setups:
        head, entry_px = setup.points[2].px, setup.points[4].px
        levels = [setup.target_px, entry_px, head, setup.stop_px]
        assert levels == sorted(levels, reverse=setup.side > 0)
        assert abs(setup.target_px - entry_px) == pytest.approx(2 * abs(setup.stop_px - entry_px))
        assert 0 <= setup.validity_score <= 1


def test_both_sides_occur_once_each_and_in_order(market):
    bars, setups = market
    assert 20 <= len(setups) <= len(bars) // 25
    assert {setup.side for setup in setups} == {-1, 1}
    assert [setup.known_bar for setup in setups] == sorted(setup.known_bar for setup in setups)
    assert len({setup.points[:4] for setup in setups}) == len(setups)
    assert all(isinstance(value, float) for setup in setups for value in (setup.stop_px, setup.target_px))


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ({"max_wait_bars": 0}, "max_wait_bars is 0. It must be a positive"),
        ({"max_wait_bars": 1.5}, "max_wait_bars is 1.5. It counts bars"),
        ({"stop_loss_atr": float("inf")}, "stop_loss_atr is inf. It must be a positive"),
        ({"swing_atr": 0.0}, "swing_atr is 0.0. It must be a positive"),
        ({"swing_model": "zigzag"}, "swing_model is 'zigzag'. Use one of atr, fractal"),
        ({"min_depth_ratio": 2.0}, r"min_depth_ratio is 2.0 and max_depth_ratio 2.0: no head can fit"),
    ],
)
def test_refuses_parameters_without_meaning(walk, as_bars, parameter, message):
    with pytest.raises(DataError, match=message):
        find_quasimodo(as_bars(walk(0, 50)), **parameter)
