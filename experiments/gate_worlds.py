"""How often does the gate become active, what does it bring, and does it let go? Measured on made-up worlds.

A world: entries in order of time with 20 (or 200) features, independent standard normal, of which 5 inform: four
move the log-odds of a win by themselves and one only through its product with the first, all equally far. A win pays
1.5 R, a loss costs 1 R, and 43 % win. Holding periods overlap, and so do the outcomes: each is drawn from the move of
one common price path over its own holding period, so entries held together tend to win together. How far the features
move the odds is set by the AUC that their true probabilities reach (the oracle's).

Worlds whose signal dies lose it after half of the entries; in worlds that drift it wanders off to other features, from
none of it in the first quarter to all of it by the third. The row of sticky features has no signal, but features that
persist from entry to entry: with outcomes that overlap they make luck look like skill.

Run ``python -m experiments.gate_worlds`` for the table; ``--first-seed`` chooses the worlds, ``--share 0.1`` takes a
tenth of them, ``--kinds`` some rows only. Finished worlds are kept in ``--out`` and not computed again. Seeds from 0 on
served to design the gate; the default begins at 100,000, which did not.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import norm

from qml_plugin.gate import WalkForwardGate

HOUR = 3_600_000_000
BASE_RATE, WIN_R, LOSS_R = 0.43, 1.5, 1.0
N_INFORMING = 5
MEAN_GAP_HOURS, MEAN_HOLD_HOURS = 4.0, 4.0
FRESH_SEED = 100_000
LET_GO_WITHIN = 150


@dataclass(frozen=True)
class Kind:
    """One row of the table: `n_worlds` worlds of `n_entries` entries; ``change`` is what becomes of the signal."""

    name: str
    auc: float
    n_entries: int
    n_worlds: int
    n_features: int = 20
    change: str = "stays"


KINDS = (
    Kind("no signal", 0.50, 800, 200),
    Kind("weak", 0.62, 1_600, 100),
    Kind("strong", 0.71, 800, 100),
    Kind("no signal, 200 features", 0.50, 800, 50, 200),
    Kind("weak, 5 of 200 features", 0.62, 1_600, 50, 200),
    Kind("strong, 5 of 200 features", 0.71, 800, 50, 200),
    Kind("no signal, sticky features", 0.50, 800, 60, 20, "sticky"),
    Kind("strong, dies", 0.71, 1_600, 60, 20, "dies"),
    Kind("weak, dies", 0.62, 3_200, 40, 20, "dies"),
    Kind("strong, drifts", 0.71, 1_600, 30, 20, "drifts"),
)


@dataclass(frozen=True)
class World:
    """Entries in order of time; `p_win` is their true probability, which nobody knows."""

    X: NDArray[np.float32]
    known_at: NDArray[np.int64]
    resolved_at: NDArray[np.int64]
    r_multiple: NDArray[np.float64]
    p_win: NDArray[np.float64]


def make_world(kind: Kind, seed: int) -> World:
    """The world of this kind and seed."""
    rng = np.random.default_rng([seed, kind.n_entries, kind.n_features, round(100 * kind.auc), len(kind.change)])
    n, d = kind.n_entries, kind.n_features
    features = rng.normal(size=(n, d))
    if kind.change == "sticky":
        features = persistent(features, 0.9)
    chosen = rng.permutation(d)
    signs = rng.choice([-1.0, 1.0], size=(2, N_INFORMING))
    strength, intercept = strength_of(kind.auc)
    signal = effects(features, chosen[:N_INFORMING]) @ signs[0]
    progress = np.arange(n) / n
    if kind.change == "dies":
        p_win = np.where(progress < 0.5, expit(intercept + strength * signal), BASE_RATE)
    else:
        if kind.change == "drifts":
            other = effects(features, chosen[N_INFORMING : 2 * N_INFORMING]) @ signs[1]
            angle = np.clip(2 * progress - 0.5, 0, 1) * np.pi / 2
            signal = np.cos(angle) * signal + np.sin(angle) * other
        p_win = expit(intercept + strength * signal)
    known_at = np.cumsum(rng.exponential(MEAN_GAP_HOURS, n) * HOUR).astype(np.int64)
    resolved_at = known_at + (rng.gamma(2.0, MEAN_HOLD_HOURS / 2, n) * HOUR).astype(np.int64) + 1
    is_win = price_moves(known_at, resolved_at, rng) > norm.ppf(1 - p_win)
    return World(features.astype(np.float32), known_at, resolved_at, np.where(is_win, WIN_R, -LOSS_R), p_win)


def effects(features: NDArray[np.float64], informing: NDArray[np.int64]) -> NDArray[np.float64]:
    """What the five informing features do: four alone, the fifth through its product with the first; variance 1/5 each."""
    own = features[:, informing]
    return np.column_stack([own[:, :4], own[:, 0] * own[:, 4]]) / np.sqrt(N_INFORMING)


def persistent(noise: NDArray[np.float64], memory: float) -> NDArray[np.float64]:
    """Each column made to depend on its past, with variance 1 as before."""
    rows = [noise[0]]
    for row in noise[1:]:
        rows.append(memory * rows[-1] + np.sqrt(1 - memory**2) * row)
    return np.array(rows)


def price_moves(
    known_at: NDArray[np.int64], resolved_at: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Standard normal moves of one Brownian path over each holding period; they depend as far as periods overlap."""
    times = np.unique(np.concatenate([known_at, resolved_at]))
    path = np.concatenate([[0.0], np.cumsum(rng.normal(size=len(times) - 1) * np.sqrt(np.diff(times)))])
    moved = path[np.searchsorted(times, resolved_at)] - path[np.searchsorted(times, known_at)]
    return np.asarray(moved / np.sqrt(resolved_at - known_at))


