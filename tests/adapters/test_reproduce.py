"""A recorded run, run again on what it saw: identical, or what has changed is said."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from backtesting import Backtest, Strategy
from backtesting.lib import FractionalBacktest

from qml_plugin import PatternMixin, PatternRegistry
from qml_plugin.adapters.reproduce import Comparison, reproduce
from qml_plugin.adapters.run_memory import _inverse
from qml_plugin.errors import DataError
from qml_plugin.records import BarrierRule
from tests.adapters import reproduced
from tests.adapters.reproduced import EveryFifth, NeverEnters
from tests.adapters.test_registering import contents

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning:backtesting", "ignore:Some trades remain open", "ignore:the registry holds"
)
OPTIONS = {"cash": 100_000, "commission": 0.001, "exclusive_orders": True, "finalize_trades": True}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "experiments.db"


@pytest.fixture
def url(path):
    return f"sqlite:///{path}"


def ran(frame, url, strategy=EveryFifth, host=Backtest, options=OPTIONS, **parameters):
    """The id of a new run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        stats = host(frame, strategy, **options).run(**{"registry": url} | parameters)
    return stats["_strategy"].qml.run.run_id


def differing(found):
    return [one.what for one in found.comparisons if not one.is_identical]


def assert_identical(url, run_id, **given):
    found = reproduce(url, run_id, **given)
    assert (differing(found), found.changes, found.is_identical) == ([], (), True)
    return found


# Identical


@pytest.mark.parametrize("mode", ["record", "shadow", "gate"])
@pytest.mark.parametrize("data", ["goog", "eurusd"])
def test_a_run_comes_out_as_it_was_and_leaves_no_trace(request, url, path, data, mode):
    frame = request.getfixturevalue(data).iloc[:400]
    ran(frame.iloc[:300], url, symbol="OTHER", mode="record")  # a past to know
    run_id = ran(frame, url, mode=mode, every=4)
    ran(frame.iloc[50:], url, mode="shadow", every=3)  # what came later is not seen
    before = contents(path, ())
    found = assert_identical(url, run_id[:13])
    assert contents(path, ()) == before
    assert found.run_id == run_id
    run = PatternRegistry(url).get_run(run_id)
    assert {one.what for one in found.comparisons} == {*run["metrics"], "decisions", "returns of the bars"}
    assert (run["snapshot_patterns"] is None) == (mode == "record")
    assert mode == "record" or run["snapshot_patterns"] >= 50
    assert next(one for one in found.comparisons if one.what == "n_entries").recorded > 80


def test_a_gate_that_skips_skips_the_same_again(goog, url):
    ran(goog.iloc[:1300], url, symbol="PAST", mode="record", every=2)
    run_id = ran(goog.iloc[600:1000], url, mode="gate", every=4, min_confidence=0.6)
    assert_identical(url, run_id)
    actions = {row["action"] for row in PatternRegistry(url).get_decisions(run_id)}
    assert actions <= {"take", "skip", "abstain"}


@pytest.mark.parametrize("unit", [{}, {"fractional_unit": 1 / 3}, {"fractional_unit": 1e-3}])
def test_a_run_of_the_fractional_host(goog, url, unit):
    frame = goog.iloc[:200]
    run_id = ran(frame, url, host=FractionalBacktest, options=OPTIONS | unit, mode="shadow")
    assert_identical(url, run_id)
    assert PatternRegistry(url).n_trials(EveryFifth, frame) == 1, "the bars are those of the market"


def test_the_bars_of_the_fractional_host_scale_to_the_same_bits():
    rng = np.random.default_rng(0)
    for unit in (1e-8, 1 / 3, 1e-3, 7.0):
        prices = np.exp(rng.normal(3, 2, 5_000))
        bits = _inverse(prices * unit, prices * unit / unit, lambda px, unit=unit: px * unit)
        assert np.array_equal(bits * unit, prices * unit)
        decimals = np.round(prices, 5)
        assert np.array_equal(
            _inverse(decimals * unit, decimals * unit / unit, lambda px, unit=unit: px * unit), decimals
        )
    volume = np.array([0.0, 1.0, np.nan, 123456789.0])
    assert np.array_equal(
        _inverse(volume / 1e-8, volume / 1e-8 * 1e-8, lambda traded: traded / 1e-8), volume, equal_nan=True
    )


@pytest.mark.parametrize("tz", ["America/New_York", "UTC", "Asia/Kolkata"])
def test_stamps_with_a_time_zone(eurusd, url, tz):
    frame = eurusd.iloc[:300].tz_localize("UTC").tz_convert(tz)
    assert_identical(url, ran(frame, url, symbol="EURUSD", mode="shadow"))


