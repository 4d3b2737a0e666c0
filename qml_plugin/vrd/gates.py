"""Eight gates that answer PASS, FAIL or INSUFFICIENT, and the verdict that follows from them.

What was not computed is INSUFFICIENT, never PASS. `docs/vrd.md` says what each gate asks and what a verdict cannot say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf, isfinite, nan
from typing import Any, Literal

import numpy as np

from qml_plugin.errors import DataError
from qml_plugin.stats.nulls import NullResult, Status
from qml_plugin.stats.overfitting import SuperiorAbility
from qml_plugin.stats.resampling import MonteCarlo
from qml_plugin.stats.sharpe import min_track_record_length, sharpe_moments
from qml_plugin.vrd.costs import CostStress
from qml_plugin.vrd.regimes import RegimeReport
from qml_plugin.vrd.sensitivity import Plateau
from qml_plugin.vrd.thresholds import Thresholds
from qml_plugin.vrd.walk_forward import WalkForward

Word = Literal["DEPLOY", "CAUTION", "REJECT", "INSUFFICIENT"]
GATES = ("evidence", "timing", "selection", "costs", "plateau", "concentration", "ruin", "audit")
PLAUSIBLE_SHARPE = 5.0  # annual; a ratio above it is warned of, and decides nothing
_TRUTH = ("timing", "selection", "audit")
_Answer = tuple[Status, float, float, str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class Gate:
    """The answer of one gate: ``value`` against ``threshold``, NaN where unknown; ``numbers`` holds all that it looked at."""

    name: str
    question: str
    status: Status
    value: float
    threshold: float
    reason: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """DEPLOY, CAUTION, REJECT or INSUFFICIENT, and the sentence that says why."""

    word: Word
    sentence: str


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """What an audit for leakage said: ``"clean"``, ``"leak"`` or ``"refused"`` (nothing could be said)."""

    verdict: str
    sentence: str

    @classmethod
    def of(cls, report: Any) -> AuditFinding:
        """From anything with a ``verdict`` and a ``headline()``, such as the report of the audit room."""
        return cls(str(report.verdict), str(report.headline()))


@dataclass(frozen=True, slots=True, eq=False)
class Significance:
    """How sure the best trial is, all bars seen, shown beside the gates; Sharpe ratios are annual, of the excess.

    ``psr`` and ``dsr`` are confidences, 0..1, of the convention of 2012; ``n_trials`` those that the DSR charges for.
    ``min_track_record_years`` is that of the Sharpe ratio, ``min_backtest_years`` below which luck alone is expected to
    reach it. NaN where unknown.
    """

    sharpe: float
    psr: float
    dsr: float
    n_trials: int
    n_effective: float
    sharpe_variance: float
    min_track_record_years: float
    min_backtest_years: float


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """What the gates look at; None where it was not computed, with the reason in ``missing`` under the gate's name."""

    walk: WalkForward | None = None
    timing: NullResult | None = None
    selection: SuperiorAbility | None = None
    bar_permutation: NullResult | None = None
    significance: Significance | None = None
    n_trials: int = 0
    n_trials_ledger: int | None = None
    costs: CostStress | None = None
    plateau: Plateau | None = None
    periods: RegimeReport | None = None
    regimes: RegimeReport | None = None
    ruin: MonteCarlo | None = None
    audit: AuditFinding | None = None
    missing: Mapping[str, str] = field(default_factory=dict)


def judge(found: Findings, thresholds: Thresholds) -> tuple[tuple[Gate, ...], Verdict]:
    """The eight gates and the verdict.

    Parameters
    ----------
    found : Findings
    thresholds : Thresholds

    Returns
    -------
    (gates, verdict)
        Gates in the order of `GATES`.

    Point in time
    -------------
    Judges a finished validation.

    Notes
    -----
    The gates of truth are timing, selection and audit. REJECT: one of them fails. INSUFFICIENT: none fails, but one of them
    or the evidence cannot be judged. CAUTION: the truth passes and another gate fails. DEPLOY: all eight pass.
    """
    gates = tuple(
        _answer(gate, found, thresholds)
        for gate in (_evidence, _timing, _selection, _costs, _plateau, _concentration, _ruin, _audit)
    )
    return gates, verdict_of(gates)


