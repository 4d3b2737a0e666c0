from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np

from qml_plugin.features import CATALOGUE, FeatureStream, MarketFeatures, compute_features, entry_features
from qml_plugin.features.compiled import when_compiling
from qml_plugin.features.warmup import _entry as made_up_entry
from qml_plugin.features.warmup import warm_up

from .data import make_bars

ROOT = Path(__file__).parents[2]


def test_after_it_nothing_is_compiled_whatever_the_way():
    warm_up()
    compiled = []
    code = (
        "import sys\nfrom tests.features.test_warmup import compute_in_every_way\n"
        "from qml_plugin.features.compiled import when_compiling\n"
        "with when_compiling(print):\n    compute_in_every_way()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    with when_compiling(compiled.append):
        compute_in_every_way()
    assert compiled == []
    assert warm_up() == 0


def compute_in_every_way():
    bars = make_bars(50)
    compute_features(bars)
    compute_features(bars, rows=[3])
    compute_features(bars, rows=[3, 9])
    entry = made_up_entry(bars)
    for one in (entry, dataclasses.replace(entry, setup=None)):
        assert entry_features(MarketFeatures(bars), one).shape == (len(CATALOGUE),)
    assert np.isnan(FeatureStream.after(bars).push((bars.known_at[-1], 1.0, 1.0, 1.0, 1.0))).any()


def test_a_listener_hears_nothing_after_its_block(tmp_path):
    """In a process of its own, with an empty cache."""
    code = (
        "import numpy as np\nfrom qml_plugin.features.compiled import when_compiling\n"
        "from qml_plugin.features.kernels import sign, total\nheard = []\n"
        "with when_compiling(heard.append):\n    sign(1.0, 0.0); sign(2.0, 0.0)\n"
        "total(np.ones(3), 2, 2)\nprint(heard)"
    )
    environment = {"NUMBA_CACHE_DIR": str(tmp_path), "PATH": ""}
    done = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        for _ in range(2)
    ]
    assert [one.stdout for one in done] == ["['kernels.sign']\n", "[]\n"]
