"""Questions and answers put together for the page."""

from __future__ import annotations

from collections.abc import Sequence

from qml_plugin.neighbours.paths import aligned_path
from qml_plugin.neighbours.question import Question
from qml_plugin.neighbours.sentences import sentences
from qml_plugin.report.views import AnswerView, PathView, PatternView, SimilarPage


def similar_page(
    questions: Sequence[Question], views: Sequence[PatternView], answers: Sequence[AnswerView]
) -> SimilarPage:
    """What the page shows.

    Parameters
    ----------
    questions : sequence of Question
        At least one, all of one market.
    views : sequence of PatternView
        Of their patterns, without a future.
    answers : sequence of AnswerView

    Returns
    -------
    SimilarPage

    Point in time
    -------------
    The path of what is asked about ends at its decision.
    """
    return SimilarPage(
        title=f"Past patterns like {views[0].title}",
        patterns=tuple(views),
        befores=tuple(_before(question) for question in questions),
        answers=tuple(answers),
        sentences=tuple(sentences(answer) for answer in answers),
    )


def _before(question: Question) -> PathView | None:
    if question.found is None:
        return None
    bars, bar = question.found
    return aligned_path(bars, bar, question.side, as_of=int(bars.known_at[bar]))
