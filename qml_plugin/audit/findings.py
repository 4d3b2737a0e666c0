"""What an audit found, and how it says it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np

from qml_plugin.audit.trace import KINDS, NOTHING, Difference

#: Grades of findings, worst first: each decides about the verdict or, the last two, does not.
GRADES = ("leak", "unstable", "blind", "raised", "start")
_EXIT_CODES = {"clean": 0, "leak": 1, "refused": 2}
_NAMES = {
    "indicator": "indicator", "attribute": "attribute", "signal": "signal", "setup": "a setup", "entry": "an entry",
    "feature": "feature", "neighbour": "neighbour", "confidence": "confidence", "decision": "decision",
    "order": "an order asked for", "book": "the orders and trades", "error": "error",
}  # fmt: skip
_FUTURES = {
    "garbage": "drawn prices", "shuffled": "the real moves in another order", "scaled": "moves of another size",
    "reversed": "the real moves backwards", "shorter": "bars that end soon after",
}  # fmt: skip
_FARTHEST_LEAD = 200
_LONGEST_VALUE = 160


@dataclass(frozen=True, slots=True)
class Finding:
    """One object at which runs part that should agree, or another thing to know about the audit.

    ``grade`` is ``"leak"`` (the past changed with the future), ``"unstable"`` (two equal runs differ), ``"blind"`` (nothing
    could be compared), ``"raised"`` (the strategy fails on other bars) or ``"start"`` (the first bars matter for long).
    ``check`` is ``"future"``, ``"registry"``, ``"rerun"``, ``"threads"`` or ``"start"``. ``bar`` and ``stamp`` are the place, ``field``
    the feature, column or part there, ``value`` what it is with the real bars and ``other`` with others. ``cut`` is the last
    bar that was left as it is, ``future`` what followed. ``n_cuts`` of ``n_compared`` comparisons showed it, from
    ``lead_bars`` before the first changed bar on.
    """

    grade: str
    check: str
    kind: str
    name: str
    text: str
    bar: int | None = None
    stamp: str | None = None
    field: str | None = None
    value: Any = None
    other: Any = None
    cut: int | None = None
    future: str | None = None
    n_cuts: int = 1
    n_compared: int = 1
    lead_bars: int | None = None

    def __str__(self) -> str:
        return f"{self.grade}: {self.text}"


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit did and found; ``str()`` of it is for people, `as_dict` for programs.

    ``verdict`` is ``"clean"``, ``"leak"``, or ``"refused"`` where nothing can be said. ``cuts`` are the bars after which the
    future was replaced, fewer than ``n_cuts_asked`` where there are no more; ``compared`` counts what was compared in the first run, by kind.
    """

    subject: str
    data: str
    n_bars: int
    seed: int
    tolerance: float
    cuts: tuple[int, ...]
    n_runs: int
    seconds: float
    findings: tuple[Finding, ...]
    compared: Mapping[str, int] = field(default_factory=dict)
    checks: tuple[str, ...] = ()
    n_cuts_asked: int = 0

    @property
    def leaks(self) -> tuple[Finding, ...]:
        """What has seen the future, causes before effects."""
        return tuple(finding for finding in self.findings if finding.grade == "leak")

    @property
    def verdict(self) -> str:
        grades = {finding.grade for finding in self.findings}
        return "leak" if "leak" in grades else "refused" if grades & {"unstable", "blind"} else "clean"

    @property
    def exit_code(self) -> int:
        """0 clean, 1 leak, 2 refused."""
        return _EXIT_CODES[self.verdict]

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON can take."""
        plain = asdict(self) | {"verdict": self.verdict, "exit_code": self.exit_code}
        found: dict[str, Any] = json.loads(
            json.dumps(plain, default=partial(shown, digits=None), allow_nan=True), parse_constant=str
        )
        return found

    def cuts_made(self) -> str:
        """How many cuts were made, and why not as many as were asked for."""
        made = _cuts(len(self.cuts))
        if len(self.cuts) >= self.n_cuts_asked:
            return made
        return (
            f"{made} ({self.n_cuts_asked} were asked for; there are no more bars between the first decision and the last bars, "
            "which are left to compare)"
        )

    def headline(self) -> str:
        """The verdict in a sentence."""
        compared = ", ".join(f"{n} {_counted(kind, n)}" for kind, n in self.compared.items() if n)
        if self.verdict == "leak":
            first = self.leaks[0]
            return f"{self.subject} has seen the future: {first.text}"
        if self.verdict == "refused":
            first = next(finding for finding in self.findings if finding.grade in ("unstable", "blind"))
            return f"nothing can be said about {self.subject}: {first.text}"
        return (
            f"nothing of {self.subject} changed when later bars changed, at {_cuts(len(self.cuts))} in {self.n_bars} bars; "
            f"compared were {compared}. What it reads from elsewhere, such as a file, is not seen."
        )

    def __str__(self) -> str:
        shown_first = self.verdict in ("leak", "refused")
        rest = [finding for finding in self.findings if not (shown_first and finding.text in self.headline())]
        return "\n".join([self.headline(), *(f"- {finding}" for finding in rest)])


def _cuts(n: int) -> str:
    return f"{n} cut{'' if n == 1 else 's'}"


def finding_of(
    difference: Difference,
    *,
    grade: str,
    check: str,
    stamps: Sequence[Any],
    cut: int | None = None,
    future: str | None = None,
    leads: Mapping[int, int] | None = None,
    n_compared: int = 1,
) -> Finding:
    """A finding in words; ``leads`` are, by cut, the bars from the first difference to the first changed bar."""
    leads = leads or {}
    lead = max(leads.values(), default=None)
    stamp = str(stamps[difference.bar]) if 0 <= difference.bar < len(stamps) else None
    place = f"at bar {difference.bar}" + (f" ({stamp})" if stamp else "")
    what = _what(difference)
    a, b = shown(difference.value), shown(difference.other)
    if a == b:  # they part in a later digit
        a, b = shown(difference.value, digits=None), shown(difference.other, digits=None)
    if check == "future":
        text = f"{what} {place} is {a}, but {b} where {_FUTURES.get(future or '', future)} follow bar {cut}"
        text += f"; seen at {len(leads)} of {n_compared} cuts. {_hint(difference, leads)}"
    elif check == "registry":
        text = f"{what} {place} is {a}, but {b} where the registry also holds rows that became known only after bar {cut}. "
        text += "A row may be used from its resolved_at on: filter by it, before any other choice."
    elif check == "threads":
        text = f"{what} {place} is {a} with one thread and {b} with two: it depends on the machine. "
        text += "Sum in a fixed order, or limit the threads of that library to one."
    else:
        text = f"{what} {place} is {a} in one run and {b} in the next on the same bars: it is not deterministic. "
        text += "Seed every generator, and keep nothing on the class from run to run; then audit again."
    return Finding(
        grade, check, difference.kind, difference.name, text, difference.bar, stamp, difference.field, difference.value,
        difference.other, cut, future, max(1, len(leads)), n_compared, lead,
    )  # fmt: skip


def order_of(finding: Finding) -> tuple[int, int, int]:
    """Key that sorts findings: the worst first, causes before effects, then the earliest bar."""
    kind = KINDS.index(finding.kind) if finding.kind in KINDS else len(KINDS)
    return GRADES.index(finding.grade), kind, finding.bar or 0


def shown(value: Any, digits: int | None = 9) -> str:
    """A value as a message shows it: numbers to so many digits, None all of them; long things cut short."""
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.item() if value.ndim == 0 else value.tolist()
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        text = ", ".join(f"{name}={shown(item, digits)}" for name, item in value.items() if item is not None)
    elif isinstance(value, (list, tuple)):
        text = "(" + ", ".join(shown(item, digits) for item in value) + ")" if value else "none"
    elif isinstance(value, float) and digits is not None and math.isfinite(value):
        text = f"{value:.{digits}g}"
    else:
        text = "NaN" if isinstance(value, float) and math.isnan(value) else str(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def _what(difference: Difference) -> str:
    """The object in words."""
    name = _NAMES[difference.kind]
    if difference.kind in ("indicator", "attribute", "signal"):
        name = f"{name} {difference.name}"
        return name if difference.field is None else f"{name}, {difference.field},"
    if difference.kind == "error":
        return "what the strategy raises"
    if difference.kind in ("feature", "neighbour", "confidence", "decision"):
        return f"{name} {difference.field} of the entry" if difference.field else f"{name} of the entry"
    return name if difference.field is None else f"{name}, its {difference.field},"


def _hint(difference: Difference, leads: Mapping[int, int]) -> str:
    """What such a difference usually comes from, by how far back it reaches."""
    farthest = max(leads.values(), default=1)
    bars = "1 bar" if farthest == 1 else f"{farthest} bars"
    if difference.value is NOTHING and difference.other is NOTHING:
        return ""
    if difference.kind not in ("indicator", "attribute", "signal") or (len(leads) > 1 and difference.field == "shape"):
        return f"It changes up to {bars} before the bars do: what it rests on reads later bars."
    is_near = farthest <= min(_FARTHEST_LEAD, 0.2 * max(leads))
    if is_near:
        return (
            f"It reads up to {bars} ahead, as shift(-{farthest}), a centred window, a backward fill, a label before its "
            "outcome, or a resampled bar stamped with its start does."
        )
    return (
        f"It changes as far as {bars} back, as a statistic, a scaling, a choice or a fit over the whole series does. "
        "Use an expanding or rolling one, or fit on bars before those that use it."
    )


def _counted(kind: str, n: int) -> str:
    plural = {"entry": "entries", "book": "states of the order book", "confidence": "confidences"}
    word = {"order": "order asked for", "book": "state of the order book"}.get(kind, kind)
    if n == 1:
        return word
    return {"order": "orders asked for"}.get(kind) or plural.get(kind) or f"{word}s"
