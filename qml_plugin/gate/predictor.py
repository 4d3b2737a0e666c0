"""XGBoostPredictor: a confidence trained once on what is known now, frozen, and kept as a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from qml_plugin.clock import from_datetime, isoformat, to_micros
from qml_plugin.errors import DataError, FeatureMismatch, LookAheadError, NotFitted
from qml_plugin.gate.artefact import load_model, mismatch, save_model
from qml_plugin.gate.rungs import BoostedTrees, Float32Array, load_xgboost, one_thread
from qml_plugin.labels.weights import average_uniqueness
from qml_plugin.model_files import ModelCard
from qml_plugin.records import FloatArray, IntArray, TrainingRows
from qml_plugin.stats.calibration import brier_score, brier_skill, fit_sigmoid, sigmoid
from qml_plugin.stats.splits import purged_walk_forward

if TYPE_CHECKING:
    import xgboost

BoolArray = NDArray[np.bool_]
When = datetime | str | int

_N_BLOCKS = 5
_MIN_PER_CLASS = 10
_UNKNOWN_METRICS = (
    "n_scored", "brier", "brier_base_rate", "brier_skill", "auc", "accuracy", "accuracy_base_rate", "win_share",
)  # fmt: skip


class XGBoostPredictor:
    """P(win) of an entry from boosted trees that were trained once.

    The trees are calibrated by a sigmoid on scores that they gave out of fold, purged by the interval of each label. Where
    those scores do not rise with the outcomes, or are too few to tell, the base rate speaks, and ``card.speaks`` says so.

    Parameters
    ----------
    seed : int, default=0
        Seed of the sampling inside XGBoost.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = pd.DataFrame(rng.normal(size=(400, 2)).astype(np.float32), columns=["trend", "noise"])
    >>> y = (rng.random(400) < 1 / (1 + np.exp(-2 * X["trend"]))).astype(int)
    >>> hours = np.arange(400) * 3_600_000_000
    >>> predictor = XGBoostPredictor().train(X, y, known_at=hours, resolved_at=hours + 3_600_000_000)
    >>> predictor.predict({"trend": 2.0, "noise": 0.0}) > predictor.predict({"trend": -2.0, "noise": 0.0})
    True
    """

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed
        self._booster: xgboost.Booster | None = None
        self._card: ModelCard | None = None

    @property
    def card(self) -> ModelCard:
        """What the model was trained on, and how good its scores were out of fold (NotFitted before training)."""
        return self._fitted()[1]

    def train(
        self,
        X: pd.DataFrame | NDArray[Any],
        y: ArrayLike,
        *,
        known_at: ArrayLike | None = None,
        resolved_at: ArrayLike | None = None,
        group: Sequence[str] | None = None,
    ) -> Self:
        """Train on outcomes, replacing what was trained before.

        Parameters
        ----------
        X : DataFrame or ndarray of shape (n_events, n_features)
            From ``PatternRegistry.get_training_data()``, or rows chosen from it; then the rest is known. NaN is missing.
            Columns of an array are called ``"0"``, ``"1"``, …
        y : array of shape (n_events,)
            1 is a win, 0 a loss.
        known_at, resolved_at : array of shape (n_events,), int64, UTC microseconds, optional
            The interval of each label; both are needed for an `X` of your own.
        group : sequence of n_events str, optional
            Labels of different groups do not overlap; of an `X` of your own all are one group without it.

        Returns
        -------
        XGBoostPredictor
            Itself. `card` tells the figures.

        Point in time
        -------------
        Reads all rows given: `predict` then refuses entries from before ``card.trained_through``. The metrics are of
        scores from trees, a calibration and a base rate that had only seen outcomes known before the block they scored.

        Raises
        ------
        DataError
            If `X` and `y` do not belong together, a value is infinite, a result is neither 0 nor 1, or the interval of
            the labels is not known.
        MissingExtra
            If xgboost is not installed.

        References
        ----------
        Platt (1999), Probabilistic outputs for support vector machines, §2.2. López de Prado (2018), Advances in
        Financial Machine Learning, §4.3-4.4 (uniqueness) and §7.4.1 (purging).
        """
        load_xgboost()
        names, features = _table(X)
        is_win = _results(y, len(features))
        labels = _labels_of(X, len(features), known_at, resolved_at, group)
        versions = {name: labels.versions.get(name) for name in names}
        weight = average_uniqueness(labels.known_at, labels.resolved_at, labels.group)
        fold = _walk_forward(features, is_win, weight, labels.known_at, labels.resolved_at, self.seed)
        slope, intercept = _calibration(fold.score, is_win, weight)
        booster = BoostedTrees.fit(features, is_win, weight, self.seed).booster
        self._booster = booster
        self._card = ModelCard(
            features=versions,
            feature_set=labels.feature_set,
            n_rows=len(is_win),
            n_wins=int(is_win.sum()),
            effective_labels=float(weight.sum()),
            base_rate=float(np.average(is_win, weights=weight)),
            speaks="xgboost" if slope > 0 else "base_rate",
            slope=max(slope, 0.0),
            intercept=intercept if slope > 0 else 0.0,
            trained_through=int(labels.resolved_at.max()),
            trained_at=from_datetime(datetime.now(UTC)),
            seed=self.seed,
            metrics=_metrics(fold, is_win, weight),
            versions=_versions(),
        )
        return self

    def predict(
        self,
        row: Mapping[str, float | None] | pd.Series[Any] | pd.DataFrame,
        *,
        as_of: When | Sequence[When] | pd.DatetimeIndex | None = None,
    ) -> float | FloatArray:
        """Calibrated P(win) of an entry, or of many.

        Parameters
        ----------
        row : mapping, Series or DataFrame
            The features of one entry by name, or of an entry a row. None and NaN are missing values, but no feature may be
            left out. A Series or DataFrame must hold them in the order of the training.
        as_of : datetime, str or int, or one for each row, optional
            The moment of the entry; naive is UTC, an int is UTC microseconds.

        Returns
        -------
        float, or ndarray of shape (n_rows,) for a DataFrame, 0..1
            Never NaN.

        Point in time
        -------------
        Reads the row and what was known at ``card.trained_through``. Without `as_of` nothing can be refused: pass it
        wherever entries of the past are scored.

        Raises
        ------
        LookAheadError
            If an entry lies before ``card.trained_through``.
        FeatureMismatch
            If the features are not those of the training, in their order; the message names them.
        DataError
            If a value is infinite or no number.
        NotFitted
            If there is no model yet.
        """
        booster, card = self._fitted()
        features = _row_features(row, card)
        if as_of is not None:
            _refuse_early(as_of, card.trained_through)
        if card.speaks == "xgboost":
            confidence = sigmoid(_margin(booster, features), card.slope, card.intercept)
        else:
            confidence = np.full(len(features), card.base_rate)
        return confidence if isinstance(row, pd.DataFrame) else float(confidence[0])

    def save(self, path: Path | str) -> ModelCard:
        """Write the model and its card beside it, whole or not at all.

        Parameters
        ----------
        path : path
            ``name.ubj`` or ``name.json``; the card becomes ``name.card.json``.

        Returns
        -------
        ModelCard
            With the hash of the file: what ``PatternRegistry.register_model`` asks for.

        Raises
        ------
        ModelLoadError
            If the suffix is neither.
        DataError
            If it cannot be written; an earlier model there is as it was.
        NotFitted
            If there is no model yet.
        """
        booster, card = self._fitted()
        self._card = save_model(booster, card, Path(path))
        return self._card

    @classmethod
    def load(cls, path: Path | str, *, card: ModelCard | None = None, force: bool = False) -> XGBoostPredictor:
        """The model that `save` wrote; see `qml_plugin.gate.artefact.load_model` for what is refused.

        Parameters
        ----------
        path : path
        card : ModelCard, optional
            The registry's card (``get_model(id)["card"]``); the one beside the file by default.
        force : bool, default=False
            Whether to try a model of a newer XGBoost, or of features that this version computes otherwise.

        Raises
        ------
        ModelLoadError
            If the file or its card is missing, damaged, a pickle, or of a newer XGBoost.
        FeatureMismatch
            If the features of the model are not those of its card, or of this version.
        """
        booster, card = load_model(Path(path), card, force=force)
        predictor = cls(seed=card.seed)
        predictor._booster, predictor._card = booster, card
        return predictor

    def _fitted(self) -> tuple[xgboost.Booster, ModelCard]:
        if self._booster is None or self._card is None:
            raise NotFitted("the predictor has no model yet. Call train(X, y) first, or XGBoostPredictor.load(path).")
        return self._booster, self._card


@dataclass(frozen=True, slots=True)
class _Labels:
    """When each label began and ended, of which series it is, and what the features are."""

    known_at: IntArray
    resolved_at: IntArray
    group: Sequence[str]
    versions: Mapping[str, str | None]
    feature_set: str | None


@dataclass(frozen=True, slots=True)
class _OutOfFold:
    """What the past said of each event: margin of the trees, P(win) and base rate; NaN where it could not say."""

    score: FloatArray
    confidence: FloatArray
    base_rate: FloatArray


def _walk_forward(
    features: Float32Array, is_win: BoolArray, weight: FloatArray, known_at: IntArray, resolved_at: IntArray, seed: int
) -> _OutOfFold:
    """Scores of successive blocks, each from trees and a sigmoid that saw only what had resolved before the block."""
    score, confidence, base_rate = (np.full(len(is_win), np.nan) for _ in range(3))
    if len(is_win) <= _N_BLOCKS:
        return _OutOfFold(score, confidence, base_rate)
    for train, test in purged_walk_forward(known_at, resolved_at, _N_BLOCKS):
        if not _has_both_classes(is_win[train]):
            continue
        base_rate[test] = np.average(is_win[train], weights=weight[train])
        scored = train[np.isfinite(score[train])]
        booster = BoostedTrees.fit(features[train], is_win[train], weight[train], seed).booster
        score[test] = _margin(booster, features[test])
        if len(scored):
            slope, intercept = _calibration(score[scored], is_win[scored], weight[scored])
            confidence[test] = sigmoid(score[test], slope, intercept) if slope > 0 else base_rate[test]
    return _OutOfFold(score, confidence, base_rate)


def _calibration(score: FloatArray, is_win: BoolArray, weight: FloatArray) -> tuple[float, float]:
    """Sigmoid of the scores that are there; a slope of 0 where they do not rise with the outcomes, or are too few."""
    rows = np.isfinite(score)
    if not _has_both_classes(is_win[rows]):
        return 0.0, 0.0
    slope, intercept = fit_sigmoid(score[rows], is_win[rows], weight[rows])
    return max(float(slope), 0.0), float(intercept)


def _has_both_classes(is_win: BoolArray) -> bool:
    n_wins = int(np.count_nonzero(is_win))
    return min(n_wins, len(is_win) - n_wins) >= _MIN_PER_CLASS


def _metrics(fold: _OutOfFold, is_win: BoolArray, weight: FloatArray) -> dict[str, float]:
    """How good the out-of-fold confidences were beside the base rate known at the time, weighted by uniqueness.

    ``accuracy`` is the share of outcomes on the side of 0.5 where the confidence was; ``accuracy_base_rate`` the same of
    always saying what had been more frequent until then.
    """
    rows = np.isfinite(fold.confidence)
    confidence, base, win, w = fold.confidence[rows], fold.base_rate[rows], is_win[rows], weight[rows]
    if not len(win):
        return dict.fromkeys(_UNKNOWN_METRICS, float("nan")) | {"n_scored": 0.0}
    values = (
        float(len(win)), brier_score(confidence, win, w), brier_score(base, win, w), brier_skill(confidence, win, base, w),
        _auc(confidence, win, w), float(np.average((confidence >= 0.5) == win, weights=w)),
        float(np.average((base >= 0.5) == win, weights=w)), float(np.average(win, weights=w)),
    )  # fmt: skip
    return dict(zip(_UNKNOWN_METRICS, values, strict=True))


def _auc(confidence: FloatArray, is_win: BoolArray, weight: FloatArray) -> float:
    """Chance that a win was given more than a loss; NaN where there is only one of them."""
    from sklearn.metrics import roc_auc_score

    if is_win.all() or not is_win.any():
        return float("nan")
    return float(roc_auc_score(is_win, confidence, sample_weight=weight))


def _margin(booster: xgboost.Booster, features: Float32Array) -> FloatArray:
    """Log-odds of the trees, each row by itself."""
    with one_thread():
        return np.asarray(booster.inplace_predict(features, predict_type="margin"), dtype=np.float64)


def _table(X: pd.DataFrame | NDArray[Any]) -> tuple[list[str], Float32Array]:
    """Names and values of the features to train on."""
    names = [str(name) for name in X.columns] if isinstance(X, pd.DataFrame) else None
    features = _float32(X)
    if features.ndim != 2 or 0 in features.shape:
        raise DataError(
            f"X has the shape {features.shape}. At least one event (rows) and one feature (columns) are needed."
        )
    names = names or [str(place) for place in range(features.shape[1])]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"X has two columns called {twice!r}. Each feature has one name.")
    return names, _without_infinity(features, names)


def _results(y: ArrayLike, n_events: int) -> BoolArray:
    results = np.asarray(y)
    if results.shape != (n_events,):
        raise DataError(f"X has {n_events} rows and y the shape {results.shape}. Each event needs a result: 1 or 0.")
    bad = ~np.isin(results, (0, 1))
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(f"y[{row}] is {results[row]!r}. A result is 1 (win) or 0 (loss); leave open entries out.")
    return results.astype(np.bool_)


def _labels_of(
    X: pd.DataFrame | NDArray[Any],
    n: int,
    known_at: ArrayLike | None,
    resolved_at: ArrayLike | None,
    group: Sequence[str] | None,
) -> _Labels:
    """The labels' intervals: as given, or those that came with X from a registry."""
    if known_at is not None and resolved_at is not None:
        begin, end = (np.asarray(times, dtype=np.int64) for times in (known_at, resolved_at))
        groups = [""] * n if group is None else list(group)
        if not begin.shape == end.shape == (n,) or len(groups) != n:
            raise DataError(
                f"X has {n} rows, known_at {begin.size}, resolved_at {end.size} and group {len(groups)}. Each event needs all."
            )
        return _Labels(begin, end, groups, {}, None)
    rows = X.attrs.get("rows") if isinstance(X, pd.DataFrame) else None
    if (
        not isinstance(X, pd.DataFrame)
        or not isinstance(rows, TrainingRows)
        or known_at is not None
        or resolved_at is not None
        or group is not None
    ):
        raise DataError(
            "the interval of the labels is not known, and without it what a model is judged by cannot be purged of what it "
            "was trained on. Pass X from PatternRegistry.get_training_data() (with its attrs), or both known_at= and resolved_at=."
        )
    place = {pattern_id: at for at, pattern_id in enumerate(rows.pattern_id)}
    if stray := [pattern_id for pattern_id in X.index if pattern_id not in place]:
        raise DataError(
            f"X has a row {stray[0]!r} that is not among the patterns it came with. Pass its known_at= and resolved_at=."
        )
    at = np.array([place[pattern_id] for pattern_id in X.index], dtype=np.intp)
    begin = rows.known_at[at]
    # A label by hand may carry an earlier clock than the bars it speaks of; it cannot be known before its entry.
    end = np.maximum(rows.resolved_at[at], begin)
    groups = [f"{rows.symbol[i]}|{rows.timeframe[i]}" for i in at]
    is_whole = list(X.columns) == list(rows.versions)
    return _Labels(begin, end, groups, rows.versions, X.attrs.get("feature_set") if is_whole else None)


