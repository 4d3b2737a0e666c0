"""One set of a certification: one market of one world, one strategy with its sweep, and how it is judged.

Three judges: ours, with the gates of `qml_plugin.vrd`; ``naive``, which deploys where the best of the sweep has a PSR of
0.95 or more; and ``classic``, the recipe of shuffled trades with fixed thresholds: shuffled trades beat its Sharpe ratio
in at most 5 % of draws, the mean Sharpe ratio of the windows out of sample is at least 1, three of four windows win,
there are 30 trades and no drawdown beyond 35 %.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np

from qml_plugin.errors import DataError
from qml_plugin.records import FloatArray
from qml_plugin.stats.nulls import circular_shift_test
from qml_plugin.stats.overfitting import pbo, superior_predictive_ability
from qml_plugin.stats.sharpe import probabilistic_sharpe_ratio, sharpe_moments
from qml_plugin.vrd.certification.families import Family, Searched
from qml_plugin.vrd.certification.worlds import Market, world
from qml_plugin.vrd.evaluation import Evaluate, Evaluation, Trials, run_trials
from qml_plugin.vrd.gates import AuditFinding, Findings, Gate, judge
from qml_plugin.vrd.leakage import audit_positions
from qml_plugin.vrd.regimes import by_regime, regimes
from qml_plugin.vrd.sensitivity import plateau
from qml_plugin.vrd.thresholds import Thresholds
from qml_plugin.vrd.validate import Plan, by_period, permuted_search, ruin_paths, stressed_walk
from qml_plugin.vrd.walk_forward import WalkForward, walk_forward

T = TypeVar("T")
JUDGES = {"ours": "verdict", "naive": "naive", "classic": "classic", "permuted": "permuted"}
_N_SHUFFLES, _N_PBO = 99, 10  # sets from one PBO to the next: it decides nothing


@dataclass(frozen=True, slots=True)
class Draws:
    """How much is drawn for a set. ``n_permutations`` above 0 judges it once more, with the whole search on permuted bars
    in the place of superior ability.
    """

    n_draws: int = 299
    n_paths: int = 500
    n_permutations: int = 0
    n_cuts: int = 4

    def identity(self) -> Any:
        """What tells it from others, for sets that are kept."""
        return asdict(self)


def judged_set(
    name: str, searched: Searched, index: int, seed: int, market: Market, draws: Draws, thresholds: Thresholds
) -> dict[str, Any]:
    """All verdicts on one set.

    Parameters
    ----------
    name : str
        World.
    searched : Searched
    index, seed : int
        Number of the set and seed of the first.
    market : Market
    draws : Draws
    thresholds : Thresholds

    Returns
    -------
    dict
        Plain values, one line of what is kept. All but ``seconds`` depend on the arguments alone.

    Point in time
    -------------
    Judges finished searches.
    """
    began = time.process_time()
    bars = world(name, searched, index, seed, market)
    is_long_only = name == "drift" or (name == "real" and index % 2 == 1)
    evaluate = searched.evaluate(is_long_only=is_long_only)
    own_seed = seed + index
    t = thresholds
    found, trials = _findings(bars, evaluate, searched, own_seed, draws, t)
    gates, verdict = judge(found, t)
    permuted = None
    if draws.n_permutations and trials is not None:
        plan = Plan(n_permutations=draws.n_permutations)
        null = permuted_search(bars, evaluate, searched.grid, plan, alpha=t.selection_alpha, seed=own_seed)
        permuted = judge(replace(found, bar_permutation=null), t)
    best = None if trials is None else int(
        (trials.returns.mean(axis=0) / np.maximum(trials.returns.std(axis=0), 1e-300)).argmax()
    )  # fmt: skip
    naive = classic = False
    if trials is not None and best is not None:
        naive = _naive(trials.returns[:, best])
        classic = found.walk is not None and _classic(evaluate(bars, trials.parameters[best]), found.walk, own_seed)
    return {
        "index": index,
        "verdict": verdict.word,
        "gates": {gate.name: gate.status for gate in gates},
        "out_of_reach": _out_of_reach(found, gates, t),
        "values": {gate.name: gate.value if np.isfinite(gate.value) else None for gate in gates},
        "naive": "DEPLOY" if naive else "REJECT",
        "classic": "DEPLOY" if classic else "REJECT",
        "permuted": None if permuted is None else permuted[1].word,
        "permuted_selection": None
        if permuted is None
        else next(g.status for g in permuted[0] if g.name == "selection"),
        "excess_sharpe": None if found.walk is None else found.walk.excess_sharpe,
        "true_sharpe": true_sharpe(trials, searched) if trials is not None and name.startswith("edge") else None,
        "pbo": _pbo(trials) if trials is not None and index % _N_PBO == 0 else None,
        "seconds": time.process_time() - began,
    }


def _findings(
    bars: Any, evaluate: Evaluate, searched: Searched, seed: int, draws: Draws, t: Thresholds
) -> tuple[Findings, Trials | None]:
    """What the gates look at; a part that a strategy of the user's own does not allow is missing, with its reason."""
    missing: dict[str, str] = {}

    def tried(gate: str, compute: Callable[[], T]) -> T | None:
        try:
            return compute()
        except DataError as error:
            missing[gate] = str(error)
            return None

    trials = tried("evidence", lambda: run_trials(bars, evaluate, searched.grid))
    walk = None if trials is None else tried("evidence", lambda: walk_forward(trials))
    if trials is None or walk is None:
        return Findings(missing=missing), trials
    flat: dict[str, Any] = {"n_draws": 1, "block_length": 1.0, "seed": seed}
    found = Findings(
        walk=walk,
        timing=circular_shift_test(walk.exposure, walk.market, costs=walk.costs, alpha=t.timing_alpha),
        selection=tried(
            "selection",
            lambda: superior_predictive_ability(
                trials.excess(), n_draws=draws.n_draws, alpha=t.selection_alpha, seed=seed, n_threads=1
            ),
        ),
        n_trials=trials.n_trials,
        costs=tried("costs", lambda: stressed_walk(walk, t, **flat)),
        plateau=tried("plateau", lambda: plateau(trials.parameters, trials.annual_sharpe())),
        periods=tried("concentration", lambda: by_period(walk.excess, walk.bars_per_year, t, **flat)),
        regimes=tried(
            "concentration", lambda: by_regime(walk.excess, regimes(bars)[walk.bar], walk.bars_per_year, **flat)
        ),
        ruin=tried("ruin", lambda: ruin_paths(walk, t, n_paths=draws.n_paths, is_pessimist=True, seed=seed)),
        audit=_audit(bars, evaluate, searched, trials, draws, seed),
        missing=missing,
    )
    return found, trials


