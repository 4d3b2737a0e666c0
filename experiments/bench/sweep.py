"""What a sweep costs: 60 points of 20,000 bars against a loop, against `Backtest.optimize`, with full memory, and pooled."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from backtesting import Backtest

from experiments.bench.mixin_cost import without_mixin
from experiments.bench.timing import Row, figure, in_turn
from qml_plugin import sweep
from qml_plugin.sweeps.loky_workers import LokyWorker
from strategies.moving_average import MovingAverageCross

N_BARS, N_RUNS = 20_000, 2
GRID = {"fast": list(range(10, 60, 5)), "slow": list(range(80, 200, 20))}
FEW = {"fast": [10, 35], "slow": [80, 140]}
HOST = {"cash": 1_000_000, "exclusive_orders": True, "finalize_trades": True}
# Imported by the workers by its name.
Bare = without_mixin(MovingAverageCross)
Bare.__module__, Bare.__qualname__ = __name__, "Bare"


def bars(seed: int = 7) -> pd.DataFrame:
    """A seeded random walk of hourly bars."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.003, N_BARS)))
    open_ = np.concatenate([[100.0], close[:-1]])
    high, low = np.maximum(open_, close) * 1.001, np.minimum(open_, close) * 0.999
    index = pd.date_range("2020-01-01", periods=N_BARS, freq="h")
    return pd.DataFrame({"Open": open_, "High": high, "Low": low, "Close": close, "Volume": 1000.0}, index=index)


def run() -> list[Row]:
    """Record off with two jobs, and full memory in shadow mode in one process."""
    data = bars()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")

        def loop() -> None:
            for fast in GRID["fast"]:
                for slow in GRID["slow"]:
                    Backtest(data, Bare, **HOST).run(fast=fast, slow=slow)

        def searched(strategy: type, grid: dict[str, list[int]], n_jobs: int, **options: object) -> object:
            return sweep(strategy, data, grid, n_jobs=n_jobs, folder=folder, progress=False, **HOST, **options)

        name = f"{len(GRID['fast']) * len(GRID['slow'])} points x {N_BARS:,} bars, record off, 2 jobs"
        rows = in_turn(
            name,
            {
                "loop of Backtest.run": loop,
                "sweep, trades and equity kept": lambda: searched(Bare, GRID, 2),
                "Backtest.optimize, all thrown away": lambda: Backtest(data, Bare, **HOST).optimize(**GRID),
            },
            {"sweep, trades and equity kept": 0.6},
            N_RUNS,
        )
        by = {row.contender.split(",")[0].split(" ")[0]: row.median for row in rows}
        rows.append(
            figure(
                name,
                "sweep / Backtest.optimize",
                by["sweep"] / by["Backtest.optimize"],
                "x",
                at_most=1.1,
                n_runs=N_RUNS,
            )
        )
        LokyWorker.end_idle()
        n_few = len(FEW["fast"]) * len(FEW["slow"])

        def remembered(mode: str, n_jobs: int = 1) -> object:
            """On a new registry, as the first sweep of a strategy is."""
            url = f"sqlite:///{Path(tempfile.mkdtemp(dir=folder)) / 'x.db'}"
            memory = {"symbol": "X", "timeframe": "1h", "registry": url}
            return searched(MovingAverageCross, FEW, n_jobs, mode=mode, **memory)

        rows += in_turn(
            f"{n_few} points x {N_BARS:,} bars in one process, a point's cost",
            {
                "plain": lambda: searched(Bare, FEW, 1),
                "record": lambda: remembered("record"),
                "shadow: features, retrieval, gate": lambda: remembered("shadow"),
            },
            {"shadow: features, retrieval, gate": 4.0},
            N_RUNS,
        )
        markets = {f"S{i}": bars(8 + i).iloc[:5_000] for i in range(4)}

        def on_all(*, pooled: bool) -> object:
            grid = {"fast": [10], "slow": [40, 80]}
            about = {"mode": "shadow", "timeframe": "1h", "progress": False, **HOST}
            return sweep(MovingAverageCross, markets, grid, pooled=pooled, folder=folder, **about)

        rows += in_turn(
            "2 points x 4 symbols x 5,000 bars in one process, shadow",
            {"per symbol": lambda: on_all(pooled=False), "pooled": lambda: on_all(pooled=True)},
            {"pooled": 2.0},
            N_RUNS,
        )
        passes = remembered("record", n_jobs=2).n_feature_passes
        rows.append(figure("feature passes of a sweep", "2 jobs", passes, "passes", at_most=1))
        LokyWorker.end_idle()
        return rows
