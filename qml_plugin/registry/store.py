"""PatternRegistry: what a run learns goes in as one transaction and comes out as columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from qml_plugin.clock import to_datetime
from qml_plugin.errors import DataError
from qml_plugin.records import Decision, KnownPatterns, Pattern, Run
from qml_plugin.registry.connection import Database
from qml_plugin.registry.ledger import Row, decision_rows, parsed_run, run_row
from qml_plugin.registry.migrations import ensure_current
from qml_plugin.registry.rows import feature_vector, known_columns, parsed_pattern, pattern_row
from qml_plugin.registry.schema import experiments, ml_pattern_registry, run_decisions

_PATTERNS = ml_pattern_registry.c
# A label given by hand decides; "ignore" is neither, and so unknown.
_RESULT = sa.case(
    (_PATTERNS.user_label.in_(("win", "loss")), _PATTERNS.user_label),
    (_PATTERNS.user_label.is_(None), _PATTERNS.barrier_outcome),
)
_IS_KNOWN = sa.and_(_PATTERNS.resolved_at.is_not(None), _RESULT.is_not(None))


class PatternRegistry:
    """A database of registered patterns, runs and decisions.

    A new file is created with its tables, and so are the folders above it. Nothing is held open between calls: an
    object on a file may be pickled, and used after a fork or from several threads.

    Parameters
    ----------
    url : str
        ``sqlite:///relative/path.db``, ``sqlite:////absolute/path.db``, or ``sqlite://`` for a database in memory that
        belongs to this object alone and cannot be pickled.
    busy_timeout_s : float, seconds, default=20.0
        How long a call waits for another process's lock.
    create : bool, default=True
        Whether a file that does not exist is made; False is for those who only read.

    Raises
    ------
    SchemaTooOld
        If the file needs an upgrade; the message holds the command.
    SchemaTooNew
        If a newer version of qml_plugin wrote the file; it is not touched.
    RegistryBusy
        If another process held the lock for longer than the timeout. Every method may raise it; nothing is lost.
    RegistryCorrupt
        If the file is damaged, or another program's. Every method may raise it.
    RegistryError
        If the URL is not understood, or the file cannot be opened, read or written.

    Examples
    --------
    >>> registry = PatternRegistry("sqlite://")
    >>> registry.get_statistics()["n_patterns"]
    0
    """

    def __init__(self, url: str, *, busy_timeout_s: float = 20.0, create: bool = True) -> None:
        self._database = Database(url, busy_timeout_s)
        if not create:
            self._database.require_file()
        ensure_current(self._database)

    def __repr__(self) -> str:
        return f"PatternRegistry({self.url!r})"

    @property
    def url(self) -> str:
        """The URL it was opened with."""
        return self._database.url

    def known_patterns(self, feature_set: str, names: Sequence[str]) -> KnownPatterns:
        """Every pattern of one feature set whose result is known, as columns.

        Parameters
        ----------
        feature_set : str
            Hash of the catalogue; patterns of other catalogues are left out.
        names : sequence of str, shape (n_features,)
            Features wanted, in the order wanted.

        Returns
        -------
        KnownPatterns
            Sorted by (``resolved_at``, ``pattern_id``). A label given by hand wins over the barrier's; ``"ignore"``
            leaves the pattern out and names it in ``ignored``. NaN where a feature, an ``r_multiple`` or a confidence has no value.

        Point in time
        -------------
        Holds all that is known now. A question asked as of an earlier time may use the rows with
        ``resolved_at <= as_of`` only, which are the first ones.

        Raises
        ------
        RegistryCorrupt
            If a row's features are not what `names` promises; the message names the pattern.
        """
        columns = ("pattern_id", "symbol", "timeframe", "side", "known_at", "resolved_at", "r_multiple")
        query = (
            sa.select(
                *(_PATTERNS[name] for name in columns),
                _PATTERNS.ml_confidence,
                (_RESULT == "win").label("is_win"),
                _PATTERNS.features_json,
            )
            .where(_PATTERNS.feature_set == feature_set, _IS_KNOWN)
            .order_by(_PATTERNS.resolved_at, _PATTERNS.pattern_id)
        )
        names = list(names)
        vectors: list[np.ndarray] = []
        kept: list[tuple[object, ...]] = []
        with self._database.read() as connection:
            for row in connection.execute(query):
                *values, features_json = row
                vectors.append(feature_vector(row.pattern_id, features_json, names))
                kept.append(tuple(values))
            ignored = connection.scalars(sa.select(_PATTERNS.pattern_id).where(_PATTERNS.user_label == "ignore"))
            return replace(known_columns(feature_set, len(names), kept, vectors), ignored=frozenset(ignored))

    def save_run(
        self,
        run: Run,
        patterns: Sequence[Pattern],
        decisions: Sequence[Decision],
        returns: Mapping[str, float | None],
        *,
        names: Sequence[str] | None = None,
    ) -> None:
        """Store a run, its patterns and its decisions: all of it or nothing.

        A pattern already registered keeps all it has; only its empty columns are filled, so a label, an outcome, a
        score or a trade's result is never erased or overwritten, and saving again changes nothing. The run's row and
        its decisions replace those of the same ``run_id``; a verdict given to the run stays, and a run that was done is not
        replaced by one that failed.

        Parameters
        ----------
        run : Run
            ``finished_at`` is also the time of creation or change of the patterns.
        patterns : sequence of Pattern
            Features must be within the range of float32, or NaN.
        decisions : sequence of Decision
            At most one for each pattern of `patterns`.
        returns : mapping of pattern_id to float, fraction
            Return after costs of the trade that followed a decision; None or absent where there was none.
        names : sequence of str, optional
            Names of the features in order; those of the catalogue by default.

        Raises
        ------
        DataError
            If the arguments contradict each other, or hold a value that cannot be stored.
        """
        now = to_datetime(run.finished_at)
        if names is None:
            names = _catalogue_names(patterns)
        _check_decisions(patterns, decisions, returns)
        pattern_rows = [{**pattern_row(item, names), "created_at": now, "updated_at": now} for item in patterns]
        row, choices = run_row(run), decision_rows(run.run_id, decisions, returns)
        with self._database.write() as connection:
            if pattern_rows:
                connection.execute(_fill(connection, list(pattern_rows[0])), pattern_rows)
            found = connection.scalar(sa.select(experiments.c.status).where(experiments.c.run_id == run.run_id))
            if found == "done" and run.status != "done":
                return
            connection.execute(sa.delete(run_decisions).where(run_decisions.c.run_id == run.run_id))
            connection.execute(_replace(connection, list(row)), row)
            if choices:
                connection.execute(sa.insert(run_decisions), choices)

    def get_pattern(self, pattern_id: str) -> dict[str, Any]:
        """One registered pattern.

        Parameters
        ----------
        pattern_id : str

        Returns
        -------
        dict
            Every column by its name, times as naive UTC datetimes; ``features`` ({name: float}, NaN where there is no
            value) and ``order`` and ``setup`` stand for ``features_json`` and ``setup_json``. ``trade_outcome`` is in percent.

        Raises
        ------
        DataError
            If there is no such pattern.
        """
        query = sa.select(ml_pattern_registry).where(_PATTERNS.pattern_id == pattern_id)
        with self._database.read() as connection:
            row = connection.execute(query).mappings().one_or_none()
            if row is not None:
                return parsed_pattern(row)
        raise DataError(
            f"pattern {pattern_id!r} is not in {self._database.name}. A pattern_id is the full id of a registered "
            "entry; `qml stats` tells what is registered."
        )

    def get_statistics(self) -> dict[str, object]:
        """What the registry holds, in counts.

        Returns
        -------
        dict
            ``n_patterns``; ``symbols``, ``timeframes``, ``pattern_types`` and ``strategies`` (counts by value);
            ``labels`` (counts by hand-given label); ``n_resolved`` and ``n_open``; ``barrier_win_share`` (wins among known
            results, 0..1, None if there is none); ``first_detection`` and ``last_detection`` (naive UTC, None if
            empty); ``n_runs``; ``runs`` (counts by status); ``last_run`` (as in `get_runs`, None if there is none).
        """
        with self._database.read() as connection:
            total, resolved, first, last = connection.execute(
                sa.select(
                    sa.func.count(),
                    sa.func.count(_PATTERNS.resolved_at),
                    sa.func.min(_PATTERNS.detection_time),
                    sa.func.max(_PATTERNS.detection_time),
                ).select_from(ml_pattern_registry)
            ).one()
            results = _counts(connection, _RESULT, _IS_KNOWN)
            runs = _counts(connection, experiments.c.status)
            n_known = sum(results.values())
            return {
                "n_patterns": total,
                "symbols": _counts(connection, _PATTERNS.symbol),
                "timeframes": _counts(connection, _PATTERNS.timeframe),
                "pattern_types": _counts(connection, _PATTERNS.pattern_type),
                "strategies": _counts(connection, _PATTERNS.strategy),
                "labels": _counts(connection, _PATTERNS.user_label, _PATTERNS.user_label.is_not(None)),
                "n_resolved": resolved,
                "n_open": total - resolved,
                "barrier_win_share": results.get("win", 0) / n_known if n_known else None,
                "first_detection": first,
                "last_detection": last,
                "n_runs": sum(runs.values()),
                "runs": runs,
                "last_run": next(_newest_runs(connection, 1), None),
            }

    def get_runs(self, limit: int = 50) -> list[dict[str, object]]:
        """The runs that finished last, newest first.

        Parameters
        ----------
        limit : int, default=50
            At most so many, at least 1.

        Returns
        -------
        list of dict
            Every column of ``experiments`` by its name, times as naive UTC datetimes; ``params``, ``versions`` and
            ``metrics`` stand for the JSON columns.

        Raises
        ------
        DataError
            If `limit` is less than 1.
        """
        if limit < 1:
            raise DataError(f"limit is {limit!r}. Ask for at least 1 run.")
        with self._database.read() as connection:
            return list(_newest_runs(connection, limit))


def _catalogue_names(patterns: Sequence[Pattern]) -> list[str]:
    """Names of the catalogue's features, after making sure that the patterns follow this very catalogue."""
    # Only here is the catalogue needed.
    from qml_plugin.features import CATALOGUE

    for pattern in patterns:
        if pattern.feature_set != CATALOGUE.feature_set:
            raise DataError(
                f"pattern {pattern.pattern_id} follows the feature set {pattern.feature_set}, the catalogue is "
                f"{CATALOGUE.feature_set}. Pass names= for the features of another catalogue."
            )
    return list(CATALOGUE.names)


