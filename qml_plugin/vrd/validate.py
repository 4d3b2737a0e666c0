"""From bars, a strategy and a grid of parameters to a verdict, step by step; every step is kept and may be missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from time import perf_counter
from typing import Any, Literal, TypeVar

import numpy as np

from qml_plugin.bars import Bars
from qml_plugin.errors import DataError
from qml_plugin.provenance import canonical_json, library_versions, plain
from qml_plugin.records import FloatArray, IntArray
from qml_plugin.stats.bar_permutation import PermutedBars, bar_permutation_test
from qml_plugin.stats.checked import checked_returns, is_constant
from qml_plugin.stats.nulls import NullResult, circular_shift_test, random_entry_test, sign_flip_test
from qml_plugin.stats.overfitting import (
    Overfitting,
    SuperiorAbility,
    effective_n_trials,
    pbo,
    superior_predictive_ability,
)
from qml_plugin.stats.resampling import (
    Interval,
    MonteCarlo,
    automatic_block_length,
    bootstrap_interval,
    monte_carlo,
    pessimist_mean,
)
from qml_plugin.stats.sharpe import (
    deflated_sharpe_ratio,
    min_backtest_length,
    min_track_record_length,
    probabilistic_sharpe_ratio,
    sharpe_moments,
)
from qml_plugin.vrd.attribution import Attribution, attribute
from qml_plugin.vrd.costs import CostStress, cost_stress
from qml_plugin.vrd.decay import Decay, edge_decay
from qml_plugin.vrd.evaluation import Evaluate, Parameters, Trials, chosen_excess, run_trials
from qml_plugin.vrd.gates import AuditFinding, Findings, Gate, Significance, Verdict, judge, warnings_of
from qml_plugin.vrd.keeping import Steps, as_plain
from qml_plugin.vrd.leakage import audit_positions
from qml_plugin.vrd.regimes import RegimeReport, by_regime, regimes
from qml_plugin.vrd.sensitivity import (
    OneAtATime,
    PickingCost,
    Plateau,
    Surface,
    one_at_a_time,
    parameter_table,
    picking_cost,
    plateau,
    plateau_of_moves,
    surfaces,
)
from qml_plugin.vrd.thresholds import Thresholds, load_thresholds
from qml_plugin.vrd.walk_forward import (
    CombinatorialPaths,
    Scheme,
    WalkForward,
    combinatorial_paths,
    walk_forward,
    walk_forward_rerun,
)

T = TypeVar("T")
Progress = Callable[[str, int, int], object]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a validation is carried out; none of it changes what a gate asks.

    ``is_rerun`` evaluates each window of the walk anew on bars up to its end, for strategies that fit themselves.
    ``n_permutations`` above 0 puts the permuted bars, with the whole search repeated on each, in the place of the test of
    superior predictive ability.
    """

    n_windows: int = 8
    first_train_frac: float = 0.25
    scheme: Scheme = "anchored"
    embargo_bars: int = 0
    is_rerun: bool = False
    n_draws: int = 999
    n_paths: int = 20_000
    n_permutations: int = 0
    permutation_block_bars: int = 25
    n_warmup_bars: int = 250
    n_cuts: int = 4
    is_importance: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """Resolved entries with their features, for attribution; see `attribute`."""

    features: FloatArray
    r_multiple: FloatArray
    known_at: IntArray
    resolved_at: IntArray
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """What became of one step: done, or insufficient with its reason. ``is_kept`` says that it was read from the folder."""

    name: str
    status: Literal["done", "insufficient"]
    reason: str
    seconds: float
    is_kept: bool


