import math

import numpy as np
import pytest

from qml_plugin.errors import DataError
from qml_plugin.report import figures
from qml_plugin.report.reliability import reliability_bins
from tests.report.samples import HOUR_US, START_AT, card, equity, reliability


def traces(figure):
    return {trace.name: trace for trace in figure.data}


def shade(figure):
    return [(shape.x0, shape.x1) for shape in figure.layout.shapes]


def texts(figure):
    return [annotation.text for annotation in figure.layout.annotations]


def test_equity_has_both_lines_in_utc_milliseconds():
    drawn = traces(figures.equity_figure(equity()))
    assert set(drawn) == {"with gate", "without gate"}
    assert drawn["with gate"].x[0] == START_AT / 1000
    assert drawn["with gate"].line.dash != drawn["without gate"].line.dash


def test_reliability_draws_diagonal_and_intervals():
    view = reliability()
    bins = reliability_bins(view.confidence, view.is_win)
    drawn = traces(figures.reliability_figure(bins))
    assert drawn["perfect"].x == drawn["perfect"].y == (0, 1)
    curve = drawn["observed"]
    np.testing.assert_allclose(np.add(curve.y, curve.error_y.array), [b.high for b in bins])
    np.testing.assert_allclose(np.subtract(curve.y, curve.error_y.arrayminus), [b.low for b in bins])
    assert [row[0] for row in curve.customdata] == [b.n for b in bins]


def test_candles_show_plan_setup_entry_and_exit():
    figure = figures.candles_figure(card())
    drawn = traces(figure)
    assert set(drawn) == {"price", "stop", "target", "setup", "exit"}
    assert drawn["stop"].y == (98.0, 98.0)
    assert drawn["exit"].x == (25,)
    assert drawn["exit"].y == (98.0,)
    assert list(drawn["setup"].text) == ["P1", "P2", "P3", "P4", "P5"]
    assert "<b>entry long</b>" in texts(figure)


def test_bars_after_the_decision_are_shaded():
    figure = figures.candles_figure(card())
    assert shade(figure) == [(20.5, 29.5)]
    assert "what happened next<br>(not known at the decision)" in texts(figure)


def test_the_shade_follows_the_decision_bar_where_the_fill_came_later():
    assert shade(figures.candles_figure(card(entry_row=21))) == [(20.5, 29.5)]


def test_the_shade_falls_back_on_the_entry_where_the_window_begins_later():
    assert shade(figures.candles_figure(card(detection_at=START_AT - HOUR_US, entry_row=3))) == [(3.5, 29.5)]


def test_nothing_is_shaded_where_the_window_ends_at_the_decision():
    last = card(21, exit_row=None, exit_reason=None, r_multiple=None)
    figure = figures.candles_figure(last)
    assert shade(figure) == []
    assert "exit" not in traces(figure)


def test_time_exit_is_marked_at_the_close():
    shown = card(exit_reason="time", r_multiple=0.2)
    assert traces(figures.candles_figure(shown))["exit"].y == (shown.close[25],)


def test_levels_that_do_not_exist_are_not_drawn():
    drawn = traces(figures.candles_figure(card(stop_px=math.nan, target_px=math.inf, points=())))
    assert set(drawn) == {"price", "exit"}


def test_contributions_put_the_strongest_on_top_and_leave_out_what_is_missing():
    given = (("a", 0.4), ("b", -0.6), ("c", math.nan), ("d", 0.1))
    (bars,) = figures.contributions_figure(card(contributions=given)).data
    assert bars.y == ("d", "a", "b")
    assert bars.text == ("+0.10", "+0.40", "\u22120.60")
    assert list(bars.marker.color) == [figures.BLUE, figures.BLUE, figures.ORANGE]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"entry_row": 30}, "entry_row of card 'A skipped loss' is 30, but its window has 30 bars"),
        ({"exit_row": -1}, "exit_row of card 'A skipped loss' is -1"),
        ({"high": np.ones(3)}, "'high': 3"),
    ],
)
def test_cards_that_do_not_fit_together_are_refused(changes, message):
    with pytest.raises(DataError, match=message):
        figures.candles_figure(card(**changes))


def test_equities_that_do_not_fit_together_are_refused():
    with pytest.raises(DataError, match="50 times, 3 values with and 50 without"):
        figures.equity_figure(equity(with_gate=np.ones(3)))
