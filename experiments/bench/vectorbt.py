"""Gating for vectorbt: two thousand candidates over a hundred thousand bars, features included; and many columns."""

from __future__ import annotations

import time

import numpy as np

from experiments.bench.timing import Row, figure
from experiments.compare_engines import random_market
from qml_plugin import gate_signals
from qml_plugin.adapters.vectorbt_host import host

N_BARS, N_CANDIDATES, N_COLUMNS = 100_000, 2_000, 10
MOST_S = 2.0


def run() -> list[Row]:
    """Each mode by itself, on one thread; the kernels are compiled before."""
    bars = random_market(1, N_BARS)
    host()
    chosen = np.sort(np.random.default_rng(0).choice(np.arange(3_000, N_BARS), N_CANDIDATES, replace=False))
    longs, shorts = np.zeros((2, N_BARS), bool)
    longs[chosen[::2]] = shorts[chosen[1::2]] = True
    barriers = {"stop": 0.01, "target": 0.015, "max_bars": 30}
    gate_signals(bars[:3_000], longs[:3_000], np.arange(3_000) % 40 == 0, **barriers).portfolio()
    rows = []
    for mode in ("record", "shadow", "gate"):
        start = time.perf_counter()
        gated = gate_signals(bars, longs, shorts, mode=mode, **barriers)
        spent = time.perf_counter() - start
        name = f"{N_CANDIDATES:,} candidates over {N_BARS:,} bars in vectorbt, features included"
        rows.append(figure(name, mode, spent, "s", at_most=MOST_S))
    start = time.perf_counter()
    gated.portfolio().entry_trades  # noqa: B018
    rows.append(
        figure("the exact portfolio of it", "orders packed, Rust engine", 1e3 * (time.perf_counter() - start), "ms")
    )
    columns = np.column_stack([np.roll(longs, 7 * place) for place in range(N_COLUMNS)])
    columns[:3_000] = False
    start = time.perf_counter()
    gate_signals(bars, columns, mode="record", **barriers)
    rows.append(figure(f"{N_COLUMNS} columns of one market in one call", "record", time.perf_counter() - start, "s"))
    return rows