@dataclass(frozen=True, slots=True, eq=False)
class Validation:
    """All that a validation found; a part is None where its step was insufficient, and ``steps`` says why.

    ``chosen`` is the trial that is best over all bars: the one that would be traded. ``monte_carlo`` takes the mean of the
    sample as true and ``ruin`` the pessimist's. Results by ``periods`` and ``regimes`` are those of the stitched walk.
    """

    strategy_name: str
    symbol: str
    timeframe: str
    n_bars: int
    first_at: int
    last_at: int
    data_sha256: str
    seed: int
    plan: Plan
    thresholds: Thresholds
    versions: Mapping[str, str]
    n_trials_ledger: int | None
    steps: tuple[Step, ...]
    gates: tuple[Gate, ...]
    verdict: Verdict
    trials: Trials | None = None
    chosen: int | None = None
    walk: WalkForward | None = None
    paths: CombinatorialPaths | None = None
    timing: NullResult | None = None
    random_entry: NullResult | None = None
    sign_flip: NullResult | None = None
    selection: SuperiorAbility | None = None
    bar_permutation: NullResult | None = None
    significance: Significance | None = None
    overfitting: Overfitting | None = None
    interval: Interval | None = None
    monte_carlo: MonteCarlo | None = None
    ruin: MonteCarlo | None = None
    costs: CostStress | None = None
    plateau: Plateau | None = None
    moves: tuple[OneAtATime, ...] | None = None
    surfaces: tuple[Surface, ...] | None = None
    picking: PickingCost | None = None
    regimes: RegimeReport | None = None
    periods: RegimeReport | None = None
    decay: Decay | None = None
    attribution: Attribution | None = None
    audit: AuditFinding | None = None
    gate_trial: Mapping[str, Any] | None = None
    damaged: tuple[str, ...] = field(default=())

    @property
    def parameters(self) -> Parameters | None:
        """The parameters that would be traded."""
        return None if self.trials is None or self.chosen is None else self.trials.parameters[self.chosen]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is said beside the verdict and decides nothing, such as a Sharpe ratio that is hardly ever real."""
        return warnings_of(self.walk, self.significance)

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON, NaN as None; of the trials their table, not the matrices bar by bar."""
        shown: dict[str, Any] = {f.name: as_plain(getattr(self, f.name)) for f in fields(self) if f.name != "trials"}
        shown["parameters"] = as_plain(self.parameters)
        shown["warnings"] = list(self.warnings)
        if self.trials is None:
            return shown | {"trials": None}
        table = parameter_table(self.trials)
        return shown | {
            "trials": as_plain({"table": table, "failed": self.trials.failed, "n_trials": self.trials.n_trials})
        }


class _Run:
    """Runs steps one after another; knows what each gave, or why it gave nothing."""

    def __init__(self, names: Sequence[str], folder: Any, identity: Any, on_progress: Progress | None) -> None:
        self.names, self.kept, self.identity, self.on_progress = names, Steps(folder), identity, on_progress
        self.steps: list[Step] = []
        self.results: dict[str, Any] = {}

    def do(self, name: str, compute: Callable[[], T], *, needs: Sequence[str] = (), of: Any = None) -> T | None:
        """The result of a step: read, or computed and kept; None, and the reason noted, where it is insufficient.

        ``of`` is what this step alone is made of, beside what all are.
        """
        if self.on_progress is not None:
            self.on_progress(name, self.names.index(name), len(self.names))
        made_of = [name, self.identity] if of is None else [name, self.identity, of]
        began, key, reason = perf_counter(), canonical_json(plain(made_of)).decode(), ""
        result = None
        is_kept = False
        lacking = next((need for need in needs if self.results.get(need) is None), None)
        if lacking is not None:
            reason = self.reason(lacking)
        else:
            result = self.kept.read(name, key)
            is_kept = result is not None
            if not is_kept:
                try:
                    result = compute()
                except DataError as error:
                    reason = str(error)
                else:
                    self.kept.write(name, key, result)
        self.results[name] = result
        status: Literal["done", "insufficient"] = "insufficient" if reason else "done"
        self.steps.append(Step(name, status, reason, perf_counter() - began, is_kept))
        return result

    def reason(self, name: str) -> str:
        return next((step.reason for step in self.steps if step.name == name), "it was not asked for")


_STEPS = (
    "trials", "walk", "paths", "timing", "random_entry", "sign_flip", "selection", "bar_permutation", "significance",
    "overfitting", "interval", "monte_carlo", "ruin", "costs", "moves", "plateau", "surfaces", "picking", "regimes", "periods",
    "decay", "attribution", "audit",
)  # fmt: skip
_STEP_OF_GATE = {
    "evidence": "walk", "timing": "timing", "selection": "selection", "costs": "costs", "plateau": "plateau",
    "concentration": "regimes", "ruin": "ruin", "audit": "audit",
}  # fmt: skip


