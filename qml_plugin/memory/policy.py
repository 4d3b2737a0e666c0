"""How a memory decides: the settings, checked."""

from __future__ import annotations

from dataclasses import dataclass, field

from qml_plugin.errors import DataError
from qml_plugin.gate import GateSettings, Requirements

MODES = ("record", "shadow", "gate")
TEACHERS = ("shadow", "executed")


@dataclass(frozen=True, slots=True)
class Policy:
    """How a memory decides; the defaults are safe.

    ``min_confidence`` is the P(win) below which an entry is skipped, None for the threshold that would have earned most
    on past scores. ``on_abstain`` says what becomes of an entry that the gate cannot judge: ``"fail_open"`` takes it,
    ``"fail_closed"`` skips it. ``teachers`` says which entries of the run teach: all of them (``"shadow"``), or only
    those that were not skipped (``"executed"``), in which case the memory cannot find out that it was wrong to skip.
    ``cost_r`` is the cost of an entry in R, which barrier outcomes do not hold.
    """

    mode: str = "gate"
    model: str = "auto"
    min_confidence: float | None = None
    n_neighbours: int = 10
    requirements: Requirements = field(default_factory=Requirements)
    seed: int = 0
    on_abstain: str = "fail_open"
    teachers: str = "shadow"
    cost_r: float = 0.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise DataError(f"mode {self.mode!r} is unknown. Use one of {', '.join(map(repr, MODES))}.")
        if self.teachers not in TEACHERS:
            raise DataError(f"teachers {self.teachers!r} is unknown. Use one of {', '.join(map(repr, TEACHERS))}.")
        if not (isinstance(self.n_neighbours, int) and self.n_neighbours >= 1):
            raise DataError(f"n_neighbours is {self.n_neighbours!r}. It is a count: use a whole number from 1 on.")
        self.gate_settings()

    def gate_settings(self) -> GateSettings:
        """What of this concerns the gate."""
        return GateSettings(self.model, self.min_confidence, self.cost_r, self.on_abstain, self.requirements, self.seed)
