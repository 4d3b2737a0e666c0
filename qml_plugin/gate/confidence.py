"""The confidence of an entry: calibrated P(win) from the best model that past outcomes justify."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from qml_plugin.errors import DataError, FeatureMismatch
from qml_plugin.gate.rungs import BoostedTrees, Float32Array, Logistic, Rung, load_xgboost
from qml_plugin.records import FloatArray, IntArray
from qml_plugin.stats.calibration import fit_sigmoid, sigmoid_covariance
from qml_plugin.stats.splits import purged_walk_forward
from qml_plugin.stats.venn_abers import VennAbers

BoolArray = NDArray[np.bool_]
FitRung = Callable[[Float32Array, BoolArray, FloatArray, int], Rung]

_N_BLOCKS = 4
_MIN_PER_CLASS = 10
_SLOPE_PRIOR = (1.0, 0.5)
_TRIED_FROM = {"logistic": 0.0, "xgboost": 200.0}
_STANDARD_ERRORS = {"logistic": 0.0, "xgboost": 1.0}
_VENN_ABERS_FROM = 800.0
_Z = 1.6448536269514722  # of a two-sided 90 % interval
_FITTERS: dict[str, FitRung] = {"logistic": Logistic.fit, "xgboost": BoostedTrees.fit}


@dataclass(frozen=True, slots=True, eq=False)
class ConfidenceModel:
    """A fitted confidence, made by `fit_confidence`.

    ``name`` is the rung that speaks: ``"base_rate"``, ``"logistic"`` or ``"xgboost"``. ``base_rate`` is the weighted
    share of wins in the rows of the fit, ``n_effective`` their summed weights. ``slope`` stretches the scores of the
    rung, 0 for the base rate; ``calibration`` is ``"none"``, ``"sigmoid"`` or ``"venn_abers"``.
    """

    name: str
    base_rate: float
    n_features: int
    n_effective: float
    slope: float
    calibration: str
    _covariance: FloatArray = field(repr=False)
    _rung: Rung | None = field(repr=False)
    _venn_abers: VennAbers | None = field(repr=False)

    def predict(self, features: Float32Array, base_rate: float | None = None) -> FloatArray:
        """Calibrated P(win) of each row.

        Parameters
        ----------
        features : ndarray of shape (n_rows, n_features), float32
            NaN is missing.
        base_rate : float, 0..1, optional
            The base rate known now, which moves on between two fits; without it that of the fit.

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
        return self.predict_interval(features, base_rate)[0]

    def predict_interval(
        self, features: Float32Array, base_rate: float | None = None
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Calibrated P(win) of each row, and how well the past pins it down.

        Parameters
        ----------
        features, base_rate
            As for `predict`.

        Returns
        -------
        (confidence, low, high) : ndarrays of shape (n_rows,), float64, 0..1
            ``low`` and ``high`` bound, at 90 %, the share of wins among entries that get this score: the sampling error
            of the calibration, widened to the two probabilities of Venn-Abers where that calibrates. They do not say
            how sure the outcome of one entry is.

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
        start = _log_odds(self.base_rate if base_rate is None else base_rate)
        scores = np.zeros(len(features)) if self._rung is None else self._rung.score(features)
        centre = low = high = start + self.slope * scores
        if self._venn_abers is not None:
            moved = start - _log_odds(self.base_rate)
            centre, low, high = (_log_odds(p) + moved for p in self._venn_abers.predict(scores))
        (a, b), (_, c) = self._covariance
        margin = _Z * np.sqrt(np.maximum(a * scores**2 + 2 * b * scores + c, 0.0))
        low, high = np.minimum(low, centre - margin), np.maximum(high, centre + margin)
        return expit(centre), expit(low), expit(high)

    def contributions(self, features: Float32Array) -> FloatArray:
        """What each feature adds to the log-odds of a win, in the model that speaks.

        Parameters
        ----------
        features : ndarray of shape (n_features,) or (n_rows, n_features), float32
            One row, or many in one call, which is faster. NaN is missing.

        Returns
        -------
        ndarray of the shape of `features`, log-odds before calibration
            Exact Shapley values: of the trees XGBoost's own (``pred_contribs``), of logistic regression slope times
            distance from the mean. Bias and base rate are left out; where the base rate speaks all are 0.

        Point in time
        -------------
        The contributions to row t read features[t] and the rows of the fit only.

        Raises
        ------
        FeatureMismatch
            If the number of features is not that of the fit.
        DataError
            If a value is infinite.
        """
        rows = self._checked(np.atleast_2d(features))
        found = np.zeros(rows.shape) if self._rung is None else self._rung.contributions(rows)
        return found.reshape(np.shape(features))

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
    P(win); to compare rungs, the sigmoid of a block is fitted on the other blocks. Its slope has a normal prior of mean
    1, since the scores are log-odds already; its level is the base rate. From 800 effective events on Venn-Abers takes
    the place of the sigmoid where its out-of-fold log loss is lower.

    ``"auto"`` climbs from the base rate to logistic regression to XGBoost, each step only where its out-of-fold log
    loss is below that of the rung it stands on. The step to XGBoost is tried from 200 effective events on and must win
    by a standard error, since trees, unlike the learnt penalty, do not fall silent where there is little to say. A
    learner named outright speaks without that comparison. A learner whose scores do not rise with the outcomes (slope
    <= 0 without the prior), or that cannot be checked because there are too few outcomes of one kind, never speaks.

    Parameters
    ----------
    features : ndarray of shape (n_events, n_features), float32
        NaN is missing.
    is_win : ndarray of shape (n_events,), bool
        Outcomes.
    weight : ndarray of shape (n_events,), > 0
        Average uniqueness, or other weights whose sum is an effective number of events.
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
    Platt (1999), Probabilistic outputs for support vector machines, §2.2. Vovk & Petej (2014), Venn-Abers predictors.
    Johnstone & Silverman (2004), Needles and straw in haystacks (the learnt penalty). Lundberg, Erion & Lee (2018), Consistent
    individualized feature attribution for tree ensembles (the contributions).
    """
    load_xgboost()
    if model != "auto" and model not in _FITTERS:
        raise DataError(f"model {model!r} is unknown. Use 'auto', 'logistic' or 'xgboost'.")
    features = np.ascontiguousarray(features, dtype=np.float32)
    is_win = np.asarray(is_win, dtype=np.bool_)
    weight = np.asarray(weight, dtype=np.float64)
    _check_events(features, is_win, weight, known_at, resolved_at)

    base_rate, n_effective = float(np.average(is_win, weights=weight)), float(weight.sum())
    sampling = np.diag([0.0, 1 / (n_effective * base_rate * (1 - base_rate) + 0.125)])
    base = ConfidenceModel("base_rate", base_rate, features.shape[1], n_effective, 0.0, "none", sampling, None, None)
    folds = _usable_folds(is_win, known_at, resolved_at)
    if folds is None:
        return base
    chosen, to_beat = base, _row_losses(_base_rate_elsewhere(is_win, weight, folds), is_win, folds)
    tested_weight = weight[_tested(folds)]
    ladder = [name for name in _FITTERS if n_effective >= _TRIED_FROM[name]] if model == "auto" else [model]
    for name in ladder:
        scores = _out_of_fold_scores(_FITTERS[name], features, is_win, weight, folds, seed)
        calibration = _calibrated(scores, is_win, weight, folds)
        if calibration is None:
            continue
        margin = _STANDARD_ERRORS[name]
        if model == "auto" and not _wins(to_beat - calibration.losses, tested_weight, margin):
            continue
        to_beat = calibration.losses
        chosen = replace(
            base,
            name=name,
            slope=calibration.slope,
            calibration="sigmoid" if calibration.venn_abers is None else "venn_abers",
            _covariance=calibration.covariance,
            _rung=_FITTERS[name](features, is_win, weight, seed),
            _venn_abers=calibration.venn_abers,
        )
    return chosen


@dataclass(frozen=True, slots=True)
class _Calibration:
    """How scores become P(win), and the log loss of each tested row where its block is calibrated by the others."""

    slope: float
    covariance: FloatArray
    venn_abers: VennAbers | None
    losses: FloatArray


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


def _base_rate_elsewhere(is_win: BoolArray, weight: FloatArray, folds: Folds) -> FloatArray:
    """For each tested row the share of wins in the other blocks; NaN for rows not tested."""
    share = np.full(len(is_win), np.nan)
    for block, (_, test) in enumerate(folds):
        others = _others(folds, block)
        share[test] = np.average(is_win[others], weights=weight[others])
    return share


def _calibrated(scores: FloatArray, is_win: BoolArray, weight: FloatArray, folds: Folds) -> _Calibration | None:
    """Calibration of the out-of-fold scores; None where they do not rise with the outcomes."""
    rows = _tested(folds)
    if fit_sigmoid(scores[rows], is_win[rows], weight[rows])[0] <= 0:
        return None
    slope, intercept = fit_sigmoid(scores[rows], is_win[rows], weight[rows], slope_prior=_SLOPE_PRIOR)
    covariance = sigmoid_covariance(scores[rows], weight[rows], slope, intercept, slope_sd=_SLOPE_PRIOR[1])
    base_rate = _base_rate_elsewhere(is_win, weight, folds)
    by_sigmoid, by_venn_abers = base_rate.copy(), base_rate.copy()
    is_rich = float(weight.sum()) >= _VENN_ABERS_FROM
    for block, (_, test) in enumerate(folds):
        others = _others(folds, block)
        columns = scores[others], is_win[others], weight[others]
        stretch = max(fit_sigmoid(*columns, slope_prior=_SLOPE_PRIOR)[0], 0.0)
        by_sigmoid[test] = expit(_log_odds(base_rate[test]) + stretch * scores[test])
        if is_rich:
            by_venn_abers[test] = VennAbers.fit(*columns).predict(scores[test])[0]
    losses = _row_losses(by_sigmoid, is_win, folds)
    if is_rich:
        losses_too = _row_losses(by_venn_abers, is_win, folds)
        if _wins(losses - losses_too, weight[rows], 0.0):
            return _Calibration(slope, covariance, VennAbers.fit(scores[rows], is_win[rows], weight[rows]), losses_too)
    return _Calibration(slope, covariance, None, losses)


def _row_losses(confidence: FloatArray, is_win: BoolArray, folds: Folds) -> FloatArray:
    """Log loss of each tested row, in nats."""
    rows = _tested(folds)
    p = np.clip(np.where(is_win[rows], confidence[rows], 1 - confidence[rows]), 1e-6, 1.0)
    return np.asarray(-np.log(p))


def _wins(saved: FloatArray, weight: FloatArray, n_standard_errors: float) -> bool:
    """Whether the weighted mean of what was saved lies above zero by so many standard errors."""
    mean = float(np.average(saved, weights=weight))
    error = np.sqrt(float(np.average((saved - mean) ** 2, weights=weight)) / float(weight.sum()))
    return bool(mean > n_standard_errors * error)


def _log_odds(p: ArrayLike) -> FloatArray:
    """Log-odds, of a certainty those of one in a million."""
    return np.asarray(logit(np.clip(p, 1e-6, 1 - 1e-6)))


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