def validate(
    bars: Bars,
    evaluate: Evaluate,
    grid: Sequence[Parameters],
    *,
    strategy_name: str = "",
    thresholds: Thresholds | None = None,
    plan: Plan = Plan(),
    n_trials_ledger: int | None = None,
    audit: Any | None = None,
    events: Events | None = None,
    gate_trial: Any | None = None,
    seed: int = 0,
    folder: Any | None = None,
    identity: Any | None = None,
    on_progress: Progress | None = None,
) -> Validation:
    """Is the edge real? The whole validation of one strategy on one series of bars.

    Parameters
    ----------
    bars : Bars
    evaluate : callable
        Bars and parameters to an Evaluation: `Positions`, `Backtests`, or a function of your own.
    grid : sequence of mappings
        All parameters that are searched. One alone means that nothing is searched; the ledger must then say how many
        trials led to it.
    strategy_name : str, default=""
    thresholds : Thresholds, optional
        The shipped ones by default.
    plan : Plan, optional
    n_trials_ledger : int, optional
        Trials of this strategy on these bars that were ever recorded (``PatternRegistry.n_trials``).
    audit : object, optional
        A report with ``verdict`` and ``headline()``. Positions are audited here besides, and a leak found by either fails.
    events : Events, optional
        Resolved entries with features, for attribution.
    gate_trial : GateTrial, optional
        Carried into the record.
    seed : int, default=0
    folder : path, optional
        Where steps are kept: a validation that was interrupted goes on there.
    identity : object, optional
        What tells this strategy's code from others, for `folder`; by default the code of `evaluate` itself, which does not
        see changes in functions that it calls.
    on_progress : callable, optional
        Called with (step, steps done, steps in all) when a step begins.

    Returns
    -------
    Validation

    Point in time
    -------------
    Judges a finished strategy. The walk-forward chooses parameters from the past only; regimes are those known when a bar
    began.

    Raises
    ------
    DataError
        If the grid is empty or a step's result cannot be kept. A step that lacks what it needs does not raise: it is
        insufficient, and so is its gate.
    """
    if not grid:
        raise DataError("the grid of parameters is empty. One mapping, even an empty one {}, is one trial.")
    t = load_thresholds() if thresholds is None else thresholds
    code = _identity(evaluate) if identity is None else identity
    of_run = [
        bars.sha256(),
        bars.timeframe,
        list(grid),
        code,
        asdict(plan),
        asdict(t),
        n_trials_ledger,
        seed,
        library_versions(),
    ]
    run = _Run(_STEPS, folder, of_run, on_progress)
    trials = run.do("trials", lambda: run_trials(bars, evaluate, grid))
    sharpes = None if trials is None else trials.annual_sharpe()
    chosen = None if sharpes is None else int(sharpes.argmax())
    walk = run.do("walk", lambda: _walk(bars, evaluate, grid, _known(trials), plan), needs=["trials"])
    paths = run.do("paths", lambda: combinatorial_paths(_known(trials)), needs=["trials"])
    of_walk = _of_walk(run, walk, t, plan, seed)
    of_search = _of_search(run, trials, sharpes, chosen, bars, evaluate, plan, t, n_trials_ledger, seed)
    sensitivity = _sensitivity(run, trials, sharpes, chosen, bars, evaluate, seed)
    by = run.do("regimes", lambda: _by_regime(_known(walk), regimes(bars), seed), needs=["walk"])
    attribution = None
    if events is not None:
        e = events
        of_events = (e.features, e.r_multiple, e.known_at, e.resolved_at, e.names)
        attribution = run.do(
            "attribution", lambda: attribute(*of_events, is_importance=plan.is_importance, seed=seed), of=of_events
        )
    found_audit = run.do(
        "audit",
        lambda: _audited(bars, evaluate, _known(trials).parameters[_known(chosen)], audit, plan, seed),
        needs=["trials"],
        of=_audit_identity(audit),
    )
    parts: dict[str, Any] = {
        "trials": trials, "chosen": chosen, "walk": walk, "paths": paths, "regimes": by, "attribution": attribution,
        "audit": found_audit, "gate_trial": None if gate_trial is None else as_plain(gate_trial),
    } | of_walk | of_search | sensitivity  # fmt: skip
    return _concluded(run, parts, bars, strategy_name, seed, plan, t, n_trials_ledger)


