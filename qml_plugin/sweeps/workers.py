"""Points in worker processes: retried, ended when they take too long, and none lost by the death of another.

Every worker is a process that does one thing at a time, so that one that dies takes no other's point along, and it is
certain whose point it was. Where the processes come from is a `Backend`: this machine (`loky_workers`), or a cluster
(`dask_workers`, `ray_workers`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import joblib

from qml_plugin.errors import DataError, QmlError
from qml_plugin.sweeps.failures import PointFailed, attempt, words_of
from qml_plugin.sweeps.task import SINGLE, Plan, Work, packed, prepare, prepare_from, run_apart, run_here

_MOST_FALSE_STARTS = 3
# One thread each: the workers themselves are the parallelism, and results must not depend on a number of threads.
ENVIRONMENT = {"TQDM_DISABLE": "1"} | dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)


class Worker(Protocol):
    """What runs one call after the other, and can be ended.

    Its future raises BrokenProcessPool where the process died, and else what the call raised.
    """

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]: ...
    def end(self) -> None: ...
    def release(self) -> None: ...


class Backend(Protocol):
    """Where workers come from; none is started before it is asked for.

    ``n_jobs`` is the most points at once. Where ``is_local``, workers read and write the files of the sweep themselves;
    others are sent what they need, and what a point leaves is written here.
    """

    n_jobs: int
    is_local: bool

    def taken(self, *, is_needed: bool) -> Worker | None:
        """An idle worker, or a new one; None where there is none now, which is a QmlError where one `is_needed`."""

    def watch(self) -> None:
        """Called now and then while points run: the futures of workers that have died are to know of it."""

    def close(self) -> None:
        """Give back what was started."""


@dataclass(slots=True)
class _Busy:
    worker: Worker
    place: int | None  # None while the worker prepares itself
    ends_at: float


@dataclass(slots=True)
class Crew:
    """Workers, as many as points may run at once.

    Parameters
    ----------
    backend : Backend
    time_limit_s : float, optional
        Of one attempt, from when its worker was ready.
    retries : int
        Further attempts after one that failed.
    tick : callable
        Called now and then while points run.
    """

    backend: Backend
    time_limit_s: float | None
    retries: int
    tick: Callable[[], None] = lambda: None
    n_feature_passes: int = 0
    _ready: list[Worker] = field(default_factory=list)
    _busy: dict[Future[Any], _Busy] = field(default_factory=dict)
    _n_false_starts: int = 0

    @contextmanager
    def at_work(self) -> Iterator[Crew]:
        """Within the block workers are kept ready; when it is left by an error those at work are ended."""
        try:
            yield self
        finally:
            for busy in self._busy.values():
                busy.worker.end()
            self._busy.clear()
            while self._ready:
                self._ready.pop().release()

    def run(
        self, plan: Plan, points: Sequence[Any], done: Callable[[int, dict[str, Any]], None], work: Work = SINGLE
    ) -> None:  # fmt: skip
        """Run points in any order; `done` is told the place and the record of each, failed ones too."""
        waiting = deque((place, 1) for place in range(len(points)))
        attempts: dict[int, int] = {}
        is_local = self.backend.is_local
        # The registry's address may hold a password, and nobody there needs it.
        call, told = (run_here, plan) if is_local else (run_apart, replace(plan, registry=None))
        while waiting or self._busy:
            self._hire(told, len(waiting))
            while waiting and self._ready:
                place, attempts_now = waiting.popleft()
                attempts[place] = attempts_now
                self._start(self._ready.pop(), place, attempt, call, work, told, points[place])
            for future in self._next_done():
                busy = self._busy.pop(future)
                error = future.exception()
                if busy.place is None:
                    self._prepared(busy.worker, future, error)
                    continue
                if error is None:
                    self._ready.append(busy.worker)
                    record, error = self._kept(work, plan, points[busy.place], future.result())
                    if record is not None:
                        self.n_feature_passes += record["n_feature_passes"]
                        done(busy.place, record)
                        continue
                else:
                    self._after_failure(busy.worker, error)
                self._again_or_failed(busy.place, attempts[busy.place], words_of(error), waiting, done)
            for place in self._end_late():
                error_text = f"TimeLimit: it took longer than time_limit_s={self.time_limit_s:g} and was ended"
                self._again_or_failed(place, attempts[place], error_text, waiting, done)
            self.backend.watch()
            self.tick()

    def _again_or_failed(
        self, place: int, attempt: int, error: str, waiting: deque[tuple[int, int]], done: Callable[[int, dict[str, Any]], None]
    ) -> None:  # fmt: skip
        if attempt <= self.retries:
            waiting.appendleft((place, attempt + 1))
        else:
            done(place, {"status": "failed", "error": error})

    def _kept(self, work: Work, plan: Plan, point: Any, left: Any) -> tuple[Any, Any]:
        """The record of a point that was computed, or the error that kept it from being written here."""
        if self.backend.is_local:
            return left, None
        try:
            return attempt(work.keep, plan, point, left), None
        except PointFailed as error:
            return None, error

    def _hire(self, plan: Plan, n_waiting: int) -> None:
        n_wanted = n_waiting + sum(busy.place is not None for busy in self._busy.values())
        while (n_now := len(self._ready) + len(self._busy)) < min(n_wanted, self.backend.n_jobs):
            worker = self.backend.taken(is_needed=n_now == 0)
            if worker is None:
                return
            if self.backend.is_local:
                self._start(worker, None, prepare, plan)
            else:
                self._start(worker, None, prepare_from, plan, packed(plan.shared))

    def _start(self, worker: Worker, place: int | None, call: Callable[..., Any], *arguments: Any) -> None:
        limit = self.time_limit_s if place is not None and self.time_limit_s is not None else float("inf")
        future = worker.submit(call, *arguments)
        self._busy[future] = _Busy(worker, place, time.monotonic() + limit)

    def _next_done(self) -> list[Future[Any]]:
        first = min(busy.ends_at for busy in self._busy.values()) - time.monotonic()
        return list(wait(self._busy, timeout=min(max(first, 0.0), 0.5), return_when=FIRST_COMPLETED).done)

    def _prepared(self, worker: Worker, future: Future[Any], error: BaseException | None) -> None:
        if error is None:
            self._n_false_starts = 0
            self.n_feature_passes += future.result()
            self._ready.append(worker)
            return
        if self.backend.is_local or isinstance(error, BrokenProcessPool):
            worker.end()
        else:
            worker.release()  # it is others' too, and there is nothing wrong with it
        if not isinstance(error, BrokenProcessPool):
            if isinstance(error, QmlError):
                raise error
            raise DataError(
                f"a worker cannot load the search: {words_of(error)}. The strategy's module must be importable there, and "
                "parameters, objective and options must be picklable."
            ) from error
        self._n_false_starts += 1
        if self._n_false_starts >= _MOST_FALSE_STARTS * (1 + len(self._ready) + len(self._busy)):
            raise QmlError(f"no worker can be started: {words_of(error)}. Use fewer jobs, or n_jobs=1.") from error

    def _after_failure(self, worker: Worker, error: BaseException) -> None:
        """Use a worker again unless it has died, or may be short of memory or disk since."""
        if not isinstance(error, PointFailed) or error.is_short:
            worker.end()
        else:
            self._ready.append(worker)

    def _end_late(self) -> list[int]:
        """End the workers whose time is over; the places of their points."""
        now, late = time.monotonic(), []
        for future, busy in list(self._busy.items()):
            if busy.ends_at <= now and not future.done():
                del self._busy[future]
                busy.worker.end()
                assert busy.place is not None
                late.append(busy.place)
        return late


def n_workers(n_jobs: int) -> int:
    """How many workers a number of jobs means: negative ones count from the number of processors, as in joblib.

    Raises
    ------
    DataError
        If it is 0 or no whole number.
    """
    if not isinstance(n_jobs, int) or isinstance(n_jobs, bool) or n_jobs == 0:
        raise DataError(f"n_jobs is {n_jobs!r}. It is a number of processes, or -1 for one on each processor.")
    return n_jobs if n_jobs > 0 else max(1, joblib.cpu_count() + 1 + n_jobs)
