"""Do backtesting.py and vectorbt answer alike? The same signals on both, on random and real markets, row by row.

Random markets have gaps at the open and bars whose range often holds stop and target both. The four shipped strategies
are played, made busy, and four generators of signals that ask in all ways: a cross that reverses with stops in ATR, a breakout of one side with exits, a reversion with stops as
fractions and a time limit, and chance, with everything, at the first and the last bar too. Each is played in the
modes ``record``, ``shadow`` and ``gate``; half of the markets fill at the close, half skip to ``hold``. A gate that
has seen so little never skips, so in the mode ``gate`` the decision of one entry in three, chosen by its id, is replaced
by a skip, in both engines; the planted markets are long enough for the gate to skip of its own.

Run ``python -m experiments.compare_engines``; what is finished is kept in ``--out`` and not computed again.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TQDM_DISABLE", "1")

import numpy as np
import pandas as pd

from qml_plugin import PatternMemory
from qml_plugin.adapters.array_strategy import ArrayStrategy
from qml_plugin.adapters.engines import REASONS, TOLERANCE, compare_engines
from qml_plugin.records import Decision, Entry
from strategies.donchian import DonchianBreakout
from strategies.moving_average import MovingAverageCross
from strategies.qml import QMLStrategy
from strategies.rsi_reversion import RSIReversion

MODES = ("record", "shadow", "gate")
FEES = 0.0004
Asked = dict[str, Any]


def random_market(seed: int, n_bars: int = 320) -> pd.DataFrame:
    """Bars with fat tails, one open in ten far from the close before it, and wicks wider than bodies."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(0.008 * rng.standard_t(4, n_bars)))
    gap = np.where(rng.random(n_bars) < 0.1, 0.02, 0.001) * rng.standard_normal(n_bars)
    open_ = np.concatenate([[100.0], close[:-1]]) * np.exp(gap)
    wick = np.exp(np.abs(0.012 * rng.standard_normal((2, n_bars))))
    high, low = np.maximum(open_, close) * wick[0], np.minimum(open_, close) / wick[1]
    index = pd.date_range("2021-01-01", periods=n_bars, freq="h")
    columns = {"Open": open_, "High": high, "Low": low, "Close": close, "Volume": rng.integers(100, 1000, n_bars) * 1.0}
    return pd.DataFrame(columns, index=index)


def cross(bars: pd.DataFrame, rng: np.random.Generator) -> Asked:
    """Reversals at a cross of two averages; stops and targets in ATR, prices."""
    above = bars.Close.rolling(4).mean() > bars.Close.rolling(11).mean()
    atr = (bars.High - bars.Low).rolling(14).mean()
    up, down = above & ~above.shift(fill_value=False), ~above & above.shift(fill_value=False)
    sign = up.astype(int) - down.astype(int)
    return {
        "long_entries": up, "short_entries": down,
        "stop": bars.Close - sign * 1.2 * atr, "target": bars.Close + sign * 1.5 * atr,
    }  # fmt: skip


def breakout(bars: pd.DataFrame, rng: np.random.Generator) -> Asked:
    """Longs, asked again at every new high; exits at a low; neither stop nor target."""
    return {
        "long_entries": bars.Close >= bars.Close.rolling(8).max(),
        "exits": bars.Close <= bars.Close.rolling(5).min(),
    }


def reversion(bars: pd.DataFrame, rng: np.random.Generator) -> Asked:
    """Against far moves; tight stops and targets as fractions, which one bar often touches both; a time limit."""
    far = bars.Close / bars.Close.rolling(10).mean() - 1
    return {
        "long_entries": far < -0.012, "short_entries": far > 0.012, "stop": 0.008, "target": 0.008, "max_bars": 3,
    }  # fmt: skip


def chance(bars: pd.DataFrame, rng: np.random.Generator) -> Asked:
    """All at random: sides, exits of each side, stops and targets that some entries lack, first and last bar."""
    n_bars = len(bars)
    draw = rng.random(n_bars)
    draw[0], draw[-2:] = 0.05, (0.05, 0.15)
    up, down = draw < 0.1, (draw >= 0.1) & (draw < 0.2)
    sign, close = up.astype(int) - down.astype(int), bars.Close.to_numpy()
    away = rng.uniform(0.002, 0.03, (2, n_bars))
    away[rng.random((2, n_bars)) < 0.3] = np.nan
    return {
        "long_entries": up, "short_entries": down, "exits": rng.random(n_bars) < 0.08,
        "short_exits": rng.random(n_bars) < 0.08, "stop": close * (1 - sign * away[0]),
        "target": close * (1 + sign * away[1]), "max_bars": int(rng.integers(1, 12)),
    }  # fmt: skip


def shipped(strategy: type[ArrayStrategy], **parameters: float) -> Callable[[pd.DataFrame, np.random.Generator], Asked]:
    """The signals of a shipped strategy."""
    return lambda bars, rng: {"long_entries": strategy.arrays(bars, **parameters)}