def validate_returns(
    returns: FloatArray,
    per_year: float,
    *,
    costs: FloatArray | None = None,
    name: str = "",
    thresholds: Thresholds | None = None,
    plan: Plan = Plan(),
    n_trials_ledger: int | None = None,
    seed: int = 0,
    folder: Any | None = None,
    on_progress: Progress | None = None,
) -> Validation:
    """What can be said of returns alone, from a broker's list of trades or another host.

    Parameters
    ----------
    returns : ndarray of shape (n_obs,), fractions of equity
        One a trade or one a bar, in order of time, net of costs.
    per_year : float
        Observations a year.
    costs : ndarray of shape (n_obs,), fractions, optional
        That the returns hold.
    name : str, default=""
    thresholds, plan, n_trials_ledger, seed, folder, on_progress
        As `validate`.

    Returns
    -------
    Validation
        Never DEPLOY: the steps that need the strategy or the market are insufficient. They cannot be in excess of a market
        that is not known.

    Point in time
    -------------
    Judges a finished record.

    Raises
    ------
    DataError
        If a return is not finite, there is none, or per_year is not positive.
    """
    values = checked_returns(returns, at_least=1)
    if not 0 < per_year < np.inf:
        raise DataError(f"per_year is {per_year}. It counts observations a year, above 0.")
    t = load_thresholds() if thresholds is None else thresholds
    run = _Run(
        _STEPS,
        folder,
        [values, per_year, costs, asdict(plan), asdict(t), n_trials_ledger, seed, library_versions()],
        on_progress,
    )
    n_steps = max(1, round(per_year * t.ruin_horizon_years))

    def drawn(mean: Callable[[], float] | None) -> MonteCarlo:
        if len(values) < t.evidence_min_trades:
            raise DataError(
                f"{len(values)} results are too few to draw paths from; {t.evidence_min_trades} are needed."
            )
        if is_constant(values):
            raise DataError(f"all {len(values)} results are {values[0]:g}: paths without a risk would show none.")
        return monte_carlo(
            values, n_paths=plan.n_paths, n_steps=n_steps, block_length=automatic_block_length(values),
            mean_return=None if mean is None else mean(),
            ruin_equity=t.ruin_ruin_equity, seed=seed,
        )  # fmt: skip

    def stressed() -> CostStress:
        if costs is None:
            raise DataError("the costs of the returns are not known; a column cost_frac would say.")
        if len(values) < t.evidence_min_trades:
            raise DataError(
                f"{len(values)} results are too few to stress their costs; {t.evidence_min_trades} are needed."
            )
        return cost_stress(values, costs, per_year, multiples=_multiples(t), seed=seed)

    parts: dict[str, Any] = {
        "sign_flip": run.do("sign_flip", lambda: sign_flip_test(values, n_draws=plan.n_draws, seed=seed)),
        "significance": run.do("significance", lambda: _significance(values, per_year, None, None, n_trials_ledger)),
        "interval": run.do("interval", lambda: bootstrap_interval(values, n_draws=plan.n_draws, seed=seed)),
        "monte_carlo": run.do("monte_carlo", lambda: drawn(None)),
        "ruin": run.do("ruin", lambda: drawn(lambda: pessimist_mean(values, level=t.ruin_pessimist_level, seed=seed))),
        "costs": run.do("costs", stressed),
        "periods": run.do("periods", lambda: by_period(values, per_year, t, seed=seed)),
        "decay": run.do("decay", lambda: edge_decay(values, seed=seed)),
    }
    otherwise = "returns alone do not hold the strategy or the market that this needs"
    reasons = {
        "walk": f"{len(values)} results over {len(values) / per_year:.1f} years; returns alone do not say whether they are out of sample",
        "timing": "returns alone do not hold the positions and the market that this needs",
        "selection": "returns alone do not say how many trials led to them",
    }
    done = {step.name for step in run.steps}
    run.steps += [
        Step(step, "insufficient", reasons.get(step, otherwise), 0.0, False) for step in _STEPS if step not in done
    ]
    return _concluded(run, parts, None, name, seed, plan, t, n_trials_ledger, len(values))


