"""The audit of the audit: ten planted leaks that it must catch, and their honest twins that it must not accuse."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qml_plugin.adapters.backtesting_host import Strategy
from qml_plugin.audit.examine import audit, frame_of
from qml_plugin.audit.findings import AuditReport
from qml_plugin.audit.planted import LEAKS, planted_score, side_of
from qml_plugin.records import Signals

#: Where a leak is planted: in an indicator that the strategy shows, in one that only its orders betray, in a function.
PLACES = ("indicator", "orders only", "signals")
_MOST_BARS = 600


@dataclass(frozen=True, slots=True)
class SelfTest:
    """Reports of the audit of what was planted, by (place, leak): ``leaking`` must be leaks, ``honest`` clean."""

    data: str
    n_bars: int
    leaking: dict[tuple[str, str], AuditReport]
    honest: dict[tuple[str, str], AuditReport]

    @property
    def missed(self) -> list[tuple[str, str]]:
        """Leaks that were not found."""
        return [key for key, report in self.leaking.items() if report.verdict != "leak"]

    @property
    def accused(self) -> list[tuple[str, str]]:
        """Honest strategies that were not found clean."""
        return [key for key, report in self.honest.items() if report.verdict != "clean"]

    def n_caught(self, place: str) -> int:
        """How many leaks planted in that place were found."""
        return sum(key[0] == place and report.verdict == "leak" for key, report in self.leaking.items())

    @property
    def exit_code(self) -> int:
        """0 where every leak was caught and nothing honest accused, 1 otherwise."""
        return 1 if self.missed or self.accused else 0

    def __str__(self) -> str:
        lines = [
            f"{place}: {self.n_caught(place)} of {len([k for k in self.leaking if k[0] == place])} planted leaks caught, "
            f"{len([k for k in self.accused if k[0] == place])} of {len([k for k in self.honest if k[0] == place])} honest twins accused"
            for place in dict.fromkeys(place for place, _ in self.leaking)
        ]
        lines += [f"- missed: {leak} ({place})" for place, leak in self.missed]
        lines += [f"- accused: {leak} ({place}): {self.honest[place, leak].headline()}" for place, leak in self.accused]
        return "\n".join(lines)


def self_test(
    data: pd.DataFrame | str | Path | None = None,
    *,
    n_cuts: int = 20,
    seed: int = 0,
    leaks: Sequence[str] = tuple(LEAKS),
    places: Collection[str] = PLACES,
    on_step: Callable[[int, int, str], object] | None = None,
) -> SelfTest:
    """Audit a sample strategy with each of ten known leaks in it, and without, on both kinds of hosts.

    Parameters
    ----------
    data : DataFrame, path or str, optional
        As for `audit`; of more than 600 bars the last ones are used.
    n_cuts : int, default=20
    seed : int, default=0
    leaks : sequence of str
        Keys of `qml_plugin.audit.planted.LEAKS`.
    places : collection of {"indicator", "orders only", "signals"}
    on_step : callable, optional
        Called with (audits done, audits in all, what is audited now).

    Returns
    -------
    SelfTest
    """
    frame, label = frame_of(data)
    frame = frame.iloc[-_MOST_BARS:]
    found: dict[bool, dict[tuple[str, str], AuditReport]] = {True: {}, False: {}}
    todo = [
        (place, leak, is_leaking)
        for place in PLACES
        if place in places
        for leak in leaks
        for is_leaking in (True, False)
    ]
    for i, (place, leak, is_leaking) in enumerate(todo):
        if on_step is not None:
            on_step(i, len(todo), f"{leak} ({place})")
        subject = planted_subject(leak, place, is_leaking=is_leaking)
        found[is_leaking][place, leak] = audit(subject, frame, n_cuts=n_cuts, seed=seed, is_gated=False)
    return SelfTest(label, len(frame), found[True], found[False])


def planted_subject(leak: str, place: str, *, is_leaking: bool) -> type | Callable[[pd.DataFrame], Any]:
    """The sample strategy with a leak, or its honest twin, in one of the `PLACES`."""

    def sample_signals(frame: pd.DataFrame) -> Signals:
        side = side_of(planted_score(frame, leak, is_leaking=is_leaking))
        return _signals_of(np.sign(np.diff(side, prepend=0)))

    if place == "signals":
        return sample_signals

    class Sample(Strategy):  # type: ignore[misc]
        """Goes with the sign of the score."""

        def init(self) -> None:
            score = planted_score(self.data.df, leak, is_leaking=is_leaking)
            if place == "indicator":
                self.score = self.I(lambda: score, name=leak)
            else:
                side = side_of(score).tolist()
                self.side_at = side.__getitem__  # a function: nothing that could be compared hangs on the strategy

        def next(self) -> None:
            if place == "indicator":
                score = self.score[-1]
                side = int(score > 0) - int(score < 0)
            else:
                side = self.side_at(len(self.data) - 1)
            if side and side * self.position.size <= 0:
                self.position.close()
                (self.buy if side > 0 else self.sell)(size=10)

    return Sample


def _signals_of(side: np.ndarray) -> Signals:
    """Signals that ask to buy and sell by the sign of `side`, without stops."""
    none = np.full(len(side), np.nan)
    return Signals(side.astype(np.int8), none, none.copy(), np.zeros(len(side), bool))
