"""Where a result came from: code, libraries, data and parameters, so that a run can be told from another."""

from __future__ import annotations

import hashlib
import inspect
import subprocess
import uuid
from collections.abc import Hashable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import cast

import orjson

_RUN_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "qml_plugin/run")
_LIBRARIES = (
    "qml-plugin",
    "numpy",
    "pandas",
    "numba",
    "faiss-cpu",
    "scikit-learn",
    "xgboost",
    "xgboost-cpu",
    "backtesting",
)
_GIT_TIMEOUT_S = 5.0


def canonical_json(value: object) -> bytes:
    """JSON with sorted keys; anything that JSON lacks is written as its ``repr``."""
    return orjson.dumps(
        value, default=repr, option=orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
    )


def run_id(*identity: object) -> str:
    """UUIDv5 of what determines a run: the same inputs give the same id.

    >>> run_id("SmaCross", {"fast": 10, "slow": 30}) == run_id("SmaCross", {"slow": 30, "fast": 10})
    True
    """
    return str(uuid.uuid5(_RUN_NAMESPACE, hashlib.sha256(canonical_json(identity)).hexdigest()))


@cache
def library_versions() -> dict[str, str]:
    """Installed versions of the libraries that a result depends on."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


@cache
def source_sha256(cls: Hashable) -> str | None:
    """Hash of the class's own source text, None where it has none (an interactive definition)."""
    try:
        return hashlib.sha256(inspect.getsource(cast(type, cls)).encode()).hexdigest()
    except (OSError, TypeError):
        return None


@cache
def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """(commit, whether tracked files differ from it) of the repository around `folder`; None, None outside one."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None, None
    status = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return commit, None if status is None else bool(status)


def source_folder(cls: type) -> Path:
    """Folder of the file that defines `cls`, or the working folder."""
    try:
        return Path(inspect.getfile(cls)).resolve().parent
    except (OSError, TypeError):
        return Path.cwd()


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