@cache
def strength_of(auc: float) -> tuple[float, float]:
    """How far the features move the log-odds, and their level, so that the oracle has this AUC at the base rate."""
    rng = np.random.default_rng(1)
    signal = effects(rng.normal(size=(200_000, N_INFORMING)), np.arange(N_INFORMING)).sum(axis=1)

    def level(strength: float) -> float:
        return bisect(lambda value: float(expit(value + strength * signal).mean()) < BASE_RATE, -2.0, 2.0)

    if auc == 0.5:
        return 0.0, level(0.0)
    strength = bisect(lambda value: oracle_auc(expit(level(value) + value * signal)) < auc, 0.0, 5.0)
    return strength, level(strength)


def bisect(is_below, low: float, high: float) -> float:
    """Where a rising condition turns false."""
    for _ in range(25):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return low


def oracle_auc(p_win: NDArray[np.float64]) -> float:
    """Expected AUC of the true probabilities."""
    ascending = np.sort(p_win)
    losses = 1 - ascending
    return float((ascending * (np.cumsum(losses) - losses / 2)).sum() / (ascending.sum() * losses.sum()))


def measure(kind: Kind, seed: int) -> dict[str, object]:
    """What the gate did in one world."""
    world = make_world(kind, seed)
    start = time.perf_counter()
    table = WalkForwardGate(seed=0).run(world.X, world.known_at, world.resolved_at, world.r_multiple)
    seconds = time.perf_counter() - start
    action = table["action"].to_numpy()
    is_skipped = action == "skip"
    is_active = is_skipped | (action == "take")
    expected_r = WIN_R * world.p_win - LOSS_R * (1 - world.p_win)
    half = kind.n_entries // 2
    inactive_later = np.flatnonzero(~is_active[half:])
    was_active_then = kind.change == "dies" and bool(is_active[half - 1])
    return {
        "seed": seed,
        "seconds": seconds,
        "is_ever_active": bool(is_active.any()),
        "is_active_at_end": bool(is_active[-1]),
        "first_active": int(np.argmax(is_active)) if is_active.any() else None,
        "active_frac": float(is_active.mean()),
        "active_frac_since": float(is_active[np.argmax(is_active) :].mean()) if is_active.any() else 0.0,
        "skipped_frac": float(is_skipped.mean()),
        "gain_r": float(-world.r_multiple[is_skipped].sum()),
        "expected_gain_r": float(-expected_r[is_skipped].sum()),
        "ungated_r": float(world.r_multiple.sum()),
        "models": sorted(table.loc[is_active, "model"].unique()),
        "confidence": np.round(table["confidence"].to_numpy()[is_active], 5).tolist(),
        "is_win": (world.r_multiple[is_active] > 0).astype(int).tolist(),
        "p_win": np.round(world.p_win[is_active], 5).tolist(),
        "let_go_after": (int(inactive_later[0]) if len(inactive_later) else half) if was_active_then else None,
        "active_frac_later": float(is_active[half + LET_GO_WITHIN :].mean()) if kind.change == "dies" else None,
    }


