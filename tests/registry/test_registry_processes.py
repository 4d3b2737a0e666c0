"""Real processes: killed, forked, out of disk, without permission, without the newest rows."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import stat
import subprocess
import tempfile
import warnings
from pathlib import Path

import pytest

from qml_plugin.errors import RegistryError
from qml_plugin.registry import PatternRegistry
from qml_plugin.registry.maintenance import doctor
from qml_plugin.registry.migrations import info
from qml_plugin.registry.schema import REVISION
from tests.registry.registry_samples import (
    FEATURE_SET,
    NAMES,
    dump,
    execute,
    finish,
    make_outcome,
    make_pattern,
    make_run,
    save,
    start,
)
from tests.registry.test_registry_frozen import FROZEN

NOBODY = 65534

# Kills

N_ROUNDS = 6
ROUND = """
import os, random, signal, sys, time
import numpy as np
from tests.registry.registry_samples import make_outcome, make_pattern, make_run, save, execute
from qml_plugin.registry import PatternRegistry

folder, n_rounds, n_each = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
AT_ONCE = 25
chance = random.Random(7)
for round in range(n_rounds):
    path = f"{folder}/{round}.db"
    registry = PatternRegistry(f"sqlite:///{path}")
    workers = {}
    for me in range(8):
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(ours)
            try:
                for first in range(0, n_each, AT_ONCE):
                    bars = range(100_000 * me + first, 100_000 * me + first + AT_ONCE)
                    patterns = [make_pattern(bar, outcome=make_outcome(bar)) for bar in bars]
                    save(registry, patterns, make_run(f"run-{me}-{first}"))
                    os.write(theirs, b"".join(pattern.pattern_id.encode() for pattern in patterns))
            except BaseException as error:
                os.write(2, repr(error).encode())
                os._exit(1)
            os._exit(0)
        os.close(theirs)
        workers[child] = ours
    victims = set(chance.sample(sorted(workers), 4))
    reported = {child: b"" for child in workers}
    limits = {child: chance.randrange(36 * AT_ONCE, 36 * n_each * 3 // 4) for child in victims}
    import select
    open_pipes = dict((pipe, child) for child, pipe in workers.items())
    while open_pipes:
        for pipe in select.select(list(open_pipes), [], [])[0]:
            child, text = open_pipes[pipe], os.read(pipe, 65536)
            if not text:
                del open_pipes[pipe]
                os.close(pipe)
                continue
            reported[child] += text
            if child in victims and len(reported[child]) >= limits[child]:
                victims.discard(child)
                time.sleep(chance.random() / 100)
                os.kill(child, signal.SIGKILL)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in workers]
    assert sorted(codes) == [-9] * 4 + [0] * 4, codes
    stored = [row[0] for row in execute(path, "SELECT pattern_id FROM ml_pattern_registry")]
    said = {text[at : at + 36].decode() for text in reported.values() for at in range(0, len(text) - 35, 36)}
    assert len(stored) == len(set(stored))
    assert said <= set(stored), "a committed pattern is lost"
    assert len(stored) % AT_ONCE == 0, "a transaction was torn"
    ((n_runs, n_decisions),) = execute(path, "SELECT count(DISTINCT run_id), count(*) FROM run_decisions")
    assert n_runs * AT_ONCE == n_decisions == len(stored)
    assert execute(path, "PRAGMA integrity_check") == [("ok",)]
    assert 4 * n_each <= len(stored) < 8 * n_each
    for suffix in ("", "-wal", "-shm"):
        if os.path.exists(path + suffix) and round < n_rounds - 1:
            os.unlink(path + suffix)
"""


@pytest.mark.slow
def test_eight_writers_of_which_four_are_killed(tmp_path):
    ((stderr, code),) = finish([start(ROUND, tmp_path, N_ROUNDS, 500)])
    assert code == 0, stderr
    assert doctor(f"sqlite:///{tmp_path}/{N_ROUNDS - 1}.db", deep=True)["damages"] == []


KILLED_AT = """
import os, sys
import qml_plugin.registry.migrations as migrations
from alembic import op

def counted(step):
    def run(*arguments, **options):
        global left
        if left == 0:
            os.kill(os.getpid(), 9)
        left -= 1
        return step(*arguments, **options)
    return run

for name in ("add_column", "create_index", "create_table", "batch_alter_table", "execute", "get_bind"):
    setattr(op, name, counted(getattr(op, name)))
for line in sys.stdin:  # each upgrade in a process of its own, without importing everything anew
    child = os.fork()
    if child == 0:
        left = int(line)
        migrations.migrate(sys.argv[1])
        os._exit(left if left < 100 else 0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.slow
def test_an_upgrade_killed_before_any_of_its_steps_leaves_everything_as_it_was(path, url):
    step, is_done = 0, False
    upgrades = start(KILLED_AT, url, stdin=subprocess.PIPE)
    while not is_done:
        shutil.copy(FROZEN / "schema_0001.db", path)
        before = dump(path)
        upgrades.stdin.write(f"{step}\n")
        upgrades.stdin.flush()
        code = upgrades.stdout.readline()
        is_done = code == "0\n"
        assert is_done or code == "-9\n", upgrades.communicate(timeout=120)
        assert execute(path, "PRAGMA integrity_check") == [("ok",)]
        assert info(url)["schema_version"] == (REVISION if is_done else "0001")
        if not is_done:
            assert dump(path) == before
            assert dump(path.with_name("registry.db.bak-0001")) == before
        for log in path.parent.glob("registry.db-*"):
            log.unlink()
        step += 1
    assert step > 20
    assert finish([upgrades]) == [("", 0)]


# Forks


def in_a_fork(work):
    """What `work` says in a forked process, or the error that it raises."""
    ours, theirs = os.pipe()
    with warnings.catch_warnings():  # Python 3.12 warns of threads that libraries have started
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            answer = work()
        except RegistryError as error:
            answer = error
        os.write(theirs, pickle.dumps(answer))
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        answer = pickle.loads(pipe.read())  # noqa: S301
    os.waitpid(child, 0)
    return answer


def test_a_registry_in_memory_refuses_a_fork_that_would_write_into_nowhere():
    registry = PatternRegistry("sqlite://")
    save(registry, [make_pattern()])
    answer = in_a_fork(registry.get_statistics)
    assert isinstance(answer, RegistryError)
    assert f"lives in the memory of process {os.getpid()}" in str(answer)
    assert registry.get_statistics()["n_patterns"] == 1


def test_a_registry_on_a_file_is_used_on_both_sides_of_a_fork(registry):
    save(registry, [make_pattern(0)])

    def write():
        save(registry, [make_pattern(1)], make_run("child"))
        return registry.get_statistics()["n_patterns"]

    assert in_a_fork(write) == 2
    save(registry, [make_pattern(2)], make_run("parent"))
    assert registry.get_statistics()["n_patterns"] == 3


def test_a_connection_that_is_kept_open_is_closed_before_a_fork(registry, path):
    with registry.kept_open():
        save(registry, [make_pattern(0)])
        assert path.with_name("registry.db-wal").exists()
        assert in_a_fork(lambda: path.with_name("registry.db-wal").exists()) is False
        assert in_a_fork(lambda: save(registry, [make_pattern(1)], make_run("child"))) is None
        save(registry, [make_pattern(2)], make_run("parent"))
    assert not path.with_name("registry.db-wal").exists()
    assert registry.get_statistics()["n_patterns"] == 3
    assert execute(path, "PRAGMA integrity_check") == [("ok",)]


def test_what_is_committed_while_kept_open_survives_a_kill(path, url):
    script = """
import os, sys
from tests.registry.registry_samples import make_pattern, make_run, save
from qml_plugin.registry import PatternRegistry
registry = PatternRegistry(sys.argv[1])
with registry.kept_open(), registry.kept_open():
    for n in range(30):
        save(registry, [make_pattern(n)], make_run(f"run-{n}"))
    os.kill(os.getpid(), 9)
"""
    ((stderr, code),) = finish([start(script, url)])
    assert code == -9, stderr
    assert PatternRegistry(url).get_statistics()["n_patterns"] == 30


# Full disks

CRAMPED = """
import resource, signal, sys
from tests.registry.registry_samples import make_outcome, make_pattern, make_run, save
from qml_plugin.errors import RegistryError
from qml_plugin.registry import PatternRegistry
from qml_plugin.registry.maintenance import backup, restore
from qml_plugin.registry.migrations import migrate
from qml_plugin.registry.transfer import export_registry
url, what, out, limit = sys.argv[1:]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
work = {
    "save": lambda: save(PatternRegistry(url), [make_pattern(bar) for bar in range(2000, 6000)], make_run("big")),
    "backup": lambda: backup(url, out),
    "export": lambda: export_registry(url, out),
    "restore": lambda: restore(url, out, replace=True),
    "migrate": lambda: migrate(url),
}[what]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
try:
    work()
except RegistryError as error:
    print(type(error).__name__, error)
"""


def cramped(url, what, out, limit):
    process = start(CRAMPED, url, what, out, limit)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


@pytest.fixture
def large(registry):
    save(registry, [make_pattern(bar, outcome=make_outcome(bar)) for bar in range(2000)])
    return registry


def test_a_disk_that_fills_up_under_a_transaction_keeps_what_was_there(large, path, url):
    before = dump(path)
    said = cramped(url, "save", "-", path.stat().st_size + 50_000)
    assert said.startswith("RegistryError")
    assert "could not be read or written: disk I/O error" in said or "database or disk is full" in said
    assert dump(path) == before
    assert execute(path, "PRAGMA integrity_check") == [("ok",)]
    save(large, [make_pattern(bar) for bar in range(2000, 6000)], make_run("big"))
    assert large.get_statistics()["n_patterns"] == 6000


@pytest.mark.parametrize("what", ["backup", "export"])
def test_a_disk_that_fills_up_under_a_copy_leaves_no_part_of_it(large, path, url, tmp_path, what):
    before = dump(path)
    said = cramped(url, what, tmp_path / "out", 100_000)
    assert said.startswith("RegistryError")
    assert "could not be written" in said
    assert sorted(item.name for item in tmp_path.iterdir()) == [path.name]
    assert dump(path) == before


def test_a_disk_that_fills_up_under_a_restore_leaves_the_present(large, path, url, tmp_path):
    copy = shutil.copy(FROZEN / "schema_0001.db", tmp_path / "copy.db")
    before = dump(path)
    said = cramped(url, "restore", copy, 50_000)
    assert "could not be written" in said
    assert sorted(item.name for item in tmp_path.iterdir()) == ["copy.db", path.name]
    assert dump(path) == before


def test_a_disk_that_fills_up_under_an_upgrade_leaves_the_old_schema(path, url):
    shutil.copy(FROZEN / "schema_0001.db", path)
    before = dump(path)
    said = cramped(url, "migrate", "-", 80_000)
    assert said.startswith("RegistryError")
    assert dump(path) == before
    assert info(url)["schema_version"] == "0001"


# Folders that cannot be written

READING = """
import os, sys, tempfile, warnings
from tests.registry.registry_samples import FEATURE_SET, NAMES, make_pattern, make_run, save
from qml_plugin.errors import RegistryError
from qml_plugin.registry import PatternRegistry
from qml_plugin.registry.maintenance import backup, doctor
from qml_plugin.registry.migrations import info
from qml_plugin.registry.transfer import export_registry
url, user = sys.argv[1], int(sys.argv[2])

def look(url, out):
    registry = PatternRegistry(url, create=False)
    print("patterns", registry.get_statistics()["n_patterns"], len(registry.known_patterns(FEATURE_SET, NAMES)))
    print("rows", info(url)["rows"]["ml_pattern_registry"], "damages", doctor(url, deep=True)["damages"])
    print("exported", export_registry(url, out + "/export")["ml_pattern_registry"], backup(url, out + "/copy.db"))
    return registry

# Once where all is allowed, so that nothing is left to import when another user has taken over.
with tempfile.TemporaryDirectory() as folder:
    save(PatternRegistry(f"sqlite:///{folder}/x.db"), [make_pattern()])
    look(f"sqlite:///{folder}/x.db", folder)
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
with tempfile.TemporaryDirectory() as out, warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    registry = look(url, out)
print("warnings", sorted({f"{w.category.__name__}: {w.message}" for w in caught}))
for name, work in {
    "save": lambda: save(registry, [make_pattern(77)], make_run("more")),
    "label": lambda: registry.label_pattern(registry.get_patterns(limit=1)[0]["pattern_id"], "win"),
    "new": lambda: PatternRegistry(url + ".new"),
}.items():
    try:
        work()
    except RegistryError as error:
        print(name, "refused:", error)
"""


@pytest.fixture
def frozen_folder():
    """A folder outside pytest's own, which other users may not enter."""
    folder = Path(tempfile.mkdtemp(prefix="qml-read-only-"))
    folder.chmod(0o755)
    yield folder
    for item in (folder, *folder.rglob("*")):
        if not item.is_symlink():
            item.chmod(stat.S_IRWXU)
    shutil.rmtree(folder)


@pytest.mark.parametrize("log", ["no log", "a log"])
def test_a_folder_that_cannot_be_written_is_read_with_a_warning(frozen_folder, log):
    path = frozen_folder / "registry.db"
    url = f"sqlite:///{path}"
    registry = PatternRegistry(url)
    save(registry, [make_pattern(bar, outcome=make_outcome(bar)) for bar in range(3)])
    if log == "a log":
        with registry.kept_open():
            save(registry, [make_pattern(50)], make_run("later"))
            content = path.with_name("registry.db-wal").read_bytes()
        path.with_name("registry.db-wal").write_bytes(content)
    for item in (*frozen_folder.iterdir(), frozen_folder):
        item.chmod(0o555 if item.is_dir() else 0o444)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    process = start(READING, url, NOBODY)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    lines = dict(line.split(" ", 1) for line in out.splitlines())
    n_patterns = lines["patterns"].split()[0]
    assert n_patterns in ("3", "4")
    assert lines["rows"] == f"{n_patterns} damages []"
    assert lines["exported"].startswith(f"{n_patterns} ")
    assert "RuntimeWarning: " in lines["warnings"]
    assert "in a folder that cannot be written, so it is read as it is on the disk" in lines["warnings"]
    assert ("bytes in registry.db-wal beside it are not seen" in lines["warnings"]) == (log == "a log")
    for name in ("save", "label"):
        assert "cannot be written: attempt to write a readonly database" in lines[name]
        assert "Nothing was changed" in lines[name]
    assert "cannot be opened" in lines["new"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest


# Copies and empty files


def test_an_empty_file_is_left_alone_by_those_who_only_read(path, url):
    path.touch()
    with pytest.raises(RegistryError, match=r"is empty: it is no registry yet, and was left as it is.*qml db migrate"):
        PatternRegistry(url, create=False)
    assert info(url)["schema_version"] is None
    assert path.stat().st_size == 0
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_a_clock_that_jumps_back_loses_nothing_and_keeps_the_order_of_commits(registry, path):
    save(registry, [make_pattern(0, outcome=make_outcome(0))], make_run("late"))
    early = make_run("early", started_at=1_000_000, finished_at=2_000_000)
    save(registry, [make_pattern(1, outcome=make_outcome(1))], early)
    assert execute(path, "SELECT known_seq FROM ml_pattern_registry ORDER BY detection_time") == [(1,), (2,)]
    assert len(registry.known_patterns(FEATURE_SET, NAMES)) == 2
