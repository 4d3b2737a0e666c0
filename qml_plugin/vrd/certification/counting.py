"""Sets run in any number of processes, kept line by line, and counted."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from qml_plugin.errors import DataError, QmlError
from qml_plugin.provenance import canonical_json, library_versions, plain
from qml_plugin.stats.inference import wilson_interval
from qml_plugin.vrd.certification.families import Searched
from qml_plugin.vrd.certification.judging import JUDGES, Draws, judged_set
from qml_plugin.vrd.certification.worlds import NO_EDGE, Market, check_worlds
from qml_plugin.vrd.evaluation import Parameters
from qml_plugin.vrd.gates import GATES
from qml_plugin.vrd.keeping import as_plain
from qml_plugin.vrd.thresholds import Thresholds, load_thresholds

if TYPE_CHECKING:
    from qml_plugin.sweeps.loky_workers import LokyWorker

PUBLISHED_SEED = 2_000_000
_MUCH_UNKNOWN = 0.25
_WORDS = ("DEPLOY", "CAUTION", "REJECT", "INSUFFICIENT")
Progress = Callable[[int, int, str], object]


@dataclass(frozen=True, slots=True)
class Share:
    """How many of the sets were called DEPLOY, with Wilson's interval at 95 %."""

    n_deploy: int
    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Count:
    """The sets of one world and one family, or of several: shares by judge, words of ours, gates that passed.

    ``true_sharpe`` is the mean annual Sharpe ratio that members with a planted edge came to, None without one.
    ``permuted_selection`` is the share that passed selection with the whole search on permuted bars, None where that was
    not asked for. ``seconds`` of a processor are the median of a set. ``lacking`` and ``refused`` are the shares of sets
    that could not have been called DEPLOY, for want of evidence or because the audit did not pass; each with the reason
    of the first.
    """

    world: str
    family: str
    n: int
    shares: dict[str, Share]
    words: dict[str, float]
    passes: dict[str, float]
    permuted_selection: float | None
    true_sharpe: float | None
    pbo: float | None
    seconds: float
    lacking: float = 0.0
    lacking_reason: str = ""
    refused: float = 0.0
    refused_reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Certification:
    """What was counted: a row for each world and family, and for each world over all of its families.

    ``no_edge`` counts all worlds without an edge together. ``is_own`` says that a strategy of the user's own was searched.
    ``fees`` are fractions of what changes hands, ``grids`` the values of each parameter, both by strategy.
    """

    counts: tuple[Count, ...]
    no_edge: Count | None
    is_own: bool
    seed: int
    n_sets: int
    market: Market
    draws: Draws
    thresholds: Thresholds
    versions: dict[str, str]
    n_trials: dict[str, int] = field(default_factory=dict)
    fees: dict[str, float] = field(default_factory=dict)
    grids: dict[str, dict[str, list[Any]]] = field(default_factory=dict)

    @property
    def judges(self) -> tuple[str, ...]:
        """Judges that were asked."""
        return tuple(name for name in JUDGES if name != "permuted" or self.draws.n_permutations)

    def sentence(self) -> str:
        """What was found, in a sentence; a count that could not have come out otherwise is no result, and it says so."""
        row = self.no_edge
        if row is None:
            return "No market without an edge was judged."
        ours = row.shares["ours"]
        whose = "this strategy and its search" if self.is_own else "searches"
        unknown = row.words["INSUFFICIENT"]
        if not ours.n_deploy and max(row.refused, row.lacking) > _MUCH_UNKNOWN:
            why = [
                f"on {round(share * row.n):,} of {row.n:,} {what} ({reason})"
                for what, share, reason in (
                    ("the audit did not pass", row.refused, row.refused_reason),
                    ("there was too little evidence", row.lacking, row.lacking_reason),
                )
                if share > _MUCH_UNKNOWN
            ]
            return (
                f"This is no result: DEPLOY was out of reach of {whose} on too many of the markets without an edge: "
                f"{', and '.join(why)}. That none was called DEPLOY is no proof that it is safe."
            )
        rest = (
            f" On {100 * unknown:.0f} % it says INSUFFICIENT: there was too little to judge, which is no proof that it is safe."
            if unknown > _MUCH_UNKNOWN
            else ""
        )
        return (
            f"Of {row.n:,} markets without an edge, {whose} would be called DEPLOY on {ours.n_deploy:,}: "
            f"{100 * ours.share:.1f} %, and with 95 % confidence between {100 * ours.low:.1f} and {100 * ours.high:.1f} %.{rest}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        market = {name: getattr(self.market, name) for name in self.market.__slots__ if name != "real"}
        shown = {name: as_plain(getattr(self, name)) for name in self.__slots__ if name != "market"}
        return shown | {"market": as_plain(market), "sentence": self.sentence()}


def certify(
    searched: Sequence[Searched],
    worlds: Sequence[str] = NO_EDGE,
    *,
    n_sets: int,
    seed: int = PUBLISHED_SEED,
    market: Market | None = None,
    draws: Draws | None = None,
    thresholds: Thresholds | None = None,
    folder: Path | str | None = None,
    n_jobs: int = 1,
    seconds: float = float("inf"),
    is_only_counted: bool = False,
    on_progress: Progress | None = None,
) -> Certification:
    """How often is noise called an edge, and how often an edge?

    Parameters
    ----------
    searched : sequence of Searched
        Members of `FAMILIES`, or an `OwnStrategy` alone.
    worlds : sequence of str, default=("null", "drift", "real")
    n_sets : int
        Sets of each world and strategy.
    seed : int, default=2,000,000
        Of the first set; by default those whose counts are published in ``docs/vrd.md``.
    market : Market, optional
        Ten years of four-hour bars by default.
    draws : Draws, optional
    thresholds : Thresholds, optional
        The shipped ones by default.
    folder : path, optional
        Where finished sets are kept, which are not computed again. None keeps nothing.
    n_jobs : int, default=1
        Processes; -1 for one on each processor. What is counted is the same for any number.
    seconds : float, optional
        Begin no further set after so long.
    is_only_counted : bool, default=False
        Count what is kept, and compute nothing.
    on_progress : callable, optional
        Called with (sets done, sets in all, what is going on).

    Returns
    -------
    Certification

    Point in time
    -------------
    Judges finished searches on markets whose truth is known.

    Raises
    ------
    DataError
        If there is nothing to certify, a world is unknown, or a count is impossible.
    QmlError
        If a worker process dies. Finished sets are kept.
    """
    if not searched or not worlds:
        raise DataError("there is nothing to certify. Name at least one family and one world.")
    if n_sets < 1 or seed < 0:
        raise DataError(f"{n_sets} sets from seed {seed} refused. At least one set is judged, and seeds are 0 or more.")
    worlds = tuple(dict.fromkeys(worlds))
    for one in searched:
        check_worlds(worlds, one)
    market, draws = market or Market(), draws or Draws()
    t = load_thresholds() if thresholds is None else thresholds
    cells = [_Cell(world, one, seed, market, draws, t, folder) for world in worlds for one in searched]
    if not is_only_counted:
        # The cells by turns, so that a certification that was stopped is about all of them.
        waiting = [(cell, index) for index in range(n_sets) for cell in cells if index not in cell.lines]
        _run(waiting, len(cells) * n_sets, n_jobs, time.monotonic() + seconds, on_progress)
    counted = {(cell.world, cell.searched.name): cell.first(n_sets) for cell in cells}
    counts = [_count(*names, lines) for names, lines in counted.items() if lines]
    if len(searched) > 1:
        for world in worlds:
            lines = [line for (name, _), found in counted.items() if name == world for line in found]
            counts += [_count(world, "all", lines)] if lines else []
    noise = [line for (world, _), found in counted.items() if world in NO_EDGE for line in found]
    return Certification(
        tuple(sorted(counts, key=lambda row: worlds.index(row.world))), _count("no edge", "all", noise) if noise else None,
        any(one.true is None for one in searched), seed, n_sets, market, draws, t, library_versions(),
        {one.name: len(one.grid) for one in searched}, {one.name: one.fees for one in searched},
        {one.name: _values(one.grid) for one in searched},
    )  # fmt: skip


class _Cell:
    """One world and one strategy: the sets that are there, and the file that they are kept in."""

    def __init__(
        self, world: str, searched: Searched, seed: int, market: Market, draws: Draws, thresholds: Thresholds,
        folder: Path | str | None,
    ) -> None:  # fmt: skip
        self.world, self.searched, self.of_set = world, searched, (seed, market, draws, thresholds)
        made_of = [
            searched.identity(), market.identity(), draws.identity(), asdict(thresholds), library_versions(),
        ]  # fmt: skip
        key = hashlib.sha256(canonical_json(plain(made_of))).hexdigest()[:12]
        self.path = None if folder is None else Path(folder) / f"{world}-{searched.name}-{seed}-{key}.jsonl"
        self.lines = {line["index"]: line for line in _read(self.path)}

    def first(self, n_sets: int) -> list[dict[str, Any]]:
        """Sets that are there, in the order of their numbers."""
        return [self.lines[index] for index in range(n_sets) if index in self.lines]

    def keep(self, line: dict[str, Any]) -> None:
        self.lines[line["index"]] = line
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            is_torn = self.path.exists() and self.path.stat().st_size > 0 and not _ends_with_newline(self.path)
            with self.path.open("ab") as file:
                file.write(b"\n" * is_torn + orjson.dumps(line) + b"\n")
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error}. Choose a folder that has room.") from error


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"


