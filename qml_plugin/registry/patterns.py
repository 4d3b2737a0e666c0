"""PatternRegistry: the calls by which people and their own programs register, label, ask and train."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from qml_plugin.clock import canonical_timeframe, from_datetime, isoformat, to_datetime
from qml_plugin.errors import DataError
from qml_plugin.records import IntArray, KnownPatterns
from qml_plugin.registry import feature_sets
from qml_plugin.registry.given import feature_vector_of, given_pattern, moment
from qml_plugin.registry.known import IS_KNOWN, known_of, training_columns
from qml_plugin.registry.models import ModelStore
from qml_plugin.registry.registering import change_rows, register
from qml_plugin.registry.rows import parsed_pattern, pattern_rows
from qml_plugin.registry.run_rows import Row
from qml_plugin.registry.schema import ml_pattern_registry
from qml_plugin.registry.store import RunStore

_PATTERNS = ml_pattern_registry.c
_LABELS = ("win", "loss", "ignore")
MIN_LABELS = 30
_FILTERS = ("symbol", "timeframe", "pattern_type", "strategy", "side")


class PatternRegistry(RunStore, ModelStore):
    """A database of registered patterns, runs, decisions and models.

    A new file is created with its tables, and so are the folders above it. Nothing is held open between calls: an
    object on a file may be pickled, and used after a fork or from several threads.

    Parameters
    ----------
    url : str
        ``sqlite:///relative/path.db``, ``sqlite:////absolute/path.db``, ``sqlite://`` for a database in memory that
        belongs to this object alone and cannot be pickled, or ``postgresql+psycopg://user:password@host/database``;
        ``?options=-csearch_path%3Dname`` at its end chooses a schema there.
    busy_timeout_s : float, seconds, default=20.0
        How long a call waits for another process's lock.
    create : bool, default=True
        Whether a file that does not exist, or is empty, is made a registry; False is for those who only read.

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
        If the URL is not understood, or the database cannot be opened, read or written.
    MissingExtra
        If the URL is PostgreSQL's and its driver is not installed.

    Examples
    --------
    >>> registry = PatternRegistry("sqlite://")
    >>> pattern_id = registry.register_pattern(
    ...     {
    ...         "symbol": "BTC/USDT", "timeframe": "4h", "pattern_type": "bullish_qml",
    ...         "detection_time": "2024-03-31 12:00", "detection_idx": 120, "entry_price": 100.0, "stop_loss": 95.0,
    ...         "take_profit": 110.0, "left_shoulder_price": 99.0, "left_shoulder_idx": 90, "head_price": 96.0,
    ...         "head_idx": 102, "right_shoulder_price": 100.0, "right_shoulder_idx": 120, "validity_score": 0.8,
    ...     },
    ...     {"ctx_rsi_14": 31.5},
    ... )
    >>> registry.label_pattern(pattern_id, "win", outcome=2.5)
    True
    >>> registry.get_pattern(pattern_id)["user_label"]
    'win'
    """  # fmt: skip

    def register_pattern(
        self, pattern_data: Mapping[str, Any], features: Mapping[str, Any], ml_confidence: float | None = None
    ) -> str:
        """Register one pattern described by a dictionary, and commit it.

        One that is registered already keeps all it has; what was empty is filled, and a warning tells of what differs.

        Parameters
        ----------
        pattern_data : mapping
            ``symbol``, ``timeframe`` (``"4h"``), ``pattern_type``; ``detection_time`` (stamp of the decision bar, its open;
            UTC where it names no zone), ``detection_idx`` (its position in the series); ``entry_price``, ``stop_loss``,
            ``take_profit``, which say the side; ``left_shoulder_price``, ``left_shoulder_idx``, ``head_price``, ``head_idx``,
            ``right_shoulder_price``, ``right_shoulder_idx`` (all six, or all None); ``validity_score`` (or None). All must be
            there; ``strategy`` may be (``"manual"`` by default), and nothing else.
        features : mapping of str to float
            Features of the catalogue by name; None, NaN, or one left out is missing.
        ml_confidence : float, 0..1, optional

        Returns
        -------
        str
            The ``pattern_id``: the same for the same description.

        Raises
        ------
        DataError
            If a key or a feature is missing, unknown or wrong; the message names it.
        """
        feature_set, versions = feature_sets.catalogue()
        names = list(versions)
        pattern = given_pattern(pattern_data, features, ml_confidence, feature_set, names)
        rows, now = pattern_rows([pattern], names), _now()
        pattern_id = str(rows[0]["pattern_id"])
        described = sa.select(_PATTERNS.setup_json, _PATTERNS.features_json).where(_PATTERNS.pattern_id == pattern_id)
        with self._database.write() as connection:
            feature_sets.record(connection, feature_set, versions, now)
            was_there = register(connection, rows, now)
            kept = connection.execute(described).one() if was_there else None
        if kept is not None and tuple(kept) != (rows[0]["setup_json"], rows[0]["features_json"]):
            warnings.warn(
                f"pattern {pattern_id} was registered before with another description, which stays: its order, geometry and "
                "features are those of the first time. Give a pattern that is another one its own stop, target or strategy.",
                UserWarning,
                stacklevel=2,
            )
        return pattern_id

    def label_pattern(self, pattern_id: str, label: str | None, outcome: float | None = None) -> bool:
        """Label a pattern by hand. The label wins over the barrier's outcome.

        Parameters
        ----------
        pattern_id : str
        label : {"win", "loss", "ignore"} or None
            ``"ignore"`` keeps the pattern out of everything that learns; None takes a label back.
        outcome : float, percent, optional
            Result of the trade for ``trade_outcome``: 2.5 is +2.5 %. None leaves what is there.

        Returns
        -------
        bool
            True if the label is stored, False if there is no such pattern.

        Point in time
        -------------
        A pattern whose barriers have not resolved it becomes known now, when it is labelled, and no question as of an
        earlier time sees the label, until a run resolves its barriers. From then on, as for a pattern that they had
        resolved already, the label stands for the outcome as of the moment the barriers were touched: it is your word
        against the rule's, given with hindsight, and it does change what a question about the past is told.

        Raises
        ------
        DataError
            If the label or the outcome is not one.
        """
        return self._change(pattern_id, {"user_label": _label(label), **_outcome(outcome)})

    def replace_label(
        self,
        pattern_id: str,
        label: str | None,
        outcome: float | None,
        *,
        seen: tuple[str | None, float | None],
    ) -> bool:
        """Put label and outcome in the place of those that were seen; the same call the other way round undoes it.

        Parameters
        ----------
        pattern_id : str
        label : {"win", "loss", "ignore"} or None
            As for `label_pattern`.
        outcome : float, percent, or None
            The ``trade_outcome`` to be there afterwards; None leaves none.
        seen : (label, outcome)
            ``user_label`` and ``trade_outcome`` that the caller believes to be there.

        Returns
        -------
        bool
            True if it is stored; False, and nothing was changed, if the pattern is not there or no longer as seen.

        Point in time
        -------------
        As for `label_pattern`. Going back to no label also takes back the time at which a label had made the pattern
        known, unless its barriers have resolved it.

        Raises
        ------
        DataError
            If the label or the outcome is not one.
        """
        change: Row = {"user_label": _label(label), "trade_outcome": None} | _outcome(outcome)
        return self._change(pattern_id, change, seen={"user_label": seen[0], "trade_outcome": seen[1]})

    def update_trade_status(
        self,
        pattern_id: str,
        paper_traded: bool | None = None,
        live_traded: bool | None = None,
        outcome: float | None = None,
    ) -> bool:
        """Note that a pattern was traded, and with which result.

        Parameters
        ----------
        pattern_id : str
        paper_traded, live_traded : bool, optional
            None leaves what is there.
        outcome : float, percent, optional
            Result of the trade for ``trade_outcome``: 2.5 is +2.5 %. None leaves what is there.

        Returns
        -------
        bool
            True if the pattern is there, False if not.

        Raises
        ------
        DataError
            If a value is of the wrong kind.
        """
        change: Row = {}
        for name, value in (("paper_traded", paper_traded), ("live_traded", live_traded)):
            if value is not None and not isinstance(value, (bool, np.bool_)):
                raise DataError(f"{name} is {value!r}. It must be True or False, or None to leave what is there.")
            if value is not None:
                change[name] = bool(value)
        return self._change(pattern_id, change | _outcome(outcome))

    def get_training_data(
        self, min_labels: int = MIN_LABELS, as_of: datetime | str | int | None = None
    ) -> tuple[pd.DataFrame, IntArray]:
        """Features and results of the patterns of this version's features whose result is known.

        Parameters
        ----------
        min_labels : int, default=30
            Fewer than this are refused.
        as_of : datetime, str or int, optional
            Only results known then. None is all that the registry knows now: do not judge a model on patterns that it
            was trained on, nor on entries older than ``X.attrs["trained_through"]``.

        Returns
        -------
        X : DataFrame of shape (n_patterns, n_features), float32
            Columns in catalogue order, index ``pattern_id``, rows ordered by ``resolved_at``; NaN is missing.
            ``X.attrs`` holds ``feature_set``, ``trained_through`` (last ``resolved_at``, naive UTC) and ``rows`` (a
            `TrainingRows`: symbol, timeframe, strategy and label interval of each row).
        y : ndarray of shape (n_patterns,), int64
            1 is a win, 0 a loss. A label given by hand decides, else the barrier's outcome; ``"ignore"`` leaves out.

        Point in time
        -------------
        Uses patterns with ``resolved_at <= as_of`` only. Without `as_of`, a warning tells of results that lie in the
        future of the clock of this machine.

        Raises
        ------
        DataError
            If there are fewer than `min_labels`; the message says how many are missing and how to get them.
        """
        _at_least_one("min_labels", min_labels)
        feature_set, versions = feature_sets.catalogue()
        until = None if as_of is None else to_datetime(moment(as_of, "as_of"))
        with self._database.read() as connection:
            rows, features, wins = training_columns(connection, feature_set, versions, until)
            if len(wins) < min_labels:
                raise DataError(self._too_few(connection, feature_set, len(wins), min_labels, until))
        last = to_datetime(rows.resolved_at[-1])
        if until is None and last > _now():
            warnings.warn(
                f"the last result became known at {last:%Y-%m-%d %H:%M}, later than now: asked without as_of, the training "
                "data hold results from the future. Pass as_of=.",
                UserWarning,
                stacklevel=2,
            )
        index = pd.Index(rows.pattern_id, name="pattern_id", dtype=object)
        X = pd.DataFrame(features, index=index, columns=list(versions))
        X.attrs.update(feature_set=feature_set, trained_through=last, rows=rows)
        return X, wins

    def find_similar_patterns(
        self,
        current_features: Mapping[str, Any],
        n: int = 5,
        as_of: datetime | str | int | None = None,
        **filters: Any,
    ) -> list[dict[str, Any]]:
        """The past patterns most like a market that is described by its features.

        Parameters
        ----------
        current_features : mapping of str to float
            Features of the catalogue by name; one left out is missing.
        n : int, default=5
            At most so many.
        as_of : datetime, str or int, optional
            The moment of the question. None is now; if the features are those of a registered pattern, a warning tells
            that results from after that pattern were seen.
        **filters
            ``symbol``, ``timeframe``, ``pattern_type``, ``strategy``, ``side`` (+1 or -1). They choose the candidates before
            the search, so `n` of them are found where there are `n`. Without ``side``, ``geo_is_bullish`` among the features
            says it; without either, both sides are searched.

        Returns
        -------
        list of dict
            Nearest first: ``pattern_id``, ``distance`` (in scaled feature units), ``symbol``, ``timeframe``, ``pattern_type``,
            ``strategy``, ``side``, ``detection_time`` and ``resolved_at`` (naive UTC), ``outcome`` (``"win"`` or ``"loss"``),
            ``r_multiple`` (NaN where only a label is known). Empty where none is known.

        Point in time
        -------------
        Scaling and search use patterns with ``resolved_at <= as_of`` only.

        Raises
        ------
        DataError
            If a feature or a filter is not known or wrong; the message names it.
        """
        _at_least_one("n", n)
        feature_set, versions = feature_sets.catalogue()
        names = list(versions)
        vector = feature_vector_of(current_features, names).astype(np.float32)
        if not np.isfinite(vector[~np.isnan(vector)]).all():
            raise DataError("a feature is infinite or beyond the range of float32. Use None where there is no value.")
        side = filters.pop("side", None)
        conditions = _conditions(filters)
        until = from_datetime(_now()) if as_of is None else moment(as_of, "as_of")
        conditions.append(_PATTERNS.resolved_at <= to_datetime(until))
        with self._database.read() as connection:
            known = known_of(connection, feature_set, names, *conditions)
            found = _nearest(known, vector, _side(side, current_features), until, n)
            if as_of is None:
                _warn_of_later(known, vector, [int(hit["resolved_at"]) for hit in found])
            columns = ("pattern_id", *_FILTERS, "detection_time", "resolved_at")
            query = sa.select(*(_PATTERNS[name] for name in columns)).where(
                _PATTERNS.pattern_id.in_([hit["pattern_id"] for hit in found])
            )
            rows = {row["pattern_id"]: dict(row) for row in connection.execute(query).mappings()}
        return [
            {"pattern_id": hit["pattern_id"], "distance": hit["distance"]}
            | rows[hit["pattern_id"]]
            | {"outcome": hit["outcome"], "r_multiple": hit["r_multiple"]}
            for hit in found
        ]

    def get_unlabeled_patterns(self, limit: int = 50) -> list[dict[str, Any]]:
        """Patterns without a label by hand, newest first.

        Parameters
        ----------
        limit : int, default=50
            At most so many, at least 1.

        Returns
        -------
        list of dict
            Each as from `get_pattern`.
        """
        return self.get_patterns(label="none", limit=limit)

    def get_patterns(
        self,
        symbol: str | None = None,
        timeframe: str | None = None,
        pattern_type: str | None = None,
        label: str | None = None,
        min_validity: float | None = None,
        limit: int = 100,
    ) -> list[dict[str, Any]]:
        """Registered patterns, newest first.

        Parameters
        ----------
        symbol, timeframe, pattern_type : str, optional
            Only these; ``"24h"`` finds ``"1d"``.
        label : {"win", "loss", "ignore", "none"}, optional
            Label given by hand; ``"none"`` is without one.
        min_validity : float, optional
            Only patterns with at least this ``validity_score``; those without a score are left out.
        limit : int, default=100
            At most so many, at least 1.

        Returns
        -------
        list of dict
            Each as from `get_pattern`.

        Raises
        ------
        DataError
            If a filter is wrong.
        """
        _at_least_one("limit", limit)
        given = {"symbol": symbol, "timeframe": timeframe, "pattern_type": pattern_type}
        conditions = _conditions({name: value for name, value in given.items() if value is not None})
        if label is not None:
            if label not in (*_LABELS, "none"):
                raise DataError(
                    f"label is {label!r}. Ask for 'win', 'loss', 'ignore', or 'none' for those without one."
                )
            conditions.append(_PATTERNS.user_label.is_(None) if label == "none" else _PATTERNS.user_label == label)
        if min_validity is not None:
            conditions.append(_PATTERNS.validity_score >= _finite("min_validity", min_validity))
        query = (
            sa.select(ml_pattern_registry)
            .where(*conditions)
            .order_by(_PATTERNS.detection_time.desc(), _PATTERNS.pattern_id)
            .limit(limit)
        )
        with self._database.read() as connection:
            return [parsed_pattern(row) for row in connection.execute(query).mappings()]

    def count_unlabeled(self, symbol: str | None = None, timeframe: str | None = None) -> int:
        """How many patterns have no label by hand.

        Parameters
        ----------
        symbol, timeframe : str, optional
            Only these, as for `get_patterns`.

        Returns
        -------
        int
        """
        given = {"symbol": symbol, "timeframe": timeframe}
        conditions = _conditions({name: value for name, value in given.items() if value is not None})
        query = sa.select(sa.func.count()).where(_PATTERNS.user_label.is_(None), *conditions)
        with self._database.read() as connection:
            return int(connection.scalar(query) or 0)

    def _change(self, pattern_id: str, change: Row, seen: Row | None = None) -> bool:
        """Write changed columns of one pattern; False if it is not there, or not as it was seen."""
        if not isinstance(pattern_id, str):
            return False
        now = _now()
        looked_at = (
            "user_label", "barrier_outcome", "resolved_at", "trade_outcome", "paper_traded", "live_traded", "known_at",
        )  # fmt: skip
        query = sa.select(*(_PATTERNS[name] for name in looked_at)).where(_PATTERNS.pattern_id == pattern_id)
        with self._database.write() as connection:
            old = connection.execute(query).mappings().one_or_none()
            if old is None or any(old[name] != value for name, value in (seen or {}).items()):
                return False
            if change.get("user_label") in ("win", "loss") and old["resolved_at"] is None:
                # The clock of this machine may be behind the bars; no result is known before its entry.
                change["resolved_at"] = max(now, old["known_at"])
            if "user_label" in change and change["user_label"] is None and old["barrier_outcome"] is None:
                change["resolved_at"] = None
            changed = {name: value for name, value in change.items() if value != old[name]}
            if changed:
                change_rows(connection, {pattern_id: changed}, now)
        return True

    def _too_few(
        self, connection: sa.Connection, feature_set: str, n_found: int, min_labels: int, until: datetime | None
    ) -> str:
        """How many results are missing, and what can be done about it."""
        others = sa.select(sa.func.count()).where(_PATTERNS.feature_set != feature_set, IS_KNOWN)
        n_open = sa.select(sa.func.count()).where(
            _PATTERNS.feature_set == feature_set, ~sa.func.coalesce(IS_KNOWN, False)
        )
        when = "" if until is None else f" as of {isoformat(from_datetime(until))}"
        return (
            f"{n_found} patterns have a known result{when}, {min_labels} are asked for: {min_labels - n_found} are missing. "
            "Run backtests with this registry (mode='record' resolves entries by their barriers), label some of the "
            f"{connection.scalar(n_open)} patterns without a result by hand (label_pattern), or ask for fewer. "
            f"{connection.scalar(others)} results belong to other feature sets and do not count."
        )


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def _at_least_one(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise DataError(f"{name} is {value!r}. Ask for at least 1.")


def _finite(name: str, value: object) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float, np.integer, np.floating))
        or not np.isfinite(value)
    ):
        raise DataError(f"{name} is {value!r}. It must be a finite number.")
    return float(value) + 0.0


def _label(label: str | None) -> str | None:
    if label is not None and label not in _LABELS:
        raise DataError(f"label is {label!r}. It must be 'win', 'loss' or 'ignore', or None to take one back.")
    return label


def _outcome(outcome: float | None) -> Row:
    return {} if outcome is None else {"trade_outcome": _finite("outcome", outcome)}


def _conditions(filters: Mapping[str, Any]) -> list[sa.ColumnElement[bool]]:
    """Conditions on columns of text; a timeframe is found under its usual spelling too."""
    conditions: list[sa.ColumnElement[bool]] = []
    for name, value in filters.items():
        if name not in _FILTERS:
            raise DataError(f"filter {name!r} is not known. Filter by {', '.join(_FILTERS)}.")
        if not isinstance(value, str):
            raise DataError(f"filter {name!r} is {value!r}. It must be a text.")
        spellings = {value, canonical_timeframe(value)} if name == "timeframe" else {value}
        conditions.append(_PATTERNS[name].in_(sorted(spellings)))
    return conditions


def _side(side: object, features: Mapping[str, Any]) -> int | None:
    """The side asked for, else that of the features, else None."""
    if side is not None:
        if isinstance(side, bool) or side not in (1, -1):
            raise DataError(f"filter 'side' is {side!r}. It must be +1 (long) or -1 (short).")
        return int(side)
    said = features.get("geo_is_bullish")
    return {1.0: 1, 0.0: -1}.get(float(said)) if said is not None else None


def _nearest(known: KnownPatterns, vector: np.ndarray, side: int | None, until: int, n: int) -> list[dict[str, Any]]:
    """The search itself; of both sides where none is said."""
    # Here, because it loads the search library.
    from qml_plugin.features import CATALOGUE
    from qml_plugin.retrieval.similar import similar_patterns

    if side is None:
        known, side = replace(known, side=np.ones(len(known), np.int8)), 1
    groups = [feature.category for feature in CATALOGUE]
    hits = similar_patterns(known, vector, groups, side=side, as_of=until, k=n)
    return [
        {
            "pattern_id": hit.pattern_id,
            "distance": hit.distance,
            "resolved_at": hit.resolved_at,
            "outcome": "win" if hit.is_win else "loss",
            "r_multiple": hit.r_multiple,
        }
        for hit in hits
    ]


def _warn_of_later(known: KnownPatterns, vector: np.ndarray, resolved_at: list[int]) -> None:
    """Warn if the question is about a registered pattern, and neighbours became known after it."""
    is_same = ((known.features == vector) | (np.isnan(known.features) & np.isnan(vector))).all(axis=1)
    if not is_same.any():
        return
    asked_at = int(known.known_at[is_same].min())
    if later := sum(at > asked_at for at in resolved_at):
        warnings.warn(
            f"these are the features of a pattern known at {isoformat(asked_at)}, and {later} of the {len(resolved_at)} "
            "neighbours became known only after it. Pass as_of= to see what was known then.",
            UserWarning,
            stacklevel=3,
        )
