"""Runs beside each other: what differs, how decisions differ, which is best and of how many."""

from __future__ import annotations

import pytest

from qml_plugin.errors import DataError
from qml_plugin.registry.comparing import (
    ABSENT,
    SHORT_NAMES,
    best_runs,
    compare_decisions,
    differences,
    find_series,
    grouped,
    short_ids,
)
from tests.registry.registry_samples import make_pattern, make_run, save, take
from tests.registry.test_registry_ledger import begun, ended


def host_params(**strategy):
    return {"strategy": strategy, "qml": {"mode": "record"}, "host": {"cash": 100.0}}


# Ids


def test_ids_are_as_short_as_tells_them_apart():
    assert short_ids([]) == []
    assert short_ids(["0123456789"]) == ["01234567"]
    assert short_ids(["0123456789", "0123456799"]) == ["012345678", "012345679"]
    assert short_ids(["a", "ab"]) == ["a", "ab"]
    assert short_ids(["same-same-same", "same-same-same"]) == ["same-sam", "same-sam"]


# Differences


def test_only_what_differs_is_told(registry):
    save(
        registry,
        run=make_run("a", params=host_params(fast=5, slow=20), metrics={"n": 1, "same": 2}, versions={"numpy": "2"}),
    )
    save(
        registry,
        run=make_run("b", params=host_params(fast=7, slow=20), metrics={"n": 3, "same": 2}, versions={"numpy": "3"}),
    )
    save(registry, run=make_run("c", params=host_params(fast=5, slow=20), metrics={"n": 1, "same": 2}, data_bars=7, git_hash="e"))  # fmt: skip
    found = differences([registry.get_run(name) for name in "abc"])
    assert [(one.group, one.what, one.values) for one in found] == [
        ("parameters", "fast", (5, 7, 5)),
        ("data", "data_bars", (1000, 1000, 7)),
        ("code", "git_hash", (None, None, "e")),
        ("libraries", "numpy", ("2", "3", "2")),
        ("metrics", "n", (1, 3, 1)),
    ]


def test_what_one_run_lacks_is_absent_and_none_is_a_value(registry):
    save(registry, run=make_run("a", params=host_params(stop=None)))
    save(registry, run=make_run("b", params=host_params()))
    save(registry, run=make_run("c", params=host_params(stop=None)))
    a, b, c = (registry.get_run(name) for name in "abc")
    assert [(one.what, one.values) for one in differences([a, b])] == [("stop", (None, ABSENT))]
    assert differences([a, c]) == []


def test_what_json_tells_apart_differs(registry):
    for name, value in (("a", 1), ("b", 1.0), ("c", True), ("d", "1")):
        save(registry, run=make_run(name, params=host_params(x=value)))
    runs = {name: registry.get_run(name) for name in "abcd"}
    for name in "bcd":
        assert [one.what for one in differences([runs["a"], runs[name]])] == ["x"]


def test_parameters_of_another_making_and_runs_without_metrics(registry):
    save(registry, run=make_run("a", params={"fast": 1}))
    registry.start_run(begun("b", params={"fast": 2}))
    found = {(one.group, one.what): one.values for one in differences([registry.get_run("a"), registry.get_run("b")])}
    assert found == {
        ("run", "status"): ("finished", "running"),
        ("parameters", "fast"): (1, 2),
        ("metrics", "sharpe"): (0.5, ABSENT),
    }
    assert grouped(registry.get_run("a"))["settings"] == {"seed": 7}


@pytest.mark.parametrize("names", [[], ["a"], ["a", "a"], ["a", "b", "a"]])
def test_fewer_than_two_runs_are_no_comparison(registry, names):
    for name in "ab":
        save(registry, run=make_run(name))
    with pytest.raises(DataError, match=r"runs cannot be compared. Name at least two, each once"):
        differences([registry.get_run(name) for name in names])


# Decisions


def test_decisions_are_compared_entry_by_entry(registry):
    patterns = [make_pattern(bar) for bar in range(4)]
    skip = [take(pattern) for pattern in patterns[1:]]
    skip[0] = type(skip[0])(patterns[1].pattern_id, "skip", "low")
    skip[1] = type(skip[1])(patterns[2].pattern_id, "abstain", "few")
    save(registry, patterns[:3], run=make_run("a"))
    save(registry, patterns[1:], run=make_run("b"), decisions=skip)
    found = compare_decisions([registry.get_decisions("a"), registry.get_decisions("b")])
    assert (found.n_entries, found.n_only, found.n_common) == ((3, 3), (1, 1), 2)
    ids = [pattern.pattern_id for pattern in patterns]
    told = {one.pattern_id: (one.actions, one.is_everywhere) for one in found.differences}
    assert told == {
        ids[0]: (("take", None), False),
        ids[1]: (("take", "skip"), True),
        ids[3]: ((None, "take"), False),
    }, "abstain lets pass as take does"
    assert list(told) == sorted(told)


def test_runs_without_decisions():
    found = compare_decisions([[], [], []])
    assert (found.n_entries, found.n_only, found.n_common, found.differences) == ((0, 0, 0), (0, 0, 0), 0, ())


