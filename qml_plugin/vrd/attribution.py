"""What do outcomes hang on? Features at the entry against outcomes, with false discoveries held down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from scipy.stats import t as student

from qml_plugin.errors import DataError
from qml_plugin.gate.confidence import fit_confidence
from qml_plugin.labels.weights import average_uniqueness
from qml_plugin.records import FloatArray, IntArray
from qml_plugin.stats.calibration import log_loss
from qml_plugin.stats.inference import false_discovery_p_values
from qml_plugin.stats.splits import PurgedWalkForward

_FEWEST = 30


@dataclass(frozen=True, slots=True)
class FeatureRelation:
    """How one feature at the entry goes with the outcome.

    ``correlation`` is Spearman's, ``p_value`` two-sided for as many events as the unique ones amount to, ``q_value``
    adjusted for all features (Benjamini-Hochberg). NaN where the feature does not vary or is known too seldom.
    """

    name: str
    n_events: int
    correlation: float
    p_value: float
    q_value: float
    is_discovery: bool


@dataclass(frozen=True, slots=True, eq=False)
class Importance:
    """What a model loses when one feature is shuffled out of sample; arrays of shape (n_features,).

    ``mean`` is the rise of the log loss of later events, ``standard_error`` that over splits and shuffles. ``speaks`` names
    the learner of each split; a split whose base rate spoke hangs on nothing. ``contribution`` is the mean size of what
    each feature adds to the log-odds in the last split.
    """

    names: tuple[str, ...]
    mean: FloatArray
    standard_error: FloatArray
    contribution: FloatArray
    speaks: tuple[str, ...]
    log_loss: float
    log_loss_of_base_rate: float
    n_events: int


@dataclass(frozen=True, slots=True, eq=False)
class Attribution:
    """Relations of all features in order of their p-values, and the importances, None where they could not be had."""

    relations: tuple[FeatureRelation, ...]
    n_effective: float
    false_discovery_rate: float
    importance: Importance | None
    reason: str = ""


def feature_relations(
    features: ArrayLike,
    outcome: ArrayLike,
    known_at: IntArray,
    resolved_at: IntArray,
    names: Sequence[str],
    *,
    false_discovery_rate: float = 0.10,
) -> tuple[tuple[FeatureRelation, ...], float]:
    """Rank correlation of each feature at the entry with the outcome.

    Parameters
    ----------
    features : array of shape (n_events, n_features)
        As known at ``known_at``; NaN is missing and left out, feature by feature.
    outcome : array of shape (n_events,)
        Such as R; finite.
    known_at, resolved_at : ndarray of shape (n_events,), int64, UTC microseconds
        Interval of each outcome. Overlapping ones count as the fraction that is their own: the degrees of freedom are
        the sum of `average_uniqueness` less 2.
    names : sequence of n_features str
    false_discovery_rate : float, 0..1, default=0.10
        Expected share of false ones among the discoveries.

    Returns
    -------
    (relations, n_effective)
        Sorted by p-value.

    Point in time
    -------------
    Features belong to the moment before the outcome; the relation itself reads all outcomes: it judges a finished run.

    Raises
    ------
    DataError
        If lengths differ, there are fewer than 30 events, or an outcome is not finite.

    References
    ----------
    Benjamini & Hochberg (1995), Controlling the false discovery rate, JRSS B 57(1), §3.1. López de Prado (2018), Advances
    in Financial Machine Learning, §4.3-4.4 (uniqueness).
    """
    X, y = _events(features, outcome, known_at, resolved_at, names)
    uniqueness = average_uniqueness(known_at, resolved_at, [""] * len(y))
    found: list[tuple[str, int, float, float]] = []
    for j, name in enumerate(names):
        is_known = np.isfinite(X[:, j])
        n, r, p = int(is_known.sum()), np.nan, np.nan
        freedom = float(uniqueness[is_known].sum()) - 2
        if n >= _FEWEST and freedom > 0 and np.ptp(X[is_known, j]) > 0 and np.ptp(y[is_known]) > 0:
            r = float(np.corrcoef(rankdata(X[is_known, j]), rankdata(y[is_known]))[0, 1])
            ratio = abs(r) * np.sqrt(freedom / max(1e-300, 1 - r * r))
            p = float(2 * student.sf(ratio, freedom))
        found.append((name, n, r, p))
    q_values = false_discovery_p_values([p for *_, p in found])
    relations = [
        FeatureRelation(*one, float(q), bool(q <= false_discovery_rate)) for one, q in zip(found, q_values, strict=True)
    ]
    return tuple(sorted(relations, key=lambda one: (np.isnan(one.p_value), one.p_value))), float(uniqueness.sum())


def permutation_importance(
    features: ArrayLike,
    is_win: ArrayLike,
    known_at: IntArray,
    resolved_at: IntArray,
    names: Sequence[str],
    *,
    n_splits: int = 3,
    n_repeats: int = 5,
    seed: int,
) -> Importance:
    """What the gate's model loses, on later events, when one feature is shuffled.

    Parameters
    ----------
    features : array of shape (n_events, n_features)
        NaN is missing.
    is_win : array of shape (n_events,), bool
    known_at, resolved_at : ndarray of shape (n_events,), int64, UTC microseconds
    names : sequence of n_features str
    n_splits, n_repeats : int, default=3 and 5
        Purged walk-forward splits, and shuffles of each feature in each.
    seed : int

    Returns
    -------
    Importance

    Point in time
    -------------
    The model of a split was trained on outcomes that had resolved before its first event was decided.

    Raises
    ------
    DataError
        As `feature_relations`.
    MissingExtra
        If xgboost is not installed.

    References
    ----------
    Breiman (2001), Random forests, Machine Learning 45, §10; purged as in López de Prado (2018), §8.3.2.
    """
    X, won = _events(features, is_win, known_at, resolved_at, names)
    X32, won_bool = X.astype(np.float32), won > 0
    rng = np.random.default_rng(seed)
    losses: list[FloatArray] = []
    speaks, own, base = [], [], []
    contribution = np.zeros(len(names))
    for train, test in PurgedWalkForward(known_at, resolved_at, n_splits).split():
        if len(train) < _FEWEST or won_bool[train].all() or not won_bool[train].any():
            speaks.append("none: too few outcomes to learn from")
            continue
        weight = average_uniqueness(known_at[train], resolved_at[train], [""] * len(train))
        model = fit_confidence(X32[train], won_bool[train], weight, known_at[train], resolved_at[train], seed=seed)
        speaks.append(model.name)
        loss = log_loss(model.predict(X32[test]), won_bool[test])
        own.append(loss)
        base.append(log_loss(np.full(len(test), model.base_rate), won_bool[test]))
        for _ in range(n_repeats):
            losses.append(
                np.array([_shuffled_loss(model, X32[test], won_bool[test], j, rng) for j in range(len(names))]) - loss
            )
        if model.name != "base_rate":
            contribution = np.mean([np.abs(model.contributions(row)) for row in X32[test]], axis=0)
    table = np.array(losses) if losses else np.full((1, len(names)), np.nan)
    error = table.std(axis=0, ddof=1) / np.sqrt(len(table)) if len(table) > 1 else np.full(len(names), np.nan)
    return Importance(
        tuple(names), table.mean(axis=0), error, contribution, tuple(speaks),
        float(np.mean(own)) if own else np.nan, float(np.mean(base)) if base else np.nan, len(won),
    )  # fmt: skip


def attribute(
    features: ArrayLike,
    r_multiple: ArrayLike,
    known_at: IntArray,
    resolved_at: IntArray,
    names: Sequence[str],
    *,
    false_discovery_rate: float = 0.10,
    is_importance: bool = True,
    seed: int,
) -> Attribution:
    """Relations and importances of the features of resolved entries.

    Parameters
    ----------
    features, known_at, resolved_at, names, false_discovery_rate
        As `feature_relations`.
    r_multiple : array of shape (n_events,), R
        Outcomes; above 0 is a win.
    is_importance : bool, default=True
        Whether models are trained for the importances.
    seed : int

    Returns
    -------
    Attribution
        ``reason`` says why there are no importances, where there are none.

    Point in time
    -------------
    As its two parts.

    Raises
    ------
    DataError
        As `feature_relations`.
    """
    relations, n_effective = feature_relations(
        features, r_multiple, known_at, resolved_at, names, false_discovery_rate=false_discovery_rate
    )
    importance, reason = None, "not asked for"
    if is_importance:
        won = np.asarray(r_multiple, dtype=np.float64) > 0
        importance, reason = permutation_importance(features, won, known_at, resolved_at, names, seed=seed), ""
    return Attribution(relations, n_effective, false_discovery_rate, importance, reason)


def _shuffled_loss(
    model: object, X: NDArray[np.float32], won: NDArray[np.bool_], j: int, rng: np.random.Generator
) -> float:
    shuffled = X.copy()
    shuffled[:, j] = X[rng.permutation(len(X)), j]
    return float(log_loss(model.predict(shuffled), won))  # type: ignore[attr-defined]


def _events(
    features: ArrayLike, outcome: ArrayLike, known_at: IntArray, resolved_at: IntArray, names: Sequence[str]
) -> tuple[FloatArray, FloatArray]:
    X, y = np.asarray(features, dtype=np.float64), np.asarray(outcome, dtype=np.float64)
    if X.shape != (len(y), len(names)) or not len(known_at) == len(resolved_at) == len(y):
        raise DataError(
            f"features of shape {X.shape}, {len(y)} outcomes, {len(known_at)} and {len(resolved_at)} times, {len(names)} names "
            "refused. Each event needs its row, outcome and times, each column its name."
        )
    if len(y) < _FEWEST or not np.isfinite(y).all():
        raise DataError(f"{len(y)} outcomes refused. At least {_FEWEST} are needed, all known; leave open entries out.")
    return X, y
