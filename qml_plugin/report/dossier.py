"""The dossier of a validation: one HTML file, the verdict first, and one JSON file with every number."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qml_plugin.records import FloatArray
from qml_plugin.report import dossier_figures as draw
from qml_plugin.report import trial_figures
from qml_plugin.report.document import Chart, chart, render, write
from qml_plugin.report.figures import reliability_figure
from qml_plugin.report.reliability import FEWEST_SCORES
from qml_plugin.report.trial_page import VERDICTS as GATE_VERDICTS
from qml_plugin.report.trial_page import shown_bins
from qml_plugin.stats.nulls import NullResult
from qml_plugin.vrd.regimes import REGIMES
from qml_plugin.vrd.sensitivity import parameter_table
from qml_plugin.vrd.strategies import StrategyValidation
from qml_plugin.vrd.validate import Validation

_SENTENCES = {
    "DEPLOY": "The edge holds.",
    "CAUTION": "An edge, with a reservation.",
    "REJECT": "No edge was shown.",
    "INSUFFICIENT": "Too little to go on.",
}
_MOST_ATTEMPTS, _MOST_RELATIONS, _MOST_SURFACES, _MOST_TRIALS = 300, 20, 3, 300
_PER_BAR, _PER_TRADE = "Sharpe ratio a bar", "mean result of a trade"


@dataclass(frozen=True, slots=True)
class _Null:
    """One null as the page shows it."""

    title: str
    what: str
    result: NullResult
    chart: Chart | None


@dataclass(frozen=True, slots=True, eq=False)
class _Record:
    """What was earned: places on the axis, equity, the lines to draw, and regimes bar by bar."""

    x: FloatArray
    equity: FloatArray
    lines: dict[str, FloatArray]
    regimes: tuple[tuple[str, ...], NDArray[np.int8]] | None
    is_time: bool

    def charts(self) -> dict[str, Chart | None]:
        """Equity and drawdown; None where nothing is known."""
        if not len(self.equity):
            return {"equity": None, "drawdown": None}
        equity = draw.equity_figure(self.x, self.lines, self.regimes, is_time=self.is_time)
        fall = draw.drawdown_figure(self.x, self.equity, is_time=self.is_time)
        return {
            "equity": chart("equity", "Equity out of sample", equity),
            "drawdown": chart("drawdown", "Drawdown out of sample", fall),
        }


def render_dossier(found: StrategyValidation) -> str:
    """One self-contained HTML file: verdict, gates, and all that they rest on; nothing is fetched from anywhere.

    Parameters
    ----------
    found : StrategyValidation
        Names in it are escaped wherever they appear.

    Returns
    -------
    str
        The whole document. A part that could not be computed says why in its place.

    Point in time
    -------------
    Draws all that was found: a look back on a finished strategy.
    """
    v = found.validation
    record = _record(found)
    reasons = {step.name: step.reason.rstrip(".") for step in v.steps if step.reason}
    moves = None if not v.moves else draw.moves_figure(v.moves, _centre(v))
    charts = record.charts() | {
        "decay": _decay(v, record),
        "moves": None if moves is None else chart("moves", "One parameter moved at a time", moves),
    }
    for name, paths in (("fan", v.monte_carlo), ("pessimist", v.ruin)):
        drawn = None if paths is None else draw.fan_figure(paths, v.thresholds.ruin_horizon_years)
        charts[name] = None if drawn is None else chart(name, "Resampled paths of equity", drawn)
    surfaces = [
        chart(f"surface-{i}", f"Sharpe ratio by {s.x_name} and {s.y_name}", draw.surface_figure(s))
        for i, s in enumerate((v.surfaces or ())[:_MOST_SURFACES], 1)
    ]
    return render(
        "dossier.html.j2", found=found, v=v, headline=_SENTENCES[v.verdict.word], charts=charts, surfaces=surfaces,
        n_surfaces=len(v.surfaces or ()), nulls=_nulls(v), reasons=reasons, gate=_gate(found), drawdowns=_drawdowns(v),
        max_drawdown=float(-draw.drawdown(record.equity).min()) if len(record.equity) else None, trials=_trials(v),
        attempts=found.attempts[::-1][:_MOST_ATTEMPTS], relations=v.attribution.relations[:_MOST_RELATIONS] if v.attribution else (),
        benchmark=_benchmark(v), is_returns=found.bars is None, regime_names=REGIMES,
        period_bars=_period_bars(v),
    )  # fmt: skip


def write_dossier(found: StrategyValidation, folder: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Absolute paths of ``dossier.html`` and ``dossier.json``; earlier ones are replaced whole, or not at all.

    Parameters
    ----------
    found : StrategyValidation
    folder : path
        Made where it is missing.

    Returns
    -------
    (html, json) : pair of Path

    Point in time
    -------------
    As `render_dossier`.

    Raises
    ------
    OSError
        If a file cannot be written; the earlier one is intact.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found.as_dict(), allow_nan=False, ensure_ascii=False)
    written = write(text, place / "dossier.json")
    return write(render_dossier(found), place / "dossier.html"), written


def _record(found: StrategyValidation) -> _Record:
    """The stitched walk, or the returns of a file."""
    v, walk = found.validation, found.validation.walk
    if walk is not None and found.bars is not None:
        held = float(np.mean(walk.exposure))
        lines = {
            "strategy": walk.equity,
            "market": _compounded(walk.market),
            "market at its mean exposure": _compounded(held * walk.market),
        }
        regimes = None if v.regimes is None else (v.regimes.names, v.regimes.code)
        return _Record(found.bars.opened_at[walk.bar] / 1000, walk.equity, lines, regimes, True)
    if found.returns is not None:
        equity = _compounded(found.returns)
        return _Record(np.arange(1.0, len(equity) + 1), equity, {"strategy": equity}, None, False)
    return _Record(np.empty(0), np.empty(0), {}, None, False)


def _compounded(returns: FloatArray) -> FloatArray:
    return np.asarray(np.cumprod(1 + returns), dtype=np.float64)


def _decay(v: Validation, record: _Record) -> Chart | None:
    if v.decay is None or not len(record.x):
        return None
    per_year = v.walk.bars_per_year if v.walk is not None else 1.0
    return chart("decay", "The edge over time", draw.decay_figure(v.decay, record.x, per_year, is_time=record.is_time))


def _centre(v: Validation) -> float:
    assert v.trials is not None
    assert v.chosen is not None
    return float(v.trials.annual_sharpe()[v.chosen])


def _nulls(v: Validation) -> list[_Null]:
    shown = (
        ("Circular shift", "The same positions, held at other times. Decides the gate of timing.", v.timing, _PER_BAR),
        ("Best of all trials", "The best of as many searches without skill (superior predictive ability). Decides the gate of selection.",
         v.selection.null if v.selection else None, "standardised mean of the best trial"),
        ("Permuted bars", "The whole search again on markets whose bars were put into another order. Decides the gate of selection.", v.bar_permutation, "best annual Sharpe ratio of the search"),
        ("Random entries", "As many trades of the same lengths, entered at random. Shown beside the gates.", v.random_entry, _PER_BAR),
        ("Sign flip", "Each trade won or lost at the toss of a coin. Fooled by a rising market; decides nothing.", v.sign_flip, _PER_TRADE),
    )  # fmt: skip
    return [
        _Null(
            title, what, result,
            chart(f"null-{i}", f"{title}: what luck alone gives", draw.null_figure(result, unit))
            if np.isfinite(result.null_draws).any() and np.isfinite(result.statistic) else None,
        )
        for i, (title, what, result, unit) in enumerate(shown, 1)
        if result is not None
    ]  # fmt: skip


def _gate(found: StrategyValidation) -> dict[str, Any]:
    """The trial of the memory's gate as the page shows it."""
    trial = found.gate
    shown: dict[str, Any] = {"trial": trial, "verdict": "", "cumulative": None, "reliability": None}
    if trial is None:
        return shown
    shown["verdict"] = GATE_VERDICTS[trial.verdict]
    if len(trial.cumulative_r.get("gated", ())):
        shown["cumulative"] = chart(
            "gate-r", "R so far, gated, ungated and random", trial_figures.cumulative_figure(trial)
        )
    if trial.reliability is not None and trial.reliability.n.sum() >= FEWEST_SCORES:
        bins = shown_bins(trial.reliability)
        shown["reliability"] = chart("gate-reliability", "Reliability of the confidences", reliability_figure(bins))
    return shown


