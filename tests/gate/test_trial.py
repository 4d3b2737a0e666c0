import json

import numpy as np
import pytest

from qml_plugin.errors import DataError
from qml_plugin.gate import gate_trial


def judged(n=600, seed=0, *, skill=1.0, hold=1):
    """Entries of which the first 100 were abstained from, the rest gated by a confidence of this skill."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.uniform(0.2, 0.6, -(-n // hold)), hold)[:n]
    won = rng.random(n) < truth
    confidence = 0.4 + skill * (truth - 0.4)
    action = np.where(confidence >= 0.4, "take", "skip").astype("<U7")
    action[:100] = "abstain"
    return {"action": action, "confidence": confidence, "r_multiple": np.where(won, 1.5, -1.0)}


def test_a_gate_with_skill_is_worth_it():
    entries = judged()
    trial = gate_trial(**entries, returns=entries["r_multiple"] * 0.01)
    r, skipped = entries["r_multiple"], entries["action"] == "skip"
    assert trial.verdict == "WORTH_IT"
    assert trial.p_value <= 0.01
    assert trial.saved_r == pytest.approx(-r[skipped].sum())
    assert trial.gated.total_r == pytest.approx(r[~skipped].sum())
    assert trial.ungated.total_r == pytest.approx(r.sum())
    kept = 1 - skipped[100:].mean()
    assert trial.kept_frac == pytest.approx(kept)
    assert trial.random.total_r == pytest.approx(r[:100].sum() + kept * r[100:].sum())
    assert trial.gated.return_frac == pytest.approx(0.01 * trial.gated.total_r)
    assert trial.gated.n_taken == trial.random.n_taken
    assert trial.pr_auc > trial.base_rate + 0.05
    assert trial.brier < trial.brier_of_base_rate
    assert trial.ece_interval[0] <= trial.ece <= trial.ece_interval[1]
    assert trial.lift["lift"][0] >= trial.lift["lift"][-1] == pytest.approx(1.0)


def test_a_gate_that_is_wrong_does_harm():
    entries = judged(skill=-1.0)
    trial = gate_trial(**entries)
    assert trial.verdict == "HARMFUL"
    assert trial.saved_r < 0
    assert trial.p_value > 0.95


def test_too_few_entries_are_no_result():
    for n in (0, 40, 199):
        entries = {name: column[: 100 + n] if n < 100 else column[: n + 0] for name, column in judged().items()}
        trial = gate_trial(**entries)
        assert trial.verdict == "TOO_FEW"
        assert np.isnan(trial.p_value)
        assert "are needed before this is a result" in str(trial)
    few_skips = judged()
    few_skips["action"] = np.where(np.arange(600) < 19, "skip", "take")
    assert gate_trial(**few_skips).verdict == "TOO_FEW"


@pytest.mark.parametrize("hold", [1, 8])
def test_a_gate_that_knows_nothing_is_seldom_worth_it(hold):
    """Also where skips come in runs and outcomes depend on their neighbours."""
    found = 0
    for seed in range(120):
        rng = np.random.default_rng(seed)
        truth = np.repeat(rng.uniform(0.1, 0.7, -(-400 // hold)), hold)[:400]
        action = np.repeat(rng.choice(["take", "skip"], -(-400 // hold)), hold)[:400]
        r = np.where(rng.random(400) < truth, 1.5, -1.0)
        none = np.full(400, np.nan)  # the p-value asks for no confidences, and their bootstraps take most of the time
        found += gate_trial(action, none, r, n_permutations=199, block_length=2 * hold).p_value <= 0.05
    assert found / 120 <= 0.09


def test_open_entries_count_nowhere():
    entries = judged()
    with_open = {name: np.concatenate([column, column[-50:]]) for name, column in entries.items()}
    with_open["r_multiple"][600:] = np.nan
    assert str(gate_trial(**with_open)) == str(gate_trial(**entries))


def test_the_report_is_text_and_data():
    trial = gate_trial(**judged())
    assert str(trial).startswith("WORTH_IT: skipping saved +")
    assert "PR-AUC" in str(trial)
    data = json.loads(json.dumps(trial.to_dict()))
    assert data["gated"]["total_r"] == pytest.approx(trial.gated.total_r)
    assert len(data["reliability"]["n"]) == 10
    silent = gate_trial(["abstain"] * 5, np.full(5, np.nan), np.ones(5))
    assert silent.verdict == "TOO_FEW"
    assert silent.reliability is silent.lift is None
    assert "PR-AUC" not in str(silent)


def test_the_same_seed_gives_the_same_result():
    assert gate_trial(**judged(), seed=3).to_dict() == gate_trial(**judged(), seed=3).to_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": ["take"] * 599}, "columns of lengths"),
        ({"action": ["maybe"] * 600}, "action 'maybe' is unknown"),
        ({"r_multiple": np.full(600, np.inf)}, "is not finite"),
        ({"returns": np.full(600, np.nan)}, "is not finite"),
        ({"n_permutations": 0}, "n_permutations 0"),
        ({"block_length": 0}, "block_length 0"),
    ],
)
def test_columns_that_do_not_fit_are_refused(change, message):
    with pytest.raises(DataError, match=message):
        gate_trial(**(judged() | change))