def test_stamps_of_the_end_of_the_bar(goog, url):
    assert_identical(url, ran(goog.iloc[:200], url, bar_label="close", timeframe="1d"))


def test_a_run_without_entries_has_figures_without_a_value_both_times(goog, url):
    run_id = ran(goog.iloc[:60], url, NeverEnters)
    assert PatternRegistry(url).get_run(run_id)["metrics"]["trade_win_share"] is None
    assert_identical(url, run_id)


def test_the_bars_may_be_given_as_a_frame_or_a_file(goog, url, tmp_path):
    run_id = ran(goog.iloc[:200], url)
    assert_identical(url, run_id, data=goog.iloc[:200])
    goog.iloc[:200].to_csv(tmp_path / "bars.csv")
    assert_identical(url, run_id, data=tmp_path / "bars.csv")


def test_the_class_may_be_given_itself_or_by_its_place(goog, url):
    run_id = ran(goog.iloc[:200], url)
    assert_identical(url, run_id, strategy=EveryFifth)
    assert_identical(url, run_id, strategy="tests.adapters.reproduced:EveryFifth")


def test_parameters_and_settings_given_to_run(goog, url):
    given = {"every": 7, "risk_frac": 1 / 3, "most": 120, "names": ("c",), "mode": "shadow", "n_neighbours": 3}
    given |= {"barriers": BarrierRule(1 / 3, 2.0, 17), "min_confidence": 0.4, "seed": 5, "on_skip": "hold"}
    run_id = ran(goog.iloc[:200], url, **given)
    recorded = PatternRegistry(url).get_run(run_id)["params"]
    assert (recorded["strategy"]["every"], recorded["qml"]["n_neighbours"]) == (7, 3)
    assert_identical(url, run_id)


@pytest.mark.parametrize("commission", [0.0, 0.002, (5.0, 0.001)])
def test_options_of_the_host(goog, url, commission):
    options = {"cash": 77_777.5, "spread": 0.0003, "commission": commission, "margin": 0.5, "trade_on_close": True, "hedging": True}  # fmt: skip
    assert_identical(url, ran(goog.iloc[:200], url, options=options))


@pytest.mark.filterwarnings("ignore:The inplace keyword")
def test_a_cell_of_a_search(goog, url):
    host = Backtest(goog.iloc[:200], EveryFifth, **OPTIONS)
    host.optimize(every=[4, 6], registry=url, mode="shadow", maximize="Return [%]")
    runs = PatternRegistry(url).get_runs()
    assert {run["params"]["strategy"]["every"] for run in runs} == {4, 6}
    for run in runs:
        assert_identical(url, run["run_id"])


SCRIPT = """
import sys, warnings
from backtesting import Backtest, Strategy
from backtesting.test import GOOG
from qml_plugin import PatternMixin

class Own(PatternMixin, Strategy):
    symbol, mode = "GOOG", "record"
    every = 6
    def init(self): ...
    def next(self):
        if len(self.data) % self.every == 0:
            self.buy(size=0.1)

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    Backtest(GOOG.iloc[:120], Own, cash=100_000).run(registry=sys.argv[1])
"""


def test_a_class_of_a_script(url, tmp_path):
    script = tmp_path / "own.py"
    script.write_text(SCRIPT)
    subprocess.run([sys.executable, script, url], check=True, timeout=120, env={**os.environ, "TQDM_DISABLE": "1"})
    (run,) = PatternRegistry(url).get_runs()
    assert run["strategy_path"] == f"{script}:Own"
    assert_identical(url, run["run_id"])


# Not identical


def test_changed_code_is_named(goog, url, monkeypatch):
    run_id = ran(goog.iloc[:200], url)

    class Changed(EveryFifth):
        def next(self):
            if len(self.data) != 50:
                super().next()

    monkeypatch.setattr(reproduced, "EveryFifth", Changed)
    found = reproduce(url, run_id)
    assert not found.is_identical
    assert {"n_entries", "decisions", "returns of the bars"} <= set(differing(found))
    assert found.changes == ("code: the source of Changed is another",)
    returns = next(one for one in found.comparisons if one.what == "returns of the bars")
    assert re.fullmatch(r"another from bar 5[01] on", returns.again)


def test_code_that_changed_without_effect_is_identical_and_named(goog, url, monkeypatch):
    run_id = ran(goog.iloc[:200], url)

    class Same(EveryFifth): ...

    Same.__name__ = "EveryFifth"
    monkeypatch.setattr(reproduced, "EveryFifth", Same)
    found = reproduce(url, run_id)
    assert found.is_identical
    assert found.changes == ("code: the source of EveryFifth is another",)


