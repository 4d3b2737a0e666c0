"""One past for memories of several series: an entry on one is decided by what is known of all of them."""

from __future__ import annotations

from collections import ChainMap
from typing import Protocol

import numpy as np

from qml_plugin.errors import FeatureMismatch
from qml_plugin.features import CATALOGUE
from qml_plugin.features.catalogue import difference
from qml_plugin.memory.past import Past, Resolved
from qml_plugin.memory.policy import Policy
from qml_plugin.records import Decision, KnownPatterns


class Member(Protocol):
    """What a pool knows of a memory that is in it."""

    decisions: dict[str, Decision]

    def newly_resolved(self, as_of: int) -> list[Resolved]: ...


class PooledPast:
    """The past of one memory, or of several that walk a series each and learn from one another.

    Parameters
    ----------
    known : KnownPatterns, optional
        Snapshot of a registry; None starts without a past.
    policy : Policy, optional

    Attributes
    ----------
    past : Past
    as_of : int, UTC microseconds
        Moment of the last entry that was decided; none of an earlier moment may follow, on whatever series.

    Point in time
    -------------
    `advance` takes in what has resolved by then, of every memory, on bars whose close was known by then. It depends
    neither on the order in which memories joined nor on the order of entries of one moment, because no label resolves at
    the moment of its own entry.

    Raises
    ------
    FeatureMismatch
        If `known` holds another feature set than this version computes.
    """

    def __init__(self, known: KnownPatterns | None = None, policy: Policy | None = None) -> None:
        known = known if known is not None else KnownPatterns.empty(CATALOGUE.feature_set, len(CATALOGUE))
        if known.feature_set != CATALOGUE.feature_set:
            raise FeatureMismatch(
                f"the snapshot holds feature set {known.feature_set[:12]}, this version computes {CATALOGUE.feature_set[:12]}: "
                f"it was recorded {difference(known.versions) if known.versions else 'by another version'}. "
                "Record the history again with this version: patterns of other feature sets stay in the registry."
            )
        self.policy = policy or Policy()
        self.past = Past(known, self.policy)
        self.as_of = int(np.iinfo(np.int64).min)
        self._members: list[Member] = []

    def join(self, member: Member) -> None:
        """Take a memory in."""
        self._members.append(member)

    def advance(self, as_of: int) -> None:
        """Learn what became known by `as_of`, on all series, and renew scaler and gate where that is due."""
        own = [row for member in self._members for row in member.newly_resolved(as_of)]
        self.past.advance(as_of, own, ChainMap(*(member.decisions for member in self._members)))
        self.past.open_epoch()
