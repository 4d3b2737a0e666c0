import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test

from qml_plugin.errors import DataError
from qml_plugin.stats.kernels import as_seed, entry_placements
from qml_plugin.stats.nulls import circular_shift_test, holds, judged, random_entry_test, sign_flip_test
from tests.stats import naive


def market(n=600, seed=0):
    rng = np.random.default_rng(seed)
    returns = rng.standard_t(5, n) * 0.01
    runs = [np.append(np.repeat(side, rng.integers(1, 15)), 0.0) for side in rng.choice([0.0, 1.0, -1.0, 0.5], n)]
    return np.concatenate(runs)[:n], returns


@pytest.mark.parametrize("n", [100, 257, 600])
@pytest.mark.parametrize("cost", [0.0, 0.0005])
def test_all_shifts_are_those_rolled_one_by_one(n, cost):
    position, returns = market(n)
    costs = cost * np.abs(np.diff(position, prepend=0.0))
    found = circular_shift_test(position, returns, costs=costs)
    slow = naive.shifted_sharpes(position, returns, costs)
    edges = np.flatnonzero(np.diff(np.sign(position), prepend=0, append=0))
    longest = max(b - a for a, b in pairwise(edges) if position[a] != 0)
    slow_null = slow[longest : n - longest + 1]
    np.testing.assert_allclose(found.null_draws, slow_null, atol=1e-10)
    assert found.statistic == pytest.approx(slow[0], abs=1e-12)
    exceeding = (slow_null >= slow[0] - 1e-10).sum()
    assert found.p_value == (1 + exceeding) / (1 + len(slow_null))
    assert found.n_exceeding == exceeding


def test_perfect_timing_passes_and_bad_timing_fails():
    _, returns = market()
    good = circular_shift_test((returns > 0).astype(float), returns)
    assert (good.status, good.n_exceeding) == ("PASS", 0)
    assert good.p_value == 1 / (1 + good.n_draws)
    assert circular_shift_test((returns < 0).astype(float), returns).status == "FAIL"
    assert random_entry_test((returns > 0).astype(float), returns, seed=0, n_draws=99).status == "PASS"


def test_ties_count_against_the_strategy():
    position = np.tile([1.0, 1.0, 0.0, 0.0], 50)
    returns = np.tile([0.1, 0.05, -0.1, 0.0], 50)
    found = circular_shift_test(position, returns)
    # One shift in four repeats the market's own cycle; among shifts 2..198 these are 49.
    assert found.n_exceeding == 49


@settings(max_examples=25)
@given(st.floats(0.01, 100), st.integers(0, 20))
def test_scale_of_returns_and_of_positions_does_not_matter(scale, seed):
    position, returns = market(200, seed)
    base = circular_shift_test(position, returns)
    assert circular_shift_test(position, scale * returns).p_value == base.p_value
    assert circular_shift_test(scale * position, returns).p_value == base.p_value
    assert circular_shift_test(-position, -returns).p_value == base.p_value


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=1, max_size=40))
def test_holds_are_runs_on_one_side(exposure):
    first, end = holds(np.array(exposure))
    assert list(zip(first.tolist(), end.tolist(), strict=True)) == naive.slow_holds(exposure)


def test_random_entries_keep_the_holds_and_never_overlap():
    hold_bars = np.array([3, 1, 5, 2], dtype=np.int64)
    n_flat, n_draws = 6, 4000
    order, start = np.empty((n_draws, 4), dtype=np.int64), np.empty((n_draws, 4), dtype=np.int64)
    entry_placements(hold_bars, n_flat, as_seed(3), 0, n_draws, order, start)
    assert (np.sort(order, axis=1) == np.arange(4)).all()
    end = start + hold_bars[order]
    assert (start[:, 1:] >= end[:, :-1]).all()
    assert start.min() >= 0
    assert end.max() <= hold_bars.sum() + n_flat
    # Every order is as likely as any other, and so is every composition of the flat bars: C(10, 4) = 210 of them.
    _, of_order = np.unique(order, axis=0, return_counts=True)
    gaps = np.column_stack([start[:, :1], start[:, 1:] - end[:, :-1]])
    _, of_gaps = np.unique(gaps, axis=0, return_counts=True)
    assert len(of_order) == 24
    assert len(of_gaps) == 210
    assert ((of_order - n_draws / 24) ** 2).sum() / (n_draws / 24) < 49.7  # chi-squared, 23 degrees, 0.1 %
    assert ((of_gaps - n_draws / 210) ** 2).sum() / (n_draws / 210) < 280  # 209 degrees, 0.1 %


