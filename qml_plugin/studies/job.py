"""One part of a study in whatever process runs it: the search of a cell, or its validation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qml_plugin import provenance
from qml_plugin.adapters import cells
from qml_plugin.adapters.backtesting_py import bundled_data
from qml_plugin.adapters.recorded_run import Start, now_us
from qml_plugin.bars import Bars, bars_from_frame, read_bars
from qml_plugin.errors import DataError, QmlError
from qml_plugin.features import CATALOGUE
from qml_plugin.registry import PatternRegistry
from qml_plugin.report.dossier import write_dossier
from qml_plugin.sweeps import SweepResult
from qml_plugin.sweeps.search import Asked, How, swept
from qml_plugin.vrd.keeping import as_plain
from qml_plugin.vrd.strategies import StrategyValidation, validate_strategy
from qml_plugin.vrd.thresholds import Thresholds
from qml_plugin.vrd.validate import Plan

_CASH_IN_PRICES = 1e6  # whole units are then rounded to a millionth of the equity, as in the validation
_METRICS = ("return_frac", "sharpe_annual", "max_drawdown_frac", "n_trades")


@dataclass(frozen=True, slots=True)
class Job:
    """All that a part is made of, for a process that knows nothing else.

    ``other_grids`` are those of other cells of the same class on the same bars, with what they keep fixed.
    ``snapshot`` is what of the registry every part sees: the number of its last commit and the hash of its patterns.
    """

    strategy: str
    symbol: str
    timeframe: str
    file: Path | None
    last_bars: int | None
    data_sha256: str
    grid: Mapping[str, tuple[Any, ...]]
    gate_grid: Mapping[str, tuple[Any, ...]]
    fixed: Mapping[str, Any]
    gate: Mapping[str, Any]
    host: Mapping[str, Any]
    objective: str
    is_quick: bool
    plan: Plan
    thresholds: Thresholds
    fees: float
    seed: int
    registry: str
    snapshot: tuple[int, str]
    parent_run_id: str
    sweeps: Path
    cell: Path
    other_grids: tuple[Mapping[str, tuple[Any, ...]], ...]


def run_job(kind: str, job: Job, n_jobs: int = 1, tell: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Run a part, and give its record; what a strategy does wrong is recorded, and never raised."""
    began = now_us()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = {"sweep": _sweep, "validation": _validation}[kind](job, n_jobs, tell or (lambda _: None))
            record = {"status": "done", "error": None, **found}
        except (Exception, SystemExit) as error:  # noqa: BLE001  a strategy is foreign code: its cell fails, not the study
            record = {"status": "failed", "error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    said = {str(one.message) for one in caught if issubclass(one.category, (UserWarning, RuntimeWarning))}
    return record | {"warned": sorted(said), "times": {"started_at": began, "finished_at": now_us()}}


def load_frame(symbol: str, file: Path | None, last_bars: int | None) -> pd.DataFrame:
    """Bars of a market, checked, the last of them where so many are wanted."""
    frame = read_bars(bundled_data(symbol) if file is None else file)
    return frame if last_bars is None else frame.iloc[-last_bars:]


def _bars(job: Job) -> tuple[pd.DataFrame, Bars]:
    frame = load_frame(job.symbol, job.file, job.last_bars)
    bars = bars_from_frame(frame, symbol=job.symbol, timeframe=job.timeframe)
    if bars.sha256() != job.data_sha256:
        raise DataError(f"{job.file} has changed since the study began. Run it again when the file stays as it is.")
    return frame, bars


@lru_cache(1)
def _start(url: str, seq: int, sha256: str) -> Start:
    """The registry as it was when the study began."""
    known, snapshot = PatternRegistry(url).read_snapshot(CATALOGUE.feature_set, CATALOGUE.names, through_seq=seq)
    if snapshot.sha256 != sha256:
        raise DataError(
            "the patterns that the study began with are no longer the same: since then one was labelled by hand, or deleted. "
            "Parts that saw different pasts make no study: run it again from the beginning."
        )
    return Start(known, snapshot)


def _sweep(job: Job, n_jobs: int, tell: Callable[[str], None]) -> dict[str, Any]:
    cls = provenance.find_class(job.strategy)
    frame, _ = _bars(job)
    has_memory = cells.is_remembering(cls)
    host: dict[str, Any] = {
        "cash": _CASH_IN_PRICES * float(frame["Close"].iloc[0]),
        "exclusive_orders": bool(getattr(cls, "reverses", False)),
        **job.host,
    }
    own = {**job.gate, "seed": job.seed, "timeframe": job.timeframe} if has_memory else {}
    asked = Asked.of(
        cls, {job.symbol: frame}, {**job.grid, **(job.gate_grid if has_memory else {})}, constraint=None, search="grid",
        n_points=None, objective=job.objective, seed=0, registry=job.registry if has_memory else None,
        options={**host, **job.fixed, **own},
    )  # fmt: skip
    how = How.of("loky", n_jobs, None, 1, True, lambda done, total, _: tell(f"{done}/{total} points"))
    start = _start(job.registry, *job.snapshot) if asked.sees_registry else None
    found = swept(asked, how, job.sweeps, start=start, parent_run_id=job.parent_run_id)
    if not found.n_tested:
        raise QmlError(f"no point of the search finished; the first: {found.failed['error'].iloc[0]}")
    found.table.to_csv(job.cell / "sweep.csv", index=False)
    return _sweep_record(found, job)


def _sweep_record(found: SweepResult, job: Job) -> dict[str, Any]:
    failed = found.failed
    record: dict[str, Any] = {
        "run_id": found.run_id, "objective": found.objective, "n_points": len(found.table), "n_finished": found.n_tested,
        "n_failed": len(failed), "first_error": None if failed.empty else failed["error"].iloc[0], "best": None,
        "best_reason": None, "surface": _surface(found, job.grid),
    }  # fmt: skip
    try:
        best = found.best()
    except DataError as error:
        record["best_reason"] = str(error)
    else:
        row = found.table[found.table["run_id"] == best["run_id"]].iloc[0]
        record["best"] = {
            "parameters": {name: as_plain(best[name]) for name in found.grid_names},
            "objective": as_plain(float(best["objective"])), "plateau": as_plain(float(best["plateau"])),
            **{name: as_plain(float(row[name])) for name in _METRICS},
        }  # fmt: skip
    return record


def _surface(found: SweepResult, grid: Mapping[str, tuple[Any, ...]]) -> dict[str, Any] | None:
    """The objective over the first two parameters that have several numbers; one alone is a row."""
    names = [name for name, values in grid.items() if len(values) > 1 and all(map(_is_number, values))][:2]
    if not names:
        return None
    if len(names) == 2:
        table = found.surface(names[1], names[0])
    else:
        done = found.table[found.table["status"] == "finished"]
        means = done.groupby(names[0])["objective"].mean().reindex(sorted(grid[names[0]]))
        table = pd.DataFrame([means.to_numpy()], index=pd.Index([""], name=""), columns=means.index)
    return {
        "x_name": names[0], "y_name": names[1] if len(names) == 2 else "", "x_values": as_plain(table.columns.to_numpy()),
        "y_values": as_plain(table.index.to_numpy()), "values": as_plain(table.to_numpy(np.float64)),
    }  # fmt: skip


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _validation(job: Job, n_jobs: int, tell: Callable[[str], None]) -> dict[str, Any]:
    cls = provenance.find_class(job.strategy)
    _, bars = _bars(job)
    found = validate_strategy(
        cls, bars, symbol=job.symbol, grid=with_fixed(job.grid, job.fixed), other_grids=job.other_grids,
        is_quick=job.is_quick, fees=job.fees, is_exclusive=job.host.get("exclusive_orders"), registry=job.registry,
        n_jobs=n_jobs, thresholds=job.thresholds, plan=job.plan, seed=job.seed, folder=job.cell / "steps",
        start=_start(job.registry, *job.snapshot), on_progress=lambda name, *_: tell(name),
    )  # fmt: skip
    write_dossier(found, job.cell)
    return _validation_record(found)


def with_fixed(grid: Mapping[str, tuple[Any, ...]], fixed: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """A grid in which what stays fixed has one value."""
    return {**grid, **{name: (value,) for name, value in fixed.items()}}


def _validation_record(found: StrategyValidation) -> dict[str, Any]:
    v = found.validation
    by_name = {gate.name: gate for gate in v.gates}
    selection, timing = by_name["selection"], by_name["timing"]
    is_known = selection.status != "INSUFFICIENT"
    record: dict[str, Any] = as_plain({
        "verdict": v.verdict.word, "sentence": v.verdict.sentence,
        "gates": [{"name": g.name, "status": g.status, "value": g.value, "threshold": g.threshold, "reason": g.reason} for g in v.gates],
        "p_selection": selection.value if is_known else None, "p_timing": timing.value,
        "excess_sharpe": None if v.walk is None else v.walk.excess_sharpe,
        "sharpe": None if v.walk is None else v.walk.sharpe,
        "return_frac": None if v.walk is None else float(v.walk.equity[-1] - 1),
        "n_trades": None if v.walk is None else v.walk.n_trades,
        "n_trials": 0 if v.trials is None else v.trials.n_trials + len(v.trials.failed),
        "n_failed": 0 if v.trials is None else len(v.trials.failed),
        "n_attempts": found.n_attempts, "parameters": v.parameters, "n_patterns": found.n_patterns,
        "gate_trial": None if found.gate is None else found.gate.verdict,
        "strategy_path": found.strategy_path, "source_sha256": found.source_sha256, "data_sha256": v.data_sha256,
        "git_hash": found.git_hash, "is_git_dirty": found.is_git_dirty,
        "n_bars": v.n_bars, "first_at": v.first_at, "last_at": v.last_at,
    })  # fmt: skip
    return record
