"""The confidence of an entry: calibrated P(win) from the best model that past outcomes justify."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qml_plugin.errors import DataError, FeatureMismatch
from qml_plugin.gate.rungs import BoostedTrees, Float32Array, Logistic, Rung, load_xgboost
from qml_plugin.records import FloatArray, IntArray
from qml_plugin.stats.calibration import brier_score, fit_sigmoid, sigmoid
from qml_plugin.stats.splits import purged_walk_forward

BoolArray = NDArray[np.bool_]
FitRung = Callable[[Float32Array, BoolArray, FloatArray, int], Rung]

_N_BLOCKS = 4
_MIN_PER_CLASS = 10
_FITTERS: dict[str, FitRung] = {"logistic": Logistic.fit, "xgboost": BoostedTrees.fit}


@dataclass(frozen=True, slots=True, eq=False)
class ConfidenceModel:
    """A fitted confidence, made by `fit_confidence`.

    ``name`` is the rung that speaks: ``"base_rate"``, ``"logistic"`` or ``"xgboost"``. ``base_rate`` is the weighted
    share of wins in the rows of the fit. ``slope`` and ``intercept`` are its calibration, 0 for the base rate.
    """

    name: str
    base_rate: float
    n_features: int
    slope: float
    intercept: float
    _rung: Rung | None = field(repr=False)
    _explainer: BoostedTrees = field(repr=False)

    def predict(self, features: Float32Array) -> FloatArray:
        """Calibrated P(win) of each row.

        Parameters
        ----------
        features : ndarray of shape (n_rows, n_features), float32
            NaN is missing.

        Returns
        -------
        ndarray of shape (n_rows,), float64, 0..1
            Never NaN. The same for every row where the base rate speaks.

        Point in time
        -------------
        Value t reads features[t] and the rows of the fit only.

        Raises
        ------
        FeatureMismatch
            If the number of features is not that of the fit.
        DataError
            If a value is infinite.
        """
        features = self._checked(features)
        if self._rung is None:
            return np.full(len(features), self.base_rate)
        return sigmoid(self._rung.score(features), self.slope, self.intercept)

    def contributions(self, features_row: Float32Array) -> FloatArray:
        """What each feature adds to the log-odds of a win, as XGBoost sees it.

        The XGBoost candidate explains also where a lower rung speaks: it is always fitted, so that explanations stay
        comparable. They then describe the candidate, not the confidence given.

        Parameters
        ----------
        features_row : ndarray of shape (n_features,), float32
            One row; NaN is missing.

        Returns
        -------
        ndarray of shape (n_features,), log-odds before calibration
            Exact Shapley contributions of the trees (``pred_contribs``). The bias is left out.

        Point in time
        -------------
        Reads the row and the rows of the fit only.

        Raises
        ------
        FeatureMismatch
            If the number of features is not that of the fit.
        DataError
            If a value is infinite.
        """
        row = self._checked(np.reshape(features_row, (1, -1)))[0]
        return self._explainer.contributions(row)

    def _checked(self, features: Float32Array) -> Float32Array:
        """Features as float32 of the right width."""
        features = np.asarray(features, dtype=np.float32)
        if features.ndim != 2 or features.shape[1] != self.n_features:
            raise FeatureMismatch(
                f"features of shape {features.shape} refused: the model was fitted on {self.n_features} features. "
                "Pass rows of the same features in the same order, or fit again."
            )
        return _without_infinity(features)


def fit_confidence(
    features: Float32Array,
    is_win: BoolArray,
    weight: FloatArray,
    known_at: IntArray,
    resolved_at: IntArray,
    *,
    seed: int,
    model: str = "auto",
) -> ConfidenceModel:
    """The confidence model that the outcomes so far justify.

    Each learner scores the later 4/5 of the events in four purged walk-forward blocks. A sigmoid turns scores into
    P(win); to compare rungs, the sigmoid of a block is fitted on the other blocks. ``"auto"`` climbs from the base
    rate to logistic regression to XGBoost, each step only where its out-of-fold Brier score is below that of the rung
    it stands on. A learner named outright speaks without that comparison. A learner whose scores do not rise with the
    outcomes (slope <= 0), or that cannot be checked because there are too few outcomes of one kind, never speaks.

    Parameters
    ----------
    features : ndarray of shape (n_events, n_features), float32
        NaN is missing.
    is_win : ndarray of shape (n_events,), bool
        Outcomes.
    weight : ndarray of shape (n_events,), > 0
        Sample weights, such as average uniqueness.
    known_at, resolved_at : ndarray of shape (n_events,), int64, UTC microseconds
        The interval of each label.
    seed : int
        Seed of the sampling inside XGBoost.
    model : {"auto", "logistic", "xgboost"}, default="auto"
        The learner, or the ladder.

    Returns
    -------
    ConfidenceModel
        Refitted on all events; the calibration is that of all out-of-fold scores. The same bits for the same input
        and seed, whatever the number of threads.

    Point in time
    -------------
    Reads all rows given: pass only outcomes already known.

    Raises
    ------
    DataError
        If there are no events, lengths differ, a value is infinite, a weight is not positive, an event resolves
        before it is known, or `model` is unknown.
    MissingExtra
        If xgboost is not installed.

    References
    ----------
    Platt (1999), Probabilistic outputs for support vector machines, §2.2. Lundberg, Erion & Lee (2018), Consistent
    individualized feature attribution for tree ensembles (the contributions).
    """
    load_xgboost()
    if model != "auto" and model not in _FITTERS:
        raise DataError(f"model {model!r} is unknown. Use 'auto', 'logistic' or 'xgboost'.")
    features = np.ascontiguousarray(features, dtype=np.float32)
    is_win = np.asarray(is_win, dtype=np.bool_)
    weight = np.asarray(weight, dtype=np.float64)
    _check_events(features, is_win, weight, known_at, resolved_at)

    explainer = BoostedTrees.fit(features, is_win, weight, seed)
    base = ConfidenceModel(
        "base_rate", float(np.average(is_win, weights=weight)), features.shape[1], 0.0, 0.0, None, explainer
    )
    folds = _usable_folds(is_win, known_at, resolved_at)
    if folds is None:
        return base
    chosen, to_beat = base, _base_rate_brier(is_win, weight, folds)
    for name in _FITTERS if model == "auto" else (model,):
        scores = _out_of_fold_scores(_FITTERS[name], features, is_win, weight, folds, seed)
        calibration = _calibrated(scores, is_win, weight, folds)
        if calibration is None or (model == "auto" and calibration.brier >= to_beat):
            continue
        rung = explainer if name == "xgboost" else _FITTERS[name](features, is_win, weight, seed)
        to_beat = calibration.brier
        chosen = ConfidenceModel(
            name, base.base_rate, base.n_features, calibration.slope, calibration.intercept, rung, explainer
        )
    return chosen


@dataclass(frozen=True, slots=True)
class _Calibration:
    """A learner's sigmoid, and its Brier score where each block is calibrated by the other blocks."""

    slope: float
    intercept: float
    brier: float