def test_changed_data_is_named(goog, url):
    run_id = ran(goog.iloc[:200], url)
    other = goog.iloc[:200].copy()
    other.iloc[150, other.columns.get_loc("Volume")] += 1
    found = reproduce(url, run_id, data=other)
    assert found.changes == ("data: 200 bars with another hash than the 200 that the run saw",)
    assert found.is_identical, "no decision of mode record reads a volume"
    found = reproduce(url, run_id, data=goog.iloc[:190])
    assert found.changes == ("data: 190 bars with another hash than the 200 that the run saw",)
    assert "return_frac" in differing(found)
    returns = next(one for one in found.comparisons if one.what == "returns of the bars")
    assert returns.again == "another from bar 189 on", "on its last bar the host closed what was open"


def test_a_relabelled_pattern_of_the_snapshot_is_named(goog, url):
    ran(goog.iloc[:400], url, symbol="PAST", mode="record", every=3)
    run_id = ran(goog.iloc[100:300], url, mode="shadow")
    registry = PatternRegistry(url)
    assert_identical(url, run_id)
    pattern = next(row for row in registry.get_patterns(symbol="PAST", limit=1))
    registry.label_pattern(pattern["pattern_id"], "loss" if pattern["barrier_outcome"] == "win" else "win")
    found = reproduce(url, run_id)
    (change,) = found.changes
    n_patterns = registry.get_run(run_id)["snapshot_patterns"]
    assert change.startswith(
        f"registry: {n_patterns} known patterns up to its commit 1, and they are not the {n_patterns}"
    )
    assert "relabelled" in change


def test_other_libraries_features_and_commit_are_named(goog, url, path):
    from tests.registry.registry_samples import execute

    run_id = ran(goog.iloc[:100], url)
    execute(
        path,
        "UPDATE experiments SET git_hash = 'abc', git_diff_sha256 = NULL, versions_json = json_set(versions_json, "
        "'$.numpy', '1.0', '$.feature_set', 'f', '$.gone', '3')",
    )
    found = reproduce(url, run_id)
    assert found.is_identical
    said = "\n".join(found.changes)
    assert "commit " in said
    assert "it was abc" in said
    assert "features: the catalogue is another" in said
    assert re.search(r"library: numpy \S+, it was 1.0", said)
    assert "library: gone None, it was 3" in said


def test_a_parameter_that_the_class_has_no_more_is_named(goog, url):
    class Older(EveryFifth):
        gone = 3

    run_id = ran(goog.iloc[:100], url, Older)
    found = reproduce(url, run_id, strategy=EveryFifth)
    assert "parameter: gone cannot be set to 3 again" in found.changes


# Refused


def test_what_no_record_can_hold_is_refused(goog, url):
    def by_size(order_size, price):
        return 0.001 * abs(order_size) * price

    run_id = ran(goog.iloc[:60], url, names=by_size)
    with pytest.raises(
        DataError, match=f"run {run_id} had the parameter names='.*by_size@.*', which a record can name"
    ):
        reproduce(url, run_id)
    run_id = ran(goog.iloc[:60], url, options=OPTIONS | {"commission": by_size})
    with pytest.raises(
        DataError, match=f"run {run_id} had commission='.*by_size@.*', which a record can name but not hold"
    ):
        reproduce(url, run_id)


def test_a_host_of_ones_own_is_refused(goog, url):
    class Mine(Backtest): ...

    run_id = ran(goog.iloc[:100], url, host=Mine)
    with pytest.raises(DataError, match=r"the run used Mine, a host of its own. Only Backtest and FractionalBacktest"):
        reproduce(url, run_id)


class Fails(PatternMixin, Strategy):
    symbol = "GOOG"

    def init(self): ...

    def next(self):
        if len(self.data) == 30:
            raise KeyError("now")


def test_a_run_that_did_not_finish_is_refused(goog, url):
    with pytest.raises(KeyError, match="now"):
        Backtest(goog.iloc[:60], Fails, cash=100_000).run(registry=url)
    (run,) = PatternRegistry(url).get_runs()
    with pytest.raises(DataError, match=f"run {run['run_id']} is failed: it left no metrics to compare with"):
        reproduce(url, run["run_id"])


