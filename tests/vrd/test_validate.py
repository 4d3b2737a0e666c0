import json
import multiprocessing
import os
import re
import signal
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest

from qml_plugin.bars import bars_from_frame
from qml_plugin.errors import DataError
from qml_plugin.vrd import Events, Plan, Positions, validate, validate_returns
from qml_plugin.vrd.gates import AuditFinding
from qml_plugin.vrd.keeping import Steps, as_plain
from qml_plugin.vrd.leakage import audit_positions
from qml_plugin.vrd.validate import permuted_search
from qml_plugin.vrd.walk_forward import first_bars
from tests.vrd.conftest import GRID, market_with_edge, moving_average, peeking

QUICK = Plan(n_windows=4, n_draws=99, n_paths=300, n_cuts=2, is_importance=False)


@pytest.fixture(scope="module")
def real_edge(tmp_path_factory):
    bars = market_with_edge(4000, 7, 0.0015)
    folder = tmp_path_factory.mktemp("kept")
    heard = []
    found = validate(
        bars, Positions(moving_average, 0.0002), GRID, strategy_name="MA", plan=QUICK, folder=folder,
        on_progress=lambda *step: heard.append(step),
    )  # fmt: skip
    return bars, folder, found, heard


def same(one, two):
    """Equal to the last bit, NaN being NaN."""
    if isinstance(one, np.ndarray):
        return isinstance(two, np.ndarray) and one.dtype == two.dtype and one.tobytes() == two.tobytes()
    if hasattr(one, "__dataclass_fields__"):
        return type(one) is type(two) and all(same(getattr(one, f.name), getattr(two, f.name)) for f in fields(one))
    if isinstance(one, (tuple, list)):
        return type(one) is type(two) and len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[k], two[k]) for k in one)
    return one == two or (one != one and two != two)


def test_a_real_edge_passes_and_noise_does_not(real_edge, bars, evaluate):
    _, _, found, heard = real_edge
    assert found.verdict.word == "DEPLOY", found.gates
    assert all(step.status == "done" for step in found.steps)
    assert heard[0] == ("trials", 0, 23)
    assert found.parameters in GRID
    noise = validate(bars, evaluate, GRID, plan=QUICK)
    assert noise.verdict.word in ("REJECT", "INSUFFICIENT")


def test_what_was_kept_is_read_again_to_the_last_bit(real_edge):
    bars, folder, found, _ = real_edge
    again = validate(bars, Positions(moving_average, 0.0002), GRID, strategy_name="MA", plan=QUICK, folder=folder)
    assert all(step.is_kept for step in again.steps)
    for name in (f.name for f in fields(found) if f.name != "steps"):
        assert same(getattr(found, name), getattr(again, name)), name


def test_other_bars_parameters_seeds_or_code_are_other_results(real_edge):
    bars, folder, _, _ = real_edge
    plan = Plan(n_windows=2, n_draws=19, n_paths=10, n_cuts=1)
    for change in ("bars", "grid", "seed", "costs", "identity"):
        found = validate(
            first_bars(bars, 3000) if change == "bars" else bars,
            Positions(moving_average, 0.0003 if change == "costs" else 0.0002),
            GRID[:2] if change == "grid" else GRID[:3],
            plan=plan, seed=int(change == "seed"), folder=folder, identity="mine" if change == "identity" else None,
        )  # fmt: skip
        assert not found.steps[0].is_kept, change


