"""Which distance makes the best neighbours? Each is asked walk-forward, and judged by what its neighbours foretold.

Entries are crosses of two averages, breaks of a 20-bar channel, and reversals after three closes in one direction, with the
default barriers. Each entry is compared with those of its side that had resolved by then. What a metric learns from rows
(centre, scale, axes, relevance) is learnt anew whenever the past has grown by a fifth, from that past alone. Foretold is the
win share of the k nearest, and judged are the area under the ROC curve, the Brier skill of that share shrunk towards
the base rate, and the rank correlation of the neighbours' mean R with the entry's own. Standard errors come from
blocks of 50 entries.

Run with ``python -m experiments.retrieval_metric [folder of parquet files]``; without a folder, on GOOG and EURUSD.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist
from scipy.stats import rankdata

from qml_plugin.bars import bars_from_frame
from qml_plugin.features import CATALOGUE
from qml_plugin.memory import PatternMemory, Policy
from qml_plugin.memory.past import schedule_size
from qml_plugin.records import Pattern
from qml_plugin.retrieval import Scaler

K = (10, 50)
GROUPS = [feature.category for feature in CATALOGUE]
BLOCK = 50
FIRST_ASKED = 100
STOCKS_ADJUSTED = ("GOOGL", "MO", "FIS", "F", "DUK")


@dataclass(frozen=True, slots=True)
class Events:
    """Resolved entries in order of ``resolved_at``."""

    features: np.ndarray
    side: np.ndarray
    known_at: np.ndarray
    resolved_at: np.ndarray
    is_win: np.ndarray
    r_multiple: np.ndarray


@dataclass(frozen=True, slots=True)
class Measure:
    """A distance: `fit` makes, from the rows of the past and their wins, a map to vectors that `name` compares."""

    fit: Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]
    name: str = "euclidean"


def robust(past: np.ndarray, _: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return Scaler.fit(past, GROUPS).transform


def robust_unweighted(past: np.ndarray, _: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return Scaler.fit(past, [str(column) for column in range(past.shape[1])]).transform


def z_score(past: np.ndarray, _: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    n_present = np.maximum(np.isfinite(past).sum(axis=0), 1)
    centre = np.nansum(past, axis=0, dtype=np.float64) / n_present
    scale = np.sqrt(np.nansum((past - centre) ** 2, axis=0) / n_present)
    weight = Scaler.fit(past, GROUPS).weight
    scale = np.where(scale > 0, scale, 1.0)
    return lambda rows: np.nan_to_num(np.clip((rows - centre) / scale, -4, 4)) * weight


def ranks(past: np.ndarray, _: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    columns = [np.sort(column[np.isfinite(column)]) for column in past.T]
    weight = Scaler.fit(past, GROUPS).weight

    def place(rows: np.ndarray) -> np.ndarray:
        found = [
            (column.searchsorted(values, "left") + column.searchsorted(values, "right")) / max(2 * len(column), 1) - 0.5
            for column, values in zip(columns, rows.T, strict=True)
        ]
        return np.where(np.isnan(rows), 0.0, np.array(found).T) * weight

    return place


def whitened(past: np.ndarray, _: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    scale = robust(past, _)
    vectors = scale(past).astype(np.float64)
    covariance = np.cov(vectors, rowvar=False)
    ridge = np.trace(covariance) / len(covariance)
    values, axes = np.linalg.eigh(covariance + 0.1 * ridge * np.eye(len(covariance)))
    return lambda rows: scale(rows) @ (axes / np.sqrt(values))


def relevant(past: np.ndarray, is_win: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    scale = robust_unweighted(past, is_win)
    vectors, target = scale(past).astype(np.float64), is_win - is_win.mean()
    centred = vectors - vectors.mean(axis=0)
    length = np.sqrt((centred**2).sum(axis=0) * (target**2).sum())
    weight = np.abs(centred.T @ target) / np.where(length > 0, length, 1.0)
    return lambda rows: scale(rows) * weight


MEASURES = {
    "robust, groups weighted (the one in use)": Measure(robust),
    "robust, every feature alike": Measure(robust_unweighted),
    "z-score, groups weighted": Measure(z_score),
    "ranks, groups weighted": Measure(ranks),
    "robust, groups weighted, city block": Measure(robust, "cityblock"),
    "robust, groups weighted, cosine": Measure(robust, "cosine"),
    "robust, groups weighted, whitened": Measure(whitened),
    "robust, weighted by relevance": Measure(relevant),
}


def entries_of(close: np.ndarray, high: np.ndarray, low: np.ndarray) -> Iterator[tuple[int, int, str]]:
    """Bar, side and rule of each entry, from bars up to it."""
    frame = pd.DataFrame({"close": close, "high": high, "low": low})
    fast, slow = frame.close.rolling(10).mean(), frame.close.rolling(30).mean()
    above = (fast > slow).to_numpy()
    top, bottom = frame.high.rolling(20).max().shift(1).to_numpy(), frame.low.rolling(20).min().shift(1).to_numpy()
    up = np.sign(np.diff(close, prepend=close[0]))
    for bar in range(60, len(close)):
        if above[bar] != above[bar - 1]:
            yield bar, 1 if above[bar] else -1, "cross"
        if close[bar] > top[bar] and close[bar - 1] <= top[bar - 1]:
            yield bar, 1, "break"
        if close[bar] < bottom[bar] and close[bar - 1] >= bottom[bar - 1]:
            yield bar, -1, "break"
        run = up[bar - 2 : bar + 1]
        if abs(run.sum()) == 3 and up[bar - 3] != run[0]:
            yield bar, -int(run[0]), "reversal"


def patterns_of(frame: pd.DataFrame, symbol: str) -> list[Pattern]:
    """Resolved patterns of one series."""
    bars = bars_from_frame(frame, symbol=symbol)
    memory = PatternMemory(bars, policy=Policy(mode="record"))
    for bar, side, rule in entries_of(bars.close, bars.high, bars.low):
        memory.decide(memory.entry(bar, side, strategy=rule))
    return [pattern for pattern in memory.patterns() if pattern.outcome is not None]


def events_of(patterns: list[Pattern]) -> Events:
    patterns = sorted(patterns, key=lambda pattern: (pattern.outcome.resolved_at, pattern.pattern_id))  # type: ignore[union-attr]
    outcomes = [pattern.outcome for pattern in patterns if pattern.outcome is not None]
    return Events(
        np.array([pattern.features for pattern in patterns], np.float32),
        np.array([pattern.entry.side for pattern in patterns]),
        np.array([pattern.entry.known_at for pattern in patterns]),
        np.array([outcome.resolved_at for outcome in outcomes]),
        np.array([outcome.is_win for outcome in outcomes]),
        np.clip([outcome.r_multiple for outcome in outcomes], -10, 10),
    )


def foretold(events: Events, measure: Measure) -> dict[int, np.ndarray]:
    """For each k and entry: win share and mean R of its neighbours, and base rate; NaN where too little was known."""
    n_known = events.resolved_at.searchsorted(events.known_at, side="right")
    found = {k: np.full((len(n_known), 3), np.nan) for k in K}
    sizes = np.array([schedule_size(int(n)) for n in n_known])
    for size in np.unique(sizes[n_known >= FIRST_ASKED]):
        transform = measure.fit(events.features[:size], events.is_win[:size])
        asked = np.flatnonzero((sizes == size) & (n_known >= FIRST_ASKED))
        end = int(n_known[asked].max())
        vectors = transform(events.features[:end])
        distances = cdist(transform(events.features[asked]), vectors, measure.name)
        for entry, row in zip(asked, distances, strict=True):
            known = np.flatnonzero(events.side[: n_known[entry]] == events.side[entry])
            nearest = known[np.argsort(row[known], kind="stable")]
            for k in K:
                if len(known) >= k:
                    own = nearest[:k]
                    found[k][entry] = (
                        events.is_win[own].mean(),
                        events.r_multiple[own].mean(),
                        events.is_win[known].mean(),
                    )
    return found


def scores(events: Events, told: np.ndarray, k: int, chosen: np.ndarray) -> np.ndarray:
    """AUC, Brier skill and rank correlation of some entries."""
    share, mean_r, base = told[chosen].T
    win, r_multiple = events.is_win[chosen], events.r_multiple[chosen]
    ranked = rankdata(share)
    n_wins = win.sum()
    auc = (ranked[win].sum() - n_wins * (n_wins + 1) / 2) / max(n_wins * (len(win) - n_wins), 1)
    shrunk = (k * share + 50 * base) / (k + 50)
    skill = 1 - ((shrunk - win) ** 2).mean() / ((base - win) ** 2).mean()
    return np.array([auc, skill, np.corrcoef(rankdata(mean_r), rankdata(r_multiple))[0, 1]])


def blocks_of(n_entries: int, rng: np.random.Generator) -> np.ndarray:
    starts = rng.integers(0, max(n_entries - BLOCK, 1), -(-n_entries // BLOCK))
    return (starts[:, None] + np.arange(BLOCK)).ravel() % n_entries


def study(datasets: dict[str, Events]) -> None:
    """Print the scores of each measure, each data set weighted by its entries, and the differences to the one in use."""
    told = {
        name: {data: foretold(events, measure) for data, events in datasets.items()}
        for name, measure in MEASURES.items()
    }
    first = next(iter(MEASURES))
    for k in K:
        asked = {data: np.flatnonzero(np.isfinite(told[first][data][k][:, 0])) for data in datasets}
        asked = {data: chosen for data, chosen in asked.items() if len(chosen) >= 2 * BLOCK}
        weights = np.array([len(chosen) for chosen in asked.values()])
        print(f"\nk = {k}: {weights.sum()} entries of {len(asked)} data sets")
        print(
            f"{'':<44}{'AUC':>8}{'Brier skill':>13}{'rank corr':>11}   difference of AUC to the first, in standard errors"
        )
        rng = np.random.default_rng(0)
        draws = [{data: chosen[blocks_of(len(chosen), rng)] for data, chosen in asked.items()} for _ in range(200)]
        table = {}
        for name in MEASURES:
            each = [
                np.average([scores(datasets[data], told[name][data][k], k, draw[data]) for data in asked], axis=0, weights=weights)
                for draw in (asked, *draws)
            ]  # fmt: skip
            table[name] = np.array(each)
        for name, each in table.items():
            auc, skill, correlation = each[0]
            difference = each[:, 0] - table[first][:, 0]
            error = difference[1:].std()
            tail = "" if name == first else f"   {difference[0]:+.4f} ({difference[0] / error:+.1f})"
            print(f"{name:<44}{auc:8.4f}{skill:13.4f}{correlation:11.4f}{tail}")


def frames_of(folder: Path) -> Iterator[tuple[str, list[tuple[str, pd.DataFrame]]]]:
    """Data sets of a folder: each a list of series that share one past."""
    for file in sorted(folder.glob("*.parquet")):
        frame = pd.read_parquet(file)
        if "Symbol" in frame:
            series = []
            for symbol, rows in frame.groupby("Symbol"):
                bars = rows.set_index("Date")[["Open", "High", "Low", "Close", "Volume"]].astype(float)
                if symbol in STOCKS_ADJUSTED:
                    bars.iloc[:, :4] = bars.iloc[:, :4].mul(rows["AdjFactor"].to_numpy(), axis=0)
                series.append((str(symbol), bars))
            yield file.stem, series
        elif "Close" in frame and "bad" not in file.stem:
            yield file.stem, [(file.stem, frame)]


def main() -> None:
    if len(sys.argv) > 1:
        sets = dict(frames_of(Path(sys.argv[1])))
    else:
        from backtesting.test import EURUSD, GOOG

        sets = {"GOOG": [("GOOG", GOOG)], "EURUSD": [("EURUSD", EURUSD)]}
    datasets = {}
    for name, series in sets.items():
        datasets[name] = events_of([pattern for symbol, frame in series for pattern in patterns_of(frame, symbol)])
        print(f"{name}: {len(datasets[name].side)} entries, {datasets[name].is_win.mean():.1%} won", flush=True)
    study(datasets)


if __name__ == "__main__":
    main()