def test_a_killed_run_is_refused(goog, url):
    from tests.registry.registry_samples import finish, start
    from tests.registry.test_registry_ledger import KILLS_ITSELF

    assert finish([start(KILLS_ITSELF, url)])[0][1] < 0
    (run,) = PatternRegistry(url).get_runs()
    with pytest.raises(DataError, match=f"run {run['run_id']} is running: it left no metrics"):
        reproduce(url, run["run_id"])
    ran(goog.iloc[:60], url)
    with pytest.raises(DataError, match=f"run {run['run_id']} is interrupted: it left no metrics"):
        reproduce(url, run["run_id"])


def test_a_class_that_cannot_be_found_is_refused(goog, url):
    class Local(EveryFifth): ...

    run_id = ran(goog.iloc[:60], url, Local)
    with pytest.raises(DataError, match=r"there is no class at .*<locals>.Local"):
        reproduce(url, run_id)
    with pytest.raises(DataError, match=r"there is no class at 'nowhere:Local'"):
        reproduce(url, run_id, strategy="nowhere:Local")
    with pytest.raises(DataError, match="has no PatternMixin, so it made no run of this registry"):
        reproduce(url, run_id, strategy="backtesting:Strategy")


def test_bars_that_are_not_kept_must_be_given(goog, url, path):
    from tests.registry.registry_samples import execute

    run_id = ran(goog.iloc[:60], url)
    execute(path, "DELETE FROM bars")
    with pytest.raises(DataError, match=f"the registry keeps no bars of run {run_id}. Give them: --data FILE"):
        reproduce(url, run_id)
    assert_identical(url, run_id, data=goog.iloc[:60])


def test_a_missing_registry_is_not_made(tmp_path):
    with pytest.raises(Exception, match="there is no database at"):
        reproduce(f"sqlite:///{tmp_path}/none.db", "x")
    assert list(tmp_path.iterdir()) == []


def test_no_value_both_times_is_identical():
    assert Comparison("x", float("nan"), float("nan")).is_identical
    assert Comparison("x", None, None).is_identical
    assert not Comparison("x", None, 0.0).is_identical
    assert not Comparison("x", 0.1 + 0.2, 0.3).is_identical


# What others did since, and what a script does when it is imported


def test_scores_that_came_later_are_not_seen(eurusd, url):
    frame = eurusd.iloc[:1500]
    ran(frame, url, mode="record", every=6)
    scored = ran(frame, url, mode="shadow", every=7)
    assert_identical(url, scored)
    ran(frame, url, mode="shadow", every=6)  # scores the patterns that the first run recorded
    assert_identical(url, scored)
    run = PatternRegistry(url).get_run(scored)
    assert run["metrics"]["n_take"] + run["metrics"]["n_abstain"] > 100


UNGUARDED = """
from backtesting import Backtest
from backtesting.test import GOOG
from tests.adapters.reproduced import EveryFifth

class Mine(EveryFifth):
    pass

print("a table of mine")
Backtest(GOOG.iloc[:120], Mine, cash=100_000).run(registry="sqlite:///{path}", symbol="GOOG", every={every})
"""


def test_a_script_that_runs_when_imported_records_nothing_and_prints_nothing(goog, url, path, tmp_path, capsys):
    script = tmp_path / "mine.py"
    script.write_text(UNGUARDED.format(path=path, every=4))
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "TQDM_DISABLE": "1"}
    subprocess.run(
        [sys.executable, "-W", "ignore", script], check=True, env=environment, timeout=120, capture_output=True
    )
    (run,) = PatternRegistry(url).get_runs()
    script.write_text(UNGUARDED.format(path=path, every=3))
    before = contents(path, ())
    assert reproduce(url, run["run_id"]).is_identical
    assert contents(path, ()) == before
    assert "a table of mine" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1\n1/0", "ZeroDivisionError: division by zero, at line 2 of .*mine.py"),
        ("def f(:", "SyntaxError: .* at line 1 of .*mine.py"),
        ("import sys; sys.exit('usage: mine')", "SystemExit: usage: mine, at line 1"),
        ("import sys; assert sys.argv[1:] == [], sys.argv; raise KeyError('k')", "KeyError: 'k', at line 1"),
        ("open('nowhere.csv')", "FileNotFoundError: .*nowhere.csv"),
    ],
)
def test_a_script_that_cannot_be_imported_is_named_with_its_line(goog, url, tmp_path, code, message):
    run_id = ran(goog.iloc[:100], url)
    script = tmp_path / "mine.py"
    script.write_text(code)
    with pytest.raises(DataError, match=rf"mine.py cannot be imported: {message}"):
        reproduce(url, run_id, strategy=f"{script}:S")
