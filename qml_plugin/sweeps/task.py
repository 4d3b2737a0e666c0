"""What a worker does: one point, from the shared files to its own files and one batch in the registry."""

from __future__ import annotations

import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from qml_plugin import provenance
from qml_plugin.adapters import cells
from qml_plugin.adapters.recorded_run import Batch, nothing_recorded
from qml_plugin.errors import DataError, FeatureMismatch
from qml_plugin.features import CATALOGUE, Feature, MarketFeatures
from qml_plugin.features.catalogue import N_BUILT_IN
from qml_plugin.records import Run
from qml_plugin.registry import PatternRegistry
from qml_plugin.sweeps.folder import Folder, finite, in_parquet
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


@dataclass(frozen=True, slots=True)
class Left:
    """What a point leaves, where it is sent to another process to be written: its tables as files, and its rows."""

    record: dict[str, Any]
    tables: dict[str, bytes]
    batch: Batch | None


def prepare(plan: Plan) -> int:
    """Load what all points share; the number of times that features were computed for it."""
    before = MarketFeatures.n_passes
    _shared(plan)
    return MarketFeatures.n_passes - before


def run_point(plan: Plan, point: Point) -> dict[str, Any]:
    """Run a point and keep what it leaves: its tables, its batch in the registry, and last its record, which is returned."""
    return keep_point(plan, point, _computed(plan, point))


def packed(shared: Path) -> dict[str, bytes]:
    """The files that all points share, by name, for a worker that does not see this machine's disk."""
    return {file.name: file.read_bytes() for file in sorted(shared.iterdir())}


def prepare_from(plan: Plan, files: Mapping[str, bytes]) -> int:
    """`prepare` where the shared files were sent.

    Raises
    ------
    DataError
        If libraries or the strategy are not those of the process that searches.
    """
    before = MarketFeatures.n_passes
    with tempfile.TemporaryDirectory(prefix="qml-sweep-", ignore_cleanup_errors=True) as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        # What is mapped outlives the names of its files, so that nothing stays behind, even of a worker that is killed.
        strategy, _, facts = _shared(plan, Path(folder))
    here, there = provenance.library_versions(), facts["versions"]
    if different := sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name)):
        name = different[0]
        raise DataError(
            f"a worker on {socket.gethostname()} has {name} {here.get(name, 'not')} installed, and the process that searches has "
            f"{there.get(name, 'it not')}: one table would mix the two. Install the same versions everywhere."
        )
    if not strategy.__module__.startswith("__") and provenance.source_sha256(strategy) != facts["source_sha256"]:
        raise DataError(
            f"a worker on {socket.gethostname()} has other code of {strategy.__name__} than the process that searches. Install the "
            "same everywhere, and start the workers anew."
        )
    return MarketFeatures.n_passes - before


def compute_point(plan: Plan, point: Point) -> Left:
    """Run a point, and write nothing."""
    if plan.shared not in _loaded:  # another process has come under the same name
        raise BrokenProcessPool("the worker was started anew")
    with nothing_recorded():
        return _computed(plan, point)


def keep_point(plan: Plan, point: Point, left: Left) -> dict[str, Any]:
    """Write what a point left; its record, which is returned, comes last."""
    _, markets, facts = _shared(plan)
    run_id = point.run.run_id
    folder = Folder(plan.folder)
    hashes = folder.write_tables(run_id, left.tables)
    if left.batch is not None and plan.registry is not None:
        batch = replace(left.batch, run=replace(left.batch.run, git_diff=facts["git_diff"]))
        batch.save(PatternRegistry(plan.registry), markets[point.symbol].bars)
    folder.write_cell(run_id, left.record | {"sha256": hashes})
    return left.record


def _computed(plan: Plan, point: Point) -> Left:
    strategy, markets, _ = _shared(plan)
    before = MarketFeatures.n_passes
    given = {**plan.fixed, **point.params}
    if cells.is_remembering(strategy):
        given |= {"symbol": point.symbol, "registry": plan.registry}
    done = cells.run_cell(strategy, markets[point.symbol], plan.host, given, point.run, plan.objective)
    record = {
        "status": "finished",
        "metrics": finite(done.metrics),
        **{"objective": finite({"": done.objective})[""]},
        "error": None,
        "warned": list(done.warned),
        "n_feature_passes": MarketFeatures.n_passes - before,
    }
    tables = {name: in_parquet(table) for name, table in (("trades", done.trades), ("equity", done.equity))}
    return Left(record, tables, None if done.memory is None else done.memory.batch())


def _shared(plan: Plan, folder: Path | None = None) -> _Loaded:
    """What is loaded of a plan, from the files in `folder` where they are not where the plan says."""
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
        _loaded[plan.shared] = (strategy, *read_shared(folder or plan.shared))
    return _loaded[plan.shared]
