"""Grids, constraints, draws, neighbourhoods and plateaus."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qml_plugin.errors import DataError
from qml_plugin.sweeps.points import Grid, parse_grid
from qml_plugin.sweeps.progress import ProgressLine
from qml_plugin.sweeps.result import plateau_scores

TWO = {"a": [1, 2, 3], "b": [10.0, 20.0]}


def test_the_last_parameter_changes_fastest_and_the_constraint_reads_points_by_name():
    grid = Grid(TWO, lambda p: p.a * 10 != p["b"])
    assert [grid.point(at) for at in grid.places()] == [
        {"a": 1, "b": 20.0}, {"a": 2, "b": 10.0}, {"a": 3, "b": 10.0}, {"a": 3, "b": 20.0},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "the grid is empty"),
        ({"a": []}, "no values for 'a'"),
        ({"a": [1, 2, 1]}, "has 1 twice for 'a'"),
        ({"a": range(2000), "b": range(2000)}, "4,000,000 points, and 1,000,000 at most"),
    ],
)
def test_a_grid_that_cannot_be_searched_is_refused(values, message):
    with pytest.raises(DataError, match=message):
        Grid(values).places()


def test_a_constraint_that_nothing_meets_or_that_raises_is_refused():
    with pytest.raises(DataError, match="none of the 6 points of the grid meets the constraint"):
        Grid(TWO, lambda p: p.a > 5).places()
    with pytest.raises(
        DataError, match=r"the constraint raised AttributeError: the grid has no parameter 'c'; it has a, b"
    ):
        Grid(TWO, lambda p: p.c > 5).places()


def test_a_draw_is_of_the_grid_without_repetition_and_the_same_for_a_seed():
    grid = Grid({"a": range(10), "b": range(10)}, lambda p: p.a != p.b)
    drawn = grid.drawn(20, 7)
    assert drawn == sorted(set(drawn)) == grid.drawn(20, 7) != grid.drawn(20, 8)
    assert set(drawn) < set(grid.places())
    assert grid.drawn(500, 7) == grid.places()


def test_a_grid_beyond_walking_through_is_drawn_from():
    values = {name: range(100) for name in "abcde"}
    drawn = Grid(values).drawn(50, 7)
    assert drawn == sorted(set(drawn)) == Grid(values).drawn(50, 7) != Grid(values).drawn(50, 8)
    assert len(drawn) == 50
    assert all(a < b for a, b, *_ in Grid(values, lambda p: p.a < p.b).drawn(50, 7))
    with pytest.raises(DataError, match="draws from the 10,000,000,000 points of the grid found 0 that meet"):
        Grid(values, lambda p: False).drawn(1, 7)


@pytest.mark.parametrize("text", ["a", "a=", "=1", "a=3:1:1", "a=1:2:0", "a=1:2:x", "1a=3"])
def test_a_grid_on_the_command_line_that_is_none_is_refused(text):
    with pytest.raises(DataError, match=r"--grid"):
        parse_grid([text])


def test_ranges_hold_both_ends_and_words_become_values():
    assert parse_grid(["a=1:10:3", "b=0.1:0.3:0.1", "c=none,true,x"]) == {
        "a": [1, 4, 7, 10], "b": [0.1, 0.2, 0.3], "c": [None, True, "x"],
    }  # fmt: skip


def naive_scores(grid, places, values):
    """`plateau_scores` by comparing every place with every other."""
    sizes = [len(tried) for tried in grid.values.values()]
    finite = [value for value in values if np.isfinite(value)]
    scores = []
    for place, value in zip(places, values, strict=True):
        around, n_inside, n_found = [], 0, 0
        for near in itertools.product(*(range(-1, size + 1) for size in sizes)):
            if any(abs(x - y) > 1 for x, y in zip(near, place, strict=True)):
                continue
            if any(not 0 <= x < size for x, size in zip(near, sizes, strict=True)):
                around.append(float(np.median(finite)))
            else:
                n_inside += 1
                if near in places:
                    n_found += 1
                    found = values[places.index(near)]
                    around.append(found if np.isfinite(found) else min(finite))
        enough = np.isfinite(value) and 2 * (n_found - 1) >= n_inside - 1
        scores.append(np.quantile(around, 0.25) if enough else np.nan)
    return np.array(scores)


@given(st.data())
def test_plateau_scores_are_those_of_the_slow_way(data):
    grid = Grid({"a": range(data.draw(st.integers(2, 5))), "b": range(data.draw(st.integers(2, 4)))})
    places = data.draw(st.lists(st.sampled_from(grid.places()), min_size=1, unique=True))
    numbers = st.one_of(st.just(np.nan), st.integers(-5, 5).map(float))
    values = np.array(data.draw(st.lists(numbers, min_size=len(places), max_size=len(places))))
    if np.isfinite(values).any():
        np.testing.assert_array_equal(plateau_scores(grid, places, values), naive_scores(grid, places, values))


def test_a_plateau_wins_over_a_peak_and_words_have_no_neighbours():
    grid = Grid({"a": range(7), "b": ["x", "y"]})
    values = {"x": [1, 1, 9, 1, 1, 1, 1], "y": [0, 0, 3, 4, 3, 0, 0]}
    places = grid.places()
    flat = np.array([values[("x", "y")[b]][a] for a, b in places], float)
    scores = plateau_scores(grid, places, flat)
    assert places[int(np.argmax(scores))] == (3, 1)
    assert places[int(np.argmax(flat))] == (2, 0)


def test_progress_is_silent_where_there_is_no_terminal(capsys):
    with ProgressLine("sweep") as line:
        line(1, 2)
    assert capsys.readouterr() == ("", "")
