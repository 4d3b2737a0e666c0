"""Whether the confidence has earned the right to skip entries."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qml_plugin.errors import DataError
from qml_plugin.records import FloatArray
from qml_plugin.stats.calibration import brier_skill
from qml_plugin.stats.resampling import bootstrap_lower_bound

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Requirements:
    """What past scores must show before the gate may skip an entry.

    ``min_labels`` counts effective labels (summed weights), ``min_per_class`` wins and losses each. ``level`` is the
    one-sided error of the bootstrap bound of the R saved, over ``n_resamples`` resamples; it is small because a run
    asks again whenever its scores have grown by a fifth, and each look is a chance to err.
    """

    min_labels: float = 200.0
    min_per_class: int = 50
    level: float = 0.02
    n_resamples: int = 1000


REQUIREMENTS = Requirements()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the gate is active, and why.

    ``reason`` is ``"active"``, or the first requirement not met and the numbers seen. ``brier_skill`` (a share) and
    ``saved_lower_bound`` (R, summed over all past entries) are NaN where an earlier requirement already failed.
    """

    is_active: bool
    reason: str
    effective_labels: float
    brier_skill: float = math.nan
    saved_lower_bound: float = math.nan


def judge(
    confidence: FloatArray,
    threshold: float,
    is_win: BoolArray,
    r_multiple: FloatArray,
    weight: FloatArray,
    reference: FloatArray,
    *,
    seed: int,
    requirements: Requirements = REQUIREMENTS,
) -> Verdict:
    """Verdict on the scores given so far, each made before its outcome was known.

    Active only if all hold, asked in this order: enough effective labels; enough wins and enough losses; Brier skill
    against the base rate above 0; and the lower bound of the total R saved by skipping every entry whose confidence
    lies below the threshold above 0.

    Parameters
    ----------
    confidence : ndarray of shape (n_entries,), 0..1
        P(win) as given at the time, in order of time; finite.
    threshold : float, 0..1
        Entries with a lower confidence would be skipped.
    is_win : ndarray of shape (n_entries,), bool
        Outcomes.
    r_multiple : ndarray of shape (n_entries,), R
        Outcomes in units of planned risk; finite.
    weight : ndarray of shape (n_entries,), > 0
        Average uniqueness.
    reference : ndarray of shape (n_entries,), 0..1
        The base rate known when each confidence was given.
    seed : int
        Seed of the bootstrap.
    requirements : Requirements
        The limits.

    Returns
    -------
    Verdict
        With a reason: ``few_labels``, ``one_class``, ``no_skill``, ``no_gain`` and numbers, or ``active``.

    Point in time
    -------------
    Reads all rows given: pass only entries resolved by now.

    Raises
    ------
    DataError
        If lengths differ, or a number is not finite or out of its range.
    """
    confidence, r_multiple, weight, reference = (
        np.asarray(column, dtype=np.float64) for column in (confidence, r_multiple, weight, reference)
    )
    is_win = np.asarray(is_win, dtype=np.bool_)
    _check(confidence, threshold, is_win, r_multiple, weight, reference)
    labels = float(weight.sum())
    if labels < requirements.min_labels:
        reason = f"few_labels: {math.floor(labels)} of {requirements.min_labels:g} effective"
        return Verdict(False, reason, labels)
    n_wins = np.count_nonzero(is_win)
    n_losses = len(is_win) - n_wins
    if min(n_wins, n_losses) < requirements.min_per_class:
        rarer = f"{n_losses} of {requirements.min_per_class} losses"
        if n_wins < n_losses:
            rarer = f"{n_wins} of {requirements.min_per_class} wins"
        return Verdict(False, f"one_class: {rarer}", labels)
    skill = brier_skill(confidence, is_win, reference, weight)
    if not skill > 0:
        return Verdict(False, f"no_skill: Brier skill {skill:.3f}", labels, skill)
    saved = np.where(confidence < threshold, -r_multiple, 0.0)
    bound = bootstrap_lower_bound(saved, requirements.level, requirements.n_resamples, seed=seed)
    if not bound > 0:
        return Verdict(False, f"no_gain: lower bound of saved R {bound:.1f}", labels, skill, bound)
    return Verdict(True, "active", labels, skill, bound)


def break_even_confidence(r_multiple: FloatArray, is_win: BoolArray) -> float:
    """The P(win) at which the expected R of an entry is zero.

    Parameters
    ----------
    r_multiple : ndarray of shape (n_entries,), R
        Outcomes of past entries; finite.
    is_win : ndarray of shape (n_entries,), bool
        Which of them count as wins.

    Returns
    -------
    float, 0 < value < 1
        ``L / (W + L)`` with W the mean R of wins and L the mean R lost on losses. 0.5 where the past cannot tell:
        without a win or without a loss, or where wins did not gain or losses did not cost on average.

    Point in time
    -------------
    Reads all rows given: pass only entries resolved by now.

    Raises
    ------
    DataError
        If lengths differ or a value is not finite.
    """
    r_multiple = np.asarray(r_multiple, dtype=np.float64)
    is_win = np.asarray(is_win, dtype=np.bool_)
    if r_multiple.shape != is_win.shape or not np.isfinite(r_multiple).all():
        raise DataError(
            f"got {r_multiple.size} r_multiple, {np.count_nonzero(~np.isfinite(r_multiple))} of them not finite, and "
            f"{is_win.size} outcomes. Each entry needs both, finite; leave unresolved ones out."
        )
    if is_win.all() or not is_win.any():
        return 0.5
    gain, cost = float(r_multiple[is_win].mean()), float(-r_multiple[~is_win].mean())
    return cost / (gain + cost) if gain > 0 and cost > 0 else 0.5


def _check(
    confidence: FloatArray,
    threshold: float,
    is_win: BoolArray,
    r_multiple: FloatArray,
    weight: FloatArray,
    reference: FloatArray,
) -> None:
    """Refuse columns that do not belong together or hold impossible numbers."""
    named = {"confidence": confidence, "r_multiple": r_multiple, "weight": weight, "reference": reference}
    for name, column in named.items():
        if column.shape != is_win.shape:
            raise DataError(f"{name} has {column.size} entries and is_win {is_win.size}. Each entry needs both.")
        is_bad = ~np.isfinite(column)
        if name in ("confidence", "reference"):
            is_bad |= (column < 0) | (column > 1)
        elif name == "weight":
            is_bad |= column <= 0
        if is_bad.any():
            row = int(np.argmax(is_bad))
            raise DataError(
                f"{name} of entry {row} is {column[row]}. Probabilities lie in 0..1, weights above 0, and all are "
                "finite; leave entries without a score or an outcome out."
            )
    if not 0 <= threshold <= 1:
        raise DataError(f"threshold {threshold} is no probability. Pass a value in 0..1.")
