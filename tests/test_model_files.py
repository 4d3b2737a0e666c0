"""Cards, the structure of model files, paths that stay inside, writing whole or not at all."""

import math
import resource
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qml_plugin.errors import ModelLoadError
from qml_plugin.model_files import ModelCard, _structure_fault, card_path, check_suffix, inside, read_card, write_whole

CARD = ModelCard(
    features={"a": "1" * 64, "b": None},
    feature_set=None,
    n_rows=100,
    n_wins=40,
    effective_labels=61.5,
    base_rate=0.4,
    speaks="xgboost",
    slope=0.9,
    intercept=-0.1,
    trained_through=1_600_000_000_123_456,
    trained_at=1_700_000_000_000_000,
    seed=3,
    metrics={"brier_skill": 1 / 3},
    versions={"xgboost": "3.2.0"},
    sha256="a" * 64,
)
finite = st.floats(allow_nan=False, allow_infinity=False)


@given(
    features=st.dictionaries(st.text(min_size=1), st.none() | st.text(), min_size=1),
    numbers=st.tuples(finite, finite, st.floats(0, 1)),
    times=st.tuples(st.integers(-(10**15), 10**16), st.integers(0, 10**16)),
    metrics=st.dictionaries(st.text(), finite),
)
def test_a_card_comes_back_as_it_was(features, numbers, times, metrics):
    slope, intercept, base_rate = numbers
    card = replace(
        CARD, features=features, slope=slope, intercept=intercept, base_rate=base_rate, trained_through=times[0],
        trained_at=times[1], metrics=metrics,
    )  # fmt: skip
    try:
        text = card.to_json()
    except orjson.JSONEncodeError:  # a lone surrogate is no text
        return
    back = ModelCard.from_json(text, "it")
    assert back == card
    assert list(back.features) == list(features)


def test_a_metric_that_is_not_known_stays_unknown():
    text = replace(CARD, metrics={"auc": math.nan}).to_json()
    assert orjson.loads(text)["metrics"] == {"auc": None}
    assert math.isnan(ModelCard.from_json(text, "it").metrics["auc"])


def test_no_bit_of_a_card_may_change():
    text = CARD.to_json().encode()
    rng = np.random.default_rng(0)
    for place in rng.choice(len(text), 300, replace=False):
        damaged = bytearray(text)
        damaged[place] ^= 1 << rng.integers(7)
        if damaged[place : place + 1].isspace() and text[place : place + 1].isspace():
            continue
        with pytest.raises(ModelLoadError, match=r"the card is no|the card is not as it was|the card holds"):
            ModelCard.from_json(bytes(damaged), "the card")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is no JSON"),
        ("[]", "no model card of the format"),
        ('{"format": "qml_plugin model 2"}', "no model card of the format"),
        ('{"format": "qml_plugin model 1"}', "card_sha256 is another"),
        (CARD.to_json().replace('"n_rows": 100', '"n_rows": 101'), "card_sha256 is another"),
        (replace(CARD, slope=math.nan).to_json(), "holds a value that no card has"),
        (replace(CARD, speaks="oracle").to_json(), "speaks is 'oracle'"),
        (replace(CARD, base_rate=1.5).to_json(), "base_rate 1.5"),
        (replace(CARD, features={}).to_json(), "holds a value that no card has: features"),
        (replace(CARD, n_rows=-1).to_json(), "holds a value that no card has"),
        (replace(CARD, sha256="../../x").to_json(), "sha256 is '../../x'"),
    ],
)
def test_what_is_no_card_is_refused(text, message):
    with pytest.raises(ModelLoadError, match=message):
        ModelCard.from_json(text, "m.card.json")


def test_a_missing_card_says_what_it_is_for(tmp_path):
    with pytest.raises(ModelLoadError, match=r"m\.card\.json cannot be read: No such file.*belongs to the model file"):
        read_card(card_path(tmp_path / "m.ubj"))