def verdict_of(gates: tuple[Gate, ...]) -> Verdict:
    """The verdict that follows from eight gates.

    Parameters
    ----------
    gates : tuple of Gate
        One of each name in `GATES`.

    Returns
    -------
    Verdict

    Point in time
    -------------
    Reads its argument only.

    Raises
    ------
    DataError
        If a gate is missing: it would otherwise pass unseen.
    """
    by_name = {gate.name: gate for gate in gates}
    if sorted(by_name) != sorted(GATES) or len(gates) != len(GATES):
        raise DataError(f"gates {sorted(by_name)} refused. A verdict needs each of {', '.join(GATES)} once.")

    def first(names: tuple[str, ...], status: Status) -> Gate | None:
        return next((by_name[name] for name in names if by_name[name].status == status), None)

    if gate := first(("audit", "timing", "selection"), "FAIL"):
        return Verdict("REJECT", f"Rejected by the gate of {gate.name}: {gate.reason}.")
    if gate := first(("evidence", *_TRUTH), "INSUFFICIENT"):
        return Verdict("INSUFFICIENT", f"Nothing can be said, for want of {gate.name}: {gate.reason}.")
    failed = [by_name[name] for name in GATES if by_name[name].status == "FAIL"]
    if failed:
        rest = (
            f" (so {'does' if len(failed) == 2 else 'do'} {', '.join(g.name for g in failed[1:])})"
            if failed[1:]
            else ""
        )
        return Verdict("CAUTION", f"The edge looks real, but {failed[0].name} fails: {failed[0].reason}{rest}.")
    if gate := first(GATES, "INSUFFICIENT"):
        return Verdict("INSUFFICIENT", f"The edge looks real, but {gate.name} is not known: {gate.reason}.")
    walk = by_name["timing"]
    return Verdict("DEPLOY", f"All eight gates pass; out of sample {walk.reason}.")


def warnings_of(walk: WalkForward | None, significance: Significance | None) -> tuple[str, ...]:
    """What is said beside a verdict and decides nothing: a Sharpe ratio that is hardly ever real.

    Parameters
    ----------
    walk : WalkForward or None
        Out of sample; where there is none, the ratio of `significance` is looked at.
    significance : Significance or None

    Returns
    -------
    tuple of str
        Sentences; empty where nothing is to be said.

    Point in time
    -------------
    Judges a finished validation.
    """
    sharpe = walk.excess_sharpe if walk is not None else significance.sharpe if significance is not None else nan
    if not sharpe > PLAUSIBLE_SHARPE:
        return ()
    of = "excess out of sample" if walk is not None else "returns"
    return (
        f"An annual Sharpe ratio of the {of} of {sharpe:.1f} is hardly ever real. Look first for future data that is read "
        "from elsewhere than the bars, for fills at prices that were gone, and for costs that are missing.",
    )


def _answer(gate: Callable[[Findings, Thresholds], _Answer], found: Findings, thresholds: Thresholds) -> Gate:
    status, value, threshold, reason, numbers = gate(found, thresholds)
    return Gate(gate.__name__[1:], gate.__doc__ or "", status, value, threshold, reason.rstrip("."), numbers)


def _unknown(found: Findings, name: str, threshold: float, otherwise: str) -> _Answer:
    return "INSUFFICIENT", nan, threshold, found.missing.get(name, otherwise), {}


def _share(value: float, limit: float, digits: int = 0) -> str:
    """In percent, with as many digits as it takes not to look equal to a limit that it is not."""
    while digits < 6 and value != limit and f"{value:.{digits}%}" == f"{limit:.{digits}%}":
        digits += 1
    return f"{value:.{digits}%}"


def _are(n: float) -> str:
    return "is" if n == 1 else "are"


def _too_few_trades(found: Findings, t: Thresholds) -> str:
    n = found.walk.n_trades if found.walk is not None else 0
    trades = "trade" if n == 1 else "trades"
    return f"{n} {trades} out of sample; {t.evidence_min_trades} are needed" if n < t.evidence_min_trades else ""


def _evidence(found: Findings, t: Thresholds) -> _Answer:
    """Are there enough trades, years and bars out of sample to say anything?"""
    walk = found.walk
    if walk is None:
        return _unknown(found, "evidence", t.evidence_min_trades, "there is no walk-forward")
    years = len(walk.bar) / walk.bars_per_year
    needed = _track_record_years(walk, t.evidence_alpha)
    numbers = {"n_trades": float(walk.n_trades), "years": years, "min_track_record_years": needed}
    # The numbers shown are those of the rule that failed; where none did, of the trades.
    value, threshold = float(walk.n_trades), float(t.evidence_min_trades)
    reason = _too_few_trades(found, t)
    if not reason and years < t.evidence_min_years:
        value, threshold = years, t.evidence_min_years
        reason = f"{years:.2f} years out of sample; {threshold:g} {_are(threshold)} needed"
    if not reason and walk.excess_sharpe > 0 and years < needed:
        value, threshold = years, needed
        reason = (
            f"{years:.1f} years are too short for a Sharpe ratio of {walk.excess_sharpe:.2f}, which needs {needed:.1f}"
        )
    if reason:
        return "INSUFFICIENT", value, threshold, reason, numbers
    reason = f"{walk.n_trades} trades in {years:.1f} years out of sample"
    return "PASS", value, threshold, reason, numbers


