from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest

from qml_plugin.errors import DataError
from qml_plugin.labelling.view import bars_from_series, one_market, pattern_view
from tests.labelling.samples import LABELLED_BY_HAND, pattern, series

BARS = series()


def values(view):
    """Every field, arrays as bytes."""
    found = ((field.name, getattr(view, field.name)) for field in fields(view))
    return {name: value.tobytes() if isinstance(value, np.ndarray) else repr(value) for name, value in found}


def test_the_window_holds_setup_decision_and_exit():
    view = pattern_view(pattern(BARS), (BARS, 100), n_bars=60)
    first = 100 - view.entry_row
    np.testing.assert_array_equal(view.close, BARS.close[first : first + view.n_rows])
    np.testing.assert_array_equal(view.opened_at, BARS.opened_at[first : first + view.n_rows])
    assert view.n_rows == 60
    assert [row for row, _, _ in view.points] == [view.entry_row - 30 + 7 * i for i in range(5)]
    assert view.exit_row == view.entry_row + 12
    assert view.opened_at[view.entry_row] == view.detection_at
    assert view.has_bars


@pytest.mark.parametrize("n_bars", [1, 7, 40, 60, 200, 5000])
@pytest.mark.parametrize("at", [31, 100, 187])
def test_whatever_the_room_the_setup_and_the_exit_are_in(n_bars, at):
    view = pattern_view(pattern(BARS, at), (BARS, at), n_bars=n_bars)
    assert view.points[0][0] >= 0
    assert view.exit_row < view.n_rows == len(view.high)
    assert view.n_rows <= 200


def test_points_count_in_the_series_of_their_own_run():
    """The same pattern in a longer series: what was bar 100 is bar 140."""
    long = series(240)
    moved = replace(long, close=np.roll(long.close, 40))
    view = pattern_view(pattern(BARS), (moved, 140), n_bars=60)
    assert [row for row, _, _ in view.points] == [view.entry_row - 30 + 7 * i for i in range(5)]


@pytest.mark.parametrize(("n_points", "words"), [
    (5, ("left shoulder", "change of character", "head", "break of structure", "entry")),
    (3, ("left shoulder", "head", "right shoulder")), (2, ("point", "point")), (0, ()),
])  # fmt: skip
def test_points_are_named(n_points, words):
    view = pattern_view(pattern(BARS, n_points=n_points), (BARS, 100), n_bars=60)
    assert view.point_words == words
    assert [name for _, _, name in view.points] == [f"P{i + 1}" for i in range(n_points)]


def test_without_bars_there_are_the_setup_and_the_levels():
    view = pattern_view(pattern(BARS), None, n_bars=60)
    assert not view.has_bars
    assert (view.n_rows, view.entry_row, view.exit_row) == (31, 30, None)
    assert [row for row, _, _ in view.points] == [0, 7, 14, 21, 28]
    assert view.exit_reason == "target"
    assert math.isfinite(view.entry_px + view.stop_px + view.target_px)


def test_what_is_not_there_is_not_shown():
    bare = pattern(
        BARS, exit_bars=None, order=None, setup=None, stop_px=None, target_px=None, validity_score=None, features={}
    )
    view = pattern_view(bare, (BARS, 100), n_bars=60)
    assert np.isnan([view.entry_px, view.stop_px, view.target_px]).all()
    assert (view.points, view.key_features, view.exit_row, view.exit_reason) == ((), (), None, None)


def test_a_label_by_hand_is_no_exit():
    view = pattern_view(pattern(BARS, exit_bars=None, **LABELLED_BY_HAND), (BARS, 100), n_bars=60)
    assert (view.exit_row, view.exit_reason, view.label) == (None, None, "win")


def test_a_pending_order_is_drawn_where_it_asked_to_enter():
    order = {"bar": 100, "fill": "open", "reference_px": 100.0, "limit_px": 99.0, "trigger_px": None}
    assert pattern_view(pattern(BARS, exit_bars=None, order=order), None, n_bars=60).entry_px == 99.0


@pytest.mark.parametrize("n_bars", [10, 60, 150])
@pytest.mark.parametrize("at", [31, 100, 160])
def test_what_is_hidden_changes_nothing(n_bars, at):
    """Another future: other bars after the decision, another outcome, another fill, another result of the trade."""
    future = {name: getattr(BARS, name).copy() for name in ("open", "high", "low", "close", "volume")}
    for column in future.values():
        column[at + 1 :] *= 3
    others = (
        (pattern(BARS, at), BARS),
        (pattern(BARS, at, exit_bars=None), replace(BARS, **future)),
        (pattern(BARS, at, exit_bars=3, r_multiple=-1.0, exit_reason="stop", trade_outcome=9.0, entry_px=1.0), replace(BARS, **future)),
        (pattern(BARS, at), replace(BARS, **{f.name: getattr(BARS, f.name)[: at + 1] for f in fields(BARS)[2:]})),
    )  # fmt: skip
    seen = [values(pattern_view(made, (bars, at), n_bars=n_bars, hide_future=True)) for made, bars in others]
    assert seen[0] == seen[1] == seen[2] == seen[3]
    view = pattern_view(pattern(BARS, at), (BARS, at), n_bars=n_bars, hide_future=True)
    assert view.n_rows == view.entry_row + 1
    assert view.opened_at[-1] == view.detection_at


def test_a_point_after_the_decision_is_not_shown():
    made = pattern(BARS)
    made["setup"]["points"].append({"bar": 105, "px": 1.0, "confirmed_bar": 107})
    assert len(pattern_view(made, (BARS, 100), n_bars=60).points) == 5


def test_a_bar_is_found_by_its_very_stamp():
    found = bars_from_series(BARS, pattern(BARS))
    assert found is not None
    assert found[1] == 100
    shifted = replace(BARS, opened_at=BARS.opened_at + 1)
    assert bars_from_series(shifted, pattern(BARS)) is None
    later = replace(BARS, opened_at=BARS.opened_at - 10**15)
    assert bars_from_series(later, pattern(BARS)) is None


def test_one_file_is_of_one_market():
    assert one_market([pattern(BARS), pattern(BARS, 50)]) == ("WALK", "1h")
    with pytest.raises(DataError, match=r"of 2 markets \(OTHER 1h, WALK 1h\).*--symbol and --timeframe"):
        one_market([pattern(BARS), pattern(BARS, symbol="OTHER")])
