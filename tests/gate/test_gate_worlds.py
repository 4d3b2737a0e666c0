"""The worlds that the gate is measured on are what they say."""

from dataclasses import replace

import numpy as np
import pytest

from experiments.gate_worlds import KINDS, Kind, calibration_error, figures, make_world, measure, oracle_auc

BY_NAME = {kind.name: kind for kind in KINDS}


@pytest.mark.parametrize("name", ["no signal", "weak", "strong"])
def test_a_world_has_the_base_rate_and_the_oracle_it_names(name):
    kind = replace(BY_NAME[name], n_entries=40_000)
    world = make_world(kind, 1)
    assert np.mean(world.r_multiple > 0) == pytest.approx(0.43, abs=0.02)
    assert oracle_auc(world.p_win) == pytest.approx(kind.auc, abs=0.01)
    assert set(np.unique(world.r_multiple)) == {-1.0, 1.5}
    bins = [world.r_multiple[world.p_win >= p] for p in np.quantile(world.p_win, [0.0, 0.5, 0.9])]
    assert [np.mean(r > 0) for r in bins] == sorted(np.mean(r > 0) for r in bins)


def test_holding_periods_overlap_and_so_do_outcomes():
    world = make_world(replace(BY_NAME["no signal"], n_entries=20_000), 2)
    assert (np.diff(world.known_at) > 0).all()
    overlap = np.minimum(world.resolved_at[:-1], world.resolved_at[1:]) - world.known_at[1:]
    length = np.sqrt(np.diff(np.column_stack([world.known_at, world.resolved_at]))[:, 0].astype(float))
    shared = np.maximum(overlap, 0) / (length[:-1] * length[1:])
    assert 0.3 < np.mean(shared > 0) < 0.8
    won = world.r_multiple > 0
    together = [np.corrcoef(won[:-1][rows], won[1:][rows])[0, 1] for rows in (shared == 0, shared > 0.5)]
    assert abs(together[0]) < 0.03
    assert together[1] > 0.3


def test_a_signal_dies_and_drifts_where_it_says_so():
    dies = make_world(replace(BY_NAME["strong, dies"], n_entries=2_000), 3)
    assert dies.p_win[:1000].std() > 0.1
    np.testing.assert_allclose(dies.p_win[1000:], 0.43)
    drifts = make_world(replace(BY_NAME["strong, drifts"], n_entries=20_000), 3)
    parts = np.split(drifts.p_win, 4)
    columns = np.split(drifts.X, 4)
    slopes = [np.array([np.corrcoef(x, p)[0, 1] for x in X.T]) for X, p in zip(columns, parts, strict=True)]
    assert abs(np.corrcoef(slopes[0], slopes[3])[0, 1]) < 0.5
    assert all(oracle_auc(p) > 0.68 for p in parts)


def test_the_same_seed_gives_the_same_world():
    one, two, other = (make_world(BY_NAME["weak"], seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(one.X, two.X)
    np.testing.assert_array_equal(one.r_multiple, two.r_multiple)
    assert not np.array_equal(one.r_multiple, other.r_multiple)


def test_what_is_measured_adds_up():
    kind = Kind("easy, dies", 0.80, 700, 2, 10, "dies")
    worlds = [measure(kind, seed) for seed in (0, 1)]
    row = figures(kind, worlds)
    assert row["worlds"] == 2
    assert 0 <= row["ever active"] <= 1
    assert row["cost R/entry"] == pytest.approx(-np.mean([w["gain_r"] for w in worlds]) / 700)
    for world in worlds:
        n_active = round(world["active_frac"] * 700)
        assert len(world["confidence"]) == len(world["p_win"]) == len(world["is_win"]) == n_active
    assert calibration_error(np.array([0.2, 0.8]), np.array([0.0, 1.0]), 2) == pytest.approx(0.2)
