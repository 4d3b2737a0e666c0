"""A frozen model on disk, short of the library that reads it: its card, what may be a model file, and how one is written.

A model is one file of XGBoost's JSON or UBJ and a card that says what it is. Pickles are never read: a file is known by
its suffix, then by its hash, then by its own structure, and only then handed to XGBoost, which ends the whole process
on some truncated files.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import secrets
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import orjson

from qml_plugin.clock import from_datetime, to_datetime
from qml_plugin.errors import ModelLoadError

SUFFIXES = (".json", ".ubj")
CARD_SUFFIX = ".card.json"
_FORMAT = "qml_plugin model 1"
_LARGEST_CARD = 1 << 24
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TIMES = ("trained_at", "trained_through")
_SPEAKERS = ("xgboost", "base_rate")


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a frozen model is.

    ``features`` are the names and versions of its inputs in order; a version, and ``feature_set``, is None where it is not
    known. ``speaks`` is ``"xgboost"``, or ``"base_rate"`` where the trees showed no order among outcomes: every entry then gets
    ``base_rate``. P(win) is the sigmoid of ``slope * margin + intercept``. ``trained_at`` and ``trained_through`` (the last outcome
    that it saw) are UTC microseconds. ``effective_labels`` is the summed uniqueness of the ``n_rows`` labels. ``metrics`` are
    those of scores given out of fold; NaN is not known. ``sha256`` is that of the model file, None before it is saved.
    """

    features: Mapping[str, str | None]
    feature_set: str | None
    n_rows: int
    n_wins: int
    effective_labels: float
    base_rate: float
    speaks: str
    slope: float
    intercept: float
    trained_through: int
    trained_at: int
    seed: int
    metrics: Mapping[str, float]
    versions: Mapping[str, str]
    sha256: str | None = None

    def to_json(self) -> str:
        """The card as text, sealed with a hash of its own; times are ISO 8601 in UTC, NaN is null."""
        values = {"format": _FORMAT, **asdict(self)}
        values |= {name: to_datetime(values[name]).isoformat(timespec="microseconds") + "Z" for name in _TIMES}
        values["card_sha256"] = _seal(values)
        return orjson.dumps(values, option=orjson.OPT_INDENT_2).decode()

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> ModelCard:
        """The card in a text; `where` is what messages call it.

        Raises
        ------
        ModelLoadError
            If the text is no card, or not as it was written.
        """
        try:
            values = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise ModelLoadError(f"{where} is no model card: it is no JSON ({error}). {_SAVE_AGAIN}.") from error
        if not isinstance(values, dict) or values.pop("format", None) != _FORMAT:
            raise ModelLoadError(f"{where} is no model card of the format {_FORMAT!r}. {_SAVE_AGAIN}.")
        if values.pop("card_sha256", None) != _seal({"format": _FORMAT, **values}):
            raise ModelLoadError(
                f"{where} is not as it was written: its card_sha256 is another (damaged, or changed by hand). {_SAVE_AGAIN}."
            )
        try:
            return _card_of(cls, values)
        except (TypeError, ValueError, AttributeError, KeyError, OverflowError) as error:
            raise ModelLoadError(f"{where} holds a value that no card has: {error}. {_SAVE_AGAIN}.") from error


_SAVE_AGAIN = "Save the model again, or restore both files from a copy"


def card_path(model: Path) -> Path:
    """Where the card of a model file lies: ``cross.ubj`` has ``cross.card.json``."""
    return model.with_name(model.stem + CARD_SUFFIX)


def read_card(path: Path) -> ModelCard:
    """The card in a file.

    Raises
    ------
    ModelLoadError
        If there is none, or it is not as it was written.
    """
    try:
        with path.open("rb") as stream:
            text = stream.read(_LARGEST_CARD)
    except OSError as error:
        raise ModelLoadError(
            f"the card {path} cannot be read: {error.strerror}. It belongs to the model file beside it and says what the "
            f"model was trained on. {_SAVE_AGAIN}."
        ) from error
    return ModelCard.from_json(text, str(path))


