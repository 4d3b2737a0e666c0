"""Other futures for the same past: valid bars that nobody who stands at the cut could tell from the real ones."""

from __future__ import annotations

import numpy as np
import pandas as pd

from qml_plugin.bars import PRICES
from qml_plugin.records import FloatArray

FUTURES = ("garbage", "shuffled", "scaled", "reversed", "shorter")
_FACTOR = 3.0
_LARGEST_LOG_MOVE = 5.0
_LONGEST_REST = 50


def other_future(frame: pd.DataFrame, cut: int, kind: str, rng: np.random.Generator) -> pd.DataFrame:
    """The bars up to and including `cut`, followed by another future.

    Parameters
    ----------
    frame : DataFrame of shape (n_bars, n_columns)
        Bars with the columns Open, High, Low and Close; others may stand beside them.
    cut : int
        The last bar that stays as it is, at most ``n_bars - 3``.
    kind : {"garbage", "shuffled", "scaled", "reversed", "shorter"}
        ``garbage`` draws prices around the last one that have nothing to do with one another; ``shuffled`` draws the
        real moves in another order; ``scaled`` makes them three times as large (a third, where that would run away);
        ``reversed`` plays them backwards; ``shorter`` ends the real bars soon after the cut.
    rng : Generator

    Returns
    -------
    DataFrame
        Same index, columns and types, positive prices, each High and Low right for its bar; shorter for ``shorter``.

    Point in time
    -------------
    Rows up to `cut` are those of `frame`, bit for bit.
    """
    n_rest = len(frame) - cut - 1
    if kind == "shorter":
        return frame.iloc[: cut + 1 + int(rng.integers(2, max(3, min(_LONGEST_REST, n_rest))))].copy()
    rows = np.arange(n_rest)
    order = {"reversed": rows[::-1], "scaled": rows}.get(kind, rng.permutation(n_rest))
    changed = frame.iloc[np.concatenate([np.arange(cut + 1), cut + 1 + order])].set_axis(frame.index, axis=0)
    for name, values in _prices(frame, cut, kind, order, rng).items():
        changed[name] = _joined(frame[name], cut, values)
    for name in frame.columns.difference(list(PRICES)):
        if kind in ("garbage", "scaled") and pd.api.types.is_numeric_dtype(frame[name]) and frame[name].dtype != bool:
            drawn = rng.uniform(0.1, 10.0, n_rest) if kind == "garbage" else _FACTOR
            changed[name] = _joined(frame[name], cut, changed[name].to_numpy(float)[cut + 1 :] * drawn)
    return changed


def _prices(
    frame: pd.DataFrame, cut: int, kind: str, order: np.ndarray, rng: np.random.Generator
) -> dict[str, FloatArray]:
    """Open, High, Low and Close after the cut."""
    close = frame["Close"].to_numpy(float)
    if kind == "garbage":
        start, end = rng.uniform(-1.0, 1.0, (2, len(order)))
        reach = rng.exponential(0.1, (2, len(order)))
        logs = {"Open": start, "High": np.maximum(start, end) + reach[0], "Low": np.minimum(start, end) - reach[1]}
        return {name: close[cut] * np.exp(values) for name, values in (logs | {"Close": end}).items()}
    with np.errstate(divide="ignore", invalid="ignore"):
        moves = {name: np.log(frame[name].to_numpy(float)[cut + 1 :] / close[cut:-1])[order] for name in PRICES}
    path = np.cumsum(moves["Close"])
    factor = 1.0
    if kind == "scaled":
        factor = _FACTOR if _FACTOR * np.abs(path).max() <= _LARGEST_LOG_MOVE else 1 / _FACTOR
    before = factor * np.concatenate([[0.0], path[:-1]])
    found = {name: close[cut] * np.exp(before + factor * values) for name, values in moves.items()}
    # Sums of logarithms may part a High from the Close that it equals by a last bit.
    found["High"] = np.maximum.reduce([found[name] for name in PRICES])
    found["Low"] = np.minimum.reduce([found[name] for name in PRICES])
    return found


def _joined(column: pd.Series, cut: int, values: FloatArray) -> pd.Series:
    """The column up to the cut and then `values`, in its own type: a past of other types would be another past."""
    if pd.api.types.is_integer_dtype(column.dtype):
        values = np.rint(values)
    joined: pd.Series = pd.concat(
        [column.iloc[: cut + 1], pd.Series(values, index=column.index[cut + 1 :]).astype(column.dtype)]
    )
    return joined
