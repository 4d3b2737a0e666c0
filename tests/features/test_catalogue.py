from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from collections import Counter

import pytest

import qml_plugin.features as features
from qml_plugin.errors import DataError
from qml_plugin.features import CATALOGUE
from qml_plugin.features.catalogue import Catalogue, columns_of, difference
from qml_plugin.features.definitions import TABLE

from .twins import TWINS


def test_there_are_at_least_190_features_150_of_them_of_the_market():
    assert len(CATALOGUE) >= 190
    assert Counter(f.needs for f in CATALOGUE)["bars"] >= 150
    assert len(set(CATALOGUE.names)) == len(CATALOGUE)
    assert list(dict.fromkeys(f.category for f in CATALOGUE)) == list(TABLE)


@pytest.mark.parametrize("feature", CATALOGUE, ids=lambda f: f.name)
def test_a_row_is_complete(feature):
    longest = max((c for c in TABLE if feature.name.startswith(c + "_")), key=len)
    assert feature.category == longest
    assert feature.definition
    assert feature.needs in ("bars", "order", "setup")
    assert feature.warmup >= (feature.window - 1 if feature.needs == "bars" else 0)
    assert len(feature.code) >= 64


def test_every_market_feature_has_a_twin():
    assert {f.name for f in CATALOGUE if f.needs == "bars"} == set(TWINS)


def test_the_feature_set_is_the_hash_of_names_and_versions():
    text = "\n".join(f"{f.name}: {f.version}" for f in CATALOGUE)
    assert hashlib.sha256(text.encode()).hexdigest() == CATALOGUE.feature_set


@pytest.mark.parametrize(
    "change", [{"name": "x"}, {"definition": "x"}, {"window": 99}, {"warmup": 9}, {"code": "x"}, {"needs": "order"}]
)
def test_whatever_changes_a_feature_changes_its_version_and_the_set(change):
    changed = dataclasses.replace(CATALOGUE[0], **change)
    assert changed.version != CATALOGUE[0].version
    assert Catalogue([changed, *CATALOGUE[1:]]).feature_set != CATALOGUE.feature_set
    assert dataclasses.replace(CATALOGUE[0], source="another paper").version == CATALOGUE[0].version


def test_the_order_belongs_to_the_set():
    assert Catalogue([*CATALOGUE[1:], CATALOGUE[0]]).feature_set != CATALOGUE.feature_set


def test_a_difference_is_named_feature_by_feature():
    ours = {"a": "1", "b": "2", "c": "3"}
    assert difference({"a": "1", "b": "9", "d": "4"}, ours) == "without c; with unknown d; with another version of b"
    assert difference({"b": "2", "a": "1", "c": "3"}, ours) == "in another order"
    assert difference(ours, ours) == ""
    assert difference({}, CATALOGUE.versions).endswith(f"and {len(CATALOGUE) - 5} more")


def test_features_are_found_by_name_place_and_slice():
    assert CATALOGUE["ctx_adx_14"] is CATALOGUE[CATALOGUE.place("ctx_adx_14")]
    assert CATALOGUE[:2] == tuple(CATALOGUE)[:2]
    with pytest.raises(DataError, match=r"there is no feature 'ctx_adx_15'. Did you mean ctx_adx_14"):
        CATALOGUE.place("ctx_adx_15")


def test_columns_of_a_category_lie_together():
    place, columns = columns_of("vol")
    assert CATALOGUE.names[place] == columns._fields
    assert CATALOGUE.names[place.start + columns.vol_gk_20] == "vol_gk_20"


def test_the_catalogue_does_not_load_numba():
    code = "import sys; from qml_plugin.features import CATALOGUE; assert CATALOGUE; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = features.nonsense
