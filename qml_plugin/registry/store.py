"""RunStore: what a run learns goes in as one transaction and comes out as columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from qml_plugin.bars import Bars
from qml_plugin.clock import from_datetime, to_datetime
from qml_plugin.errors import DataError
from qml_plugin.records import Decision, KnownPatterns, Pattern, Run
from qml_plugin.registry import feature_sets, kept_bars
from qml_plugin.registry.connection import open_database
from qml_plugin.registry.known import IS_KNOWN, RESULT, PatternFacts, Snapshot, facts_of, known_of
from qml_plugin.registry.ledger import RunLedger, close_run, newest_runs
from qml_plugin.registry.migrations import ensure_current
from qml_plugin.registry.registering import last_seq, register
from qml_plugin.registry.rows import parsed_pattern, pattern_rows
from qml_plugin.registry.run_rows import decision_rows, run_row
from qml_plugin.registry.schema import experiments, ml_pattern_registry
from qml_plugin.registry.vectors import KeptVectors

_PATTERNS = ml_pattern_registry.c
_MOST_AT_ONCE = 500


class RunStore(RunLedger):
    """What a run reads and leaves; part of `PatternRegistry`, which says what its arguments are and what it raises."""

    def __init__(self, url: str, *, busy_timeout_s: float = 20.0, create: bool = True) -> None:
        self._database = open_database(url, busy_timeout_s)
        ensure_current(self._database, create=create)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    @property
    def url(self) -> str:
        """The URL it was opened with."""
        return self._database.url

    @property
    def shown_url(self) -> str:
        """The URL as it may be shown: without a password, and with the whole path of a file."""
        return self._database.name if self.file is None else f"sqlite:///{self.file}"

    @property
    def file(self) -> Path | None:
        """The file of the database; None where it is on a server or in memory."""
        return self._database.path

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Make many small commits fast, for as long as a ``with`` block lasts: for live use.

        Elsewhere every call leaves one complete file behind, which takes some milliseconds. Inside the block the newest
        rows stand in the log beside the file, as safe from a killed process as ever, and a plain copy of the file is
        without them. A fork ends it.
        """
        with self._database.kept_open():
            yield

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
        return self.read_snapshot(feature_set, names)[0]

    def pattern_facts(self, feature_set: str) -> dict[str, PatternFacts]:
        """Market, kind, strategy and time of every pattern of one feature set, known or not, by ``pattern_id``.

        Parameters
        ----------
        feature_set : str
            Hash of the catalogue.

        Returns
        -------
        dict of str to PatternFacts

        Point in time
        -------------
        Nothing in it came to be known after the decision; which patterns there are is of now.
        """
        with self._database.read() as connection:
            return facts_of(connection, feature_set)

    def feature_sets(self) -> dict[str, tuple[int, dict[str, str | None]]]:
        """Of each feature set that resolved patterns follow: their number, and its features with their versions.

        Raises
        ------
        RegistryCorrupt
            If what is kept of a set is damaged.
        """
        counts = sa.select(_PATTERNS.feature_set, sa.func.count()).where(IS_KNOWN).group_by(_PATTERNS.feature_set)
        with self._database.read() as connection:
            found = connection.execute(counts.order_by(_PATTERNS.feature_set)).all()
            return {name: (n, feature_sets.versions_of(connection, name) or {}) for name, n in found}

    def read_snapshot(
        self, feature_set: str, names: Sequence[str], *, through_seq: int | None = None
    ) -> tuple[KnownPatterns, Snapshot]:
        """The known patterns, and what identifies this very set of them.

        Parameters
        ----------
        feature_set : str
        names : sequence of str, shape (n_features,)
            As for `known_patterns`.
        through_seq : int, optional
            Leave out results and scores that came with a later commit than this one: the ``seq`` of an earlier snapshot.

        Returns
        -------
        (KnownPatterns, Snapshot)
            The same set has the same ``sha256``; one that was relabelled, or lost a row, has another.

        Point in time
        -------------
        As for `known_patterns`: of all that is in the registry, or was when that commit was made.
        """
        with self._database.read() as connection:
            kept = KeptVectors.beside(self._database.path, feature_set) if through_seq is None else None
            known = known_of(connection, feature_set, list(names), kept=kept, through_seq=through_seq)
            seq = last_seq(connection) if through_seq is None else through_seq
        return known, Snapshot.of(known, seq)

    def save_run(
        self,
        run: Run,
        patterns: Sequence[Pattern],
        decisions: Sequence[Decision],
        returns: Mapping[str, float | None],
        *,
        names: Sequence[str] | None = None,
        bars: Bars | None = None,
        tz: str | None = None,
    ) -> None:
        """Store a run, its patterns and its decisions: all of it or nothing.

        A pattern already registered keeps all it has; only its empty columns are filled, so a label, an outcome, a
        score or a trade's result is never erased or overwritten, and saving again changes nothing. The run's row and
        its decisions replace those of the same ``run_id``; a verdict given to the run stays, and a run that finished is not
        replaced by one that did not.

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
        bars : Bars, optional
            What the run saw, kept once for all runs on it so that it can be run again and drawn.
        tz : str, optional
            Time zone of the stamps that the host was given; None for stamps without one.

        Raises
        ------
        DataError
            If the arguments contradict each other, or hold a value that cannot be stored.
        """
        if run.status == "running" or run.finished_at is None:
            raise DataError(
                f"run {run.run_id} is {run.status}. `start_run` records a run that begins; here it has ended."
            )
        now = to_datetime(run.finished_at)
        versions = _catalogue_versions(patterns) if names is None else dict.fromkeys(names)
        names = list(versions)
        rows = pattern_rows(patterns, names)
        _check_decisions(patterns, {str(row["pattern_id"]) for row in rows}, decisions, returns)
        row, choices = run_row(run), decision_rows(run.run_id, decisions, returns)
        with self._database.write() as connection:
            if bars is not None:
                kept_bars.keep(connection, bars, run.data_hash, tz, now)
            if rows:
                feature_sets.record(connection, patterns[0].feature_set, versions, now)
                register(connection, rows, now)
            close_run(connection, run, row, choices)

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
        query = sa.select(ml_pattern_registry).where(_PATTERNS.pattern_id == str(pattern_id))
        with self._database.read() as connection:
            row = connection.execute(query).mappings().one_or_none()
            if row is not None:
                return parsed_pattern(row)
        raise DataError(
            f"pattern {pattern_id!r} is not in {self._database.name}. A pattern_id is the full id of a registered "
            "entry; `qml stats` tells what is registered."
        )

    def patterns_by_id(self, pattern_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Those of the patterns that are registered, by their id, each as from `get_pattern`.

        Parameters
        ----------
        pattern_ids : sequence of str

        Returns
        -------
        dict of str to dict
        """
        found: dict[str, dict[str, Any]] = {}
        with self._database.read() as connection:
            for first in range(0, len(pattern_ids), _MOST_AT_ONCE):
                some = list(pattern_ids[first : first + _MOST_AT_ONCE])
                query = sa.select(ml_pattern_registry).where(_PATTERNS.pattern_id.in_(some))
                found |= {row["pattern_id"]: parsed_pattern(row) for row in connection.execute(query).mappings()}
        return found

    def bars_of(self, pattern_id: str) -> tuple[Bars, int] | None:
        """The bars around a pattern: those that a run on its market saw.

        Parameters
        ----------
        pattern_id : str

        Returns
        -------
        (Bars, int) or None
            The longest series kept of its symbol and timeframe that holds its decision bar, and that bar's position.
            None where no run kept one.

        Point in time
        -------------
        The series goes on after the pattern: it is for pictures and for running again, never for a decision.

        Raises
        ------
        DataError
            If there is no such pattern.
        RegistryCorrupt
            If the bars are not as they were stored.
        """
        pattern = self.get_pattern(pattern_id)
        moment = pattern["detection_time"]
        with self._database.read() as connection:
            bars = kept_bars.covering(connection, pattern["symbol"], pattern["timeframe"], moment)
        if bars is None:
            return None
        bar = int(np.searchsorted(bars.opened_at, from_datetime(moment)))
        is_there = bar < len(bars) and bars.opened_at[bar] == from_datetime(moment)
        return (bars, bar) if is_there else None

    def bars_under(self, data_hash: str) -> tuple[Bars, str | None] | None:
        """The bars that runs of this ``data_hash`` saw, and the time zone of their stamps; None where none are kept.

        Parameters
        ----------
        data_hash : str

        Raises
        ------
        RegistryCorrupt
            If the bars are not as they were stored.
        """
        with self._database.read() as connection:
            return kept_bars.kept(connection, data_hash)

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
            results = _counts(connection, RESULT, IS_KNOWN)
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
                "last_run": next(newest_runs(connection, 1), None),
            }


def _catalogue_versions(patterns: Sequence[Pattern]) -> feature_sets.Versions:
    """Names and versions of the catalogue, after making sure that the patterns follow this very catalogue."""
    feature_set, versions = feature_sets.catalogue()
    for pattern in patterns:
        if pattern.feature_set != feature_set:
            raise DataError(
                f"pattern {pattern.pattern_id} follows the feature set {pattern.feature_set}, the catalogue is "
                f"{feature_set}. Pass names= for the features of another catalogue."
            )
    return versions


def _check_decisions(
    patterns: Sequence[Pattern],
    registered: set[str],
    decisions: Sequence[Decision],
    returns: Mapping[str, float | None],
) -> None:
    """Refuse patterns of two feature sets, decisions without a pattern, and returns without a decision."""
    if len(sets := {pattern.feature_set for pattern in patterns}) > 1:
        raise DataError(f"the patterns follow {len(sets)} feature sets. Those of one run must follow one.")
    decided: set[str] = set()
    for decision in decisions:
        if decision.pattern_id not in registered:
            raise DataError(f"a decision names pattern {decision.pattern_id}, which is not among the run's patterns.")
        if decision.pattern_id in decided:
            raise DataError(f"pattern {decision.pattern_id} has two decisions in one run. Each pattern has one.")
        decided.add(decision.pattern_id)
    if stray := sorted(returns.keys() - decided):
        raise DataError(f"a return is given for pattern {stray[0]}, which has no decision in this run.")


def _counts(
    connection: sa.Connection, value: sa.ColumnElement[object], condition: sa.ColumnElement[bool] | None = None
) -> dict[object, int]:
    """Rows by value, sorted by value."""
    query = sa.select(value.label("value"), sa.func.count()).group_by("value").order_by("value")
    if condition is not None:
        query = query.where(condition)
    return {row[0]: row[1] for row in connection.execute(query)}
