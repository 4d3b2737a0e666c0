from __future__ import annotations

import dataclasses
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qml_plugin.neighbours.paths import QUANTILES, aligned_path, fan_of
from qml_plugin.report.views import PathView
from tests.labelling.samples import series

BARS = series(160)


def atr_by_hand(bars, bar):
    ranges = [
        max(bars.high[i], bars.close[i - 1] if i else bars.high[i])
        - min(bars.low[i], bars.close[i - 1] if i else bars.low[i])
        for i in range(bar + 1)
    ]
    if bar < 13:
        return statistics.fmean(bars.high[i] - bars.low[i] for i in range(bar + 1))
    average = statistics.fmean(ranges[:14])
    for value in ranges[14:]:
        average = (13 * average + value) / 14
    return average


@given(bar=st.integers(0, 159), n_known=st.integers(1, 160), side=st.sampled_from([1, -1]))
def test_a_path_bar_by_bar(bar, n_known, side):
    path = aligned_path(BARS, bar, side, as_of=int(BARS.known_at[n_known - 1]))
    if bar >= n_known:
        assert path is None
        return
    offsets = [i for i in range(-30, 51) if 0 <= bar + i < n_known]
    wanted = [side * (BARS.close[bar + i] - BARS.close[bar]) / atr_by_hand(BARS, bar) for i in offsets]
    assert (path.first_bar, path.last_bar) == (offsets[0], offsets[-1])
    np.testing.assert_allclose(path.move_atr, wanted, rtol=1e-9, atol=1e-12)
    assert path.before[-1] == path.after[0] == 0
    assert len(path.before) + len(path.after) == len(path.move_atr) + 1


@given(bar=st.integers(0, 120), n_known=st.integers(1, 150), side=st.sampled_from([1, -1]))
def test_bars_that_were_not_closed_change_nothing(bar, n_known, side):
    later = np.arange(len(BARS)) >= n_known
    changed = {name: np.where(later, 7.0, getattr(BARS, name)) for name in ("open", "high", "low", "close", "volume")}
    as_of, resolved_at = int(BARS.known_at[n_known - 1]), int(BARS.known_at[bar + 3])
    one, other = (
        aligned_path(bars, bar, side, as_of=as_of, resolved_at=resolved_at)
        for bars in (BARS, dataclasses.replace(BARS, **changed))
    )
    if one is None:
        assert other is None
    else:
        assert (one.first_bar, one.exit_bar) == (other.first_bar, other.exit_bar)
        assert one.move_atr.tobytes() == other.move_atr.tobytes()


def test_the_exit_is_the_bar_at_which_the_outcome_became_known():
    def exit_bar(resolved_at, n_known=160):
        return aligned_path(BARS, 60, 1, as_of=int(BARS.known_at[n_known - 1]), resolved_at=resolved_at).exit_bar

    assert exit_bar(int(BARS.known_at[67])) == 7
    assert exit_bar(int(BARS.known_at[110])) == 50
    assert exit_bar(int(BARS.known_at[111])) is None
    assert exit_bar(int(BARS.known_at[67]) + 1) is None
    assert exit_bar(int(BARS.known_at[67]), n_known=67) is None
    assert exit_bar(None) is None


def test_a_market_that_never_moved_has_no_unit():
    flat = dataclasses.replace(BARS, **dict.fromkeys(("open", "high", "low", "close"), np.full(160, 5.0)))
    assert aligned_path(flat, 60, 1, as_of=2**62) is None


def test_the_fan_by_hand():
    rng = np.random.default_rng(3)
    paths = [PathView(-2, rng.normal(size=n), None) for n in (13, 13, 9, 7, 4)]
    fan, n_paths = fan_of(paths)
    assert fan.shape == (5, 11)
    assert n_paths.tolist() == [5, 5, 4, 4, 4, 3, 3, 2, 2, 2, 2]
    for bar in range(11):
        moves = sorted(path.move_atr[2 + bar] for path in paths if 2 + bar < len(path.move_atr))
        if len(moves) < 3:
            assert np.isnan(fan[:, bar]).all()
        for row, share in enumerate(QUANTILES if len(moves) >= 3 else ()):
            place = share * (len(moves) - 1)
            low = int(place)
            high = min(low + 1, len(moves) - 1)
            assert fan[row, bar] == pytest.approx(moves[low] + (place - low) * (moves[high] - moves[low]))


def test_two_paths_are_no_fan():
    path = PathView(0, np.zeros(3), None)
    for paths in ([], [path], [path, path]):
        fan, n_paths = fan_of(paths)
        assert fan.shape == (5, 0)
        assert len(n_paths) == 0