def _row_features(row: Mapping[str, float | None] | pd.Series[Any] | pd.DataFrame, card: ModelCard) -> Float32Array:
    """Values to score, once their names are found to be the model's."""
    names = list(card.features)
    if isinstance(row, pd.DataFrame):
        given, values = list(row.columns), _float32(row)
    elif isinstance(row, pd.Series):
        given, values = list(row.index), _float32(row)[None]
    elif isinstance(row, Mapping):
        # A mapping has no order of its own.
        given = [name for name in names if name in row] + [name for name in row if name not in card.features]
        values = _float32([[_number(name, row[name]) for name in given]])
    else:
        raise DataError(f"row is a {type(row).__name__}. Pass a mapping or Series of features by name, or a DataFrame.")
    if fault := mismatch(names, given):
        raise FeatureMismatch(f"the row is refused: {fault}. Pass the features of the model's card, in its order.")
    theirs = row.attrs.get("feature_set") if isinstance(row, (pd.DataFrame, pd.Series)) else None
    if None not in (theirs, card.feature_set) and theirs != card.feature_set:
        raise FeatureMismatch(
            f"the row is of feature set {theirs}, the model of {card.feature_set}: the same names, computed otherwise. "
            "Train again, or score rows of the model's set."
        )
    return _without_infinity(values, names)


