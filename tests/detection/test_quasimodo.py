import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qml_plugin.bars import bars_from_frame
from qml_plugin.detection import directional_change_swings, find_quasimodo
from qml_plugin.errors import DataError
from qml_plugin.features.kernels import wilder_atr
from qml_plugin.records import Point, Setup

BEARISH = [120.0, 90.0, 110.0, 100.0, 115.0, 95.0, 113.0]  # P0 90, P1 110, P2 100, P3 115, P4 95, way back


def upside_down(frame):
    """The mirror image: highs become lows."""
    turned = 205 - frame.rename(columns={"High": "Low", "Low": "High"})
    return turned[["Open", "High", "Low", "Close"]]


def slow_setups(bars, swing_atr=1.0, tolerance=0.5, depth=(0.1, 2.0), stop_atr=0.5, rr=2.0, max_wait=100):
    """Bar after bar as a trader would live it, with both sides spelt out."""
    atr = wilder_atr(bars.high, bars.low, bars.close, 14)
    swings = directional_change_swings(bars, threshold_atr=swing_atr)
    setups, finished = [], set()
    for t in range(len(bars)):
        known = [swing for swing in swings if swing.confirmed_bar <= t]
        for p0, p1, p2, p3, p4 in zip(known, known[1:], known[2:], known[3:], known[4:], strict=False):
            if p1.bar in finished:
                continue
            if t - p4.confirmed_bar > max_wait:
                finished.add(p1.bar)
                continue
            ratio = (p3.px - p1.px) / (p1.px - p2.px)
            if not depth[0] <= ratio <= depth[1]:
                continue
            if p1.is_high:
                if not (p0.px < p2.px and p3.px > p1.px and p4.px < p2.px):
                    continue
                is_over = bars.close[t] > p3.px
                is_retest = bars.high[t] >= p1.px - tolerance * atr[t]
                stop = p3.px + stop_atr * atr[t]
                target = bars.close[t] - rr * (stop - bars.close[t])
            else:
                if not (p0.px > p2.px and p3.px < p1.px and p4.px > p2.px):
                    continue
                is_over = bars.close[t] < p3.px
                is_retest = bars.low[t] <= p1.px + tolerance * atr[t]
                stop = p3.px - stop_atr * atr[t]
                target = bars.close[t] + rr * (bars.close[t] - stop)
            if is_over:
                finished.add(p1.bar)
            elif is_retest:
                finished.add(p1.bar)
                swings_bars = [p.bar for p in (p1, p2, p3, p4)]
                setups.append((t, -1 if p1.is_high else 1, *swings_bars, float(stop), float(target)))
    return sorted(setups)


def in_short(setup):
    return (setup.known_bar, setup.side, *(p.bar for p in setup.points[:4]), setup.stop_px, setup.target_px)


@pytest.mark.parametrize("seed", range(8))
def test_equals_the_slow_twin(walk, as_bars, seed):
    bars = as_bars(walk(seed, 600))
    assert [in_short(setup) for setup in find_quasimodo(bars)] == slow_setups(bars)


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_slow_twin_with_other_parameters(walk, as_bars, seed):
    bars = as_bars(walk(seed, 500))
    found = find_quasimodo(
        bars,
        swing_atr=0.5,
        min_depth_ratio=0.3,
        max_depth_ratio=1.0,
        shoulder_tolerance=1.0,
        stop_loss_atr=1.5,
        take_profit_rr=3.0,
        max_wait_bars=10,
    )
    slow = slow_setups(bars, 0.5, tolerance=1.0, depth=(0.3, 1.0), stop_atr=1.5, rr=3.0, max_wait=10)
    assert [in_short(setup) for setup in found] == slow
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
    assert setup.validity_score == pytest.approx((near + depth + 1.0 + 25 / 35) / 4)


def test_the_bullish_pattern_is_the_mirror_image(path, as_bars):
    (bearish,) = find_quasimodo(as_bars(path(BEARISH)))
    (bullish,) = find_quasimodo(as_bars(upside_down(path(BEARISH))))
    assert (bullish.pattern_type, bullish.side) == ("bullish_qml", 1)
    assert bullish.points == tuple(Point(p.bar, 205 - p.px, p.confirmed_bar) for p in bearish.points)
    assert bullish.stop_px == pytest.approx(205 - bearish.stop_px)
    assert bullish.target_px == pytest.approx(205 - bearish.target_px)
    assert bullish.validity_score == pytest.approx(bearish.validity_score)


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


@given(seed=st.integers(0, 10_000), cut=st.integers(2, 499))
@settings(max_examples=60, deadline=None)
def test_the_past_does_not_change_with_the_future(walk, as_bars, seed, cut):
    frame, other = walk(seed, 500), walk(seed + 1, 500)
    known = [setup for setup in find_quasimodo(as_bars(frame)) if setup.known_bar < cut]
    replaced = find_quasimodo(as_bars(pd.concat([frame[:cut], other[cut:]])))
    assert find_quasimodo(as_bars(frame[:cut])) == known
    assert [setup for setup in replaced if setup.known_bar < cut] == known


@pytest.mark.parametrize("seed", range(5))
def test_bars_without_any_range_do_no_harm(walk, as_bars, seed):
    frame = walk(seed, 600)
    close = frame["Close"].where(np.arange(600) % 3 != 2).ffill()  # every third bar repeats the close before it
    flat = pd.DataFrame(dict.fromkeys(frame.columns, close))
    setups = find_quasimodo(as_bars(flat), atr_period=1, swing_atr=0.5)
    assert setups
    assert all(setup.side * (setup.points[4].px - setup.stop_px) > 0 for setup in setups)


def test_every_cut_of_one_series_agrees(walk, as_bars):
    frame = walk(3, 400)
    setups = find_quasimodo(as_bars(frame))
    assert len(setups) > 3
    for cut in range(2, 401):
        assert find_quasimodo(as_bars(frame[:cut])) == [setup for setup in setups if setup.known_bar < cut]


@given(seed=st.integers(0, 10_000), exponent=st.integers(-8, 8))
@settings(max_examples=25, deadline=None)
def test_scale_does_not_matter(walk, as_bars, seed, exponent):
    factor, frame = 2.0**exponent, walk(seed, 300)

    def scaled(setup):
        points = tuple(Point(p.bar, p.px * factor, p.confirmed_bar) for p in setup.points)
        stop_px, target_px = setup.stop_px * factor, setup.target_px * factor
        return Setup(setup.pattern_type, setup.side, points, setup.known_bar, stop_px, target_px, setup.validity_score)

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
        ({"swing_atr": 0.0}, "threshold_atr is 0.0. It must be a positive"),
        ({"min_depth_ratio": 2.0}, r"min_depth_ratio is 2.0 and max_depth_ratio 2.0: no head can fit"),
    ],
)
def test_refuses_parameters_without_meaning(walk, as_bars, parameter, message):
    with pytest.raises(DataError, match=message):
        find_quasimodo(as_bars(walk(0, 50)), **parameter)
