"""What the confidence allows to be put at risk, and what a deadline does: both off unless asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qml_plugin.bars import Bars
from qml_plugin.errors import DataError
from qml_plugin.gate import OnlineGate, kelly_risk_frac
from qml_plugin.memory import Policy
from qml_plugin.retrieval import nearest
from tests.memory.conftest import EAGER
from tests.memory.worlds import walk

PLAIN = Policy(mode="gate", requirements=EAGER, cost_r=0.05)
STAKED = replace(PLAIN, kelly_fraction=0.5, risk_cap_frac=0.1)


@pytest.fixture(scope="module")
def plain(planted, planted_entries):
    return walk(planted, planted_entries[:170], policy=PLAIN)


@pytest.fixture(scope="module")
def staked(planted, planted_entries):
    return walk(planted, planted_entries[:170], policy=STAKED)


def payoff_by_hand(memory, as_of):
    """Mean gain and loss, net of costs, of what had resolved by then; None below ten of each."""
    known = [p.outcome.r_multiple - 0.05 for p in memory.patterns() if p.outcome and p.outcome.resolved_at <= as_of]
    r = np.clip(known, -10 - 0.05, 10 - 0.05)
    won = r + 0.05 > 0
    return (r[won].mean(), -r[~won].mean()) if min(won.sum(), (~won).sum()) >= 10 else None


def test_a_stake_is_a_fraction_of_kelly_by_what_wins_and_losses_brought_until_then(staked):
    entries = {pattern.pattern_id: pattern.entry for pattern in staked.patterns()}
    n_taken = 0
    for decision in staked.decisions.values():
        if decision.judgement != "take":
            assert decision.risk_frac is None
            continue
        n_taken += 1
        payoff = payoff_by_hand(staked, entries[decision.pattern_id].known_at)
        expected = kelly_risk_frac(decision.confidence, *payoff, fraction=0.5, cap_frac=0.1)
        assert decision.risk_frac == pytest.approx(float(expected))
        assert 0 < decision.risk_frac <= 0.1
    assert n_taken > 5


def test_sizing_changes_no_confidence_and_skips_nothing_that_deserves_a_stake(plain, staked):
    for before, after in zip(plain.decisions.values(), staked.decisions.values(), strict=True):
        assert before.risk_frac is None
        assert (after.confidence, after.low, after.threshold, after.n_known) == (
            before.confidence, before.low, before.threshold, before.n_known,
        )  # fmt: skip
        assert (before.action, before.reason) == (after.action, after.reason)


def test_stakes_do_not_depend_on_the_future(planted, planted_entries, staked):
    entries = planted_entries[:165]
    n_bars = entries[-1].bar + 1
    columns = {name: getattr(planted, name)[:n_bars] for name in Bars.__slots__ if name not in ("symbol", "timeframe")}
    cut = walk(Bars(planted.symbol, planted.timeframe, **columns), entries, policy=STAKED)
    assert sum(decision.risk_frac is not None for decision in cut.decisions.values()) > 5
    for pattern_id, decision in cut.decisions.items():
        assert decision == staked.decisions[pattern_id]


@pytest.mark.parametrize(
    ("mode", "action", "begin"),
    [("shadow", "take", "would_skip: no_stake: P(win) "), ("gate", "skip", "no_stake: P(win) ")],
)
def test_an_entry_that_deserves_no_stake_is_skipped_and_in_the_shadow_noted(
    planted, planted_entries, plain, monkeypatch, mode, action, begin
):
    monkeypatch.setattr(OnlineGate, "payoff", property(lambda self: (0.05, 1.0)))  # no P(win) here deserves a stake
    memory = walk(planted, planted_entries[:170], policy=replace(STAKED, mode=mode))
    noted = [d for d in memory.decisions.values() if "no_stake" in d.reason]
    assert len(noted) > 5
    assert all(d.action == action and d.judgement == "skip" and d.reason.startswith(begin) for d in noted)
    assert {plain.decisions[d.pattern_id].action for d in noted} == {"take"}


# Deadline


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks so small that a store of a few patterns has several."""
    monkeypatch.setattr(nearest, "_ROWS_AT_ONCE", 4)


def test_without_a_deadline_or_with_enough_time_nothing_is_late(planted, planted_entries, small_chunks, plain):
    memory = walk(planted, planted_entries[:90], policy=replace(PLAIN, deadline_s=60.0))
    assert memory.n_late == plain.n_late == 0
    assert list(memory.decisions.values()) == list(plain.decisions.values())[:90]


@pytest.mark.parametrize(("on_abstain", "action"), [("fail_open", "abstain"), ("fail_closed", "skip")])
def test_neighbours_that_come_too_late_make_the_gate_abstain_and_are_counted(
    planted, planted_entries, small_chunks, on_abstain, action
):
    memory = walk(planted, planted_entries[:170], policy=replace(PLAIN, deadline_s=0.0, on_abstain=on_abstain))
    modelled = [d for d in memory.decisions.values() if d.model]
    assert len(modelled) > 50
    assert {(d.action, d.reason.removesuffix(" (fail_closed)")) for d in modelled} == {
        (action, "deadline: neighbours came too late")
    }
    assert memory.n_late >= len(modelled)
    assert all(len(d.neighbours) <= 4 for d in modelled), "what was certain by then"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kelly_fraction": 0.0}, r"kelly_fraction is 0\.0\. It is a share"),
        ({"kelly_fraction": 1.5}, r"kelly_fraction is 1\.5\."),
        ({"kelly_fraction": "half"}, r"kelly_fraction is 'half'"),
        ({"risk_cap_frac": 0}, r"risk_cap_frac is 0\. It is a share of equity"),
        ({"deadline_s": -1}, r"deadline_s is -1\. It is a time in seconds"),
        ({"deadline_s": float("nan")}, r"deadline_s is nan\."),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(DataError, match=message):
        Policy(**options)
