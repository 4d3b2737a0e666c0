"""A matrix of vectors in a file that can be made anew: written whole or not at all, and checked before it is believed.

Layout: eight bytes that say what it is; the SHA-256 of all that follows; the length of the card; the card, as JSON; the
names of the rows, one a line; zeros up to a multiple of 64 bytes; the matrix. The card tells how long the file must be,
so that a forged one is found before anything is read by it. The hash tells of accidents: whoever can write the file
can write a hash that fits.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from io import BufferedReader
from pathlib import Path

import numpy as np

from qml_plugin.errors import RetrievalError
from qml_plugin.retrieval.kernels import Float32Array

_MAGIC = b"QMLVEC1\n"
_HASHED_FROM = len(_MAGIC) + 32
_CARD_AT = _HASHED_FROM + 8
_LONGEST_CARD = 65_536
_ALIGNMENT = 64
_DTYPE = "<f4"


@dataclass(frozen=True, slots=True)
class Card:
    """What a file holds: ``built_from`` is the SHA-256 of the names of the rows, ``names_bytes`` their length."""

    n_rows: int
    dim: int
    dtype: str
    feature_set: str
    built_from: str
    names_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class VectorFile:
    """A file that has been checked: names of the rows, and vectors of shape (n_rows, dim), read by memory map."""

    card: Card
    row_names: Sequence[str]
    vectors: Float32Array


def write_vectors(path: Path, vectors: Float32Array, row_names: Sequence[str], *, feature_set: str) -> Card:
    """Put vectors in the place of a file, or leave what is there.

    Parameters
    ----------
    path : Path
        Its folder must exist.
    vectors : ndarray of shape (n_rows, dim), float32
        NaN is kept.
    row_names : sequence of n_rows str
        What tells one row, in this state, from all others; without line breaks.
    feature_set : str
        What the columns are.

    Returns
    -------
    Card

    Raises
    ------
    RetrievalError
        If there is not one name for each row, or a name has a line break.
    OSError
        If the file cannot be written. What was there is still there, and no part of the new one is left.
    """
    names = "\n".join(row_names).encode()
    if vectors.ndim != 2 or len(row_names) != len(vectors) or names.count(b"\n") != max(len(row_names) - 1, 0):
        raise RetrievalError(
            f"vectors of shape {vectors.shape} with {len(row_names)} names refused. Each row needs a name of one line."
        )
    built_from = hashlib.sha256(names).hexdigest()
    card = Card(len(vectors), vectors.shape[1], _DTYPE, feature_set, built_from, len(names))
    text = json.dumps(asdict(card), sort_keys=True).encode()
    body = len(text).to_bytes(8, "little") + text + names
    body = body.ljust(_start_of_matrix(len(text), len(names)) - _HASHED_FROM, b"\0")
    matrix = np.ascontiguousarray(vectors, _DTYPE)
    digest = hashlib.sha256(body)
    digest.update(matrix.data)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("xb") as stream:
            stream.write(_MAGIC + digest.digest() + body)
            stream.write(matrix.data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return card


def open_vectors(path: Path) -> VectorFile:
    """A file's rows, after making sure that they are as they were written.

    Raises
    ------
    FileNotFoundError
        If there is no file.
    RetrievalError
        If the file is not whole, not as it was written, or not a file of vectors; the message holds the cause alone.
    OSError
        If it cannot be read.
    """
    with path.open("rb") as stream:
        card, text_bytes = _checked_card(stream)
        stream.seek(_CARD_AT + text_bytes)
        names = stream.read(card.names_bytes)
        if hashlib.sha256(names).hexdigest() != card.built_from:
            raise RetrievalError("it is damaged: the names of its rows are not those that its card was made of")
        row_names = names.decode(errors="replace").split("\n") if card.n_rows else []
        if len(row_names) != card.n_rows:
            raise RetrievalError(f"it is damaged: its card tells of {card.n_rows} rows, it names {len(row_names)}")
        shape = (card.n_rows, card.dim)
        if not all(shape):
            return VectorFile(card, row_names, np.empty(shape, np.float32))
        start = _start_of_matrix(text_bytes, card.names_bytes)
        return VectorFile(card, row_names, np.memmap(stream, np.dtype(_DTYPE), "r", start, shape))


def _checked_card(stream: BufferedReader) -> tuple[Card, int]:
    """The card of a file that is as it was written, and the length of its text."""
    size = os.fstat(stream.fileno()).st_size
    head = stream.read(_CARD_AT)
    if not head:
        raise RetrievalError("it is empty")
    if not head.startswith(_MAGIC):
        raise RetrievalError("it is no file of vectors")
    text_bytes = int.from_bytes(head[_HASHED_FROM:], "little")
    if len(head) < _CARD_AT or text_bytes > min(_LONGEST_CARD, size):
        raise RetrievalError(f"it is cut short, or its head is damaged: {size} bytes cannot hold its card")
    card = _card_of(stream.read(text_bytes))
    if not (card.n_rows >= 0 and card.dim >= 0 and card.names_bytes >= 0 and card.dtype == _DTYPE):
        raise RetrievalError(f"its card is damaged: {card}")
    expected = _start_of_matrix(text_bytes, card.names_bytes) + card.n_rows * card.dim * np.dtype(_DTYPE).itemsize
    if size != expected:
        raise RetrievalError(
            f"it has {size} bytes, its card tells of {card.n_rows} rows of {card.dim}: {expected} bytes"
        )
    stream.seek(_HASHED_FROM)
    if hashlib.file_digest(stream, "sha256").digest() != head[len(_MAGIC) : _HASHED_FROM]:
        raise RetrievalError("it is not as it was written: its SHA-256 is another")
    return card, text_bytes


def _card_of(text: bytes) -> Card:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise RetrievalError(f"its card is damaged: {error}") from error
    kinds = {field.name: {"int": int, "str": str}[str(field.type)] for field in fields(Card)}
    if not isinstance(found, dict) or {name: type(value) for name, value in found.items()} != kinds:
        raise RetrievalError(f"its card is damaged: it must hold {', '.join(kinds)}")
    return Card(**found)


def _start_of_matrix(text_bytes: int, names_bytes: int) -> int:
    return -(-(_CARD_AT + text_bytes + names_bytes) // _ALIGNMENT) * _ALIGNMENT


def _sync_folder(folder: Path) -> None:
    """Make the new name last, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
