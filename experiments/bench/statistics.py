"""What nulls, resampling and the tests of a search cost, beside their slow twins and beside arch and purgedcv."""

from __future__ import annotations

import warnings

import numpy as np
import purgedcv
from arch.bootstrap import SPA, StationaryBootstrap

from experiments.bench.timing import Row, figure, in_turn, timed
from experiments.null_sizes import BY_NAME, make_world, positions
from qml_plugin.stats.bar_permutation import PermutedBars
from qml_plugin.stats.nulls import circular_shift_test, random_entry_test
from qml_plugin.stats.overfitting import pbo, superior_predictive_ability
from qml_plugin.stats.resampling import bootstrap_interval, monte_carlo

N_PATHS, N_TRADES = 50_000, 500
SHIFTS_MS, PATHS_MS = 5.0, 600.0


def run() -> list[Row]:
    """All benchmarks of statistics."""
    return [*shifts(), *entries(), *permutations(), *paths(), *intervals(), *superior(), *overfitting()]


def fastest(bench: str, contender: str, call: object, at_most: float) -> Row:
    """The quickest of nine runs: what the code takes when nobody else uses the processors."""
    times = timed({contender: call}, n_runs=9)[contender]  # type: ignore[dict-item]
    return figure(bench, f"{contender}, fastest of 9", min(times[1:]), "ms", at_most=at_most, n_runs=9)


def shifts() -> list[Row]:
    kind = BY_NAME["null, long and short"]
    returns, bars = make_world(kind, 0)
    position = positions(bars, 12, 80, False)

    def rolled() -> list[float]:
        found = []
        for shift in range(0, len(position), 10):  # a tenth of them
            earned = np.roll(position, shift) * returns
            found.append(earned.mean() / earned.std())
        return found

    def ours() -> object:
        return circular_shift_test(position, returns)

    bench = "all circular shifts, 10,000 bars"
    rows = in_turn(bench, {"np.roll, a tenth of the shifts": rolled, "circular_shift_test": ours}, n_runs=5)
    return [*rows, fastest(bench, "circular_shift_test", ours, SHIFTS_MS)]


def entries() -> list[Row]:
    kind = BY_NAME["null, long only"]
    returns, bars = make_world(kind, 0)
    position = positions(bars, 12, 80, True)
    edges = np.flatnonzero(np.diff(position, prepend=0.0, append=0.0))
    holds = edges[1::2] - edges[::2]
    n_flat = len(position) - holds.sum()

    def slow() -> list[float]:
        rng, found = np.random.default_rng(0), []
        for _ in range(500):
            order = rng.permutation(holds)
            places = np.sort(rng.choice(n_flat + len(holds), len(holds), replace=False))
            first = places - np.arange(len(holds)) + np.append(0, np.cumsum(order)[:-1])
            held = np.zeros(len(position))
            for a, n in zip(first, order, strict=True):
                held[a : a + n] = 1.0
            earned = held * returns
            found.append(earned.mean() / earned.std())
        return found

    return in_turn(
        "random entries, 10,000 bars, 500 draws",
        {
            "numpy, hold by hold": slow,
            "random_entry_test": lambda: random_entry_test(position, returns, n_draws=500, seed=0),
        },
        n_runs=3,
    )


def permutations() -> list[Row]:
    _, bars = make_world(BY_NAME["null, long and short"], 0)
    permuted = PermutedBars.of(bars, n_warmup=80, seed=0)
    log_px = np.log(bars)

    def slow() -> np.ndarray:
        rng = np.random.default_rng(0)
        gap, within = log_px[80:, 0] - log_px[79:-1, 3], log_px[80:, 1:] - log_px[80:, :1]
        gap, within = gap[rng.permutation(len(gap))], within[rng.permutation(len(gap))]
        close = np.cumsum(gap + within[:, 2]) + log_px[79, 3]
        open_ = close - within[:, 2]
        return np.vstack([bars[:80], np.exp(np.column_stack([open_, open_[:, None] + within]))])

    return in_turn(
        "one permutation of 10,000 bars", {"numpy, logarithms": slow, "PermutedBars": lambda: permuted[0]}, n_runs=15
    )


def paths() -> list[Row]:
    returns = np.random.default_rng(0).normal(0.001, 0.02, N_TRADES)

    def in_numpy() -> np.ndarray:
        rng, worst = np.random.default_rng(0), []
        for _ in range(N_PATHS // 2_000):
            equity = np.cumprod(1 + returns[rng.integers(N_TRADES, size=(2_000, N_TRADES))], axis=1)
            peak = np.maximum(np.maximum.accumulate(equity, axis=1), 1.0)
            worst.append((1 - equity / peak).max(axis=1))
        return np.concatenate(worst)

    rows = []
    for length in (1.0, 5.0):
        bench = f"Monte Carlo, {N_PATHS:,} x {N_TRADES}, blocks of {length:g}"
        ours = {
            f"monte_carlo, {n} thread{'s' * (n > 1)}": (
                lambda n=n, length=length: monte_carlo(returns, block_length=length, seed=0, n_threads=n)
            )
            for n in (1, 2)
        }
        rows += in_turn(bench, {"numpy in chunks, drawdown only, blocks of 1": in_numpy, **ours}, n_runs=3)
        rows.append(fastest(bench, "monte_carlo, 2 threads", ours["monte_carlo, 2 threads"], PATHS_MS))
    return rows


def intervals() -> list[Row]:
    returns = np.random.default_rng(0).normal(0.001, 0.02, 2_000)
    return in_turn(
        "interval of a mean, 2,000 returns, 2,000 draws, blocks of 5",
        {
            "arch StationaryBootstrap.conf_int": lambda: StationaryBootstrap(5, returns, seed=0).conf_int(
                np.mean, 2_000, method="percentile", size=0.9
            ),
            "bootstrap_interval": lambda: bootstrap_interval(returns, n_draws=2_000, block_length=5, seed=0),
        },
        n_runs=3,
    )


def superior() -> list[Row]:
    matrix = np.random.default_rng(0).normal(size=(10_000, 36)) / 100

    def of_arch() -> object:
        test = SPA(np.zeros(len(matrix)), -matrix, block_size=5, reps=199, seed=0)
        test.compute()
        return test.pvalues

    return in_turn(
        "SPA, 10,000 bars, 36 trials, 199 draws, blocks of 5",
        {
            "arch SPA": of_arch,
            "superior_predictive_ability": lambda: superior_predictive_ability(
                matrix, n_draws=199, block_length=5, seed=0
            ),
        },
        {"superior_predictive_ability": 0.2},
        n_runs=3,
    )


def overfitting() -> list[Row]:
    matrix = np.random.default_rng(0).normal(size=(1_000, 50))

    def of_purgedcv() -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return purgedcv.probability_of_backtest_overfitting(matrix.T, 8)

    return in_turn(
        "PBO, 1,000 returns, 50 trials, 8 blocks",
        {"purgedcv": of_purgedcv, "pbo": lambda: pbo(matrix, 8)},
        n_runs=3,
    )
