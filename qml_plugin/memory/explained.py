"""What each input added to the score of an entry, computed when somebody looks."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from qml_plugin.gate.confidence import ConfidenceModel
from qml_plugin.records import FloatArray

_N_LARGEST = 8
Largest = tuple[tuple[str, float], ...]


class Explained:
    """The entries that one model has scored: the first look computes the contributions of all of them in one call.

    Parameters
    ----------
    model : ConfidenceModel
    names : tuple of str
        Of its inputs.
    """

    def __init__(self, model: ConfidenceModel, names: tuple[str, ...]) -> None:
        self.model = model
        self._names = names
        self._found: list[Largest] = []
        self._waiting: list[NDArray[np.float32]] = []
        self._looking = threading.Lock()

    def add(self, row: NDArray[np.float32]) -> Contributions:
        """The contributions of one more entry, whose inputs are `row`."""
        with self._looking:
            self._waiting.append(row)
            return Contributions(self, len(self._found) + len(self._waiting) - 1)

    def largest(self, place: int) -> Largest:
        """The largest contributions of the entry that was added as number `place`, in log-odds, largest first."""
        with self._looking:
            if self._waiting:
                self._found += map(self._largest, self.model.contributions(np.array(self._waiting)))
                self._waiting = []
            return self._found[place]

    def _largest(self, contributions: FloatArray) -> Largest:
        order = np.argsort(-np.abs(contributions), kind="stable")[:_N_LARGEST]
        return tuple((self._names[i], float(contributions[i])) for i in order if contributions[i])


class Contributions(Sequence[tuple[str, float]]):
    """The contributions to one decision: equal to the tuple that it becomes when copied or pickled."""

    __slots__ = ("_explained", "_place")

    def __init__(self, explained: Explained, place: int) -> None:
        self._explained, self._place = explained, place

    @property
    def _largest(self) -> Largest:
        return self._explained.largest(self._place)

    @overload
    def __getitem__(self, index: int) -> tuple[str, float]: ...
    @overload
    def __getitem__(self, index: slice) -> Largest: ...
    def __getitem__(self, index: int | slice) -> tuple[str, float] | Largest:
        return self._largest[index]

    def __len__(self) -> int:
        return len(self._largest)

    def __eq__(self, other: object) -> bool:
        return self._largest == tuple(other) if isinstance(other, (tuple, Contributions)) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._largest)

    def __repr__(self) -> str:
        return repr(self._largest)

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (self._largest,)
