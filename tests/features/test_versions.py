"""Versions follow the code that computes, and so does the machine code on disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import qml_plugin
from qml_plugin.features.versions import KERNEL_FILES, code_sha256, function_sha256

PACKAGE = Path(qml_plugin.__file__).parent
SOURCE = """
def f(x):
    if x > 1:
        x = 2
    return x
"""


@pytest.mark.parametrize(
    "same",
    [
        SOURCE.replace("x = 2", "x = 2  # why"),
        SOURCE.replace("def f(x):", 'def f(x):\n    """What it says."""'),
        '"""A module."""\n' + SOURCE,
        SOURCE.replace("    ", "  ").replace("x > 1", "x  >  1"),
        SOURCE + "\n\n",
    ],
)
def test_comments_docstrings_and_layout_do_not_count(same):
    assert code_sha256(same) == code_sha256(SOURCE)


@pytest.mark.parametrize(
    "other",
    [
        SOURCE.replace("x = 2", "x = 3"),
        SOURCE.replace("    return x", "        return x"),
        SOURCE.replace("> 1", ">= 1"),
        SOURCE.replace("x = 2", "x = '2'"),
        SOURCE.replace("f(x)", "g(x)"),
    ],
)
def test_code_counts(other):
    assert code_sha256(other) != code_sha256(SOURCE)


def test_a_function_without_source_is_known_by_its_bytecode():
    one, same, other = (eval(f"lambda x: x + {n}") for n in (1, 1, 2))
    assert function_sha256(one) == function_sha256(same) != function_sha256(other)
    high, low, nested, twin = (
        eval(text) for text in ("lambda b: b.H", "lambda b: b.L", *["lambda b: [lambda: b]"] * 2)
    )
    assert function_sha256(high) != function_sha256(low)
    assert function_sha256(nested) == function_sha256(twin)


def test_what_a_function_encloses_counts():
    def made(k, step=1):
        def inner(x, by=step):
            return x + k + by

        return inner

    assert function_sha256(made(1)) == function_sha256(made(1))
    assert len({function_sha256(made(*given)) for given in ((1,), (5,), (1, 2))}) == 3


def test_every_file_with_kernels_is_counted():
    folder = PACKAGE / "features"
    importers = {path.name for path in folder.glob("*.py") if "compiled import kernel" in path.read_text()}
    assert importers == {"kernels.py", *KERNEL_FILES}


def test_machine_code_on_disk_is_not_used_after_a_kernel_of_another_file_changed(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "qml_plugin", ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import numpy as np; from qml_plugin.features.ctx import _ultimate, __file__ as f; import sys;"
        "assert f.startswith(sys.argv[1]);"
        "x = np.arange(1.0, 41.0); print(_ultimate(x, x + 0.5, np.ones(40), 30), sum(_ultimate.stats.cache_hits.values()))"
    )

    def run():
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")},
        )  # fmt: skip
        value, n_hits = done.stdout.split()
        return float(value), n_hits != "0"

    first, is_cached = run()
    assert not is_cached
    assert run() == (first, True)
    shared = tmp_path / "qml_plugin" / "features" / "kernels.py"
    text = shared.read_text()
    assert "return above / below if" in text
    shared.write_text(text.replace("return above / below if", "return 2.0 * above / below if"))
    assert run() == (2 * first, False)


def test_without_a_folder_for_machine_code_kernels_work_and_one_warning_says_so():
    code = (
        "import numpy as np; from qml_plugin.features.kernels import total, wilder_atr;"
        "print(total(np.arange(9.0), 8, 3))"
    )
    kept = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**kept, "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"},
    )  # fmt: skip
    assert done.stdout == "21.0\n"
    assert done.stderr.count("compiled kernels cannot be kept") == 1
