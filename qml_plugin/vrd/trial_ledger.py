"""Every set of parameters that a validation tries is a trial in the registry: attempts are counted, and told."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qml_plugin import provenance
from qml_plugin.bars import Bars
from qml_plugin.clock import from_datetime
from qml_plugin.provenance import canonical_json, plain
from qml_plugin.records import Run
from qml_plugin.registry import PatternRegistry
from qml_plugin.registry.ledger import NO_TRIALS
from qml_plugin.vrd.evaluation import Evaluation, Parameters, annual_sharpe, bars_per_year

_MOST_RUNS = 1_000_000


@dataclass(frozen=True, slots=True)
class Attempt:
    """One trial of the strategy on these bars, as the registry tells it; ``sharpe`` is annual, None where not recorded."""

    number: int
    started_at: int
    run_id: str
    kind: str
    status: str
    parameters: str
    sharpe: float | None
    n_trades: int | None
    error: str | None


class TrialLedger:
    """The trials of one strategy on one series.

    Parameters
    ----------
    registry : PatternRegistry
    cls : type
    bars : Bars
    host : mapping
        What besides parameters makes a trial another one: fees, how orders replace each other.
    seed : int

    Notes
    -----
    Two runs of the same code with the same parameters are one trial here, whoever ran them and at what costs, unless a gate
    skipped entries in one: so the count is the same before and after a validation has written its own, and repeating one
    does not add to it. ``PatternRegistry.n_trials`` counts every run.
    """

    def __init__(
        self, registry: PatternRegistry, cls: type, bars: Bars, host: Mapping[str, object], *, seed: int
    ) -> None:
        self._registry, self._cls, self._bars, self._host, self._seed = registry, cls, bars, dict(host), seed
        self._source, self._data_hash = provenance.source_sha256(cls), bars.sha256()
        self._per_year = bars_per_year(bars)
        self._recorded = {run["run_id"] for run in self._runs()}

    def n_attempts(self, grid: Sequence[Parameters], others: Sequence[Parameters] = ()) -> int:
        """How many different trials there will have been once all of `grid` and of `others` were tried."""
        names = tuple(grid[0])
        own = {_key(self._source, parameters, {}) for parameters in grid}
        own |= {_key(self._source, {name: other.get(name) for name in names}, {}) for other in others}
        return len(own | {_key_of(run, names) for run in self._runs()})

    def n_trials_on_bars(self) -> int:
        """Runs of any strategy on these bars that the registry counts as trials; a class that was renamed is among them."""
        return self._registry.n_trials(None, self._data_hash)

    def record(self, parameters: Parameters, evaluation: Evaluation | None, error: str | None) -> None:
        """Write one trial, unless it is there; None for one that gave nothing, with its error."""
        params: dict[str, object] = {
            "strategy": {name: plain(value) for name, value in parameters.items()}, "host": self._host, "data": {}, "qml": {},
        }  # fmt: skip
        bars, name = self._bars, self._cls.__name__
        run_id = provenance.run_id("trial", name, self._source, bars.symbol, bars.timeframe, params, self._data_hash)
        if run_id in self._recorded:
            return
        now, git = time.time_ns() // 1000, provenance.git_state(provenance.source_folder(self._cls))
        run = Run(
            run_id=run_id, kind="trial", status="finished" if evaluation is not None else "failed", strategy_name=name,
            symbol=bars.symbol, timeframe=bars.timeframe, params=params, data_hash=self._data_hash,
            data_start_at=int(bars.opened_at[0]), data_end_at=int(bars.opened_at[-1]), data_bars=len(bars), seed=self._seed,
            versions={**provenance.library_versions(), "strategy_source": self._source}, started_at=now, finished_at=now,
            metrics={} if evaluation is None else self._metrics(evaluation),
            returns_frac=None if evaluation is None else np.ascontiguousarray(evaluation.returns[1:]),
            git_hash=git.commit, is_git_dirty=git.is_dirty, git_diff=git.diff,
            strategy_path=provenance.class_path(self._cls), error=error,
        )  # fmt: skip
        self._registry.save_run(run, [], [], {})
        self._recorded.add(run_id)

    def attempts(self) -> tuple[Attempt, ...]:
        """All trials in the registry, the first one first; repeated runs of one trial each have their row."""
        runs = sorted(self._runs(), key=lambda run: (run["started_at"], run["run_id"]))
        return tuple(
            Attempt(
                i, from_datetime(run["started_at"]), run["run_id"], run["kind"], run["status"],
                ", ".join(f"{name}={value}" for name, value in run["params"].get("strategy", {}).items()),
                (run["metrics"] or {}).get("sharpe_annual"), (run["metrics"] or {}).get("n_trades"), run["error"],
            )
            for i, run in enumerate(runs, 1)
        )  # fmt: skip

    def _runs(self) -> Iterable[dict[str, Any]]:
        runs = self._registry.get_runs(_MOST_RUNS, strategy=self._cls.__name__, data_hash=self._data_hash)
        return [run for run in runs if run["kind"] not in NO_TRIALS]

    def _metrics(self, evaluation: Evaluation) -> dict[str, object]:
        return {
            "n_trades": evaluation.n_trades,
            "sharpe_annual": float(annual_sharpe(evaluation.returns, self._per_year)),
            "return_frac": float(np.prod(1 + evaluation.returns) - 1),
        }


def _key_of(run: Mapping[str, Any], names: Sequence[str]) -> bytes:
    """What makes a recorded run one trial; runs without a source of their own are told apart by all that they hold."""
    own, settings = run["params"].get("strategy", {}), run["params"].get("qml") or {}
    source = run["versions"].get("strategy_source") or run["run_id"]
    return _key(source, {name: own.get(name) for name in names}, settings if settings.get("mode") == "gate" else {})


def _key(source: str, parameters: Mapping[str, object], settings: Mapping[str, object]) -> bytes:
    return canonical_json(plain([source, dict(parameters), dict(settings)]))
