"""A PostgreSQL server for the tests: the one that QML_TEST_POSTGRESQL names, or one of their own on the loopback.

Where no server can be had the tests are skipped with the reason; QML_REQUIRE_POSTGRESQL=1 makes that a failure.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest


def absent(reason):
    if os.environ.get("QML_REQUIRE_POSTGRESQL") == "1":
        pytest.fail(f"no PostgreSQL server: {reason}")
    pytest.skip(f"no PostgreSQL server: {reason}")


def binaries():
    """Folder of initdb and pg_ctl, None where there is none."""
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: int(file.parts[4]))
    return folders[-1].parent if folders else None


@contextmanager
def server() -> Iterator[str]:
    """URL of an empty database."""
    if url := os.environ.get("QML_TEST_POSTGRESQL"):
        yield url
        return
    folder = binaries()
    if folder is None:
        absent("initdb is not installed (apt-get install postgresql)")
    user = None
    if os.geteuid() == 0:  # the server refuses to run as root
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            user = pwd.getpwnam("nobody")
    home = Path(tempfile.mkdtemp(prefix="qml-postgresql-"))
    if user:
        os.chown(home, user.pw_uid, user.pw_gid)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def call(program, *arguments):
        subprocess.run(
            [folder / program, "-D", home / "data", *arguments],
            check=True, cwd=home, user=user.pw_uid if user else None, group=user.pw_gid if user else None,
            stdout=subprocess.DEVNULL, timeout=120, env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        )  # fmt: skip

    # English orders texts in another way than their bytes do.
    english = ("--locale-provider=icu", "--icu-locale=en-US")
    call("initdb", "-U", "qml", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", *english, "-N")
    options = f"-c listen_addresses=127.0.0.1 -p {port} -c unix_socket_directories='' -c fsync=off"
    call("pg_ctl", "-w", "-l", home / "log", "-o", options, "start")
    try:
        yield f"postgresql+psycopg://qml@127.0.0.1:{port}/postgres"
    finally:
        call("pg_ctl", "-w", "-m", "immediate", "stop")
        shutil.rmtree(home)


@contextmanager
def schema_of_its_own(url: str) -> Iterator[str]:
    """URL of a new, empty schema on the server."""
    plain = url.replace("postgresql+psycopg", "postgresql")
    name = f"t{uuid.uuid4().hex[:12]}"
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    try:
        yield f"{url}?options=-csearch_path%3D{name}"
    finally:
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute(f"SET client_min_messages = warning; DROP SCHEMA {name} CASCADE")
