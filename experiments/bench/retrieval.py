"""What a search costs and whether it misses anything: against numpy that looks at every row.

Vectors have 199 values that follow 11 factors, as features do, and the answers to half the rows are known. Times are
those of the one thread that searches, so that neighbours on the machine count less.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.bench.timing import Row, figure, timed
from qml_plugin.retrieval import LIVE_DEADLINE_S, VectorStore
from qml_plugin.retrieval.tiers import TIERS

DIM, K, N_FACTORS = 199, 10, 11
SINGLE_TARGETS_MS = {10_000: 0.15, 100_000: 2.5, 1_000_000: 30.0}
BACKTEST_TARGET_MS = 600.0
N_BACKTEST = 10_000
N_RECALL = 10_000
_ROWS_AT_ONCE = 50_000

FILTERS: dict[str, dict[str, Any]] = {
    "no filter": {},
    "symbol": {"symbol": "S1"},
    "symbol, timeframe": {"symbol": "S2", "timeframe": "1h"},
    "pattern type": {"pattern_type": ("bull", "flat")},
    "side": {"side": 1},
    "regime": {"regime": "wild"},
    "scale": {"scale": "minor"},
    "age": {"max_age": 1_000},
    "quality": {"min_quality": 0.7},
    "apart": {"apart_bars": 20},
    "all of them": {
        "symbol": ("S0", "S1"), "timeframe": "1h", "pattern_type": "bull", "side": 1, "regime": "calm", "scale": "minor",
        "max_age": 5_000, "min_quality": 0.2, "apart_bars": 20,
    },
}  # fmt: skip


def vectors(n_rows: int, seed: int) -> np.ndarray:
    """Rows that follow a few factors."""
    loadings = np.random.default_rng(0).normal(size=(N_FACTORS, DIM)).astype(np.float32)
    rng = np.random.default_rng(seed)
    factors = rng.standard_normal((n_rows, N_FACTORS), np.float32)
    return np.asarray(0.1 * (factors @ loadings + rng.standard_normal((n_rows, DIM), np.float32)))


def store_of(n_rows: int, tier: str = "exact") -> VectorStore:
    """Row i became known at time i."""
    store = VectorStore(DIM, tier=tier)
    for start in range(0, n_rows, _ROWS_AT_ONCE):
        rows = np.arange(start, min(start + _ROWS_AT_ONCE, n_rows))
        store.add(vectors(len(rows), start), resolved_at=rows)
    return store


def naive(rows: np.ndarray, query: np.ndarray, k: int = K) -> np.ndarray:
    """The k nearest rows, by the distance to each of them."""
    squared = ((rows - query) ** 2).sum(axis=1)
    nearest = np.argpartition(squared, k)[:k]
    return nearest[np.argsort(squared[nearest], kind="stable")]


def single(n_rows: int) -> list[Row]:
    """One query at a time, in turn with the twin."""
    store, queries = store_of(n_rows), vectors(200, 1)
    plain = store._published.blocks["", ""].column("vectors")[: n_rows // 2, :DIM]
    n_queries = 3 if n_rows > 100_000 else 20
    at = n_rows // 2 - 1

    def search() -> None:
        for query in queries[:n_queries]:
            store.search(query, as_of=at, k=K)

    def twin() -> None:
        for query in queries[:n_queries]:
            naive(plain, query)

    def read() -> None:
        for query in queries[:n_queries]:
            plain @ query

    times = timed({"numpy": twin, "search": search, "read": read}, n_runs=9, clock=time.thread_time)
    median = {name: statistics.median(found[1:]) / n_queries for name, found in times.items()}
    full = timed(
        {"all": lambda: [store.search(query, as_of=n_rows, k=K) for query in queries[:n_queries]]}, 9, time.thread_time
    )
    bench = f"retrieval, one query, {n_rows:,} rows of {DIM}"
    rows = [
        figure(bench, "numpy, half of them known", median["numpy"], "ms"),
        relative(bench, "numpy, one product with each row", median["read"], median["numpy"]),
        relative(bench, "search, half of them known", median["search"], median["numpy"]),
        figure(bench, "search, all of them known", statistics.median(full["all"][1:]) / n_queries, "ms", at_most=SINGLE_TARGETS_MS[n_rows]),
    ]  # fmt: skip
    if n_rows == max(SINGLE_TARGETS_MS):
        rows += deadline(store, queries, bench)
    return rows


def relative(bench: str, contender: str, value: float, base: float) -> Row:
    """A figure and its ratio to that of the twin."""
    return Row(bench, contender, round(value, 4), ratio=round(value / base, 4))


def deadline(store: VectorStore, queries: np.ndarray, bench: str) -> list[Row]:
    """The longest of some searches that must be there in time, on the wall clock."""
    found = []
    for query in queries[:100]:
        start = time.perf_counter()
        store.search(query, as_of=2**60, k=K, deadline_s=LIVE_DEADLINE_S)
        found.append(1_000 * (time.perf_counter() - start))
    return [figure(bench, "search with a deadline of 60 ms, p99", float(np.quantile(found, 0.99)), "ms wall")]


def tiers(n_rows: int = 1_000_000) -> list[Row]:
    """The same questions to each tier, and the recall that its own audit of one answer in a hundred finds."""
    bench, queries = f"retrieval, tiers, {n_rows:,} rows of {DIM}", vectors(1_000, 1)
    found: list[Row] = []
    for tier in TIERS:
        store = store_of(n_rows, tier)
        times = timed(
            {tier: lambda: [store.search(query, as_of=n_rows, k=K) for query in queries[:10]]},  # noqa: B023
            n_runs=9,
            clock=time.thread_time,
        )
        milliseconds = statistics.median(times[tier][1:]) / 10
        found.append(
            relative(bench, f"{tier}, all of them known", milliseconds, found[0].median if found else milliseconds)
        )
        if tier != "exact":
            for query in queries:
                store.search(query, as_of=n_rows, k=K)
            audit = store.audit
            found.append(Row(bench, f"{tier}, recall of {audit.n_audited} answers audited", audit.recall, "share"))
    return found


def backtest() -> list[Row]:
    """Every entry of a backtest asks for the patterns that were known to it."""
    store, queries, times = store_of(N_BACKTEST), vectors(N_BACKTEST, 1), np.arange(N_BACKTEST)
    plain = np.ascontiguousarray(store._published.blocks["", ""].column("vectors")[:, :DIM])

    def twin() -> None:
        for at in range(K + 1, N_BACKTEST, 10):
            naive(plain[: at + 1], queries[at])

    contenders = {
        "numpy, one by one": twin,
        "search_many": lambda: store.search_many(queries, as_of=times, k=K),
    }
    timed_ms = timed(contenders, n_runs=5)
    median = {name: statistics.median(found[1:]) for name, found in timed_ms.items()}
    median["numpy, one by one"] *= 10  # every tenth was asked
    bench = f"retrieval, {N_BACKTEST:,} entries x {N_BACKTEST:,} patterns of {DIM}"
    many = figure(bench, "search_many", median["search_many"], "ms wall", at_most=BACKTEST_TARGET_MS, n_runs=5)
    ratio = round(median["search_many"] / median["numpy, one by one"], 4)
    return [
        figure(bench, "numpy, one by one", median["numpy, one by one"], "ms wall", n_runs=5),
        Row(**{**many.as_dict(), "ratio": ratio}),  # type: ignore[arg-type]
    ]


def recall(n_queries: int = N_RECALL, n_rows: int = N_BACKTEST) -> list[Row]:
    """Share of the true neighbours that are found, of `n_queries` queries for each filter."""
    rng = np.random.default_rng(2)
    rows = {
        "symbol": rng.choice(["S0", "S1", "S2"], n_rows), "timeframe": rng.choice(["1h", "1d"], n_rows),
        "pattern_type": rng.choice(["bull", "bear", "flat"], n_rows), "regime": rng.choice(["calm", "wild"], n_rows),
        "scale": rng.choice(["minor", "major"], n_rows), "side": rng.choice([1, -1], n_rows), "quality": rng.random(n_rows),
        "bar": rng.integers(0, n_rows, n_rows), "resolved_at": rng.integers(0, n_rows, n_rows),
    }  # fmt: skip
    plain, queries, as_of = vectors(n_rows, 3), vectors(n_queries, 4), rng.integers(0, n_rows, n_queries)
    store = VectorStore(DIM)
    store.add(plain, ids=np.arange(n_rows), **rows)
    n_true, n_found, n_other = dict.fromkeys(FILTERS, 0), dict.fromkeys(FILTERS, 0), 0
    answers = {name: store.search_many(queries, as_of=as_of, k=K, **wanted) for name, wanted in FILTERS.items()}
    lengths = (plain.astype(np.float64) ** 2).sum(axis=1)
    for start in range(0, n_queries, 500):
        some = slice(start, start + 500)
        squared = lengths - 2 * queries[some].astype(np.float64) @ plain.T.astype(np.float64)
        for name, wanted in FILTERS.items():
            allowed = np.where(eligible(rows, as_of[some], wanted), squared, np.inf)
            for place, ascending in enumerate(np.argsort(allowed, axis=1)[:, : 40 * K]):
                real = ascending[np.isfinite(allowed[place, ascending])]
                best = apart(rows, real.tolist(), wanted.get("apart_bars"))
                hits = answers[name][start + place]
                n_true[name] += len(best)
                n_found[name] += len(set(best) & set(hits.ids.tolist()))
                n_other += len(hits) != len(best)
    bench = f"retrieval, recall of {n_queries:,} queries over {n_rows:,} rows"
    shares = {name: n_found[name] / n_true[name] for name in FILTERS}
    return [
        Row(bench, name, share, "share", target="1.000", is_met=share == 1.0 and n_other == 0) for name, share in shares.items()
    ]  # fmt: skip


def eligible(rows: Mapping[str, np.ndarray], as_of: np.ndarray, wanted: Mapping[str, Any]) -> np.ndarray:
    """Which rows each query may choose from, shape (n_queries, n_rows)."""
    resolved_at = rows["resolved_at"]
    mask = resolved_at <= as_of[:, None]
    if "max_age" in wanted:
        mask &= resolved_at >= as_of[:, None] - wanted["max_age"]
    if "min_quality" in wanted:
        mask &= rows["quality"] >= wanted["min_quality"]
    for name in ("symbol", "timeframe", "pattern_type", "regime", "scale", "side"):
        if name in wanted:
            mask &= np.isin(rows[name], wanted[name])
    return mask


def apart(rows: Mapping[str, np.ndarray], ascending: list[int], apart_bars: int | None) -> list[int]:
    """The first of the rows that do not overlap with a nearer one."""
    kept: list[int] = []
    for row in ascending:
        is_free = apart_bars is None or not any(
            rows["symbol"][row] == rows["symbol"][other]
            and rows["timeframe"][row] == rows["timeframe"][other]
            and abs(rows["bar"][row] - rows["bar"][other]) <= apart_bars
            for other in kept
        )
        if is_free:
            kept.append(row)
        if len(kept) == K:
            break
    return kept


def run() -> list[Row]:
    """All retrieval benchmarks."""
    return [row for n_rows in SINGLE_TARGETS_MS for row in single(n_rows)] + tiers() + backtest() + recall()