Folds = list[tuple[IntArray, IntArray]]


def _usable_folds(is_win: BoolArray, known_at: IntArray, resolved_at: IntArray) -> Folds | None:
    """Walk-forward folds that can be trained on; None where they cannot show anything."""
    if len(is_win) <= _N_BLOCKS:
        return None
    splits = purged_walk_forward(known_at, resolved_at, _N_BLOCKS)
    folds = [(train, test) for train, test in splits if _has_both_classes(is_win[train])]
    if len(folds) < 2 or not all(_has_both_classes(is_win[_others(folds, block)]) for block in range(len(folds))):
        return None
    return folds


def _has_both_classes(is_win: BoolArray) -> bool:
    """Whether there are enough wins and losses to fit anything."""
    n_wins = int(np.count_nonzero(is_win))
    return min(n_wins, len(is_win) - n_wins) >= _MIN_PER_CLASS


def _tested(folds: Folds) -> IntArray:
    """Rows that some fold tests."""
    return np.concatenate([test for _, test in folds])


def _others(folds: Folds, block: int) -> IntArray:
    """Rows tested by every fold but one."""
    return _tested(folds[:block] + folds[block + 1 :])


def _out_of_fold_scores(
    fit: FitRung, features: Float32Array, is_win: BoolArray, weight: FloatArray, folds: Folds, seed: int
) -> FloatArray:
    """Log-odds of each tested row from a learner that saw only its past; NaN for rows not tested."""
    scores = np.full(len(is_win), np.nan)
    for train, test in folds:
        scores[test] = fit(features[train], is_win[train], weight[train], seed).score(features[test])
    return scores


