"""Workers of a Dask cluster: the client that is there already, a scheduler by its address, or processes started here.

A point is tied to one worker process. Where that goes, Dask would keep the task waiting for it; so the list of workers is
looked at now and then, and what a worker had is taken back when it is no longer on it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import joblib

from qml_plugin.errors import DataError, MissingExtra, QmlError
from qml_plugin.sweeps.remote import answer, answered, died, sent
from qml_plugin.sweeps.workers import ENVIRONMENT

_LOOK_S = 0.5
_MOST_WAIT_S = 30.0
_RESTART_S = 30.0
_SEND_S = 10.0
_GOODBYE_S = 1.0


class Dask:
    """A Dask cluster, as a backend.

    Parameters
    ----------
    n_jobs : int, optional
        The most worker processes to use; all of the cluster unless given.
    client : distributed.Client, optional
        The one to use; otherwise the current one, or one of the scheduler that ``DASK_SCHEDULER_ADDRESS`` names, or one of
        a cluster of `n_jobs` processes on this machine that ends with the search.
    must_end : bool
        Whether a worker must be endable, which takes a nanny.
    """

    is_local = False

    def __init__(self, n_jobs: int | None, client: Any = None, *, must_end: bool = False) -> None:
        try:
            import distributed
        except ImportError as error:
            raise MissingExtra.for_module("distributed", "dask") from error
        self._distributed: Any = distributed
        self._asked, self._must_end = n_jobs, must_end
        self.n_jobs = n_jobs or 1_000_000
        self._client, self._cluster, self._is_own = client, None, False
        self._workers: dict[str, Mapping[str, Any]] = {}
        self._looked_at = -float("inf")
        self._taken: dict[str, _DaskWorker] = {}
        self._endings: list[threading.Thread] = []

    def taken(self, *, is_needed: bool) -> _DaskWorker | None:
        """A worker process that has no point of ours; QmlError where one is needed and none comes."""
        self._connect()
        until = time.monotonic() + _MOST_WAIT_S
        while True:
            self.watch()
            for address, about in self._workers.items():
                if address not in self._taken and about["status"] == "running":
                    if self._must_end and not about["nanny"]:
                        raise DataError(
                            f"time_limit_s needs workers that can be ended, and {address} has no nanny to start it anew. "
                            "Start it without --no-nanny, or leave time_limit_s away."
                        )
                    self._taken[address] = _DaskWorker(self, address)
                    return self._taken[address]
            if not is_needed:
                return None
            if time.monotonic() > until:
                raise QmlError(
                    f"the Dask cluster at {self._client.scheduler.address} has no worker that is free: it has "
                    f"{len(self._workers)} in all. Start some (dask worker ADDRESS), or leave the backend away."
                )
            time.sleep(_LOOK_S / 5)

    def watch(self) -> None:
        if self._client is None or time.monotonic() - self._looked_at < _LOOK_S:
            return
        try:
            self._workers = dict(self._client.scheduler_info(n_workers=-1)["workers"])
        except (OSError, TimeoutError, RuntimeError) as error:
            raise QmlError(f"the Dask scheduler does not answer: {error}. Start it again, and resume.") from error
        self._looked_at = time.monotonic()
        for address, worker in list(self._taken.items()):
            if address not in self._workers:
                self.give_back(address, worker)
                worker.lose()

    def close(self) -> None:
        for ending in self._endings:
            ending.join(_GOODBYE_S)
        if self._cluster is not None:
            for nanny in self._cluster.workers.values():
                nanny.auto_restart = False
                _kill(nanny)
        if self._is_own and self._client is not None:
            self._client.close()
        if self._cluster is not None:
            self._cluster.close()
        self._client = self._cluster = None

    def submit(self, address: str, content: bytes, path: tuple[str, ...]) -> Any:
        """A future of Dask of a call on one worker."""
        data = self._client.scatter([content], workers=[address], hash=False, timeout=_SEND_S)[0]
        return self._client.submit(answered, path, data, workers=[address], pure=False, retries=0)

    def restart(self, address: str, worker: _DaskWorker) -> None:
        """Start the process of a worker anew, without waiting for it."""
        if self._cluster is not None:
            for nanny in self._cluster.workers.values():
                if nanny.worker_address == address:
                    _kill(nanny)
            return
        client = self._client

        def restart() -> None:
            with suppress(Exception):  # it has gone already, or the scheduler has
                client.restart_workers([address], timeout=_RESTART_S, raise_for_error=False)
            self.give_back(address, worker)  # where a worker keeps its port

        ending = threading.Thread(target=restart, daemon=True)
        ending.start()
        self._endings.append(ending)

    def give_back(self, address: str, worker: _DaskWorker) -> None:
        """A worker is free again, unless its address has been taken anew meanwhile."""
        if self._taken.get(address) is worker:
            del self._taken[address]

    def _connect(self) -> None:
        if self._client is not None:
            return
        import dask

        with suppress(ValueError):  # there is none
            self._client = self._distributed.get_client()
        if self._client is not None:
            return
        self._is_own = True
        address = dask.config.get("scheduler-address", None)
        if address is None:
            n_workers = self._asked or joblib.cpu_count()
            self._cluster = self._distributed.LocalCluster(
                n_workers=n_workers, threads_per_worker=1, processes=True, memory_limit=0, silence_logs=_SILENT, env=ENVIRONMENT,
                dashboard_address="127.0.0.1:0", scheduler_kwargs={"dashboard": False},
            )  # fmt: skip
        try:
            self._client = self._distributed.Client(self._cluster or address, set_as_default=False)
        except (OSError, TimeoutError) as error:
            raise QmlError(
                f"no Dask scheduler answers at {address}: {error}. Start one (dask scheduler), or mend DASK_SCHEDULER_ADDRESS."
            ) from error


_SILENT = 60  # above all levels of logging: what fails is told by the search


class _DaskWorker:
    """One worker process of the cluster."""

    def __init__(self, of: Dask, address: str) -> None:
        self._of, self._address = of, address
        self._future: Future[Any] = Future()
        self._task: Any = None
        self._is_lost = False

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._future = future
        try:
            content = sent(call, arguments)
        except Exception as error:  # noqa: BLE001 whoever asks for the result gets it
            answer(future, (None, error))
            return future
        try:
            if self._is_lost:
                raise KeyError(self._address)
            self._task = self._of.submit(self._address, content, tuple(sys.path))
            self._task.add_done_callback(lambda task: _passed_on(task, future))
        except (KeyError, OSError, TimeoutError):  # what Dask says of a worker that it does not know, or cannot reach
            died(future)
        return future

    def end(self) -> None:
        if self._is_lost:
            return
        if self._task is not None:
            self._task.cancel()
        self._of.restart(self._address, self)

    def release(self) -> None:
        self._of.give_back(self._address, self)

    def lose(self) -> None:
        """Its process is gone."""
        self._is_lost = True
        died(self._future)
        if self._task is not None:
            self._task.cancel()


def _passed_on(task: Any, future: Future[Any]) -> None:
    if task.status == "finished":
        try:
            answer(future, task.result())
        except Exception as error:  # noqa: BLE001 it cannot be fetched or read here
            answer(future, (None, error))
    elif task.status == "error":
        answer(future, (None, task.exception()))
    else:
        died(future, "Dask gave its task up")


def _kill(nanny: Any) -> None:
    """End the process that a nanny of this machine watches."""
    with suppress(OSError, TypeError):  # it has none now
        os.kill(nanny.pid, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
