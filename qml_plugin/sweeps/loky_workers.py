"""Workers on this machine: processes of loky, or this very process."""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from joblib.externals.loky.process_executor import ProcessPoolExecutor

from qml_plugin.sweeps.workers import ENVIRONMENT, Worker

_IDLE_S = 300
_WATCH_S = 0.5


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
    """A process of its own, kept for the next sweep after this one: an executor with one process."""

    _idle: list[LokyWorker] = []  # noqa: RUF012

    def __init__(self) -> None:
        self._executor = ProcessPoolExecutor(
            max_workers=1, timeout=_IDLE_S, initializer=_begin, initargs=(os.getpid(),), env=ENVIRONMENT
        )

    @classmethod
    def taken(cls) -> LokyWorker:
        """An idle worker, or a new one."""
        return cls._idle.pop() if cls._idle else cls()

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        try:
            future: Future[Any] = self._executor.submit(call, *arguments)
        except BrokenProcessPool as error:  # it died while it was idle
            future = Future()
            future.set_exception(error)
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


class Loky:
    """This machine, as a backend."""

    is_local = True

    def __init__(self, n_jobs: int, *, is_inside: bool) -> None:
        self.n_jobs, self._is_inside = n_jobs, is_inside

    def taken(self, *, is_needed: bool) -> Worker:
        return InProcess() if self._is_inside else LokyWorker.taken()

    def watch(self) -> None:
        """Loky notices the death of a process by itself."""

    def close(self) -> None:
        """Its workers stay for the next sweep."""


def _begin(parent: int) -> None:
    """Leave Ctrl-C to the parent, and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_S)
        os._exit(1)

    if os.name == "posix":
        threading.Thread(target=watch, daemon=True).start()
