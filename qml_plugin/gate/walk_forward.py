"""The gate over a table of events: arrays in, a table of decisions out."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from qml_plugin.errors import DataError
from qml_plugin.gate.evidence import REQUIREMENTS, Requirements
from qml_plugin.gate.online import GateSettings, OnlineGate
from qml_plugin.records import FloatArray, IntArray

TEACHERS = ("shadow", "executed")


class WalkForwardGate:
    """Walks once through events in order of time, and decides each from what had resolved by then.

    Parameters
    ----------
    seed : int, default=0
    model : {"auto", "logistic", "xgboost"}, default="auto"
        The ladder, or a learner to insist on.
    min_confidence : float, 0..1, optional
        P(win) below which an entry is skipped; without it the threshold that would have earned most on past scores.
    cost_r : float, R, default=0
        Cost of an entry as far as `r_multiple` does not hold it.
    on_abstain : {"fail_open", "fail_closed"}, default="fail_open"
        Whether an entry that the gate cannot judge is taken (action ``"abstain"``) or skipped (``"skip"``).
    memory : {"shadow", "executed"}, default="shadow"
        Whether all events teach, or only those not skipped. With ``"executed"`` the gate cannot find out that it was
        wrong to skip.
    requirements : Requirements, optional

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X, known_at = rng.normal(size=(300, 4)), np.arange(300) * 3_600_000_000
    >>> r_multiple = np.where(rng.random(300) < 0.4, 1.5, -1.0)
    >>> table = WalkForwardGate(seed=0).run(X, known_at, known_at + 7_200_000_000, r_multiple)
    >>> table["action"].value_counts().to_dict()
    {'abstain': 300}
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        model: str = "auto",
        min_confidence: float | None = None,
        cost_r: float = 0.0,
        on_abstain: str = "fail_open",
        memory: str = "shadow",
        requirements: Requirements = REQUIREMENTS,
    ) -> None:
        if memory not in TEACHERS:
            raise DataError(f"memory {memory!r} is unknown. Use one of {', '.join(map(repr, TEACHERS))}.")
        self.settings = GateSettings(model, min_confidence, cost_r, on_abstain, requirements, seed)
        self.memory = memory

    def run(
        self,
        X: ArrayLike,
        known_at: ArrayLike,
        resolved_at: ArrayLike,
        r_multiple: ArrayLike,
        *,
        is_win: ArrayLike | None = None,
        group: Sequence[str] | NDArray[np.str_] | None = None,
        distance: ArrayLike | None = None,
        is_late: ArrayLike | None = None,
    ) -> pd.DataFrame:
        """Decisions on all events.

        Parameters
        ----------
        X : array of shape (n_events, n_features)
            What was known of each event at its ``known_at``; NaN is missing. Used as float32.
        known_at, resolved_at : array of shape (n_events,), UTC
            When each event was decided upon and when its outcome became known; any order. Integers are microseconds;
            datetimes, with or without a zone, are taken as UTC.
        r_multiple : array of shape (n_events,), R
            Outcomes in units of planned risk. NaN is an event that never resolves: it is decided and teaches nothing.
        is_win : array of shape (n_events,), bool, optional
            Which outcomes count as wins; without it those above 0 R.
        group : sequence of n_events str, optional
            Labels of different groups do not overlap; without it all may.
        distance : array of shape (n_events,), optional
            How far the nearest neighbour of each event was at its moment; NaN where there was none. Without it
            nothing is novel.
        is_late : array of shape (n_events,), bool, optional
            Events for which something missed its deadline.

        Returns
        -------
        DataFrame
            One row per event in order of ``known_at`` (ties by position); the index is the position in the arrays.
            ``confidence``, ``low``, ``high`` (P(win) and its 90 % interval, NaN before a model speaks), ``action``
            (``take``, ``skip`` or ``abstain``), ``reason``; then ``threshold``, ``base_rate``, ``model``, ``n_known``.

        Point in time
        -------------
        A row reads its own row of X and the events with ``resolved_at <= known_at`` of the row that came before it.

        Raises
        ------
        DataError
            If lengths differ, an event resolves before it is known, or a feature or an R is infinite.
        MissingExtra
            If xgboost is not installed.
        """
        events = _Events(X, known_at, resolved_at, r_multiple, is_win, group, distance, is_late)
        gate = OnlineGate(self.settings)
        waiting: list[tuple[int, int]] = []
        confidence: dict[int, float] = {}
        learnt: list[int] = []
        rows = []
        for i in events.order:
            now = int(events.known_at[i])
            while waiting and waiting[0][0] <= now:
                _, j = heapq.heappop(waiting)
                learnt.append(j)
                gate.learn(*events.outcome(j), confidence=confidence[j], group=events.group[j])
            if size := gate.due:
                gate.refit(events.X[learnt[:size]], events.distance[learnt[:size]])
            said = gate.judge(events.X[i], now, distance=float(events.distance[i]), is_late=bool(events.is_late[i]))
            rows.append(said)
            confidence[i] = said.confidence
            if np.isfinite(events.r_multiple[i]) and not (self.memory == "executed" and said.action == "skip"):
                heapq.heappush(waiting, (int(events.resolved_at[i]), i))
        names = ("confidence", "low", "high", "action", "reason", "threshold", "base_rate", "model", "n_known")
        return pd.DataFrame(
            {name: [getattr(row, name) for row in rows] for name in names}, index=pd.Index(events.order, name="event")
        )


