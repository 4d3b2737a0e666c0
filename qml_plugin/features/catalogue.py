"""The catalogue: every feature by name, with what it means, its window, its warm-up, its source and its version.

A feature is one row of `definitions` plus its values, under the same name, in the kernel of its category's file
(features of an entry: in `entry`). Adding, renaming, reordering or redefining one, or changing the code that computes
it, changes the feature set, and features of two sets are never compared.
"""

from __future__ import annotations

import hashlib
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from qml_plugin.errors import DataError
from qml_plugin.features.definitions import TABLE
from qml_plugin.features.versions import file_sha256


@dataclass(frozen=True, slots=True)
class Feature:
    """One column: `warmup` is the first bar with a value, `window` the bars it looks at in earnest.

    From bar `warmup` on, the bars before the window no longer matter: recursions have forgotten their seed to a
    share of about 1e-11, unless prices stand still for much of the warm-up. `needs` says what the feature is computed
    from: ``"bars"``, ``"order"`` or ``"setup"``. ``category`` is explicit, as ``vol`` begins ``vol_relative`` too.
    `code` is the hash of the code that computes it, `function` what a user registered.
    """

    name: str
    category: str
    window: int
    warmup: int
    definition: str
    source: str
    needs: str
    code: str
    function: Callable[..., Any] | None = field(default=None, compare=False, repr=False)

    @property
    def version(self) -> str:
        """SHA-256 of the name, the definition, the parameters and the code."""
        text = f"{self.name}\0{self.definition}\0{self.window}\0{self.warmup}\0{self.needs}\0{self.code}"
        return hashlib.sha256(text.encode()).hexdigest()


class Catalogue(Sequence[Feature]):
    """An ordered list of features; a tuple in all but the lookups by name.

    Examples
    --------
    >>> CATALOGUE["ctx_rsi_14"].window
    14
    >>> CATALOGUE.place("ctx_rsi_14")
    2
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        self.replace(features)

    def replace(self, features: Sequence[Feature]) -> None:
        """Hold other features, for all threads at once; only the registration of user features does this."""
        versions = {feature.name: feature.version for feature in features}
        text = "\n".join(f"{name}: {version}" for name, version in versions.items())
        places = {name: place for place, name in enumerate(versions)}
        self._held = (tuple(features), places, versions, hashlib.sha256(text.encode()).hexdigest())

    @property
    def features(self) -> tuple[Feature, ...]:
        """All of them; take it once where several steps must see the same."""
        return self._held[0]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns, in order."""
        return tuple(self._held[1])

    @property
    def versions(self) -> Mapping[str, str]:
        """{name: version}, in order."""
        return self._held[2]

    @property
    def feature_set(self) -> str:
        """SHA-256 of the names and versions in order."""
        return self._held[3]

    def __len__(self) -> int:
        return len(self._held[0])

    def __iter__(self) -> Iterator[Feature]:
        return iter(self._held[0])

    @overload
    def __getitem__(self, key: int | str) -> Feature: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[Feature, ...]: ...
    def __getitem__(self, key: int | str | slice) -> Feature | tuple[Feature, ...]:
        return self._held[0][self.place(key) if isinstance(key, str) else key]

    def __repr__(self) -> str:
        return f"<Catalogue of {len(self)} features, set {self.feature_set[:12]}>"

    def place(self, name: str) -> int:
        """Column of the feature called `name`; DataError with near names if there is none."""
        places = self._held[1]
        if name not in places:
            from difflib import get_close_matches

            near = get_close_matches(name, places, n=3)
            hint = f"Did you mean {', '.join(near)}? " if near else ""
            raise DataError(f"there is no feature {name!r}. {hint}CATALOGUE and `qml features list` hold them all.")
        return places[name]


def _built_in() -> Iterator[Feature]:
    shared = file_sha256("kernels.py") + file_sha256("series.py")
    for category, rows in TABLE.items():
        for row in rows:
            own = file_sha256(f"{category}.py" if row.needs == "bars" else "entry.py")
            yield Feature(
                f"{category}_{row.name}",
                category,
                row.window,
                row.warmup,
                row.definition,
                row.source,
                row.needs,
                shared + own,
            )


CATALOGUE = Catalogue(tuple(_built_in()))
"""Every feature, in the order of the columns."""

N_BUILT_IN = len(CATALOGUE)


def columns_of(category: str) -> tuple[slice, Any]:
    """Where a category's columns lie in a row, and each one's place within them as an attribute by feature name."""
    names = [feature.name for feature in CATALOGUE[:N_BUILT_IN] if feature.category == category]
    start = CATALOGUE.place(names[0])
    return slice(start, start + len(names)), namedtuple("Columns", names)(*range(len(names)))


def difference(theirs: Mapping[str, str | None], ours: Mapping[str, str] | None = None, *, n_named: int = 5) -> str:
    """How two feature sets differ, in words: features missing, added and changed, at most `n_named` of each.

    Parameters
    ----------
    theirs, ours : mapping of feature name to version
        A version of None is not known, and so another one. `ours` is the catalogue's unless given.
    """
    ours = CATALOGUE.versions if ours is None else ours
    kinds = {
        "without": [name for name in ours if name not in theirs],
        "with unknown": [name for name in theirs if name not in ours],
        "with another version of": [name for name in ours if name in theirs and theirs[name] != ours[name]],
    }
    parts = []
    for kind, names in kinds.items():
        if names:
            more = f" and {len(names) - n_named} more" if len(names) > n_named else ""
            parts.append(f"{kind} {', '.join(names[:n_named])}{more}")
    if not parts and list(theirs) != list(ours):
        parts.append("in another order")
    return "; ".join(parts)