def _track_record_years(walk: WalkForward, alpha: float) -> float:
    try:
        sr, _, skew, kurt = sharpe_moments(walk.excess)
    except DataError:  # returns that never vary have no Sharpe ratio, and no record is long enough for it
        return inf
    return min_track_record_length(sr, skew, kurt, alpha=alpha) / walk.bars_per_year


def _timing(found: Findings, t: Thresholds) -> _Answer:
    """Out of sample, is it timing, beyond what its exposure alone would have earned, and is it worth it?"""
    walk, null = found.walk, found.timing
    if walk is None or null is None:
        return _unknown(found, "timing", t.timing_alpha, "there is no walk-forward to test")
    numbers = {"p_value": null.p_value, "excess_sharpe": walk.excess_sharpe, "n_failed_windows": float(walk.n_failed)}
    if reason := _too_few_trades(found, t):
        return "INSUFFICIENT", null.p_value, t.timing_alpha, reason, numbers
    if walk.n_failed:
        reason = next(window.reason for window in walk.windows if window.is_failed)
        return (
            "INSUFFICIENT",
            null.p_value,
            t.timing_alpha,
            f"{walk.n_failed} {'window' if walk.n_failed == 1 else 'windows'} failed: {reason}",
            numbers,
        )
    if null.status == "INSUFFICIENT":
        return "INSUFFICIENT", null.p_value, t.timing_alpha, null.reason, numbers
    text = (
        f"the Sharpe ratio of the excess is {walk.excess_sharpe:.2f}, p = {null.p_value:.3g} against shifted positions"
    )
    is_shown = null.p_value <= t.timing_alpha
    is_worth = walk.excess_sharpe >= t.timing_min_annual_sharpe
    if is_shown and is_worth:
        return "PASS", null.p_value, t.timing_alpha, text, numbers
    rule = f"p <= {t.timing_alpha:g} is asked" if not is_shown else f"at least {t.timing_min_annual_sharpe:g} is asked"
    return "FAIL", null.p_value, t.timing_alpha, f"{text}; {rule}", numbers


def _selection(found: Findings, t: Thresholds) -> _Answer:
    """Is the best of all trials better than the best of as many lucky ones?"""
    ledger = found.n_trials_ledger or 0
    alpha = t.selection_alpha
    numbers = {"n_trials": float(found.n_trials), "n_trials_ledger": float(ledger) if ledger else nan}
    if found.walk is None:
        return _unknown(found, "selection", alpha, "without a walk-forward the trades are not counted")
    if reason := _too_few_trades(found, t):
        return "INSUFFICIENT", nan, alpha, reason, numbers
    if found.n_trials < 2 and not ledger:
        reason = "how many trials were made is not known; search here, or let the ledger count"
        return "INSUFFICIENT", nan, alpha, found.missing.get("selection", reason), numbers
    if found.n_trials < 2 and ledger > 1:
        dsr = found.significance.dsr if found.significance is not None else nan
        if not isfinite(dsr):
            return _unknown(found, "selection", alpha, "there is no deflated Sharpe ratio")
        text = f"1 - DSR = {1 - dsr:.3g} for {ledger} trials that the ledger counts"
        return ("PASS" if 1 - dsr <= alpha else "FAIL"), 1 - dsr, alpha, text, numbers | {"dsr": dsr}
    null = (
        found.bar_permutation
        if found.bar_permutation is not None
        else (found.selection.null if found.selection is not None else None)
    )
    if null is None:
        return _unknown(found, "selection", alpha, "no test over all trials was made")
    if null.status == "INSUFFICIENT":
        return "INSUFFICIENT", null.p_value, alpha, null.reason, numbers
    # Trials that the ledger counts but that are not shown are charged for like further searches of the same size.
    p_value = min(1.0, null.p_value * max(1.0, ledger / found.n_trials))
    n_charged = max(ledger, found.n_trials)
    text = f"p = {p_value:.3g} over {n_charged} {'trial' if n_charged == 1 else 'trials'} ({null.test})"
    return ("PASS" if p_value <= alpha else "FAIL"), p_value, alpha, text, numbers | {"p_value": p_value}


def _costs(found: Findings, t: Thresholds) -> _Answer:
    """Is anything left when fees and slippage are doubled?"""
    stress = found.costs
    threshold = t.costs_min_annual_sharpe
    if stress is None:
        return _unknown(found, "costs", threshold, "costs were not stressed")
    numbers = {"break_even_multiple": stress.break_even, "cost_frac": stress.cost_frac}
    if not stress.has_costs:
        return "INSUFFICIENT", nan, threshold, "no costs were charged, and twice nothing proves nothing", numbers
    at = np.flatnonzero(stress.multiple == t.costs_multiple)
    if not len(at):
        return "INSUFFICIENT", nan, threshold, f"the costs were not stressed {t.costs_multiple:g} times", numbers
    sharpe = float(stress.sharpe[at[0]])
    even = f"break-even at {stress.break_even:.1f} times" if stress.break_even > 0 else "it loses before any costs"
    of = "excess" if found.walk is not None else "returns"  # without a market there is nothing to exceed
    text = f"the Sharpe ratio of the {of} is {sharpe:.2f} at {t.costs_multiple:g} times the costs; {even}"
    return ("PASS" if sharpe > threshold else "FAIL"), sharpe, threshold, text, numbers


