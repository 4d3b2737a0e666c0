"""The page of one feature on one series: what it means, its values under the price, its distribution."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from qml_plugin.errors import DataError
from qml_plugin.report import figures, words
from qml_plugin.report.document import chart, render, write
from qml_plugin.report.views import FeatureView
from qml_plugin.stats.distribution import QUANTILES


def render_feature_page(view: FeatureView) -> str:
    """One self-contained HTML file about a feature: nothing is fetched from anywhere.

    Parameters
    ----------
    view : FeatureView
        What to show. Text from outside is escaped wherever it appears.

    Returns
    -------
    str
        The whole document.

    Point in time
    -------------
    Draws all rows given: a look back.

    Raises
    ------
    DataError
        If the columns differ in length, or there is no finite value to draw.
    """
    found = view.distribution
    if not found.quantiles:
        raise DataError(
            f"{view.name} has no value on {view.symbol} {view.timeframe}, so there is no page to draw. "
            + (
                f"It needs more than {view.warmup} bars."
                if view.needs == "bars"
                else f"It needs an entry's {view.needs}."
            )
        )
    price = chart("feature", f"Price and {view.name}", figures.feature_figure(view))
    histogram = chart("distribution", f"Distribution of {view.name}", figures.distribution_figure(view))
    return render(
        "feature.html.j2",
        view=view,
        found=found,
        quantiles=[(q, f"{x:.4g}".replace("-", words.MINUS)) for q, x in zip(QUANTILES, found.quantiles, strict=True)],
        n_drawn=len(view.values),
        has_gaps=bool(np.isnan(view.values).any()),
        price=price,
        histogram=histogram,
    )


def write_feature_page(view: FeatureView, path: str | os.PathLike[str]) -> Path:
    """Absolute path of the written page; an earlier file there is replaced whole, or not at all.

    Parameters
    ----------
    view : FeatureView
        What to show.
    path : path
        Where; its folder must exist.

    Raises
    ------
    DataError
        As `render_feature_page`; nothing was written.
    OSError
        If the file cannot be written; the earlier file is intact.
    """
    return write(render_feature_page(view), path)