GENERATORS: dict[str, Callable[[pd.DataFrame, np.random.Generator], Asked]] = {
    "cross": cross, "breakout": breakout, "reversion": reversion, "chance": chance,
    "QMLStrategy": shipped(
        QMLStrategy, swing_atr=0.3, shoulder_tolerance=1.5, min_depth_ratio=0.01, max_depth_ratio=10.0
    ),
    "MovingAverageCross": shipped(MovingAverageCross, fast=4, slow=11, stop_loss_atr=1.5),
    "DonchianBreakout": shipped(DonchianBreakout, entry_bars=8, exit_bars=5),
    "RSIReversion": shipped(RSIReversion),
}  # fmt: skip


@contextmanager
def one_in_three_skipped() -> Iterator[None]:
    """Within the block every memory skips the entries whose id says so."""
    decide = PatternMemory.decide

    def decided(self: PatternMemory, entry: Entry) -> Decision:
        decision = decide(self, entry)
        if int(entry.pattern_id[:4], 16) % 3 == 0:
            decision = replace(decision, action="skip", reason="forced")
            self.decisions[entry.pattern_id] = decision
        return decision

    PatternMemory.decide = decided  # type: ignore[method-assign]
    try:
        yield
    finally:
        PatternMemory.decide = decide  # type: ignore[method-assign]


def cells(n_markets: int, n_planted: int) -> Iterator[tuple[str, Callable[[], pd.DataFrame], int]]:
    """Name of each market, how to make it, and its number."""
    from qml_plugin.adapters.backtesting_py import bundled_data
    from qml_plugin.demo.synthetic import planted_edge_market

    yield "GOOG", lambda: bundled_data("GOOG").iloc[-900:], 0
    yield "EURUSD", lambda: bundled_data("EURUSD").iloc[-900:], 1
    for seed in range(n_markets):
        yield f"random {seed}", lambda seed=seed: random_market(seed), seed
    for seed in range(n_planted):
        yield f"planted {seed}", lambda seed=seed: planted_edge_market(9_000, seed=seed + 3), seed


def compared(market: str, bars: pd.DataFrame, number: int, name: str, mode: str) -> dict[str, object]:
    """One comparison as a row of the results."""
    asked = GENERATORS[name](bars, np.random.default_rng(number))
    options = {"fill": "close" if number % 2 else "open", "on_skip": "hold" if number % 4 > 1 else "flat"}
    is_planted = market.startswith("planted")
    started = time.process_time()
    arguments = {**asked, **options, "mode": mode, "fees": FEES, "symbol": market}
    if mode == "gate" and not is_planted:
        with one_in_three_skipped():
            found = compare_engines(bars, **arguments)
    else:
        found = compare_engines(bars, **arguments)
    return {
        "market": market, "generator": name, "mode": mode, **options, "n_entries": found.n_entries,
        "n_skipped": found.n_skipped, "n_trades": found.n_trades, "n_values": found.n_values,
        "largest_gap": found.largest_gap, "reasons": dict(found.reasons),
        "unexplained": [str(difference) for difference in found.unexplained[:10]],
        "n_unexplained": len(found.unexplained), "seconds": round(time.process_time() - started, 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--markets", type=int, default=50, help="random markets")
    parser.add_argument(
        "--planted", type=int, default=1, help="long markets with an edge, where the gate becomes active"
    )
    parser.add_argument("--out", type=Path, default=Path("results/compare_engines.json"))
    arguments = parser.parse_args()
    out: Path = arguments.out
    rows = json.loads(out.read_text())["rows"] if out.exists() else []
    done = {(row["market"], row["generator"], row["mode"]) for row in rows}
    out.parent.mkdir(parents=True, exist_ok=True)
    for market, make, number in cells(arguments.markets, arguments.planted):
        bars = None
        for name in GENERATORS if not market.startswith("planted") else ("cross",):
            for mode in MODES:
                if (market, name, mode) not in done:
                    bars = make() if bars is None else bars
                    rows.append(compared(market, bars, number, name, mode))
        out.write_text(json.dumps({"tolerance": TOLERANCE, "reasons": REASONS, "summary": summary(rows), "rows": rows}))
    print(json.dumps(summary(rows), indent=2))
    for row in rows:
        for text in row["unexplained"]:
            print(row["market"], row["generator"], row["mode"], text)


def summary(rows: list[dict[str, Any]]) -> dict[str, object]:
    """The figures of all comparisons together."""
    reasons: Counter[str] = Counter()
    for row in rows:
        reasons.update(row["reasons"])
    total = {
        name: sum(row[name] for row in rows)
        for name in ("n_entries", "n_skipped", "n_trades", "n_values", "n_unexplained")
    }
    n_markets = len({row["market"] for row in rows})
    return {
        "n_comparisons": len(rows), "n_markets": n_markets, **total, "reasons": dict(reasons),
        "largest_gap": max((row["largest_gap"] for row in rows), default=0.0),
    }  # fmt: skip


if __name__ == "__main__":
    main()
