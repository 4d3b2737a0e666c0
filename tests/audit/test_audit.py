"""What the audit says of strategies that see the future, and of those that do not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from qml_plugin import audit as room
from qml_plugin.audit import audit
from qml_plugin.audit.findings import shown
from qml_plugin.audit.strategy_runs import StrategySubject
from qml_plugin.errors import DataError
from tests.audit import subjects
from tests.conftest import random_walk


@pytest.fixture(scope="module")
def walk():
    return random_walk(260, 4)


def test_an_honest_strategy_is_clean_and_what_was_compared_is_counted(walk):
    report = audit(subjects.Honest, walk, n_cuts=6)
    assert (report.verdict, report.exit_code) == ("clean", 0)
    assert report.compared["indicator"] == 1
    assert report.compared["order"] > 10
    assert len(report.cuts) == 6
    assert str(report).startswith("nothing of Honest changed when later bars changed, at 6 cuts in 260 bars")


def test_the_same_seed_gives_the_same_report_and_another_other_cuts(walk):
    one, two, other = (audit(subjects.Peeks, walk, n_cuts=4, seed=seed) for seed in (1, 1, 2))
    assert (one.cuts, one.findings) == (two.cuts, two.findings)
    assert one.cuts != other.cuts


def test_a_glance_ahead_is_named_with_bar_and_both_values(walk):
    report = audit(subjects.Peeks, walk, n_cuts=6)
    leak = report.leaks[0]
    assert (report.exit_code, leak.kind, leak.name, leak.lead_bars, leak.n_cuts) == (1, "attribute", "ahead", 1, 6)
    assert leak.bar == leak.cut
    assert leak.value == walk["Close"].pct_change().iloc[leak.bar + 1]
    assert leak.stamp == str(walk.index[leak.bar])
    assert f"attribute ahead at bar {leak.bar} ({leak.stamp}) is {leak.value:.9g}" in leak.text
    assert "reads up to 1 bar ahead, as shift(-1)" in leak.text


def test_a_number_of_the_whole_series_is_found_where_the_strategy_holds_it(walk):
    report = audit(subjects.Scaled, walk, n_cuts=4)
    assert [(leak.kind, leak.name) for leak in report.leaks] == [("attribute", "scales['close']")]
    assert audit(subjects.Scaled, walk, n_cuts=4, ignore=["scales['close']"]).verdict == "clean"


def test_chance_is_not_called_a_leak(walk):
    report = audit(subjects.Random, walk, n_cuts=4)
    assert (report.verdict, report.exit_code, report.leaks) == ("refused", 2, ())
    assert "it is not deterministic. Seed every generator" in report.headline()


def test_chance_does_not_hide_a_leak_beside_it(walk):
    report = audit(subjects.RandomLeak, walk, n_cuts=4)
    assert report.verdict == "leak"
    assert [leak.name for leak in report.leaks] == ["ahead"]


def test_a_strategy_that_does_not_read_its_bars_is_no_clean_one(walk):
    subjects.Cached.kept.clear()
    report = audit(subjects.Cached, walk, n_cuts=3)
    assert report.verdict == "refused"
    assert "so it does not read the bars that it is given" in report.headline()


def test_a_strategy_that_asks_for_nothing_is_refused(walk):
    report = audit(subjects.Idle, walk, n_cuts=2)
    assert report.exit_code == 2
    assert "Idle asked for nothing on these bars" in report.headline()


def test_a_strategy_with_an_indicator_that_asks_for_no_order_is_not_clean(walk):
    report = audit(subjects.Watches, walk, n_cuts=2)
    assert report.exit_code == 2
    assert "Watches asked for no order on these bars: nothing of what it trades was proved" in report.headline()


def test_a_name_to_ignore_that_is_not_there_is_refused(walk):
    with pytest.raises(DataError, match=r"nothing named 'zz' to ignore in Peeks: .*ahead.* are compared"):
        audit(subjects.Peeks, walk, n_cuts=2, ignore=["zz"])


def test_fewer_cuts_than_asked_for_are_told():
    report = audit(subjects.Honest, random_walk(60, 4), n_cuts=100_000)
    assert report.cuts_made().startswith(f"{len(report.cuts)} cuts (100000 were asked for; there are no more bars")


def test_numbers_are_shown_to_nine_digits_and_things_by_name():
    assert shown((1 / 3, 2.0, 5)) == "(0.333333333, 2, 5)"
    assert shown(1 / 3, digits=None) == "0.3333333333333333"


def test_a_failure_on_other_bars_is_told_with_the_bar_and_is_no_leak(walk):
    report = audit(subjects.Raises, walk, n_cuts=4)
    assert report.verdict == "clean"
    (raised,) = [finding for finding in report.findings if finding.grade == "raised"]
    assert raised.bar == report.cuts[0] + 1
    assert "the bars from" in raised.text
    assert "(garbage): ValueError: a jump" in raised.text


def test_a_failure_on_the_bars_as_they_are_is_refused(walk):
    with pytest.raises(DataError, match=r"Broken fails on the bars as they are, at bar 10: KeyError: 'nothing there'"):
        audit(subjects.Broken, walk, n_cuts=2)


def test_a_recursive_mean_depends_on_its_start_and_is_clean(walk):
    report = audit(subjects.Recursive, walk, n_cuts=4)
    assert report.verdict == "clean"
    text = next(str(f) for f in report.findings if f.grade == "start" and f.kind == "indicator")
    assert "without the first 65 of them it differs to the last bar" in text


def test_a_list_of_events_made_beforehand_is_no_leak(walk):
    assert audit(subjects.Events, walk, n_cuts=6).verdict == "clean"


def test_parameters_and_host_options_reach_the_strategy(walk):
    with pytest.raises(DataError, match="Honest has no parameter 'm_bars'"):
        audit(subjects.Honest, walk, parameters={"m_bars": 3})
    with pytest.raises(DataError, match="Backtest has no option 'leverage'"):
        audit(subjects.Honest, walk, leverage=3)
    assert audit(subjects.Honest, walk, n_cuts=2, parameters={"n_bars": 30}, commission=0.001).verdict == "clean"


def test_bad_questions_are_refused(walk):
    with pytest.raises(DataError, match="n_cuts is 0"):
        audit(subjects.Honest, walk, n_cuts=0)
    with pytest.raises(DataError, match=r"leave nothing to cut. An audit needs at least 50 bars"):
        audit(subjects.Honest, walk.iloc[:40])
    with pytest.raises(DataError, match=r"neither a Strategy of backtesting.py nor a function"):
        audit(dict, walk)
    with pytest.raises(DataError, match="in which nothing has a row for each of the 260 bars"):
        audit(lambda frame: None, walk)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'; it has AuditReport"):
        room.nothing  # noqa: B018


def test_a_signal_function_is_gated_and_clean(walk):
    report = audit(subjects.mean_cross, walk, n_cuts=3)
    assert report.verdict == "clean"
    assert report.compared["decision"] == report.compared["feature"] > 10


def test_signals_that_cannot_be_gated_are_compared_as_they_are(walk):
    report = audit(subjects.both_at_once, walk, n_cuts=3)
    assert "decision" not in report.compared
    assert "gate_signals refuses these signals, so they were compared as they are" in str(report)
    assert report.verdict == "clean"
    leaks = audit(subjects.both_at_once, walk, n_cuts=40).leaks  # some of these end the bars close to the cut
    assert {(leak.kind, leak.future) for leak in leaks} == {("signal", "shorter"), ("order", "shorter")}


def test_a_leak_in_a_signal_function_is_named(walk):
    leak = audit(subjects.centred_cross, walk, n_cuts=6, is_gated=False).leaks[0]
    assert (leak.kind, leak.name) in {("signal", "entries"), ("signal", "exits")}
    assert leak.lead_bars <= 5
    assert audit(subjects.in_the_next_bar, walk, n_cuts=4).leaks[0].name == "signals"


def test_rounding_that_depends_on_the_length_needs_a_tolerance(walk):
    assert audit(subjects.fourier, walk, n_cuts=4).verdict == "leak"
    assert audit(subjects.fourier, walk, n_cuts=4, tolerance=1e-12).verdict == "clean"


def test_a_report_is_plain_json(walk):
    data = audit(subjects.Scaled, walk, n_cuts=2).as_dict()
    assert json.loads(json.dumps(data, allow_nan=False))["findings"][0]["name"] == "scales['close']"


def test_the_trace_has_what_was_asked_and_what_stood_open(walk):
    trace = StrategySubject(subjects.Honest).run(walk, through_bar=100)
    assert max(bar for events in trace.events.values() for bar, _ in events) <= 100
    bar, order = trace.events["order"][0]
    assert order == {"side": 1, "size": 0.5, "limit": None, "stop": None, "sl": None, "tp": None}
    filled = next(book for at, book in trace.events["book"] if at == bar + 1)
    assert filled["open trades"][0][1:3] == (walk["Open"].iloc[bar + 1], bar + 1)


@pytest.mark.slow
def test_a_memory_is_clean_and_a_registry_read_without_as_of_is_found(walk, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert audit(subjects.Remembering, walk, n_cuts=3).verdict == "clean"
    report = audit(subjects.ReadsTheRegistry, walk, n_cuts=3)
    leak = next(leak for leak in report.leaks if leak.check == "registry")
    assert (leak.kind, leak.name) == ("attribute", "share")
    assert "filter by it, before any other choice" in leak.text
    assert not list(tmp_path.iterdir()), "no registry is left behind"


@pytest.mark.slow
def test_a_memory_without_as_of_uses_planted_rows_and_is_found(walk, monkeypatch):
    """The search for what is known is broken on purpose: all rows count as known at once."""
    import qml_plugin.memory.past as past

    class Careless:
        def __getattr__(self, name):
            return getattr(np, name)

        @staticmethod
        def searchsorted(rows, *_, **__):
            return len(rows)

    monkeypatch.setattr(past, "np", Careless())
    report = audit(subjects.Remembering, walk, n_cuts=2)
    assert {leak.check for leak in report.leaks} == {"registry"}
    assert report.leaks[0].kind in {"error", "neighbour", "confidence"}
    assert "where the registry also holds rows that became known only after bar" in report.headline()
