"""How many planted Quasimodos does the detector find, and how many does it make up? A curve over noise.

A world is a zigzag of turns at known bars and prices, with noise on it. In between legs of random length, drawn without
regard to any pattern, stand planted Quasimodos of both sides: trend, left shoulder P1, P2, head P3, P4 and the way back to
the shoulder, all sizes random. Between two turns the price is a straight line plus a Brownian bridge, which is 0 at the
turns, in ticks of an eighth of a bar; bars are made of ticks. The noise level is the standard deviation that the noise
would have after a mean leg, divided by the height of a mean leg: at 0 the zigzag is bare, at 1 it is lost in a random walk.

What is true is read off the bare zigzag by the definition of the pattern, never by the detector. A window of turns is a
`clear` Quasimodo if every inequality of the definition holds by a tenth of the leg from P1 to P2, and `doubtful` if it
holds or fails by less. Planted ones are clear. Chance makes others, which are as true. A found setup is a hit if each of
its P1 to P4 lies within `NEAR_BARS` bars of a true one's turn of the same side, and its entry no later than so many bars
after that one's retest; a hit on a doubtful one counts neither for nor against; everything else is made up.

    recall = planted ones hit / planted ones        precision = hits / (hits + made up)

Run ``python -m experiments.quasimodo_recall``; seeds from 0 on served to design the detector, the default begins at
100,000, which did not. ``--draw NOISE`` writes one stretch, bare and marked, to results/ to judge by eye.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from qml_plugin.bars import Bars, bars_from_frame
from qml_plugin.detection import find_quasimodo
from qml_plugin.records import Setup

LEG, LEG_BARS, TICKS = 1.0, 12, 8
MARGIN, NEAR_BARS = 0.1, 6
NOISES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
FRESH_SEED = 100_000
DETECTORS: dict[str, dict[str, object]] = {
    "default": {},
    "atr 2": {"swing_atr": 2.0},
    "atr 3": {"swing_atr": 3.0},
    "atr 3.5, wide": {"swing_atr": 3.5, "shoulder_tolerance": 1.0},
    "fractal 3": {"swing_model": "fractal"},
    "fractal 5": {"swing_model": "fractal", "fractal_bars": 5},
}


@dataclass(frozen=True)
class Truth:
    """One Quasimodo of the bare zigzag: the bars of P1 to P4, and the bar at which the line is back at the shoulder."""

    side: int
    turns: tuple[int, int, int, int]
    retest_bar: float
    is_clear: bool


@dataclass(frozen=True)
class World:
    """Bars, the Quasimodos of the bare zigzag, and which turns begin planted ones."""

    bars: Bars
    truths: tuple[Truth, ...]
    planted: frozenset[tuple[int, int, int, int]]


def world(seed: int, noise: float, n_planted: int = 12) -> World:
    """A seeded world; the zigzag of a seed is the same at every noise level."""
    rng = np.random.default_rng([seed, 1])
    turn_px, shoulders = _zigzag(rng, n_planted)
    legs = np.abs(np.diff(turn_px))
    n_bars = np.maximum(4, np.round(LEG_BARS * legs / LEG * rng.uniform(0.75, 1.35, len(legs)))).astype(int)
    turn_bar = np.append(0, np.cumsum(n_bars))
    frame = _bars(turn_px, turn_bar, noise, np.random.default_rng([seed, 2]))
    planted = frozenset(tuple(turn_bar[i : i + 4].tolist()) for i in shoulders)
    return World(bars_from_frame(frame, symbol="MADE_UP"), _truths(turn_px, turn_bar), planted)


def _zigzag(rng: np.random.Generator, n_planted: int) -> tuple[NDArray[np.float64], list[int]]:
    """Prices of the turns, and the places of the left shoulders of planted Quasimodos."""
    px = [100.0]
    shoulders = []
    direction = 1

    def step(move: float) -> None:
        px.append(px[-1] + move)

    for _ in range(n_planted):
        for _ in range(int(rng.integers(5, 12))):
            step(direction * LEG * rng.lognormal(0, 0.35))
            direction = -direction
        # `direction` leads from P0 to P1: up for a bearish one, which has its head on top
        leg = LEG * rng.uniform(0.8, 1.3)
        depth, drop = leg * rng.uniform(0.25, 1.0), leg * rng.uniform(0.25, 0.9)
        step(direction * leg * (1 + rng.uniform(0.3, 0.9)))  # P1
        shoulders.append(len(px) - 1)
        for move in (-leg, leg + depth, -(leg + depth + drop), leg + drop + leg * rng.uniform(0.02, 0.1)):
            step(direction * move)  # P2, P3, P4, and a little beyond the shoulder
        direction = -direction
        step(direction * leg * rng.uniform(0.8, 2.0))
        direction = -direction
    return np.array(px), shoulders


def _bars(px: NDArray[np.float64], bar: NDArray[np.int64], noise: float, rng: np.random.Generator) -> pd.DataFrame:
    """OHLC bars of the line through the turns with a Brownian bridge on every leg."""
    sd = noise * LEG / np.sqrt(LEG_BARS * TICKS)
    ticks = [np.array([px[0]])]
    for (a, b), n in zip(pairwise(px), np.diff(bar) * TICKS, strict=True):
        walk = np.cumsum(rng.normal(0, sd, n))
        share = np.arange(1, n + 1) / n
        ticks.append(a + (b - a) * share + walk - share * walk[-1])
    path = np.concatenate(ticks)
    inside = path[1:].reshape(-1, TICKS)
    opened = path[:-1:TICKS]
    columns = {
        "Open": opened,
        "High": np.maximum(opened, inside.max(axis=1)),
        "Low": np.minimum(opened, inside.min(axis=1)),
        "Close": inside[:, -1],
    }
    return pd.DataFrame(columns, index=pd.date_range("2024-01-01", periods=len(opened), freq="h"))


def _truths(px: NDArray[np.float64], bar: NDArray[np.int64]) -> tuple[Truth, ...]:
    """The definition on the bare turns, both sides."""
    found = []
    for i in range(len(px) - 5):
        sign = 1 if px[i + 1] > px[i] else -1  # +1: P1 is a high, the head is on top
        p0, p1, p2, p3, p4 = sign * px[i : i + 5]
        leg = p1 - p2
        beyond = (sign * px[i + 5 :] >= p1 - MARGIN * leg).nonzero()[0]
        if not len(beyond):
            continue
        k = i + 5 + int(beyond[0])  # the first turn at or beyond the shoulder ends the leg of the retest
        share = (p1 - MARGIN * leg - sign * px[k - 1]) / (sign * (px[k] - px[k - 1]))
        retest = float(bar[k - 1] + max(share, 0.0) * (bar[k] - bar[k - 1]))
        ratio = (p3 - p1) / leg
        slacks = [(p2 - p0) / leg, (p2 - p4) / leg, ratio - 0.1, 2.0 - ratio]
        slacks += [(float((sign * px[k]) - p1) / leg + MARGIN), (90 - (retest - bar[i + 4])) / 100]
        if min(slacks) > -MARGIN:
            turns = tuple(int(x) for x in bar[i + 1 : i + 5])
            found.append(Truth(-sign, turns, retest, min(slacks) >= MARGIN))
    return tuple(found)


def judged(setups: list[Setup], made: World) -> dict[str, int]:
    """Counts of planted ones, of those hit, of hits, and of setups made up."""
    hit_planted: set[tuple[int, int, int, int]] = set()
    counts = {"planted": len(made.planted), "planted_hit": 0, "hits": 0, "made_up": 0, "doubtful": 0}
    for setup in setups:
        turns = np.array([point.bar for point in setup.points[:4]])
        matches = [
            truth
            for truth in made.truths
            if truth.side == setup.side
            and np.abs(turns - truth.turns).max() <= NEAR_BARS
            and setup.known_bar <= truth.retest_bar + NEAR_BARS
        ]
        hit_planted |= {truth.turns for truth in matches} & made.planted
        kind = "made_up" if not matches else "hits" if any(truth.is_clear for truth in matches) else "doubtful"
        counts[kind] += 1
    return counts | {"planted_hit": len(hit_planted)}


def measured(detector: dict[str, object], noise: float, seeds: range) -> dict[str, float]:
    """Counts over worlds, recall and precision."""
    total: dict[str, float] = {}
    for seed in seeds:
        made = world(seed, noise)
        for name, count in judged(find_quasimodo(made.bars, **detector), made).items():  # type: ignore[arg-type]
            total[name] = total.get(name, 0) + count
    total["recall"] = total["planted_hit"] / total["planted"]
    total["precision"] = total["hits"] / max(total["hits"] + total["made_up"], 1)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-seed", type=int, default=FRESH_SEED)
    parser.add_argument("--n-worlds", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("results/quasimodo_recall.json"))
    parser.add_argument("--draw", type=float, metavar="NOISE", help="write two pages of a stretch at this noise level")
    arguments = parser.parse_args()
    if arguments.draw is not None:
        draw(arguments.draw, arguments.first_seed)
        return
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.n_worlds)
    out: Path = arguments.out
    kept = json.loads(out.read_text()) if out.exists() else {}
    out.parent.mkdir(parents=True, exist_ok=True)
    print(
        f"{'detector':<16}{'noise':>6}{'planted':>9}{'recall':>8}{'hits':>7}{'doubtful':>10}{'made up':>9}{'precision':>11}"
    )
    for name, detector in DETECTORS.items():
        for noise in NOISES:
            key = f"{name}|{noise}|{seeds.start}|{len(seeds)}"
            row = kept.get(key) or measured(detector, noise, seeds)
            kept[key] = row
            out.write_text(json.dumps(kept, indent=1))
            print(
                f"{name:<16}{noise:>6}{row['planted']:>9}{row['recall']:>8.3f}{row['hits']:>7}{row['doubtful']:>10}"
                f"{row['made_up']:>9}{row['precision']:>11.3f}"
            )


def draw(noise: float, seed: int) -> None:
    """The bars of a world's first Quasimodos without any mark, and the same with the planted turns joined."""
    import plotly.graph_objects as go

    made = world(seed, noise)
    turns = sorted(made.planted)[:2]
    first, last = turns[0][0] - 40, turns[1][3] + 60
    cut = slice(first, last)
    bars = made.bars
    figure = go.Figure(
        go.Candlestick(x=np.arange(first, last), open=bars.open[cut], high=bars.high[cut], low=bars.low[cut], close=bars.close[cut])
    )  # fmt: skip
    figure.update_layout(xaxis_rangeslider_visible=False, width=1400, height=600, title=f"noise {noise}")
    for name, marks in (("bare", ()), ("marked", turns)):
        for four in marks:
            figure.add_scatter(x=four, y=bars.close[np.array(four) - 1], mode="lines+markers")
        figure.write_html(f"results/quasimodo_{noise:g}_{name}.html", include_plotlyjs=True)


if __name__ == "__main__":
    main()
