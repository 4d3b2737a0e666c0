"""The audit of one strategy or signal function on one series of bars."""

from __future__ import annotations

import difflib
import inspect
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from qml_plugin.adapters.cells import HOST_OPTIONS, options_of
from qml_plugin.adapters.recorded_run import nothing_recorded
from qml_plugin.audit.findings import AuditReport, Finding, finding_of, order_of
from qml_plugin.audit.futures import FUTURES, other_future
from qml_plugin.audit.signal_runs import ASKING, SignalSubject
from qml_plugin.audit.start import start_findings
from qml_plugin.audit.strategy_runs import StrategySubject, is_strategy
from qml_plugin.audit.trace import Difference, Trace, differences
from qml_plugin.bars import PRICES, read_bars
from qml_plugin.errors import DataError
from qml_plugin.provenance import find_object, place_of

Subject = StrategySubject | SignalSubject
Step = Callable[[int, int, str], object]
_SHORTEST_REST = 50
_FEWEST_BARS = 50
_CASH_IN_PRICES = 1000.0


def audit(
    subject: type | Callable[..., Any] | str,
    data: pd.DataFrame | str | Path | None = None,
    *,
    n_cuts: int = 20,
    seed: int = 0,
    tolerance: float = 0.0,
    ignore: Collection[str] = (),
    parameters: Mapping[str, Any] | None = None,
    registry: str | None = None,
    is_gated: bool = True,
    on_step: Step | None = None,
    **host: Any,
) -> AuditReport:
    """What of a strategy has seen the future, found by changing it.

    Parameters
    ----------
    subject : class, function or str
        A backtesting.py ``Strategy``, with or without `PatternMixin`; a function of a frame of bars that returns `Signals`,
        arrays or a tuple of them; or the place of one, ``package.module:Name`` or ``path/to/file.py:Name``.
    data : DataFrame, path or str, optional
        Bars, a ``.csv`` or ``.parquet`` file, or ``"GOOG"`` or ``"EURUSD"``; GOOG by default.
    n_cuts : int, >= 1, default=20
        Bars after which the future is replaced, half of them bars at which the strategy asks for an order. Each is
        followed by drawn prices and, in turn, by one of the four other futures of `other_future`: fewer cuts try fewer.
    seed : int, default=0
    tolerance : float, fraction, default=0
        Numbers count as equal within this share of the largest magnitude of their object. 0 compares exactly; only
        arithmetic whose rounding depends on the length of the series (Fourier transforms) needs more, such as 1e-12.
    ignore : collection of str
        Names of indicators and attributes that no decision reads, such as what is only plotted.
    parameters : mapping, optional
        Parameters of the strategy, or keyword arguments of the function.
    registry : str, optional
        Registry of which a copy is used and poisoned; without it one that the strategy has filled itself.
    is_gated : bool, default=True
        Whether the signals of a function also go through `gate_signals`, where that takes them.
    on_step : callable, optional
        Called with (runs done, runs in all, what runs now).
    **host
        Options of `Backtest`, such as ``exclusive_orders=True`` or ``commission=0.001``; of a function those of `gate_signals`.

    Returns
    -------
    AuditReport

    Point in time
    -------------
    Compares what was there up to the close of each cut. What became known later (outcomes, trades) is not compared.

    Raises
    ------
    DataError
        If there is no such strategy or there are too few bars, or the strategy fails on the bars as they are.
    """
    started = time.monotonic()
    if n_cuts < 1:
        raise DataError(f"n_cuts is {n_cuts}. At least one bar must be cut at.")
    frame, label = frame_of(data)
    examined = _Examination(
        _subject_of(subject, frame, parameters, host, is_gated), frame, n_cuts, seed, tolerance, ignore, on_step
    )
    examined.run(registry)
    return AuditReport(
        examined.subject.name, label, len(frame), seed, tolerance, tuple(examined.cuts), examined.n_runs,
        time.monotonic() - started, tuple(sorted(examined.findings, key=order_of)), examined.compared(), tuple(examined.checks),
        n_cuts,
    )  # fmt: skip


