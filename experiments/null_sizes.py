"""How often does each null hypothesis fall where it holds, and how often where it does not? Measured on made-up worlds.

A world: 10,000 bars of four hours (2,190 a year), returns of a GARCH(1,1) with Student's t of 5 degrees of freedom. The
strategy is long while the average of 12 closes is above that of 80, else short or flat. Worlds differ in what moves the
market besides noise: nothing; a drift of annual Sharpe ratio 1, which the strategy does not time; or an edge, a drift
that follows the strategy's own position and gives it an annual Sharpe ratio of 1 or 2. Under the first three the share
of p-values up to 5 % is the size of a test and should be 5 %; under the others it is its power. A rejection of "sign
flip" or "PSR" under the drift is what those tests do wrong.

The search: a sweep of 36 pairs of averages, of which the best is taken. Reality check, SPA and StepM see the returns of
all 36 in excess of buy-and-hold at their mean exposure, the bar permutation repeats the sweep on permuted bars.

Run ``python -m experiments.null_sizes`` for the tables (some 40 minutes on one core); ``--share 0.1`` takes a tenth of
the worlds, ``--kinds`` some rows only. Finished worlds are kept in ``--out`` and not computed again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from numba import njit
from numpy.typing import NDArray

from qml_plugin.stats.bar_permutation import PermutedBars, bar_permutation_test
from qml_plugin.stats.nulls import circular_shift_test, random_entry_test, sign_flip_test
from qml_plugin.stats.sharpe import excess_returns, probabilistic_sharpe_ratio, sharpe_moments

Array = NDArray[np.float64]

BARS_A_YEAR = 2_190
FAST, SLOW = 12, 80
GARCH_ALPHA, GARCH_BETA, BAR_SD, DEGREES = 0.08, 0.90, 0.01, 5
BLOCKS = (1, 10, 25, 50, 100)
SWEEP = tuple(product((4, 8, 12, 20, 30, 40), (50, 80, 120, 160, 200, 250)))
ALPHA = 0.05


@dataclass(frozen=True)
class Kind:
    """One row of the table. ``edge`` and ``drift`` are annual Sharpe ratios."""

    name: str
    is_long_only: bool
    drift: float = 0.0
    edge: float = 0.0
    n_worlds: int = 500
    n_bars: int = 10_000
    is_search: bool = False

    @property
    def path(self) -> str:
        return self.name.replace(" ", "_").replace(",", "") + ".jsonl"


KINDS = (
    Kind("null, long and short", False),
    Kind("null, long only", True),
    Kind("drift 1, long only", True, drift=1.0),
    Kind("search, null, long and short", False, is_search=True),
    Kind("search, drift 1, long only", True, drift=1.0, is_search=True),
    Kind("edge 1, long and short", False, edge=1.0, n_worlds=100),
    Kind("edge 2, long and short", False, edge=2.0, n_worlds=100),
    Kind("edge 1 and drift 1, long only", True, drift=1.0, edge=1.0, n_worlds=100),
    Kind("search, edge 1, long and short", False, edge=1.0, n_worlds=100, is_search=True),
    Kind("search, edge 2, long and short", False, edge=2.0, n_worlds=100, is_search=True),
)

BY_NAME = {kind.name: kind for kind in KINDS}


@njit(cache=True)
def simulated(noise: Array, drift: float, edge: float, is_long_only: bool) -> tuple[Array, Array]:
    """Log returns and the strategy's positions; the edge is a drift along the position, per standard deviation."""
    n = len(noise)
    returns, position, close = np.empty(n), np.zeros(n), np.empty(n)
    omega = (1 - GARCH_ALPHA - GARCH_BETA) * BAR_SD**2
    variance, last, px = BAR_SD**2, 0.0, 0.0
    for t in range(n):
        if t >= SLOW:
            is_up = close[t - FAST : t].mean() > close[t - SLOW : t].mean()
            position[t] = 1.0 if is_up else 0.0 if is_long_only else -1.0
        variance = omega + GARCH_ALPHA * last**2 + GARCH_BETA * variance
        last = np.sqrt(variance) * noise[t]
        returns[t] = last + BAR_SD * (drift + edge * position[t])
        px += returns[t]
        close[t] = px
    return returns, position


