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
from qml_plugin.errors import FeatureMismatch, QmlError
from qml_plugin.features import CATALOGUE, Feature, MarketFeatures
from qml_plugin.features.catalogue import N_BUILT_IN
from qml_plugin.records import Run
from qml_plugin.sweeps.folder import Folder, finite
from qml_plugin.sweeps.shared import read_shared

_LONGEST_ERROR = 2_000


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
    _shared(plan)
    return MarketFeatures.n_passes - before


def run_point(plan: Plan, point: Point) -> dict[str, Any]:
    """Run a point and keep what it leaves: its tables, its batch in the registry, and last its record, which is returned."""
    strategy, markets, facts = _shared(plan)
    before = MarketFeatures.n_passes
    given = {**plan.fixed, **point.params}
    run = replace(point.run, git_diff=facts["git_diff"])
    has_memory = cells.is_remembering(strategy)
    if has_memory:
        given |= {"symbol": point.symbol, "registry": plan.registry}
    done = cells.run_cell(strategy, markets[point.symbol], plan.host, given, run, plan.objective)
    record = {
        "status": "finished",
        "metrics": finite(done.metrics),
        **{"objective": finite({"": done.objective})[""]},
        "error": None,
        "warned": list(done.warned),
        "n_feature_passes": MarketFeatures.n_passes - before,
    }
    folder = Folder(plan.folder)
    hashes = folder.write_tables(run.run_id, {"trades": done.trades, "equity": done.equity})
    if done.memory is not None:
        done.memory.commit()
    folder.write_cell(run.run_id, record | {"sha256": hashes})
    return record


def attempt(plan: Plan, point: Point) -> dict[str, Any]:
    """`run_point`, whose errors come home in words: not every error of a strategy survives the way between processes.

    Raises
    ------
    PointFailed
        Whatever the point raised, `sys.exit` too; only an interrupt passes as it is.
    """
    try:
        return run_point(plan, point)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 it is told to whoever asked for the point
        raise PointFailed(words_of(error), isinstance(error, (MemoryError, OSError))) from None


class PointFailed(QmlError):
    """A point raised; `is_short` where its process may be short of memory or disk since."""

    def __init__(self, text: str, is_short: bool) -> None:
        super().__init__(text, is_short)
        self.text, self.is_short = text, is_short


def words_of(error: BaseException) -> str:
    """An error in a line that any file, database and terminal can hold, the same whatever the process that it came from."""
    notes = " ".join(getattr(error, "__notes__", []))
    first = " ".join(str(error).split())
    if isinstance(error, SystemExit):
        first = f"the strategy called sys.exit({first})"
    text = f"{type(error).__name__}: {first}" + (f" ({notes})" if notes else "")
    text = text.encode("utf-8", "backslashreplace").decode()
    return (
        text
        if len(text) <= _LONGEST_ERROR
        else f"{text[:_LONGEST_ERROR]} … ({len(text) - _LONGEST_ERROR:,} characters more)"
    )


def _shared(plan: Plan) -> _Loaded:
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