def _read(path: Path | None) -> Iterator[dict[str, Any]]:
    if path is None or not path.exists():
        return
    for line in path.read_bytes().splitlines():
        try:
            yield orjson.loads(line)
        except orjson.JSONDecodeError:  # the last line of a run that was killed; its set is computed again
            continue


def _run(
    waiting: list[tuple[_Cell, int]], n_all: int, n_jobs: int, ends_at: float, on_progress: Progress | None
) -> None:
    """Compute the sets that wait, and keep each as it comes."""
    began, n_before = time.monotonic(), n_all - len(waiting)
    n_done = 0

    def tell(cell: _Cell) -> None:
        if on_progress is None:
            return
        rate = n_done / max(time.monotonic() - began, 1e-9)
        left = f" · {rate:.1f} sets/s · {_duration((len(waiting) - n_done) / rate)} left" if n_done else ""
        on_progress(n_before + n_done, n_all, f"{cell.world} {cell.searched.name}{left}")

    if n_jobs == 1:
        for cell, index in waiting:
            if time.monotonic() > ends_at:
                return
            tell(cell)
            cell.keep(judged_set(cell.world, cell.searched, index, *cell.of_set))
            n_done += 1
        return
    for cell, line in _in_processes(waiting, n_jobs, ends_at):
        cell.keep(line)
        n_done += 1
        tell(cell)


