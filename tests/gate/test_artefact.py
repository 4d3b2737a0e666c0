"""Frozen models as files: every damage of the fault matrix, with and without a hash that fits it."""

import copy
import hashlib
import io
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
from dataclasses import replace

import joblib
import numpy as np
import pytest
import xgboost

from qml_plugin.errors import DataError, FeatureMismatch, ModelLoadError
from qml_plugin.features import CATALOGUE
from qml_plugin.gate.artefact import mismatch
from qml_plugin.gate.predictor import XGBoostPredictor
from qml_plugin.model_files import card_path, read_card
from tests.gate.predictors import NAMES, predictor, world

SUFFIXES = ["json", "ubj"]


@pytest.fixture
def model(request, tmp_path):
    """A saved model; parametrise with a suffix."""
    path = tmp_path / f"cross.{getattr(request, 'param', 'ubj')}"
    copy.copy(predictor()).save(path)
    return path


def seal(path, **changes):
    """Rewrite the card so that it fits the file as it is now."""
    card = read_card(card_path(path))
    card = replace(card, **({"sha256": hashlib.sha256(path.read_bytes()).hexdigest()} | changes))
    card_path(path).write_text(card.to_json())
    return card


@pytest.mark.parametrize("model", SUFFIXES, indirect=True)
def test_a_saved_model_says_the_same_bits(model):
    loaded = XGBoostPredictor.load(model)
    X = world()[0]
    assert loaded.predict(X).tobytes() == predictor().predict(X).tobytes()
    assert loaded.card == replace(predictor().card, sha256=hashlib.sha256(model.read_bytes()).hexdigest())
    assert sorted(file.name for file in model.parent.iterdir()) == sorted([model.name, "cross.card.json"])


def test_saving_twice_writes_the_same_bytes(tmp_path):
    hashes = {copy.copy(predictor()).save(tmp_path / f"{n}.ubj").sha256 for n in range(3)}
    assert len(hashes) == 1


DAMAGES = {
    "truncated": lambda content: content[: len(content) // 2],
    "one byte short": lambda content: content[:-1],
    "garbage": lambda content: np.random.default_rng(0).bytes(500),
    "empty": lambda content: b"",
    "junk behind": lambda content: content + b"junk",
    "one bit": lambda content: content[:3000] + bytes([content[3000] ^ 1]) + content[3001:],
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("model", SUFFIXES, indirect=True)
def test_a_damaged_file_is_told_by_its_hash(model, damage):
    model.write_bytes(DAMAGES[damage](model.read_bytes()))
    with pytest.raises(ModelLoadError, match="is not the one that its card describes: its SHA-256"):
        XGBoostPredictor.load(model)


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "one bit"])
@pytest.mark.parametrize("model", SUFFIXES, indirect=True)
def test_a_damaged_file_is_refused_though_its_hash_fits(model, damage):
    model.write_bytes(DAMAGES[damage](model.read_bytes()))
    seal(model)
    with pytest.raises(ModelLoadError, match=r"refused: it is (no whole|empty)|begins with|bytes follow the end"):
        XGBoostPredictor.load(model)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.json", b'{"a": 1}'),
        ("m.json", b"{}"),
        ("m.ubj", b"{}"),
        ("m.ubj", b"{U\x07learner{}}"),
        ("m.ubj", b"{U\x07learnerSU\x02\xff\xfe}"),
        ("m.json", b'{"learner": {"objective": "\xff"}}'),
    ],
)
def test_whole_files_of_something_else_are_no_models(tmp_path, name, content):
    path = tmp_path / name
    copy.copy(predictor()).save(path)
    path.write_bytes(content)
    seal(path)
    with pytest.raises(ModelLoadError, match=r"cannot be read by XGBoost|no whole JSON"):
        XGBoostPredictor.load(path)


