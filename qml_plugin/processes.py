"""Which process is at work on something, and whether it still lives."""

from __future__ import annotations

import os
import socket
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_PROC = Path("/proc")
_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Process:
    """A process as other processes, later ones too, can tell it from all others.

    ``started`` says when it started, in words that only its host understands; None where the host cannot say.
    """

    host: str
    pid: int
    started: str | None

    @classmethod
    def own(cls) -> Process:
        """This process."""
        return _own(os.getpid())

    def is_alive(self) -> bool | None:
        """Whether it still runs; None where that cannot be told from here."""
        own = Process.own()
        if self.host != own.host or self.started is None or own.started is None:
            return None
        if self.started.split(" ", 1)[0] != own.started.split(" ", 1)[0]:
            return None  # of another boot, another container, or another host of the same name
        try:
            return _started(self.pid) == self.started
        except PermissionError:  # /proc may hide the processes of other users
            return None


@cache
def _own(pid: int) -> Process:
    try:
        return Process(socket.gethostname(), pid, _started(pid))
    except OSError:  # a sandbox without a boot or a table of processes
        return Process(socket.gethostname(), pid, None)


def _started(pid: int) -> str | None:
    """When the process of that number started; None if there is none, or it has ended and only waits to be buried."""
    if (_PROC / "self" / "stat").exists():
        if pid != os.getpid() and not (_PROC / "1").exists():
            raise PermissionError("the processes of other users are hidden")
        try:
            # The name in parentheses may hold anything, so the fields are counted from its end.
            fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in "ZX" else f"{_place()} {fields[19]}"
    try:
        shown = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return f"ps {' '.join(shown.stdout.split())}" if shown.stdout.strip() else None


@cache
def _place() -> str:
    """This boot of this host, and the table in which its processes are numbered."""
    boot = (_PROC / "sys" / "kernel" / "random" / "boot_id").read_text().strip()
    return f"{boot}/{(_PROC / 'self' / 'ns' / 'pid').readlink()}"
