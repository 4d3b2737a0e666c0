"""The two learners of the model ladder: features in, uncalibrated log-odds of a win out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from qml_plugin.errors import MissingExtra
from qml_plugin.records import FloatArray
from qml_plugin.retrieval.scaler import Scaler

if TYPE_CHECKING:
    import xgboost
    from threadpoolctl import ThreadpoolController

Float32Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

_ROUNDS = 120
_MAX_BIN = 64
_TREES: dict[str, object] = {
    "objective": "binary:logistic",
    "tree_method": "hist",
    "max_depth": 3,
    "eta": 0.05,
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
        """Uncalibrated log-odds of a win, shape (n_rows,); each depends on its own row only."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Logistic:
    """L2 logistic regression on median-imputed, robust-scaled, clipped features."""

    scaler: Scaler
    slopes: FloatArray
    intercept: float

    @classmethod
    def fit(cls, features: Float32Array, is_win: BoolArray, weight: FloatArray, seed: int) -> Logistic:
        """Logistic regression; both classes must be present.

        The penalty is a prior under which the log-odds of an entry have a standard deviation of 1, however many
        features there are: each slope has the prior variance 1 / n_features.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        scaler = Scaler.fit(features, [str(column) for column in range(features.shape[1])])
        n_usable = max(1, int(np.count_nonzero(scaler.weight)))
        regression = LogisticRegression(C=1 / n_usable, solver="lbfgs", max_iter=1000, random_state=seed)
        with one_thread(), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            regression.fit(scaler.transform(features).astype(np.float64), is_win, sample_weight=weight / weight.mean())
        return cls(scaler, np.asarray(regression.coef_[0], dtype=np.float64), float(regression.intercept_[0]))

    def score(self, features: Float32Array) -> FloatArray:
        """Log-odds; an elementwise sum, since a matrix product rounds by the number of rows."""
        return np.asarray((self.scaler.transform(features) * self.slopes).sum(axis=1) + self.intercept)


@dataclass(frozen=True, slots=True, eq=False)
class BoostedTrees:
    """A small XGBoost ensemble; missing values are passed through."""

    booster: xgboost.Booster

    @classmethod
    def fit(cls, features: Float32Array, is_win: BoolArray, weight: FloatArray, seed: int) -> BoostedTrees:
        """Boosted trees that start at the weighted base rate."""
        xgboost = load_xgboost()
        weight = weight / weight.mean()
        start = float(np.clip(np.average(is_win, weights=weight), 0.01, 0.99))
        with one_thread():
            data = xgboost.QuantileDMatrix(features, label=is_win, weight=weight, max_bin=_MAX_BIN, nthread=1)
            return cls(xgboost.train(_TREES | {"seed": seed, "base_score": start}, data, num_boost_round=_ROUNDS))

    def score(self, features: Float32Array) -> FloatArray:
        """Margin of the ensemble."""
        with one_thread():
            margin = self.booster.inplace_predict(features, predict_type="margin")
        return np.asarray(margin, dtype=np.float64)

    def contributions(self, row: Float32Array) -> FloatArray:
        """What each feature of one row adds to the margin, bias left out."""
        xgboost = load_xgboost()
        with one_thread():
            matrix = xgboost.DMatrix(row[None], nthread=1)
            contributions = self.booster.predict(matrix, pred_contribs=True)
        return np.asarray(contributions[0, :-1], dtype=np.float64)


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
