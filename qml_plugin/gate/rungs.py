"""The two learners of the model ladder: features in, uncalibrated log-odds of a win, relative to the base rate, out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from qml_plugin.errors import MissingExtra
from qml_plugin.records import FloatArray
from qml_plugin.retrieval.scaler import Scaler

if TYPE_CHECKING:
    import xgboost
    from threadpoolctl import ThreadpoolController

Float32Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

_TOTAL_VARIANCES = (0.02, 0.06, 0.2, 0.6, 2.0)
_NUMBERS_REAL = (1, 2, 5, 10, 20, 50, 100, 200, 500)
_LEAST_VARIANCE = 1e-6
_MAX_STEPS = 30
_TOLERANCE = 1e-9
_ROUNDS = 60
_MAX_BIN = 64
_TREES: dict[str, object] = {
    "objective": "binary:logistic",
    "tree_method": "hist",
    "max_depth": 3,
    "eta": 0.1,
    "subsample": 0.8,
    "colsample_bytree": 0.5,
    "min_child_weight": 5,
    "max_bin": _MAX_BIN,
    "nthread": 1,
    "verbosity": 0,
}


class Rung(Protocol):
    """A fitted learner."""

    def score(self, features: Float32Array) -> FloatArray:
        """Uncalibrated log-odds less those of the base rate, shape (n_rows,); each depends on its own row only."""
        ...

    def contributions(self, features: Float32Array) -> FloatArray:
        """What each feature of each row adds to its score, shape of `features`; each depends on its own row only."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Logistic:
    """L2 logistic regression whose penalty is learnt feature by feature, on imputed, scaled, clipped features."""

    scaler: Scaler
    centre: FloatArray
    slopes: FloatArray

    @classmethod
    def fit(cls, features: Float32Array, is_win: BoolArray, weight: FloatArray, seed: int) -> Logistic:
        """Logistic regression; both classes must be present. The weights must add up to an effective count.

        Each slope has a normal prior of its own, whose variance `_prior_variance` learns from all of them: many small
        effects, a few large ones among many of none, or nothing at all. Without that, forty features that say nothing
        drown five that do.
        """
        del seed  # nothing is drawn
        scaler = Scaler.fit(features, [str(column) for column in range(features.shape[1])])
        with one_thread():
            inputs = scaler.transform(features).astype(np.float64)
            centre = np.average(inputs, axis=0, weights=weight)
            variance = _prior_variance(inputs - centre, is_win, weight)
            slopes = np.zeros(len(centre))
            used = variance > _LEAST_VARIANCE
            if used.any():
                slopes[used] = _penalised_slopes(inputs[:, used] - centre[used], is_win, weight, variance[used])
        return cls(scaler, centre, slopes)

    def score(self, features: Float32Array) -> FloatArray:
        """Log-odds relative to the base rate; an elementwise sum, as a matrix product rounds by the number of rows."""
        return np.asarray(self.contributions(features).sum(axis=1))

    def contributions(self, features: Float32Array) -> FloatArray:
        """Slope times distance from the centre: the exact Shapley values of a linear score."""
        return np.asarray((self.scaler.transform(features) - self.centre) * self.slopes)


def _prior_variance(inputs: FloatArray, is_win: BoolArray, weight: FloatArray) -> FloatArray:
    """Variance of the prior of each slope, learnt from how far each feature by itself tells wins from losses.

    Two groups of features: of `n_real` the slopes are normal, those of the others are zero. The answer is averaged over
    a grid of `n_real` and of the variance that the log-odds would have altogether, each point weighted by the
    likelihood of what all features show; one point of the grid says that there is nothing.
    """
    share = float(np.average(is_win, weights=weight))
    gradient = (weight * (is_win - share)) @ inputs
    information = share * (1 - share) * (weight @ inputs**2)
    n_features = int(np.count_nonzero(information > 0))
    evidence, variances = [0.0], [np.zeros(len(gradient))]
    for total in _TOTAL_VARIANCES:
        for n_real in sorted({min(n, n_features) for n in _NUMBERS_REAL} - {0}):
            real_share, variance = n_real / n_features, total / n_real
            shrinkage = information * variance / (1 + information * variance)
            squared = np.divide(gradient**2, information, out=np.zeros_like(gradient), where=information > 0)
            real = np.log(real_share) + 0.5 * (squared * shrinkage - np.log1p(information * variance))
            none = np.log1p(-real_share) if real_share < 1 else -np.inf
            either = np.logaddexp(real, none)
            evidence.append(float(either[information > 0].sum()))
            variances.append(np.where(information > 0, np.exp(real - either) * variance, 0.0))
    likelihood = np.exp(np.array(evidence) - max(evidence))
    return np.asarray((likelihood / likelihood.sum()) @ np.array(variances))


