"""Is the gate worth it? Identical entries gated, ungated and gated at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qml_plugin.errors import DataError
from qml_plugin.records import FloatArray, TrialEntries
from qml_plugin.stats.calibration import brier_score
from qml_plugin.stats.scores import (
    Reliability,
    average_precision,
    calibration_error,
    calibration_error_interval,
    lift_curve,
    reliability,
)

WORTH_IT, NOT_SHOWN, HARMFUL, TOO_FEW = "WORTH_IT", "NOT_SHOWN", "HARMFUL", "TOO_FEW"

_FEWEST_JUDGED = 100
_FEWEST_OF_AN_ACTION = 20
_LEVEL = 0.05
_BAND = (0.05, 0.95)
_N_BAND_DRAWS = 100


class TrialRun(Protocol):
    """A finished run that can be put on trial, such as ``stats["_strategy"].qml``."""

    def trial_entries(self) -> TrialEntries:
        """Its entries."""


@dataclass(frozen=True, slots=True)
class Arm:
    """What one way of deciding did with the entries: ``return_frac`` is summed, None where no returns were given."""

    n_taken: int
    total_r: float
    mean_r: float
    win_frac: float
    return_frac: float | None


@dataclass(frozen=True, slots=True, eq=False)
class GateTrial:
    """Result of `gate_trial`; ``str()`` of it is the report.

    ``verdict`` is ``WORTH_IT``, ``NOT_SHOWN``, ``HARMFUL`` or ``TOO_FEW``, ``why`` the numbers behind it. ``saved_r`` is
    the gated total less the ungated one; ``p_value`` that of the gate's choice against random choices, NaN where there
    are too few entries. The scores are those of the entries that the gate judged; NaN or None where there were none.
    ``cumulative_r`` holds, by resolved entry in order of time, the R so far of the arms ``gated``, ``ungated`` and ``random``,
    and, unless the entries are too few, ``random_low`` and ``random_high``, between which 90 % of random gates lie at each. ``returns_of`` tells what
    the returns are of: ``"trades"``, ``"barriers"``, or None where they were given as an array or not at all.
    """

    verdict: str
    why: str
    n_entries: int
    n_judged: int
    kept_frac: float
    gated: Arm
    ungated: Arm
    random: Arm
    saved_r: float
    p_value: float
    base_rate: float = float("nan")
    pr_auc: float = float("nan")
    brier: float = float("nan")
    brier_of_base_rate: float = float("nan")
    ece: float = float("nan")
    ece_interval: tuple[float, float] = (float("nan"), float("nan"))
    ece_floor: float = float("nan")
    reliability: Reliability | None = field(default=None, repr=False)
    lift: dict[str, FloatArray] | None = field(default=None, repr=False)
    cumulative_r: dict[str, FloatArray] = field(default_factory=dict, repr=False)
    name: str = ""
    returns_of: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain numbers, text and lists."""
        data = {name: getattr(self, name) for name in self.__slots__}
        for name in ("gated", "ungated", "random"):
            data[name] = asdict(data[name])
        if self.reliability is not None:
            data["reliability"] = {name: column.tolist() for name, column in asdict(self.reliability).items()}
        for name in ("lift", "cumulative_r"):
            if data[name] is not None:
                data[name] = {column: values.tolist() for column, values in data[name].items()}
        return data

    def __str__(self) -> str:
        lines = [
            f"{self.verdict}: {self.why}",
            f"{self.n_entries} entries, {self.n_judged} judged, {self.kept_frac:.1%} of these taken",
        ]
        of = {"trades": " of the trades", "barriers": " of the barriers, before costs"}.get(self.returns_of or "", "")
        for name, arm in (("gated", self.gated), ("ungated", self.ungated), ("random", self.random)):
            returned = "" if arm.return_frac is None else f", return {arm.return_frac:+.2%}{of}"
            lines.append(
                f"{name:8} {arm.n_taken:6} taken {arm.total_r:+9.1f} R, {arm.mean_r:+.3f} each, "
                f"{arm.win_frac:.1%} won{returned}"
            )
        if self.n_judged:
            lines.append(
                f"PR-AUC {self.pr_auc:.3f} (base rate {self.base_rate:.3f}), Brier {self.brier:.4f} (base rate "
                f"{self.brier_of_base_rate:.4f}), ECE {self.ece:.3f} ({self.ece_interval[0]:.3f} to "
                f"{self.ece_interval[1]:.3f}; perfect confidences would show {self.ece_floor:.3f})"
            )
        return "\n".join(lines)


