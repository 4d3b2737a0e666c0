"""What tests of every backend share: a sweep in which workers die and hang, and what it must come to."""

from __future__ import annotations

from contextlib import contextmanager

import pandas as pd

from qml_plugin import PatternRegistry, sweep
from tests.conftest import random_walk
from tests.registry.postgresql_server import schema_of_its_own, server
from tests.sweeps.conftest import HOST
from tests.sweeps.once import Once

GRID = {"trouble": ["", "kill", "hang", "raise"]}
LIMIT_S = 20.0
# Times of the machine, and what a pattern that several points register keeps of the first of them to commit.
_OF_MACHINE = {"started_at", "finished_at", "heartbeat_at", "pid", "process_started"}
_OF_FIRST = {"created_at", "updated_at", "trade_outcome", "ml_confidence", "features"}


def remembered(url, place, folder, *, is_disturbed, **how):
    """A sweep with memory over a registry with a past; `place` is where what goes wrong once is noted."""
    early = random_walk(300, 9)
    early.index = early.index - pd.Timedelta(days=60)
    about = {"registry": url, "folder": folder, "place": str(place), "progress": False, **HOST}
    sweep(Once, early, {"fast": [3]}, mode="record", symbol="OLD", timeframe="1h", **about)
    for trouble in ("kill", "hang"):
        if is_disturbed:
            (place / trouble).touch()
    result = sweep(Once, random_walk(300, 5), GRID, mode="shadow", symbol="X", **about, **how)
    assert not any((place / trouble).exists() for trouble in ("kill", "hang"))
    return result


def rows_of(url, result):
    """All that the registry holds of a sweep and its patterns, but what another order of points may change."""
    registry = PatternRegistry(url)
    run_ids = [result.run_id, *result.table["run_id"]]
    runs = [{k: v for k, v in registry.get_run(run_id).items() if k not in _OF_MACHINE} for run_id in run_ids]
    decisions = [registry.get_decisions(run_id) for run_id in run_ids]
    ids = sorted({decision["pattern_id"] for each in decisions for decision in each})
    assert len(ids) > 10
    patterns = [registry.get_pattern(pattern_id) for pattern_id in ids]
    features = [pattern["features"] | {"temp_since_last_signal_log": None} for pattern in patterns]
    patterns = [{k: v for k, v in pattern.items() if k not in _OF_FIRST} for pattern in patterns]
    return {"runs": runs, "decisions": decisions, "patterns": patterns, "features": features}


def assert_same(result, url, alone):
    """That a sweep came to the bytes and the rows of the one that `alone` is."""
    other, rows = alone
    assert list(result.table["status"]) == ["finished"] * 3 + ["failed"]
    assert result.table.to_csv() == other.table.to_csv()
    for name in ("trades", "equity", "cells"):
        mine, theirs = ({file.name: file.read_bytes() for file in (r.folder / name).iterdir()} for r in (result, other))
        assert mine == theirs
    for name, mine in rows_of(url, result).items():
        for one, another in zip(mine, rows[name], strict=True):
            assert repr(one) == repr(another)  # NaN is NaN


@contextmanager
def registry_on_a_server():
    """URL of an empty registry on PostgreSQL; skips where there is no server."""
    with server() as url, schema_of_its_own(url) as own:
        yield own
