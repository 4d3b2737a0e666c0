"""Calibration of scores to probabilities, and how good probabilities are."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from qml_plugin.errors import DataError
from qml_plugin.records import FloatArray

BoolArray = NDArray[np.bool_]

_MAX_STEPS = 100
_TOLERANCE = 1e-10


def sigmoid(scores: ArrayLike, slope: float, intercept: float) -> FloatArray:
    """P(win) of log-odds `scores` under a fitted sigmoid, elementwise, 0..1."""
    return np.asarray(expit(slope * np.asarray(scores, dtype=np.float64) + intercept))


def fit_sigmoid(
    scores: FloatArray, is_win: BoolArray, weight: FloatArray, *, slope_prior: tuple[float, float] | None = None
) -> tuple[float, float]:
    """Slope and intercept of the sigmoid that turns scores into P(win).

    Parameters
    ----------
    scores : ndarray of shape (n_events,), log-odds or any other monotone score
        Scores the model gave to events it was not trained on; finite.
    is_win : ndarray of shape (n_events,), bool
        Outcomes.
    weight : ndarray of shape (n_events,), > 0
        Sample weights.
    slope_prior : (mean, standard deviation), optional
        A normal prior on the slope, for scores that already are log-odds; few events then leave the slope near the
        mean. Without it the slope is that of the events alone.

    Returns
    -------
    (slope, intercept) : float, float
        ``P(win) = 1 / (1 + exp(-(slope * score + intercept)))``. A slope of 0 or less says that the scores do not
        rank the outcomes; what to do then is the caller's choice. The slope is 0 where all scores are equal.

    Point in time
    -------------
    Reads all rows given: pass only outcomes already known.

    Raises
    ------
    DataError
        If an array is empty, lengths differ, a score is not finite or a weight is not positive.

    References
    ----------
    Platt (1999), Probabilistic outputs for support vector machines, §2.2: the targets are (W+ + 1) / (W+ + 2) and
    1 / (W- + 2), where W+ and W- are the summed weights of wins and losses. Lin, Lin & Weng (2007), A note on
    Platt's probabilistic outputs, Algorithm 1: Newton steps with backtracking. Differs in: sample weights, and
    scores standardised inside.
    """
    scores, is_win, weight = _columns(scores, is_win, weight)
    wins, losses = float(weight[is_win].sum()), float(weight[~is_win].sum())
    target = np.where(is_win, (wins + 1) / (wins + 2), 1 / (losses + 2))
    intercept = float(np.log((wins + 1) / (losses + 1)))
    if scores.min() == scores.max():
        share = float(np.average(target, weights=weight))
        return 0.0, float(np.log(share / (1 - share)))
    centre, spread = float(scores.mean()), float(scores.std())
    design = np.column_stack([(scores - centre) / spread, np.ones_like(scores)])
    mean, sd = slope_prior or (0.0, np.inf)
    beta = _newton(design, target, weight, np.array([0.0, intercept]), mean * spread, (sd * spread) ** -2)
    slope = float(beta[0]) / spread
    return slope, float(beta[1]) - slope * centre


def sigmoid_covariance(
    scores: FloatArray, weight: FloatArray, slope: float, intercept: float, *, slope_sd: float = np.inf
) -> FloatArray:
    """Covariance of a fitted slope and intercept.

    Parameters
    ----------
    scores : ndarray of shape (n_events,)
        The scores of the fit; finite.
    weight : ndarray of shape (n_events,), > 0
        Their weights. Average uniqueness makes the sum an effective number of events.
    slope, intercept : float
        The fit.
    slope_sd : float, default=inf
        Standard deviation of the prior on the slope.

    Returns
    -------
    ndarray of shape (2, 2)
        Inverse of the observed information, one half of an event added to its diagonal so that it exists.

    Point in time
    -------------
    Reads all rows given: pass only outcomes already known.
    """
    p = sigmoid(scores, slope, intercept)
    curvature = weight * p * (1 - p)
    cross = float((curvature * scores).sum())
    information = np.array([
        [float((curvature * scores**2).sum()) + slope_sd**-2 + 0.125, cross], [cross, float(curvature.sum()) + 0.125]
    ])  # fmt: skip
    return np.asarray(np.linalg.inv(information))


def log_loss(confidence: FloatArray, is_win: BoolArray, weight: FloatArray | None = None) -> float:
    """Mean negative log-likelihood of the outcomes, in nats: 0 is perfect, 0.69 is a coin.

    Parameters
    ----------
    confidence : ndarray of shape (n_events,), 0 < value < 1
        P(win) given beforehand.
    is_win : ndarray of shape (n_events,), bool
        Outcomes.
    weight : ndarray of shape (n_events,), > 0, optional
        Sample weights; equal without.

    Returns
    -------
    float, >= 0
        The (weighted) mean; infinite where a certainty was wrong.

    Point in time
    -------------
    Reads all rows given: pass only outcomes already known.

    Raises
    ------
    DataError
        As `brier_score`.
    """
    confidence, is_win, weight = _columns(confidence, is_win, weight)
    with np.errstate(divide="ignore"):
        loss = -np.log(np.where(is_win, confidence, 1 - confidence))
    return float(np.average(loss, weights=weight))


def brier_score(confidence: FloatArray, is_win: BoolArray, weight: FloatArray | None = None) -> float:
    """Mean squared distance of P(win) from the outcome: 0 is perfect, 0.25 is a coin.

    Parameters
    ----------
    confidence : ndarray of shape (n_events,), 0..1
        P(win) given beforehand.
    is_win : ndarray of shape (n_events,), bool
        Outcomes.
    weight : ndarray of shape (n_events,), > 0, optional
        Sample weights; equal without.

    Returns
    -------
    float, 0..1
        The (weighted) mean.

    Point in time
    -------------
    Reads all rows given: pass only outcomes already known.

    Raises
    ------
    DataError
        If an array is empty, lengths differ, a confidence is not finite or a weight is not positive.

    References
    ----------
    Brier (1950), Verification of forecasts expressed in terms of probability, Monthly Weather Review 78(1), eq. (2),
    halved: one of the two classes is counted.
    """
    confidence, is_win, weight = _columns(confidence, is_win, weight)
    return float(np.average((confidence - is_win) ** 2, weights=weight))


def brier_skill(
    confidence: FloatArray, is_win: BoolArray, reference: FloatArray, weight: FloatArray | None = None
) -> float:
    """Share of the reference's Brier score that the confidence saves.

    Parameters
    ----------
    confidence, reference : ndarray of shape (n_events,), 0..1
        P(win) to judge, and P(win) to beat, such as the base rate known at the time.
    is_win : ndarray of shape (n_events,), bool
        Outcomes.
    weight : ndarray of shape (n_events,), > 0, optional
        Sample weights; equal without.

    Returns
    -------
    float, at most 1
        ``1 - brier(confidence) / brier(reference)``; above 0 is better than the reference. NaN where the reference
        is perfect.

    Point in time
    -------------
    Reads all rows given: pass only outcomes already known.

    Raises
    ------
    DataError
        As `brier_score`.
    """
    to_beat = brier_score(reference, is_win, weight)
    achieved = brier_score(confidence, is_win, weight)
    return 1 - achieved / to_beat if to_beat > 0 else float("nan")


def _newton(
    design: FloatArray, target: FloatArray, weight: FloatArray, beta: FloatArray, mean: float, precision: float
) -> FloatArray:
    """Maximum of the weighted log-likelihood with a normal prior on the slope; strictly concave: targets in (0, 1)."""
    loss = _cross_entropy(design, target, weight, beta) + precision * (beta[0] - mean) ** 2 / 2
    for _ in range(_MAX_STEPS):
        p = expit(design[:, 0] * beta[0] + beta[1])
        gradient = (design * (weight * (p - target))[:, None]).sum(axis=0)
        gradient[0] += precision * (beta[0] - mean)
        curvature = weight * p * (1 - p)
        h11, h12, h22 = (
            float((curvature * design[:, 0] ** 2).sum()) + precision,
            float((curvature * design[:, 0]).sum()),
            float(curvature.sum()),
        )
        determinant = h11 * h22 - h12 * h12
        if np.abs(gradient).max() < _TOLERANCE * weight.sum() or determinant <= 0:
            break
        step = np.array([h22 * gradient[0] - h12 * gradient[1], h11 * gradient[1] - h12 * gradient[0]]) / determinant
        size = 1.0
        while size > _TOLERANCE:
            candidate = beta - size * step
            candidate_loss = _cross_entropy(design, target, weight, candidate)
            candidate_loss += precision * (candidate[0] - mean) ** 2 / 2
            if candidate_loss <= loss - 1e-4 * size * float((gradient * step).sum()):
                break
            size /= 2
        else:
            break
        beta, loss = candidate, candidate_loss
    return beta


def _cross_entropy(design: FloatArray, target: FloatArray, weight: FloatArray, beta: FloatArray) -> float:
    """Weighted negative log-likelihood of soft targets."""
    z = design[:, 0] * beta[0] + beta[1]
    return float((weight * (np.logaddexp(0, z) - target * z)).sum())


def _columns(
    values: FloatArray, is_win: BoolArray, weight: FloatArray | None
) -> tuple[FloatArray, BoolArray, FloatArray]:
    """The three columns, checked."""
    values = np.asarray(values, dtype=np.float64)
    is_win = np.asarray(is_win, dtype=np.bool_)
    weight = np.ones(len(values)) if weight is None else np.asarray(weight, dtype=np.float64)
    if not len(values) or not values.shape == is_win.shape == weight.shape:
        raise DataError(
            f"got {len(values)} scores, {len(is_win)} outcomes and {len(weight)} weights. "
            "Each event needs all three, and there must be at least one event."
        )
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise DataError(f"score {bad[0]} is {values[bad[0]]}. Scores must be finite; leave unscored events out.")
    bad = np.flatnonzero(~((weight > 0) & np.isfinite(weight)))
    if len(bad):
        raise DataError(f"weight {bad[0]} is {weight[bad[0]]}. Weights must be positive; leave the event out instead.")
    return values, is_win, weight