@overload
def gate_trial(
    run: TrialRun | TrialEntries, /, *, seed: int = 0, n_permutations: int = 2000, block_length: int | None = None
) -> GateTrial: ...


@overload
def gate_trial(
    action: Sequence[str] | NDArray[np.str_],
    confidence: ArrayLike,
    r_multiple: ArrayLike,
    *,
    returns: ArrayLike | None = None,
    is_win: ArrayLike | None = None,
    seed: int = 0,
    n_permutations: int = 2000,
    block_length: int | None = None,
) -> GateTrial: ...


def gate_trial(
    action: Sequence[str] | NDArray[np.str_] | TrialRun | TrialEntries,
    confidence: ArrayLike | None = None,
    r_multiple: ArrayLike | None = None,
    *,
    returns: ArrayLike | None = None,
    is_win: ArrayLike | None = None,
    seed: int = 0,
    n_permutations: int = 2000,
    block_length: int | None = None,
) -> GateTrial:
    """Compare identical entries gated, ungated, and gated at random with the same share kept.

    Parameters
    ----------
    action : sequence of n_entries str, or a run
        ``"take"``, ``"skip"`` or ``"abstain"``, in order of time, as `WalkForwardGate.run` gives them. Entries that were
        abstained from are taken in all three arms. A finished run of the modes ``"shadow"`` and ``"gate"`` brings all the
        columns: ``gate_trial(stats["_strategy"].qml)``, or ``gate_trial(registry.trial_entries(run_id))`` of one that was
        recorded.
    confidence : array of shape (n_entries,), 0..1
        P(win) as given at the time; NaN where there was none.
    r_multiple : array of shape (n_entries,), R
        Outcomes, of skipped entries too. NaN is an open entry, which counts nowhere.
    returns : array of shape (n_entries,), fractions, optional
        Returns of the trades that the entries were or would have been, costs included; they are summed.
    is_win : array of shape (n_entries,), bool, optional
        Which outcomes count as wins; without it those above 0 R.
    seed : int, default=0
    n_permutations : int, >= 1, default=2000
    block_length : int, >= 1, optional
        Consecutive judged entries that are permuted together; without it the cube root of their number.

    Returns
    -------
    GateTrial
        The p-value is the share of permutations in which a gate of the same number of skips, in runs as long as those
        within blocks of the real one, saves at least as many R; (1 + b) / (1 + n). Blocks of skips are permuted and
        the sequence of outcomes is left as it is. Below 100 judged entries, or 20 taken or skipped among them, the
        verdict is ``TOO_FEW`` and there is no p-value. ``WORTH_IT`` needs R saved and p <= 0.05; ``HARMFUL`` means
        that the gate did worse than 95 % of the random ones and lost R.

    Point in time
    -------------
    Reads the whole run on purpose: it judges a finished one. The decisions must have been made walking forwards.

    Raises
    ------
    DataError
        If lengths differ, an action is unknown, a number is infinite, an option lies outside its range, or columns are
        given beside a run.

    References
    ----------
    Good (2005), Permutation, parametric and bootstrap tests of hypotheses, ch. 3; (1 + b) / (1 + n): Phipson & Smyth
    (2010), Permutation p-values should never be zero. Blocks as in Politis & Romano (1992), circular.
    """
    name, returns_of = "", None
    if isinstance(action, TrialEntries) or hasattr(action, "trial_entries"):
        run = action if isinstance(action, TrialEntries) else action.trial_entries()
        if any(column is not None for column in (confidence, r_multiple, returns, is_win)):
            raise DataError(f"columns were given beside {run.name}. A run brings its own; give one or the other.")
        name, returns_of = run.name, run.returns_of
        action, confidence, r_multiple = np.asarray(run.action), run.confidence, run.r_multiple
        returns, is_win = run.return_frac, run.is_win
    if confidence is None or r_multiple is None:
        raise DataError("a trial of arrays needs action, confidence and r_multiple. Give all three, or a run.")
    actions, scores, r, won, traded = _columns(action, confidence, r_multiple, is_win, returns)
    if n_permutations < 1 or (block_length is not None and block_length < 1):
        raise DataError(f"n_permutations {n_permutations} and block_length {block_length} refused. Use 1 or more.")
    judged = actions != "abstain"
    is_skipped = actions == "skip"
    n_judged, n_skipped = int(judged.sum()), int(is_skipped.sum())
    saved_r = -float(r[is_skipped].sum())
    skipped_frac = n_skipped / n_judged if n_judged else 0.0
    random_weight = np.where(judged, 1 - skipped_frac, 1.0)
    arms = {
        "gated": _arm(np.where(is_skipped, 0.0, 1.0), r, won, traded),
        "ungated": _arm(np.ones(len(r)), r, won, traded),
        "random": _arm(random_weight, r, won, traded),
    }
    cumulative_r = {
        "gated": np.cumsum(np.where(is_skipped, 0.0, r)),
        "ungated": np.cumsum(r),
        "random": np.cumsum(random_weight * r),
    }
    p_value = float("nan")
    if n_judged < _FEWEST_JUDGED or min(n_skipped, n_judged - n_skipped) < _FEWEST_OF_AN_ACTION:
        verdict = TOO_FEW
        why = (
            f"{n_judged} judged entries, {n_skipped} of them skipped; {_FEWEST_JUDGED} and {_FEWEST_OF_AN_ACTION} of "
            "each action are needed before this is a result"
        )
    else:
        length = block_length or max(1, round(n_judged ** (1 / 3)))
        p_value, p_worse, shuffles = _permuted(is_skipped[judged], r[judged], length, n_permutations, seed)
        cumulative_r |= _band(shuffles, judged, r)
        verdict = NOT_SHOWN
        if saved_r > 0 and p_value <= _LEVEL:
            verdict = WORTH_IT
        elif saved_r < 0 and p_worse <= _LEVEL:
            verdict = HARMFUL
        why = f"skipping saved {saved_r:+.1f} R, p = {p_value:.4f} against random skips"
    has_score = judged & np.isfinite(scores)
    return GateTrial(
        verdict, why, len(r), n_judged, 1 - skipped_frac, arms["gated"], arms["ungated"], arms["random"], saved_r,
        p_value, cumulative_r=cumulative_r, name=name, returns_of=returns_of,
        **(_scores(scores[has_score], won[has_score], r[has_score], seed) if has_score.any() else {}),
    )  # fmt: skip


