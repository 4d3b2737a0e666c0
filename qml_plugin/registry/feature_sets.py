"""Which features a stored vector holds, in which order and of which version."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from itertools import zip_longest
from typing import Any

import orjson
import sqlalchemy as sa

from qml_plugin.errors import DataError, RegistryCorrupt
from qml_plugin.registry.schema import feature_sets

Versions = Mapping[str, str | None]


def catalogue() -> tuple[str, Versions]:
    """Hash of the catalogue of this version, and the version of each of its features in order."""
    # Only here is the catalogue needed, and importing it takes time.
    from qml_plugin.features import CATALOGUE

    return CATALOGUE.feature_set, CATALOGUE.versions


def record(connection: sa.Connection, feature_set: str, versions: Versions, now: datetime) -> None:
    """Keep the features of a set; versions that were not known before are filled in.

    Raises
    ------
    DataError
        If the set is there with other features, in another order or of other versions.
    """
    text = orjson.dumps(dict(versions)).decode()
    stored = connection.scalar(_text_of(feature_set))
    if stored == text:
        return
    if stored is None:
        connection.execute(sa.insert(feature_sets).values(feature_set=feature_set, versions_json=text, created_at=now))
        return
    found = _parsed(feature_set, stored)
    if list(found) != list(versions):
        raise DataError(
            f"feature set {feature_set} is registered with other names or another order than those given, beginning "
            f"with {_first_difference(list(found), list(versions))}. One set stands for one list of features."
        )
    merged = {name: known if known is not None else versions[name] for name, known in found.items()}
    if changed := [name for name in versions if versions[name] not in (None, merged[name])]:
        raise DataError(
            f"feature {changed[0]!r} of feature set {feature_set} has another version than the one registered. "
            "Another version of a feature belongs to another set."
        )
    if merged != found:
        connection.execute(
            sa.update(feature_sets)
            .where(feature_sets.c.feature_set == feature_set)
            .values(versions_json=orjson.dumps(merged).decode())
        )


def versions_of(connection: sa.Connection, feature_set: str) -> dict[str, str | None] | None:
    """{name: version} in the order of the columns, None for a set that is not registered."""
    text = connection.scalar(_text_of(feature_set))
    return None if text is None else _parsed(feature_set, text)


def _text_of(feature_set: str) -> sa.Select[Any]:
    return sa.select(feature_sets.c.versions_json).where(feature_sets.c.feature_set == feature_set)


def _parsed(feature_set: str, text: str) -> dict[str, str | None]:
    try:
        versions = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _damaged(feature_set, f"no JSON: {error}") from error
    if not isinstance(versions, dict):
        raise _damaged(feature_set, f"a {type(versions).__name__}")
    return versions


def _first_difference(one: list[str], other: list[str]) -> str:
    pairs = zip_longest(one, other, fillvalue="nothing")
    return next(f"{ours!r} against {theirs!r}" for ours, theirs in pairs if ours != theirs)


def _damaged(feature_set: str, what: str) -> RegistryCorrupt:
    return RegistryCorrupt(
        f"versions_json of feature set {feature_set} is {what}. It must be an object of the set's features in order; "
        "restore a copy."
    )
