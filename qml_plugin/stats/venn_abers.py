"""Venn-Abers calibration: probabilities that need no shape of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qml_plugin.errors import DataError
from qml_plugin.records import FloatArray

_MOST_GROUPS = 128


@dataclass(frozen=True, slots=True, eq=False)
class VennAbers:
    """Two probabilities for any score: what isotonic regression says if the event loses, and if it wins.

    ``edges`` are the scores of the groups of the fit, ascending; ``if_loss`` and ``if_win`` hold the probabilities of a
    score at each edge and, between them, of one in each gap: 2 n + 1 places.
    """

    edges: FloatArray
    if_loss: FloatArray
    if_win: FloatArray

    @classmethod
    def fit(cls, scores: FloatArray, is_win: NDArray[np.bool_], weight: FloatArray) -> VennAbers:
        """Calibration of scores by their outcomes.

        Parameters
        ----------
        scores : ndarray of shape (n_events,)
            Scores the model gave to events it was not trained on; finite. Higher should mean likelier.
        is_win : ndarray of shape (n_events,), bool
            Outcomes.
        weight : ndarray of shape (n_events,), > 0
            Sample weights; the event to come has the mean weight.

        Returns
        -------
        VennAbers
            Above 128 distinct scores, neighbours are fused into 128 groups of nearly equal weight.

        Point in time
        -------------
        Reads all rows given: pass only outcomes already known.

        Raises
        ------
        DataError
            If there are no events, lengths differ, a score is not finite or a weight is not positive.

        Cost
        ----
        O(groups²) after sorting.

        References
        ----------
        Vovk & Petej (2014), Venn-Abers predictors, §4 (inductive). Differs in: sample weights, and groups.
        """
        scores, weight = np.asarray(scores, dtype=np.float64), np.asarray(weight, dtype=np.float64)
        if not len(scores) or not scores.shape == np.shape(is_win) == weight.shape:
            raise DataError(
                f"got {len(scores)} scores, {len(is_win)} outcomes and {len(weight)} weights. "
                "Each event needs all three, and there must be at least one event."
            )
        if not np.isfinite(scores).all() or not (weight > 0).all():
            raise DataError("a score is not finite or a weight not positive. Leave such events out.")
        edges, mass, wins = _grouped(scores, np.asarray(is_win, dtype=np.float64), weight)
        own = float(weight.mean())
        both = np.array([_isotonic_at(mass, wins, place, own) for place in range(2 * len(edges) + 1)])
        return cls(edges, both[:, 0].copy(), both[:, 1].copy())

    def predict(self, scores: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Confidence, and the two probabilities that it lies between.

        Parameters
        ----------
        scores : ndarray of shape (n_rows,)

        Returns
        -------
        (confidence, low, high) : ndarrays of shape (n_rows,), 0..1
            ``low`` is the probability if the event loses, ``high`` if it wins; the confidence
            ``high / (1 - low + high)`` is the one that makes log loss smallest in the worse of the two cases.

        Point in time
        -------------
        Value t reads scores[t] and the rows of the fit only.
        """
        scores = np.asarray(scores, dtype=np.float64)
        left = np.searchsorted(self.edges, scores, side="left")
        is_edge = (left < len(self.edges)) & (self.edges[np.minimum(left, len(self.edges) - 1)] == scores)
        place = 2 * left + is_edge
        low, high = self.if_loss[place], self.if_win[place]
        return high / (1 - low + high), low, high


def _grouped(scores: FloatArray, wins: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean score, weight and won weight of each group of equal or neighbouring scores, ascending."""
    distinct, member = np.unique(scores, return_inverse=True)
    if len(distinct) > _MOST_GROUPS:
        mass = np.bincount(member, weights=weight)
        middle = np.cumsum(mass) - mass / 2
        member = np.floor(_MOST_GROUPS * middle / mass.sum()).astype(np.int64)[member]
        _, member = np.unique(member, return_inverse=True)
    mass = np.bincount(member, weights=weight)
    won = np.bincount(member, weights=weight * wins)
    edges = np.bincount(member, weights=weight * scores) / mass
    return edges.astype(np.float64), mass.astype(np.float64), won.astype(np.float64)


def _isotonic_at(mass: FloatArray, wins: FloatArray, place: int, own: float) -> tuple[float, float]:
    """Isotonic regression at one place with one more event of weight `own` there, if it loses and if it wins."""
    index, is_edge = divmod(place, 2)
    before, after = slice(None, index), slice(index + is_edge, None)
    at_mass, at_wins = (mass[index], wins[index]) if is_edge else (0.0, 0.0)
    # Min-max formula: the largest of the smallest means of runs that contain the place.
    cumulative = np.cumsum(np.concatenate([[0.0], mass[before], [at_mass + own], mass[after]]))
    run = cumulative[index + 1 :] - cumulative[: index + 1, None]
    at_place = []
    for outcome in (0.0, 1.0):
        cumulative = np.cumsum(np.concatenate([[0.0], wins[before], [at_wins + own * outcome], wins[after]]))
        rise = cumulative[index + 1 :] - cumulative[: index + 1, None]
        at_place.append(float((rise / run).min(axis=1).max()))
    return at_place[0], at_place[1]
