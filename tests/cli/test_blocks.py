from __future__ import annotations

import numpy as np

from qml_plugin.cli.blocks import fan_lines, histogram_lines, series_lines
from qml_plugin.stats.distribution import distribution


def test_the_longest_bar_is_as_wide_as_asked_and_the_others_in_proportion():
    lines = histogram_lines(distribution(np.repeat([0.0, 1.0, 2.0], [80, 20, 1])), 40)
    assert lines == ["0  " + "█" * 40 + " 80", "1  " + "█" * 10 + " 20", "2  ▌ 1"]


def test_outer_bins_say_that_they_are_open():
    lines = histogram_lines(distribution(np.random.default_rng(0).normal(size=9000)), 30)
    assert len(lines) == 16
    assert lines[0].lstrip().startswith("up to -")
    assert lines[-1].lstrip().startswith("from ")
    assert max(line.count("█") for line in lines) == 30


def test_a_rising_line_rises():
    assert series_lines(np.arange(8.0), 8, 1) == ["6.965 ┤▁▂▃▄▅▆▇█"]
    lines = series_lines(np.arange(1000.0), 20, 4)
    assert [line.partition("┤")[0].strip() for line in lines] == ["994", "", "", "4.995"]
    heights = [sum(line.partition("┤")[2][i] != " " for line in lines) for i in range(20)]
    assert heights == sorted(heights)
    assert (heights[0], heights[-1]) == (1, 4)


def test_gaps_are_blank_and_values_never_are():
    values = np.array([np.nan, np.nan, 5.0, 5.0, np.nan, 9.0])
    (line,) = series_lines(values, 3, 1)
    assert line.partition("┤")[2] == " ▁█"
    assert series_lines(np.full(5, np.nan), 3, 2) == []
    (flat,) = series_lines(np.full(5, 2.0), 80, 1)
    assert flat == "2 ┤▁▁▁▁▁"


def test_a_fan_opens_around_its_median():
    middle = np.array([0.0, 1.0, 2.0, 2.0])
    fan = middle + np.outer([-2.0, -1.0, 0.0, 1.0, 2.0], [0.0, 0.4, 1.0, 1.0])
    assert fan_lines(fan, 80, 5) == [
        "+4.0 ┤  ░░",
        "     ┤  ▒▒",
        "     ┤ ░██",
        "     ┤ █▒▒",
        "+0.0 ┤█░░░",
    ]


def test_a_fan_marks_zero_and_leaves_gaps_blank():
    fan = np.array([[-2.0, np.nan, 2.0]] * 5)
    assert fan_lines(fan, 80, 5) == ["+2.0 ┤  █", "     ┤", "   0 ┤───", "     ┤", "-2.0 ┤█"]
    assert fan_lines(np.full((5, 3), np.nan), 80, 5) == []
    assert fan_lines(np.empty((5, 0)), 80, 5) == []


def test_a_wide_fan_fits_a_narrow_terminal():
    rng = np.random.default_rng(0)
    fan = np.sort(rng.normal(size=(5, 51)).cumsum(axis=1), axis=0)
    for width in (1, 5, 20, 33, 58, 200):
        lines = fan_lines(fan, width, 9)
        assert len(lines) == 9
        assert max(map(len, lines)) <= max(width, 9)
