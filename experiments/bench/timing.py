"""Time contenders in turn, A B C A B C, and compare their medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: a median, the first run apart where it was timed, and the ratio to the first contender."""

    bench: str
    contender: str
    median: float
    unit: str = "ms"
    cold: float | None = None
    ratio: float | None = None
    target: str = ""
    is_met: bool | None = None
    n_runs: int = 1

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def figure(
    bench: str, contender: str, value: float, unit: str, *, at_most: float | None = None, n_runs: int = 1
) -> Row:
    """A figure that is judged by itself."""
    target = "" if at_most is None else f"<= {at_most:g} {unit}"
    is_met = None if at_most is None else value <= at_most
    return Row(bench, contender, round(value, 3), unit, target=target, is_met=is_met, n_runs=n_runs)


def timed(
    contenders: Mapping[str, Callable[[], object]], n_runs: int = 5, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Milliseconds of each contender, run in turn; the first of each list is the cold one."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(n_runs + 1):
        for name, run in contenders.items():
            start = clock()
            run()
            times[name].append(1_000 * (clock() - start))
    return times


def in_turn(
    bench: str,
    contenders: Mapping[str, Callable[[], object]],
    targets: Mapping[str, float] | None = None,
    n_runs: int = 5,
) -> list[Row]:
    """Rows of all contenders; the first is what the others are measured against, at most `targets` times as slow."""
    times = timed(contenders, n_runs)
    median = {name: statistics.median(found[1:]) for name, found in times.items()}
    base = median[next(iter(median))]
    rows = []
    for name, found in times.items():
        ratio, limit = median[name] / base, (targets or {}).get(name)
        rows.append(
            Row(
                bench,
                name,
                round(median[name], 2),
                cold=round(found[0], 2),
                ratio=round(ratio, 4),
                target="" if limit is None else f"<= {limit:g} x",
                is_met=None if limit is None else ratio <= limit,
                n_runs=n_runs,
            )
        )
    return rows
