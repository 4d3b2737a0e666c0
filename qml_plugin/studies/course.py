"""A study on its way: what has to be run, in which order, by how many processes, and what was there before."""

from __future__ import annotations

import hashlib
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qml_plugin import provenance
from qml_plugin.adapters.recorded_run import nothing_recorded, now_us, read_start
from qml_plugin.errors import DataError, FeatureMismatch, RegistryError
from qml_plugin.features import CATALOGUE, Feature
from qml_plugin.features.catalogue import N_BUILT_IN
from qml_plugin.processes import Process
from qml_plugin.records import Run
from qml_plugin.registry import PatternRegistry
from qml_plugin.studies.description import Description
from qml_plugin.studies.folder import PARTS, StudyFolder
from qml_plugin.studies.job import Job, run_job, with_fixed
from qml_plugin.studies.plan import Cell, cells_of
from qml_plugin.sweeps.failures import words_of
from qml_plugin.sweeps.folder import changed_library
from qml_plugin.sweeps.loky_workers import LokyWorker
from qml_plugin.sweeps.progress import Progress
from qml_plugin.sweeps.search import record_end
from qml_plugin.sweeps.workers import n_workers

_SIGN_OF_LIFE_S = 60
_TICK_S = 0.5


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a study ended: parts run now, parts that were there, cells and points that failed with the first error."""

    folder: Path
    n_run: int
    n_kept: int
    failed: Mapping[str, str]
    n_failed_points: int

    @property
    def is_whole(self) -> bool:
        """Whether nothing failed."""
        return not self.failed and not self.n_failed_points


@dataclass(slots=True)
class _Course:
    description: Description
    cells: list[Cell]
    folder: StudyFolder
    registry: PatternRegistry
    url: str
    manifest: dict[str, Any]
    tell: Progress
    waiting: list[tuple[Cell, str]] = field(default_factory=list)
    records: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    n_run: int = 0
    beat_at: float = field(default_factory=time.monotonic)

    def told(self, text: str) -> None:
        self.tell(len(self.records), len(self.cells) * len(PARTS), text)


def run_study(
    description: Description,
    folder: Path | str,
    *,
    registry: str,
    n_jobs: int = 1,
    resume: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Search and validate every strategy on every market, and keep all of it in a folder.

    Parameters
    ----------
    description : Description
    folder : path
        Of this study alone; made where it is missing.
    registry : str
        Database URL. The study is a run of kind ``"study"``, the searches are below it, and the ledger counts every trial.
    n_jobs : int, default=1
        Parts that run at once, each in a process of its own; -1 for one on each processor. 1 runs them here, one after the
        other. Where one cell alone is left, its points are spread instead.
    resume : bool, default=False
        Go on with a study that was begun in the folder: what is done under the same code, data and description is kept.
    progress : callable, optional
        Called with parts done, parts in all, and words.

    Returns
    -------
    Outcome

    Point in time
    -------------
    Every part sees the registry as it was when the study began, and validations count the trials of all searches on the
    same series: results do not depend on `n_jobs`, or on how often the study was interrupted. It judges finished
    strategies; choosing among its verdicts looks at all bars again.

    Raises
    ------
    DataError
        If bars are refused, the folder holds a study already, another process is at it, or what it began with has
        changed; nothing has been run then.
    RegistryError
        If the registry cannot be opened.
    KeyboardInterrupt
        When interrupted; the parts that had finished are kept.
    """
    n_jobs = n_workers(n_jobs)
    kept = StudyFolder(Path(folder).absolute())
    manifest = kept.read_manifest()
    _refuse_if_taken(kept, manifest, description, resume)
    opened = PatternRegistry(registry)
    url = opened.url if opened.file is None else f"sqlite:///{opened.file}"
    if opened.file is None and url.startswith("sqlite"):
        raise DataError(f"the registry {url!r} lives in the memory of one process, and a study has many. Use a file.")
    before = manifest or {}
    if before and before["registry"] != opened.shown_url:
        raise DataError(
            f"the study began with the registry {before['registry']}, and this is {opened.shown_url}. Resume with its --db, or "
            "begin again with --afresh."
        )
    snapshot = before.get("snapshot") or asdict(read_start(opened).snapshot)
    found = cells_of(description, snapshot)
    course = _Course(description, found, kept, opened, url, {}, progress or (lambda *_: None))
    run = _run_of(course)
    course.manifest = {
        "name": description.name, "description": description.text, "file": str(description.file), "run_id": run.run_id,
        "registry": opened.shown_url, "snapshot": snapshot, "process": asdict(Process.own()), "versions": provenance.library_versions(),
        "objective": description.objective, "false_discovery_rate": description.false_discovery_rate,
        "is_quick": description.is_quick, "fees": description.fees, "seed": description.seed,
        "git_hash": run.git_hash, "is_git_dirty": run.is_git_dirty, "started_at": before.get("started_at", run.started_at),
        "cells": [cell.shown() for cell in found],
    }  # fmt: skip
    _take_stock(course)
    n_kept = len(course.records)
    with _at_work(course, run):
        if n_jobs == 1 or len(course.waiting) <= 1:
            _run_here(course, n_jobs)
        else:
            _run_in_processes(course, n_jobs)
    failed = _failed(course)
    sweeps = [record for (_, part), record in course.records.items() if part == "sweep"]
    return Outcome(kept.path, course.n_run, n_kept, failed, sum(record.get("n_failed", 0) for record in sweeps))