def test_random_entry_sharpes_are_those_of_the_placed_holds():
    position, returns = market(300, 2)
    costs = 0.001 * np.abs(np.diff(position, prepend=0.0))
    found = random_entry_test(position, returns, costs=costs, n_draws=50, seed=7, n_threads=1)
    side = np.sign(position)
    edges = np.flatnonzero(np.diff(side, prepend=0, append=0))
    spans = [(a, b) for a, b in pairwise(edges) if side[a] != 0]
    moved = costs.copy()
    for bar in range(300):  # the cost of closing counts with the last bar held
        if position[bar] == 0 and moved[bar] > 0:
            owner = max((b - 1 for _, b in spans if b <= bar), default=spans[0][0])
            moved[owner] += moved[bar]
    holds = [(position[a:b], moved[a:b]) for a, b in spans]
    bars = np.array([b - a for a, b in spans], dtype=np.int64)
    order, start = np.empty((50, len(bars)), dtype=np.int64), np.empty((50, len(bars)), dtype=np.int64)
    entry_placements(bars, 300 - int(bars.sum()), as_seed(7), 0, 50, order, start)
    slow = [naive.placed_sharpe(holds, o, s, returns) for o, s in zip(order, start, strict=True)]
    np.testing.assert_allclose(found.null_draws, slow, atol=1e-12)
    own = naive.placed_sharpe(holds, range(len(holds)), [a for a, _ in spans], returns)
    assert found.statistic == pytest.approx(own, abs=1e-12)


def test_random_entry_is_the_same_for_any_number_of_threads():
    position, returns = market()
    draws = [random_entry_test(position, returns, n_draws=101, seed=1, n_threads=n).null_draws for n in (1, 2, 5)]
    np.testing.assert_array_equal(draws[0], draws[1])
    np.testing.assert_array_equal(draws[0], draws[2])
    other = random_entry_test(position, returns, n_draws=101, seed=2).null_draws
    assert not np.array_equal(draws[0], other)


def test_sign_flip_agrees_with_scipy():
    results = np.random.default_rng(3).normal(0.3, 1, 9)
    found = sign_flip_test(results, n_draws=40_000, seed=0)
    exact = permutation_test((results,), np.mean, permutation_type="samples", alternative="greater", n_resamples=10_000)
    assert found.p_value == pytest.approx(exact.pvalue, abs=4 * math.sqrt(0.25 / 40_000))
    assert "extra" in found.test


def test_what_cannot_be_rejected_is_insufficient_and_says_why():
    position, returns = market()
    flat = np.zeros(600)
    always = np.ones(600)
    one_hold = np.append(np.ones(300), flat[:300])
    cases = [
        (circular_shift_test(flat, returns), "no position"),
        (circular_shift_test(always, returns), "never changes"),
        (circular_shift_test(position, always), "returns of the market are constant"),
        (circular_shift_test(np.append(np.ones(400), flat[:200]), returns), "leaves no shift"),
        (circular_shift_test(one_hold, returns), "independent shifts"),
        (random_entry_test(flat, returns, seed=0), "no position"),
        (random_entry_test(np.append(np.ones(599), 0.0), returns, seed=0), "can be arranged in 2 ways"),
        (random_entry_test(position, returns, n_draws=9, seed=0), "9 draws cannot give a p-value below 0.1"),
        (sign_flip_test([1.0, 2.0, 3.0], seed=0), "3 trades have 8 signs"),
        (sign_flip_test([], seed=0), "no trade"),
    ]
    for found, why in cases:
        assert found.status == "INSUFFICIENT"
        assert why in found.reason
    assert np.isnan(cases[0][0].p_value)


def test_judged_counts_nan_as_exceeding_and_stops_validly():
    draws = np.append(np.zeros(98), np.nan)
    found = judged("t", "h", 1.0, draws, alpha=0.05)
    assert (found.n_exceeding, found.p_value, found.status) == (1, 0.02, "PASS")
    stopped = judged("t", "h", 0.0, np.array([1.0, -1.0, 1.0, 1.0]), alpha=0.05, stop_after=3)
    assert (stopped.p_value, stopped.status) == (0.75, "FAIL")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: circular_shift_test([1.0, np.nan], [0.1, 0.2]), "position is nan"),
        (lambda: circular_shift_test([1.0, 0.0], [0.1]), "has 1 observations"),
        (lambda: circular_shift_test([1.0, 0.0], [0.1, 0.2, 0.3]), "position has 2 bars, returns 3"),
        (lambda: circular_shift_test(*market(), alpha=1.0), "alpha 1.0 refused"),
        (lambda: circular_shift_test(*market(), alpha=0.0), "alpha 0.0 refused"),
        (lambda: random_entry_test(*market(), alpha=0.0, n_draws=9, seed=1), "alpha 0.0 refused"),
        (lambda: random_entry_test(np.zeros(9), np.ones(9), alpha=0.0, n_draws=9, seed=1), "alpha 0.0 refused"),
        (lambda: sign_flip_test([0.1, -0.1, 0.2], alpha=0.0, n_draws=9, seed=1), "alpha 0.0 refused"),
        (lambda: random_entry_test(*market(), n_draws=0, seed=0), "n_draws 0 refused"),
        (lambda: sign_flip_test([1.0], n_draws=0, seed=0), "n_draws 0 refused"),
        (lambda: sign_flip_test([np.inf], seed=0), "trade_returns is inf"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(DataError, match=message):
        call()
