"""Time contenders in turn, A B C A B C, and compare their medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One contender: median of the warm runs, the first run apart, and the ratio to the first contender."""

    bench: str
    contender: str
    cold_ms: float
    median_ms: float
    ratio: float
    target: float | None
    n_runs: int

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def in_turn(
    bench: str,
    contenders: Mapping[str, Callable[[], object]],
    targets: Mapping[str, float] | None = None,
    n_runs: int = 5,
) -> list[Row]:
    """Rows of all contenders; the first is what the others are measured against."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(n_runs + 1):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            times[name].append(1_000 * (time.perf_counter() - start))
    median = {name: statistics.median(found[1:]) for name, found in times.items()}
    base = median[next(iter(median))]
    return [
        Row(
            bench,
            name,
            round(found[0], 2),
            round(median[name], 2),
            round(median[name] / base, 2),
            (targets or {}).get(name),
            n_runs,
        )
        for name, found in times.items()
    ]
