"""A first audit of any function to evaluate: cut the bars off, change them, and compare the positions before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qml_plugin.bars import Bars
from qml_plugin.vrd.evaluation import Evaluate, Parameters
from qml_plugin.vrd.gates import AuditFinding
from qml_plugin.vrd.walk_forward import first_bars


def audit_positions(
    bars: Bars, evaluate: Evaluate, parameters: Parameters, *, n_cuts: int = 4, seed: int
) -> AuditFinding:
    """Whether positions change when the bars after them do.

    Parameters
    ----------
    bars : Bars
    evaluate : callable
        As `run_trials`.
    parameters : mapping
    n_cuts : int, default=4
        Places to cut at, half of them just after a position changed, where a glance ahead shows. At each, later bars are
        once left out and once replaced by moves the other way.
    seed : int

    Returns
    -------
    AuditFinding
        ``"clean"`` if the positions over all bars up to the cut, and the one after it, are the same bits; ``"leak"`` with
        the first bar that differs; ``"refused"`` where there was no position, or no cut, to compare.

    Point in time
    -------------
    This is the test of it. It sees what positions show at these cuts; the audit of the whole strategy sees more.
    """
    if n_cuts < 1:
        return AuditFinding("refused", "no cut was asked for, so nothing was compared")
    exposure = evaluate(bars, parameters).exposure
    changed = np.flatnonzero(np.diff(exposure)) + 1
    changed = changed[(changed > 20) & (changed < len(bars) - 1)]
    if not len(changed):
        return AuditFinding("refused", "no position ever changed, so there was nothing to compare")
    rng = np.random.default_rng(seed)
    near = rng.choice(changed, min(len(changed), (n_cuts + 1) // 2), replace=False)
    cuts = np.concatenate([near, rng.integers(21, len(bars) - 1, max(0, n_cuts - len(near)))])
    for cut in sorted(int(cut) for cut in cuts):
        cut_off = evaluate(first_bars(bars, cut), parameters).exposure
        other = evaluate(_reversed_after(bars, cut), parameters).exposure
        # The position over bar `cut` was decided at the close before it, so it must be the same too where bars go on.
        for name, seen, n in (("left out", cut_off, cut), ("reversed", other, cut + 1)):
            differs = np.flatnonzero(seen[:n] != exposure[:n])
            if len(differs):
                bar = int(differs[0])
                return AuditFinding(
                    "leak",
                    f"the position over bar {bar} is {exposure[bar]:g}, but {seen[bar]:g} when the bars from {cut} on are {name}",
                )
    where = f"{len(cuts)} cut{'' if len(cuts) == 1 else 's'}"
    return AuditFinding(
        "clean",
        f"no position changed at {where} when later bars were left out or reversed; what it reads from elsewhere is not seen",
    )


def _reversed_after(bars: Bars, cut: int) -> Bars:
    """The bars with every move from the cut on turned round; volumes in reverse order."""
    anchor = bars.close[cut - 1] ** 2

    def turned(prices: np.ndarray) -> np.ndarray:
        return np.concatenate([prices[:cut], anchor / prices[cut:]])

    high, low = turned(bars.high), turned(bars.low)
    high[cut:], low[cut:] = low[cut:].copy(), high[cut:].copy()
    volume = np.concatenate([bars.volume[:cut], bars.volume[cut:][::-1]])
    return replace(bars, open=turned(bars.open), high=high, low=low, close=turned(bars.close), volume=volume)
