"""Small runs and patterns, shared by the registry's tests and the processes they start."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psycopg

from qml_plugin.bars import Bars
from qml_plugin.records import Decision, Entry, Outcome, Pattern, Point, Run, Setup

NAMES = ["ctx_atr", "mom_return", "geo_depth"]
FEATURE_SET = "f" * 64
HOUR = 3_600_000_000
RELEASED = ("0001", "0002", "0003", "0004")
START = 1_600_000_000_000_000


def make_run(run_id="run-1", **changes):
    run = Run(
        run_id=run_id,
        kind="backtest",
        status="finished",
        strategy_name="Cross",
        symbol="GOOG",
        timeframe="1h",
        params={"fast": 10, "slow": 30},
        data_hash="d" * 64,
        data_start_at=START,
        data_end_at=START + 1000 * HOUR,
        data_bars=1000,
        seed=7,
        versions={"numpy": "2"},
        metrics={"sharpe": 0.5},
        started_at=START + 2000 * HOUR,
        finished_at=START + 2000 * HOUR + 17,
    )
    return replace(run, **changes)


def make_outcome(bar=0, r_multiple=2.0, resolved_at=None):
    resolved_at = START + (bar + 5) * HOUR if resolved_at is None else resolved_at
    reason = "target" if r_multiple > 0 else "stop"
    return Outcome(bar + 1, 100.25, bar + 4, 103.5, reason, r_multiple, resolved_at)


def make_pattern(bar=0, features=(1.0, float("nan"), -0.1), feature_set=FEATURE_SET, **changes):
    entry_names = {"symbol", "timeframe", "strategy", "side", "detection_at", "known_at", "setup", "pattern_type"}
    entry = Entry(
        symbol="GOOG",
        timeframe="1h",
        strategy="Cross",
        pattern_type="long_signal",
        side=1,
        bar=bar,
        detection_at=START + bar * HOUR,
        known_at=START + (bar + 1) * HOUR,
        reference_px=100.0,
        stop_px=98.5,
        target_px=103.0,
    )
    entry = replace(entry, **{name: value for name, value in changes.items() if name in entry_names})
    others = {name: value for name, value in changes.items() if name not in entry_names}
    return Pattern(entry, np.array(features, np.float64), feature_set, **others)


def make_setup():
    points = tuple(Point(bar, 100.0 + bar / 3, bar + 2) for bar in range(5))
    return Setup("bullish_qml", 1, points, known_bar=6, stop_px=99.0, target_px=104.0, validity_score=0.75)


def make_bars(n_bars=50, first=START, symbol="GOOG", timeframe="1h", seed=1):
    """Bars of one hour each, without volume."""
    opened_at = first + HOUR * np.arange(n_bars)
    px = 100 + np.cumsum(np.random.default_rng(seed).normal(size=n_bars))
    return Bars(symbol, timeframe, opened_at, opened_at + HOUR, px, px + 1, px - 1, px, np.full(n_bars, np.nan))


def run_on(bars, run_id="run-1", **changes):
    """A run that saw these bars."""
    ends = {"data_start_at": int(bars.opened_at[0]), "data_end_at": int(bars.opened_at[-1]), "data_bars": len(bars)}
    return make_run(
        run_id, symbol=bars.symbol, timeframe=bars.timeframe, data_hash=bars.sha256(), **{**ends, **changes}
    )


def take(pattern, **changes):
    return Decision(pattern.pattern_id, "take", "record", **changes)


def save(registry, patterns=(), run=None, decisions=None, returns=None, names=NAMES):
    patterns = list(patterns)
    decisions = [take(pattern) for pattern in patterns] if decisions is None else decisions
    registry.save_run(run or make_run(), patterns, decisions, returns or {}, names=names)


def dump(place):
    """Every row of every table, by table, in one order; `place` is a file, or the URL of a server's registry."""
    if is_on_server(place):
        tables = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() ORDER BY 1"
    else:
        tables = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
    return {name: sorted(execute(place, f'SELECT * FROM "{name}"'), key=repr) for (name,) in execute(place, tables)}


def is_on_server(place):
    return str(place).startswith("postgresql")


def execute(place, statement, values=()):
    """One statement, as a user's own tool would run it."""
    if is_on_server(place):
        plain = place.replace("postgresql+psycopg", "postgresql")
        with psycopg.connect(plain, autocommit=True) as connection:
            found = connection.execute(statement.replace("%", "%%").replace("?", "%s"), values)
            return found.fetchall() if found.description else []
    connection = sqlite3.connect(place, isolation_level=None)
    try:
        return connection.execute(statement, values).fetchall()
    finally:
        connection.close()


def start(script, *arguments, **options):
    """A Python process of its own, which may import this module."""
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parents[1]), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(processes):
    """Return codes, after all have ended; a traceback is shown by the caller's assertion."""
    return [(process.communicate(timeout=120)[1], process.returncode) for process in processes]
