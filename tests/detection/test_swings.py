import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qml_plugin.detection import Swing, directional_change_swings, fractal_swings
from qml_plugin.errors import DataError
from qml_plugin.features.kernels import wilder_atr


def slow_swings(bars, atr_period, threshold_atr):
    """The definition read aloud: at every bar, look back over all bars since the last extreme."""
    atr = wilder_atr(bars.high, bars.low, bars.close, atr_period)
    swings = []
    since = next((t for t in range(len(bars)) if not math.isnan(atr[t])), len(bars))
    wanted = {True, False}
    for t in range(since, len(bars)):
        past = range(since, t + 1)
        if not past:
            continue
        top = min(past, key=lambda k: (-bars.high[k], k))
        bottom = min(past, key=lambda k: (bars.low[k], k))
        turns = []
        fall, rise = bars.high[top] - bars.close[t], bars.close[t] - bars.low[bottom]
        if True in wanted and top < t and fall > 0 and fall >= threshold_atr * atr[top]:
            turns.append(Swing(top, bars.high[top], True, t))
        if False in wanted and bottom < t and rise > 0 and rise >= threshold_atr * atr[bottom]:
            turns.append(Swing(bottom, bars.low[bottom], False, t))
        if len(turns) == 2 and top == bottom:
            continue
        if turns:
            first = min(turns, key=lambda swing: swing.bar)
            swings.append(first)
            since = first.bar + 1
            wanted = {not first.is_high}
    return swings


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("atr_period", "threshold_atr"), [(14, 1.0), (5, 0.3), (3, 2.5)])
def test_equals_the_slow_twin(walk, as_bars, seed, atr_period, threshold_atr):
    bars = as_bars(walk(seed, 400))
    swings = directional_change_swings(bars, atr_period=atr_period, threshold_atr=threshold_atr)
    assert swings == slow_swings(bars, atr_period, threshold_atr)
    assert len(swings) > 3


def test_a_zigzag_has_its_turns_where_they_were_built(path, as_bars):
    bars = as_bars(path([120, 100, 110, 95]))
    start, *swings = directional_change_swings(bars, threshold_atr=2)
    assert (start.bar, start.is_high) == (13, True)  # the first bar with an ATR is where the search begins
    assert [(swing.bar, swing.px, swing.is_high) for swing in swings] == [(20, 99.5, False), (30, 110.5, True)]
    assert [swing.confirmed_bar for swing in swings] == [23, 33]  # the first closes 2 ATRs, of 1.5 each, away


def test_alternate_and_are_confirmed_later(walk, as_bars):
    swings = directional_change_swings(as_bars(walk(7, 2000)))
    assert all(swing.confirmed_bar > swing.bar for swing in swings)
    for one, other in pairwise(swings):
        assert one.is_high != other.is_high
        assert one.bar < other.bar
        assert one.confirmed_bar < other.confirmed_bar
        assert (other.px < one.px) == one.is_high


@given(seed=st.integers(0, 10_000), cut=st.integers(2, 299))
@settings(max_examples=60, deadline=None)
def test_the_past_does_not_change_with_the_future(walk, as_bars, seed, cut):
    frame, other = walk(seed, 300), walk(seed + 1, 300)
    known = [s for s in directional_change_swings(as_bars(frame)) if s.confirmed_bar < cut]
    replaced = directional_change_swings(as_bars(pd.concat([frame[:cut], other[cut:]])))
    assert directional_change_swings(as_bars(frame[:cut])) == known
    assert [s for s in replaced if s.confirmed_bar < cut] == known


@given(seed=st.integers(0, 10_000), exponent=st.integers(-8, 8))
@settings(max_examples=25, deadline=None)
def test_scale_does_not_matter(walk, as_bars, seed, exponent):
    frame = walk(seed, 200)
    scaled = directional_change_swings(as_bars(frame * 2.0**exponent))
    expected = directional_change_swings(as_bars(frame))
    assert scaled == [Swing(s.bar, s.px * 2.0**exponent, s.is_high, s.confirmed_bar) for s in expected]


def test_equal_highs_count_from_the_first(as_bars, path):
    frame = path([120, 100, 110, 95])
    frame.iloc[31, frame.columns.get_loc("High")] = 110.5  # as high as the bar before it
    assert directional_change_swings(as_bars(frame), threshold_atr=2)[2].bar == 30


def test_flat_or_short_series_have_no_swings(as_bars):
    index = pd.date_range("2024-01-01", periods=50, freq="h")
    flat = pd.DataFrame(np.full((50, 4), 7.0), columns=["Open", "High", "Low", "Close"], index=index)
    assert directional_change_swings(as_bars(flat)) == []
    assert directional_change_swings(as_bars(flat[:13])) == []


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ({"atr_period": 0}, "atr_period is 0. It must be a positive"),
        ({"atr_period": 2.5}, "atr_period is 2.5. It counts bars"),
        ({"threshold_atr": -1.0}, "threshold_atr is -1.0. It must be a positive"),
        ({"threshold_atr": math.nan}, "threshold_atr is nan. It must be a positive"),
    ],
)
def test_refuses_parameters_without_meaning(walk, as_bars, parameter, message):
    with pytest.raises(DataError, match=message):
        directional_change_swings(as_bars(walk(0, 50)), **parameter)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [1, 2, 5])
def test_fractals_equal_the_slow_twin(walk, as_bars, seed, k):
    bars = as_bars(walk(seed, 300))
    slow = []
    for t in range(k, 300 - k):
        before, after = range(t - k, t), range(t + 1, t + k + 1)
        is_high = all(bars.high[t] > bars.high[u] for u in before) and all(bars.high[t] >= bars.high[u] for u in after)
        is_low = all(bars.low[t] < bars.low[u] for u in before) and all(bars.low[t] <= bars.low[u] for u in after)
        if is_high != is_low:
            slow.append(Swing(t, bars.high[t] if is_high else bars.low[t], is_high, t + k))
    assert fractal_swings(bars, fractal_bars=k) == slow
    assert len(slow) > 10
    assert fractal_swings(as_bars(walk(seed, 300)[:150]), fractal_bars=k) == [s for s in slow if s.confirmed_bar < 150]


def test_too_few_bars_have_no_fractals(walk, as_bars):
    assert fractal_swings(as_bars(walk(0, 6)), fractal_bars=3) == []
    with pytest.raises(DataError, match=r"fractal_bars is 0\. It must be a positive"):
        fractal_swings(as_bars(walk(0, 6)), fractal_bars=0)
