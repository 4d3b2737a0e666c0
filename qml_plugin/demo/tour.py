"""Two strategies on three markets in three modes: run them, register them, and say what was found."""

from __future__ import annotations

import platform
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qml_plugin.adapters.backtesting_py import bundled_data, run_backtest
from qml_plugin.bars import bars_from_frame
from qml_plugin.demo.cards import decision_card
from qml_plugin.demo.synthetic import planted_edge_market
from qml_plugin.errors import DataError
from qml_plugin.memory import MODES
from qml_plugin.provenance import library_versions
from qml_plugin.records import Decision, Pattern
from qml_plugin.report.page import write_page
from qml_plugin.report.reliability import FEWEST_SCORES
from qml_plugin.report.views import DecisionCard, DemoPage, EquityView, ReliabilityView, RunRow
from qml_plugin.report.words import percent, reason
from qml_plugin.stats.calibration import brier_skill

Step = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demonstration produced: the table, the findings, and where database and page are."""

    rows: tuple[RunRow, ...]
    findings: tuple[str, ...]
    database: str
    page: Path


@dataclass(frozen=True, slots=True)
class _Market:
    symbol: str
    timeframe: str
    frame: pd.DataFrame
    is_synthetic: bool = False
    parameters: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Finished:
    """One run: what went in, and what the host and the memory returned."""

    market: _Market
    strategy: str
    mode: str
    stats: pd.Series
    patterns: list[Pattern]
    decisions: list[Decision]
    row: RunRow


def run_demo(out: Path, *, on_step: Step = lambda done, total, text: None) -> DemoResult:
    """Run the demonstration and write ``experiments.db``, ``synthetic.db`` and ``demo.html`` into `out`.

    Parameters
    ----------
    out : Path
        Folder, created if missing; nothing is written outside it. Databases already there are kept and read.
    on_step : callable, optional
        Called with (runs done, runs in all, what runs now).

    Returns
    -------
    DemoResult

    Raises
    ------
    DataError
        If `out` cannot be made or is no folder.
    RegistryError
        If a database in `out` cannot be used.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"the folder {out} cannot be made: {error}. Name a folder that exists or can be created."
        ) from error
    plan = _plan()
    finished = []
    for done, (strategy, market, mode) in enumerate(plan):
        on_step(done, len(plan), f"{strategy.__name__} on {market.symbol} {market.timeframe}, {mode}")
        finished.append(_run(strategy, market, mode, out))
    on_step(len(plan), len(plan), "writing the page")
    page = _page(finished, out)
    return DemoResult(page.rows, page.findings, page.database, write_page(page, out / "demo.html"))


def _plan() -> list[tuple[type, _Market, str]]:
    from strategies.moving_average import MovingAverageCross
    from strategies.qml import QMLStrategy

    real = [_Market("GOOG", "1d", bundled_data("GOOG")), _Market("EURUSD", "1h", bundled_data("EURUSD"))]
    made_up = _Market("SYNTHETIC", "1h", planted_edge_market(), is_synthetic=True, parameters={"fast": 5, "slow": 20})
    pairs = [(strategy, market) for market in real for strategy in (QMLStrategy, MovingAverageCross)]
    # Mode by mode: whatever is recorded first is the same past for every later run, now and when all is run again.
    return [(strategy, market, mode) for mode in MODES for strategy, market in [*pairs, (MovingAverageCross, made_up)]]


def _run(strategy: type, market: _Market, mode: str, out: Path) -> _Finished:
    database = out / ("synthetic.db" if market.is_synthetic else "experiments.db")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="backtesting")  # on margin and same-bar fills
        stats = run_backtest(
            strategy,
            market.frame,
            cash=1_000_000,
            commission=0.0002,
            exclusive_orders=strategy.__name__ == "MovingAverageCross",
            finalize_trades=True,
            parameters={
                "symbol": market.symbol,
                "timeframe": market.timeframe,
                "mode": mode,
                "registry": f"sqlite:///{database.resolve()}",
                **market.parameters,
            },
        )
    memory = stats["_strategy"].qml
    row = _row(strategy.__name__, market, mode, stats, memory.patterns, memory.decisions)
    return _Finished(market, strategy.__name__, mode, stats, memory.patterns, memory.decisions, row)


def _row(
    strategy: str, market: _Market, mode: str, stats: pd.Series, patterns: list[Pattern], decisions: list[Decision]
) -> RunRow:
    outcomes = [pattern.outcome for pattern in patterns if pattern.outcome is not None]
    actions = Counter(decision.action for decision in decisions)
    reasons = Counter(decision.reason.split(":")[0] for decision in decisions if decision.action == "abstain")
    scored = _scored(patterns, decisions)
    sharpe = float(stats["Sharpe Ratio"])
    return RunRow(
        strategy=strategy,
        data=f"{market.symbol} {market.timeframe}",
        mode=mode,
        n_entries=len(decisions),
        n_taken=actions["take"],
        n_skipped=actions["skip"],
        n_abstained=actions["abstain"],
        main_reason=reasons.most_common(1)[0][0] if reasons else None,
        win_share=float(np.mean([outcome.is_win for outcome in outcomes])) if outcomes else None,
        return_frac=float(stats["Return [%]"]) / 100,
        sharpe_annual=sharpe if np.isfinite(sharpe) else None,
        n_would_skip=sum(decision.reason.startswith("would_skip") for decision in decisions),
        brier_skill=brier_skill(*scored) if len(scored[0]) >= FEWEST_SCORES else None,
        is_synthetic=market.is_synthetic,
    )


