"""How long the first bars matter: recursive indicators never quite forget them, and that is no leak."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from qml_plugin.audit.findings import Finding
from qml_plugin.audit.trace import Trace, differences

#: Values agree again where they differ by less than this share of the largest magnitude of their array.
SETTLED_FRAC = 1e-9


def start_findings(base: Trace, other: Trace, n_dropped: int, ignored: Collection[str] = ()) -> list[Finding]:
    """What still differs after its warm-up where the first bars are left out, with how long and how much.

    Parameters
    ----------
    base : Trace
        The run on all bars.
    other : Trace
        The run without the first `n_dropped` bars.
    n_dropped : int, bars
    ignored : collection of str
        Names of objects that are left out.
    """
    if other.error is not None:
        text = f"without the first {n_dropped} bars the run fails: {other.error[1].rstrip('.')}"
        return [Finding("start", "start", "error", "raised", text, bar=other.error[0])]
    found = []
    for (kind, name), values in base.arrays.items():
        changed = other.arrays.get((kind, name))
        if name in ignored or changed is None or values.dtype.kind != "f" or changed.dtype.kind != "f":
            continue
        one, two = values[n_dropped:].reshape(len(changed), -1), changed.reshape(len(changed), -1)
        both = np.isfinite(one) & np.isfinite(two)
        if not both.any():
            continue
        scale = float(np.abs(one[both]).max()) or 1.0
        gap = np.where(both, np.abs(one - two), 0.0).max(axis=1) / scale
        bad = np.flatnonzero(gap > SETTLED_FRAC)
        if len(bad):
            warm = int(both.all(axis=1).argmax())
            found.append(_finding(kind, name, gap, int(bad[-1]), warm, n_dropped, len(changed)))
    return found + _of_orders(base, other, n_dropped)


def _finding(kind: str, name: str, gap: np.ndarray, last: int, warm: int, n_dropped: int, n_left: int) -> Finding:
    is_lasting = last >= n_left - 1
    until = "to the last bar" if is_lasting else f"for {last + 1} bars"
    text = (
        f"{kind} {name} depends on where the bars begin: without the first {n_dropped} of them it differs {until}, by "
        f"{gap[warm]:.1e} of its largest value when it is first there and {gap[last]:.1e} at the end of that. "
        + (
            "Give it the same start wherever it is used."
            if is_lasting
            else "Give it so many bars before its first use."
        )
    )
    return Finding("start", "start", kind, name, text, bar=n_dropped + last, value=last + 1, other=float(gap[last]))


def _of_orders(base: Trace, other: Trace, n_dropped: int) -> list[Finding]:
    """How many of the orders of the last half are still other ones."""
    from_bar = n_dropped + (base.n_bars - n_dropped) // 2
    late = Trace(base.n_bars, events={"order": [e for e in base.events.get("order", ()) if e[0] >= from_bar]})
    again = [(bar + n_dropped, fields) for bar, fields in other.events.get("order", ()) if bar + n_dropped >= from_bar]
    if not differences(late, Trace(base.n_bars, events={"order": again}), base.n_bars, tolerance=SETTLED_FRAC):
        return []
    asked = {bar for bar, _ in late.events["order"]}
    n_same = len(asked & {bar for bar, _ in again})
    text = (
        f"orders depend on where the bars begin: without the first {n_dropped}, {n_same} of the {len(asked)} bars with orders "
        f"from bar {from_bar} on have one again (positions, a memory and sizes go on from the start)."
    )
    return [Finding("start", "start", "order", "order", text, bar=from_bar, value=len(asked), other=n_same)]
