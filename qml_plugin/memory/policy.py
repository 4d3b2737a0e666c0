"""How a memory decides: the settings, checked."""

from __future__ import annotations

from dataclasses import dataclass, field

from qml_plugin.errors import DataError
from qml_plugin.gate import Requirements

MODES = ("record", "shadow", "gate")
MODELS = ("auto", "logistic", "xgboost")


@dataclass(frozen=True, slots=True)
class Policy:
    """How a memory decides; the defaults are safe.

    ``min_confidence`` is the P(win) below which an entry is skipped, None for the break-even of past wins and losses.
    """

    mode: str = "gate"
    model: str = "auto"
    min_confidence: float | None = None
    n_neighbours: int = 10
    requirements: Requirements = field(default_factory=Requirements)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise DataError(f"mode {self.mode!r} is unknown. Use one of {', '.join(map(repr, MODES))}.")
        if self.model not in MODELS:
            raise DataError(f"gate model {self.model!r} is unknown. Use one of {', '.join(map(repr, MODELS))}.")
        minimum = self.min_confidence
        if minimum is not None and not (isinstance(minimum, (int, float)) and 0 <= minimum <= 1):
            raise DataError(f"min_confidence is {minimum!r}. It is a probability: use 0 to 1, or None.")
        if not (isinstance(self.n_neighbours, int) and self.n_neighbours >= 1):
            raise DataError(f"n_neighbours is {self.n_neighbours!r}. It is a count: use a whole number from 1 on.")
        if not (isinstance(self.seed, int) and 0 <= self.seed < 2**31):
            raise DataError(f"seed is {self.seed!r}. Use a whole number from 0 to 2147483647.")