def _float32(values: Any) -> Float32Array:
    """As XGBoost takes them; what lies beyond the range of float32 becomes infinite."""
    if isinstance(values, (pd.DataFrame, np.ndarray)):
        values = np.asarray(values)
        if values.dtype == np.float32:
            return np.ascontiguousarray(values)
    try:
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(np.asarray(values, dtype=np.float64), dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"a feature is no number: {error}. Features are numbers, or NaN where there is no value."
        ) from error


def _number(name: str, value: object) -> float:
    if value is None:
        return np.nan
    if not isinstance(value, (bool, int, float, np.integer, np.floating, np.bool_)):
        raise DataError(f"feature {name!r} is {value!r}. It must be a number, or None where there is no value.")
    return float(value)


def _without_infinity(features: Float32Array, names: Sequence[str]) -> Float32Array:
    bad = np.isinf(features)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise DataError(
            f"feature {names[column]!r} of row {row} is infinite or beyond float32. A feature is a finite number, or NaN where it "
            "has no value; mend the feature."
        )
    return features


def _refuse_early(as_of: object, trained_through: int) -> None:
    """Refuse entries made before the last outcome that the model has seen."""
    if isinstance(as_of, (str, datetime, int, np.integer)):
        as_of = [as_of]
    times = [int(at) if isinstance(at, (int, np.integer)) else _micros(at) for at in as_of]  # type: ignore[attr-defined]
    if times and min(times) < trained_through:
        raise LookAheadError(
            f"an entry of {isoformat(min(times))} was to be scored by a model that has seen outcomes known at "
            f"{isoformat(trained_through)}. A frozen model may only score what comes after; train one with as_of= before the entry."
        )


def _micros(at: Any) -> int:
    try:
        index = pd.DatetimeIndex([pd.Timestamp(at)])
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(
            f"as_of is {at!r}. It must be a datetime, a text such as '2024-03-31 12:00', or UTC microseconds."
        ) from error
    if index.hasnans:
        raise DataError(f"as_of is {at!r}. It must be a moment in time.")
    return int(to_micros(index)[0])


def _versions() -> dict[str, str]:
    """Versions of what made the model; of XGBoost whatever distribution it came from."""
    from qml_plugin import __version__

    found = {"qml-plugin": __version__, "xgboost": str(load_xgboost().__version__)}
    return found | {name: metadata.version(name) for name in ("numpy", "pandas", "scikit-learn")}