class _Examination:
    """The runs of one audit and what they show."""

    def __init__(
        self, subject: Subject, frame: pd.DataFrame, n_cuts: int, seed: int, tolerance: float, ignore: Collection[str],
        on_step: Step | None,
    ) -> None:  # fmt: skip
        self.subject, self.frame, self.seed, self.tolerance = subject, frame, seed, tolerance
        self.findings: list[Finding] = []
        self.cuts: list[int] = []
        self.checks: list[str] = []
        self.n_runs = 0
        self._stamps = frame.index.tolist()
        self._n_cuts = n_cuts
        self._ignored = set(ignore)
        self._on_step = on_step or (lambda done, total, text: None)
        self._n_expected = 5 + 2 * n_cuts + (7 if subject.has_memory else 0)
        self._has_reacted = False

    def run(self, registry: str | None) -> None:
        with threads(1):
            base = self._run("as it is")
            if base.error is not None:
                bar = "before the first bar" if base.error[0] is None else f"at bar {base.error[0]}"
                raise DataError(
                    f"{self.subject.name} fails on the bars as they are, {bar}: {base.error[1].rstrip('.')}. Mend that first."
                )
            if base.refused is not None and isinstance(self.subject, SignalSubject):
                self.subject = replace(self.subject, is_gated=False)
                text = f"gate_signals refuses these signals, so they were compared as they are: {base.refused}"
                self.findings.append(Finding("raised", "future", "decision", "gate_signals", text))
            self.cuts = _cuts(base, self._n_cuts, np.random.default_rng(self.seed))
            self._n_expected -= 2 * (self._n_cuts - len(self.cuts))
            self.base = self._run("again", state_bars=self.cuts)
            self._check_ignored()
            self._note_unstable("rerun", differences(base, self.base, base.n_bars, tolerance=self.tolerance))
            self._change_the_future()
        with threads(2):
            other = self._run("with two threads", state_bars=self.cuts)
        self._note_unstable("threads", self._against(other, base.n_bars))
        with threads(1):
            if self.subject.has_memory:
                self._poison(registry)
            self._drop_the_start()
        self._note_blind(base)

    def compared(self) -> dict[str, int]:
        """How many things of each kind the base run shows."""
        counts: dict[str, int] = {}
        for kind, _ in self.base.arrays:
            counts[kind] = counts.get(kind, 0) + 1
        return counts | {kind: len(events) for kind, events in sorted(self.base.events.items())}

    def _check_ignored(self) -> None:
        states = self.base.states.values()
        there = {name for _, name in self.base.arrays} | {name for state in states for name in state}
        there |= self.base.events.keys()
        if unknown := sorted(self._ignored - there):
            raise DataError(
                f"there is nothing named {unknown[0]!r} to ignore in {self.subject.name}: {', '.join(sorted(there)) or 'nothing'} "
                "are compared. Name one of them."
            )

    def _run(self, text: str, frame: pd.DataFrame | None = None, **options: Any) -> Trace:
        self._on_step(self.n_runs, max(self._n_expected, self.n_runs + 1), text)
        self.n_runs += 1
        return self.subject.run(self.frame if frame is None else frame, **options)

    def _against(self, other: Trace, through_bar: int, *, numbers: bool = True) -> list[Difference]:
        return differences(self.base, other, through_bar, tolerance=self.tolerance, numbers=numbers, skip=self._ignored)

    def _note_unstable(self, check: str, found: list[Difference]) -> None:
        self.checks.append(check)
        for difference in found:
            if difference.name not in self._ignored:
                self._ignored.add(difference.name)
                self.findings.append(finding_of(difference, grade="unstable", check=check, stamps=self._stamps))

    def _change_the_future(self) -> None:
        self.checks.append("future")
        first: dict[tuple[str, str], tuple[Difference, int, str, pd.DataFrame]] = {}
        leads: dict[tuple[str, str], dict[int, int]] = {}
        n_failed = 0
        for i, cut in enumerate(self.cuts):
            for kind in ("garbage", FUTURES[1 + i % (len(FUTURES) - 1)]):
                rng = np.random.default_rng([self.seed, cut, FUTURES.index(kind)])
                frame = other_future(self.frame, cut, kind, rng)
                other = self._run(f"another future from bar {cut + 1} on", frame, through_bar=cut, state_bars=[cut])
                if other.error is not None and other.error[0] is None:
                    n_failed += 1
                    self._note_raised(cut, kind, other.error[1], is_first=n_failed == 1)
                    continue
                self._has_reacted = self._has_reacted or (kind != "shorter" and self._is_other_after(other, cut))
                for difference in self._against(other, cut, numbers=kind != "shorter"):
                    key = (difference.kind, difference.name)
                    first.setdefault(key, (difference, cut, kind, frame))
                    lead = cut + 1 - difference.bar
                    leads.setdefault(key, {})[cut] = max(lead, leads.get(key, {}).get(cut, 0))
        if n_failed == 2 * len(self.cuts):
            self.findings.append(
                Finding(
                    "blind",
                    "future",
                    "error",
                    "raised",
                    f"{self.subject.name} raises on every other future, so none could be compared.",
                )
            )
        self._confirm(first, leads)

    def _confirm(
        self,
        first: dict[tuple[str, str], tuple[Difference, int, str, pd.DataFrame]],
        leads: dict[tuple[str, str], dict[int, int]],
    ) -> None:
        """A leak shows the same value whenever the same future comes; what does not is left to chance, not to the future."""
        again: dict[tuple[int, str], dict[tuple[str, str], Difference]] = {}
        for key, (difference, cut, kind, frame) in first.items():
            if (cut, kind) not in again:
                other = self._run("once more, to be sure", frame, through_bar=cut, state_bars=[cut])
                found = self._against(other, cut, numbers=kind != "shorter")
                again[cut, kind] = {(d.kind, d.name): d for d in found}
            second = again[cut, kind].get(key)
            is_chance = second is None or (second.bar, repr(second.other)) != (difference.bar, repr(difference.other))
            if is_chance:
                self._note_unstable("rerun", [difference])
                continue
            self.findings.append(
                finding_of(
                    difference,
                    grade="leak",
                    check="future",
                    stamps=self._stamps,
                    cut=cut,
                    future=kind,
                    leads=leads[key],
                    n_compared=len(self.cuts),
                )
            )

    def _note_raised(self, cut: int, kind: str, error: str, *, is_first: bool) -> None:
        if is_first:
            text = f"{self.subject.name} raises before its first bar where the bars from {cut + 1} on are others ({kind}): {error}"
            self.findings.append(
                Finding("raised", "future", "error", "raised", text, bar=cut + 1, cut=cut, future=kind)
            )

    def _is_other_after(self, other: Trace, cut: int) -> bool:
        """Whether anything after the cut shows that the new bars were read."""
        for key, values in self.base.arrays.items():
            rest, changed = values[cut + 1 :], other.arrays.get(key, values)[cut + 1 :]
            if rest.shape != changed.shape or not _is_equal(rest, changed):
                return True
        return False

    def _note_blind(self, base: Trace) -> None:
        if not base.arrays and not base.events.get("order"):
            text = (
                f"{self.subject.name} asked for nothing on these bars and has no indicator. Audit it where it trades."
            )
            self.findings.append(Finding("blind", "future", "order", "order", text))
            return
        could_ask = isinstance(self.subject, StrategySubject) or any(name in ASKING for _, name in base.arrays)
        if could_ask and not base.events.get("order"):
            text = (
                f"{self.subject.name} asked for no order on these bars: nothing of what it trades was proved. "
                "Audit it where it trades."
            )
            self.findings.append(Finding("blind", "future", "order", "order", text))
            return
        if not self._has_reacted:
            cut = self.cuts[0]
            changed = other_future(self.frame, cut, "garbage", np.random.default_rng([self.seed, cut]))
            other = self._run("to its end on other bars", changed)
            self._has_reacted = any(found.kind != "book" for found in differences(base, other, base.n_bars))
        if not self._has_reacted:
            text = (
                f"{self.subject.name} does the same on entirely other bars, so it does not read the bars that it is given. "
                "A fixed schedule has nothing to show; else look for what is kept from an earlier run, or read from a file."
            )
            self.findings.append(Finding("blind", "future", "order", "order", text))

    def _poison(self, registry: str | None) -> None:
        from qml_plugin.audit.poison import poisoned_pairs

        assert isinstance(self.subject, StrategySubject)
        self.checks.append("registry")
        cuts = [self.cuts[len(self.cuts) // 2], self.cuts[-1]]
        pairs = poisoned_pairs(self.subject, self.frame, sorted(set(cuts)), registry)
        for i, (cut, clean, poisoned) in enumerate(pairs):
            n_new = 1 if i else 2  # the run without planted rows is one for all cuts
            self._on_step(self.n_runs, max(self._n_expected, self.n_runs + n_new), "a poisoned registry")
            self.n_runs += n_new
            for difference in differences(clean, poisoned, cut, tolerance=self.tolerance, skip=self._ignored):
                known = {(f.kind, f.name) for f in self.findings if f.check == "registry"}
                if (difference.kind, difference.name) not in known:
                    self.findings.append(
                        finding_of(difference, grade="leak", check="registry", stamps=self._stamps, cut=cut)
                    )

    def _drop_the_start(self) -> None:
        self.checks.append("start")
        n_dropped = len(self.frame) // 4
        other = self._run("without its first quarter", self.frame.iloc[n_dropped:])
        self.findings += start_findings(self.base, other, n_dropped, self._ignored)


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Within the block the libraries of linear algebra, OpenMP and numba use at most `n` threads."""
    numba = sys.modules.get("numba")
    before = numba.get_num_threads() if numba is not None else 0
    with threadpool_limits(n):
        try:
            if numba is not None:
                numba.set_num_threads(min(n, numba.config.NUMBA_NUM_THREADS))
            yield
        finally:
            if numba is not None:
                numba.set_num_threads(before)


def _cuts(base: Trace, n_cuts: int, rng: np.random.Generator) -> list[int]:
    """Bars to cut at: half of them where something was asked for, because that is where a glance ahead shows."""
    last = base.n_bars - 1 - max(3, min(_SHORTEST_REST, base.n_bars // 10))
    start = max(1, base.first_bar)
    if base.n_bars < _FEWEST_BARS or last <= start:
        raise DataError(
            f"{base.n_bars} bars with the first decision at bar {base.first_bar} leave nothing to cut. An audit needs "
            f"at least {_FEWEST_BARS} bars, and bars after the warm-up; give more."
        )
    asked = np.unique([bar for bar, _ in base.events.get("order", ()) if start <= bar <= last])
    chosen = rng.permutation(asked)[: n_cuts // 2].astype(int).tolist()
    others = np.setdiff1d(np.arange(start, last + 1), chosen)
    return sorted(chosen + rng.permutation(others)[: n_cuts - len(chosen)].tolist())


def _is_equal(one: np.ndarray, other: np.ndarray) -> bool:
    try:
        return bool(np.array_equal(one, other, equal_nan=True))
    except TypeError:  # of objects, which have no NaN
        return bool(np.array_equal(one, other))


def frame_of(data: pd.DataFrame | str | Path | None) -> tuple[pd.DataFrame, str]:
    """The bars as the host takes them, and what to call them."""
    if isinstance(data, pd.DataFrame):
        return (data if set(PRICES) <= set(data.columns) else read_bars(data)), "the bars given"
    from qml_plugin.adapters.backtesting_py import BUNDLED, bundled_data

    name = "GOOG" if data is None else data
    if isinstance(name, str) and name in BUNDLED:
        return bundled_data(name), name
    return read_bars(name), Path(name).name


def _subject_of(
    subject: Any, frame: pd.DataFrame, parameters: Mapping[str, Any] | None, host: Mapping[str, Any], is_gated: bool
) -> Subject:
    found = subject
    if isinstance(subject, str):
        with nothing_recorded():  # a script that is imported for its class may run a backtest
            found = find_object(place_of(subject))
    if is_strategy(found):
        # Enough for a thousand units; the same in all runs, whatever prices their futures reach.
        options_of(found, parameters or {}, {})
        _check_names("Backtest", host, HOST_OPTIONS)
        cash = max(10_000.0, _CASH_IN_PRICES * float(frame["High"].max()))
        return StrategySubject(found, parameters or {}, {"cash": cash, **host})
    if isinstance(found, type) or not callable(found):
        raise DataError(
            f"{subject!r} is neither a Strategy of backtesting.py nor a function of a frame of bars. Name a class or function."
        )
    if host:
        from qml_plugin.adapters.vectorbt import gate_signals

        _check_names("gate_signals", host, list(inspect.signature(gate_signals).parameters)[2:])
    return SignalSubject(found, parameters or {}, host, is_gated)


def _check_names(taker: str, given: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse an option that its taker does not have."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise DataError(
                f"{taker} has no option {name!r}: it has {', '.join(known)}."
                + (f" Did you mean {near[0]!r}?" if near else "")
            )
