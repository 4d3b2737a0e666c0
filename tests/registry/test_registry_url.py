"""Which URLs open a registry, and what the others are told."""

from __future__ import annotations

import gc
import os
import re
import weakref
from pathlib import Path

import pytest

import qml_plugin.registry as registry_package
from qml_plugin.errors import DataError, RegistryError
from qml_plugin.registry import PatternRegistry
from qml_plugin.registry.migrations import info, migrate
from tests.registry.registry_samples import make_pattern, save


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("results/experiments.db", "is not a database URL. A registry URL is sqlite:///relative"),
        ("", "is not a database URL"),
        (None, "is not a database URL"),
        ("mysql://me:secret@host/db", r"//\*\*\*@host/db' names the database 'mysql'"),
        ("postgresql+asyncpg://me:secret@host/db", "names the database 'postgresql\\+asyncpg'"),
        ("postgresql://me:secret@host:port/db", r"//\*\*\*@host:port/db' is not a database URL"),
        ("mysterydb:///x", "names the database 'mysterydb'"),
        ("sqlite+aiosqlite:///x.db", "names the database"),
        ("sqlite://host/x.db", "says more than a path"),
        ("sqlite:///x.db?mode=ro", "says more than a path"),
        ("sqlite:///file:x.db", "says more than a path"),
    ],
)
def test_urls_that_are_not_understood(url, message):
    with pytest.raises(RegistryError, match=message) as caught:
        PatternRegistry(url)
    assert "secret" not in str(caught.value)


def test_connections_are_opened_in_one_folder():
    folder = Path(registry_package.__file__).parent
    wherever = {
        path.parent.name
        for path in folder.rglob("*.py")
        if re.search(r"create_engine|\.connect\(|PRAGMA", path.read_text())
    }
    assert wherever == {"connection"}


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), 1e6])
def test_a_timeout_out_of_range(seconds):
    with pytest.raises(DataError, match="between 0 and 86400"):
        PatternRegistry("sqlite://", busy_timeout_s=seconds)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("a/b/c/new.db", "a/b/c/new.db"),
        ("with space.db", "with space.db"),
        ("50%off#1.db", "50%off#1.db"),
        ("100%25.db", "100%.db"),
        ("what%3F.db", "what?.db"),
        ("ü'\"[x].db", "ü'\"[x].db"),
    ],
)
def test_a_new_file_gets_its_folders_and_its_name(tmp_path, written, name):
    registry = PatternRegistry(f"sqlite:///{tmp_path}/{written}")
    save(registry, [make_pattern()])
    assert (tmp_path / name).is_file()
    assert registry.get_statistics()["n_patterns"] == 1


def test_a_relative_path_stays_where_it_was_when_the_folder_changes(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    registry = PatternRegistry("sqlite:///here.db")
    os.chdir("elsewhere")
    save(registry, [make_pattern()])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "here.db"]
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_folder_is_no_database(tmp_path):
    with pytest.raises(RegistryError, match=r"cannot be opened at .*mend the path"):
        PatternRegistry(f"sqlite:///{tmp_path}")


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RegistryError, match=r"'sqlite:////.*file/x.db' cannot be opened .*folder"):
        PatternRegistry(f"sqlite:///{tmp_path}/file/x.db")


def test_a_registry_that_vanished_is_not_made_anew_in_silence(tmp_path):
    registry = PatternRegistry(f"sqlite:///{tmp_path}/x.db")
    (tmp_path / "x.db").unlink()
    with pytest.raises(RegistryError, match="cannot be opened"):
        registry.get_statistics()
    assert not (tmp_path / "x.db").exists()


def test_looking_at_a_missing_file_creates_nothing(tmp_path):
    with pytest.raises(RegistryError, match=r"no registry at .*qml db migrate --db sqlite:///"):
        info(f"sqlite:///{tmp_path}/folder/x.db")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", [info, migrate])
def test_a_database_in_memory_cannot_be_reached_by_another_call(call):
    with pytest.raises(RegistryError, match="no other call can reach"):
        call("sqlite://")


@pytest.mark.parametrize("place", ["r.db", None])
def test_a_registry_that_nobody_uses_is_let_go(place, tmp_path):
    registry = PatternRegistry("sqlite://" if place is None else f"sqlite:///{tmp_path / place}")
    assert registry.get_runs() == []
    database = weakref.ref(registry._database)
    del registry
    gc.collect()
    assert database() is None
