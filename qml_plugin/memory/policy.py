"""How a memory decides: the settings, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from qml_plugin.errors import DataError
from qml_plugin.gate import GateSettings, Requirements

MODES = ("record", "shadow", "gate")
TEACHERS = ("shadow", "executed")
_MOST_NEIGHBOURS = 1_000


@dataclass(frozen=True, slots=True)
class Policy:
    """How a memory decides; the defaults are safe.

    ``min_confidence`` is the P(win) below which an entry is skipped, None for the threshold that would have earned most
    on past scores. ``on_abstain`` says what becomes of an entry that the gate cannot judge: ``"fail_open"`` takes it,
    ``"fail_closed"`` skips it. ``teachers`` says which entries of the run teach: all of them (``"shadow"``), or only
    those that were not skipped (``"executed"``), in which case the memory cannot find out that it was wrong to skip.
    ``cost_r`` is the cost of an entry in R, which barrier outcomes do not hold. ``kelly_fraction`` makes the size follow the
    confidence: an entry that the gate takes gets a share of equity to put at risk (``Decision.risk_frac``), that fraction of
    the Kelly stake and at most ``risk_cap_frac``; one that deserves no stake is skipped. ``deadline_s`` is for live use: an
    entry whose neighbours are not all searched by then is abstained from. Answers then depend on the speed of the machine.
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
    kelly_fraction: float | None = None
    risk_cap_frac: float = 0.02
    deadline_s: float | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise DataError(f"mode {self.mode!r} is unknown. Use one of {', '.join(map(repr, MODES))}.")
        if self.teachers not in TEACHERS:
            raise DataError(f"teachers {self.teachers!r} is unknown. Use one of {', '.join(map(repr, TEACHERS))}.")
        if not (isinstance(self.n_neighbours, int) and self.n_neighbours >= 1):
            raise DataError(f"n_neighbours is {self.n_neighbours!r}. It is a count: use a whole number from 1 on.")
        if self.n_neighbours > _MOST_NEIGHBOURS:
            raise DataError(
                f"n_neighbours is {self.n_neighbours}. So many are no longer near, and each decision holds them all: use at "
                f"most {_MOST_NEIGHBOURS}, such as 10."
            )
        if self.kelly_fraction is not None and not _is_share(self.kelly_fraction):
            raise DataError(
                f"kelly_fraction is {self.kelly_fraction!r}. It is a share of the Kelly stake: use more than 0 and at most 1, "
                "such as 0.25, or None for sizes of the strategy's own."
            )
        if not _is_share(self.risk_cap_frac):
            raise DataError(
                f"risk_cap_frac is {self.risk_cap_frac!r}. It is a share of equity: use more than 0, at most 1."
            )
        if self.deadline_s is not None and not (
            isinstance(self.deadline_s, (int, float)) and 0 <= self.deadline_s < math.inf
        ):
            raise DataError(f"deadline_s is {self.deadline_s!r}. It is a time in seconds, from 0 on, or None for none.")
        self.gate_settings()

    def gate_settings(self) -> GateSettings:
        """What of this concerns the gate."""
        return GateSettings(self.model, self.min_confidence, self.cost_r, self.on_abstain, self.requirements, self.seed)


def _is_share(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 < value <= 1
