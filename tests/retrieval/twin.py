"""The slow, obvious search: look at every row, leave out what is not wanted, sort the rest."""

from __future__ import annotations

import numpy as np

SYMBOLS, TIMEFRAMES = ("AAA", "BBB", "CCC"), ("1h", "1d")
TYPES, REGIMES, SCALES = ("bull", "bear", "flat"), ("calm", "wild", ""), ("minor", "major")


def make_rows(n_rows, dim, seed, *, n_values=None):
    """Columns of rows in no order of time, with ties in time and, where there are few values, in distance."""
    rng = np.random.default_rng(seed)
    if n_values is None:
        vectors = rng.normal(size=(n_rows, dim))
    else:
        vectors = rng.integers(n_values, size=(n_rows, dim))
    quality = np.round(rng.random(n_rows), 2)
    quality[rng.random(n_rows) < 0.1] = np.nan
    return {
        "vectors": vectors.astype(np.float32),
        "ids": [f"id{i:06d}" for i in rng.permutation(n_rows)],
        "resolved_at": rng.integers(0, max(n_rows, 1), n_rows),
        "symbol": rng.choice(SYMBOLS, n_rows),
        "timeframe": rng.choice(TIMEFRAMES, n_rows),
        "pattern_type": rng.choice(TYPES, n_rows),
        "regime": rng.choice(REGIMES, n_rows),
        "scale": rng.choice(SCALES, n_rows),
        "side": rng.choice([1, -1], n_rows),
        "quality": quality,
        "bar": rng.integers(0, max(n_rows, 1) // 2 + 1, n_rows),
    }


def is_wanted(rows, i, as_of, filters):
    """Whether one row may be chosen."""
    if rows["resolved_at"][i] > as_of:
        return False
    for name in ("symbol", "timeframe", "pattern_type", "regime", "scale"):
        words = filters.get(name)
        if words is not None and rows[name][i] not in ((words,) if isinstance(words, str) else words):
            return False
    if "side" in filters and rows["side"][i] != filters["side"]:
        return False
    if "max_age" in filters and rows["resolved_at"][i] < as_of - filters["max_age"]:
        return False
    return "min_quality" not in filters or bool(rows["quality"][i] >= filters["min_quality"])


def brute_force(rows, query, as_of, k, filters):
    """(ids, distances, n_eligible) by looking at each row."""
    found = []
    for i in range(len(rows["ids"])):
        if is_wanted(rows, i, as_of, filters):
            difference = rows["vectors"][i].astype(float) - query.astype(float)
            found.append((float(np.sqrt((difference**2).sum())), rows["ids"][i], i))
    return *nearest_apart(rows, sorted(found), k, filters.get("apart_bars")), len(found)


def nearest_apart(rows, ascending, k, apart_bars):
    """The first k, without those that overlap with one that is nearer."""
    kept = []
    for distance, name, i in ascending:
        overlaps = [
            all(rows[key][i] == rows[key][j] for key in ("symbol", "timeframe"))
            and abs(int(rows["bar"][i]) - int(rows["bar"][j])) <= apart_bars
            for _, _, j in kept
            if apart_bars is not None
        ]
        if len(kept) < k and not any(overlaps):
            kept.append((distance, name, i))
    return [name for _, name, _ in kept], [distance for distance, _, _ in kept]


FILTERS = {
    "none": {},
    "symbol": {"symbol": "BBB"},
    "symbols": {"symbol": ("AAA", "CCC")},
    "timeframe": {"timeframe": "1d"},
    "symbol and timeframe": {"symbol": "AAA", "timeframe": "1h"},
    "pattern type": {"pattern_type": "bull"},
    "pattern types": {"pattern_type": ["bear", "flat"]},
    "side": {"side": -1},
    "regime": {"regime": "wild"},
    "scale": {"scale": "major"},
    "age": {"max_age": 40},
    "quality": {"min_quality": 0.75},
    "apart": {"apart_bars": 3},
    "all": {
        "symbol": ("AAA", "BBB"), "timeframe": "1h", "pattern_type": ("bull", "bear"), "side": 1, "regime": "calm",
        "scale": "minor", "max_age": 300, "min_quality": 0.2, "apart_bars": 5,
    },
    "a word that no row has": {"pattern_type": "unheard"},
}  # fmt: skip
