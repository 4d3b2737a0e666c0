import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qml_plugin.errors import DataError
from qml_plugin.stats.nulls import insufficient, judged
from qml_plugin.stats.overfitting import SuperiorAbility
from qml_plugin.vrd.costs import cost_stress
from qml_plugin.vrd.gates import GATES, AuditFinding, Findings, Gate, Significance, judge, verdict_of, warnings_of
from qml_plugin.vrd.regimes import by_regime
from qml_plugin.vrd.sensitivity import plateau
from qml_plugin.vrd.thresholds import Thresholds, load_thresholds
from qml_plugin.vrd.validate import ruin_paths
from qml_plugin.vrd.walk_forward import WalkForward

T = load_thresholds()


def walk_of(mean: float, n: int = 1500) -> WalkForward:
    rng = np.random.default_rng(0)
    market = rng.normal(0, 0.01, n)
    exposure = np.where(np.arange(n) // 10 % 2, 1.0, -1.0)
    returns = rng.normal(mean, 0.008, n)
    excess = returns - exposure.mean() * market
    sharpe = excess.mean() / excess.std(ddof=1) * np.sqrt(252)
    costs = np.full(n, 0.0001)
    return WalkForward(
        "anchored",
        (),
        np.arange(n),
        returns,
        exposure,
        costs,
        market,
        excess,
        np.cumprod(1 + returns),
        150,
        sharpe,
        sharpe,
        252.0,
    )


def null_of(p: float, test: str = "shifted"):
    draws = np.where(np.arange(99) < round(p * 100) - 1, 2.0, 0.0)
    return judged(test, "chance", 1.0, draws, alpha=0.05)


def search_of(p: float) -> SuperiorAbility:
    return SuperiorAbility(null_of(p, "superior predictive ability"), p, p, 0, np.array([0]), 1.0)


@pytest.fixture(scope="module")
def good() -> Findings:
    walk = walk_of(0.001)
    code = (np.arange(len(walk.bar)) % 6).astype(np.int8)
    periods = (np.arange(len(walk.bar)) * 5 // len(walk.bar)).astype(np.int8)
    return Findings(
        walk=walk, timing=null_of(0.01), selection=search_of(0.01), n_trials=9,
        costs=cost_stress(walk.excess, walk.costs, 252, n_draws=9, seed=1),
        plateau=plateau([{"a": i} for i in range(3)], np.array([1.0, 1.1, 1.0])),
        periods=by_regime(walk.excess, periods, 252, names=tuple(f"period {i}" for i in range(5)), n_draws=9, seed=1),
        regimes=by_regime(walk.excess, code, 252, n_draws=9, seed=1),
        ruin=ruin_paths(walk, T, n_paths=300, is_pessimist=True, seed=1), audit=AuditFinding("clean", "clean."),
    )  # fmt: skip


def statuses(found: Findings, thresholds: Thresholds = T) -> dict[str, str]:
    return {gate.name: gate.status for gate in judge(found, thresholds)[0]}


def test_what_passes_everything_is_deployed(good):
    gates, verdict = judge(good, T)
    assert [gate.name for gate in gates] == list(GATES)
    assert {gate.status for gate in gates} == {"PASS"}
    assert verdict.word == "DEPLOY"
    assert verdict.sentence.startswith("All eight gates pass; out of sample the Sharpe ratio of the excess is")


def test_nothing_at_all_is_insufficient_everywhere():
    gates, verdict = judge(Findings(), T)
    assert {gate.status for gate in gates} == {"INSUFFICIENT"}
    assert verdict.word == "INSUFFICIENT"
    assert all(gate.reason for gate in gates)


PARTS = ("walk", "timing", "selection", "costs", "plateau", "periods", "regimes", "ruin", "audit")


@given(st.sets(st.sampled_from(PARTS), min_size=1))
def test_what_is_missing_never_passes(good, lost):
    found = replace(good, **dict.fromkeys(lost, None), missing={"ruin": "no paths"})
    after = statuses(found)
    assert "INSUFFICIENT" in after.values()
    assert judge(found, T)[1].word == "INSUFFICIENT"


@pytest.mark.parametrize(
    ("change", "gate", "status", "word", "text"),
    [
        ({"timing": null_of(0.06)}, "timing", "FAIL", "REJECT", r"p = 0.06 against shifted positions; p <= 0.05 is asked"),
        ({"timing": insufficient("x", "y", 0.05, "no shifts")}, "timing", "INSUFFICIENT", "INSUFFICIENT", "no shifts"),
        ({"selection": search_of(0.06)}, "selection", "FAIL", "REJECT", r"p = 0.06 over 9 trials"),
        ({"selection": search_of(0.04), "n_trials_ledger": 18}, "selection", "FAIL", "REJECT", r"p = 0.08 over 18 trials"),
        ({"bar_permutation": null_of(0.2, "bar permutation")}, "selection", "FAIL", "REJECT", r"\(bar permutation\)"),
        ({"n_trials": 1}, "selection", "INSUFFICIENT", "INSUFFICIENT", "how many trials were made is not known"),
        ({"n_trials": 1, "n_trials_ledger": 1}, "selection", "PASS", "DEPLOY", "All eight"),
        ({"n_trials": 1, "n_trials_ledger": 5}, "selection", "INSUFFICIENT", "INSUFFICIENT", "no deflated Sharpe"),
        ({"audit": AuditFinding("leak", "saw the future")}, "audit", "FAIL", "REJECT", "saw the future"),
        ({"audit": AuditFinding("refused", "unstable")}, "audit", "INSUFFICIENT", "INSUFFICIENT", "unstable"),
        ({"plateau": plateau([{"a": i} for i in range(3)], np.array([0.0, 1.0, 0.5]))}, "plateau", "FAIL", "CAUTION", "keep 25%"),
        ({"plateau": plateau([{"a": i} for i in range(3)], np.array([0.495, 1.0, 0.495]))}, "plateau", "FAIL", "CAUTION", "keep 49.5%"),
    ],
)  # fmt: skip
def test_each_gate_says_no_for_its_own_reason(good, change, gate, status, word, text):
    found = replace(good, **change)
    assert statuses(found)[gate] == status
    verdict = judge(found, T)[1]
    assert verdict.word == word
    assert re.search(text, verdict.sentence)


def test_the_deflated_sharpe_ratio_judges_where_only_the_count_is_known(good):
    def found(dsr):
        return replace(good, n_trials=1, n_trials_ledger=40, significance=Significance(1, 0.99, dsr, 40, 1, 1, 1, 1))

    assert statuses(found(0.96))["selection"] == "PASS"
    assert statuses(found(0.94))["selection"] == "FAIL"
    assert statuses(found(np.nan))["selection"] == "INSUFFICIENT"


def test_doubled_costs_that_eat_the_edge_make_caution(good):
    dear = cost_stress(good.walk.excess, np.full(1500, 0.002), 252, n_draws=9, seed=1)
    verdict = judge(replace(good, costs=dear), T)[1]
    assert verdict.word == "CAUTION"
    assert "costs fails" in verdict.sentence
    free = cost_stress(good.walk.excess, np.zeros(1500), 252, n_draws=9, seed=1)
    assert statuses(replace(good, costs=free))["costs"] == "INSUFFICIENT"


def test_one_period_or_one_regime_that_carries_all_makes_caution(good):
    excess = np.where(np.arange(1500) < 300, 0.01, 0.0) + np.random.default_rng(0).normal(0, 1e-3, 1500)
    code = (np.arange(1500) * 5 // 1500).astype(np.int8)
    one = by_regime(excess, code, 252, names=tuple("abcde"), n_draws=9, seed=1)
    assert statuses(replace(good, periods=one))["concentration"] == "FAIL"
    flat = by_regime(0 * excess, code, 252, names=tuple("abcde"), n_draws=9, block_length=1.0, seed=1)
    assert statuses(replace(good, periods=flat))["concentration"] == "INSUFFICIENT"
    carried = by_regime(np.where(code == 0, 0.01, -1e-4), code, 252, n_draws=9, block_length=1.0, seed=1)
    verdict = judge(replace(good, regimes=carried), T)[1]
    assert "nothing is earned outside the regime 'down calm'" in verdict.sentence


def test_the_users_limit_of_drawdown_is_kept(good):
    strict = replace(T, ruin_max_drawdown_frac=0.01)
    assert statuses(good, strict)["ruin"] == "FAIL"
    assert judge(good, strict)[1].word == "CAUTION"


def test_few_trades_make_every_test_of_truth_insufficient(good):
    few = replace(good, walk=replace(good.walk, n_trades=29), timing=null_of(0.9))
    after = statuses(few)
    assert (after["evidence"], after["timing"], after["selection"]) == ("INSUFFICIENT",) * 3
    assert "29 trades out of sample; 30 are needed" in judge(few, T)[1].sentence


def test_a_record_too_short_for_its_own_sharpe_ratio_is_insufficient(good):
    short = walk_of(0.0002, 400)
    gate = judge(replace(good, walk=short), T)[0][0]
    assert short.excess_sharpe > 0
    assert gate.status == "INSUFFICIENT"
    assert (gate.value, gate.threshold) == (gate.numbers["years"], gate.numbers["min_track_record_years"])
    few = judge(replace(good, walk=walk_of(0.001, 200)), T)[0][0]
    assert (few.value, few.threshold) == (200 / 252, 1.0)
    assert "too short for a Sharpe ratio" in gate.reason


def test_a_ratio_too_good_to_be_true_is_warned_of_and_decides_nothing(good):
    assert warnings_of(good.walk, None) == warnings_of(None, None) == ()
    walk = replace(good.walk, excess_sharpe=5.1)
    (warning,) = warnings_of(walk, None)
    assert "of the excess out of sample of 5.1 is hardly ever real" in warning
    assert statuses(replace(good, walk=walk)) == statuses(good)


def test_a_verdict_needs_every_gate_once():
    gates = tuple(Gate(name, "", "PASS", 0, 0, "") for name in GATES)
    with pytest.raises(DataError, match="needs each of evidence"):
        verdict_of(gates[:-1])
    with pytest.raises(DataError, match="needs each of evidence"):
        verdict_of((*gates, gates[0]))


@given(st.lists(st.sampled_from(["PASS", "FAIL", "INSUFFICIENT"]), min_size=8, max_size=8))
def test_only_eight_passes_deploy_and_a_failed_truth_always_rejects(answers):
    gates = tuple(Gate(name, "", status, 0, 0, "r") for name, status in zip(GATES, answers, strict=True))
    word = verdict_of(gates).word
    assert (word == "DEPLOY") == (set(answers) == {"PASS"})
    by_name = dict(zip(GATES, answers, strict=True))
    assert (word == "REJECT") == ("FAIL" in (by_name["timing"], by_name["selection"], by_name["audit"]))


def test_a_users_file_replaces_what_it_names(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[ruin]\nmax_drawdown_frac = 0.2\n[evidence]\nmin_trades = 100\n")
    found = load_thresholds(path)
    assert found == replace(T, ruin_max_drawdown_frac=0.2, evidence_min_trades=100)
    assert Thresholds.shipped() == T


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[ruin]\nmax_drawdown = 0.2",
            r"threshold ruin.max_drawdown in .* is unknown. Did you mean ruin.max_drawdown_frac",
        ),
        ("[timing]\nalpha = 5", "timing.alpha in .* is 5, which is outside its range"),
        ("[timing]\nalpha = '5'", "It must be a number"),
        ("[evidence]\nmin_trades = 3.5", "It must be a whole number"),
        ("[evidence]\nmin_trades = 0", "outside its range"),
        ("alpha = 0.05", "stands outside of a table"),
        ("[timing", "cannot be read"),
    ],
)
def test_a_file_that_nobody_would_obey_is_refused(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load_thresholds(path)


def test_every_shipped_threshold_has_a_reason():
    from importlib import resources

    lines = resources.files("qml_plugin.vrd").joinpath("thresholds.toml").read_text().splitlines()
    n_keys = sum("=" in line and not line.startswith("#") for line in lines)
    assert n_keys == len(Thresholds.__slots__)
    assert sum(line.startswith("#") for line in lines) >= n_keys - 2
