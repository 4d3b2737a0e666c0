"""What is asked: the features of one entry, at the moment at which it was or would be decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qml_plugin.bars import Bars
from qml_plugin.clock import from_datetime, to_datetime
from qml_plugin.errors import FeatureMismatch
from qml_plugin.features import CATALOGUE, MarketFeatures, entry_features
from qml_plugin.features.catalogue import difference
from qml_plugin.memory import PatternMemory
from qml_plugin.records import Entry, FloatArray
from qml_plugin.registry import PatternRegistry


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """One entry asked about, as of the close of its decision bar.

    ``pattern`` is as from `PatternRegistry.get_pattern`, ``found`` a series of its market and its decision bar in it, None
    where none is kept. ``features`` has shape (n_features,), in the order of the catalogue.
    """

    pattern: Mapping[str, Any]
    found: tuple[Bars, int] | None
    features: NDArray[np.float32]
    as_of: int

    @property
    def side(self) -> int:
        return int(self.pattern["side"])


def question_of(registry: PatternRegistry, pattern_id: str) -> Question:
    """The question which past patterns a registered one was like, when it was decided.

    Parameters
    ----------
    registry : PatternRegistry
    pattern_id : str

    Returns
    -------
    Question

    Point in time
    -------------
    ``as_of`` is the pattern's ``known_at``. Its row and its series go on afterwards: `answers` does not read further.

    Raises
    ------
    DataError
        If there is no such pattern.
    FeatureMismatch
        If its features are not those of this version.
    """
    pattern = registry.get_pattern(pattern_id)
    if pattern["feature_set"] != CATALOGUE.feature_set:
        same_code = {name: CATALOGUE.versions.get(name, "") for name in pattern["features"]}
        raise FeatureMismatch(
            f"pattern {pattern_id} was registered {difference(same_code) or 'with other code for the same features'}. "
            "Run its backtest again with this version: that computes its features anew."
        )
    features = np.array([pattern["features"][name] for name in CATALOGUE.names], dtype=np.float32)
    return Question(pattern, registry.bars_of(pattern_id), features, from_datetime(pattern["known_at"]))


def questions_now(bars: Bars, sides: Sequence[int] = (+1, -1)) -> tuple[Question, ...]:
    """The question which past patterns an entry at the close of the last bar would be like, for each side.

    Parameters
    ----------
    bars : Bars
        Up to now; the last bar is closed.
    sides : sequence of {+1, -1}

    Returns
    -------
    tuple of Question
        Market orders with the barriers of the default `BarrierRule`, of no strategy.

    Point in time
    -------------
    ``as_of`` is the moment at which the last bar's close is known.
    """
    market, memory, at = MarketFeatures(bars), PatternMemory(bars), len(bars) - 1
    entries = [memory.entry(at, side) for side in sides]
    found = [(entry, entry_features(market, entry)) for entry in entries]
    return tuple(
        Question(_as_pattern(entry, features), (bars, at), features.astype(np.float32), entry.known_at)
        for entry, features in found
    )


def _as_pattern(entry: Entry, features: FloatArray) -> dict[str, Any]:
    """An entry in the shape of a registered pattern of which nothing else is known."""
    unknown = ("entry_px", "barrier_outcome", "resolved_at", "r_multiple", "exit_reason", "user_label", "trade_outcome")
    return dict.fromkeys((*unknown, "validity_score", "setup")) | {
        "pattern_id": entry.pattern_id,
        "symbol": entry.symbol,
        "timeframe": entry.timeframe,
        "strategy": entry.strategy,
        "pattern_type": entry.pattern_type,
        "side": entry.side,
        "detection_time": to_datetime(entry.detection_at),
        "known_at": to_datetime(entry.known_at),
        "stop_px": entry.stop_px,
        "target_px": entry.target_px,
        "order": {"bar": entry.bar, "reference_px": entry.reference_px},
        "features": dict(zip(CATALOGUE.names, features.tolist(), strict=True)),
    }
