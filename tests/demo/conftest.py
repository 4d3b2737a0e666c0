"""The demonstration, run once in this process and once more by the command line, into the same folder."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.registry.registry_samples import dump, execute

DATABASES = ("experiments.db", "synthetic.db")


@dataclass(frozen=True)
class Toured:
    """What a tour left behind."""

    out: Path
    result: object
    steps: list
    tables: dict
    page: str


@dataclass(frozen=True)
class Repeated:
    """What the second tour into the same folder said and left behind."""

    stdout: str
    stderr: str
    returncode: int
    tables: dict
    labelled: list
    elsewhere: list
    files: list


def tables_of(out):
    return {name: dump(out / name) for name in DATABASES}


@pytest.fixture(scope="session")
def toured(tmp_path_factory):
    from qml_plugin.demo import run_demo

    out, steps = tmp_path_factory.mktemp("demo") / "new" / "folder", []
    result = run_demo(out, on_step=lambda *step: steps.append(step))
    return Toured(out, result, steps, tables_of(out), (out / "demo.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def repeated(toured, tmp_path_factory):
    """Labels a few patterns by hand as their outcome was, and runs ``qml demo`` from an empty folder and home."""
    labelled = execute(
        toured.out / "experiments.db",
        "SELECT pattern_id, barrier_outcome FROM ml_pattern_registry WHERE barrier_outcome IS NOT NULL LIMIT 5",
    )
    for pattern_id, outcome in labelled:
        execute(
            toured.out / "experiments.db",
            "UPDATE ml_pattern_registry SET user_label = ? WHERE pattern_id = ?",
            (outcome, pattern_id),
        )
    places = [tmp_path_factory.mktemp(name) for name in ("cwd", "home", "tmp")]
    variables = {name: str(places[1]) for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
    done = subprocess.run(
        [Path(sys.executable).with_name("qml"), "demo", "--out", toured.out],
        cwd=places[0],
        env={**os.environ, **variables, "TMPDIR": str(places[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    return Repeated(
        done.stdout,
        done.stderr,
        done.returncode,
        tables_of(toured.out),
        labelled,
        [path for place in places for path in place.rglob("*")],
        sorted(path.name for path in toured.out.iterdir()),
    )