def _concluded(
    run: _Run, parts: dict[str, Any], bars: Bars | None, name: str, seed: int, plan: Plan, t: Thresholds,
    n_trials_ledger: int | None, n_bars: int = 0,
) -> Validation:  # fmt: skip
    """Gates, verdict and record of what the steps gave."""
    missing = {gate: run.reason(step) for gate, step in _STEP_OF_GATE.items() if parts.get(step) is None}
    names = {f.name for f in fields(Findings)}
    trials: Trials | None = parts.get("trials")
    findings = Findings(
        n_trials=0 if trials is None else trials.n_trials, n_trials_ledger=n_trials_ledger, missing=missing,
        **{key: part for key, part in parts.items() if key in names},
    )  # fmt: skip
    gates, verdict = judge(findings, t)
    return Validation(
        name, bars.symbol if bars else "", bars.timeframe if bars else "", len(bars) if bars else n_bars,
        int(bars.known_at[0]) if bars else 0, int(bars.known_at[-1]) if bars else 0, bars.sha256() if bars else "",
        seed, plan, t, library_versions(), n_trials_ledger, tuple(run.steps), gates, verdict,
        damaged=tuple(run.kept.damaged), **parts,
    )  # fmt: skip


def _of_walk(run: _Run, walk: WalkForward | None, t: Thresholds, plan: Plan, seed: int) -> dict[str, Any]:
    """Steps that judge the stitched out-of-sample result."""
    needs = ["walk"]

    def drawn(is_pessimist: bool) -> MonteCarlo:
        return ruin_paths(_known(walk), t, n_paths=plan.n_paths, is_pessimist=is_pessimist, seed=seed)

    def null(test: Callable[..., NullResult], **options: Any) -> NullResult:
        w = _known(walk)
        return test(w.exposure, w.market, costs=w.costs, **options)

    return {
        "timing": run.do("timing", lambda: null(circular_shift_test, alpha=t.timing_alpha), needs=needs),
        "random_entry": run.do(
            "random_entry", lambda: null(random_entry_test, n_draws=plan.n_draws, seed=seed), needs=needs
        ),
        "interval": run.do(
            "interval", lambda: bootstrap_interval(_known(walk).excess, n_draws=plan.n_draws, seed=seed), needs=needs
        ),
        "monte_carlo": run.do("monte_carlo", lambda: drawn(False), needs=needs),
        "ruin": run.do("ruin", lambda: drawn(True), needs=needs),
        "costs": run.do("costs", lambda: stressed_walk(_known(walk), t, n_draws=plan.n_draws, seed=seed), needs=needs),
        "periods": run.do(
            "periods", lambda: by_period(_known(walk).excess, _known(walk).bars_per_year, t, seed=seed), needs=needs
        ),
        "decay": run.do("decay", lambda: edge_decay(_known(walk).excess, seed=seed), needs=needs),
    }