def _penalised_slopes(inputs: FloatArray, is_win: BoolArray, weight: FloatArray, variance: FloatArray) -> FloatArray:
    """Mode of the posterior under normal priors of the given variances, by Newton's method; the intercept is free."""
    design = np.column_stack([inputs, np.ones(len(inputs))])
    precision = np.append(1 / variance, 0.0)
    share = float(np.average(is_win, weights=weight))
    beta = np.zeros(design.shape[1])
    beta[-1] = np.log(share / (1 - share))
    for _ in range(_MAX_STEPS):
        p = expit(design @ beta)
        gradient = design.T @ (weight * (p - is_win)) + precision * beta
        curvature = (design * (weight * p * (1 - p))[:, None]).T @ design + np.diag(precision)
        step = np.linalg.solve(curvature, gradient)
        beta = beta - step * min(1.0, 4.0 / max(float(np.abs(design @ step).max()), 1e-12))
        if np.abs(step).max() < _TOLERANCE:
            break
    return np.asarray(beta[:-1])


@dataclass(frozen=True, slots=True, eq=False)
class BoostedTrees:
    """A small XGBoost ensemble; missing values are passed through."""

    booster: xgboost.Booster
    start: float

    @classmethod
    def fit(cls, features: Float32Array, is_win: BoolArray, weight: FloatArray, seed: int) -> BoostedTrees:
        """Boosted trees that start at the weighted base rate."""
        xgboost = load_xgboost()
        weight = weight / weight.mean()
        start = float(np.clip(np.average(is_win, weights=weight), 0.01, 0.99))
        with one_thread():
            data = xgboost.QuantileDMatrix(features, label=is_win, weight=weight, max_bin=_MAX_BIN, nthread=1)
            booster = xgboost.Booster(_TREES | {"seed": seed, "base_score": start}, [data])
            for number in range(_ROUNDS):  # xgboost.train adds callbacks to this, and forgets its training rows
                booster.update(data, number)
            return cls(booster.reset(), float(logit(start)))

    def score(self, features: Float32Array) -> FloatArray:
        """Margin of the ensemble less where it started."""
        with one_thread():
            margin = self.booster.inplace_predict(features, predict_type="margin")
        return np.asarray(margin, dtype=np.float64) - self.start

    def contributions(self, features: Float32Array) -> FloatArray:
        """Exact Shapley values of the trees, bias left out."""
        xgboost = load_xgboost()
        with one_thread():
            matrix = xgboost.DMatrix(features, nthread=1)
            contributions = self.booster.predict(matrix, pred_contribs=True)
        return np.asarray(contributions[:, :-1], dtype=np.float64)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread in every numerical library.

    BLAS adds up in another order for each number of threads, and a result is to be the same everywhere. And in a
    process that forked from one with OpenMP threads, asking for more than one waits for threads that are not there;
    XGBoost asks for them while it reads labels and weights, whatever ``nthread`` says.
    """
    with _thread_pools().limit(limits=1):
        yield


@cache
def _thread_pools() -> ThreadpoolController:
    """Handles of the libraries, found once all of them are loaded."""
    import sklearn.linear_model  # noqa: F401
    from threadpoolctl import ThreadpoolController

    load_xgboost()
    return ThreadpoolController()


def load_xgboost() -> ModuleType:
    """The library, or how to install it."""
    try:
        import xgboost
    except ModuleNotFoundError as error:
        if error.name != "xgboost":
            raise
        raise MissingExtra.for_module("xgboost", "xgboost") from error
    return xgboost
