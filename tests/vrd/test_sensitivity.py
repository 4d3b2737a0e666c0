import numpy as np
import pytest

from qml_plugin.errors import DataError
from qml_plugin.vrd import Positions
from qml_plugin.vrd.sensitivity import one_at_a_time, parameter_table, picking_cost, plateau, plateau_of_moves, surfaces
from tests.vrd.conftest import GRID

SQUARE = [{"a": a, "b": b} for a in (1, 2, 4) for b in (10, 20, 30)]


def test_a_plateau_scores_one_and_a_needle_zero():
    assert plateau(SQUARE, np.ones(9)).score == 1.0
    needle = np.zeros(9)
    needle[4] = 2.0
    found = plateau(SQUARE, needle)
    assert (found.score, found.chosen) == (0.0, 4)
    assert found.neighbours.tolist() == [1, 3, 5, 7]


def test_neighbours_are_steps_of_the_values_that_were_tried():
    metric = np.arange(9.0)
    found = plateau(SQUARE, metric)
    assert found.chosen == 8
    assert found.score == pytest.approx((5 / 8 + 7 / 8) / 2)


def test_any_other_word_is_a_neighbour():
    found = plateau([{"kind": kind} for kind in ("sma", "ema", "wma")], np.array([1.0, 0.5, 0.25]))
    assert sorted(found.neighbours.tolist()) == [1, 2]


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        ([-1.0, -2.0, -3.0], "earns nothing"),
        ([1.0], "0 neighbours"),
        ([2.0, 1.0], "1 neighbour of the choice was tried; 2 are needed. The choice a=0 stands at the edge"),
    ],
)
def test_without_a_plateau_the_score_is_missing_and_says_why(metric, reason):
    found = plateau([{"a": i} for i in range(len(metric))], np.array(metric))
    assert np.isnan(found.score)
    assert reason in found.reason


def test_trials_with_other_names_are_refused():
    with pytest.raises(DataError, match=r"trial 1 has parameters \['b'\], trial 0 \['a'\]"):
        plateau([{"a": 1}, {"b": 1}], np.ones(2))
    with pytest.raises(DataError, match="1 sets of parameters and 2 metrics"):
        plateau([{"a": 1}], np.ones(2))


def test_a_surface_averages_over_the_other_parameters():
    grid = [{"a": a, "b": b, "c": c} for a in (1, 2) for b in (1, 2) for c in (1, 2)]
    metric = np.arange(8.0)
    found = {(one.x_name, one.y_name): one for one in surfaces(grid, metric)}
    assert set(found) == {("a", "b"), ("a", "c"), ("b", "c")}
    np.testing.assert_allclose(found["a", "b"].metric, [[0.5, 4.5], [2.5, 6.5]])
    np.testing.assert_allclose(found["a", "b"].best, [[1, 5], [3, 7]])


def test_one_parameter_is_moved_at_a_time(bars, evaluate):
    found = {move.name: move for move in one_at_a_time(bars, evaluate, {"fast": 10, "slow": 50})}
    assert found["fast"].values.tolist() == [6, 8, 12, 14]
    assert found["slow"].values.tolist() == [30, 40, 60, 70]
    assert np.isfinite(found["slow"].metric).all()


def test_a_move_that_fails_counts_as_nothing_earned(bars):
    def position(bars, parameters):
        if parameters["n"] > 10:
            raise ValueError("too many")
        return np.arange(len(bars)) // 9 % 2 * 1.0

    moves = one_at_a_time(bars, Positions(position), {"n": 10, "is_on": True, "word": "x"})
    assert np.isnan(moves[0].metric[2:]).all()
    assert plateau_of_moves(1.0, moves).score <= 0.5


def test_picking_the_best_of_noise_costs_what_it_seemed_to_earn():
    returns = np.random.default_rng(0).normal(0, 0.01, (1000, 20))
    found = picking_cost(returns, 252, n_draws=100, block_length=1.0, seed=1)
    assert found.observed > 0.8
    assert abs(found.expected) < 0.6
    assert found.cost == found.observed - found.expected
    assert found.picked_frac.sum() == pytest.approx(1.0)


def test_a_trial_that_is_truly_best_costs_little_to_pick():
    returns = np.random.default_rng(0).normal(0, 0.01, (1000, 20))
    returns[:, 3] += 0.004
    found = picking_cost(returns, 252, n_draws=100, block_length=1.0, seed=1)
    assert found.picked_frac[3] > 0.95
    assert abs(found.cost) < 0.1 * found.observed


def test_the_table_of_trials_has_a_row_each(trials):
    table = parameter_table(trials)
    assert list(table) == ["fast", "slow", "n_trades", "excess_sharpe"]
    assert table["fast"] == [p["fast"] for p in GRID]