def _in_processes(
    waiting: Sequence[tuple[_Cell, int]], n_jobs: int, ends_at: float
) -> Iterator[tuple[_Cell, dict[str, Any]]]:
    """Cells and lines in the order in which they are done; workers that are at work when it ends early are ended."""
    from qml_plugin.sweeps.failures import words_of
    from qml_plugin.sweeps.loky_workers import LokyWorker  # with the hosts that searches run under
    from qml_plugin.sweeps.workers import n_workers

    rest = iter(waiting)
    busy: dict[Future[Any], tuple[LokyWorker, _Cell]] = {}

    def begin(worker: LokyWorker) -> None:
        task = next(rest, None) if time.monotonic() <= ends_at else None
        if task is None:
            worker.release()
            return
        cell, index = task
        busy[worker.submit(judged_set, cell.world, cell.searched, index, *cell.of_set)] = worker, cell

    try:
        for _ in range(min(n_workers(n_jobs), len(waiting))):
            begin(LokyWorker.taken())
        while busy:
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                worker, cell = busy.pop(future)
                error = future.exception()
                if error is not None:
                    worker.end()
                    if isinstance(error, QmlError):
                        raise error
                    raise QmlError(
                        f"a set of {cell.world} {cell.searched.name} gave nothing: {words_of(error)}. Finished sets are kept; "
                        "run it again, with fewer processes if memory is short."
                    ) from error
                begin(worker)
                yield cell, future.result()
    finally:
        for worker, _ in busy.values():
            worker.end()


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5_400
        else f"{seconds / 3_600:.1f} h"
    )


def _count(world: str, family: str, lines: Sequence[dict[str, Any]]) -> Count:
    n = len(lines)
    shares = {}
    for judge, key in JUDGES.items():
        hits = sum(line[key] == "DEPLOY" for line in lines)
        low, high = wilson_interval(hits, n)
        shares[judge] = Share(hits, hits / n, low, high)
    permuted = [line["permuted_selection"] for line in lines if line["permuted_selection"] is not None]
    if not permuted:
        del shares["permuted"]
    return Count(
        world, family, n, shares, {word: sum(line["verdict"] == word for line in lines) / n for word in _WORDS},
        {gate: sum(line["gates"][gate] == "PASS" for line in lines) / n for gate in GATES},
        sum(status == "PASS" for status in permuted) / len(permuted) if permuted else None,
        _mean(line["true_sharpe"] for line in lines), _mean(line["pbo"] for line in lines),
        float(np.median([line["seconds"] for line in lines])), *_out_of_reach(lines, "evidence"), *_out_of_reach(lines, "audit"),
    )  # fmt: skip


def _out_of_reach(lines: Sequence[dict[str, Any]], gate: str) -> tuple[float, str]:
    """Share of the sets that this gate could not have let pass, and the reason of the first."""
    found = [line["out_of_reach"][gate] for line in lines if gate in line.get("out_of_reach", ())]
    return len(found) / len(lines), found[0] if found else ""


def _values(grid: Sequence[Parameters]) -> dict[str, list[Any]]:
    """Values that were tried, by parameter, in the order in which they came."""
    names = dict.fromkeys(name for parameters in grid for name in parameters)
    return {name: list(dict.fromkeys(p[name] for p in grid if name in p)) for name in names}


def _mean(values: Iterator[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
