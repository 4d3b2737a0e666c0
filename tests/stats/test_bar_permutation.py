import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from qml_plugin.errors import DataError
from qml_plugin.stats.bar_permutation import PermutedBars, bar_permutation_test
from qml_plugin.stats.kernels import _stream, as_seed, shuffled
from tests.conftest import random_walk
from tests.stats import naive


def bars_of(n=200, seed=0):
    return random_walk(n, seed).to_numpy()


def orders(n, block, seed, draw):
    inner, gaps = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    stream = np.uint64(_stream(as_seed(seed), draw))
    counter = shuffled(n, block, stream, 0, inner)
    shuffled(n, block, stream, counter, gaps)
    return (inner if block > 1 else gaps), inner


def momentum(bars):
    returns = np.diff(np.log(bars[:, 3]))
    return float(np.mean(np.sign(returns[:-1]) * returns[1:]))


def tops(bars):
    return float(bars[:, 1].max())


def constant(bars):
    return 1.0


@pytest.mark.parametrize("block", [1, 7, 60])
def test_equals_the_permutation_written_out_in_logarithms(block):
    bars = bars_of()
    permuted = PermutedBars.of(bars, n_warmup=50, block_bars=block, seed=4)
    for draw in (0, 9):
        gaps, inner = orders(150, block, 4, draw)
        assert sorted(gaps) == sorted(inner) == list(range(150))
        np.testing.assert_allclose(permuted[draw], naive.rebuilt_bars(bars, gaps, inner, 50), rtol=1e-10)
    assert not np.array_equal(permuted[0], permuted[9])


@pytest.mark.parametrize("block", [1, 10])
def test_warm_up_ends_and_moves_are_kept(block):
    bars = bars_of(400, 1)
    drawn = PermutedBars.of(bars, n_warmup=60, block_bars=block, seed=0)[3]
    np.testing.assert_array_equal(drawn[:60], bars[:60])
    np.testing.assert_allclose(drawn[-1, 3], bars[-1, 3], rtol=1e-11)
    assert (drawn[:, 1] >= drawn[:, [0, 3]].max(axis=1) * (1 - 1e-12)).all()
    assert (drawn[:, 2] <= drawn[:, [0, 3]].min(axis=1) * (1 + 1e-12)).all()
    for moves in (lambda b: b[60:, 3] / b[60:, 0], lambda b: b[60:, 0] / b[59:-1, 3], lambda b: b[60:, 4]):
        np.testing.assert_allclose(np.sort(moves(drawn)), np.sort(moves(bars)), rtol=1e-9)


def test_blocks_keep_volatility_together_and_single_bars_do_not():
    rng = np.random.default_rng(2)
    sd = np.repeat(np.tile([0.002, 0.02], 20), 100)
    close = 100 * np.exp(np.cumsum(sd * rng.normal(size=4000)))
    open_ = np.append(100.0, close[:-1])
    bars = np.column_stack([open_, np.maximum(open_, close), np.minimum(open_, close), close])

    def clustering(b):
        size = np.abs(np.diff(np.log(b[:, 3])))
        return np.corrcoef(size[:-1], size[1:])[0, 1]

    alone, kept = (
        np.mean([clustering(PermutedBars.of(bars, block_bars=n, seed=0)[i]) for i in range(5)]) for n in (1, 50)
    )
    assert clustering(bars) > 0.3
    assert abs(alone) < 0.05
    assert kept > 0.25


def test_several_markets_share_one_order():
    one, two = bars_of(120, 3), bars_of(120, 4)
    both = PermutedBars.of(np.stack([one, two]), n_warmup=10, seed=6)[2]
    np.testing.assert_array_equal(both[0], PermutedBars.of(one, n_warmup=10, seed=6)[2])
    np.testing.assert_array_equal(both[1], PermutedBars.of(two, n_warmup=10, seed=6)[2])


def test_an_order_that_matters_is_found_and_stopping_early_changes_no_verdict():
    rng = np.random.default_rng(5)
    returns = 0.01 * rng.normal(size=1000)
    for t in range(1, 1000):
        returns[t] += 0.3 * returns[t - 1]
    close = 100 * np.exp(np.cumsum(returns))
    open_ = np.append(100.0, close[:-1])
    bars = np.column_stack([open_, np.maximum(open_, close), np.minimum(open_, close), close])
    found = bar_permutation_test(PermutedBars.of(bars, seed=0), momentum, n_draws=199)
    assert (found.status, found.p_value, found.n_draws) == ("PASS", 1 / 200, 199)
    noise = PermutedBars.of(bars_of(300, 8), seed=0)
    all_draws = bar_permutation_test(noise, momentum, n_draws=199, stop_after=None)
    stopped = bar_permutation_test(noise, momentum, n_draws=199)
    assert all_draws.status == stopped.status == "FAIL"
    assert (stopped.n_exceeding, stopped.p_value) == (10, 10 / stopped.n_draws)
    np.testing.assert_array_equal(stopped.null_draws, all_draws.null_draws[: stopped.n_draws])


def test_draws_may_be_computed_anywhere():
    permuted = PermutedBars.of(bars_of(), seed=1)
    again = pickle.loads(pickle.dumps(permuted))  # noqa: S301 -- made here, for workers
    np.testing.assert_array_equal(permuted[5], again[5])
    with ThreadPoolExecutor(2) as pool:
        parallel = bar_permutation_test(permuted, tops, n_draws=40, map_draws=pool.map)
    alone = bar_permutation_test(permuted, tops, n_draws=40)
    np.testing.assert_array_equal(parallel.null_draws, alone.null_draws)


def test_ties_and_missing_statistics_count_against_the_strategy():
    permuted = PermutedBars.of(bars_of(), seed=1)
    assert bar_permutation_test(permuted, constant, n_draws=40, stop_after=None).p_value == 1.0
    calls = iter([1.0, *[np.nan] * 40])
    found = bar_permutation_test(permuted, lambda bars: next(calls), n_draws=40, stop_after=None)
    assert found.p_value == 1.0
    found = bar_permutation_test(permuted, lambda bars: np.nan)
    assert (found.status, found.n_draws) == ("INSUFFICIENT", 0)
    assert "NaN" in found.reason
    found = bar_permutation_test(permuted, lambda bars: float(np.array_equal(bars, permuted.bars)), n_draws=10)
    assert found.status == "INSUFFICIENT"
    assert "Ask for at least 19" in found.reason


def test_what_the_strategy_raises_is_not_swallowed():
    def broken(bars):
        raise ZeroDivisionError("in the strategy")

    with pytest.raises(ZeroDivisionError, match="in the strategy"):
        bar_permutation_test(PermutedBars.of(bars_of(), seed=1), broken)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PermutedBars.of(np.ones((5, 3)), seed=0), r"shape \(5, 3\)"),
        (lambda: PermutedBars.of(np.where(np.eye(9, 4), -1.0, 1.0), seed=0), r"price at \(0, 0\) is -1"),
        (lambda: PermutedBars.of(bars_of(), n_warmup=0, seed=0), "n_warmup 0"),
        (lambda: PermutedBars.of(bars_of(), block_bars=120, seed=0), "block_bars 120"),
        (lambda: bar_permutation_test(PermutedBars.of(bars_of(), seed=0), tops, n_draws=0), "n_draws 0"),
        (lambda: bar_permutation_test(PermutedBars.of(bars_of(), seed=0), tops, alpha=0), "alpha 0"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(DataError, match=message):
        call()
