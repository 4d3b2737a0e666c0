from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest

import qml_plugin.features as features
from qml_plugin.features import CATALOGUE, FEATURE_SET
from qml_plugin.features.entry import ORDER_NAMES, SETUP_NAMES

from .naive import TWINS

CATEGORIES = ("ctx", "geo", "temp", "vol", "mom", "vol_relative", "regime")


def test_every_category_is_present_and_names_are_unique():
    names = [f.name for f in CATALOGUE]
    assert len(names) == len(set(names)) >= 75
    assert {f.category for f in CATALOGUE} == set(CATEGORIES)


@pytest.mark.parametrize("feature", CATALOGUE, ids=lambda f: f.name)
def test_a_row_is_complete(feature):
    longest = max((c for c in CATEGORIES if feature.name.startswith(c + "_")), key=len)
    assert feature.category == longest
    assert feature.definition
    assert feature.warmup >= feature.window - 1 >= -1


def test_every_feature_is_computed_and_has_a_twin_or_belongs_to_the_entry():
    assert {f.name for f in CATALOGUE} == set(TWINS) | set(ORDER_NAMES) | set(SETUP_NAMES)


def test_the_feature_set_is_the_hash_of_ordered_names_and_definitions():
    text = "\n".join(f"{f.name}: {f.definition}" for f in CATALOGUE)
    assert hashlib.sha256(text.encode()).hexdigest() == FEATURE_SET


def test_the_catalogue_does_not_load_numba():
    code = "import sys; from qml_plugin.features import CATALOGUE; assert CATALOGUE; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = features.nonsense