class _Events:
    """The columns of a table of events, checked."""

    def __init__(
        self,
        X: ArrayLike,
        known_at: ArrayLike,
        resolved_at: ArrayLike,
        r_multiple: ArrayLike,
        is_win: ArrayLike | None,
        group: Sequence[str] | NDArray[np.str_] | None,
        distance: ArrayLike | None,
        is_late: ArrayLike | None,
    ) -> None:
        self.X = np.ascontiguousarray(X, dtype=np.float32)
        self.known_at, self.resolved_at = _micros(known_at), _micros(resolved_at)
        self.r_multiple: FloatArray = np.asarray(r_multiple, dtype=np.float64)
        n = len(self.known_at)
        self.is_win = self.r_multiple > 0 if is_win is None else np.asarray(is_win, dtype=np.bool_)
        self.group = [""] * n if group is None else [str(name) for name in group]
        self.distance = np.full(n, np.nan) if distance is None else np.asarray(distance, dtype=np.float64)
        self.is_late = np.zeros(n, dtype=np.bool_) if is_late is None else np.asarray(is_late, dtype=np.bool_)
        lengths = {
            "X": len(self.X), "known_at": n, "resolved_at": len(self.resolved_at), "r_multiple": len(self.r_multiple),
            "is_win": len(self.is_win), "group": len(self.group), "distance": len(self.distance),
            "is_late": len(self.is_late),
        }  # fmt: skip
        if self.X.ndim != 2 or set(lengths.values()) != {n}:
            raise DataError(
                f"X of shape {self.X.shape} with columns of {lengths} refused. X has a row and every column a value "
                "for each event."
            )
        bad = np.argwhere(np.isinf(self.X))
        if len(bad) or np.isinf(self.r_multiple).any():
            where = f"feature {bad[0][1]} of event {bad[0][0]}" if len(bad) else "an r_multiple"
            raise DataError(f"{where} is infinite. Use finite numbers, and NaN for what is missing or open.")
        early = np.flatnonzero(np.isfinite(self.r_multiple) & (self.resolved_at < self.known_at))
        if len(early):
            raise DataError(
                f"event {early[0]} resolves at {self.resolved_at[early[0]]}, before it is known at "
                f"{self.known_at[early[0]]}. resolved_at >= known_at must hold; check the two columns."
            )
        self.order: list[int] = np.argsort(self.known_at, kind="stable").tolist()

    def outcome(self, i: int) -> tuple[int, int, bool, float]:
        """What is learnt of an event once it has resolved."""
        return int(self.known_at[i]), int(self.resolved_at[i]), bool(self.is_win[i]), float(self.r_multiple[i])


def _micros(times: ArrayLike) -> IntArray:
    """Times as microseconds since 1970 in UTC."""
    if pd.api.types.is_datetime64_any_dtype(getattr(times, "dtype", np.asarray(times).dtype)):
        index = pd.DatetimeIndex(times)  # type: ignore[arg-type]
        index = index.tz_localize("UTC") if index.tz is None else index.tz_convert("UTC")
        return np.asarray(index.as_unit("us").asi8, dtype=np.int64)
    return np.asarray(times, dtype=np.int64)
