"""The certification itself, on one set of each kind; its figures come from `experiments/certify.py`."""

import json

import numpy as np
import pytest

from experiments import certify
from qml_plugin.vrd.leakage import audit_positions
from qml_plugin.vrd.walk_forward import first_bars


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(certify, "N_BARS", 6_000)
    monkeypatch.setattr(certify, "N_DRAWS", 99)
    monkeypatch.setattr(certify, "N_PATHS", 100)


@pytest.mark.parametrize("name", sorted(certify.FAMILIES))
def test_no_family_looks_ahead(short, name):
    family = certify.FAMILIES[name]
    bars = certify.world("null", family, 0, 1)
    assert audit_positions(first_bars(bars, 3_000), family.evaluate(), family.true, seed=1).verdict == "clean"


def test_a_strong_planted_edge_is_deployed_and_the_same_market_without_it_is_not(short):
    family = certify.FAMILIES["breakout"]
    strong = certify.judged_set("edge3", family, 0, 7)
    assert strong["naive"] == "DEPLOY"
    assert strong["true_sharpe"] > 1.5
    assert strong["gates"]["timing"] == "PASS"
    assert certify.judged_set("null", family, 0, 7)["verdict"] != "DEPLOY"


def test_the_planted_edge_is_the_sharpe_ratio_that_was_asked_for(short):
    family = certify.FAMILIES["moving_average"]
    found = []
    for seed in range(12):
        trials = certify.run_trials(certify.world("edge2", family, seed, 50), family.evaluate(), [family.true])
        found.append(certify._true_sharpe(trials, family))
    assert np.mean(found) == pytest.approx(2.0, abs=3 * 1 / np.sqrt(12 * 2.74))


def test_a_set_depends_on_its_number_alone(short):
    family = certify.FAMILIES["mean_reversion"]
    one, two = (certify.judged_set("real", family, 3, 5) | {"seconds": 0} for _ in range(2))
    assert one == two


def test_finished_sets_are_not_computed_again_and_a_half_line_is(short, tmp_path, monkeypatch):
    computed = []

    def counted(world, family, index, seed):
        computed.append(index)
        gates = dict.fromkeys(certify.GATES, "PASS")
        words = {"verdict": "REJECT", "naive": "DEPLOY", "classic": "REJECT"}
        return {"index": index, "gates": gates, "true_sharpe": None, "seconds": 0.1} | words

    monkeypatch.setattr(certify, "judged_set", counted)
    certify.run("design", ["null"], ["breakout"], 3, 1, tmp_path, np.inf)
    path = next(tmp_path.glob("*.jsonl"))
    path.write_text(path.read_text()[:-5])
    certify.run("design", ["null"], ["breakout"], 4, 1, tmp_path, np.inf)
    assert computed == [0, 1, 2, 2, 3]
    (row,) = certify.table("design", ["null"], ["breakout"], 1, tmp_path)
    assert row["n"] == 4
    assert row["naive"]["share"] == 1.0
    json.dumps(row)
