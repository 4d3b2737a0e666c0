"""Points in worker processes: retried, ended when they take too long, and none lost by the death of another.

Every worker is an executor of its own with one process, so that a worker that dies takes no other's point along, and it
is certain whose point it was. A backend beyond loky is another `Worker` with the same three methods.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pickle import PicklingError
from typing import Any, Protocol

import joblib
from joblib.externals.loky.process_executor import ProcessPoolExecutor

from qml_plugin.errors import DataError, QmlError
from qml_plugin.sweeps.failures import PointFailed, attempt, words_of
from qml_plugin.sweeps.task import Plan, prepare, run_point

_IDLE_S = 300
_WATCH_S = 0.5
_MOST_FALSE_STARTS = 3
# One thread each: the workers themselves are the parallelism, and results must not depend on a number of threads.
_ENVIRONMENT = {"TQDM_DISABLE": "1"} | dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)


class Worker(Protocol):
    """What runs one call after the other, and can be ended."""

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]: ...
    def end(self) -> None: ...
    def release(self) -> None: ...


class InProcess:
    """This very process: nothing to start, nothing that could be ended."""

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(call(*arguments))
        except Exception as error:  # noqa: BLE001 whoever asks for the result gets it
            future.set_exception(error)
        return future

    def end(self) -> None:
        """Nothing to end."""

    def release(self) -> None:
        """Nothing to give back."""


class LokyWorker:
    """A process of its own, kept for the next sweep after this one."""

    _idle: list[LokyWorker] = []  # noqa: RUF012

    def __init__(self) -> None:
        self._executor = ProcessPoolExecutor(
            max_workers=1, timeout=_IDLE_S, initializer=_begin, initargs=(os.getpid(),), env=_ENVIRONMENT
        )

    @classmethod
    def taken(cls) -> LokyWorker:
        """An idle worker, or a new one."""
        return cls._idle.pop() if cls._idle else cls()

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = self._executor.submit(call, *arguments)
        return future

    def end(self) -> None:
        self._executor.shutdown(wait=False, kill_workers=True)

    def release(self) -> None:
        self._idle.append(self)

    @classmethod
    def end_idle(cls) -> None:
        """End the workers that wait for the next sweep."""
        while cls._idle:
            cls._idle.pop().end()


atexit.register(LokyWorker.end_idle)
os.register_at_fork(after_in_child=LokyWorker._idle.clear)


def _begin(parent: int) -> None:
    """Leave Ctrl-C to the parent, and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_S)
        os._exit(1)

    if os.name == "posix":
        threading.Thread(target=watch, daemon=True).start()


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
    n_jobs : int
        1 without a limit of time runs in this process.
    time_limit_s : float, optional
        Of one attempt, from when its worker was ready.
    retries : int
        Further attempts after one that failed.
    tick : callable
        Called now and then while points run.
    """

    n_jobs: int
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
        self, plan: Plan, points: Sequence[Any], done: Callable[[int, dict[str, Any]], None],
        call: Callable[[Plan, Any], dict[str, Any]] = run_point,
    ) -> None:  # fmt: skip
        """Run points in any order by `call`; `done` is told the place and the record of each, failed ones too."""
        waiting = deque((place, 1) for place in range(len(points)))
        attempts: dict[int, int] = {}
        while waiting or self._busy:
            self._hire(plan, len(waiting))
            while waiting and self._ready:
                place, attempts_now = waiting.popleft()
                attempts[place] = attempts_now
                self._start(self._ready.pop(), place, attempt, call, plan, points[place])
            for future in self._next_done():
                busy = self._busy.pop(future)
                error = future.exception()
                if busy.place is None:
                    self._prepared(busy.worker, future, error)
                    continue
                if error is None:
                    self._ready.append(busy.worker)
                    record = future.result()
                    self.n_feature_passes += record["n_feature_passes"]
                    done(busy.place, record)
                    continue
                self._after_failure(busy.worker, error)
                self._again_or_failed(busy.place, attempts[busy.place], _told(error), waiting, done)
            for place in self._end_late():
                error_text = f"TimeLimit: it took longer than time_limit_s={self.time_limit_s:g} and was ended"
                self._again_or_failed(place, attempts[place], error_text, waiting, done)
            self.tick()

    def _again_or_failed(
        self, place: int, attempt: int, error: str, waiting: deque[tuple[int, int]], done: Callable[[int, dict[str, Any]], None]
    ) -> None:  # fmt: skip
        if attempt <= self.retries:
            waiting.appendleft((place, attempt + 1))
        else:
            done(place, {"status": "failed", "error": error})

    def _hire(self, plan: Plan, n_waiting: int) -> None:
        n_wanted = min(self.n_jobs, n_waiting + sum(busy.place is not None for busy in self._busy.values()))
        while len(self._ready) + len(self._busy) < n_wanted:
            is_inside = self.n_jobs == 1 and self.time_limit_s is None
            worker: Worker = InProcess() if is_inside else LokyWorker.taken()
            self._start(worker, None, prepare, plan)

    def _start(self, worker: Worker, place: int | None, call: Callable[..., Any], *arguments: Any) -> None:
        limit = self.time_limit_s if place is not None and self.time_limit_s is not None else float("inf")
        try:
            future = worker.submit(call, *arguments)
        except BrokenProcessPool as error:  # it died while it was idle
            future = Future()
            future.set_exception(error)
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
        worker.end()
        if not isinstance(error, BrokenProcessPool):
            if isinstance(error, QmlError):
                raise error
            raise DataError(
                f"a worker cannot load the search: {_told(error)}. The strategy's module must be importable there, and "
                "parameters, objective and options must be picklable."
            ) from error
        self._n_false_starts += 1
        if self._n_false_starts >= _MOST_FALSE_STARTS * self.n_jobs:
            raise QmlError(f"no worker can be started: {_told(error)}. Use fewer jobs, or n_jobs=1.") from error

    def _after_failure(self, worker: Worker, error: BaseException) -> None:
        """Use a worker again unless it has died, or may be short of memory or disk since."""
        is_spent = not isinstance(error, PointFailed) or error.is_short
        if is_spent and not isinstance(worker, InProcess):
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


def _told(error: BaseException) -> str:
    """The error of a point, or of its worker, in a line."""
    if isinstance(error, PointFailed):
        return error.text
    if isinstance(error, BrokenProcessPool):
        codes = str(error).rpartition("{")[2].partition("}")[0]
        return f"WorkerDied: its process was ended ({codes or 'no exit code'}), perhaps for want of memory"
    if isinstance(error, PicklingError):
        return f"PicklingError: {str(error).splitlines()[0] if str(error) else 'a value cannot be pickled'}"
    return words_of(error)
