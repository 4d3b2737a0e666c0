"""How a memory decides: the settings, checked."""

from __future__ import annotations

from dataclasses import dataclass, field

from qml_plugin.errors import DataError
from qml_plugin.gate import Requirements

MODES = ("record", "shadow", "gate")


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
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise DataError(f"min_confidence is {self.min_confidence}. It is a probability: use 0 to 1, or None.")
        if self.n_neighbours < 1:
            raise DataError(f"n_neighbours is {self.n_neighbours}. At least one neighbour is needed.")
