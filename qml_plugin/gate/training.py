"""A frozen model from what a registry knows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np

from qml_plugin.clock import canonical_timeframe
from qml_plugin.errors import DataError
from qml_plugin.gate.predictor import XGBoostPredictor
from qml_plugin.records import TrainingRows
from qml_plugin.registry import PatternRegistry


def train_on_registry(
    registry: PatternRegistry,
    *,
    strategy: str | None = None,
    timeframe: str | None = None,
    min_labels: int = 30,
    as_of: datetime | str | int | None = None,
    seed: int = 0,
) -> tuple[XGBoostPredictor, str, str]:
    """A predictor trained on the entries of one strategy and timeframe whose results are known.

    Parameters
    ----------
    registry : PatternRegistry
    strategy, timeframe : str, optional
        May be left out where the registry knows results of one only.
    min_labels : int, default=30
        Fewer results than this are refused.
    as_of : datetime, str or int, optional
        Only results known then.
    seed : int, default=0

    Returns
    -------
    (XGBoostPredictor, str, str)
        And the strategy and timeframe that it was trained on.

    Point in time
    -------------
    Uses patterns with ``resolved_at <= as_of`` only; what becomes known later changes nothing.

    Raises
    ------
    DataError
        If there are too few results, or several strategies or timeframes and none is chosen.
    """
    X, y = registry.get_training_data(min_labels, as_of)
    rows = X.attrs["rows"]
    assert isinstance(rows, TrainingRows)
    strategy = _chosen("strategy", rows.strategy, strategy)
    is_of_strategy = np.array(rows.strategy) == strategy
    timeframes = np.array(rows.timeframe)
    timeframe = _chosen("timeframe", timeframes[is_of_strategy].tolist(), timeframe and canonical_timeframe(timeframe))
    chosen = is_of_strategy & (timeframes == timeframe)
    n_chosen = int(np.count_nonzero(chosen))
    if n_chosen < min_labels:
        raise DataError(
            f"{n_chosen} entries of {strategy} on {timeframe} have a known result, {min_labels} are asked for: "
            f"{min_labels - n_chosen} are missing. Run more backtests of it with this registry, or ask for fewer."
        )
    return XGBoostPredictor(seed=seed).train(X[chosen], y[chosen]), strategy, timeframe


def _chosen(what: str, values: Sequence[str], asked: str | None) -> str:
    """The value asked for, or the only one there is."""
    there = sorted(set(values))
    if asked is None and len(there) == 1:
        return there[0]
    if asked is None or asked not in there:
        names = ", ".join(there[:10]) + (f" and {len(there) - 10} more" if len(there) > 10 else "")
        raise DataError(
            f"{what} is {asked!r}, and there are known results of {names}. Choose one of them: a model is of one {what}."
        )
    return asked
