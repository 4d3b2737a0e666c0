"""The ledger: every run from its start on, those that died too, and how often a strategy was tried on a series."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from qml_plugin.bars import Bars, bars_from_frame
from qml_plugin.clock import from_datetime, isoformat
from qml_plugin.errors import DataError
from qml_plugin.processes import Process
from qml_plugin.records import Decision, FloatArray, Run, TrialEntries
from qml_plugin.registry.connection import Database
from qml_plugin.registry.run_rows import Row, parsed_decision, parsed_run, returns_row, run_row
from qml_plugin.registry.schema import experiments, git_diffs, run_decisions, run_returns
from qml_plugin.registry.trial_rows import stored_rows, trial_entries

_RUNS = experiments.c
# A run on a host that cannot be seen from here counts as dead when it has been silent for this long.
SILENT = timedelta(hours=1)
# A sweep or a study is no trial of its own: its cells are.
NO_TRIALS = ("sweep", "study")
STATES = ("running", "finished", "failed", "interrupted")
_LONGEST_ID = 200
_IDS_AT_ONCE = 500
_LATEST_FIRST = (sa.func.coalesce(_RUNS.finished_at, _RUNS.started_at).desc(), _RUNS.run_id)


class RunLedger:
    """What a registry says of the runs; part of `PatternRegistry`."""

    _database: Database

    def start_run(self, run: Run) -> None:
        """Record a run that begins, and mark as interrupted those whose process has died.

        A run of the same id that finished keeps its record until this one has finished too.

        Parameters
        ----------
        run : Run
            Of status ``"running"``.

        Raises
        ------
        DataError
            If the run has another status, or a value that cannot be stored.
        """
        self.start_runs([run])

    def start_runs(self, runs: Sequence[Run]) -> None:
        """Record runs that begin together, all of them or none.

        Parameters
        ----------
        runs : sequence of Run
            As for `start_run`.

        Raises
        ------
        DataError
            As for `start_run`.
        """
        for run in runs:
            if run.status != "running":
                raise DataError(f"run {run.run_id} is {run.status!r}. Only a run of status 'running' can be started.")
        own, now = Process.own(), _now()
        alive = {"host": own.host, "pid": own.pid, "process_started": own.started, "heartbeat_at": now}
        rows = [run_row(run) | alive for run in runs]
        with self._database.write() as connection:
            _mark_dead(connection, now)
            for run, row in zip(runs, rows, strict=True):
                _start(connection, run, row)

    def note_alive(self, run_id: str) -> None:
        """Note that a run is still at work, so that other hosts do not take it for dead.

        Parameters
        ----------
        run_id : str
        """
        with self._database.write() as connection:
            connection.execute(
                sa.update(experiments)
                .where(_RUNS.run_id == run_id, _RUNS.status == "running")
                .values(heartbeat_at=_now())
            )

    def get_run(self, run_id: str) -> dict[str, Any]:
        """One run.

        Parameters
        ----------
        run_id : str
            The id, or its first characters where no other run's id begins with them; ``"latest"`` is the run begun last.

        Returns
        -------
        dict
            As from `get_runs`, and ``git_diff`` (text or None) and ``n_trials`` of its strategy on its data.

        Raises
        ------
        DataError
            If there is no such run, or there are several.
        """
        missing = f"run {run_id[:_LONGEST_ID]!a} is not in {self._database.name}. `qml runs list` names those that are."
        if not run_id or not run_id.isprintable() or len(run_id) > _LONGEST_ID:
            raise DataError(missing)
        with self._database.read() as connection:
            last = sa.select(_RUNS.run_id).order_by(_RUNS.started_at.desc(), _RUNS.run_id).limit(1).scalar_subquery()
            begins = _RUNS.run_id == last if run_id == "latest" else _RUNS.run_id.startswith(run_id, autoescape=True)
            found = connection.execute(
                sa.select(experiments, git_diffs.c.diff.label("git_diff"))
                .outerjoin(git_diffs, git_diffs.c.sha256 == _RUNS.git_diff_sha256)
                .where(begins)
                .order_by(_RUNS.run_id)
                .limit(3)
            ).mappings().all()  # fmt: skip
            found = [row for row in found if row["run_id"] == run_id] or found
            if not found:
                raise DataError(missing)
            if len(found) > 1:
                several = ", ".join(row["run_id"] for row in found)
                raise DataError(f"run {run_id!r} is not one run: {several} … begin so. Give more of the id.")
            run = parsed_run(found[0])
            run["n_trials"] = _n_trials(connection, str(run["strategy_name"]), str(run["data_hash"]))
            return run

    def get_runs(
        self,
        limit: int = 50,
        *,
        strategy: str | None = None,
        symbol: str | None = None,
        status: str | None = None,
        data_hash: str | None = None,
    ) -> list[dict[str, Any]]:
        """The runs that ended last, newest first; one that has not ended counts by its start.

        Parameters
        ----------
        limit : int, default=50
            At most so many, at least 1.
        strategy, symbol, data_hash : str, optional
            Only runs of this strategy name, on this symbol, on these very bars.
        status : {"running", "finished", "failed", "interrupted"}, optional

        Returns
        -------
        list of dict
            Every column of ``experiments`` by its name, times as naive UTC datetimes; ``params``, ``versions`` and
            ``metrics`` stand for the JSON columns.

        Raises
        ------
        DataError
            If `limit` is less than 1, or the status is none.
        """
        if limit < 1:
            raise DataError(f"limit is {limit!r}. Ask for at least 1 run.")
        if status is not None and status not in STATES:
            raise DataError(f"status {status!r} is unknown. Use one of {', '.join(map(repr, STATES))}.")
        asked = (
            (_RUNS.strategy_name, strategy),
            (_RUNS.symbol, symbol),
            (_RUNS.status, status),
            (_RUNS.data_hash, data_hash),
        )
        if any(value is not None and not _is_storable(value) for _, value in asked):
            return []
        conditions = [column == value for column, value in asked if value is not None]
        with self._database.read() as connection:
            return list(newest_runs(connection, limit, *conditions))

    def finished_of(self, run_ids: Sequence[str]) -> set[str]:
        """Those of some runs that are recorded as finished.

        Parameters
        ----------
        run_ids : sequence of str
            Whole ids.
        """
        found: set[str] = set()
        with self._database.read() as connection:
            for first in range(0, len(run_ids), _IDS_AT_ONCE):
                is_asked = _RUNS.run_id.in_(run_ids[first : first + _IDS_AT_ONCE])
                found |= set(connection.scalars(sa.select(_RUNS.run_id).where(is_asked, _RUNS.status == "finished")))
        return found

    def get_decisions(self, run_id: str) -> list[dict[str, Any]]:
        """What a run decided, by ``pattern_id``.

        Parameters
        ----------
        run_id : str
            The whole id.

        Returns
        -------
        list of dict
            Every column of ``run_decisions`` by its name.
        """
        query = sa.select(run_decisions).where(run_decisions.c.run_id == run_id).order_by(run_decisions.c.pattern_id)
        with self._database.read() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def get_decision(self, run_id: str, pattern_id: str) -> Decision:
        """One decision of a run, as it was made.

        Parameters
        ----------
        run_id, pattern_id : str
            The ids, or their first characters where no other begins with them.

        Returns
        -------
        Decision
            ``low``, ``high`` and ``bucket`` are None where it was recorded before schema 0004.

        Raises
        ------
        DataError
            If there is no such run or no such decision in it, or there are several.
        """
        run = self.get_run(run_id)
        begins = run_decisions.c.pattern_id.startswith(pattern_id, autoescape=True)
        query = sa.select(run_decisions).where(run_decisions.c.run_id == run["run_id"], begins)
        found = []
        if pattern_id and pattern_id.isprintable() and len(pattern_id) <= _LONGEST_ID:
            with self._database.read() as connection:
                found = list(connection.execute(query.order_by(run_decisions.c.pattern_id).limit(3)).mappings())
        found = [row for row in found if row["pattern_id"] == pattern_id] or found
        if not found:
            raise DataError(
                f"run {run['run_id']} decided no pattern {pattern_id[:_LONGEST_ID]!a}. `qml decisions RUN_ID` names those that it did."
            )
        if len(found) > 1:
            several = ", ".join(row["pattern_id"] for row in found)
            raise DataError(f"pattern {pattern_id!r} is not one pattern: {several} … begin so. Give more of the id.")
        return parsed_decision(found[0])

    def trial_entries(self, run_id: str) -> TrialEntries:
        """The entries of a run with what the gate thought of them and what became of them, for `gate.gate_trial`.

        Parameters
        ----------
        run_id : str
            The id, or its first characters where no other run's id begins with them.

        Returns
        -------
        TrialEntries
            What the run itself gives after it has ended, but that labels given by hand count.

        Point in time
        -------------
        Reads outcomes on purpose: it is for judging a finished run.

        Raises
        ------
        DataError
            If there is no such run, it decided nothing, or it was made in the mode ``"record"``.
        """
        run = self.get_run(run_id)
        with self._database.read() as connection:
            rows = stored_rows(connection, run["run_id"])
        return trial_entries(f"run {run['run_id']}", rows)

    def get_returns(self, run_id: str) -> FloatArray | None:
        """Returns of a run's equity as fractions, one for each bar but the first; None where the run left none.

        Parameters
        ----------
        run_id : str
            The whole id.

        Returns
        -------
        ndarray of shape (data_bars - 1,), float64, or None
        """
        query = sa.select(run_returns.c.returns_f64).where(run_returns.c.run_id == run_id)
        with self._database.read() as connection:
            packed = connection.scalar(query)
        return None if packed is None else np.frombuffer(packed, "<f8").astype(np.float64)

    def n_trials(self, strategy: str | type | None, data: str | Bars | pd.DataFrame) -> int:
        """How many ways of a strategy were ever tried on a series: what a result must be deflated by.

        Every run counts once, however often it was repeated: those that failed, were interrupted or are still running
        too, and the cells of searches. Other parameters, other code, another mode or another setting is another trial.

        Parameters
        ----------
        strategy : str, type or None
            Name of the strategy's class, or the class; None counts the trials of all strategies.
        data : str, Bars or DataFrame
            The ``data_hash`` of a run, or the bars. A DataFrame is read as a run of the class reads it, by its ``timeframe``
            and ``bar_label``; where only a name is given, by the defaults of these.

        Returns
        -------
        int
        """
        with self._database.read() as connection:
            name = None if strategy is None else _name_of(strategy)
            return _n_trials(connection, name, _hash_of(data, strategy))

    def trial_returns(self, strategy: str | type, data: str | Bars | pd.DataFrame) -> pd.DataFrame:
        """Returns of all trials of a strategy on a series, a column a trial.

        Parameters
        ----------
        strategy, data
            As for `n_trials`.

        Returns
        -------
        DataFrame of shape (n_bars - 1, n_finished), float64
            Fractions by bar, from bar 1 on (the index); columns are run ids in order of their start. Trials that did not
            finish left no returns and have no column: `n_trials` counts them.
        """
        is_trial = (_RUNS.strategy_name == _name_of(strategy), _RUNS.data_hash == _hash_of(data, strategy))
        query = (
            sa.select(_RUNS.run_id, run_returns.c.returns_f64, run_returns.c.first_bar)
            .join(run_returns, run_returns.c.run_id == _RUNS.run_id)
            .where(*is_trial)
            .order_by(_RUNS.started_at, _RUNS.run_id)
        )
        with self._database.read() as connection:
            found = connection.execute(query).all()
        columns = {row[0]: np.frombuffer(row[1], "<f8").astype(np.float64) for row in found}
        table = pd.DataFrame(columns)
        table.index = pd.RangeIndex(1, 1 + len(table), name="bar")
        return table


def _start(connection: sa.Connection, run: Run, row: Row) -> None:
    """Write the start of a run, unless an earlier one of the same id finished."""
    is_this = _RUNS.run_id == run.run_id
    status = connection.scalar(sa.select(_RUNS.status).where(is_this))
    if status == "finished":
        return
    _keep_diff(connection, run)
    if status is None:
        connection.execute(sa.insert(experiments).values(**row))
    else:
        connection.execute(sa.update(experiments).where(is_this).values(**row))


def close_run(connection: sa.Connection, run: Run, row: Row, decisions: list[Row]) -> None:
    """Write the end of a run, unless it did not finish and an earlier run of the same id did."""
    is_this = _RUNS.run_id == run.run_id
    status = connection.scalar(sa.select(_RUNS.status).where(is_this))
    if status == "finished" and run.status != "finished":
        return
    _keep_diff(connection, run)
    if status is None:
        connection.execute(sa.insert(experiments).values(**row))
    else:
        for table in (run_decisions, run_returns):
            connection.execute(sa.delete(table).where(table.c.run_id == run.run_id))
        connection.execute(sa.update(experiments).where(is_this).values(**row))
    if decisions:
        connection.execute(sa.insert(run_decisions), decisions)
    if returns := returns_row(run):
        connection.execute(sa.insert(run_returns).values(**returns))


def newest_runs(connection: sa.Connection, limit: int, *conditions: sa.ColumnElement[bool]) -> Iterator[Row]:
    """Runs that meet the conditions, the latest first."""
    query = sa.select(experiments).where(*conditions).order_by(*_LATEST_FIRST).limit(limit)
    return (parsed_run(row) for row in connection.execute(query).mappings())


def _mark_dead(connection: sa.Connection, now: datetime) -> None:
    """Close the runs whose process is gone: it was killed, or its host was switched off."""
    columns = (_RUNS.run_id, _RUNS.host, _RUNS.pid, _RUNS.process_started, _RUNS.heartbeat_at, _RUNS.started_at)
    for row in connection.execute(sa.select(*columns).where(_RUNS.status == "running")).all():
        last_sign = row.heartbeat_at or row.started_at
        is_alive = Process(row.host, row.pid, row.process_started).is_alive() if row.host else None
        if is_alive or (is_alive is None and now - last_sign < SILENT):
            continue
        error = (
            f"process {row.pid} on {row.host} ended without a word; its last sign of life was at "
            f"{isoformat(from_datetime(last_sign))}"
        )
        connection.execute(
            sa.update(experiments)
            .where(_RUNS.run_id == row.run_id)
            .values(status="interrupted", finished_at=last_sign, error=error)
        )


def _keep_diff(connection: sa.Connection, run: Run) -> None:
    """Keep what the working tree had changed, once for all runs that saw it."""
    if run.git_diff is None:
        return
    sha256 = hashlib.sha256(run.git_diff.encode()).hexdigest()
    if connection.scalar(sa.select(sa.literal(1)).where(git_diffs.c.sha256 == sha256)) is None:
        connection.execute(sa.insert(git_diffs).values(sha256=sha256, diff=run.git_diff))


def _n_trials(connection: sa.Connection, strategy_name: str | None, data_hash: str) -> int:
    is_trial = [_RUNS.data_hash == data_hash, _RUNS.kind.not_in(NO_TRIALS)]
    if strategy_name is not None:
        is_trial.append(_RUNS.strategy_name == strategy_name)
    return int(connection.scalar(sa.select(sa.func.count()).select_from(experiments).where(*is_trial)) or 0)


def _is_storable(text: str) -> bool:
    """Whether a database can hold the text at all: neither half a character nor a NUL."""
    return "\0" not in text and text.encode("utf-8", "ignore").decode() == text


def _name_of(strategy: str | type) -> str:
    return strategy if isinstance(strategy, str) else strategy.__name__


def _hash_of(data: str | Bars | pd.DataFrame, strategy: str | type | None) -> str:
    """The hash of bars as a run of the strategy sees them: its own timeframe and meaning of stamps count."""
    if isinstance(data, str):
        return data
    if isinstance(data, Bars):
        return data.sha256()
    timeframe, bar_label = getattr(strategy, "timeframe", None), getattr(strategy, "bar_label", "open")
    return bars_from_frame(data, symbol="", timeframe=timeframe, bar_label=bar_label).sha256()


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