def _out_of_reach(found: Findings, gates: Sequence[Gate], t: Thresholds) -> dict[str, str]:
    """Why a gate could not have passed whatever was earned: too few trades or years, or an audit that did not pass."""
    by_name = {gate.name: gate for gate in gates}
    evidence, why = by_name["evidence"], {}
    n_trades, years = evidence.numbers.get("n_trades", 0.0), evidence.numbers.get("years", 0.0)
    if n_trades < t.evidence_min_trades or years < t.evidence_min_years:
        why["evidence"] = evidence.reason
    if found.audit is not None and found.audit.verdict != "clean":
        why["audit"] = by_name["audit"].reason
    return why


def _audit(bars: Any, evaluate: Evaluate, searched: Searched, trials: Trials, draws: Draws, seed: int) -> AuditFinding:
    if isinstance(searched, Family):
        return AuditFinding("clean", "audited once for the family")
    chosen = trials.parameters[int(trials.annual_sharpe().argmax())]
    return audit_positions(bars, evaluate, chosen, n_cuts=draws.n_cuts, seed=seed)


def true_sharpe(trials: Trials, searched: Searched) -> float:
    """Annual Sharpe ratio that the member with the planted edge came to.

    Parameters
    ----------
    trials : Trials
    searched : Searched

    Returns
    -------
    float

    Point in time
    -------------
    Judges a finished search.
    """
    assert searched.true is not None
    return float(trials.annual_sharpe()[trials.parameters.index(searched.true)])


def _pbo(trials: Trials) -> float | None:
    try:
        return pbo(trials.excess()).pbo
    except DataError:  # it describes and decides nothing
        return None


def _naive(returns: FloatArray) -> bool:
    return bool(returns.std() > 0 and probabilistic_sharpe_ratio(*sharpe_moments(returns)) >= 0.95)


def _classic(best: Evaluation, walk: WalkForward, seed: int) -> bool:
    """Shuffling does not change a Sharpe ratio: what the first test compares is rounding, as in the recipe."""
    trades = best.trade_returns
    if len(trades) < 30 or not trades.std() > 0:
        return False
    rng = np.random.default_rng(seed)
    observed = trades.mean() / trades.std()
    shuffled = [rng.permutation(trades) for _ in range(_N_SHUFFLES)]
    p_value = float(np.mean([one.mean() / one.std() >= observed for one in shuffled]))
    windows = np.array([window.test_sharpe for window in walk.windows])
    equity = np.cumprod(1 + best.returns)
    drawdown = float((1 - equity / np.maximum.accumulate(np.maximum(equity, 1.0))).max())
    is_steady = bool(np.nanmean(windows) >= 1 and np.mean(windows > 0) >= 0.75) if np.isfinite(windows).any() else False
    return p_value <= 0.05 and is_steady and drawdown <= 0.35