def check_suffix(path: Path) -> None:
    """Refuse a name that is not a model's, before anything is read or written.

    Raises
    ------
    ModelLoadError
        If it does not end in ``.json`` or ``.ubj``, or is that of a card.
    """
    if path.suffix.lower() not in SUFFIXES or path.name.lower().endswith(CARD_SUFFIX):
        raise ModelLoadError(
            f"{path} is refused: a model file ends in .json or .ubj, as XGBoost writes them. Pickles and joblib files are "
            "never read, because reading one runs whatever it holds; save the model with XGBoostPredictor.save()."
        )


def read_model(path: Path, sha256: str | None) -> bytes:
    """The content of a model file, once its name, its hash and its structure are found right.

    Raises
    ------
    ModelLoadError
        If the suffix is not a model's, the file cannot be read, its SHA-256 is not `sha256`, or it is no whole file of
        the kind that its suffix says.
    """
    check_suffix(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelLoadError(f"the model {path} cannot be read: {error.strerror}. {_SAVE_AGAIN}.") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ModelLoadError(
            f"the model {path} is not the one that its card describes: its SHA-256 is {found}, the card says {sha256}. "
            f"{_SAVE_AGAIN}."
        )
    if fault := _structure_fault(content, path.suffix.lower()):
        raise ModelLoadError(f"the model {path} is refused: {fault}. {_SAVE_AGAIN}.")
    return content


def inside(folder: Path, model_path: str) -> Path:
    """The file that a stored, relative path names inside `folder`.

    Raises
    ------
    ModelLoadError
        If the path is absolute, leaves the folder, or names no model file.
    """
    parts = (*PurePosixPath(model_path).parts, *PureWindowsPath(model_path).parts)
    is_absolute = bool(PurePosixPath(model_path).is_absolute() or PureWindowsPath(model_path).anchor)
    if is_absolute or ".." in parts or "\0" in model_path or not model_path:
        raise ModelLoadError(
            f"the stored model_path {model_path!r} is refused: it leaves the folder of the registry. A model's path is "
            "relative and stays below that folder; register the model again."
        )
    check_suffix(Path(model_path))
    return folder / model_path


def write_whole(contents: Mapping[Path, bytes]) -> None:
    """Write files, all of them complete on disk before the first is given its name (OSError).

    What was there before is kept whole until then, and no temporary file stays behind.
    """
    scratch = {path: path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp") for path in contents}
    try:
        for path, temporary in scratch.items():
            with temporary.open("xb") as file:
                file.write(contents[path])
                file.flush()
                os.fsync(file.fileno())
        for path, temporary in scratch.items():
            temporary.replace(path)
    finally:
        for temporary in scratch.values():
            temporary.unlink(missing_ok=True)


def _seal(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(values)).hexdigest()


def _card_of(cls: type[ModelCard], values: dict[str, Any]) -> ModelCard:
    """A card of parsed values; TypeError, ValueError and their kin where one is wrong."""
    for name in _TIMES:
        values[name] = from_datetime(datetime.fromisoformat(values[name]))
    metrics = {str(name): math.nan if value is None else float(value) for name, value in values["metrics"].items()}
    card = cls(**values | {"metrics": metrics})
    numbers = (card.effective_labels, card.base_rate, card.slope, card.intercept)
    if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in numbers):
        raise ValueError(f"a number is not finite among {numbers}")
    if card.speaks not in _SPEAKERS or not 0 <= card.base_rate <= 1 or not isinstance(card.features, dict):
        raise ValueError(f"speaks is {card.speaks!r}, base_rate {card.base_rate!r}")
    if not card.features or not isinstance(card.versions, dict) or not all(map(_is_count, (card.n_rows, card.n_wins))):
        raise ValueError("features, versions, n_rows or n_wins")
    if card.sha256 is not None and not _SHA256.fullmatch(card.sha256):
        raise ValueError(f"sha256 is {card.sha256!r}")
    return card


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _structure_fault(content: bytes, suffix: str) -> str | None:
    """Why the bytes are no whole JSON or UBJ object, None if they are."""
    if content[:1] != b"{":
        what = "it is empty" if not content else f"it begins with {content[:4]!r}, a model begins with '{{'"
        return f"{what} (a pickle, or garbage)" if content else what
    if suffix == ".ubj":
        try:
            end = _ubj_end(content)
        except (struct.error, ValueError) as error:
            return f"it is no whole UBJ: {error}"
        return None if end == len(content) else f"{len(content) - end} bytes follow the end of the model"
    try:
        orjson.loads(content)
    except orjson.JSONDecodeError as error:
        return f"it is no whole JSON: {error}"
    return None


_SIZES = {b"i": 1, b"U": 1, b"I": 2, b"l": 4, b"L": 8, b"d": 4, b"D": 8, b"C": 1, b"T": 0, b"F": 0, b"Z": 0, b"N": 0}
_INTEGERS = {b"i": ">b", b"U": ">B", b"I": ">h", b"l": ">i", b"L": ">q"}
_IN_OBJECT, _IN_ARRAY = -1, -2


def _ubj_end(content: bytes) -> int:
    """Where the first UBJ value ends, after making sure that every length in it lies within the bytes.

    References: Universal Binary JSON, draft 12, https://ubjson.org. Counted objects are not understood; XGBoost writes none.
    """
    at = 0
    # Of each container we are in: how many values are still to come, or which byte ends it.
    open_: list[int] = []
    while True:
        if open_ and open_[-1] in (_IN_OBJECT, _IN_ARRAY):
            is_object = open_[-1] == _IN_OBJECT
            if content[at : at + 1] == (b"}" if is_object else b"]"):
                open_.pop()
                at += 1
            else:
                at = _value_end(content, _text_end(content, at) if is_object else at, open_)
        elif open_ and open_[-1] == 0:
            open_.pop()
        else:
            if open_:
                open_[-1] -= 1
            at = _value_end(content, at, open_)
        if at > len(content):
            raise ValueError("it ends too early")
        if not open_:
            return at


def _value_end(content: bytes, at: int, open_: list[int]) -> int:
    """Where the value at `at` ends; of a container, where its values begin, noted in `open_`."""
    kind = content[at : at + 1]
    if kind in _SIZES:
        return at + 1 + _SIZES[kind]
    if kind == b"S":
        return _text_end(content, at + 1)
    if kind == b"{" and content[at + 1 : at + 2] not in (b"#", b"$"):
        open_.append(_IN_OBJECT)
        return at + 1
    if kind != b"[":
        raise ValueError(f"byte {at} is {kind!r}, which begins no value" if kind else "it ends too early")
    at += 1
    size = None
    if content[at : at + 1] == b"$":
        size = _SIZES.get(content[at + 1 : at + 2])
        if size is None or content[at + 2 : at + 3] != b"#":
            raise ValueError(f"byte {at} begins an array that is not understood")
        at += 2
    if content[at : at + 1] != b"#":
        open_.append(_IN_ARRAY)
        return at
    n, at = _length(content, at + 1)
    if size is not None:
        return at + n * size
    open_.append(n)
    return at


def _text_end(content: bytes, at: int) -> int:
    n, at = _length(content, at)
    return at + n


def _length(content: bytes, at: int) -> tuple[int, int]:
    """A length, and where what it measures begins."""
    kind = content[at : at + 1]
    if kind not in _INTEGERS:
        raise ValueError(f"byte {at} is {kind!r} where a length should begin" if kind else "it ends too early")
    (value,) = struct.unpack_from(_INTEGERS[kind], content, at + 1)
    if value < 0:
        raise ValueError(f"byte {at} begins a negative length")
    return value, at + 1 + _SIZES[kind]
