import numpy as np
import purgedcv
import pytest
from arch.bootstrap import SPA, StepM
from hypothesis import given, settings
from hypothesis import strategies as st

from qml_plugin.errors import DataError
from qml_plugin.stats.kernels import resampled_rows
from qml_plugin.stats.overfitting import effective_n_trials, pbo, reality_check, superior_predictive_ability
from tests.stats import naive


def trials(n_obs=400, n_trials=8, seed=0, edge=0.0):
    """Returns of unlike spread, some worse than nothing; the third has the edge."""
    rng = np.random.default_rng(seed)
    matrix = rng.standard_t(5, (n_obs, n_trials)) * np.linspace(0.5, 2, n_trials) / 100
    matrix -= np.linspace(0, 0.1, n_trials) / 100
    matrix[:, 2] += edge * matrix[:, 2].std()
    return matrix


class SameResamples:
    """Gives arch the very resamples that the kernels draw."""

    def __init__(self, losses, rows):
        self.losses, self.rows = losses, rows

    def bootstrap(self, reps):
        assert reps == len(self.rows)
        for drawn in self.rows:
            yield ([self.losses[drawn]], {})


@pytest.mark.parametrize(("n_trials", "n_obs", "n_splits"), [(5, 61, 6), (6, 80, 8), (3, 40, 4)])
def test_pbo_equals_the_halves_written_out(n_trials, n_obs, n_splits):
    matrix = trials(n_obs, n_trials, seed=n_trials)
    matrix[: n_obs // 2, 0] = 0.0
    found, slow = pbo(matrix, n_splits), naive.pbo_logits(matrix, n_splits)
    np.testing.assert_allclose(found.logits, slow, atol=1e-12)
    assert found.pbo == np.mean(slow <= 0)


def test_pbo_agrees_with_purgedcv():
    matrix = trials(200, 10, seed=1)
    found, theirs = pbo(matrix, 10), purgedcv.probability_of_backtest_overfitting(matrix.T, 10)
    assert found.pbo == theirs.pbo  # an even number of trials has no rank in the middle, where the two differ
    np.testing.assert_allclose(np.sort(found.logits), np.sort(theirs.logits), atol=1e-9)
    pairs = np.column_stack([found.in_sample, found.out_of_sample])
    np.testing.assert_allclose(np.sort(pairs, axis=0), np.sort(theirs.is_oos_performance, axis=0), atol=1e-9)


def test_pbo_is_a_half_on_noise_and_low_where_one_trial_has_skill():
    rng = np.random.default_rng(2)
    noise = [pbo(rng.normal(size=(1000, 50)), 10).pbo for _ in range(60)]
    assert np.mean(noise) == pytest.approx(0.5, abs=3 * 0.18 / np.sqrt(60) + 0.03)
    assert 0.1 < np.std(noise) < 0.26
    skilled = []
    for _ in range(20):
        matrix = rng.normal(size=(1000, 50))
        matrix[:, 7] += 0.15
        skilled.append(pbo(matrix, 10).pbo)
    assert np.mean(skilled) < 0.2


@settings(max_examples=20)
@given(st.floats(0.01, 100), st.permutations(range(6)))
def test_pbo_knows_neither_units_nor_the_order_of_trials(scale, order):
    matrix = trials(64, 6, seed=3)
    assert pbo(scale * matrix[:, order], 8).pbo == pbo(matrix, 8).pbo


def test_effective_number_of_trials():
    rng = np.random.default_rng(4)
    common = rng.normal(size=(20_000, 1))
    own = rng.normal(size=(20_000, 10))
    assert effective_n_trials(own) == pytest.approx(10, abs=0.3)
    assert effective_n_trials(np.repeat(common, 10, axis=1)) == pytest.approx(1)
    rho = 0.64
    mixed = np.sqrt(rho) * common + np.sqrt(1 - rho) * own
    assert effective_n_trials(mixed) == pytest.approx(rho + (1 - rho) * 10, abs=0.2)
    matrix = trials(300, 6)
    correlations = np.corrcoef(matrix.T)
    mean = correlations[np.triu_indices(6, 1)].mean()
    assert effective_n_trials(matrix) == pytest.approx(max(0, mean) + (1 - max(0, mean)) * 6)
    assert effective_n_trials(np.zeros((10, 3))) == 1.0


@pytest.mark.parametrize("edge", [0.0, 0.08, 0.15])
@pytest.mark.parametrize("block_length", [1.0, 6.0])
def test_spa_and_stepm_without_studentising_are_those_of_arch_on_the_same_resamples(edge, block_length):
    """arch 8 divides no statistic by its standard error, whatever `studentize` says; that part has a twin below."""
    matrix, n_draws = trials(edge=edge), 399
    rows = resampled_rows(len(matrix), len(matrix), block_length, n_draws, seed=5)
    losses = -matrix
    theirs = SPA(np.zeros(len(matrix)), losses, block_size=block_length, reps=n_draws)
    theirs.bootstrap = SameResamples(theirs._loss_diff, rows)
    theirs.compute()
    ours = superior_predictive_ability(matrix, n_draws=n_draws, block_length=block_length, is_studentised=False, seed=5)
    # Theirs is b / B, ours (1 + b) / (1 + B).
    expected = (1 + n_draws * theirs.pvalues.to_numpy()) / (1 + n_draws)
    assert [ours.p_lower, ours.p_consistent, ours.p_upper] == pytest.approx(expected.tolist(), abs=1e-9)
    assert reality_check(matrix, n_draws=n_draws, block_length=block_length, seed=5).p_value == ours.p_upper
    step = StepM(np.zeros(len(matrix)), losses, block_size=block_length, reps=n_draws)
    step.spa.bootstrap = SameResamples(step.spa._loss_diff, rows)
    step.compute()
    assert ours.superior_trials.tolist() == step.superior_models


def test_spa_agrees_with_arch_on_its_own_resamples():
    matrix = trials(edge=0.09)
    theirs = SPA(np.zeros(len(matrix)), -matrix, block_size=5, reps=2000, seed=1)
    theirs.compute()
    ours = superior_predictive_ability(matrix, n_draws=2000, block_length=5, is_studentised=False, seed=1)
    assert ours.p_consistent == pytest.approx(theirs.pvalues["consistent"], abs=0.04)


@pytest.mark.parametrize("block_length", [1.0, 4.0])
def test_studentised_statistics_written_out(block_length):
    matrix, n_draws = trials(120, 4, edge=0.2), 99
    found = superior_predictive_ability(matrix, n_draws=n_draws, block_length=block_length, seed=9)
    n = len(matrix)
    mean, centred, stay = matrix.mean(axis=0), matrix - matrix.mean(axis=0), 1 - 1 / block_length
    variance = (centred**2).mean(axis=0)
    for lag in range(1, n):
        weight = (1 - lag / n) * stay**lag + lag / n * stay ** (n - lag)
        variance += 2 * weight * (centred[lag:] * centred[:-lag]).sum(axis=0) / n
    error = np.sqrt(variance / n)
    rows = resampled_rows(n, n, block_length, n_draws, 9)
    hopeless = mean / error < -np.sqrt(2 * np.log(np.log(n)))
    draws = [max(0, np.max((matrix[r].mean(axis=0) - np.where(hopeless, 0, mean)) / error)) for r in rows]
    np.testing.assert_allclose(found.null.null_draws, draws, atol=1e-9)
    assert found.null.statistic == pytest.approx(np.max(mean / error))
    assert found.best_trial == np.argmax(mean / error)


def test_a_good_trial_among_bad_wild_ones_is_found_by_spa_and_missed_by_the_reality_check():
    rng = np.random.default_rng(10)
    matrix = rng.normal(-1.0, 10.0, (500, 20))
    matrix = np.column_stack([rng.normal(0.2, 1.0, 500), matrix])
    found = superior_predictive_ability(matrix, seed=0)
    assert found.null.status == "PASS"
    assert found.superior_trials.tolist() == [0]
    assert reality_check(matrix, seed=0).status == "FAIL"


def test_size_of_spa_on_noise():
    rng = np.random.default_rng(11)
    p = [
        superior_predictive_ability(rng.normal(size=(300, 10)), n_draws=199, block_length=1, seed=i).p_consistent
        for i in range(300)
    ]
    assert 0.02 < np.mean(np.array(p) <= 0.05) < 0.095


def test_threads_change_nothing_and_trials_without_trades_do_no_harm():
    matrix = trials(edge=0.1)
    one, three = (superior_predictive_ability(matrix, seed=1, n_threads=n) for n in (1, 3))
    np.testing.assert_array_equal(one.null.null_draws, three.null.null_draws)
    padded = np.column_stack([matrix, np.zeros(len(matrix))])
    found = superior_predictive_ability(padded, seed=1, block_length=one.block_length)
    assert found.p_consistent == one.p_consistent
    idle = superior_predictive_ability(np.zeros((50, 3)), seed=1)
    assert (idle.null.status, idle.p_consistent) == ("FAIL", 1.0)


def test_too_few_draws_are_insufficient():
    found = superior_predictive_ability(trials(), n_draws=9, seed=0)
    assert found.null.status == "INSUFFICIENT"
    assert len(found.superior_trials) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pbo(np.zeros((40, 3)), 4), "none of 3 trials varies"),
        (lambda: pbo(trials(), 7), "n_splits 7"),
        (lambda: pbo(trials(20, 4)), "4 trials of 20 observations"),
        (lambda: pbo(trials()[:, :1]), "1 trials"),
        (lambda: pbo(np.where(np.eye(40, 3), np.nan, 0.1)), "nan at row 0, column 0, the first of 3"),
        (lambda: superior_predictive_ability(np.ones(30), seed=0), r"shape \(30,\)"),
        (lambda: superior_predictive_ability(np.ones((30, 2)), seed=0), "trial 0 earns 1"),
        (lambda: superior_predictive_ability(trials(5), seed=0), "has 5 rows"),
        (lambda: superior_predictive_ability(trials(), n_draws=0, seed=0), "n_draws 0"),
        (lambda: reality_check(trials(), block_length=0.5, seed=0), "block_length 0.5"),
        (lambda: effective_n_trials(np.zeros((5, 0))), r"shape \(5, 0\)"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(DataError, match=message):
        call()
