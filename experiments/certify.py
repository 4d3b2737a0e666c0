"""How often is noise called an edge? The verdict of the whole suite on made-up and shuffled markets.

A set: one market of one world, one family of strategies with its sweep of parameters, one verdict. Worlds:

- ``null``: 21,900 bars of four hours (ten years), GARCH(1,1) with Student's t of 5 degrees of freedom, 20 % a year;
- ``drift``: the same with a drift of annual Sharpe ratio 1, and strategies that may only be long or flat;
- ``real``: blocks of the bars of EURUSD (hourly) or GOOG (daily), drawn at random, by turns long-short and long-only;
- ``edge1``, ``edge2``, ``edge3``: the null with a drift that follows the position of one member of the family, such that
  its annual Sharpe ratio is 1, 2 or 3 after costs.

Fees and slippage are 2 basis points of what changes hands. Families: moving averages, breakout, mean reversion, on which
the verdict was designed, and Quasimodo, on which it was not. Sets of ``--phase design`` have seeds of their own; the
figures that are published are those of ``--phase report``.

Three ways to judge: ours (`qml_plugin.vrd`); "naive": the best of the sweep has a PSR of 0.95 or more; "classic": shuffled
trades beat its Sharpe ratio in at most 5 % of draws, the mean Sharpe ratio of the windows out of sample is at least 1,
three of four windows win, there are 30 trades and no drawdown beyond 35 %.

Run ``python -m experiments.certify --phase report --sets 1000``; finished sets are kept in ``--out`` and not computed again.
``--table`` prints what is there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from qml_plugin.bars import Bars, bars_from_frame
from qml_plugin.detection import find_quasimodo
from qml_plugin.stats.inference import wilson_interval
from qml_plugin.stats.nulls import circular_shift_test
from qml_plugin.stats.overfitting import pbo, superior_predictive_ability
from qml_plugin.stats.sharpe import probabilistic_sharpe_ratio, sharpe_moments
from qml_plugin.vrd.evaluation import Evaluation, Parameters, Positions, run_trials
from qml_plugin.vrd.gates import GATES, AuditFinding, Findings, judge
from qml_plugin.vrd.regimes import by_regime, regimes
from qml_plugin.vrd.sensitivity import plateau
from qml_plugin.vrd.thresholds import load_thresholds
from qml_plugin.vrd.validate import by_period, ruin_paths, stressed_walk
from qml_plugin.vrd.walk_forward import walk_forward

Array = NDArray[np.float64]

BARS_A_YEAR, N_BARS, BAR_US = 2_190, 21_900, 4 * 3_600_000_000
# The fourth moment of the returns is finite: alpha**2 * 9 + 2 * alpha * beta + beta**2 = 0.98, 9 the kurtosis of the t.
GARCH_ALPHA, GARCH_BETA, DEGREES = 0.05, 0.93, 5
BAR_SD = 0.20 / np.sqrt(BARS_A_YEAR)
COST_FRAC = 0.0002
N_DRAWS, N_PATHS, N_SHUFFLES = 299, 500, 99
FIRST_SEED = {"design": 1_000_000, "report": 2_000_000}
WORLDS = ("null", "drift", "real", "edge1", "edge2", "edge3")


@njit(cache=True)
def _step(kind: int, close: Array, sums: Array, squares: Array, t: int, a: float, b: float, before: float) -> float:
    """Position wanted at the close of bar t; sums run over log closes, one ahead."""
    if kind == 0:  # moving averages of a and b bars
        n, m = int(a), int(b)
        if t + 1 < m:
            return 0.0
        gap = (sums[t + 1] - sums[t + 1 - n]) / n - (sums[t + 1] - sums[t + 1 - m]) / m
        return 1.0 if gap > 0 else -1.0
    if kind == 1:  # breakout of the last a bars, left at the other end of the last a * b
        n, m = int(a), max(2, int(a * b))
        if t < n:
            return 0.0
        top, bottom = close[t - n : t].max(), close[t - n : t].min()
        if close[t] > top:
            return 1.0
        if close[t] < bottom:
            return -1.0
        if before > 0 and close[t] < close[t - m : t].min():
            return 0.0
        if before < 0 and close[t] > close[t - m : t].max():
            return 0.0
        return before
    n = int(a)  # mean reversion: against b standard deviations from the mean of a bars, until it is met
    if t + 1 < n:
        return 0.0
    mean = (sums[t + 1] - sums[t + 1 - n]) / n
    variance = (squares[t + 1] - squares[t + 1 - n]) / n - mean * mean
    z = (np.log(close[t]) - mean) / np.sqrt(max(variance, 1e-18))
    if z > b:
        return -1.0
    if z < -b:
        return 1.0
    if (before > 0 and z >= 0) or (before < 0 and z <= 0):
        return 0.0
    return before


@njit(cache=True)
def _positions(kind: int, close: Array, a: float, b: float, is_long_only: bool) -> Array:
    n = len(close)
    sums, squares, out = np.zeros(n + 1), np.zeros(n + 1), np.zeros(n)
    before = 0.0
    for t in range(n):
        x = np.log(close[t])
        sums[t + 1], squares[t + 1] = sums[t] + x, squares[t] + x * x
        before = _step(kind, close, sums, squares, t, a, b, before)
        out[t] = max(before, 0.0) if is_long_only else before
    return out


@njit(cache=True)
def _planted(kind: int, noise: Array, drift: float, a: float, b: float) -> Array:
    """Log returns that drift with the position of one member of the family."""
    n = len(noise)
    close, sums, squares, out = np.empty(n), np.zeros(n + 1), np.zeros(n + 1), np.empty(n)
    level, before = 0.0, 0.0
    for t in range(n):
        out[t] = noise[t] + drift * before
        level += out[t]
        close[t] = np.exp(level)
        sums[t + 1], squares[t + 1] = sums[t] + level, squares[t] + level * level
        before = _step(kind, close, sums, squares, t, a, b, before)
    return out


@njit(cache=True)
def _garch(z: Array, sd: float, alpha: float, beta: float) -> Array:
    out = np.empty(len(z))
    long_run = sd * sd
    variance = long_run
    for t in range(len(z)):
        out[t] = np.sqrt(variance) * z[t]
        variance = long_run * (1 - alpha - beta) + alpha * out[t] ** 2 + beta * variance
    return out


@njit(cache=True)
def _held_setups(
    known: NDArray[np.int64], side: Array, stop: Array, head_gap: Array, close: Array, rr: float, limit: int
) -> Array:
    """Positions of setups, one at a time: until the close passes stop or target, or for `limit` bars."""
    n = len(close)
    out = np.zeros(n)
    free = 0
    for i in range(len(known)):
        t = known[i]
        if t < free:
            continue
        target = close[t] + side[i] * rr * head_gap[i]
        u = t
        while u < min(n, t + limit) and side[i] * (close[u] - stop[i]) > 0 and side[i] * (target - close[u]) > 0:
            out[u] = side[i]
            u += 1
        free = u + 1
    return out


@dataclass(frozen=True)
class Family:
    """A strategy and its sweep; ``true`` is the member whose position the planted drift follows."""

    name: str
    kind: int
    grid: tuple[Parameters, ...]
    true: Parameters

    def positions(self, bars: Bars, parameters: Parameters, *, is_long_only: bool) -> Array:
        if self.kind < 3:
            a, b = parameters.values()
            return _positions(self.kind, bars.close, float(a), float(b), is_long_only)
        found = _setups(bars, float(parameters["swing_atr"]))
        held = _held_setups(*found, bars.close, float(parameters["reward"]), 60)
        return np.maximum(held, 0.0) if is_long_only else held

    def evaluate(self, *, is_long_only: bool = False) -> Positions:
        return Positions(partial(self.positions, is_long_only=is_long_only), COST_FRAC)


class _Setups:
    """Setups of the last bars asked for, so that a sweep detects once for each ``swing_atr``."""

    def __init__(self) -> None:
        self.bars: Bars | None = None
        self.found: dict[float, tuple[Any, ...]] = {}

    def __call__(self, bars: Bars, swing_atr: float) -> tuple[Any, ...]:
        if self.bars is not bars:
            self.bars, self.found = bars, {}
        if swing_atr not in self.found:
            setups = find_quasimodo(bars, swing_atr=swing_atr)
            known = np.array([one.known_bar for one in setups], dtype=np.int64)
            stop = np.array([one.stop_px for one in setups], dtype=np.float64)
            side = np.array([one.side for one in setups], dtype=np.float64)
            self.found[swing_atr] = known, side, stop, np.abs(bars.close[known] - stop)
        return self.found[swing_atr]


_setups = _Setups()


def _grid(**values: tuple[float, ...]) -> tuple[Parameters, ...]:
    return tuple(dict(zip(values, chosen, strict=True)) for chosen in product(*values.values()))


FAMILIES = {
    family.name: family
    for family in (
        Family("moving_average", 0, _grid(fast=(5, 8, 12, 20, 30), slow=(50, 80, 120, 160, 220)), {"fast": 12, "slow": 80}),
        Family("breakout", 1, _grid(entry=(20, 30, 50, 80, 120), exit=(0.25, 0.5, 1.0)), {"entry": 50, "exit": 0.5}),
        Family("mean_reversion", 2, _grid(length=(10, 20, 30, 50, 80), width=(1.0, 1.5, 2.0, 2.5)), {"length": 30, "width": 1.5}),
        Family("quasimodo", 3, _grid(swing_atr=(1.0, 1.5, 2.0, 3.0), reward=(1.0, 1.5, 2.0, 3.0)), {"swing_atr": 1.5, "reward": 1.5}),
    )
}  # fmt: skip
DESIGNED_ON = ("moving_average", "breakout", "mean_reversion")


def bars_of(log_returns: Array, rng: np.random.Generator, sd: float) -> Bars:
    """Four-hour bars around a path of closes; every bar opens where the last one closed."""
    close = 100 * np.exp(np.cumsum(log_returns))
    open_ = np.concatenate([[100.0], close[:-1]])
    high = np.maximum(open_, close) * np.exp(np.abs(rng.normal(0, sd / 2, len(close))))
    low = np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0, sd / 2, len(close))))
    opened_at = np.arange(len(close), dtype=np.int64) * BAR_US + 1_400_000_000_000_000
    return Bars("WORLD", "4h", opened_at, opened_at + BAR_US, open_, high, low, close, np.full(len(close), np.nan))


def world(name: str, family: Family, index: int, seed: int) -> Bars:
    """The market of one set."""
    rng = np.random.default_rng([seed + index, WORLDS.index(name), sorted(FAMILIES).index(family.name)])
    if name == "real":
        return _blocks(_real()[index // 2 % 2], rng)
    noise = _garch(rng.standard_t(DEGREES, N_BARS) / np.sqrt(DEGREES / (DEGREES - 2)), BAR_SD, GARCH_ALPHA, GARCH_BETA)
    if name == "drift":
        noise = noise + BAR_SD / np.sqrt(BARS_A_YEAR)
    if not name.startswith("edge"):
        return bars_of(noise, rng, BAR_SD)
    wicks = rng.integers(2**32)
    return _with_edge(
        family, noise, float(name[4:]), lambda returns: bars_of(returns, np.random.default_rng(wicks), BAR_SD)
    )


def _with_edge(family: Family, noise: Array, sharpe: float, made: Callable[[Array], Bars]) -> Bars:
    """Bars whose drift gives the true member this annual Sharpe ratio after costs, beside its luck."""

    def with_drift(drift: float, returns: Array) -> Array:
        if family.kind < 3:
            a, b = family.true.values()
            return _planted(family.kind, noise, drift, float(a), float(b))
        for _ in range(3):  # setups hang on their own few bars, so that they settle at once
            held = family.positions(made(returns), family.true, is_long_only=False)
            returns = noise + drift * np.concatenate([[0.0], held[:-1]])
        return returns

    returns, drift = noise, 0.0
    for _ in range(3):
        held = family.positions(made(returns), family.true, is_long_only=False)
        exposed, changed = float(np.abs(held).mean()), float(np.abs(np.diff(held)).mean())
        drift = (sharpe / np.sqrt(BARS_A_YEAR) * BAR_SD * np.sqrt(exposed) + COST_FRAC * changed) / exposed
        returns = with_drift(drift, returns)
    return made(returns)


@lru_cache
def _real() -> tuple[Bars, Bars]:
    from backtesting.test import EURUSD, GOOG

    return bars_from_frame(EURUSD, symbol="EURUSD"), bars_from_frame(GOOG, symbol="GOOG")


def _blocks(bars: Bars, rng: np.random.Generator, mean_block: int = 50) -> Bars:
    """Ten years of daily or three and a half of hourly bars, in blocks of the real ones."""
    n, n_bars = 2_520 if bars.timeframe == "1d" else N_BARS, len(bars)
    rows = np.empty(n, dtype=np.int64)
    at = 0
    while at < n:
        length = min(int(rng.geometric(1 / mean_block)), n - at)
        rows[at : at + length] = (rng.integers(1, n_bars) + np.arange(length)) % n_bars
        at += length
    rows[rows == 0] = 1
    close = 100 * np.exp(np.cumsum(np.log(bars.close[rows] / bars.close[rows - 1])))
    scale = close / bars.close[rows]
    # As many bars a year as the real market has, which rests at weekends.
    step = np.int64(round((bars.known_at[-1] - bars.known_at[0]) / (n_bars - 1)))
    opened_at = np.arange(n, dtype=np.int64) * step + 1_400_000_000_000_000
    parts = (scale * column[rows] for column in (bars.open, bars.high, bars.low))
    return Bars(bars.symbol, bars.timeframe, opened_at, opened_at + step, *parts, close, np.full(n, np.nan))


def judged_set(name: str, family: Family, index: int, seed: int) -> dict[str, Any]:
    """All verdicts on one set."""
    began = time.process_time()
    bars = world(name, family, index, seed)
    is_long_only = name == "drift" or (name == "real" and index % 2 == 1)
    evaluate = family.evaluate(is_long_only=is_long_only)
    t = load_thresholds()
    trials = run_trials(bars, evaluate, family.grid)
    walk = walk_forward(trials)
    excess = trials.excess()
    own_seed = seed + index
    can_test = bool(walk.exposure.any())
    found = Findings(
        walk=walk,
        timing=circular_shift_test(walk.exposure, walk.market, costs=walk.costs, alpha=t.timing_alpha),
        selection=superior_predictive_ability(
            excess, n_draws=N_DRAWS, alpha=t.selection_alpha, seed=own_seed, n_threads=1
        ),
        n_trials=trials.n_trials,
        costs=stressed_walk(walk, t, n_draws=1, block_length=1.0, seed=own_seed),
        plateau=plateau(trials.parameters, trials.annual_sharpe()),
        periods=by_period(walk.excess, walk.bars_per_year, t, n_draws=1, block_length=1.0, seed=own_seed),
        regimes=by_regime(
            walk.excess, regimes(bars)[walk.bar], walk.bars_per_year, n_draws=1, block_length=1.0, seed=own_seed
        ),
        ruin=ruin_paths(walk, t, n_paths=N_PATHS, is_pessimist=True, seed=own_seed) if can_test else None,
        audit=AuditFinding("clean", "audited once for the family"),
    )
    gates, verdict = judge(found, t)
    best = int((trials.returns.mean(axis=0) / np.maximum(trials.returns.std(axis=0), 1e-300)).argmax())
    return {
        "index": index,
        "verdict": verdict.word,
        "gates": {gate.name: gate.status for gate in gates},
        "values": {gate.name: gate.value if np.isfinite(gate.value) else None for gate in gates},
        "naive": "DEPLOY" if _naive(trials.returns[:, best]) else "REJECT",
        "classic": "DEPLOY" if _classic(evaluate(bars, trials.parameters[best]), walk, own_seed) else "REJECT",
        "excess_sharpe": walk.excess_sharpe,
        "true_sharpe": _true_sharpe(trials, family) if name.startswith("edge") else None,
        "pbo": pbo(excess).pbo if index % 10 == 0 else None,
        "seconds": time.process_time() - began,
    }


def _true_sharpe(trials: Any, family: Family) -> float:
    return float(trials.annual_sharpe()[trials.parameters.index(family.true)])


def _naive(returns: Array) -> bool:
    return returns.std() > 0 and probabilistic_sharpe_ratio(*sharpe_moments(returns)) >= 0.95


def _classic(best: Evaluation, walk: Any, seed: int) -> bool:
    """Shuffling does not change a Sharpe ratio: what the first test compares is rounding, as in the recipe."""
    trades = best.trade_returns
    if len(trades) < 30 or not trades.std() > 0:
        return False
    rng = np.random.default_rng(seed)
    observed = trades.mean() / trades.std()
    shuffled = [rng.permutation(trades) for _ in range(N_SHUFFLES)]
    p_value = float(np.mean([one.mean() / one.std() >= observed for one in shuffled]))
    windows = np.array([window.test_sharpe for window in walk.windows])
    equity = np.cumprod(1 + best.returns)
    drawdown = float((1 - equity / np.maximum.accumulate(np.maximum(equity, 1.0))).max())
    is_steady = bool(np.nanmean(windows) >= 1 and np.mean(windows > 0) >= 0.75) if np.isfinite(windows).any() else False
    return p_value <= 0.05 and is_steady and drawdown <= 0.35


def run(phase: str, worlds: list[str], families: list[str], n_sets: int, seed: int, out: Path, seconds: float) -> None:
    """Sets that are not kept yet, the cells by turns, until all are there or the time is over."""
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    cells = [(world, family) for world in worlds for family in families]
    done = {cell: {line["index"] for line in _kept(out, phase, seed, *cell)} for cell in cells}
    for index in range(n_sets):
        for cell in cells:
            if index in done[cell]:
                continue
            if time.monotonic() - began > seconds:
                return
            result = judged_set(cell[0], FAMILIES[cell[1]], index, seed)
            path = _path(out, phase, seed, *cell)
            is_torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
            with path.open("a") as file:
                file.write("\n" * is_torn + json.dumps(result) + "\n")


def _path(out: Path, phase: str, seed: int, world: str, family: str) -> Path:
    return out / f"{phase}-{seed}-{world}-{family}.jsonl"


def _kept(out: Path, phase: str, seed: int, world: str, family: str) -> Iterator[dict[str, Any]]:
    path = _path(out, phase, seed, world, family)
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:  # the last line of a run that was killed; its set is computed again
                continue


def table(phase: str, worlds: list[str], families: list[str], seed: int, out: Path) -> list[dict[str, Any]]:
    """A row for each cell, and one for each world over all its families."""
    rows = []
    for world_name in worlds:
        by_family = {family: list(_kept(out, phase, seed, world_name, family)) for family in families}
        if len(families) > 1:
            by_family["all"] = [line for lines in by_family.values() for line in lines]
        for family, lines in by_family.items():
            n = len(lines)
            if not n:
                continue
            row: dict[str, Any] = {"world": world_name, "family": family, "n": n}
            for judge_name, key in (("ours", "verdict"), ("naive", "naive"), ("classic", "classic")):
                hits = sum(line[key] == "DEPLOY" for line in lines)
                row[judge_name] = {"n_deploy": hits, "share": hits / n, "interval": wilson_interval(hits, n)}
            words = ("DEPLOY", "CAUTION", "REJECT", "INSUFFICIENT")
            row["words"] = {word: sum(line["verdict"] == word for line in lines) / n for word in words}
            row["pass"] = {gate: sum(line["gates"][gate] == "PASS" for line in lines) / n for gate in GATES}
            true = [line["true_sharpe"] for line in lines if line["true_sharpe"] is not None]
            row["true_sharpe"] = float(np.mean(true)) if true else None
            row["seconds"] = float(np.median([line["seconds"] for line in lines]))
            rows.append(row)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        shares = "  ".join(
            f"{judge_name} {row[judge_name]['share']:.3f} [{row[judge_name]['interval'][0]:.3f}, {row[judge_name]['interval'][1]:.3f}]"
            for judge_name in ("ours", "naive", "classic")
        )
        passed = " ".join(f"{gate[:4]} {share:.2f}" for gate, share in row["pass"].items())
        true = "" if row["true_sharpe"] is None else f" true {row['true_sharpe']:.2f}"
        print(f"{row['world']:6} {row['family']:15} n {row['n']:5} {shares} | {passed}{true} {row['seconds']:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phase", choices=sorted(FIRST_SEED), default="report")
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--families", nargs="+", choices=sorted(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--sets", type=int, default=1_000, help="sets of each world and family")
    parser.add_argument("--seed", type=int, help="first seed; each phase has its own")
    parser.add_argument("--seconds", type=float, default=np.inf, help="stop after so long; go on by running it again")
    parser.add_argument("--out", type=Path, default=Path("results/certify"))
    parser.add_argument("--table", action="store_true", help="only print what is there")
    asked = parser.parse_args()
    seed = FIRST_SEED[asked.phase] if asked.seed is None else asked.seed
    if not asked.table:
        run(asked.phase, asked.worlds, asked.families, asked.sets, seed, asked.out, asked.seconds)
    rows = table(asked.phase, asked.worlds, asked.families, seed, asked.out)
    show(rows)
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / f"{asked.phase}-{seed}.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