def test_where_xgboost_itself_would_end_the_process_it_is_not_asked():
    # What the look at the structure is for: XGBoost 3.2 aborts on an empty buffer.
    done = subprocess.run(
        [sys.executable, "-c", "import xgboost; xgboost.Booster().load_model(bytearray())"],
        capture_output=True,
        check=False,
    )
    if done.returncode >= 0:
        pytest.skip(f"XGBoost {xgboost.__version__} no longer dies of it")
    assert done.returncode == -signal.SIGABRT


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_cut_anywhere_it_is_an_error_and_the_process_lives(tmp_path, suffix):
    path = tmp_path / f"m.{suffix}"
    copy.copy(predictor()).save(path)
    whole = path.read_bytes()
    for cut in np.random.default_rng(1).choice(len(whole), 60, replace=False):
        path.write_bytes(whole[:cut])
        seal(path)
        with pytest.raises(ModelLoadError, match="is refused: it is"):
            XGBoostPredictor.load(path)


# Pickles


class Bomb:
    """Makes a marker when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def pickles(marker):
    buffers = {}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        buffers[f"pickle {protocol}"] = pickle.dumps(Bomb(marker), protocol)
    for compress in (0, 3, ("gzip", 3), ("lzma", 3)):
        stream = io.BytesIO()
        joblib.dump(Bomb(marker), stream, compress=compress)
        buffers[f"joblib {compress}"] = stream.getvalue()
    return buffers


def test_the_bomb_is_live(tmp_path):
    for number, content in enumerate(pickles(tmp_path / "marker").values()):
        if number <= pickle.HIGHEST_PROTOCOL:
            pickle.loads(content)  # noqa: S301
        else:
            joblib.load(io.BytesIO(content))
        (tmp_path / "marker").rmdir()


@pytest.mark.parametrize("suffix", ["pkl", "pickle", "joblib", "bin", "json", "ubj"])
def test_a_pickle_is_refused_and_never_run(tmp_path, suffix):
    marker = tmp_path / "marker"
    for content in pickles(marker).values():
        path = tmp_path / f"m.{suffix}"
        copy.copy(predictor()).save(tmp_path / "m.ubj")
        path.write_bytes(content)
        card = seal(tmp_path / "m.ubj", sha256=hashlib.sha256(content).hexdigest())
        for given in (None, card):
            with pytest.raises(
                ModelLoadError, match=r"Pickles and joblib files are never read|begins with .* a model begins"
            ):
                XGBoostPredictor.load(path, card=given, force=True)
        assert not marker.exists()


def test_a_pickle_as_a_card_is_refused_and_never_run(model, tmp_path):
    for content in pickles(tmp_path / "marker").values():
        card_path(model).write_bytes(content)
        with pytest.raises(ModelLoadError, match="is no model card: it is no JSON"):
            XGBoostPredictor.load(model)
    assert not (tmp_path / "marker").exists()


# Versions


def test_a_model_of_a_newer_xgboost_is_refused_unless_forced(model):
    major = int(xgboost.__version__.split(".")[0])
    card = read_card(card_path(model))
    seal(model, versions={**card.versions, "xgboost": f"{major + 1}.0.0"})
    with pytest.raises(
        ModelLoadError,
        match=rf"written by XGBoost {major + 1}\.0\.0, and {xgboost.__version__} is installed.*force=True",
    ):
        XGBoostPredictor.load(model)
    X = world()[0]
    assert XGBoostPredictor.load(model, force=True).predict(X).tobytes() == predictor().predict(X).tobytes()


@pytest.mark.parametrize("version", [f"{xgboost.__version__.split('.')[0]}.99.0", "1.7.0"])
def test_a_model_of_this_major_or_an_older_one_is_read(model, version):
    seal(model, versions={"xgboost": version})
    assert XGBoostPredictor.load(model).card.versions == {"xgboost": version}


def test_a_model_of_features_that_are_computed_otherwise_now_is_refused_unless_forced(model):
    features = dict(zip(NAMES, CATALOGUE.versions.values(), strict=False))
    seal(model, features=features, feature_set="e" * 64)
    with pytest.raises(
        FeatureMismatch, match=r"was trained without ctx_.* and .* more; with unknown f0, f1.*force=True"
    ):
        XGBoostPredictor.load(model)
    assert XGBoostPredictor.load(model, force=True).card.feature_set == "e" * 64


def test_a_model_with_another_number_of_inputs_than_its_card_is_refused(model):
    seal(model, features=dict.fromkeys(NAMES[:-1]))
    with pytest.raises(FeatureMismatch, match="has 8 inputs and its card names 7 features"):
        XGBoostPredictor.load(model, force=True)


def test_a_model_of_another_objective_is_refused(model):
    data = xgboost.DMatrix(np.zeros((20, 8), np.float32), label=np.arange(20), nthread=1)
    other = xgboost.train({"objective": "reg:squarederror", "nthread": 1}, data, 2)
    model.write_bytes(other.save_raw("ubj"))
    seal(model)
    with pytest.raises(
        ModelLoadError, match=r"has the objective 'reg:squarederror'. A confidence needs 'binary:logistic'"
    ):
        XGBoostPredictor.load(model)


def test_a_model_file_that_names_its_inputs_is_read(model):
    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(model.read_bytes()))
    booster.feature_names = NAMES
    model.write_bytes(booster.save_raw("ubj"))
    seal(model)
    X = world()[0]
    assert XGBoostPredictor.load(model).predict(X).tobytes() == predictor().predict(X).tobytes()


# What is missing, full or not allowed


def test_a_missing_file_or_card_is_named(model):
    card_path(model).rename(model.with_name("aside"))
    with pytest.raises(ModelLoadError, match=r"cross\.card\.json cannot be read: No such file"):
        XGBoostPredictor.load(model)
    model.with_name("aside").rename(card_path(model))
    model.unlink()
    with pytest.raises(ModelLoadError, match=r"the model .*cross\.ubj cannot be read: No such file"):
        XGBoostPredictor.load(model)


@pytest.mark.parametrize("limit", [100, 5_000])
@pytest.mark.parametrize("model", SUFFIXES, indirect=True)
def test_a_full_disk_leaves_the_old_model_and_no_scratch(model, limit):
    before = {file.name: file.read_bytes() for file in model.parent.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
        with pytest.raises(DataError, match=r"cannot be written: File too large\. An earlier file there is as it was"):
            copy.copy(predictor()).save(model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert {file.name: file.read_bytes() for file in model.parent.iterdir()} == before
    assert XGBoostPredictor.load(model).card.sha256 == hashlib.sha256(before[model.name]).hexdigest()


def test_a_name_that_is_no_model_is_not_written(tmp_path):
    with pytest.raises(ModelLoadError, match=r"m\.pkl is refused: a model file ends in \.json or \.ubj"):
        copy.copy(predictor()).save(tmp_path / "m.pkl")
    with pytest.raises(DataError, match="cannot be written: No such file"):
        copy.copy(predictor()).save(tmp_path / "absent" / "m.ubj")
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_xgboosts_own(tmp_path):
    copy.copy(predictor()).save(tmp_path / "m.json")
    assert json.loads((tmp_path / "m.json").read_text())["learner"]["learner_model_param"]["num_feature"] == "8"
    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(tmp_path / "m.json")
    assert booster.num_boosted_rounds() > 10


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a", "b", "c"], None),
        (["a", "b"], "2 features where the model has 3; missing 'c'"),
        (["a", "b", "c", "d"], "4 features where the model has 3; unknown 'd'"),
        (["a", "b", "x"], "missing 'c'; unknown 'x'"),
        (["a", "c", "b"], "in another order: 'c' where 'b' belongs"),
        (["a", "b", "c", "c"], "4 features where the model has 3; 'c' more than once"),
    ],
)
def test_names_that_differ_are_named(given, message):
    assert mismatch(["a", "b", "c"], given) == message
