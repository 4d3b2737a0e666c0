"""What a row says about itself: whether it is as it was written."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from qml_plugin.errors import ModelLoadError, RegistryCorrupt
from qml_plugin.model_files import SUFFIXES, ModelCard, inside
from qml_plugin.registry.rows import feature_vector, row_sha256

_BYTES_AT_ONCE = 1 << 20
# A longer series is not kept: some 40 bytes a bar, written with the first run on it.
MOST_BARS = 1_000_000
_BYTES_A_BAR = 7 * 8
MODELS = "models"
_MODEL_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
# Rows with blobs or long texts are megabytes each.
_FEW_ROWS = {"bars": 1, "run_returns": 16, "git_diffs": 16}


def rows_at_once(table: sa.Table) -> int:
    """How many rows of a table are held at once by those who read all of it."""
    return _FEW_ROWS.get(table.name, 500)


def pattern_fault(row: Mapping[str, Any], order: Sequence[str] | None) -> str | None:
    """What is wrong with a row of ``ml_pattern_registry``; `order` are the names of its feature set."""
    pattern_id = row["pattern_id"]
    if row["row_sha256"] is not None and row["row_sha256"] != row_sha256(row):
        return f"pattern {pattern_id} is not as it was written: its row_sha256 is another (damaged, or changed by hand)"
    if row["features_f32"] is None:
        return None
    if order is None:
        return f"pattern {pattern_id} follows feature set {row['feature_set']}, which is not in feature_sets"
    try:
        vector = feature_vector(pattern_id, row["features_json"], list(order))
    except RegistryCorrupt as error:
        return str(error)
    if row["features_f32"] != vector.astype("<f4").tobytes():
        return f"features_f32 of pattern {pattern_id} differs from its features_json"
    return None


def run_fault(row: Mapping[str, Any]) -> str | None:
    """What is wrong with a row of ``experiments``."""
    if hashlib.sha256(row["params_json"].encode()).hexdigest() != row["params_hash"]:
        return f"params_json of run {row['run_id']} is not what its params_hash was made of"
    return None


def returns_fault(row: Mapping[str, Any]) -> str | None:
    """What is wrong with a row of ``run_returns``."""
    if len(row["returns_f64"]) != 8 * row["n_bars"]:
        return f"returns of run {row['run_id']} are {len(row['returns_f64'])} bytes long for {row['n_bars']} bars"
    if hashlib.sha256(row["returns_f64"]).hexdigest() != row["sha256"]:
        return f"returns of run {row['run_id']} are not as they were written: their sha256 is another"
    return None


def bars_fault(row: Mapping[str, Any]) -> str | None:
    """What is wrong with a row of ``bars``."""
    packed, n_bars = row["columns_zlib"], row["n_bars"]
    if hashlib.sha256(packed).hexdigest() != row["sha256"]:
        return f"the bars kept under {row['data_hash']} are not as they were written: their sha256 is another"
    if not 0 < n_bars <= MOST_BARS or len(unpacked(packed, n_bars)) != _BYTES_A_BAR * n_bars:
        return f"the bars kept under {row['data_hash']} are not the {n_bars} bars that n_bars tells of"
    return None


def series_fault(row: Mapping[str, Any]) -> str | None:
    """What `bars_fault` finds, and whether the bars are those that the runs saw."""
    if fault := bars_fault(row):
        return fault
    # `Bars.sha256` is that of all columns but the first, the stamps, one after the other.
    seen = memoryview(unpacked(row["columns_zlib"], row["n_bars"]))[8 * row["n_bars"] :]
    if hashlib.sha256(seen).hexdigest() != row["data_hash"]:
        return f"the bars kept under {row['data_hash']} are other bars: their own SHA-256 is another"
    return None


def unpacked(packed: bytes, n_bars: int) -> bytes:
    """Columns of bars, and a byte more where there are more: a small file cannot fill the memory."""
    try:
        return zlib.decompressobj().decompress(packed, _BYTES_A_BAR * n_bars + 1)
    except zlib.error:
        return b""


def diff_fault(row: Mapping[str, Any]) -> str | None:
    """What is wrong with a row of ``git_diffs``."""
    if hashlib.sha256(row["diff"].encode()).hexdigest() != row["sha256"]:
        return f"the diff kept under {row['sha256']} is not the one that its sha256 was made of"
    return None


def model_file(folder: Path, model_id: str, model_path: str) -> Path:
    """The file of a model in the folder of its registry.

    Raises
    ------
    ModelLoadError
        If the stored path is any other than ``models/<model_id>.json`` or ``.ubj``.
    """
    file = inside(folder, model_path)
    if not _MODEL_ID.fullmatch(model_id) or model_path not in [f"{MODELS}/{model_id}{suffix}" for suffix in SUFFIXES]:
        raise ModelLoadError(
            f"the stored model_path {model_path!r} is refused: the file of a model is {MODELS}/<model_id>.json or .ubj, and "
            f"lies nowhere else, here {model_id!r}. Correct the path in its row."
        )
    return file


def model_fault(row: Mapping[str, Any], folder: Path) -> str | None:
    """What is wrong with a row of ``ml_model_versions`` and its file, which is looked for inside `folder` only."""
    model_id = row["model_id"]
    try:
        file = model_file(folder, model_id, row["model_path"])
    except ModelLoadError as error:
        return f"model {model_id}: {error}"
    if not file.is_file():
        return f"the file of model {model_id} is missing: {file}"
    if row["sha256"] is not None and file_sha256(file) != row["sha256"]:
        return f"the file of model {model_id} is not the one that was registered: {file} has another SHA-256"
    if row["card_json"] is None:
        return None
    try:
        card = ModelCard.from_json(row["card_json"], f"the card of model {model_id}")
    except ModelLoadError as error:
        return str(error)
    return None if card.sha256 == row["sha256"] else f"the card of model {model_id} describes another file"


ROW_FAULTS: Mapping[str, Callable[[Mapping[str, Any]], str | None]] = {
    "experiments": run_fault,
    "run_returns": returns_fault,
    "bars": series_fault,
    "git_diffs": diff_fault,
}


def file_sha256(file: Path) -> str:
    """Full SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BYTES_AT_ONCE):
            digest.update(block)
    return digest.hexdigest()
