"""The demo's page: one HTML file that needs nothing beside it."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from qml_plugin.clock import isoformat
from qml_plugin.report import figures, words
from qml_plugin.report.reliability import FEWEST_SCORES, reliability_bins
from qml_plugin.report.views import DecisionCard, DemoPage, EquityView, ReliabilityView
from qml_plugin.stats.calibration import brier_score

_UNSAFE_IN_SCRIPT = str.maketrans(
    {char: f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}  # "</script>" inside the JSON would end its element
)


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
    environment = Environment(
        loader=PackageLoader("qml_plugin.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "number": words.number,
        "percent": words.percent,
        "reason": words.reason,
        "isoformat": isoformat,
    }
    rows = [("Market data", [row for row in page.rows if not row.is_synthetic])]
    rows += [("Synthetic market with a planted edge", [row for row in page.rows if row.is_synthetic])]
    return environment.get_template("demo.html.j2").render(
        page=page,
        row_groups=[group for group in rows if group[1]],
        equities=[_equity(i, view) for i, view in enumerate(page.equities, start=1)],
        reliabilities=[_reliability(i, view) for i, view in enumerate(page.reliabilities, start=1)],
        cards=[_card(i, card) for i, card in enumerate(page.cards, start=1)],
        words=words,
        plotly_js=Markup(get_plotlyjs()),
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
    target = Path(path).absolute()
    html = render_page(page)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("x", encoding="utf-8", newline="\n") as file:
            file.write(html)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return target


@dataclass(frozen=True, slots=True)
class _Chart:
    """A figure's place on the page and its JSON."""

    id: str
    label: str
    json: Markup
    height: int


@dataclass(frozen=True, slots=True)
class _Equity:
    view: EquityView
    chart: _Chart | None
    is_same: bool


@dataclass(frozen=True, slots=True)
class _Reliability:
    view: ReliabilityView
    chart: _Chart | None
    n: int
    brier: float | None
    base_rate: float | None


@dataclass(frozen=True, slots=True)
class _Card:
    card: DecisionCard
    candles: _Chart | None
    contributions: _Chart | None


def _chart(chart_id: str, label: str, figure: go.Figure) -> _Chart:
    """The figure as JSON that may stand inside a script element."""
    text = json.dumps(json.loads(figure.to_json()), ensure_ascii=False, separators=(",", ":"))
    return _Chart(chart_id, label, Markup(text.translate(_UNSAFE_IN_SCRIPT)), int(figure.layout.height))


def _equity(number: int, view: EquityView) -> _Equity:
    chart = None
    if len(view.opened_at) or len(view.with_gate) or len(view.without_gate):
        label = f"Equity with and without the gate: {view.title}"
        chart = _chart(f"equity-{number}", label, figures.equity_figure(view))
    return _Equity(view, chart, np.array_equal(view.with_gate, view.without_gate, equal_nan=True))


def _reliability(number: int, view: ReliabilityView) -> _Reliability:
    bins = reliability_bins(view.confidence, view.is_win)
    is_known = np.isfinite(view.confidence)
    n = int(is_known.sum())
    if n < FEWEST_SCORES:
        return _Reliability(view, None, n, None, None)
    chart = _chart(
        f"reliability-{number}", f"Reliability of the confidences: {view.title}", figures.reliability_figure(bins)
    )
    won = view.is_win[is_known]
    return _Reliability(view, chart, n, brier_score(view.confidence[is_known], won), float(won.mean()))


def _card(number: int, card: DecisionCard) -> _Card:
    candles = contributions = None
    if len(card.opened_at):
        label = f"Price around the entry: {card.title}"
        candles = _chart(f"candles-{number}", label, figures.candles_figure(card))
    if any(np.isfinite(value) for _, value in card.contributions):
        label = f"Largest contributions: {card.title}"
        contributions = _chart(f"contributions-{number}", label, figures.contributions_figure(card))
    return _Card(card, candles, contributions)
