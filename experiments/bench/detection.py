"""What finding Quasimodos costs."""

from __future__ import annotations

import statistics
import time

from experiments.bench.features import random_bars
from experiments.bench.timing import Row, figure, timed
from qml_plugin.detection import find_quasimodo
from qml_plugin.detection.quasimodo import SWING_MODELS


def run() -> list[Row]:
    """Both swing models on 100,000 bars, after compilation."""
    bars = random_bars(100_000)
    times = timed(
        {model: lambda model=model: find_quasimodo(bars, swing_model=model) for model in SWING_MODELS},
        clock=time.process_time,
    )  # fmt: skip
    return [
        figure(
            "find_quasimodo, 100,000 bars, CPU time", model, statistics.median(found[1:]), "ms", at_most=500, n_runs=5
        )
        for model, found in times.items()
    ]
