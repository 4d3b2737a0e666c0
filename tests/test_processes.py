"""Whether a process lives: told from a later one of its number, from the dead, and from what cannot be seen."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest

from qml_plugin import processes
from qml_plugin.processes import Process

SAYS = (
    "from qml_plugin.processes import Process; p = Process.own(); print(p.host, p.pid, p.started, sep='|', flush=True)"
)


@pytest.fixture
def other():
    """A process that waits, and what it says of itself."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"{SAYS}; input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    host, pid, started = process.stdout.readline().strip().split("|")
    yield process, Process(host, int(pid), started)
    process.kill()
    process.communicate()


def test_this_process_lives():
    own = Process.own()
    assert (own.pid, own.is_alive()) == (os.getpid(), True)
    assert own.started is not None
    assert Process.own() == own == pickle.loads(pickle.dumps(own))  # noqa: S301


def test_another_process_lives_until_it_ends(other):
    process, said = other
    assert said.pid == process.pid
    assert said.is_alive() is True
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert said.is_alive() is False, "it waits to be buried"
    process.communicate()
    assert said.is_alive() is False


def test_a_later_process_of_the_same_number_is_another():
    own = Process.own()
    place, started = own.started.rsplit(" ", 1)
    assert replace(own, started=f"{place} {int(started) + 1}").is_alive() is False


def test_what_another_boot_left_cannot_be_told_from_a_host_of_the_same_name():
    own = Process.own()
    boot, rest = own.started.split("/", 1)
    assert replace(own, started=f"{boot[::-1]}/{rest}").is_alive() is None


def test_another_host_and_another_container_cannot_be_seen():
    own = Process.own()
    place, started = own.started.rsplit(" ", 1)
    assert replace(own, host=own.host + "x").is_alive() is None
    assert replace(own, started=f"{place}0 {started}").is_alive() is None
    assert replace(own, started=None).is_alive() is None


def test_a_fork_is_a_process_of_its_own():
    mine = Process.own()
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(theirs, repr(Process.own()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    said = os.read(ours, 10_000).decode()
    os.close(ours)
    os.close(theirs)
    assert f"pid={child}" in said
    assert said != repr(mine)


def test_a_name_with_parentheses_and_spaces_is_no_trap(tmp_path):
    program = tmp_path / "a) S 1 (b"
    program.symlink_to(sys.executable)
    process = subprocess.Popen(
        [program, "-c", "print(1, flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout.readline() == b"1\n"
        started = processes._started(process.pid)
        assert started.split(" ")[0] == Process.own().started.split(" ")[0]
        assert started.split(" ")[1].isdigit()
        assert int(started.split(" ")[1]) >= int(Process.own().started.split(" ")[1])
    finally:
        process.kill()
        process.communicate()


def test_a_host_without_proc_asks_ps(monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "_PROC", tmp_path)
    started = processes._started(os.getpid())
    assert started is None or started.startswith("ps ")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert processes._started(os.getpid()) is None, "nothing to ask: it cannot be told"
