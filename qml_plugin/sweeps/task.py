"""What a worker does: one point, from the shared files to its own files and one batch in the registry."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from qml_plugin import provenance
from qml_plugin.adapters import cells
from qml_plugin.adapters.recorded_run import nothing_recorded
from qml_plugin.errors import FeatureMismatch
from qml_plugin.features import CATALOGUE, Feature, MarketFeatures
from qml_plugin.features.catalogue import N_BUILT_IN
from qml_plugin.records import Run
from qml_plugin.sweeps.folder import Folder, finite
from qml_plugin.sweeps.shared import read_shared


@dataclass(frozen=True, slots=True)
class Plan:
    """What all points of a sweep have in common; small, because it travels with each of them.

    ``strategy`` is the class, or the path of one in a script, which a worker must import by itself.
    """

    shared: Path
    folder: Path
    strategy: type | str
    host: Mapping[str, Any]
    fixed: Mapping[str, Any]
    registry: str | None
    objective: str | Callable[[pd.Series], float]
    user_features: tuple[Feature, ...]
    feature_set: str
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """One point on one market, and the record of its run as of its start."""

    symbol: str
    params: Mapping[str, Any]
    run: Run


_Loaded = tuple[type, dict[str, cells.Market], dict[str, Any]]
_loaded: dict[Path, _Loaded] = {}


def prepare(plan: Plan) -> int:
    """Load what all points share; the number of times that features were computed for it."""
    before = MarketFeatures.n_passes
    loaded(plan)
    return MarketFeatures.n_passes - before


def run_point(plan: Plan, point: Point) -> dict[str, Any]:
    """Run a point and keep what it leaves: its tables, its batch in the registry, and last its record, which is returned."""
    strategy, markets, facts = loaded(plan)
    before = MarketFeatures.n_passes
    given = {**plan.fixed, **point.params}
    run = replace(point.run, git_diff=facts["git_diff"])
    has_memory = cells.is_remembering(strategy)
    if has_memory:
        given |= {"symbol": point.symbol, "registry": plan.registry}
    done = cells.run_cell(strategy, markets[point.symbol], plan.host, given, run, plan.objective)
    folder = Folder(plan.folder)
    record = with_tables_kept(folder, run.run_id, done) | {"n_feature_passes": MarketFeatures.n_passes - before}
    if done.memory is not None:
        done.memory.commit()
    folder.write_cell(run.run_id, record)
    return record


def with_tables_kept(folder: Folder, run_id: str, done: cells.Finished) -> dict[str, Any]:
    """The record of a point that has finished, once its tables are in the folder."""
    return {
        "status": "finished",
        "metrics": finite(done.metrics),
        **{"objective": finite({"": done.objective})[""]},
        "error": None,
        "warned": list(done.warned),
        "sha256": folder.write_tables(run_id, {"trades": done.trades, "equity": done.equity}),
    }


def loaded(plan: Plan) -> _Loaded:
    """The strategy, the markets by symbol, and the facts that all points share; read once in each process."""
    if plan.shared not in _loaded:
        sys.path += [place for place in plan.path if place not in sys.path]
        if plan.feature_set != CATALOGUE.feature_set:
            CATALOGUE.replace((*CATALOGUE.features[:N_BUILT_IN], *plan.user_features))
        if plan.feature_set != CATALOGUE.feature_set:
            raise FeatureMismatch("a worker computes other features than the search. Install one version everywhere.")
        strategy = plan.strategy
        if isinstance(strategy, str):
            with nothing_recorded():
                strategy = provenance.find_class(strategy)
        _loaded.clear()
        _loaded[plan.shared] = (strategy, *read_shared(plan.shared, plan.registry))
    return _loaded[plan.shared]
