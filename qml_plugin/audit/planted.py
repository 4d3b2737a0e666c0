"""Ten ways to look ahead, each beside its honest twin: what the audit must catch, and what it must not accuse.

This module looks into the future on purpose, to see whether the audit notices; nothing but the self-test uses it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from qml_plugin.records import FloatArray, IntArray

HORIZON_BARS = 5
_WINDOW = 10
_BLOCK = 20
_TRAINING = 150
_REFIT = 25
_K = 8
_SHARE = 0.6


def planted_score(frame: pd.DataFrame, leak: str, *, is_leaking: bool) -> FloatArray:
    """Score of each bar by one of the `LEAKS`, or by the honest twin of it; NaN before there is any.

    Parameters
    ----------
    frame : DataFrame of shape (n_bars, n_columns)
        Bars with a date index.
    leak : str
        A key of `LEAKS`.
    is_leaking : bool
        Whether the score looks ahead.

    Returns
    -------
    ndarray of shape (n_bars,), float64
        A position is taken by its sign.

    Point in time
    -------------
    With ``is_leaking`` row t reads later rows: that is its purpose. Without, row t reads rows 0..t only.
    """
    scores = LEAKS[leak](frame, is_leaking)
    return np.asarray(scores, float)


def side_of(score: FloatArray) -> IntArray:
    """+1 where the score is positive, -1 where it is negative, 0 where there is none."""
    return np.sign(np.nan_to_num(score)).astype(np.int64)


def _returns(frame: pd.DataFrame) -> pd.Series:
    return pd.Series(np.log(frame["Close"].to_numpy(float)), index=frame.index).diff()


def _inputs(frame: pd.DataFrame) -> FloatArray:
    """Four causal inputs of each bar, shape (n_bars, 4)."""
    moves = _returns(frame)
    reach = (frame["High"] - frame["Low"]) / frame["Close"]
    columns = [moves, moves.rolling(5).sum(), moves.rolling(20).sum(), reach / reach.rolling(20).mean() - 1]
    return np.column_stack([np.nan_to_num(column.to_numpy(float)) for column in columns])


def _labels(frame: pd.DataFrame) -> FloatArray:
    """What the price does in the bars after each bar, known only `HORIZON_BARS` later; NaN where it never is."""
    price = np.log(frame["Close"].to_numpy(float))
    labels = np.full(len(price), np.nan)
    labels[:-HORIZON_BARS] = price[HORIZON_BARS:] - price[:-HORIZON_BARS]
    return labels


def _shift(frame: pd.DataFrame, is_leaking: bool) -> pd.Series:
    return _returns(frame).rolling(3).mean().shift(-1 if is_leaking else 1)


def _window(frame: pd.DataFrame, is_leaking: bool) -> pd.Series:
    price = frame["Close"].astype(float)
    return price - price.rolling(_WINDOW + 1, center=is_leaking).mean()


def _scaler(frame: pd.DataFrame, is_leaking: bool) -> pd.Series:
    momentum = _returns(frame).rolling(_WINDOW).sum()
    if is_leaking:
        return (momentum - momentum.mean()) / momentum.std()
    return (momentum - momentum.expanding().mean()) / momentum.expanding().std()


def _selection(frame: pd.DataFrame, is_leaking: bool) -> FloatArray:
    inputs, labels = _inputs(frame), _labels(frame)
    known = np.isfinite(labels)
    # The honest twin chooses once, on bars whose labels are known where its scores begin.
    rows = known if is_leaking else known & (np.arange(len(labels)) < _TRAINING - HORIZON_BARS)
    with np.errstate(invalid="ignore"):
        worth = np.nan_to_num([np.corrcoef(column[rows], labels[rows])[0, 1] for column in inputs.T])
    best = int(np.argmax(np.abs(worth)))
    scores = inputs[:, best] * np.sign(worth[best])
    scores[:_TRAINING] = np.nan
    return np.asarray(scores, float)


def _neighbours(frame: pd.DataFrame, is_leaking: bool) -> FloatArray:
    inputs, labels = _inputs(frame), _labels(frame)
    known = np.flatnonzero(np.isfinite(labels))
    scores = np.full(len(labels), np.nan)
    for t in range(_TRAINING, len(labels)):
        rows = known[known != t] if is_leaking else known[known <= t - HORIZON_BARS]
        distances = ((inputs[rows] - inputs[t]) ** 2).sum(axis=1)
        scores[t] = labels[rows[np.argsort(distances, kind="stable")[:_K]]].mean()
    return scores


def _label(frame: pd.DataFrame, is_leaking: bool) -> pd.Series:
    won = pd.Series(np.sign(_labels(frame)), index=frame.index)
    return (won if is_leaking else won.shift(HORIZON_BARS)).rolling(_WINDOW, min_periods=1).mean()


def _fill(frame: pd.DataFrame, is_leaking: bool) -> pd.Series:
    price = frame["Close"].astype(float)
    sparse = price.where(np.arange(len(price)) % _BLOCK == _BLOCK - 1)
    return price - (sparse.bfill() if is_leaking else sparse.ffill())


def _resample(frame: pd.DataFrame, is_leaking: bool) -> pd.Series:
    price = frame["Close"].astype(float)
    step = pd.Timedelta(np.median(np.diff(frame.index.to_numpy())))
    slow = price.resample(step * _BLOCK, label="left" if is_leaking else "right", closed="left").last().dropna()
    return slow.reindex(frame.index, method="ffill") - price.rolling(_BLOCK).mean()


def _model(frame: pd.DataFrame, is_leaking: bool) -> FloatArray:
    inputs, labels = _inputs(frame), _labels(frame)
    design = np.column_stack([np.ones(len(labels)), inputs])
    known = np.flatnonzero(np.isfinite(labels))
    scores = np.full(len(labels), np.nan)
    for start in range(_TRAINING, len(labels), _REFIT):
        rows = known if is_leaking else known[known <= start - HORIZON_BARS]
        weights = np.linalg.lstsq(design[rows], labels[rows], rcond=None)[0]
        scores[start : start + _REFIT] = (design[start : start + _REFIT] * weights).sum(axis=1)
    return scores


def _threshold(frame: pd.DataFrame, is_leaking: bool) -> FloatArray:
    momentum = _returns(frame).rolling(_WINDOW).sum()
    size = momentum.abs()
    limit = size.quantile(_SHARE) if is_leaking else size.expanding(_TRAINING).quantile(_SHARE)
    return np.where(size >= limit, momentum, 0.0)


LEAKS: dict[str, Callable[[pd.DataFrame, bool], pd.Series | FloatArray]] = {
    "shift(-1)": _shift,
    "centred window": _window,
    "whole-sample scaler": _scaler,
    "whole-sample feature selection": _selection,
    "future neighbour": _neighbours,
    "same-bar label": _label,
    "backfill": _fill,
    "resample label on the left": _resample,
    "model trained through the end": _model,
    "threshold picked on all scores": _threshold,
}
