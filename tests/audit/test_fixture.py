"""The fixture as users have it: a test of their own in a process of its own."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = """
from tests.audit.subjects import Honest, Peeks
from tests.conftest import random_walk

def test_honest(qml_audit):
    assert qml_audit(Honest, random_walk(200, 1), n_cuts=2).verdict == "clean"

def test_peeks(qml_audit):
    qml_audit(Peeks, random_walk(200, 1), n_cuts=2)
"""


def pytest_on(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "qml_plugin.audit.fixture", "-q", "-p", "no:cacheprovider", *arguments],
        capture_output=True, text=True, check=False, cwd=folder, env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )  # fmt: skip


def test_it_passes_the_honest_and_fails_the_rest_with_the_reason(tmp_path):
    (tmp_path / "test_mine.py").write_text(TESTS)
    done = pytest_on(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 1 passed" in done.stdout
    assert "Peeks has seen the future: attribute ahead at bar" in done.stdout


def test_the_plugin_is_an_entry_point_under_its_own_name_and_loads_nothing_heavy():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert "qml_plugin.audit.fixture = qml_plugin.audit.fixture" in setup["options.entry_points"]["pytest11"]
    script = (
        "import sys, pytest; before = set(sys.modules); import qml_plugin.audit.fixture; "
        "new = {m.split('.')[0] for m in set(sys.modules) - before}; assert new == {'qml_plugin'}, new"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
