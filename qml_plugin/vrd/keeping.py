"""Results as plain values for JSON, and steps kept on disk so that an interrupted validation goes on."""

from __future__ import annotations

import hashlib
import math
import os
import zipfile
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from qml_plugin.errors import DataError
from qml_plugin.stats.nulls import NullResult
from qml_plugin.stats.overfitting import Overfitting, SuperiorAbility
from qml_plugin.stats.resampling import Interval, MonteCarlo
from qml_plugin.vrd.attribution import Attribution, FeatureRelation, Importance
from qml_plugin.vrd.costs import CostStress
from qml_plugin.vrd.decay import Decay
from qml_plugin.vrd.evaluation import FailedTrial, Trials
from qml_plugin.vrd.gates import AuditFinding, Significance
from qml_plugin.vrd.regimes import RegimeReport, RegimeRow
from qml_plugin.vrd.sensitivity import OneAtATime, PickingCost, Plateau, Surface
from qml_plugin.vrd.walk_forward import CombinatorialPaths, WalkForward, Window

_RECORDS: dict[str, Any] = {
    record.__name__: record
    for record in (
        Attribution, AuditFinding, CombinatorialPaths, CostStress, Decay, FailedTrial, FeatureRelation, Importance, Interval,
        MonteCarlo, NullResult, OneAtATime, Overfitting, PickingCost, Plateau, RegimeReport, RegimeRow, Significance,
        SuperiorAbility, Surface, Trials, WalkForward, Window,
    )
}  # fmt: skip
_JSON = "json"


def as_plain(value: Any) -> Any:
    """A record as dictionaries, lists, numbers and text; NaN and infinities become None.

    Parameters
    ----------
    value : object
        A record of this room, or anything made of such.

    Returns
    -------
    object
        What `orjson` and `json` take.

    Point in time
    -------------
    Copies.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, np.ndarray):
        return [as_plain(item) for item in value.tolist()]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(item) for item in value]
    return value if isinstance(value, (str, int, bool, type(None))) else repr(value)


class Steps:
    """Results of steps in a folder, each under the hash of what it was computed from.

    Parameters
    ----------
    folder : path, optional
        Made when first written to. None keeps nothing.

    Notes
    -----
    A step is one ``.npz`` file without pickles: its arrays, and JSON for the rest. It is written to a temporary name, synced
    and renamed. A file that is damaged is computed again and named in ``damaged``. All files may be deleted.
    """

    def __init__(self, folder: Path | str | None) -> None:
        self.folder = None if folder is None else Path(folder)
        self.damaged: list[str] = []

    def read(self, name: str, key: str) -> Any | None:
        """The result kept under a step's name and key, or None."""
        path = self._path(name, key)
        if path is None or not path.exists():
            return None
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
                arrays = {field: held[field] for field in held.files}
            return _decoded(orjson.loads(arrays.pop(_JSON).tobytes()), arrays)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            self.damaged.append(f"{path.name}: {error}")
            return None

    def write(self, name: str, key: str, result: Any) -> None:
        """Keep a result.

        Parameters
        ----------
        name, key : str
        result : object
            A record of this room, or a tuple of such.

        Raises
        ------
        DataError
            If it holds something that could not be read again.
        """
        path = self._path(name, key)
        if path is None:
            return
        arrays: dict[str, np.ndarray] = {}
        text = orjson.dumps(_encoded(result, arrays))
        buffer = BytesIO()
        np.savez_compressed(buffer, **arrays, **{_JSON: np.frombuffer(text, dtype=np.uint8)})  # type: ignore[arg-type]
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}.tmp")
        with unfinished.open("wb") as file:
            file.write(buffer.getvalue())
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)

    def _path(self, name: str, key: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{name}-{hashlib.sha256(key.encode()).hexdigest()}.npz"


def _encoded(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """JSON of a value, its arrays put aside under names."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else {"int": str(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        name = f"a{len(arrays)}"
        arrays[name] = value
        return {"array": name}
    if isinstance(value, tuple):
        return {"tuple": [_encoded(item, arrays) for item in value]}
    if isinstance(value, list):
        return [_encoded(item, arrays) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {"mapping": {key: _encoded(item, arrays) for key, item in value.items()}}
    if type(value).__name__ in _RECORDS:
        held = {field.name: _encoded(getattr(value, field.name), arrays) for field in fields(value)}
        return {"record": type(value).__name__, "fields": held}
    raise DataError(
        f"a {type(value).__name__} cannot be kept: {value!r:.80}. Parameters are numbers, text or booleans."
    )


def _decoded(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_decoded(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if "record" in value:
        return _RECORDS[value["record"]](**{name: _decoded(item, arrays) for name, item in value["fields"].items()})
    ((kind, held),) = value.items()
    if kind == "array":
        return arrays[held]
    if kind == "tuple":
        return tuple(_decoded(item, arrays) for item in held)
    if kind == "mapping":
        return {name: _decoded(item, arrays) for name, item in held.items()}
    return {"int": int, "float": float}[kind](held)
