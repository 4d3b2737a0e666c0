"""What has resolved by now, in one order, with the scaler, the stores and the model of the current epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qml_plugin.features import CATALOGUE
from qml_plugin.gate import OnlineGate, schedule_size
from qml_plugin.memory.policy import Policy
from qml_plugin.records import Decision, FloatArray, KnownPatterns, Neighbour
from qml_plugin.retrieval import Scaler, VectorStore

NEIGHBOUR_FEATURES = ("sim_win_share", "sim_mean_r", "sim_std_r", "sim_nearest_distance", "sim_mean_distance")
_NEAREST_DISTANCE = NEIGHBOUR_FEATURES.index("sim_nearest_distance") - len(NEIGHBOUR_FEATURES)
# One order with a stop a hair away must not outweigh all others in a mean.
_MOST_R = 10.0


@dataclass(frozen=True, slots=True)
class Resolved:
    """One pattern whose outcome is known."""

    pattern_id: str
    group: str
    side: int
    known_at: int
    resolved_at: int
    is_win: bool
    r_multiple: float
    features: NDArray[np.float32]
    confidence: float = math.nan


class Past:
    """Everything that has resolved by now, in one order, with the scaler, stores and gate of the current epoch."""

    def __init__(self, snapshot: KnownPatterns, policy: Policy) -> None:
        self._snapshot = snapshot
        self._not_own = snapshot.ignored.union(snapshot.pattern_id)
        self._read = 0
        self._rows: list[Resolved] = []
        self._n_neighbours = policy.n_neighbours
        self._deadline_s = policy.deadline_s
        self._epoch_size = 0
        self._scaler: Scaler | None = None
        self._scaler_id: str | None = None
        self._stores: dict[int, VectorStore] = {}
        self.gate = OnlineGate(policy.gate_settings())

    def __len__(self) -> int:
        return len(self._rows)

    def advance(self, as_of: int, own: Sequence[Resolved], decisions: Mapping[str, Decision]) -> None:
        """Append what has resolved by `as_of`; a pattern that the snapshot holds is taken from there.

        A score that the snapshot lacks is taken from this run's decision, which was made before the outcome.
        """
        fresh = [row for row in own if row.pattern_id not in self._not_own]
        end = int(np.searchsorted(self._snapshot.resolved_at, as_of, side="right"))
        fresh += [self._from_snapshot(i) for i in range(self._read, end)]
        self._read = end
        for row in sorted(fresh, key=lambda row: (row.resolved_at, row.pattern_id)):
            decision = decisions.get(row.pattern_id)
            confidence = row.confidence
            if math.isnan(confidence) and decision is not None and decision.confidence is not None:
                confidence = decision.confidence
            # A label by hand may know no R: it counts as one won or lost.
            r_multiple = (1.0 if row.is_win else -1.0) if math.isnan(row.r_multiple) else row.r_multiple
            row = replace(row, confidence=confidence, r_multiple=min(max(r_multiple, -_MOST_R), _MOST_R))
            self._rows.append(row)
            self.gate.learn(
                row.known_at,
                row.resolved_at,
                row.is_win,
                row.r_multiple,
                confidence=row.confidence,
                group=row.group,
            )
        if self._scaler is not None and fresh:
            features = np.stack([row.features for row in self._rows[-len(fresh) :]])
            self._index(range(len(self) - len(fresh), len(self)), self._scaler.transform(features))

    def open_epoch(self) -> None:
        """Refit scaler and gate when the past has grown by a fifth; both see a prefix of the past only."""
        size = schedule_size(len(self))
        if size == self._epoch_size:
            return
        self._epoch_size = size
        rows = self._rows[:size]
        features = np.stack([row.features for row in self._rows])
        self._scaler = Scaler.fit(features[:size], [feature.category for feature in CATALOGUE])
        self._scaler_id = self._scaler.scaler_id
        vectors = self._scaler.transform(features)
        self._stores = {}
        self._index(range(len(self)), vectors)
        if self.gate.due:
            inputs = self._training_inputs(rows, vectors, self._n_neighbours)
            self.gate.refit(inputs, inputs[:, _NEAREST_DISTANCE].astype(np.float64))

    def neighbours(
        self, features: NDArray[np.float32], side: int, as_of: int
    ) -> tuple[tuple[Neighbour, ...], FloatArray, bool]:
        """The nearest resolved patterns of the same side, their summary as model inputs, and whether the deadline cut it short."""
        if self._scaler is None:
            return (), _summary([], np.empty(0)), False
        vector = self._scaler.transform(features[None, :])[0]
        found, distances, is_late = self._nearest(vector, side, as_of, self._n_neighbours)
        neighbours = tuple(
            Neighbour(row.pattern_id, float(distance), row.resolved_at, row.is_win, row.r_multiple)
            for row, distance in zip(found, distances, strict=True)
        )
        return neighbours, _summary(found, distances), is_late

    def _from_snapshot(self, i: int) -> Resolved:
        snapshot = self._snapshot
        return Resolved(
            pattern_id=snapshot.pattern_id[i],
            group=snapshot.group[i],
            side=int(snapshot.side[i]),
            known_at=int(snapshot.known_at[i]),
            resolved_at=int(snapshot.resolved_at[i]),
            is_win=bool(snapshot.is_win[i]),
            r_multiple=float(snapshot.r_multiple[i]),
            features=snapshot.features[i],
            confidence=float(snapshot.confidence[i]),
        )

    def _index(self, positions: Sequence[int], vectors: NDArray[np.float32]) -> None:
        """Add scaled rows to the store of their side."""
        for side in (+1, -1):
            own = [i for i, position in enumerate(positions) if self._rows[position].side == side]
            if own:
                store = self._stores.setdefault(side, VectorStore(vectors.shape[1], scaler_id=self._scaler_id))
                places = [positions[i] for i in own]
                resolved_at = [self._rows[place].resolved_at for place in places]
                store.add(vectors[own], ids=places, resolved_at=resolved_at, scaler_id=self._scaler_id)

    def _nearest(
        self, vector: NDArray[np.float32], side: int, as_of: int, k: int
    ) -> tuple[list[Resolved], FloatArray, bool]:
        if side not in self._stores:
            return [], np.empty(0), False
        hits = self._stores[side].search(
            vector, as_of=as_of, k=k, scaler_id=self._scaler_id, deadline_s=self._deadline_s
        )
        is_late = hits.coverage < 1 or len(hits) < min(k, hits.n_eligible)
        return [self._rows[place] for place in hits.ids], hits.distances, is_late

    def _training_inputs(self, rows: Sequence[Resolved], vectors: NDArray[np.float32], k: int) -> NDArray[np.float32]:
        """Features, side and neighbour summaries, each row's neighbours as of the moment it was decided."""
        summaries = np.full((len(rows), len(NEIGHBOUR_FEATURES)), np.nan)
        is_win = np.array([row.is_win for row in self._rows])
        r_multiple = np.array([row.r_multiple for row in self._rows])
        for side, store in self._stores.items():
            own = [i for i, row in enumerate(rows) if row.side == side]
            as_of = [rows[i].known_at for i in own]
            found = store.search_many(vectors[own], as_of=as_of, k=k, scaler_id=self._scaler_id)
            n_found = np.array([len(hits) for hits in found])
            for n in set(n_found.tolist()) - {0}:
                alike = np.flatnonzero(n_found == n)
                places = np.stack([found[i].ids for i in alike])
                distances = np.stack([found[i].distances for i in alike])
                summaries[np.array(own)[alike]] = _summaries(is_win[places], r_multiple[places], distances)
        inputs = np.empty((len(rows), vectors.shape[1] + 1 + len(NEIGHBOUR_FEATURES)), dtype=np.float32)
        inputs[:, : vectors.shape[1]] = [row.features for row in rows]
        inputs[:, vectors.shape[1]] = [row.side for row in rows]
        inputs[:, vectors.shape[1] + 1 :] = summaries
        return inputs


def _summary(found: Sequence[Resolved], distances: FloatArray) -> FloatArray:
    """Values of `NEIGHBOUR_FEATURES`; all NaN where there are no neighbours."""
    if not found:
        return np.full(len(NEIGHBOUR_FEATURES), np.nan)
    is_win, r_multiple = np.array([row.is_win for row in found]), np.array([row.r_multiple for row in found])
    return np.ravel(_summaries(is_win[None], r_multiple[None], distances[None]))


def _summaries(is_win: NDArray[np.bool_], r_multiple: FloatArray, distances: FloatArray) -> FloatArray:
    """Values of `NEIGHBOUR_FEATURES` for each row of neighbours; each row is summed by itself, so to the same bits."""
    share, mean_r, std_r = is_win.mean(axis=1), r_multiple.mean(axis=1), r_multiple.std(axis=1)
    return np.array([share, mean_r, std_r, distances[:, 0], distances.mean(axis=1)]).T
