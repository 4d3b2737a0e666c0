"""What the registry costs: registering in batches and one by one, training data, opening, and bytes on the disk."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from experiments.bench.timing import Row, figure
from qml_plugin import CATALOGUE, PatternRegistry
from qml_plugin.records import BarrierRule, Decision, Entry, Outcome, Pattern, Run
from qml_plugin.registry.feature_sets import catalogue

N_BATCH = 10_000
N_ALONE = 300
N_TRAINING = 100_000
_HOUR = 3_600_000_000
_START = 1_000_000_000_000_000


def patterns(first: int, n_patterns: int) -> list[Pattern]:
    """Resolved patterns with every feature of the catalogue, a tenth of the values missing."""
    rng = np.random.default_rng(first)
    features = rng.normal(size=(n_patterns, len(CATALOGUE)))
    features[rng.random(features.shape) < 0.1] = np.nan
    feature_set, rule = catalogue()[0], BarrierRule()
    return [
        Pattern(
            Entry(
                "GOOG", "1h", "Bench", "long_signal", 1, bar, _START + bar * _HOUR, _START + (bar + 1) * _HOUR, 100.0, 98.5,
                103.0, rule,
            ),
            row,
            feature_set,
            Outcome(bar + 1, 100.25, bar + 4, 103.5, "target", 2.0, _START + (bar + 5) * _HOUR),
            0.5,
        )
        for bar, row in enumerate(features, start=first)
    ]  # fmt: skip


def run_of(number: int) -> Run:
    """A run that changes nothing but its id."""
    return Run(
        run_id=f"run-{number}", kind="backtest", status="finished", strategy_name="Bench", symbol="GOOG", timeframe="1h",
        params={}, data_hash="", data_start_at=_START, data_end_at=_START, data_bars=0, seed=0, versions={}, metrics={},
        started_at=_START, finished_at=_START,
    )  # fmt: skip


def milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return 1_000 * (time.perf_counter() - start)


def row(contender: str, times: list[float], at_most: float | None, unit: str = "ms", scale: float = 1.0) -> Row:
    """A figure on its own: median of the runs after the first, which is the cold one."""
    bench = f"registry, patterns of {len(CATALOGUE)} features"
    median = statistics.median(times[1:] or times) / scale
    found = figure(bench, contender, median, unit, at_most=at_most, n_runs=len(times))
    return replace(found, cold=round(times[0] / scale, 3) if len(times) > 1 else None)


def run() -> list[Row]:
    """All registry benchmarks."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.db"
        url = f"sqlite:///{path}"
        registry = PatternRegistry(url)
        batches: list[float] = []
        for number in range(N_TRAINING // N_BATCH):
            batch = patterns(number * N_BATCH, N_BATCH)
            batches.append(milliseconds(lambda: registry.save_run(run_of(number), batch, [], {})))  # noqa: B023
        again = [milliseconds(lambda: registry.save_run(run_of(0), batch, [], {})) for _ in range(3)]
        singles = patterns(N_TRAINING, 2 * N_ALONE)
        single = [
            milliseconds(lambda: registry.save_run(run_of(0), [pattern], [take(pattern)], {}))  # noqa: B023
            for pattern in singles[:N_ALONE]
        ]
        with registry.kept_open():
            live = [
                milliseconds(lambda: registry.save_run(run_of(0), [pattern], [take(pattern)], {}))  # noqa: B023
                for pattern in singles[N_ALONE:]
            ]
        by_hand = [described(N_TRAINING + 2 * N_ALONE + number) for number in range(2 * N_ALONE)]
        alone = [milliseconds(lambda: registry.register_pattern(*given)) for given in by_hand[:N_ALONE]]  # noqa: B023
        with registry.kept_open():
            alone_live = [milliseconds(lambda: registry.register_pattern(*given)) for given in by_hand[N_ALONE:]]  # noqa: B023
        training = [milliseconds(registry.get_training_data) for _ in range(4)]
        opening = [milliseconds(lambda: PatternRegistry(url)) for _ in range(21)]
        size = path.stat().st_size / (N_TRAINING + 4 * N_ALONE)
        per_thousand = N_BATCH / 1_000
        return [
            row("1,000 of a batch of 10,000", batches, 100.0, scale=per_thousand),
            row("1,000 of a batch that is there already", again, None, scale=per_thousand),
            row("register_pattern, committed, database kept open", alone_live, 2.0),
            row("register_pattern, committed", alone, 2.0),
            row("a run with one pattern, database kept open", live, None),
            row("a run with one pattern", single, None),
            row("get_training_data of 100,000", training, 2_000.0),
            row("open a current database", opening, 50.0),
            row("size of a pattern", [size], None, "bytes"),
        ]


def described(hour: int) -> tuple[dict[str, object], dict[str, float]]:
    """A pattern as a person gives it, with every feature."""
    pattern = patterns(hour, 1)[0]
    points = (f"{point}_{what}" for point in ("left_shoulder", "head", "right_shoulder") for what in ("price", "idx"))
    order = {"entry_price": 100.0, "stop_loss": 98.5, "take_profit": 103.0, "detection_idx": hour}
    entry = pattern.entry
    named = {"symbol": entry.symbol, "timeframe": entry.timeframe, "pattern_type": entry.pattern_type}
    data = {**named, **order, "detection_time": entry.detection_at, "validity_score": None, **dict.fromkeys(points)}
    return data, dict(zip(CATALOGUE.names, pattern.features.tolist(), strict=True))


def take(pattern: Pattern) -> Decision:
    return Decision(pattern.pattern_id, "take", "record_only")
