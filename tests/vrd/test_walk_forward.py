from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qml_plugin.errors import DataError
from qml_plugin.stats.sharpe import excess_returns, sharpe_ratio
from qml_plugin.stats.splits import CombinatorialPurgedCV
from qml_plugin.vrd import Positions, combinatorial_paths, run_trials, walk_forward, walk_forward_rerun
from qml_plugin.vrd.evaluation import Trials
from qml_plugin.vrd.walk_forward import _open_over, _sharpe_of_sums, _sums, first_bars, plan_windows
from tests.vrd.conftest import GRID, moving_average


def made_trials(n_bars, n_trials, seed):
    rng = np.random.default_rng(seed)
    exposure = np.repeat(rng.integers(-1, 2, (n_bars // 5 + 1, n_trials)), 5, axis=0)[:n_bars].astype(float)
    market = rng.normal(0, 0.01, n_bars)
    costs = 0.001 * np.abs(np.diff(exposure, axis=0, prepend=0.0))
    returns = exposure * market[:, None] - costs
    parameters = tuple({"n": i} for i in range(n_trials))
    return Trials(parameters, returns, exposure, costs, np.ones(n_trials, np.int64), market, 252.0)


def slow_choice(trials, train_first, test_first, embargo):
    """The trial that is best in training, and the end of its training, bar by bar."""
    best = (-np.inf, -1, test_first)
    for j in range(trials.n_trials):
        end = test_first - embargo
        side = np.sign(trials.exposure[:, j])
        if side[end] != 0 and side[end] == side[end - 1]:
            while end > 0 and side[end - 1] == side[test_first - embargo]:
                end -= 1
        rows = slice(train_first, max(train_first, end))
        x, r, m = trials.exposure[rows, j], trials.returns[rows, j], trials.market[rows]
        if len(r) >= 20 and x.any():
            sharpe = sharpe_ratio(excess_returns(r, x, m)) * np.sqrt(trials.bars_per_year)
            if sharpe > best[0]:
                best = (sharpe, j, end)
    return best


@pytest.mark.parametrize("scheme", ["anchored", "rolling"])
@pytest.mark.parametrize("embargo", [0, 7])
def test_each_window_holds_what_was_best_before_it(scheme, embargo):
    trials = made_trials(600, 6, 1)
    walk = walk_forward(trials, n_windows=5, scheme=scheme, embargo_bars=embargo)
    for window in walk.windows:
        sharpe, trial, end = slow_choice(trials, window.train_first_bar, window.test_first_bar, embargo)
        assert window.trial == trial
        assert window.train_end_bar == end
        assert window.train_sharpe == pytest.approx(sharpe)
    assert walk.bar.tolist() == list(range(150, 600))


def test_the_future_of_a_window_changes_nothing_about_its_choice():
    trials = made_trials(600, 6, 2)
    whole = walk_forward(trials, n_windows=4)
    rng = np.random.default_rng(0)
    for i, window in enumerate(whole.windows):
        cut = window.test_first_bar
        returns, exposure, market = trials.returns.copy(), trials.exposure.copy(), trials.market.copy()
        returns[cut:] = rng.normal(0, 1, returns[cut:].shape)
        exposure[cut + 1 :] = rng.integers(-1, 2, exposure[cut + 1 :].shape)
        market[cut:] = rng.normal(0, 1, market[cut:].shape)
        other = Trials(trials.parameters, returns, exposure, trials.costs, trials.n_trades, market, 252.0)
        changed = walk_forward(other, n_windows=4).windows[: i + 1]
        for one, two in zip(whole.windows[: i + 1], changed, strict=True):
            assert (one.trial, one.train_end_bar, one.train_sharpe) == (two.trial, two.train_end_bar, two.train_sharpe)


def test_changing_parameters_is_paid_for():
    trials = made_trials(600, 6, 3)
    walk = walk_forward(trials, n_windows=5)
    turnover = np.abs(np.diff(walk.exposure, prepend=0.0)).sum()
    assert walk.costs.sum() == pytest.approx(0.001 * turnover)
    np.testing.assert_allclose(walk.returns, walk.exposure * walk.market - walk.costs, atol=1e-15)
    np.testing.assert_allclose(walk.equity, np.cumprod(1 + walk.returns))


def test_running_each_window_again_gives_the_same_for_a_causal_strategy(bars, evaluate, trials):
    once = walk_forward(trials, n_windows=4)
    again = walk_forward_rerun(bars, evaluate, GRID, n_windows=4)
    np.testing.assert_allclose(once.returns, again.returns, atol=1e-15)
    assert [window.trial for window in once.windows] == [window.trial for window in again.windows]


def test_a_window_in_which_the_strategy_raises_is_recorded_and_the_others_are_kept(bars):
    def position(bars, parameters):
        if 900 < len(bars) < 1200:
            raise RuntimeError("bad data")
        return moving_average(bars, parameters)

    walk = walk_forward_rerun(bars, Positions(position), GRID[:2], n_windows=4)
    assert [window.is_failed for window in walk.windows] == [False, True, False, False]
    assert "RuntimeError: bad data" in walk.windows[1].reason
    assert len(walk.bar) == sum(w.test_end_bar - w.test_first_bar for w in walk.windows if not w.is_failed)


def test_windows_that_all_fail_are_refused(bars):
    def position(bars, parameters):
        raise RuntimeError("always")

    with pytest.raises(DataError, match="every window failed, the first with: the only trial failed"):
        walk_forward_rerun(bars, Positions(position), [{}], n_windows=2)


def test_where_nothing_was_traded_in_training_nothing_is_held(bars):
    late = Positions(lambda bars, parameters: np.where(np.arange(len(bars)) > 1000, np.arange(len(bars)) // 9 % 2, 0.0))
    walk = walk_forward(run_trials(bars, late, [{}]), n_windows=4)
    assert walk.windows[0].trial == -1
    assert "nothing is held" in walk.windows[0].reason
    assert walk.exposure[walk.bar < walk.windows[1].test_first_bar].any() == np.False_


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_windows": 0}, "n_windows 0"),
        ({"first_train_frac": 1.0}, "first_train_frac 1.0"),
        ({"scheme": "other"}, "'other'"),
        ({"n_windows": 100}, "leave one of 11 bars"),
        ({"embargo_bars": -1}, "embargo_bars is -1"),
    ],
)
def test_impossible_walks_are_refused(trials, options, message):
    with pytest.raises(DataError, match=message):
        walk_forward(trials, **options)


@given(st.integers(110, 3000), st.integers(1, 4), st.sampled_from(["anchored", "rolling"]))
def test_windows_cover_every_bar_after_the_first_training_once(n_bars, n_windows, scheme):
    plan = plan_windows(n_bars, n_windows=n_windows, first_train_frac=0.25, scheme=scheme)
    tested = [bar for _, first, end in plan for bar in range(first, end)]
    assert tested == list(range(int(n_bars * 0.25), n_bars))
    assert all(0 <= train_first < test_first for train_first, test_first, _ in plan)


def test_sums_of_ranges_give_the_sharpe_ratio_of_excess():
    trials = made_trials(200, 4, 5)
    first, end = np.array([0, 10, 50, 199]), np.array([200, 90, 75, 199])
    fast = _sharpe_of_sums(_sums(trials, first, end), 252.0)
    for j in range(3):
        rows = slice(first[j], end[j])
        excess = excess_returns(trials.returns[rows, j], trials.exposure[rows, j], trials.market[rows])
        assert fast[j] == pytest.approx(sharpe_ratio(excess) * np.sqrt(252))
    assert fast[3] == -np.inf


@given(st.integers(0, 50), st.integers(1, 59))
def test_positions_over_an_edge_are_found_to_both_sides(seed, edge):
    trials = made_trials(60, 5, seed)
    first, end = _open_over(trials, edge)
    for j in range(5):
        side = np.sign(trials.exposure[:, j])
        a = b = edge
        if side[edge] and side[edge] == side[edge - 1]:
            while a > 0 and side[a - 1] == side[edge]:
                a -= 1
            while b < 60 and side[b] == side[edge]:
                b += 1
        assert (first[j], end[j]) == (a, b)


def test_combinatorial_paths_choose_as_purged_splits_of_true_intervals_do():
    """With one trial a split's training is the splitter's: events are bars, open to the end of their position."""
    trials = made_trials(240, 5, 8)
    found = combinatorial_paths(trials, n_blocks=6, n_test_blocks=2, embargo_bars=3)
    assert found.sharpe.shape == (5,)
    splits = list(CombinatorialPurgedCV(np.arange(240), np.arange(240), 6, 2).split())
    edges = np.linspace(0, 240, 7).round().astype(int)
    for chosen, (_, test) in zip(found.chosen, splits, strict=True):
        is_tested = np.zeros(240, bool)
        is_tested[test] = True
        sharpes = []
        for j in range(5):
            train = ~is_tested
            side = np.sign(trials.exposure[:, j])
            for edge in edges[1:-1]:
                if is_tested[edge] == is_tested[edge - 1]:
                    continue
                a = b = edge
                if side[edge] and side[edge] == side[edge - 1]:
                    while a > 0 and side[a - 1] == side[edge]:
                        a -= 1
                    while b < 240 and side[b] == side[edge]:
                        b += 1
                if is_tested[edge]:
                    train[a:edge] = False
                else:
                    train[edge : max(b, edge + 3)] = False
            rows = np.flatnonzero(train)
            x = trials.exposure[rows, j]
            excess = excess_returns(trials.returns[rows, j], x, trials.market[rows])
            sharpes.append(sharpe_ratio(excess) if x.any() else -np.inf)
        assert chosen == int(np.argmax(sharpes))


def slow_training(side, is_tested, embargo):
    """Bars to train on: not tested, not embargoed, and of no position that was open on a tested bar."""
    n = len(side)
    train = ~is_tested
    for t in range(n):
        if any(is_tested[t - k] for k in range(1, embargo + 1) if t >= k):
            train[t] = False
        a = b = t
        while side[t] and a > 0 and side[a - 1] == side[t]:
            a -= 1
        while side[t] and b < n and side[b] == side[t]:
            b += 1
        if is_tested[a:b].any():
            train[t] = False
    return train


@pytest.mark.parametrize("embargo", [0, 35])
def test_long_positions_are_purged_from_all_of_the_training(embargo):
    n, n_blocks, n_trials = 240, 8, 4
    edges = np.linspace(0, n, n_blocks + 1).round().astype(int)
    rng = np.random.default_rng(4)
    for _ in range(2):
        exposure = np.column_stack(
            [np.repeat(rng.integers(-1, 2, 60), rng.integers(5, 90, 60))[:n] for _ in range(n_trials)]
        ).astype(float)
        market = rng.normal(0, 0.01, n)
        parameters = tuple({"n": i} for i in range(n_trials))
        returns = exposure * market[:, None]
        trials = Trials(parameters, returns, exposure, 0 * returns, np.ones(n_trials, np.int64), market, 252.0)
        found = combinatorial_paths(trials, n_blocks=n_blocks, n_test_blocks=2, embargo_bars=embargo)
        for chosen, tested in zip(found.chosen, combinations(range(n_blocks), 2), strict=True):
            is_tested = np.zeros(n, bool)
            for block in tested:
                is_tested[edges[block] : edges[block + 1]] = True
            sharpes = []
            for j in range(n_trials):
                rows = np.flatnonzero(slow_training(np.sign(exposure[:, j]), is_tested, embargo))
                if len(rows) < 20 or not exposure[rows, j].any():
                    sharpes.append(-np.inf)
                    continue
                excess = excess_returns(returns[rows, j], exposure[rows, j], market[rows])
                sharpes.append(-np.inf if np.ptp(excess) < 1e-9 else sharpe_ratio(excess))
            assert chosen == (int(np.argmax(sharpes)) if np.isfinite(sharpes).any() else -1)


def test_a_position_over_a_whole_block_of_the_training_is_purged_there_too():
    """Held on bars 40..110 alone: a split that tests any of them has nothing to train on, however far away the rest is."""
    exposure = np.zeros((150, 1))
    exposure[40:110] = 1.0
    market = np.random.default_rng(0).normal(0, 0.01, 150)
    returns = exposure * market[:, None]
    trials = Trials(({},), returns, exposure, 0 * returns, np.ones(1, np.int64), market, 252.0)
    found = combinatorial_paths(trials, n_blocks=5, n_test_blocks=1, embargo_bars=0)
    assert found.chosen.tolist() == [0, -1, -1, -1, 0]


def test_impossible_paths_are_refused(trials):
    with pytest.raises(DataError, match="8 of 8 blocks"):
        combinatorial_paths(trials, n_blocks=8, n_test_blocks=8)


def test_first_bars_are_the_past_alone(bars):
    assert first_bars(bars, 700).close.tolist() == bars.close[:700].tolist()
