"""Ids of patterns as people give them: by their first characters."""

from __future__ import annotations

import sqlalchemy as sa

from qml_plugin.errors import DataError
from qml_plugin.registry.patterns import PatternRegistry
from qml_plugin.registry.schema import ml_pattern_registry

_LONGEST_ID = 200
_ID = ml_pattern_registry.c.pattern_id


def whole_pattern_id(registry: PatternRegistry, beginning: str) -> str:
    """The id of the one pattern whose id begins so; what was given where there is none.

    Raises
    ------
    DataError
        If several ids begin so, and none is just that.
    """
    if not beginning or not beginning.isprintable() or len(beginning) > _LONGEST_ID:
        return beginning
    query = sa.select(_ID).where(_ID.between(beginning, beginning + "\U0010ffff")).order_by(_ID).limit(3)
    with registry._database.read() as connection:
        found = list(connection.scalars(query))  # an id that is just that comes first
    if len(found) > 1 and found[0] != beginning:
        raise DataError(
            f"pattern {beginning!r} is not one pattern: {', '.join(found)} … begin so. Give more of the id."
        )
    return found[0] if found else beginning