def test_a_damaged_step_is_computed_again_and_named(real_edge):
    bars, folder, found, _ = real_edge
    (path,) = (
        p
        for p in folder.glob("walk-*.npz")
        if p.stat().st_size == max(q.stat().st_size for q in folder.glob("walk-*.npz"))
    )
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    again = validate(bars, Positions(moving_average, 0.0002), GRID, strategy_name="MA", plan=QUICK, folder=folder)
    assert same(again.walk, found.walk)
    assert path.name in again.damaged[0]
    assert path.read_bytes() != whole[: len(whole) // 2]


def _validate_slowly(folder):
    bars = market_with_edge(4000, 7, 0.0015)
    validate(
        bars,
        Positions(moving_average, 0.0002),
        GRID,
        plan=QUICK,
        folder=folder,
        on_progress=lambda *step: time.sleep(0.3),
    )


def test_a_validation_that_was_killed_goes_on(tmp_path, real_edge):
    process = multiprocessing.get_context("spawn").Process(target=_validate_slowly, args=(tmp_path,))
    process.start()
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("*.npz"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    found = validate(real_edge[0], Positions(moving_average, 0.0002), GRID, plan=QUICK, folder=tmp_path)
    assert sum(step.is_kept for step in found.steps) >= 3
    assert same(found.walk, real_edge[2].walk)
    assert not found.damaged


def test_everything_is_plain_json(real_edge):
    shown = real_edge[2].as_dict()
    again = json.loads(json.dumps(shown, allow_nan=False))
    assert again == shown
    assert again["verdict"]["word"] == "DEPLOY"
    assert len(again["gates"]) == 8
    assert len(again["trials"]["table"]["fast"]) == len(GRID)
    assert as_plain({"x": np.nan, "y": (np.float64(1), np.inf)}) == {"x": None, "y": [1.0, None]}


def test_a_strategy_that_knows_the_next_bar_is_rejected(bars):
    grid = [{"n": 1}, {"n": 2}]
    found = validate(bars, Positions(peeking, 0.0001), grid, plan=QUICK)
    assert found.verdict.word == "REJECT"
    assert "the gate of audit" in found.verdict.sentence
    assert audit_positions(bars, Positions(moving_average), GRID[0], seed=1).verdict == "clean"
    assert audit_positions(bars, Positions(lambda bars, p: np.ones(len(bars))), {}, seed=1).verdict == "refused"


@dataclass(frozen=True)
class Report:
    verdict: str
    sentence: str

    def headline(self):
        return self.sentence


def test_a_report_of_the_audit_that_is_not_clean_stands(bars, evaluate):
    found = validate(bars, evaluate, GRID[:2], plan=QUICK, audit=Report("leak", "it saw bar 7"))
    assert found.audit == AuditFinding("leak", "it saw bar 7")


def test_an_audit_without_a_cut_says_nothing(bars, evaluate):
    found = audit_positions(bars, evaluate, GRID[0], n_cuts=0, seed=1)
    assert found == AuditFinding("refused", "no cut was asked for, so nothing was compared")
    plan = Plan(n_windows=2, n_draws=19, n_paths=10, n_cuts=0)
    gates = {gate.name: gate for gate in validate(bars, evaluate, GRID[:2], plan=plan).gates}
    assert gates["audit"].status != "PASS"


def test_a_new_report_of_the_audit_is_not_hidden_by_a_kept_one(bars, evaluate, tmp_path):
    plan = Plan(n_windows=2, n_draws=19, n_paths=10, n_cuts=1)
    reports = [
        None,
        Report("clean", "as far as it looked"),
        Report("leak", "it saw bar 7"),
        Report("leak", "it saw bar 8"),
    ]
    for report in reports:
        for is_again in (False, True):
            found = validate(bars, evaluate, GRID[:2], plan=plan, audit=report, folder=tmp_path)
            assert {step.name: step.is_kept for step in found.steps}["audit"] == is_again
            if report is not None:
                assert found.audit == AuditFinding(report.verdict, report.sentence)
    assert {step.name: step.is_kept for step in found.steps}["walk"]


NOTHING = {
    "no trades": lambda bars, p: np.zeros(len(bars)),
    "one trade": lambda bars, p: ((np.arange(len(bars)) > 700) & (np.arange(len(bars)) < 720)) * 1.0,
    "always long": lambda bars, p: np.ones(len(bars)),
}


@pytest.mark.parametrize("kind", NOTHING)
def test_nothing_to_judge_is_insufficient_with_its_reason(bars, kind):
    found = validate(bars, Positions(NOTHING[kind], 0.0001), [{"n": 1}, {"n": 2}], plan=QUICK)
    assert found.verdict.word == "INSUFFICIENT"
    assert "trades out of sample; 30 are needed" in found.verdict.sentence
    assert found.walk is not None
    assert all(gate.reason for gate in found.gates)


def test_returns_that_are_nan_leave_every_gate_insufficient(bars):
    found = validate(bars, Positions(lambda bars, p: np.full(len(bars), np.nan)), [{}], plan=QUICK)
    assert {gate.status for gate in found.gates} == {"INSUFFICIENT"}
    assert "the only trial failed" in found.verdict.sentence


def test_a_strategy_that_raises_in_one_window_keeps_the_others(bars):
    def position(bars, parameters):
        if 900 < len(bars) < 1000:
            raise RuntimeError("bad data")
        return moving_average(bars, parameters)

    plan = Plan(n_windows=4, n_draws=99, n_paths=100, n_cuts=1, is_rerun=True)
    found = validate(bars, Positions(position, 0.0001), GRID[:2], plan=plan)
    assert found.walk is not None
    assert found.walk.n_failed == 1
    gate = next(gate for gate in found.gates if gate.name == "timing")
    assert gate.status == "INSUFFICIENT"
    assert "bad data" in gate.reason or "trades out of sample" in gate.reason


def test_less_data_than_a_window_is_insufficient_and_keeps_the_trials(bars, evaluate):
    found = validate(first_bars(bars, 60), evaluate, GRID[:2], plan=QUICK)
    assert found.verdict.word == "INSUFFICIENT"
    assert "leave one of" in found.verdict.sentence
    assert found.trials is not None


def test_without_a_search_the_count_must_come_from_the_ledger(real_edge):
    bars = real_edge[0]
    alone = validate(bars, Positions(moving_average, 0.0002), [GRID[4]], plan=QUICK)
    gates = {gate.name: gate for gate in alone.gates}
    assert gates["selection"].status == "INSUFFICIENT"
    assert gates["plateau"].status == "PASS"
    counted = validate(bars, Positions(moving_average, 0.0002), [GRID[4]], plan=QUICK, n_trials_ledger=9)
    assert {gate.name: gate.status for gate in counted.gates}["selection"] == "PASS"


def test_permuted_bars_repeat_the_whole_search(real_edge):
    bars = real_edge[0]
    plan = Plan(n_permutations=19, permutation_block_bars=1)
    found = permuted_search(bars, Positions(moving_average, 0.0002), GRID[3:5], plan, alpha=0.05, seed=1)
    assert found.status == "PASS"
    assert found.p_value == pytest.approx(1 / 20)
    short = first_bars(bars, 300)
    failing = permuted_search(short, Positions(_only_real(short), 0.0002), GRID[:1], plan, alpha=0.05, seed=1)
    assert failing.status == "FAIL"


def _only_real(real):
    """Positions that raise on any other bars."""

    def position(bars, parameters):
        if not np.array_equal(bars.close, real.close):
            raise RuntimeError("never seen")
        return moving_average(bars, parameters)

    return position


def test_returns_alone_are_never_enough(tmp_path):
    trades = np.random.default_rng(0).normal(0.01, 0.02, 200)
    found = validate_returns(trades, 50.0, costs=np.full(200, 0.001), plan=QUICK, n_trials_ledger=3, folder=tmp_path)
    assert found.verdict.word == "INSUFFICIENT"
    status = {gate.name: gate.status for gate in found.gates}
    assert status["ruin"] == status["costs"] == "PASS"
    assert [name for name, s in status.items() if s == "INSUFFICIENT"] == [
        "evidence", "timing", "selection", "plateau", "concentration", "audit",
    ]  # fmt: skip
    assert found.significance.dsr < found.significance.psr
    json.dumps(found.as_dict(), allow_nan=False)
    reasons = {gate.name: gate.reason for gate in found.gates}
    assert reasons["evidence"] == "200 results over 4.0 years; returns alone do not say whether they are out of sample"
    assert "the Sharpe ratio of the returns is" in reasons["costs"]
    few = validate_returns(trades[:29], 50.0, costs=np.full(29, 0.001), plan=QUICK)
    assert next(gate for gate in few.gates if gate.name == "costs").status == "INSUFFICIENT"
    assert reasons["selection"] == "returns alone do not say how many trials led to them"
    with pytest.raises(DataError, match="per_year is 0"):
        validate_returns(trades, 0)
    with pytest.raises(DataError, match="not finite"):
        validate_returns(np.array([0.1, np.nan]), 50)


@pytest.mark.parametrize(
    ("returns", "reason"),
    [
        (np.full(60, 0.01), "all 60 results are 0.01"),
        (np.tile([0.01, -0.005], 10), "20 results are too few to draw paths from"),
    ],
)
def test_returns_that_could_show_no_ruin_do_not_pass_it(returns, reason):
    gate = next(gate for gate in validate_returns(returns, 50.0, plan=QUICK).gates if gate.name == "ruin")
    assert gate.status == "INSUFFICIENT"
    assert gate.reason.startswith(reason)


def test_features_of_entries_are_attributed(bars, evaluate):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(80, 3))
    known_at = np.arange(80) * 10
    events = Events(features, features[:, 1] + rng.normal(0, 0.3, 80), known_at, known_at + 5, ("a", "b", "c"))
    found = validate(bars, evaluate, GRID[:2], plan=QUICK, events=events)
    assert found.attribution.relations[0].name == "b"
    assert found.attribution.relations[0].is_discovery


def test_new_events_are_not_hidden_by_kept_ones(bars, evaluate, tmp_path):
    rng = np.random.default_rng(0)
    known_at = np.arange(80) * 10
    events = Events(rng.normal(size=(80, 3)), rng.normal(size=80), known_at, known_at + 5, ("a", "b", "c"))
    changes = {
        "features": -events.features,
        "r_multiple": 2 * events.r_multiple,
        "resolved_at": known_at + 25,
        "names": ("a", "b", "d"),
    }
    for changed in (events, *(replace(events, **{name: value}) for name, value in changes.items())):
        for is_again in (False, True):
            found = validate(bars, evaluate, GRID[:2], plan=QUICK, events=changed, folder=tmp_path)
            assert {step.name: step.is_kept for step in found.steps}["attribution"] == is_again
    assert {one.name for one in found.attribution.relations} == {"a", "b", "d"}


def test_daily_bars_of_a_stock_go_through(goog):
    bars = bars_from_frame(goog, symbol="GOOG")
    found = validate(bars, Positions(moving_average, 0.0005), GRID, plan=QUICK)
    assert found.verdict.word == "CAUTION"
    assert found.walk.bars_per_year == pytest.approx(252, abs=1)


def test_an_empty_grid_is_refused(bars, evaluate):
    with pytest.raises(DataError, match="the grid of parameters is empty"):
        validate(bars, evaluate, [])


def test_what_could_not_be_read_again_is_not_kept(tmp_path):
    with pytest.raises(DataError, match="a object cannot be kept"):
        Steps(tmp_path).write("step", "key", (object(),))
    assert not list(tmp_path.iterdir())


def test_the_example_of_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "vrd.md").read_text()
    (tmp_path / "trades.csv").write_text("exit_at,return_frac\n2024-01-01,0.01\n2024-06-01,-0.01\n2025-01-01,0.02\n")
    for example, said in zip(
        re.findall(r"^```python\n(.*?)^```", page, flags=re.M | re.S), ("timing", "3 results"), strict=True
    ):
        exec(compile(example, "vrd.md", "exec"), {})
        assert said in capsys.readouterr().out