def _refuse_if_taken(
    folder: StudyFolder, manifest: Mapping[str, Any] | None, description: Description, is_resumed: bool
) -> None:
    if manifest is None:
        return
    folder.refuse_if_at_work(manifest)
    if not is_resumed:
        raise DataError(
            f"the study {manifest['name']} was begun in {folder.path}. Go on with it: qml study resume {description.file.name}; "
            "or begin again with --afresh, which moves what is there aside."
        )
    if (changed := changed_library(manifest)) is not None:
        name, old, new = changed
        raise DataError(
            f"what is done was computed with {name} {old}, and this is {new}: one page would mix the two. Install what it was, "
            "or begin again with --afresh."
        )


def _run_of(course: _Course) -> Run:
    """The record of the study itself."""
    d, bars = course.description, [cell.bars for cell in course.cells]
    hashes = sorted({one.sha256() for one in bars})
    git = provenance.git_state(d.file.parent)
    return Run(
        run_id=provenance.run_id("study", d.name, [cell.part_ids for cell in course.cells]), kind="study", status="running",
        strategy_name=d.name, symbol=", ".join(dict.fromkeys(one.symbol for one in bars)),
        timeframe=", ".join(dict.fromkeys(one.timeframe for one in bars)),
        params={"study": {"file": str(d.file), "cells": [cell.name for cell in course.cells]}},
        data_hash=hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest(),
        data_start_at=min(int(one.opened_at[0]) for one in bars), data_end_at=max(int(one.opened_at[-1]) for one in bars),
        data_bars=sum(len(one) for one in {one.sha256(): one for one in bars}.values()), seed=d.seed,
        versions=provenance.library_versions(), started_at=now_us(), git_hash=git.commit, is_git_dirty=git.is_dirty,
        git_diff=git.diff,
    )  # fmt: skip


def _take_stock(course: _Course) -> None:
    """What is done already, and what waits: searches first, so that the first numbers come early."""
    for part in PARTS:
        for cell in course.cells:
            record = course.folder.read_part(cell.name, part, cell.part_ids[part])
            if record is not None and record["status"] == "done" and not record.get("n_failed"):
                course.records[cell.name, part] = record
            else:
                course.waiting.append((cell, part))
    searched_again = {cell.series for cell, part in course.waiting if part == "sweep"}
    for cell in course.cells:  # a validation counts the trials of the searches on its series, so it comes after them
        if cell.series in searched_again and (cell.name, "validation") in course.records:
            del course.records[cell.name, "validation"]
            course.waiting.append((cell, "validation"))


@contextmanager
def _at_work(course: _Course, run: Run) -> Iterator[None]:
    """Within the block the manifest and the registry say that the study runs; afterwards, how it ended."""
    course.folder.write_manifest({**course.manifest, "status": "running"})
    course.registry.start_run(run)
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        failed = _failed(course)
        ended = "failed" if isinstance(error, Exception) or failed else "interrupted" if error else "finished"
        first = f"{len(failed)} of {len(course.cells)} cells failed" if failed else None
        text = f"{type(error).__name__}: {error}" if error else first
        counts = {"n_cells": len(course.cells), "n_failed_cells": len(failed), "n_parts": len(course.records)}
        record_end(course.registry, run, ended, counts, text)
        course.folder.write_manifest({**course.manifest, "status": ended})


def _failed(course: _Course) -> dict[str, str]:
    """Cells that failed, with the first error of each."""
    found: dict[str, str] = {}
    for cell in course.cells:
        for part in PARTS:
            record = course.records.get((cell.name, part))
            if record is not None and record["status"] == "failed":
                found.setdefault(cell.name, record["error"])
    return found


def _run_here(course: _Course, n_jobs: int) -> None:
    while course.waiting:
        cell, part = _next(course) or course.waiting[0]
        _note_running(course, cell, part)

        def tell(text: str, cell: Cell = cell, part: str = part) -> None:
            course.told(_words(cell, part, text))

        _finish(course, cell, part, run_job(part, _job(course, cell), n_jobs, tell))


