from __future__ import annotations

import subprocess
import sys

import pandas as pd
import pytest

import qml_plugin.pandas
from qml_plugin import compute_features
from qml_plugin.errors import DataError
from tests.conftest import random_walk


def test_the_accessor_computes_features():
    bars = random_walk(300, 0)
    pd.testing.assert_frame_equal(bars.qml.features(), compute_features(bars))
    pd.testing.assert_frame_equal(bars.qml.features(rows=[7, 250]), compute_features(bars, rows=[7, 250]))


def test_what_are_no_bars_is_refused_when_features_are_asked_for():
    frame = pd.DataFrame({"price": [1.0, 2.0]}, index=pd.date_range("2024-01-01", periods=2))
    accessor = frame.qml
    with pytest.raises(DataError, match="bars have no column Open"):
        accessor.features()


def test_the_module_does_not_shadow_pandas():
    assert qml_plugin.pandas.pd is pd
    assert pd.__name__ == "pandas"


@pytest.mark.parametrize(
    ("imported", "is_there"),
    [("qml_plugin", False), ("qml_plugin.features, qml_plugin.bars", False), ("qml_plugin.pandas", True)],
)
def test_only_its_own_import_registers_it(imported, is_there):
    code = f"import pandas, {imported}; assert hasattr(pandas.DataFrame, 'qml') is {is_there}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_registering_it_loads_no_numba():
    code = "import sys, qml_plugin.pandas; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
