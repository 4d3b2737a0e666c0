"""What a worker does: one point, from the shared files to its own files and one batch in the registry."""

from __future__ import annotations

import socket
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
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
class Work:
    """What is done with a point: `compute` writes nothing, and `keep` writes what it left and returns the record."""

    compute: Callable[[Plan, Any], Any]
    keep: Callable[[Plan, Any, Any], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Left:
    """What a point leaves, where it is sent to another process to be written: its tables as files, and its rows."""

    record: dict[str, Any]
    tables: dict[str, bytes]
    batch: Batch | None


def prepare(plan: Plan) -> int:
    """Load what all points share; the number of times that features were computed for it."""
    before = MarketFeatures.n_passes
    loaded(plan)
    return MarketFeatures.n_passes - before


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
        strategy, _, facts = loaded(plan, Path(folder))
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


def run_here(work: Work, plan: Plan, point: Any) -> dict[str, Any]:
    """Run a point and keep what it leaves."""
    return work.keep(plan, point, work.compute(plan, point))


def run_apart(work: Work, plan: Plan, point: Any) -> Any:
    """Run a point, and write nothing: the process that searches does.

    Raises
    ------
    BrokenProcessPool
        If another process has come under the name of the one that had prepared itself.
    """
    if plan.shared not in _loaded:
        raise BrokenProcessPool("the worker was started anew")
    with nothing_recorded():
        return work.compute(plan, point)


def computed(plan: Plan, point: Point) -> Left:
    """What a point leaves."""
    strategy, markets, _ = loaded(plan)
    before = MarketFeatures.n_passes
    given = {**plan.fixed, **point.params}
    if cells.is_remembering(strategy):
        given |= {"symbol": point.symbol, "registry": plan.registry}
    done = cells.run_cell(strategy, markets[point.symbol], plan.host, given, point.run, plan.objective)
    return left_of(done, MarketFeatures.n_passes - before)


def left_of(done: cells.Finished, n_feature_passes: int) -> Left:
    """A run that has finished, as it is sent and written."""
    record = {
        "status": "finished",
        "metrics": finite(done.metrics),
        "objective": finite({"": done.objective})[""],
        "error": None,
        "warned": list(done.warned),
        "n_feature_passes": n_feature_passes,
    }
    tables = {name: in_parquet(table) for name, table in (("trades", done.trades), ("equity", done.equity))}
    return Left(record, tables, None if done.memory is None else done.memory.batch())


def kept(plan: Plan, points: Sequence[Point], left: Sequence[Left]) -> list[dict[str, Any]]:
    """Write what points that belong together left: the tables, the batches in the registry, and last the records."""
    _, markets, facts = loaded(plan)
    folder = Folder(plan.folder)
    pairs = list(zip(points, left, strict=True))
    records = [one.record | {"sha256": folder.write_tables(point.run.run_id, one.tables)} for point, one in pairs]
    if plan.registry is not None and any(one.batch is not None for one in left):
        # It is there from the sweep's start: a new one in its place would hide that rows were lost.
        registry = PatternRegistry(plan.registry, create=False)
        for point, one in pairs:
            if one.batch is not None:
                batch = replace(one.batch, run=replace(one.batch.run, git_diff=facts["git_diff"]))
                batch.save(registry, markets[point.symbol].bars)
    for point, record in zip(points, records, strict=True):
        folder.write_cell(point.run.run_id, record)
    return records


def keep(plan: Plan, point: Point, left: Left) -> dict[str, Any]:
    """Write what a point left; its record."""
    return kept(plan, [point], [left])[0]


SINGLE = Work(computed, keep)


def loaded(plan: Plan, folder: Path | None = None) -> _Loaded:
    """The strategy, the markets by symbol, and the facts that all points share; read once in each process, from `folder`
    where the files are not where the plan says.
    """
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
