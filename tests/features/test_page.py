"""The page of definitions is the catalogue, and the catalogue is on the page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from qml_plugin.features.catalogue import CATALOGUE, N_BUILT_IN
from qml_plugin.features.page import features_page

PAGE = Path(__file__).parents[2] / "docs" / "features.md"
BUILT_IN = CATALOGUE[:N_BUILT_IN]


def cells(line):
    """Cells of a Markdown row, with what was escaped put back."""
    inside = line.strip().removeprefix("|").removesuffix("|")
    parts = inside.replace("\\|", "\0").split("|")
    return [part.strip().replace("\0", "|").replace("\\*", "*").replace("\\<", "<") for part in parts]


def test_the_page_in_docs_is_that_of_the_catalogue():
    assert PAGE.read_text(encoding="utf-8") == features_page(), "docs/features.md is out of date: run make docs"


def test_every_feature_has_a_row_that_says_what_the_catalogue_says():
    rows = [cells(line) for line in features_page().splitlines() if line.startswith("| `")]
    expected = [
        [f"`{f.name}`", f.needs, str(f.window), str(f.warmup), " ".join(f.definition.split()), f.source]
        for f in BUILT_IN
    ]
    assert rows == expected


def test_the_head_counts_the_features():
    head = features_page().splitlines()[2]
    assert head.startswith(f"{len(BUILT_IN)} features in {len({f.category for f in BUILT_IN})} categories")
    assert f"{sum(f.needs == 'bars' for f in BUILT_IN)} of them need bars only" in head


def test_the_command_prints_the_page_without_loading_numba():
    code = (
        "import runpy, sys; runpy.run_module('qml_plugin.features.page', run_name='__main__'); "
        "assert 'numba' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.decode() == features_page()
