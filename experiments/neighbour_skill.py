"""Do the neighbours earn their place? The skill of the gate's confidences with and without the features ``sim_*``.

Two gates walk through the same entries. Both refit on the same schedule and are judged by the same prequential scores;
the one has the neighbour features of each entry as inputs, searched as of its own moment under the scaler of the epoch,
as `PatternMemory` does, and the other has not. Compared are, over all entries that both scored, whatever the gate would
have done with them: the Brier skill against the base rate known at the time, the log loss saved against it in nats an
entry, and the area under the ROC curve of the log-odds relative to that base rate. Standard errors come from blocks of 50 entries, and of worlds from the worlds.

Run ``python -m experiments.neighbour_skill [folder of parquet files]``, on GOOG and EURUSD and what the folder holds. ``--worlds``
says how many made-up worlds of each kind are added, ``--most-entries`` how many entries of a data set are walked through,
the first ones. Finished walks are kept in ``--out`` and not computed again; ``summary.json`` there holds the table.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy.special import logit
from scipy.stats import rankdata

from experiments.gate_worlds import FRESH_SEED, KINDS, make_world
from experiments.retrieval_metric import GROUPS, blocks_of, frames_of, patterns_of
from qml_plugin.gate import GateSettings, OnlineGate, schedule_size
from qml_plugin.memory.past import NEIGHBOUR_FEATURES
from qml_plugin.retrieval import Scaler, VectorStore

K = 10
N_DRAWS = 500
ARMS = ("with", "without")
SCORES = ("brier_skill", "log_loss_saved", "auc")
WORLD_KINDS = ("weak", "strong", "weak, 5 of 200 features", "strong, 5 of 200 features")


@dataclass(frozen=True, slots=True)
class Table:
    """Entries in order of ``known_at``; `groups` name the group of features that each column belongs to."""

    features: np.ndarray
    groups: Sequence[str]
    side: np.ndarray
    market: Sequence[str]
    known_at: np.ndarray
    resolved_at: np.ndarray
    is_win: np.ndarray
    r_multiple: np.ndarray


def of_patterns(patterns) -> Table:
    patterns = sorted(patterns, key=lambda pattern: (pattern.entry.known_at, pattern.pattern_id))
    return Table(
        np.array([pattern.features for pattern in patterns], np.float32),
        GROUPS,
        np.array([pattern.entry.side for pattern in patterns]),
        [f"{pattern.entry.symbol}|{pattern.entry.timeframe}" for pattern in patterns],
        np.array([pattern.entry.known_at for pattern in patterns]),
        np.array([pattern.outcome.resolved_at for pattern in patterns]),
        np.array([pattern.outcome.is_win for pattern in patterns]),
        np.clip([pattern.outcome.r_multiple for pattern in patterns], -10, 10),
    )


def of_world(kind, seed: int) -> Table:
    world = make_world(kind, seed)
    n, d = world.X.shape
    is_win = world.r_multiple > 0
    return Table(
        world.X, [str(column) for column in range(d)], np.ones(n, int), [""] * n, world.known_at, world.resolved_at,
        is_win, world.r_multiple,
    )  # fmt: skip


class Neighbours:
    """The stores of one epoch, a side each, and the summaries that they give."""

    def __init__(self, table: Table, learnt: list[int], size: int) -> None:
        self.table = table
        self.scaler = Scaler.fit(table.features[learnt[:size]], table.groups)
        self.stores: dict[int, VectorStore] = {}
        self.add(learnt)

    def add(self, rows: Sequence[int]) -> None:
        for side in (+1, -1):
            own = [row for row in rows if self.table.side[row] == side]
            if own:
                store = self.stores.setdefault(side, VectorStore(self.table.features.shape[1]))
                vectors = self.scaler.transform(self.table.features[own])
                store.add(vectors, ids=own, resolved_at=self.table.resolved_at[own])

    def summaries(self, rows: Sequence[int]) -> np.ndarray:
        """Of each row, as of its own ``known_at``."""
        found = np.full((len(rows), len(NEIGHBOUR_FEATURES)), np.nan)
        for side, store in self.stores.items():
            own = [i for i, row in enumerate(rows) if self.table.side[row] == side]
            if not own:
                continue
            chosen = [rows[i] for i in own]
            vectors = self.scaler.transform(self.table.features[chosen])
            answers = store.search_many(vectors, as_of=self.table.known_at[chosen], k=K)
            for i, hits in zip(own, answers, strict=True):
                if len(hits):
                    r, won = self.table.r_multiple[hits.ids], self.table.is_win[hits.ids]
                    found[i] = won.mean(), r.mean(), r.std(), hits.distances[0], hits.distances.mean()
        return found


def walk(table: Table) -> dict[str, list]:
    """Confidence of each arm and the base rate then, by entry; entries before the first model are left out."""
    gates = {arm: OnlineGate(GateSettings(seed=0)) for arm in ARMS}
    waiting: list[tuple[int, int]] = []
    learnt: list[int] = []
    given: dict[int, dict[str, float]] = {}
    near: Neighbours | None = None
    epoch = 0
    rows: dict[str, list] = {name: [] for name in ("entry", "base_rate", "is_win", *ARMS)}
    spoke: dict[str, dict[str, int]] = {arm: {} for arm in ARMS}
    own = np.column_stack([table.features, table.side]).astype(np.float32)
    for entry in range(len(table.side)):
        now, fresh = int(table.known_at[entry]), []
        while waiting and waiting[0][0] <= now:
            fresh.append(heapq.heappop(waiting)[1])
        for row in fresh:
            for arm, gate in gates.items():
                gate.learn(
                    int(table.known_at[row]), int(table.resolved_at[row]), bool(table.is_win[row]),
                    float(table.r_multiple[row]), confidence=given[row][arm], group=table.market[row],
                )  # fmt: skip
        learnt += fresh
        size = schedule_size(len(learnt))
        if size != epoch:
            epoch, near = size, Neighbours(table, learnt, size)
            if gates["without"].due:
                past = learnt[:size]
                gates["without"].refit(own[past])
                gates["with"].refit(np.column_stack([own[past], near.summaries(past)]).astype(np.float32))
        elif near is not None and fresh:
            near.add(fresh)
        row = own[entry]
        similar = near.summaries([entry])[0] if near is not None else np.full(len(NEIGHBOUR_FEATURES), np.nan)
        said = {
            "with": gates["with"].judge(np.concatenate([row, similar]).astype(np.float32), now),
            "without": gates["without"].judge(row, now),
        }
        given[entry] = {arm: answer.confidence for arm, answer in said.items()}
        if all(answer.model for answer in said.values()):
            rows["entry"].append(entry)
            rows["base_rate"].append(said["with"].base_rate)
            rows["is_win"].append(int(table.is_win[entry]))
            for arm, answer in said.items():
                rows[arm].append(answer.confidence)
                spoke[arm][str(answer.model)] = spoke[arm].get(str(answer.model), 0) + 1
        heapq.heappush(waiting, (int(table.resolved_at[entry]), entry))
    return rows | {"spoke": spoke, "ever_active": {arm: gate.evidence.was_active for arm, gate in gates.items()}}


def scores(walked: dict[str, list], chosen: np.ndarray | None = None) -> np.ndarray:
    """Shape (3,): of both arms and their difference, each of shape (3 scores,): (3 arms, 3 scores)."""
    win, base = np.asarray(walked["is_win"], float), np.asarray(walked["base_rate"])
    arms = [np.asarray(walked[arm]) for arm in ARMS]
    if chosen is not None:
        win, base, arms = win[chosen], base[chosen], [p[chosen] for p in arms]
    each = [_scores_of(p, base, win) for p in arms]
    return np.array([*each, each[0] - each[1]])


def _scores_of(p: np.ndarray, base: np.ndarray, win: np.ndarray) -> np.ndarray:
    skill = 1 - ((p - win) ** 2).mean() / ((base - win) ** 2).mean()
    saved = np.mean(win * np.log(p / base) + (1 - win) * np.log((1 - p) / (1 - base)))
    n_wins = win.sum()
    ranked = rankdata(np.round(logit(p) - logit(base), 9))  # what moved the base rate, which drifts
    auc = (ranked[win > 0].sum() - n_wins * (n_wins + 1) / 2) / max(n_wins * (len(win) - n_wins), 1)
    return np.array([skill, saved, auc])


def kept(path: Path, table) -> dict[str, list]:
    """The walk that is in the file, made if it is not there."""
    if not path.exists():
        walked = walk(table())
        path.with_suffix(".tmp").write_text(json.dumps(walked))
        path.with_suffix(".tmp").replace(path)
    return json.loads(path.read_text())


def row_of(point: np.ndarray, error: np.ndarray, **facts: object) -> dict[str, object]:
    row = dict(facts)
    for arm, values, errors in zip((*ARMS, "difference"), point, error, strict=True):
        row |= {f"{score} {arm}": float(value) for score, value in zip(SCORES, values, strict=True)}
        row |= {f"{score} {arm} error": float(value) for score, value in zip(SCORES, errors, strict=True)}
    return row


def of_series(name: str, walks: dict[str, dict[str, list]]) -> dict[str, object]:
    """One row for data sets together, each weighted by its entries."""
    rng = np.random.default_rng(0)
    weights = np.array([len(walked["entry"]) for walked in walks.values()])
    draws = [
        np.average(
            [scores(walked, blocks_of(len(walked["entry"]), rng)) for walked in walks.values()], axis=0, weights=weights
        )
        for _ in range(N_DRAWS)
    ]
    point = np.average([scores(walked) for walked in walks.values()], axis=0, weights=weights)
    return row_of(point, np.std(draws, axis=0, ddof=1), name=name, n_entries=int(weights.sum()), **counted(walks))


def of_worlds(name: str, walks: dict[str, dict[str, list]]) -> dict[str, object]:
    each = np.array([scores(walked) for walked in walks.values()])
    error = each.std(axis=0, ddof=1) / np.sqrt(len(each))
    n_entries = sum(len(walked["entry"]) for walked in walks.values())
    return row_of(each.mean(axis=0), error, name=name, n_worlds=len(each), n_entries=n_entries, **counted(walks))


def counted(walks: dict[str, dict[str, list]]) -> dict[str, object]:
    """How often each model spoke, and in how many walks the gate was ever active."""
    facts: dict[str, object] = {}
    for arm in ARMS:
        facts[f"spoke {arm}"] = {
            model: sum(walked["spoke"][arm].get(model, 0) for walked in walks.values())
            for model in ("base_rate", "logistic", "xgboost")
        }
        facts[f"ever active {arm}"] = sum(walked["ever_active"][arm] for walked in walks.values())
    return facts


def data_sets(folder: Path | None, most: int) -> Iterator[tuple[str, object]]:
    """Name of each data set, and what makes its table."""
    from backtesting.test import EURUSD, GOOG

    sets = [("GOOG", [("GOOG", GOOG)]), ("EURUSD", [("EURUSD", EURUSD)])]
    for name, series in sets + ([] if folder is None else list(frames_of(folder))):
        yield name, partial(_first_entries, series, most)


def _first_entries(series, most: int) -> Table:
    found = [pattern for symbol, frame in series for pattern in patterns_of(frame, symbol)]
    return of_patterns(sorted(found, key=lambda pattern: (pattern.entry.known_at, pattern.pattern_id))[:most])


def show(row: dict[str, object]) -> str:
    told = "  ".join(
        f"{score} {row[f'{score} with']:.4f} / {row[f'{score} without']:.4f}, difference {row[f'{score} difference']:+.4f} "
        f"± {row[f'{score} difference error']:.4f}"
        for score in SCORES
    )
    return f"{row['name']}: {row['n_entries']} entries  {told}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--out", type=Path, default=Path("results/neighbour_skill"))
    parser.add_argument("--worlds", type=int, default=20)
    parser.add_argument("--most-entries", type=int, default=3_000)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    summary: list[dict[str, object]] = []
    with ProcessPoolExecutor(options.processes) as pool:
        sets = list(data_sets(options.folder, options.most_entries))
        paths = [options.out / f"{name}-{options.most_entries}.json" for name, _ in sets]
        walks = {}
        for (name, _), walked in zip(sets, pool.map(kept, paths, [table for _, table in sets]), strict=True):
            if len(walked["entry"]) >= 100:
                walks[name] = walked
                summary.append(of_series(name, {name: walked}))
                print(show(summary[-1]), flush=True)
        if len(walks) > 1:
            summary.append(of_series("all series", walks))
            print(show(summary[-1]), flush=True)
        for kind in (kind for kind in KINDS if kind.name in WORLD_KINDS and options.worlds > 1):
            seeds = range(FRESH_SEED, FRESH_SEED + options.worlds)
            stem = kind.name.replace(" ", "_").replace(",", "")
            worlds = pool.map(
                kept,
                [options.out / f"{stem}-{seed}.json" for seed in seeds],
                [partial(of_world, kind, seed) for seed in seeds],
            )
            summary.append(of_worlds(kind.name, dict(zip(map(str, seeds), worlds, strict=True))))
            print(show(summary[-1]), flush=True)
    (options.out / "summary.json").write_text(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
