"""Setups and features as an indicator of vectorbt: a column for each market and each combination of parameters."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from qml_plugin.adapters.vectorbt_host import host
from qml_plugin.bars import COLUMNS, bars_from_frame
from qml_plugin.detection import find_quasimodo
from qml_plugin.errors import DataError
from qml_plugin.features import CATALOGUE, MarketFeatures
from qml_plugin.records import FloatArray

_OF_SETUPS = ("side", "stop_px", "target_px", "validity_score")
_PARAMETERS = {
    name: parameter.default
    for name, parameter in inspect.signature(find_quasimodo).parameters.items()
    if parameter.default is not inspect.Parameter.empty
}


def setup_indicator(features: Sequence[str] = ()) -> Any:
    """The indicator class, made by ``vbt.IndicatorFactory``.

    Parameters
    ----------
    features : sequence of str, optional
        Names in ``CATALOGUE`` to give out beside the setups.

    Returns
    -------
    type
        ``.run(open, high, low, close, volume, **parameters)`` with Series or frames and the parameters of
        `qml_plugin.detection.find_quasimodo`, each a value or a list. Its outputs are, by bar: ``side``, +1 or -1 at the
        bar at which a setup became known (the most valid one of it), else 0; ``stop_px``, ``target_px`` and ``validity_score`` of
        it, NaN elsewhere; and the features, NaN before their warm-up.

    Point in time
    -------------
    Row t reads bars 0..t.

    Raises
    ------
    DataError
        If there is no feature of a name.
    MissingExtra
        If vectorbt is not installed.
    """
    if unknown := [name for name in features if name not in CATALOGUE.names]:
        raise DataError(f"there is no feature {unknown[0]!r}. `qml features list` names those that there are.")
    known: dict[str, FloatArray] = {}

    def apply(*given: Any) -> tuple[FloatArray, ...]:
        frames, parameters = given[: len(COLUMNS)], dict(zip(_PARAMETERS, given[len(COLUMNS) :], strict=True))
        shape = frames[0].shape
        outputs = [np.zeros(shape), *(np.full(shape, np.nan) for _ in (*_OF_SETUPS[1:], *features))]
        for place in range(shape[1]):
            frame = pd.DataFrame(dict(zip(COLUMNS, (one.iloc[:, place] for one in frames), strict=True)))
            bars = bars_from_frame(frame, symbol="")
            for setup in sorted(find_quasimodo(bars, **parameters), key=lambda setup: setup.validity_score or 0.0):
                for output, name in zip(outputs, _OF_SETUPS, strict=False):
                    output[setup.known_bar, place] = getattr(setup, name)
            if features:
                key = bars.sha256()
                if key not in known:
                    known[key] = MarketFeatures(bars).rows()[:, [CATALOGUE.place(name) for name in features]]
                for number in range(len(features)):
                    outputs[len(_OF_SETUPS) + number][:, place] = known[key][:, number]
        return tuple(outputs)

    factory = host().IndicatorFactory(
        class_name="QuasimodoSetups",
        short_name="setups",
        input_names=[name.lower() for name in COLUMNS],
        param_names=list(_PARAMETERS),
        output_names=[*_OF_SETUPS, *features],
    )
    return factory.from_apply_func(apply, keep_pd=True, **_PARAMETERS)
