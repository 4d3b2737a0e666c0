"""Which backend a search uses: the one that is named, or the one that joblib has been told to use."""

from __future__ import annotations

import difflib
from typing import Any

from joblib.parallel import get_active_backend

from qml_plugin.errors import DataError
from qml_plugin.sweeps.loky_workers import Loky
from qml_plugin.sweeps.workers import Backend, n_workers

BACKENDS = ("loky", "dask", "ray")
_OF_JOBLIB = {"DaskDistributedBackend": "dask", "RayBackend": "ray"}


def backend_of(backend: str | None, n_jobs: int | None, time_limit_s: float | None) -> Backend:
    """The backend of a search; nothing is started yet.

    Within ``joblib.parallel_config`` what is None is taken from there: Dask and Ray, and the number of jobs. Any other
    backend of joblib's stands for processes on this machine.

    Raises
    ------
    DataError
        If there is no such backend, or `n_jobs` is no number of processes.
    MissingExtra
        If the backend's library is not installed.
    """
    active, n_active = get_active_backend()
    named = _OF_JOBLIB.get(type(active).__name__, "loky")
    if backend is not None and backend not in BACKENDS:
        near = difflib.get_close_matches(str(backend), BACKENDS, n=1)
        raise DataError(
            f"backend {backend!r} is unknown. Use one of {', '.join(map(repr, BACKENDS))}, or None for the one that joblib "
            "has been told to use." + (f" Did you mean {near[0]!r}?" if near else "")
        )
    n_jobs = n_active if n_jobs is None else n_jobs
    n_here = n_workers(1 if n_jobs is None else n_jobs)
    chosen = backend or named
    if chosen == "loky":
        return Loky(n_here, is_inside=n_here == 1 and time_limit_s is None)
    n_most = None if n_jobs is None or n_jobs < 0 else n_jobs
    if chosen == "ray":
        from qml_plugin.sweeps.ray_workers import Ray

        return Ray(n_most)
    from qml_plugin.sweeps.dask_workers import Dask

    client: Any = getattr(active, "client", None) if named == "dask" else None
    return Dask(n_most, client, must_end=time_limit_s is not None)