def make_world(kind: Kind, seed: int) -> tuple[Array, Array]:
    """Log returns of shape (n_bars,) and bars of shape (n_bars, 4)."""
    rng = np.random.default_rng([seed, 7])
    noise = rng.standard_t(DEGREES, kind.n_bars) / np.sqrt(DEGREES / (DEGREES - 2))
    annual = np.sqrt(BARS_A_YEAR)
    # A position held half of the time earns its edge half of the time, at a spread of the root of a half.
    edge = kind.edge / annual * (np.sqrt(2.0) if kind.is_long_only else 1.0)
    returns, _ = simulated(noise, kind.drift / annual, edge, kind.is_long_only)
    close = np.cumsum(returns)
    open_ = np.append(0.0, close[:-1])
    beyond = np.abs(rng.normal(0, BAR_SD / 3, (2, kind.n_bars)))
    log_px = [open_, np.maximum(open_, close) + beyond[0], np.minimum(open_, close) - beyond[1], close]
    return returns, 100.0 * np.exp(np.column_stack(log_px))


@njit(cache=True)
def crossing(log_close: Array, fast: int, slow: int, is_long_only: bool) -> Array:
    """Position held over each bar: which average of the closes before it is higher."""
    held = np.zeros(len(log_close))
    low, high = 0.0, 0.0
    for t in range(len(log_close)):
        if t >= slow:
            held[t] = 1.0 if high / fast > low / slow else 0.0 if is_long_only else -1.0
        low += log_close[t] - (log_close[t - slow] if t >= slow else 0.0)
        high += log_close[t] - (log_close[t - fast] if t >= fast else 0.0)
    return held


def positions(bars: Array, fast: int, slow: int, is_long_only: bool) -> Array:
    return crossing(np.log(bars[:, 3]), fast, slow, is_long_only)


def returns_of(bars: Array) -> Array:
    return np.diff(np.log(bars[:, 3]), prepend=np.log(bars[0, 0]))


def strategy_sharpe(is_long_only: bool, bars: Array) -> float:
    earned = positions(bars, FAST, SLOW, is_long_only) * returns_of(bars)
    return float(earned.mean() / earned.std())


def swept(bars: Array, is_long_only: bool) -> tuple[Array, Array]:
    """Returns and positions of all pairs of averages, a column each."""
    log_close = np.log(bars[:, 3])
    held = np.array([crossing(log_close, fast, slow, is_long_only) for fast, slow in SWEEP])
    return (held * returns_of(bars)).T, held.T


def best_excess_sharpe(is_long_only: bool, bars: Array) -> float:
    """Best Sharpe ratio of the sweep, in excess of holding the market at the mean exposure."""
    log_close, market = np.log(bars[:, 3]), returns_of(bars)
    best = -np.inf
    for fast, slow in SWEEP:
        held = crossing(log_close, fast, slow, is_long_only)
        excess = (held - held.mean()) * market
        best = max(best, float(excess.mean() / excess.std()))
    return best


def holds_of(position: Array, returns: Array) -> Array:
    """Log return of each hold."""
    edges = np.flatnonzero(np.diff(position, prepend=0.0))
    sums = np.add.reduceat(position * returns, edges)
    return sums[position[edges] != 0]


def measure(kind: Kind, seed: int) -> dict[str, float]:
    """The p-value of each test in one world."""
    returns, bars = make_world(kind, seed)
    return measure_search(kind, seed, returns, bars) if kind.is_search else measure_nulls(kind, seed, returns, bars)