@pytest.mark.parametrize("name", ["m.pkl", "m.pickle", "m.joblib", "m.ubj.pkl", "m", "m.bin", "m.card.json", "m.PKL"])
def test_other_suffixes_are_refused(name):
    with pytest.raises(ModelLoadError, match=r"ends in \.json or \.ubj.*Pickles and joblib files are never read"):
        check_suffix(Path(name))


@pytest.mark.parametrize(
    "path",
    [
        "../../etc/passwd",
        "models/../../m.ubj",
        "/etc/m.ubj",
        "",
        "..\\m.ubj",
        "C:\\m.ubj",
        "C:m.ubj",
        "\\\\host\\m.ubj",
        "a\0.ubj",
        "..",
    ],
)
def test_a_stored_path_that_leaves_the_folder_is_refused(path, tmp_path):
    with pytest.raises(ModelLoadError, match="leaves the folder of the registry"):
        inside(tmp_path, path)


@given(path=st.text("./\\ab:\0", max_size=12))
def test_whatever_is_let_through_lies_inside(path):
    folder = Path("/srv/registry")
    try:
        file = inside(folder, path + ".ubj")
    except ModelLoadError:
        return
    assert folder in file.resolve().parents


def ubj(value) -> bytes:
    """A slow, obvious writer of the kinds of UBJ that XGBoost writes."""
    length = lambda n: b"L" + n.to_bytes(8, "big")  # noqa: E731
    if isinstance(value, dict):
        return b"{" + b"".join(length(len(k.encode())) + k.encode() + ubj(v) for k, v in value.items()) + b"}"
    if isinstance(value, list):
        return b"[#" + length(len(value)) + b"".join(map(ubj, value))
    if isinstance(value, tuple):  # open-ended
        return b"[" + b"".join(map(ubj, value)) + b"]"
    if isinstance(value, np.ndarray):
        return b"[$d#" + length(len(value)) + value.astype(">f4").tobytes()
    if isinstance(value, str):
        return b"S" + length(len(value.encode())) + value.encode()
    return {True: b"T", False: b"F", None: b"Z"}[value] if value in (True, False, None) else b"U" + bytes([value])


values = st.recursive(
    st.none() | st.booleans() | st.integers(2, 255) | st.text("aé]}[", max_size=5) | st.lists(st.floats(width=32), max_size=4).map(np.array),
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)  # fmt: skip


@given(value=st.dictionaries(st.text(max_size=3), values, max_size=4))
def test_a_whole_ubj_is_told_from_every_part_of_it(value):
    content = ubj(value)
    assert _structure_fault(content, ".ubj") is None
    assert "follow the end of the model" in _structure_fault(content + b"}", ".ubj")
    for cut in range(len(content)):
        assert _structure_fault(content[:cut], ".ubj")


@given(content=st.binary(max_size=60))
def test_garbage_is_answered_and_never_raises(content):
    for suffix in (".ubj", ".json"):
        fault = _structure_fault(b"{" + content, suffix)
        assert fault is None or fault
        assert content[:1] == b"{" or _structure_fault(content, suffix)


def test_lengths_beyond_the_end_and_below_nothing_are_refused():
    assert "ends too early" in _structure_fault(b"{L" + (2**62).to_bytes(8, "big") + b"a", ".ubj")
    assert "negative length" in _structure_fault(b"{L" + b"\xff" * 8 + b"a", ".ubj")
    assert "is not understood" in _structure_fault(b"{U\x01a[$S#U\x01x}", ".ubj")
    assert "begins no value" in _structure_fault(b"{U\x01a{#U\x01}", ".ubj")


def test_writing_replaces_whole_and_leaves_no_scratch(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"old")
    write_whole({one: b"new", two: b"2"})
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"one": b"new", "two": b"2"}


def test_a_full_disk_keeps_every_old_file(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"old 1")
    two.write_bytes(b"old 2")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(OSError, match="File too large"):
            write_whole({one: b"new", two: b"x" * 5000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"one": b"old 1", "two": b"old 2"}
