import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from qml_plugin.compiling import kernel

ROOT = Path(__file__).parents[1]
SOURCES = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "qml_plugin").rglob("*.py"))}


@kernel
def halved(values):
    return values.sum() / 2


def test_kernels_release_the_lock_and_change_no_arithmetic():
    options = halved.targetoptions
    assert options["nogil"]
    assert not options.get("fastmath")
    assert not options.get("parallel")
    assert halved(np.arange(4.0)) == 3.0


def test_the_rooms_compile_through_the_two_decorators_only():
    users = {str(path.relative_to(ROOT)) for path, text in SOURCES.items() if "import njit" in text}
    assert users == {"qml_plugin/compiling.py", "qml_plugin/features/compiled.py"}


def test_without_a_folder_for_machine_code_every_room_is_imported_and_computes():
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path, text in SOURCES.items()
        if "import kernel\n" in text
    ]
    assert "qml_plugin.detection.swings" in modules
    code = (
        f"import {', '.join(modules)}\n"
        "from qml_plugin.detection.quasimodo import _balance\n"
        "assert not _balance.stats.cache_path, _balance.stats\n"
        "print(_balance(1.0, 4.0))"
    )
    kept = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT, timeout=120,
        env={**kept, "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "0.25\n"), done.stderr
