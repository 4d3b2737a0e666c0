"""Workers of a Ray cluster: the one that is connected, one by its address, or one started here."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import joblib

from qml_plugin.errors import MissingExtra, QmlError
from qml_plugin.sweeps.remote import Answer, answer, answered, died, sent
from qml_plugin.sweeps.workers import ENVIRONMENT


class Ray:
    """A Ray cluster, as a backend: one actor with one processor a worker.

    Parameters
    ----------
    n_jobs : int, optional
        The most actors; as many as the cluster has processors unless given. Where no cluster is connected, the one that
        ``RAY_ADDRESS`` names is; without that one is started here, which ends with the search.
    """

    is_local = False

    def __init__(self, n_jobs: int | None) -> None:
        try:
            import ray
        except ImportError as error:
            raise MissingExtra.for_module("ray", "ray") from error
        self._ray: Any = ray
        self._asked = n_jobs
        self.n_jobs = n_jobs or 1_000_000
        self._is_connected = self._is_own = False
        self._idle: list[_RayWorker] = []
        self._actor: Any = None

    def taken(self, *, is_needed: bool) -> _RayWorker:
        self._connect()
        return self._idle.pop() if self._idle else _RayWorker(self._ray, self._actor.remote(), self._idle)

    def watch(self) -> None:
        """Ray notices the death of an actor by itself."""

    def close(self) -> None:
        for worker in self._idle:
            worker.end()
        self._idle.clear()
        if self._is_own:
            self._ray.shutdown()
        self._is_connected = self._is_own = False

    def _connect(self) -> None:
        if self._is_connected:
            return
        ray = self._ray
        if not ray.is_initialized():
            self._is_own = True
            _with_own_signals(lambda: _start(ray, self._asked or joblib.cpu_count()))
        n_processors = int(ray.cluster_resources().get("CPU", 0))
        if n_processors < 1:
            raise QmlError("the Ray cluster has no processor. Add nodes to it (ray start), or leave the backend away.")
        self.n_jobs = min(self.n_jobs, n_processors)
        variables = {"env_vars": ENVIRONMENT}
        self._actor = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0, runtime_env=variables)(_Actor)
        self._is_connected = True


class _Actor:
    def attempt(self, path: tuple[str, ...], content: bytes) -> Answer:
        return answered(path, content)


class _RayWorker:
    """One actor."""

    def __init__(self, ray: Any, actor: Any, idle: list[_RayWorker]) -> None:
        self._ray, self._actor, self._idle = ray, actor, idle

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            reference = self._actor.attempt.remote(tuple(sys.path), sent(call, arguments))
            reference.future().add_done_callback(lambda done: self._passed_on(done, future))
        except Exception as error:  # noqa: BLE001 whoever asks for the result gets it
            answer(future, (None, error))
        return future

    def end(self) -> None:
        self._ray.kill(self._actor, no_restart=True)

    def release(self) -> None:
        self._idle.append(self)

    def _passed_on(self, done: Future[Any], future: Future[Any]) -> None:
        error = done.exception()
        if error is None:
            answer(future, done.result())
        elif isinstance(error, self._ray.exceptions.RayActorError):
            died(future)
        else:
            answer(future, (None, error if isinstance(error, Exception) else QmlError(str(error))))


def _start(ray: Any, n_processors: int) -> None:
    """Connect to the cluster that the environment names, or start one."""
    quiet = {"log_to_driver": False, "logging_level": "CRITICAL"}
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody of a search
        ray.init(address="local", num_cpus=n_processors, include_dashboard=False, **quiet)
        return
    try:
        ray.init(address=address, **quiet)
    except Exception as error:  # Ray has many words for it
        raise QmlError(
            f"no Ray cluster answers at {address}: {error}. Start one (ray start --head), or mend RAY_ADDRESS."
        ) from error


def _with_own_signals(call: Callable[[], None]) -> None:
    """Make a call that would leave another handler of SIGTERM behind."""
    if threading.current_thread() is not threading.main_thread():
        call()
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        call()
    finally:
        signal.signal(signal.SIGTERM, before)