def _base_rate_brier(is_win: BoolArray, weight: FloatArray, folds: Folds) -> float:
    """Brier score of the share of wins, each block judged by the share of the other blocks."""
    share = np.full(len(is_win), np.nan)
    for block, (_, test) in enumerate(folds):
        others = _others(folds, block)
        share[test] = np.average(is_win[others], weights=weight[others])
    return _brier(share, is_win, weight, folds)


def _calibrated(scores: FloatArray, is_win: BoolArray, weight: FloatArray, folds: Folds) -> _Calibration | None:
    """Sigmoid of the out-of-fold scores; None where they do not rise with the outcomes."""
    rows = _tested(folds)
    slope, intercept = fit_sigmoid(scores[rows], is_win[rows], weight[rows])
    if slope <= 0:
        return None
    confidence = np.full(len(is_win), np.nan)
    for block, (_, test) in enumerate(folds):
        others = _others(folds, block)
        confidence[test] = sigmoid(scores[test], *fit_sigmoid(scores[others], is_win[others], weight[others]))
    return _Calibration(slope, intercept, _brier(confidence, is_win, weight, folds))


def _brier(confidence: FloatArray, is_win: BoolArray, weight: FloatArray, folds: Folds) -> float:
    """Weighted Brier score over the tested rows."""
    rows = _tested(folds)
    return brier_score(confidence[rows], is_win[rows], weight[rows])


def _check_events(
    features: Float32Array, is_win: BoolArray, weight: FloatArray, known_at: IntArray, resolved_at: IntArray
) -> None:
    """Refuse columns that do not belong together."""
    lengths = {len(column) for column in (features, is_win, weight, known_at, resolved_at)}
    if features.ndim != 2 or len(lengths) != 1 or lengths == {0} or features.shape[1] == 0:
        raise DataError(
            f"a confidence cannot be fitted on features of shape {features.shape}, {len(is_win)} outcomes, "
            f"{len(weight)} weights and {len(known_at)}/{len(resolved_at)} times. At least one event and one feature "
            "are needed, and each event needs all five."
        )
    bad = np.flatnonzero(~((weight > 0) & np.isfinite(weight)))
    if len(bad):
        raise DataError(f"weight {bad[0]} is {weight[bad[0]]}. Weights must be positive; leave the event out instead.")
    early = np.flatnonzero(np.asarray(resolved_at) < np.asarray(known_at))
    if len(early):
        raise DataError(
            f"event {early[0]} resolves before it is known. resolved_at >= known_at must hold; check the two columns."
        )
    _without_infinity(features)


def _without_infinity(features: Float32Array) -> Float32Array:
    """The features, refused where one is infinite."""
    if np.isinf(features).any():
        row, column = np.argwhere(np.isinf(features))[0]
        raise DataError(
            f"feature {column} of row {row} is {features[row, column]}. A feature is a finite number, or NaN where it "
            "has no value; mend the feature."
        )
    return features