def calibration_error(confidence: NDArray[np.float64], outcome: NDArray[np.float64], n_bins: int = 10) -> float:
    """Expected calibration error over bins of equal number; `outcome` is 0 or 1, or the true probability."""
    if not len(confidence):
        return float("nan")
    bins = np.array_split(np.argsort(confidence, kind="stable"), min(n_bins, len(confidence)))
    return float(sum(len(b) * abs(confidence[b].mean() - outcome[b].mean()) for b in bins) / len(confidence))


def figures(kind: Kind, worlds: list[dict]) -> dict[str, object]:
    """The row of a kind."""
    active = [w for w in worlds if w["is_ever_active"]]
    pooled = {
        name: np.concatenate([np.asarray(w[name], float) for w in active] or [np.empty(0)])
        for name in ("confidence", "is_win", "p_win")
    }
    long_enough = [w for w in active if len(w["confidence"]) >= 100]
    let_go = [w["let_go_after"] for w in worlds if w["let_go_after"] is not None]
    mean = lambda values: float(np.mean(values)) if len(values) else float("nan")  # noqa: E731
    row = {
        "kind": kind.name,
        "worlds": len(worlds),
        "entries": kind.n_entries,
        "ever active": mean([w["is_ever_active"] for w in worlds]),
        "active at end": mean([w["is_active_at_end"] for w in worlds]),
        "first active": float(np.median([w["first_active"] for w in active])) if active else float("nan"),
        "active since": mean([w["active_frac_since"] for w in active]),
        "cost R/entry": mean([-w["gain_r"] / kind.n_entries for w in worlds]),
        "gain>0 real": mean([w["gain_r"] > 0 for w in active]),
        "gain>0 true": mean([w["expected_gain_r"] > 0 for w in active]),
        "gain R": mean([w["gain_r"] for w in active]),
        "ECE pooled": calibration_error(pooled["confidence"], pooled["is_win"]),
        "ECE world": mean([calibration_error(np.array(w["confidence"]), np.array(w["is_win"])) for w in long_enough]),
        "ECE true": mean([calibration_error(np.array(w["confidence"]), np.array(w["p_win"])) for w in long_enough]),
        "seconds": float(np.median([w["seconds"] for w in worlds])),
    }
    if let_go:
        row |= {
            "let go median": float(np.median(let_go)),
            "let go 90 %": float(np.quantile(let_go, 0.9)),
            f"within {LET_GO_WITHIN}": mean(np.array(let_go) <= LET_GO_WITHIN),
            "active later": mean([w["active_frac_later"] for w in worlds if w["let_go_after"] is not None]),
        }
    return row


def run_kind(kind: Kind, first_seed: int, n_worlds: int, out: Path, pool: ProcessPoolExecutor) -> list[dict]:
    """All worlds of a kind; those that are in its file already are read from there."""
    path = out / f"{kind.name.replace(' ', '_').replace(',', '')}-{first_seed}.jsonl"
    done = {w["seed"]: w for w in map(json.loads, path.read_text().splitlines())} if path.exists() else {}
    seeds = range(first_seed, first_seed + n_worlds)
    missing = [seed for seed in seeds if seed not in done]
    with path.open("a") as file:
        for world in pool.map(partial(measure, kind), missing):
            done[world["seed"]] = world
            file.write(json.dumps(world) + "\n")
            file.flush()
            print(f"\r{kind.name}: {len(done)} of {n_worlds}", end="", flush=True)
    if missing:
        print("\r" + " " * 60 + "\r", end="")
    return [done[seed] for seed in seeds]


def show(value: object) -> str:
    if isinstance(value, float):
        return "-" if np.isnan(value) else f"{value:.3f}" if abs(value) < 10 else f"{value:.0f}"
    return str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-seed", type=int, default=FRESH_SEED)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--kinds", nargs="*", default=[kind.name for kind in KINDS])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results/gate_worlds"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    with ProcessPoolExecutor(options.processes) as pool:
        for kind in KINDS:
            if kind.name in options.kinds:
                worlds = run_kind(
                    kind, options.first_seed, max(1, round(options.share * kind.n_worlds)), options.out, pool
                )
                row = figures(kind, worlds)
                (options.out / f"{kind.name.replace(' ', '_').replace(',', '')}-{options.first_seed}.json").write_text(
                    json.dumps(asdict(kind) | row)
                )
                print("  ".join(f"{name} {show(value)}" for name, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