def _check_decisions(
    patterns: Sequence[Pattern], decisions: Sequence[Decision], returns: Mapping[str, float | None]
) -> None:
    """Refuse patterns of two feature sets, decisions without a pattern, and returns without a decision."""
    if len(sets := {pattern.feature_set for pattern in patterns}) > 1:
        raise DataError(f"the patterns follow {len(sets)} feature sets. Those of one run must follow one.")
    registered = {pattern.pattern_id for pattern in patterns}
    decided: set[str] = set()
    for decision in decisions:
        if decision.pattern_id not in registered:
            raise DataError(f"a decision names pattern {decision.pattern_id}, which is not among the run's patterns.")
        if decision.pattern_id in decided:
            raise DataError(f"pattern {decision.pattern_id} has two decisions in one run. Each pattern has one.")
        decided.add(decision.pattern_id)
    if stray := sorted(returns.keys() - decided):
        raise DataError(f"a return is given for pattern {stray[0]}, which has no decision in this run.")


def _insert(connection: sa.Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """The database's own INSERT, which knows ON CONFLICT."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def _fill(connection: sa.Connection, names: list[str]) -> sqlite.Insert | postgresql.Insert:
    """Insert patterns; of one already there, fill the empty columns and leave the row alone if there are none.

    Features of another catalogue are replaced as a whole: they are computed, not observed, and a row that kept the
    old ones could never be compared with a new one.
    """
    statement = _insert(connection, ml_pattern_registry)
    new = statement.excluded
    fillable = [name for name in names if _PATTERNS[name].nullable]
    is_other_catalogue = _PATTERNS.feature_set != new.feature_set
    computed = {
        name: sa.case((is_other_catalogue, new[name]), else_=_PATTERNS[name])
        for name in ("features_json", "feature_set")
    }
    return statement.on_conflict_do_update(
        index_elements=[_PATTERNS.pattern_id],
        set_={name: sa.func.coalesce(_PATTERNS[name], new[name]) for name in fillable}
        | computed
        | {"updated_at": new.updated_at},
        where=sa.or_(
            is_other_catalogue, *(sa.and_(_PATTERNS[name].is_(None), new[name].is_not(None)) for name in fillable)
        ),
    )


def _replace(connection: sa.Connection, names: list[str]) -> sqlite.Insert | postgresql.Insert:
    """Insert a run, or write it over the row of the same id."""
    statement = _insert(connection, experiments)
    return statement.on_conflict_do_update(
        index_elements=[experiments.c.run_id],
        set_={name: statement.excluded[name] for name in names if name != "run_id"},
    )


def _counts(
    connection: sa.Connection, value: sa.ColumnElement[object], condition: sa.ColumnElement[bool] | None = None
) -> dict[object, int]:
    """Rows by value, sorted by value."""
    query = sa.select(value.label("value"), sa.func.count()).group_by("value").order_by("value")
    if condition is not None:
        query = query.where(condition)
    return {row[0]: row[1] for row in connection.execute(query)}


def _newest_runs(connection: sa.Connection, limit: int) -> Iterator[Row]:
    query = sa.select(experiments).order_by(experiments.c.finished_at.desc(), experiments.c.run_id).limit(limit)
    return (parsed_run(row) for row in connection.execute(query).mappings())
