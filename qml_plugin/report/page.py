"""The demo's page: one HTML file that needs nothing beside it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qml_plugin.report import figures
from qml_plugin.report.document import Chart, chart, render, write
from qml_plugin.report.reliability import FEWEST_SCORES, reliability_bins
from qml_plugin.report.views import DecisionCard, DemoPage, EquityView, ReliabilityView
from qml_plugin.stats.calibration import brier_score


def render_page(page: DemoPage) -> str:
    """One self-contained HTML file: plotly.js, style and data inside, nothing fetched from anywhere.

    Parameters
    ----------
    page : DemoPage
        What to show. Text from outside is escaped wherever it appears.

    Returns
    -------
    str
        The whole document. Missing figures are an en dash; empty sections say so.

    Point in time
    -------------
    Draws all rows given: a look back on finished runs.

    Raises
    ------
    DataError
        If columns of an equity, a reliability curve or a card differ in length, or a card's rows lie outside its
        window.
    """
    rows = [("Market data", [row for row in page.rows if not row.is_synthetic])]
    rows += [("Synthetic market with a planted edge", [row for row in page.rows if row.is_synthetic])]
    return render(
        "demo.html.j2",
        page=page,
        row_groups=[group for group in rows if group[1]],
        equities=[_equity(i, view) for i, view in enumerate(page.equities, start=1)],
        reliabilities=[_reliability(i, view) for i, view in enumerate(page.reliabilities, start=1)],
        cards=[shown_card(i, card) for i, card in enumerate(page.cards, start=1)],
    )


def write_page(page: DemoPage, path: str | os.PathLike[str]) -> Path:
    """Path of the written page; an earlier file there is replaced whole, or not at all.

    Parameters
    ----------
    page : DemoPage
        What to show.
    path : path
        Where; its folder must exist.

    Returns
    -------
    Path
        `path`, absolute.

    Point in time
    -------------
    As `render_page`.

    Raises
    ------
    DataError
        As `render_page`; nothing was written.
    OSError
        If the file cannot be written, such as on a full disk; the earlier file is intact.
    """
    return write(render_page(page), path)


@dataclass(frozen=True, slots=True)
class _Equity:
    view: EquityView
    chart: Chart | None
    is_same: bool


@dataclass(frozen=True, slots=True)
class _Reliability:
    view: ReliabilityView
    chart: Chart | None
    n: int
    brier: float | None
    base_rate: float | None


@dataclass(frozen=True, slots=True)
class ShownCard:
    """One decision on a page; a chart is None where there is nothing to draw."""

    card: DecisionCard
    candles: Chart | None
    contributions: Chart | None


def _equity(number: int, view: EquityView) -> _Equity:
    drawn = None
    if len(view.opened_at) or len(view.with_gate) or len(view.without_gate):
        label = f"Equity with and without the gate: {view.title}"
        drawn = chart(f"equity-{number}", label, figures.equity_figure(view))
    return _Equity(view, drawn, np.array_equal(view.with_gate, view.without_gate, equal_nan=True))


def _reliability(number: int, view: ReliabilityView) -> _Reliability:
    bins = reliability_bins(view.confidence, view.is_win)
    is_known = np.isfinite(view.confidence)
    n = int(is_known.sum())
    if n < FEWEST_SCORES:
        return _Reliability(view, None, n, None, None)
    drawn = chart(
        f"reliability-{number}", f"Reliability of the confidences: {view.title}", figures.reliability_figure(bins)
    )
    won = view.is_win[is_known]
    return _Reliability(view, drawn, n, brier_score(view.confidence[is_known], won), float(won.mean()))


def shown_card(number: int, card: DecisionCard) -> ShownCard:
    """A card with its charts; `number` makes their ids."""
    candles = contributions = None
    if len(card.opened_at):
        label = f"Price around the entry: {card.title}"
        candles = chart(f"candles-{number}", label, figures.candles_figure(card))
    if any(np.isfinite(value) for _, value in card.contributions):
        label = f"Largest contributions: {card.title}"
        contributions = chart(f"contributions-{number}", label, figures.contributions_figure(card))
    return ShownCard(card, candles, contributions)
