"""The page of the past patterns nearest to one: its chart, their prices laid on one another, what became of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qml_plugin.errors import DataError
from qml_plugin.report import figures, similar_figures
from qml_plugin.report.document import Chart, chart, render, write
from qml_plugin.report.views import AnswerView, PathView, PatternView, SimilarPage


@dataclass(frozen=True, slots=True)
class _Shown:
    """One question on the page; a chart is None where there is nothing to draw."""

    view: PatternView
    answer: AnswerView
    sentences: tuple[str, ...]
    pattern: Chart
    paths: Chart | None
    fan: Chart | None
    r_multiples: Chart | None


def render_similar_page(page: SimilarPage) -> str:
    """One self-contained HTML file: nothing is fetched from anywhere.

    Parameters
    ----------
    page : SimilarPage
        At least one question, each with its answer. Text from outside is escaped wherever it appears.

    Returns
    -------
    str
        The whole document.

    Point in time
    -------------
    Draws all that the views hold.

    Raises
    ------
    DataError
        If there is no question, or not an answer to each.
    """
    counts = {len(page.patterns), len(page.befores), len(page.answers), len(page.sentences)}
    if len(counts) != 1 or counts == {0}:
        raise DataError(
            f"the page has {len(page.patterns)} questions and {len(page.answers)} answers. It needs at least one question, "
            "and one answer for each."
        )
    parts = zip(page.patterns, page.befores, page.answers, page.sentences, strict=True)
    return render("similar.html.j2", page=page, items=[_shown(i, *part) for i, part in enumerate(parts, 1)])


def write_similar_page(page: SimilarPage, path: str | os.PathLike[str]) -> Path:
    """Absolute path of the written page; an earlier file there is replaced whole, or not at all.

    Parameters
    ----------
    page : SimilarPage
        What to show.
    path : path
        Where; its folder must exist.

    Raises
    ------
    DataError
        As `render_similar_page`; nothing was written.
    OSError
        If the file cannot be written; the earlier file is intact.
    """
    return write(render_similar_page(page), path)


def _shown(
    number: int, view: PatternView, before: PathView | None, answer: AnswerView, sentences: tuple[str, ...]
) -> _Shown:
    has_paths = any(past.path is not None for past in answer.neighbours)
    has_fan, has_r = bool(np.isfinite(answer.fan).any()), bool(np.isfinite(answer.eligible_r).any())
    paths = similar_figures.paths_figure(answer, before) if has_paths else None
    fan = similar_figures.fan_figure(answer) if has_fan else None
    r_multiples = similar_figures.r_figure(answer) if has_r else None
    return _Shown(
        view=view,
        answer=answer,
        sentences=sentences,
        pattern=chart(f"pattern-{number}", f"{view.title}: bars before the decision", figures.pattern_figure(view)),
        paths=chart(f"paths-{number}", "Prices around the past entries", paths) if paths else None,
        fan=chart(f"fan-{number}", "Quantiles of the prices after the past entries", fan) if fan else None,
        r_multiples=chart(f"r-{number}", "R multiples of the nearest and of all", r_multiples) if r_multiples else None,
    )
