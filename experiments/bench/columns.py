"""Memory of searches: ten times as many cells against few, each in a process of its own; on vectorbt and on backtesting.py."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.bench.timing import Row, figure
from experiments.compare_engines import random_market

AT_MOST = 1.5
N_SLOW = 100


def cross(bars: pd.DataFrame, fast: int, slow: int) -> dict[str, Any]:
    """Long above, short below: two moving averages by running sums."""
    close = bars["Close"].to_numpy()
    total = np.concatenate([[0.0], np.cumsum(close)])
    above = np.zeros(len(close), bool)
    first = max(fast, slow)
    ends = np.arange(first, len(close) + 1)
    above[first - 1 :] = (total[ends] - total[ends - fast]) / fast > (total[ends] - total[ends - slow]) / slow
    up, down = np.zeros((2, len(close)), bool)
    up[first:], down[first:] = above[first:] & ~above[first - 1 : -1], ~above[first:] & above[first - 1 : -1]
    return {"long_entries": up, "short_entries": down}


def on_vectorbt(n_cells: int, folder: str, **options: Any) -> int:
    """1,000 bars, no memory, unless the options say otherwise."""
    from qml_plugin.sweeps import sweep_signals

    grid = {"fast": list(range(2, 2 + n_cells // N_SLOW)), "slow": list(range(60, 60 + N_SLOW))}
    result = sweep_signals(cross, random_market(3, 1_000), grid, folder=folder, progress=False, **options)
    return result.n_tested


def recorded(n_cells: int, folder: str) -> int:
    """The same with every entry registered."""
    return on_vectorbt(n_cells, folder, registry=f"sqlite:///{folder}/r.db", mode="record", symbol="X")


def on_backtesting(n_cells: int, folder: str) -> int:
    """300 bars, no memory, in this process."""
    from experiments.bench.sweep import HOST, Bare
    from qml_plugin import sweep

    grid = {"fast": list(range(2, 2 + n_cells // N_SLOW)), "slow": list(range(60, 60 + N_SLOW))}
    return sweep(Bare, random_market(3, 300), grid, folder=folder, progress=False, **HOST).n_tested


# What is run, and how many cells are few.
KINDS: dict[str, tuple[Callable[[int, str], int], int]] = {
    "vectorbt": (on_vectorbt, 500),
    "vectorbt, recorded": (recorded, 100),
    "backtesting.py": (on_backtesting, 200),
}


def run() -> list[Row]:
    """Peak memory of each kind, ten times as many cells against few, and cells a second."""
    rows = []
    for kind, (_, few) in KINDS.items():
        small, large = (measured(kind, n_cells) for n_cells in (few, 10 * few))
        name = f"{10 * few:,} cells against {few}, {kind}"
        rows.append(figure(name, "peak memory", large["peak_mib"] / small["peak_mib"], "x", at_most=AT_MOST))
        rows.append(figure(name, "peak of the larger", large["peak_mib"], "MiB"))
        rows.append(figure(name, "cells a second", 10 * few / large["wall_s"], "1/s"))
    return rows


def measured(kind: str, n_cells: int) -> dict[str, float]:
    """What a process of its own took for so many cells."""
    command = [sys.executable, "-m", "experiments.bench.columns", kind, str(n_cells)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _main(kind: str, n_cells: int) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        began = time.perf_counter()
        n_tested = KINDS[kind][0](n_cells, str(Path(folder)))
        wall_s = time.perf_counter() - began
    if n_tested != n_cells:
        raise SystemExit(f"{n_tested} of {n_cells} cells finished")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)
    print(json.dumps({"peak_mib": peak, "wall_s": wall_s}))


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))