# The best


@pytest.fixture
def trials(registry):
    for number, sharpe in enumerate([0.5, 2.0, -1.0, None, 2.0]):
        metrics = {"sharpe_annual": sharpe, "max_drawdown_frac": -0.1 * (number + 1), "n_trades": number}
        save(registry, run=make_run(f"run-{number}", metrics=metrics))
    save(registry, run=ended("failed", "failed"))
    registry.start_run(begun("running"))
    save(registry, run=make_run("other", data_hash="e" * 64, symbol="MSFT", metrics={"sharpe_annual": 9.0}))
    save(registry, run=make_run("another", strategy_name="Else", metrics={"sharpe_annual": 7.0}))
    return registry


def ids(ranking):
    return [run["run_id"] for run in ranking.runs]


def test_the_best_is_the_best_of_all_trials_of_its_strategy_on_its_data(trials):
    found = {(ranking.strategy, ranking.data_hash): ranking for ranking in best_runs(trials, "sharpe")}
    ranking = found["Cross", "d" * 64]
    assert ids(ranking) == ["run-1", "run-4", "run-0", "run-2"]
    assert (ranking.metric, ranking.n_trials, ranking.n_without) == ("sharpe_annual", 7, 1)
    assert ranking.n_trials == trials.n_trials("Cross", "d" * 64)
    assert {key: (ids(one), one.n_trials) for key, one in found.items() if key != ("Cross", "d" * 64)} == {
        ("Cross", "e" * 64): (["other"], 1),
        ("Else", "d" * 64): (["another"], 1),
    }


def test_a_filter_does_not_make_the_trials_fewer(trials):
    save(trials, run=make_run("renamed", symbol="GOOGL", metrics={"sharpe_annual": 3.0}))
    (ranking,) = best_runs(trials, "sharpe", symbol="GOOGL")
    assert (ids(ranking), ranking.n_trials) == (["renamed"], 8)


def test_all_together_where_asked(trials):
    (ranking,) = best_runs(trials, "sharpe_annual", n=2, across=True)
    assert (ids(ranking), ranking.n_trials, ranking.strategy) == (["other", "another"], 9, None)
    (ranking,) = best_runs(trials, "sharpe", strategy="Cross", across=True)
    assert ranking.n_trials == 8


def test_the_smallest_drawdown_is_the_best(trials):
    (ranking,) = best_runs(trials, "drawdown", n=2)
    assert ids(ranking) == ["run-0", "run-1"]


def test_short_names_are_those_of_real_metrics(goog, url):
    from backtesting import Backtest

    from qml_plugin.registry import PatternRegistry
    from tests.adapters.reproduced import EveryFifth

    Backtest(goog.iloc[:80], EveryFifth, cash=100_000, finalize_trades=True).run(registry=url, mode="record")
    (run,) = PatternRegistry(url).get_runs()
    assert set(SHORT_NAMES.values()) <= set(run["metrics"])
    for short in SHORT_NAMES:
        assert best_runs(PatternRegistry(url), short)


@pytest.mark.parametrize("metric", ["sharp", "", "[red]", "\x1b[2J", "' OR 1=1"])
def test_a_metric_that_no_run_has_is_refused_with_those_there_are(trials, metric):
    with pytest.raises(DataError, match=r"no finished run has the metric .* Those there are: 'max_drawdown_frac', 'n_trades', 'sharpe_annual'") as caught:  # fmt: skip
        best_runs(trials, metric)
    assert "\x1b" not in str(caught.value)
    assert ("Did you mean 'sharpe'?" in str(caught.value)) == (metric == "sharp")


def test_many_metrics_are_not_all_named(registry):
    save(registry, run=make_run(metrics={f"m{number:02}": number for number in range(30)}))
    with pytest.raises(DataError, match="'m09' and 20 more"):
        best_runs(registry, "other")


def test_nothing_to_rank(registry):
    registry.start_run(begun())
    with pytest.raises(DataError, match="there is no finished run to rank by 'sharpe'"):
        best_runs(registry, "sharpe")
    with pytest.raises(DataError, match=r"n is 0. Ask for at least 1 run"):
        best_runs(registry, "sharpe", n=0)


# Series


def test_a_series_is_found_by_what_is_told(trials):
    assert find_series(trials, "Else") == "d" * 64
    assert find_series(trials, "Cross", symbol="MSFT") == "e" * 64
    assert find_series(trials, "Cross", data_hash="ddd") == "d" * 64
    with pytest.raises(
        DataError, match=r"strategy 'Cross' was run on 2 series: .*'MSFT', '1h', 1000 bars.* Name one: --data-hash"
    ):
        find_series(trials, "Cross")
    with pytest.raises(DataError, match="strategy 'Cross' has no run of symbol 'X' and data hash 'f'"):
        find_series(trials, "Cross", symbol="X", data_hash="f")
    with pytest.raises(DataError, match="strategy '%' has no run"):
        find_series(trials, "%")