def _plateau(found: Findings, t: Thresholds) -> _Answer:
    """Do the parameters next to the choice earn too?"""
    flat = found.plateau
    if flat is None:
        return _unknown(found, "plateau", t.plateau_min_score, "no neighbours of the choice were tried")
    if not isfinite(flat.score):
        return "INSUFFICIENT", nan, t.plateau_min_score, flat.reason, {"n_neighbours": float(len(flat.neighbours))}
    text = f"{len(flat.neighbours)} neighbours keep {_share(flat.score, t.plateau_min_score)} of the result on average"
    status: Status = "PASS" if flat.score >= t.plateau_min_score else "FAIL"
    return status, flat.score, t.plateau_min_score, text, {"n_neighbours": float(len(flat.neighbours))}


def _concentration(found: Findings, t: Thresholds) -> _Answer:
    """Does it earn without its best period, and without its best regime?"""
    limit = t.concentration_max_period_frac
    if found.periods is None or found.regimes is None:
        return _unknown(found, "concentration", limit, "results by period and regime are not known")
    if not any(row.total for row in found.periods.rows):
        return "INSUFFICIENT", nan, limit, "no position was held out of sample", {}
    best = max(found.periods.rows, key=lambda row: row.total)
    total = sum(row.total for row in found.periods.rows)
    if not total > 0:
        return "FAIL", nan, limit, "nothing was earned out of sample", {"total": total}
    known = [row for row in found.regimes.rows if row.bars_frac >= t.concentration_min_regime_frac]
    if len(known) < 2:
        return "INSUFFICIENT", best.pnl_frac, limit, "fewer than two regimes were seen out of sample", {}
    regime = min(known, key=lambda row: row.mean_without)
    numbers = {"best_period_frac": best.pnl_frac, "mean_without_best_regime": regime.mean_without}
    if best.pnl_frac > limit:
        return (
            "FAIL",
            best.pnl_frac,
            limit,
            f"{best.name} of {len(found.periods.rows)} earned {_share(best.pnl_frac, limit)} of all",
            numbers,
        )
    if not regime.mean_without > 0:
        return "FAIL", best.pnl_frac, limit, f"nothing is earned outside the regime {regime.name!r}", numbers
    return (
        "PASS",
        best.pnl_frac,
        limit,
        f"the best period earned {_share(best.pnl_frac, limit)} of all, and no regime carries it",
        numbers,
    )


def _ruin(found: Findings, t: Thresholds) -> _Answer:
    """Do drawdown and ruin stay within the user's limits if the mean is the pessimist's?"""
    limit = t.ruin_max_drawdown_frac
    if found.ruin is None:
        return _unknown(found, "ruin", limit, "no paths were drawn")
    drawdown = float(np.quantile(found.ruin.max_drawdown_frac, t.ruin_drawdown_quantile))
    ruined = found.ruin.ruin_probability()
    numbers = {"drawdown_frac": drawdown, "ruin_frac": ruined, "pessimist_mean": found.ruin.mean_return}
    text = (
        f"one year in {round(1 / (1 - t.ruin_drawdown_quantile))} falls by more than {_share(drawdown, limit)}, and {_share(ruined, t.ruin_max_ruin_frac, 1)} of years end in ruin"
        if t.ruin_horizon_years == 1.0
        else f"a drawdown of {_share(drawdown, limit)} at {t.ruin_drawdown_quantile:.0%}, ruin in {_share(ruined, t.ruin_max_ruin_frac, 1)} of paths"
    )
    is_within = drawdown <= limit and ruined <= t.ruin_max_ruin_frac
    rule = "" if is_within else f"; the limits are {limit:.0%} and {t.ruin_max_ruin_frac:.1%}"
    return ("PASS" if is_within else "FAIL"), drawdown, limit, text + rule, numbers


def _audit(found: Findings, t: Thresholds) -> _Answer:
    """Does the past stay the same when the future changes?"""
    if found.audit is None:
        return _unknown(found, "audit", nan, "no audit for leakage was made")
    status: Mapping[str, Status] = {"clean": "PASS", "leak": "FAIL"}
    return status.get(found.audit.verdict, "INSUFFICIENT"), nan, nan, found.audit.sentence.rstrip("."), {}
