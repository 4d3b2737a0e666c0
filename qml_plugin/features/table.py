"""The features of a series as a file, computed and written a block of bars at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from qml_plugin.bars import Bars
from qml_plugin.errors import DataError
from qml_plugin.features.catalogue import CATALOGUE
from qml_plugin.features.market import MarketFeatures

SUFFIXES = (".parquet", ".csv")
_BLOCK = 20_000

Step = Callable[[int, int, str], object]


@dataclass(frozen=True, slots=True)
class Written:
    """What a file of features holds; ``finite_frac`` is the share of values that are finite, 0..1."""

    n_rows: int
    n_features: int
    finite_frac: float


def check_target(path: Path, *, may_replace: bool) -> None:
    """Refuse a file that could not be written in the end, before anything is computed.

    Raises
    ------
    DataError
        If the suffix is neither ``.parquet`` nor ``.csv``, the folder is missing, or the file is there and may not be
        replaced.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"{path} is neither {' nor '.join(SUFFIXES)}. The suffix says what is written; choose one of them."
        )
    check_folder(path)
    if path.is_dir() or (path.exists() and not may_replace):
        raise DataError(f"{path} is there already. Choose another name, or pass --force to replace it.")


def check_folder(path: Path) -> None:
    """Refuse a file whose folder is missing.

    Raises
    ------
    DataError
        Of which folder.
    """
    if not path.parent.is_dir():
        raise DataError(f"there is no folder {path.parent}. Create it first.")


def write_features(bars: Bars, path: Path, step: Step = lambda done, total, text: None) -> Written:
    """Compute all features of all bars and write them to a file, whole or not at all.

    Parameters
    ----------
    bars : Bars
    path : Path
        ``.parquet``, or ``.csv`` with empty cells for NaN. Columns in the order of ``CATALOGUE`` after ``opened_at``,
        the UTC stamps; the Parquet file also names the feature set, as ``attrs["feature_set"]``.
    step : callable, optional
        Called with rows done, rows in all and what is being done.

    Returns
    -------
    Written

    Point in time
    -------------
    The row of bar t reads bars 0..t.

    Raises
    ------
    DataError
        If the file cannot be written; an earlier one is intact.
    """
    n = len(bars)
    market = MarketFeatures(bars)
    out = np.empty((n, len(CATALOGUE)))
    n_finite = 0
    for rows in np.array_split(np.arange(n), -(-n // _BLOCK)):
        out[rows[0] : rows[-1] + 1] = market.rows(rows)
        n_finite += int(np.isfinite(out[rows[0] : rows[-1] + 1]).sum())
        step(int(rows[-1]) + 1, n, "computing")
    index = pd.DatetimeIndex(bars.opened_at.view("M8[us]"), tz="UTC", name="opened_at")
    frame = pd.DataFrame(out, index=index, columns=CATALOGUE.names, copy=False)
    frame.attrs["feature_set"] = CATALOGUE.feature_set
    write_table(frame, path, step)
    return Written(n, len(CATALOGUE), n_finite / out.size)


def write_table(frame: pd.DataFrame, path: Path, step: Step = lambda done, total, text: None) -> None:
    """Write a frame and its index to a file that `check_target` has passed, whole or not at all.

    Parameters
    ----------
    frame : DataFrame
    path : Path
        ``.parquet``, or ``.csv`` with empty cells for NaN.
    step : callable, optional
        Called with rows done, rows in all and what is being done.

    Raises
    ------
    DataError
        If the file cannot be written; an earlier one is intact.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.suffix.lower() == ".csv":
            _write_csv(frame, scratch, step)
        else:
            step(len(frame), len(frame), "writing")
            frame.to_parquet(scratch)
        scratch.replace(path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error}. Free space there, or choose another folder.") from error
    finally:
        scratch.unlink(missing_ok=True)


def _write_csv(frame: pd.DataFrame, path: Path, step: Step) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        for start in range(0, len(frame), _BLOCK):
            frame.iloc[start : start + _BLOCK].to_csv(file, header=start == 0, lineterminator="\n")
            step(min(start + _BLOCK, len(frame)), len(frame), "writing")