def _permuted(
    is_skipped: NDArray[np.bool_], r: FloatArray, length: int, n: int, seed: int
) -> tuple[float, float, list[NDArray[np.bool_]]]:
    """Share of random gates that save at least as much, and at most as much, as the real one, and the first of them."""
    rng = np.random.default_rng(seed)
    observed = float(r[is_skipped].sum())
    first: list[NDArray[np.bool_]] = []
    n_lower = n_higher = 0
    for _ in range(n):
        shuffled = _shuffled(is_skipped, length, rng)
        if len(first) < _N_BAND_DRAWS:
            first.append(shuffled)
        drawn = float(r[shuffled].sum())
        n_lower += drawn <= observed + 1e-9
        n_higher += drawn >= observed - 1e-9
    return (1 + n_lower) / (1 + n), (1 + n_higher) / (1 + n), first


def _shuffled(is_skipped: NDArray[np.bool_], length: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """As many skips, with the runs that they have within blocks."""
    turned = np.roll(is_skipped, int(rng.integers(len(is_skipped))))
    blocks = [turned[start : start + length] for start in range(0, len(turned), length)]
    return np.concatenate([blocks[i] for i in rng.permutation(len(blocks))])


def _band(shuffles: list[NDArray[np.bool_]], judged: NDArray[np.bool_], r: FloatArray) -> dict[str, FloatArray]:
    """Between which R so far 90 % of these random gates lie, entry by entry."""
    drawn = np.tile(r, (len(shuffles), 1))
    rows = np.flatnonzero(judged)
    for path, shuffled in zip(drawn, shuffles, strict=True):
        path[rows[shuffled]] = 0.0
    low, high = np.quantile(np.cumsum(drawn, axis=1), _BAND, axis=0)
    return {"random_low": low, "random_high": high}


def _arm(weight: FloatArray, r: FloatArray, won: NDArray[np.bool_], traded: FloatArray | None) -> Arm:
    """What entries taken with these probabilities bring."""
    n_taken = float(weight.sum())
    each = 1 / n_taken if n_taken else float("nan")
    return Arm(
        n_taken=round(n_taken),
        total_r=float(weight @ r),
        mean_r=float(weight @ r) * each,
        win_frac=float(weight @ won) * each,
        return_frac=None if traded is None else float(weight @ traded),
    )


def _scores(confidence: FloatArray, won: NDArray[np.bool_], r: FloatArray, seed: int) -> dict[str, Any]:
    """How good the confidences of the judged entries were."""
    base_rate = float(won.mean())
    low, high, floor = calibration_error_interval(confidence, won, seed=seed)
    return {
        "base_rate": base_rate,
        "pr_auc": average_precision(confidence, won),
        "brier": brier_score(confidence, won),
        "brier_of_base_rate": base_rate * (1 - base_rate),
        "ece": calibration_error(confidence, won),
        "ece_interval": (low, high),
        "ece_floor": floor,
        "reliability": reliability(confidence, won),
        "lift": lift_curve(confidence, won, r),
    }


def _columns(
    action: Sequence[str] | NDArray[np.str_],
    confidence: ArrayLike,
    r_multiple: ArrayLike,
    is_win: ArrayLike | None,
    returns: ArrayLike | None,
) -> tuple[NDArray[np.str_], FloatArray, FloatArray, NDArray[np.bool_], FloatArray | None]:
    """The columns of the entries that resolved, checked."""
    actions = np.asarray(action, dtype=np.str_)
    scores, r = np.asarray(confidence, dtype=np.float64), np.asarray(r_multiple, dtype=np.float64)
    won = r > 0 if is_win is None else np.asarray(is_win, dtype=np.bool_)
    traded = None if returns is None else np.asarray(returns, dtype=np.float64)
    lengths = {len(column) for column in (actions, scores, r, won) + (() if traded is None else (traded,))}
    if len(lengths) != 1 or lengths == {0}:
        raise DataError(
            f"columns of lengths {sorted(lengths)} refused. Each entry needs all of them, and there must be one."
        )
    unknown = sorted(set(actions.tolist()) - {"take", "skip", "abstain"})
    if unknown:
        raise DataError(f"action {unknown[0]!r} is unknown. Use 'take', 'skip' or 'abstain'.")
    if (
        np.isinf(r).any()
        or np.isinf(scores).any()
        or (traded is not None and not np.isfinite(traded[np.isfinite(r)]).all())
    ):
        raise DataError(
            "an R, a confidence or a return of a resolved entry is not finite. Leave open entries' R as NaN."
        )
    resolved = np.isfinite(r)
    return (
        actions[resolved], scores[resolved], r[resolved], won[resolved], None if traded is None else traded[resolved],
    )  # fmt: skip