def measure_nulls(kind: Kind, seed: int, returns: Array, bars: Array) -> dict[str, float]:
    position = positions(bars, FAST, SLOW, kind.is_long_only)
    earned = position * returns
    excess = excess_returns(earned, position, returns)
    found = {
        "circular shift": circular_shift_test(position, returns).p_value,
        "random entry": random_entry_test(position, returns, n_draws=999, seed=seed, n_threads=1).p_value,
    }
    for block in BLOCKS:
        permuted = PermutedBars.of(bars, n_warmup=SLOW, block_bars=block, seed=seed)
        test = bar_permutation_test(permuted, partial(strategy_sharpe, kind.is_long_only), n_draws=199)
        found[f"bar permutation, block {block}"] = test.p_value
    return found | {
        "sign flip": sign_flip_test(holds_of(position, returns), n_draws=999, seed=seed).p_value,
        "PSR": 1 - probabilistic_sharpe_ratio(*sharpe_moments(earned)),
        "PSR of excess": 1 - probabilistic_sharpe_ratio(*sharpe_moments(excess)),
    }


def measure_search(kind: Kind, seed: int, returns: Array, bars: Array) -> dict[str, float]:
    from qml_plugin.stats.overfitting import superior_predictive_ability

    earned, held = swept(bars, kind.is_long_only)
    excess = earned - held.mean(axis=0) * returns[:, None]
    studentised, plain = (
        superior_predictive_ability(excess, n_draws=499, seed=seed, is_studentised=is_studentised, n_threads=1)
        for is_studentised in (True, False)
    )
    found = {
        "SPA": studentised.p_consistent,
        "SPA, not studentised": plain.p_consistent,
        "reality check": plain.p_upper,
    }
    for block in (1, 25):
        permuted = PermutedBars.of(bars, n_warmup=max(slow for _, slow in SWEEP), block_bars=block, seed=seed)
        test = bar_permutation_test(permuted, partial(best_excess_sharpe, kind.is_long_only), n_draws=39, stop_after=2)
        found[f"bar permutation, block {block}"] = test.p_value
    best = excess[:, np.argmax(excess.mean(axis=0) / excess.std(axis=0))]
    return found | {"best of the sweep, PSR of excess": 1 - probabilistic_sharpe_ratio(*sharpe_moments(best))}


def run_kind(kind: Kind, n_worlds: int, out: Path) -> Iterator[dict[str, float]]:
    """Worlds of a kind in order; those that are in its file already are read from there."""
    path = out / kind.path
    done = {w["seed"]: w for w in map(json.loads, path.read_text().splitlines())} if path.exists() else {}
    with path.open("a") as file:
        for seed in range(n_worlds):
            if seed not in done:
                done[seed] = {"seed": seed, **measure(kind, seed)}
                file.write(json.dumps(done[seed]) + "\n")
                file.flush()
            yield done[seed]


def figures(kind: Kind, worlds: list[dict[str, float]]) -> dict[str, object]:
    """Share of p-values up to 5 %, and its standard error, of each test."""
    tests = [name for name in worlds[0] if name != "seed"]
    share = {name: float(np.mean([w[name] <= ALPHA for w in worlds])) for name in tests}
    error = {name: float(np.sqrt(s * (1 - s) / len(worlds))) for name, s in share.items()}
    return {"kind": asdict(kind), "worlds": len(worlds), "share": share, "standard_error": error}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--kinds", nargs="*", default=[kind.name for kind in KINDS])
    parser.add_argument("--out", type=Path, default=Path("results/null_sizes"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    table = []
    for kind in KINDS:
        if kind.name in options.kinds:
            worlds = list(run_kind(kind, max(1, round(options.share * kind.n_worlds)), options.out))
            table.append(figures(kind, worlds))
            print(f"{kind.name} ({len(worlds)} worlds)")
            for name, share in table[-1]["share"].items():  # type: ignore[union-attr]
                print(f"    {name:<36}{share:.3f}", flush=True)
    (options.out / "null_sizes.json").write_text(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
