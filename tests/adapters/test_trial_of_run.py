"""The gate trial takes a finished run, and the same run out of a registry, and both say the same."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from backtesting import Backtest

from qml_plugin import PatternMemory, PatternRegistry
from qml_plugin.errors import DataError, LookAheadError
from qml_plugin.gate import gate_trial
from qml_plugin.records import Decision
from tests.adapters.hosts import Remembered
from tests.registry.registry_samples import execute

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:backtesting"),
    pytest.mark.filterwarnings("ignore:Some trades remain open"),
]


@pytest.fixture
def judging(monkeypatch):
    """A gate that abstains at first and then judges by the last digits of the bar, as an active one might."""
    decide = PatternMemory.decide

    def decided(self, entry):
        decision = decide(self, entry)
        if entry.bar < 60:
            said = {"action": "abstain", "reason": "few_labels: 3 of 62 outcomes known"}
        elif self.policy.on_abstain == "fail_closed" and entry.bar % 5 == 0:
            would = {"action": "take", "reason": "would_skip: novel: nearest at 9.00 (fail_closed)"}
            closed = {"action": "skip", "reason": "novel: nearest at 9.00 (fail_closed)"}
            said = would if self.policy.mode == "shadow" else closed
        elif entry.bar % 3 == 0:
            would = {"action": "take", "reason": "would_skip: 0.300 < 0.400"}
            said = would if self.policy.mode == "shadow" else {"action": "skip", "reason": "unconvinced: 0.300 < 0.400"}
        else:
            said = {"action": "take", "reason": "confident: 0.500 >= 0.400"}
        confidence = 0.3 if entry.bar % 3 == 0 else 0.5
        decision = replace(decision, **said, confidence=confidence, threshold=0.4)
        self.decisions[entry.pattern_id] = decision
        return decision

    monkeypatch.setattr(PatternMemory, "decide", decided)


def run(goog, tmp_path, **settings):
    url = f"sqlite:///{tmp_path}/trial.db"
    host = Backtest(goog.iloc[:600], Remembered, cash=1_000_000, finalize_trades=True)
    return host.run(registry=url, **settings)["_strategy"].qml, PatternRegistry(url)


@pytest.mark.parametrize("mode", ["shadow", "gate"])
@pytest.mark.parametrize("on_abstain", ["fail_open", "fail_closed"])
def test_a_run_and_its_record_give_the_same_trial(goog, tmp_path, judging, mode, on_abstain):
    memory, registry = run(goog, tmp_path, mode=mode, on_abstain=on_abstain)
    own, kept = memory.trial_entries(), registry.trial_entries(memory.run.run_id[:12])
    for name in own.__slots__:
        one, other = getattr(own, name), getattr(kept, name)
        if isinstance(one, np.ndarray):
            assert one.tobytes() == other.tobytes(), name
        else:
            assert one == other, name
    trial = gate_trial(memory, n_permutations=50)
    assert repr(trial.to_dict()) == repr(gate_trial(kept, n_permutations=50).to_dict())
    assert trial.name == f"run {memory.run.run_id}"
    # By hand, from the table.
    table = memory.table().set_index("pattern_id").loc[list(own.pattern_id)]
    table = table[table["r_multiple"].notna()]
    closed = table["reason"].str.endswith("(fail_closed)")
    skipped = (table["reason"].str.startswith("would_skip") | (table["action"] == "skip")) & ~closed
    assert trial.n_entries == len(table)
    assert trial.saved_r == pytest.approx(-table["r_multiple"][skipped].sum())
    assert trial.n_judged == (~closed & (table["action"] != "abstain")).sum()
    assert (trial.gated.n_taken, trial.ungated.n_taken) == ((~skipped).sum(), len(table))
    assert trial.returns_of == ("trades" if mode == "shadow" else "barriers")
    if mode == "shadow":
        assert trial.ungated.return_frac == pytest.approx(table["trade_return_frac"].sum())
        assert trial.gated.return_frac == pytest.approx(table["trade_return_frac"][~skipped].sum())
    else:
        moves = {
            p.pattern_id: p.entry.side * (p.outcome.exit_px / p.outcome.entry_px - 1)
            for p in memory.patterns if p.outcome
        }  # fmt: skip
        assert trial.ungated.return_frac == pytest.approx(sum(moves.values()))
    assert trial.cumulative_r["gated"][-1] == pytest.approx(trial.gated.total_r)


def test_labels_by_hand_count_in_the_trial_of_a_record(goog, tmp_path, judging):
    memory, registry = run(goog, tmp_path, mode="shadow")
    before = registry.trial_entries(memory.run.run_id)
    won, ignored = (before.pattern_id[i] for i in np.flatnonzero(before.is_win)[:2])
    registry.label_pattern(won, "loss")
    registry.label_pattern(ignored, "ignore")
    after = registry.trial_entries(memory.run.run_id)
    at = {name: i for i, name in enumerate(after.pattern_id)}
    assert not after.is_win[at[won]]
    assert after.r_multiple[at[won]] == before.r_multiple[at[won]]
    assert math.isnan(after.r_multiple[at[ignored]])


def test_a_run_that_judges_nothing_is_no_trial(goog, tmp_path):
    memory, registry = run(goog, tmp_path, mode="record")
    for ask in (lambda: gate_trial(memory), lambda: registry.trial_entries(memory.run.run_id)):
        with pytest.raises(DataError, match=r"made in the mode 'record', in which nothing is judged"):
            ask()
    execute(tmp_path / "trial.db", "DELETE FROM run_decisions")
    with pytest.raises(DataError, match="decided nothing"):
        registry.trial_entries(memory.run.run_id)
    with pytest.raises(DataError, match="run 'nothing' is not in"):
        registry.trial_entries("nothing")


def test_a_trial_waits_for_the_end_of_the_run(goog):
    class Asks(Remembered):
        def next(self):
            with pytest.raises(LookAheadError, match="after the run only"):
                gate_trial(self.qml)

    Backtest(goog.iloc[:20], Asks).run(mode="shadow")


def test_columns_beside_a_run_are_refused(goog, tmp_path, judging):
    memory, _ = run(goog, tmp_path, mode="shadow")
    with pytest.raises(DataError, match="columns were given beside run"):
        gate_trial(memory, returns=np.zeros(3))
    with pytest.raises(DataError, match="needs action, confidence and r_multiple"):
        gate_trial(["take"])


@pytest.mark.parametrize(
    ("action", "reason", "judgement"),
    [
        ("take", "record_only", "abstain"), ("take", "confident: 0.5 >= 0.4", "take"),
        ("take", "would_skip: 0.3 < 0.4", "skip"), ("skip", "unconvinced: 0.3 < 0.4", "skip"),
        ("abstain", "novel: nearest at 9", "abstain"), ("skip", "novel: nearest at 9 (fail_closed)", "abstain"),
        ("take", "would_skip: novel: nearest at 9 (fail_closed)", "abstain"),
    ],
)  # fmt: skip
def test_what_the_gate_thought_of_an_entry(action, reason, judgement):
    assert Decision("p", action, reason).judgement == judgement
