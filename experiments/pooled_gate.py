"""How soon does a gate become active that learns from several symbols at once, and how often with nothing to learn?

A world: four symbols of 4,000 hourly bars, with an entry at every cross of two moving averages. ``planted`` worlds are
four markets of `demo.synthetic`, which trend while they are calm and reverse while they are wild, each in weather of its
own; there is something to learn, and it is the same on all. ``walks`` are four random walks that know nothing of each
other; ``alike`` are four whose returns correlate by 0.9, so that their entries win and lose together: what looks like four
outcomes is hardly more than one.

Each world is walked twice: by memories of their own, and by memories that share one past. Counted are the worlds in which
a gate takes or skips an entry by itself, and the bar at which it first does so.

Run ``python -m experiments.pooled_gate`` for the table; ``--share 0.1`` takes a tenth of the worlds, ``--kinds`` some rows only.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from qml_plugin.bars import Bars, bars_from_frame
from qml_plugin.demo.synthetic import planted_edge_market
from qml_plugin.memory import PatternMemory, PooledPast
from qml_plugin.records import BarrierRule

N_SYMBOLS, N_BARS = 4, 4_000
FAST, SLOW = 5, 20
RULE = BarrierRule(max_bars=24)
ALIKE_CORRELATION = 0.9
WORLDS = {"planted": 12, "alike": 30, "walks": 25}
FIRST_SEED = 100_000


def make_world(kind: str, seed: int) -> dict[str, Bars]:
    """The bars of each symbol of a world."""
    if kind == "planted":
        frames = [planted_edge_market(N_BARS, seed=N_SYMBOLS * seed + i) for i in range(N_SYMBOLS)]
    else:
        rng = np.random.default_rng([seed, len(kind)])
        shared = ALIKE_CORRELATION if kind == "alike" else 0.0
        common, own = rng.standard_normal((N_BARS, 1)), rng.standard_normal((N_BARS, N_SYMBOLS))
        moves = 0.002 * (np.sqrt(shared) * common + np.sqrt(1 - shared) * own)
        wicks = np.exp(0.001 * np.abs(rng.standard_normal((2, N_BARS, N_SYMBOLS))))
        frames = [walk(moves[:, i], wicks[:, :, i]) for i in range(N_SYMBOLS)]
    return {f"S{i}": bars_from_frame(frame, symbol=f"S{i}", timeframe="1h") for i, frame in enumerate(frames)}


def walk(moves: np.ndarray, wicks: np.ndarray) -> pd.DataFrame:
    """Hourly bars of a random walk."""
    close = 100 * np.exp(np.cumsum(moves))
    open_ = np.concatenate([[100.0], close[:-1]])
    high, low = np.maximum(open_, close) * wicks[0], np.minimum(open_, close) / wicks[1]
    index = pd.date_range("2020-01-01", periods=N_BARS, freq="h")
    return pd.DataFrame({"Open": open_, "High": high, "Low": low, "Close": close, "Volume": 1000.0}, index=index)


def crosses(bars: Bars) -> list[tuple[int, int]]:
    """Bar and side of each cross of the averages."""
    fast, slow = (pd.Series(bars.close).rolling(period).mean().to_numpy() for period in (FAST, SLOW))
    above = fast > slow
    return [(bar, 1 if above[bar] else -1) for bar in range(SLOW, len(bars)) if above[bar] != above[bar - 1]]


def first_active_bar(world: dict[str, Bars], symbols: list[str]) -> int | None:
    """Bar of the first entry that a gate shared by these symbols decides; None where it only abstains."""
    pool = PooledPast()
    memories = {symbol: PatternMemory(world[symbol], pool=pool) for symbol in symbols}
    entries = [
        memories[symbol].entry(bar, side, rule=RULE) for symbol in symbols for bar, side in crosses(world[symbol])
    ]
    for entry in sorted(entries, key=lambda entry: (entry.known_at, entry.symbol)):
        if memories[entry.symbol].decide(entry).action != "abstain":
            return entry.bar
    return None


def measure(kinds: Sequence[str], share: float) -> list[dict[str, object]]:
    """A row a kind of world and way."""
    rows: list[dict[str, object]] = []
    for kind in kinds:
        found: dict[str, list[int | None]] = {"pooled": [], "each by itself": []}
        n_worlds = max(1, round(share * WORLDS[kind]))
        for seed in range(FIRST_SEED, FIRST_SEED + n_worlds):
            world = make_world(kind, seed)
            found["pooled"].append(first_active_bar(world, list(world)))
            found["each by itself"] += [first_active_bar(world, [symbol]) for symbol in world]
        for way, bars in found.items():
            active = [bar for bar in bars if bar is not None]
            rows.append(
                {
                    "kind": kind,
                    "way": way,
                    "n_gates": len(bars),
                    "n_active": len(active),
                    # Those that are never active count as last.
                    "median_bar": float(np.median([N_BARS if bar is None else bar for bar in bars])),
                }
            )
            print(f"{kind:<10}{way:<16}{len(active):>4} of {len(bars):<5}{rows[-1]['median_bar']:>9.0f}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="share of the worlds")
    parser.add_argument("--kinds", nargs="+", choices=list(WORLDS), default=list(WORLDS), help="kinds of worlds")
    parser.add_argument("--out", type=Path, default=Path("results/pooled_gate.json"))
    arguments = parser.parse_args()
    print(f"{'world':<10}{'gate':<16}{'active':>7}{'':<9}median bar (of {N_BARS}; never active counts as last)")
    rows = measure(arguments.kinds, arguments.share)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