def _of_search(
    run: _Run, trials: Trials | None, sharpes: FloatArray | None, chosen: int | None, bars: Bars, evaluate: Evaluate,
    plan: Plan, t: Thresholds, n_trials_ledger: int | None, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Steps that judge all trials together."""
    needs = ["trials"]

    def superior() -> SuperiorAbility:
        return superior_predictive_ability(
            _known(trials).excess(), n_draws=plan.n_draws, alpha=t.selection_alpha, seed=seed
        )

    def overfitted() -> Overfitting:
        excess = _known(trials).excess()
        return pbo(excess[:, excess.std(axis=0) > 0])

    found: dict[str, Any] = {
        "selection": run.do("selection", superior, needs=needs),
        "significance": run.do(
            "significance",
            lambda: _significance(
                chosen_excess(_known(trials), _known(chosen)), _known(trials).bars_per_year, trials, sharpes, n_trials_ledger
            ),
            needs=needs,
        ),
        "overfitting": run.do("overfitting", overfitted, needs=needs),
        "sign_flip": run.do(
            "sign_flip",
            lambda: sign_flip_test(evaluate(bars, _known(trials).parameters[_known(chosen)]).trade_returns, n_draws=plan.n_draws, seed=seed),
            needs=needs,
        ),
    }  # fmt: skip
    if plan.n_permutations:
        found["bar_permutation"] = run.do(
            "bar_permutation",
            lambda: permuted_search(
                bars, evaluate, _known(trials).parameters, plan, alpha=t.selection_alpha, seed=seed
            ),
            needs=needs,
        )
    return found


def _sensitivity(
    run: _Run, trials: Trials | None, sharpes: FloatArray | None, chosen: int | None, bars: Bars, evaluate: Evaluate, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Steps that ask what hangs on the very parameters."""
    needs = ["trials"]

    moves = run.do(
        "moves", lambda: one_at_a_time(bars, evaluate, _known(trials).parameters[_known(chosen)]), needs=needs
    )

    def flat() -> Plateau:
        if _known(trials).n_trials > 1:
            return plateau(_known(trials).parameters, _known(sharpes), chosen)
        return plateau_of_moves(float(_known(sharpes)[_known(chosen)]), moves or ())

    return {
        "moves": moves,
        "plateau": run.do("plateau", flat, needs=needs),
        "surfaces": run.do("surfaces", lambda: surfaces(_known(trials).parameters, _known(sharpes)), needs=needs),
        "picking": run.do(
            "picking", lambda: picking_cost(_known(trials).excess(), _known(trials).bars_per_year, n_draws=100, seed=seed), needs=needs
        ),
    }  # fmt: skip


def _walk(bars: Bars, evaluate: Evaluate, grid: Sequence[Parameters], trials: Trials, plan: Plan) -> WalkForward:
    options: dict[str, Any] = {
        "n_windows": plan.n_windows, "first_train_frac": plan.first_train_frac, "scheme": plan.scheme,
        "embargo_bars": plan.embargo_bars,
    }  # fmt: skip
    return walk_forward_rerun(bars, evaluate, grid, **options) if plan.is_rerun else walk_forward(trials, **options)


def ruin_paths(walk: WalkForward, t: Thresholds, *, n_paths: int, is_pessimist: bool, seed: int) -> MonteCarlo:
    """Paths of equity over the horizon of the thresholds, drawn from the stitched walk.

    Parameters
    ----------
    walk : WalkForward
    t : Thresholds
    n_paths : int
    is_pessimist : bool
        Whether the mean is moved to the lower bound of the bootstrap.
    seed : int

    Returns
    -------
    MonteCarlo

    Point in time
    -------------
    Judges a finished run.

    Raises
    ------
    DataError
        If nothing was held out of sample: paths without a risk would show none.
    """
    if not walk.exposure.any():
        raise DataError("no position was held out of sample: paths without a risk would show none.")
    length = automatic_block_length(walk.returns)
    mean = (
        pessimist_mean(walk.returns, level=t.ruin_pessimist_level, block_length=length, seed=seed)
        if is_pessimist
        else None
    )
    return monte_carlo(
        walk.returns, n_paths=n_paths, n_steps=max(1, round(walk.bars_per_year * t.ruin_horizon_years)), block_length=length,
        mean_return=mean, ruin_equity=t.ruin_ruin_equity, seed=seed,
    )  # fmt: skip


def stressed_walk(
    walk: WalkForward, t: Thresholds, *, n_draws: int, block_length: float | None = None, seed: int
) -> CostStress:
    """The stitched walk at multiples of its costs, in excess of the market.

    Parameters
    ----------
    walk : WalkForward
    t : Thresholds
    n_draws, block_length, seed
        Of the intervals; as `cost_stress`.

    Returns
    -------
    CostStress
        At 1, 2, 3 times and at the multiple that the thresholds ask for.

    Point in time
    -------------
    Judges a finished run.
    """
    return cost_stress(
        walk.excess,
        walk.costs,
        walk.bars_per_year,
        multiples=_multiples(t),
        n_draws=n_draws,
        block_length=block_length,
        seed=seed,
    )


def permuted_search(
    bars: Bars, evaluate: Evaluate, grid: Sequence[Parameters], plan: Plan, *, alpha: float, seed: int
) -> NullResult:
    """The whole search against itself on permuted bars: the highest Sharpe ratio of excess over all trials.

    Parameters
    ----------
    bars : Bars
    evaluate : callable
    grid : sequence of mappings
    plan : Plan
    alpha : float
    seed : int

    Returns
    -------
    NullResult
        A permuted market on which every trial fails counts against the strategy.

    Point in time
    -------------
    Judges a finished search.

    Raises
    ------
    DataError
        If the bars are too few to permute.
    """
    columns = np.column_stack([bars.open, bars.high, bars.low, bars.close, bars.volume])
    warmup = max(1, min(plan.n_warmup_bars, len(bars) // 4))
    permuted = PermutedBars.of(columns, n_warmup=warmup, block_bars=plan.permutation_block_bars, seed=seed)

    def best(moved: FloatArray) -> float:
        o, h, low, c, v = (np.ascontiguousarray(column) for column in moved.T)
        try:
            trials = run_trials(
                Bars(bars.symbol, bars.timeframe, bars.opened_at, bars.known_at, o, h, low, c, v), evaluate, grid
            )
        except DataError:  # every trial failed there; NaN counts against the strategy
            return float("nan")
        return float(trials.annual_sharpe().max())

    return bar_permutation_test(permuted, best, n_draws=plan.n_permutations, alpha=alpha)


def _by_regime(walk: WalkForward, code: Any, seed: int) -> RegimeReport:
    return by_regime(walk.excess, code[walk.bar], walk.bars_per_year, seed=seed)


def by_period(
    excess: FloatArray,
    per_year: float,
    t: Thresholds,
    *,
    n_draws: int = 1_000,
    block_length: float | None = None,
    seed: int,
) -> RegimeReport:
    """Results of equal stretches of time, as many as the thresholds ask for.

    Parameters
    ----------
    excess : ndarray of shape (n_obs,), fractions
        In order of time.
    per_year : float
        Observations a year.
    t : Thresholds
    n_draws, block_length, seed
        Of the intervals; as `by_regime`.

    Returns
    -------
    RegimeReport

    Point in time
    -------------
    Judges a finished run.

    Raises
    ------
    DataError
        If there are fewer results than periods.
    """
    n = t.concentration_n_periods
    if len(excess) < n:
        raise DataError(f"{len(excess)} results cannot be cut into {n} periods.")
    code = (np.arange(len(excess)) * n // len(excess)).astype(np.int8)
    names = tuple(f"period {i + 1}" for i in range(n))
    return by_regime(excess, code, per_year, names=names, n_draws=n_draws, block_length=block_length, seed=seed)


def _significance(
    excess: FloatArray, per_year: float, trials: Trials | None, sharpes: FloatArray | None, n_trials_ledger: int | None
) -> Significance:
    """How sure the chosen trial is; the DSR charges for the larger count of trials."""
    sr, n_obs, skew, kurt = sharpe_moments(excess)
    n_shown = 1 if trials is None else trials.n_trials
    n_trials = max(n_shown, n_trials_ledger or 0)
    effective, variance = 1.0, 1.0 / n_obs  # that of trials without skill, where only their number is known
    if trials is not None and sharpes is not None and n_shown > 1:
        effective = effective_n_trials(trials.excess())
        variance = float(np.var(sharpes / np.sqrt(per_year), ddof=1))
    # Trials that resemble the ones shown count as the same share of independent ones.
    charged = max(1.0, effective / n_shown * n_trials) if n_shown > 1 else float(n_trials)
    is_counted = n_shown > 1 or bool(n_trials_ledger)
    return Significance(
        sr * np.sqrt(per_year), probabilistic_sharpe_ratio(sr, n_obs, skew, kurt),
        deflated_sharpe_ratio(sr, n_obs, skew, kurt, variance, charged) if is_counted else np.nan,
        n_trials, effective, variance, min_track_record_length(sr, skew, kurt) / per_year,
        min_backtest_length(charged, sr * np.sqrt(per_year)) if sr > 0 else np.inf,
    )  # fmt: skip


def _audit_identity(report: Any | None) -> Any:
    """What tells one report from another; a report that is made when asked for has an ``identity`` of its own."""
    identity = getattr(report, "identity", None)
    return identity or (None if report is None else [report.verdict, report.headline()])


def _audited(
    bars: Bars, evaluate: Evaluate, parameters: Parameters, report: Any | None, plan: Plan, seed: int
) -> AuditFinding:
    """The worse of the report given and of what positions show."""
    given = None if report is None else AuditFinding.of(report)
    if given is not None and given.verdict != "clean":
        return given
    try:
        own = audit_positions(bars, evaluate, parameters, n_cuts=plan.n_cuts, seed=seed)
    except Exception as error:  # noqa: BLE001  the strategy is foreign code, and fails on other bars
        own = AuditFinding("refused", f"the strategy fails on other bars: {type(error).__name__}: {error}")
    if own.verdict == "leak" or given is None:
        return own
    return given


def _multiples(t: Thresholds) -> tuple[float, ...]:
    return tuple(sorted({1.0, 2.0, 3.0, t.costs_multiple}))


def _identity(evaluate: Any) -> Any:
    """What tells one function to evaluate from another: its code, and what it holds."""
    if is_dataclass(evaluate) and not isinstance(evaluate, type):
        return [type(evaluate).__qualname__, {f.name: plain(getattr(evaluate, f.name)) for f in fields(evaluate)}]
    return plain(evaluate)


def _known(value: T | None) -> T:
    """What a step needed and has, or it would not have begun."""
    assert value is not None
    return value