def _scored(patterns: list[Pattern], decisions: list[Decision]) -> tuple[Any, Any, Any]:
    """(confidence, is_win, base rate known at the time) of entries that were scored and have resolved."""
    rows = [
        (decision.confidence, pattern.outcome.is_win, decision.base_rate)
        for pattern, decision in zip(patterns, decisions, strict=True)
        if decision.confidence is not None and decision.base_rate is not None and pattern.outcome is not None
    ]
    confidence, is_win, base_rate = (
        (np.array(column) for column in zip(*rows, strict=True)) if rows else (np.empty(0),) * 3
    )
    return confidence.astype(float), is_win.astype(bool), base_rate.astype(float)


def _page(finished: list[_Finished], out: Path) -> DemoPage:
    order = list(dict.fromkeys((run.strategy, run.market.symbol) for run in finished))
    finished = sorted(finished, key=lambda run: order.index((run.strategy, run.market.symbol)))
    rows = tuple(run.row for run in finished)
    by_mode = {mode: [run for run in finished if run.mode == mode] for mode in MODES}
    versions = {"python": platform.python_version(), **library_versions()}
    return DemoPage(
        title="A strategy with a memory",
        findings=_findings(by_mode["gate"], by_mode["shadow"]),
        rows=rows,
        equities=tuple(_equity(a, b) for a, b in zip(by_mode["gate"], by_mode["shadow"], strict=True)),
        reliabilities=tuple(view for run in by_mode["shadow"] if (view := _reliability(run)) is not None),
        cards=_cards(by_mode["gate"]),
        database=str((out / "experiments.db").resolve()),
        versions=tuple(versions.items()),
    )


def _equity(gated: _Finished, ungated: _Finished) -> EquityView:
    bars = bars_from_frame(gated.market.frame, symbol=gated.market.symbol, timeframe=gated.market.timeframe)
    return EquityView(
        title=f"{gated.strategy} on {gated.row.data}",
        opened_at=bars.opened_at,
        with_gate=gated.stats["_equity_curve"]["Equity"].to_numpy(),
        without_gate=ungated.stats["_equity_curve"]["Equity"].to_numpy(),
        is_synthetic=gated.market.is_synthetic,
    )


def _reliability(run: _Finished) -> ReliabilityView | None:
    confidence, is_win, _ = _scored(run.patterns, run.decisions)
    if len(confidence) == 0:
        return None
    return ReliabilityView(f"{run.strategy} on {run.row.data}", confidence, is_win, run.market.is_synthetic)


def _cards(gated: list[_Finished]) -> tuple[DecisionCard, ...]:
    """The last real Quasimodo that was scored, the last real cross, and the first skip of the synthetic market."""
    cards = []
    for strategy in ("QMLStrategy", "MovingAverageCross"):
        runs = [run for run in gated if run.strategy == strategy and not run.market.is_synthetic]
        cards += [_card(run, gated, pick) for run in reversed(runs) if (pick := _last_explained(run)) is not None][:1]
    synthetic = next(run for run in gated if run.market.is_synthetic)
    skips = [i for i, decision in enumerate(synthetic.decisions) if decision.action == "skip"]
    pick = skips[0] if skips else _last_explained(synthetic)
    return (*cards, _card(synthetic, gated, pick)) if pick is not None else tuple(cards)


def _last_explained(run: _Finished) -> int | None:
    """Position of the last decision with neighbours and a known outcome; a scored one where there is any."""
    found = [i for i, d in enumerate(run.decisions) if d.neighbours and run.patterns[i].outcome is not None]
    scored = [i for i in found if run.decisions[i].confidence is not None]
    candidates = scored or found
    return candidates[-1] if candidates else None


def _card(run: _Finished, gated: list[_Finished], position: int) -> DecisionCard:
    past = {
        p.pattern_id: p
        for other in gated
        if other.market.is_synthetic == run.market.is_synthetic
        for p in other.patterns
    }
    bars = bars_from_frame(run.market.frame, symbol=run.market.symbol, timeframe=run.market.timeframe)
    return decision_card(
        bars, run.patterns[position], run.decisions[position], past, is_synthetic=run.market.is_synthetic
    )


def _findings(gated: list[_Finished], ungated: list[_Finished]) -> tuple[str, ...]:
    """What a reader should take away, in plain sentences."""
    real = [run for run in gated if not run.market.is_synthetic]
    n_entries, n_skipped = sum(run.row.n_entries for run in real), sum(run.row.n_skipped for run in real)
    n_abstained = sum(run.row.n_abstained for run in real)
    reasons = Counter(run.row.main_reason for run in real if run.row.main_reason).most_common(1)
    findings = [f"Real data: two strategies on two markets registered {n_entries} entries."]
    if n_skipped:
        findings.append(f"Real data: the gate skipped {n_skipped} of them and abstained on {n_abstained}.")
    elif reasons:
        findings.append(
            f"Real data: no edge was shown. The gate abstained on {n_abstained} of {n_entries} entries, mostly because of "
            f"{reason(reasons[0][0])}, so every entry passed unjudged."
        )
    for gate, shadow in zip(gated, ungated, strict=True):
        if gate.market.is_synthetic:
            findings.append(
                f"Synthetic market, with an edge planted on purpose: the gate "
                f"{'became active' if gate.row.n_skipped else 'stayed inactive'} and skipped {gate.row.n_skipped} of "
                f"{gate.row.n_entries} entries; the return went from {percent(shadow.row.return_frac)} without it to "
                f"{percent(gate.row.return_frac)} with it."
            )
    return tuple(findings)