def _run_in_processes(course: _Course, n_jobs: int) -> None:
    """Each part in a worker of its own, so that one that dies takes no other along, and it is certain whose fault it was."""
    busy: dict[Future[Any], tuple[LokyWorker, Cell, str]] = {}
    idle: list[LokyWorker] = []
    here = _Here(tuple(sys.path), tuple(CATALOGUE.features[N_BUILT_IN:]), CATALOGUE.feature_set)
    try:
        while course.waiting or busy:
            while course.waiting and len(busy) < n_jobs and (ready := _next(course)):
                cell, part = ready
                worker = idle.pop() if idle else LokyWorker.taken()
                _note_running(course, cell, part)
                try:
                    future = worker.submit(_run_elsewhere, part, _job(course, cell), here)
                except Exception as error:  # noqa: BLE001  a worker that died while it was idle, or a value that cannot be pickled
                    future = Future()
                    future.set_exception(error)
                busy[future] = worker, cell, part
            course.told(", ".join(_words(cell, part) for _, cell, part in busy.values()))
            for future in wait(busy, timeout=_TICK_S, return_when=FIRST_COMPLETED).done:
                worker, cell, part = busy.pop(future)
                died = future.exception()
                (idle.append if died is None else LokyWorker.end)(worker)
                _finish(course, cell, part, future.result() if died is None else _failure(words_of(died)))
            _beat(course)
    finally:
        for worker, _, _ in busy.values():
            worker.end()
        for worker in idle:
            worker.release()


@dataclass(frozen=True, slots=True)
class _Here:
    """What of this process a worker must share: where modules are found, and features of the user's own."""

    path: tuple[str, ...]
    user_features: tuple[Feature, ...]
    feature_set: str


def _run_elsewhere(part: str, job: Job, here: _Here) -> dict[str, Any]:
    sys.path += [place for place in here.path if place not in sys.path]
    if here.feature_set != CATALOGUE.feature_set:
        CATALOGUE.replace((*CATALOGUE.features[:N_BUILT_IN], *here.user_features))
    if here.feature_set != CATALOGUE.feature_set:
        raise FeatureMismatch("a worker computes other features than the study. Install one version everywhere.")
    with nothing_recorded():  # a script that is imported for its class may run a backtest
        provenance.find_class(job.strategy)
    return run_job(part, job)


def _next(course: _Course) -> tuple[Cell, str] | None:
    """The first part that may run now: validations wait for all searches on their series."""
    unsearched = {cell.series for cell in course.cells if (cell.name, "sweep") not in course.records}
    for cell, part in course.waiting:
        if part == "sweep" or cell.series not in unsearched:
            return cell, part
    return None


def _note_running(course: _Course, cell: Cell, part: str) -> None:
    course.waiting.remove((cell, part))
    course.folder.write_part(cell.name, part, {"part_id": cell.part_ids[part], "status": "running"})
    course.told(_words(cell, part))


def _finish(course: _Course, cell: Cell, part: str, record: dict[str, Any]) -> None:
    record = {"part_id": cell.part_ids[part], **record}
    course.folder.write_part(cell.name, part, record)
    course.records[cell.name, part] = record
    course.n_run += 1
    _beat(course)
    if part == "sweep" and record["status"] == "failed" and (cell, "validation") in course.waiting:
        course.waiting.remove((cell, "validation"))
        _finish(course, cell, "validation", _failure("not run: the search of this cell failed"))
    course.told(_words(cell, part, record["status"]))


def _failure(error: str) -> dict[str, Any]:
    """The record of a part that left none itself."""
    now = now_us()
    return {"status": "failed", "error": error, "warned": [], "times": {"started_at": now, "finished_at": now}}


def _words(cell: Cell, part: str, text: str = "") -> str:
    return f"{cell.entry.name} {cell.market.symbol} {cell.market.timeframe} {part} {text}".rstrip()


def _job(course: _Course, cell: Cell) -> Job:
    d, market, snapshot = course.description, cell.market, course.manifest["snapshot"]
    return Job(
        strategy=provenance.class_path(cell.entry.cls), symbol=market.symbol, timeframe=market.timeframe, file=market.file,
        last_bars=market.last_bars, data_sha256=cell.bars.sha256(), grid=cell.entry.grid, gate_grid=d.gate_grid,
        fixed=cell.entry.fixed, gate=d.gate, host=d.host, objective=d.objective, is_quick=d.is_quick, plan=d.plan,
        thresholds=d.thresholds, fees=d.fees, seed=d.seed, registry=course.url,
        snapshot=(snapshot["seq"], snapshot["sha256"]), parent_run_id=course.manifest["run_id"],
        sweeps=course.folder.path / "sweeps", cell=course.folder.cell(cell.name),
        other_grids=tuple(
            with_fixed(other.entry.grid, other.entry.fixed)
            for other in course.cells
            if other is not cell and other.series == cell.series
        ),
    )  # fmt: skip


def _beat(course: _Course) -> None:
    """A sign of life now and then, for those who cannot see this process."""
    if time.monotonic() - course.beat_at > _SIGN_OF_LIFE_S:
        course.beat_at = time.monotonic()
        try:
            course.registry.note_alive(course.manifest["run_id"])
        except RegistryError as error:
            warnings.warn(f"a sign of life of the study could not be recorded: {error}", RuntimeWarning, stacklevel=2)