def _drawdowns(v: Validation) -> list[tuple[str, list[float], float, float]]:
    """Quantiles of the deepest fall, share ruined and mean stretch below the highest, for both kinds of paths."""
    return [
        (name, np.quantile(paths.max_drawdown_frac, (0.5, 0.95, 0.99)).tolist(), paths.ruin_probability(),
         float(np.median(paths.under_water_steps) / paths.n_steps))
        for name, paths in (("the mean of the sample", v.monte_carlo), ("the pessimist's mean", v.ruin))
        if paths is not None
    ]  # fmt: skip


def _benchmark(v: Validation) -> dict[str, float] | None:
    if v.walk is None:
        return None
    w = v.walk
    return {
        "return_frac": float(w.equity[-1] - 1), "market_frac": float(np.prod(1 + w.market) - 1),
        "exposure": float(np.mean(w.exposure)), "held_frac": float((w.exposure != 0).mean()),
    }  # fmt: skip


def _period_bars(v: Validation) -> list[tuple[int, int]]:
    """First and last bar of each period; none where only returns are known."""
    if v.walk is None or v.periods is None:
        return []
    code = v.periods.code
    places = [np.flatnonzero(code == i) for i in range(len(v.periods.rows))]
    return [(int(v.walk.bar[rows[0]]), int(v.walk.bar[rows[-1]])) for rows in places]


def _trials(v: Validation) -> dict[str, Any] | None:
    """The table of the search, best first."""
    if v.trials is None:
        return None
    table = parameter_table(v.trials)
    order = np.argsort(-np.asarray(table["excess_sharpe"]), kind="stable")[:_MOST_TRIALS].tolist()
    return {"names": list(table), "rows": [[table[name][i] for name in table] for i in order], "n": v.trials.n_trials}
