"""An answer in plain sentences, for the terminal and for the page."""

from __future__ import annotations

from qml_plugin.report.views import AnswerView
from qml_plugin.report.words import number, percent


def sentences(answer: AnswerView) -> tuple[str, ...]:
    """What the neighbours were, what all that were eligible were, and what that does not mean.

    Parameters
    ----------
    answer : AnswerView

    Returns
    -------
    tuple of str
        Without markup; at least one.

    Examples
    --------
    >>> import numpy as np
    >>> none = np.empty(0)
    >>> sentences(AnswerView(1, 0, (), None, None, None, None, None, none, None, None, np.empty((5, 0)), none))
    ('No long pattern that meets the filters had a known outcome then.',)
    """
    side = "long" if answer.side > 0 else "short"
    low, high, base = answer.share_low, answer.share_high, answer.base_share
    n, n_eligible = len(answer.neighbours), answer.n_eligible
    if not n or low is None or high is None or base is None:
        return (f"No {side} pattern that meets the filters had a known outcome then.",)
    n_wins = sum(past.is_win for past in answer.neighbours)
    won = f"{n_wins} of the {n} nearest won, {percent(answer.win_share)} (95 % interval {percent(low)} to {percent(high)})"
    said = [
        f"{won}.{_means(answer.mean_r, answer.median_r)}",
        f"{number(n_eligible, 0)} {side} {_patterns(n_eligible)} eligible; of all of them {percent(base)} won."
        f"{_means(answer.base_mean_r)}",
    ]
    if low <= base <= high:
        said.append(
            "This describes the past and foretells nothing: the share of all lies within the interval of the nearest, so "
            "being near has told nothing here."
        )
    else:
        said.append(
            "This describes the past and foretells nothing: the share of all lies outside the interval of the nearest, "
            "which happens by chance too, and neighbours that overlap are less than so many cases."
        )
    return (*said, *_prices(answer))


def _patterns(n: int) -> str:
    return "pattern was" if n == 1 else "patterns were"


def _means(mean: float | None, median: float | None = None) -> str:
    if mean is None:
        return ""
    middle = "" if median is None else f", median {number(median, signed=True)} R"
    return f" Mean {number(mean, signed=True)} R{middle}."


def _prices(answer: AnswerView) -> tuple[str, ...]:
    """On how many paths the picture of prices rests."""
    n, n_paths = len(answer.neighbours), sum(past.path is not None for past in answer.neighbours)
    if n_paths == 0:
        return ("No bars around them are kept, so there is no picture of prices: the table is all there is.",)
    if n_paths < n:
        return (f"Bars are kept around {n_paths} of the {n}: the prices are theirs.",)
    return ()
