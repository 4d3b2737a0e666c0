"""Pooled points: symbols that learn from one another, each in the order of time, and lost together."""

from __future__ import annotations

import signal
import threading

import numpy as np
import pandas as pd
import pytest

from qml_plugin import PatternRegistry, sweep, walk_forward
from qml_plugin.adapters import cells
from qml_plugin.adapters.pooled_cells import run_pooled
from qml_plugin.adapters.reproduce import reproduce
from qml_plugin.errors import DataError
from qml_plugin.features import MarketFeatures
from qml_plugin.memory import PatternMemory, PooledPast
from qml_plugin.records import BarrierRule
from tests.adapters.hosts import Remembered
from tests.conftest import random_walk
from tests.sweeps.conftest import HOST
from tests.sweeps.troubled import Cross, Plain, Troubled

GIVEN = {"fast": 2, "slow": 5, "mode": "shadow", "barriers": BarrierRule(max_bars=6)}
GRID = {"fast": [2, 3]}
FIXED = {"slow": 5, "mode": "shadow", "barriers": BarrierRule(max_bars=6), "progress": False, **HOST}
FUTURE_FROM_BAR = 300


def frames():
    """Two symbols of the same hours, and one of two hours a bar that begins later."""
    late = random_walk(170, 23, freq="2h")
    late.index = late.index + pd.Timedelta(days=2)
    return {"B": random_walk(360, 21), "A": random_walk(360, 22), "C": late}


def played(frames, *, is_pooled=True, strategy=Cross, given=GIVEN):
    """What a point leaves on each symbol, pooled or each by itself, without a registry."""
    markets, runs, own = [], {}, {}
    for symbol, frame in frames.items():
        bars = cells.bars_of(strategy, frame, given, symbol)
        market = cells.Market(symbol, frame, bars, MarketFeatures(bars))
        host = cells.host_of(strategy, market, HOST)
        runs[symbol] = cells.begun_cell(strategy, market, HOST, given, backtest=host, parent_run_id=None)
        own[symbol] = given | {"symbol": symbol}
        markets.append(market)
    if is_pooled:
        return run_pooled(strategy, markets, HOST, own, runs, "sharpe_annual")
    return {
        m.symbol: cells.run_cell(strategy, m, HOST, own[m.symbol], runs[m.symbol], "sharpe_annual") for m in markets
    }


@pytest.fixture(scope="module")
def pooled():
    return played(frames())


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The same pooled sweep in this process and in another, its symbols in two orders."""
    found = []
    for limit_s in (None, 300):  # a limit of time needs a worker
        url = f"sqlite:///{tmp_path_factory.mktemp('pooled')}/x.db"
        data = dict(sorted(frames().items(), reverse=limit_s is None))
        found.append((url, sweep(Cross, data, GRID, pooled=True, time_limit_s=limit_s, registry=url, **FIXED)))
    return found


def test_the_order_of_decisions_is_that_of_time(pooled):
    """The twin has all entries before it, and gives them to one pool in the order of time."""
    memories = [left.memory for left in pooled.values()]
    pool = PooledPast(policy=memories[0]._settings.policy)
    twins = {memory.run.symbol: PatternMemory(memory._bars, pool=pool) for memory in memories}
    entries = [pattern.entry for memory in memories for pattern in memory.patterns]
    assert len(entries) > 150
    decided = {decision.pattern_id: decision for memory in memories for decision in memory.decisions}
    for entry in sorted(entries, key=lambda entry: (entry.known_at, entry.symbol)):
        twin, mine = twins[entry.symbol].decide(entry), decided[entry.pattern_id]
        assert twin == mine
        assert repr(twin) == repr(mine)
    assert sum(decision.confidence is not None for decision in decided.values()) > 50


def test_another_future_of_one_symbol_changes_nothing_before_it(pooled):
    changed = frames()
    factor = np.ones(len(changed["B"]))
    factor[FUTURE_FROM_BAR:] = np.exp(
        np.cumsum(np.random.default_rng(5).normal(0, 0.03, len(factor) - FUTURE_FROM_BAR))
    )
    prices = ["Open", "High", "Low", "Close"]
    changed["B"][prices] = changed["B"][prices].mul(factor, axis=0)
    now = pooled["B"].memory._bars.known_at[FUTURE_FROM_BAR]
    other = played(changed)
    n_before, n_other = 0, 0
    for symbol in ("A", "C"):
        for pattern, mine, theirs in zip(
            pooled[symbol].memory.patterns,
            pooled[symbol].memory.decisions,
            other[symbol].memory.decisions,
            strict=True,
        ):
            if pattern.entry.known_at < now:
                assert repr(mine) == repr(theirs)
                n_before += mine.confidence is not None
            else:
                n_other += mine.n_known != theirs.n_known or mine.confidence != theirs.confidence
    assert n_before > 20
    assert n_other > 3, "later decisions do depend on it"


def test_what_is_known_is_what_has_resolved_whatever_becomes_of_orders():
    """Orders of every kind, cancelled ones too: each decision counts what had resolved on all symbols, at its moment too."""
    given = {"mode": "shadow", "action_share": 0.6, "barriers": BarrierRule(max_bars=6)}
    both = {name: frame.iloc[:240].assign(Volume=1.0) for name, frame in frames().items()}
    left = played(both, strategy=Remembered, given=given)
    patterns = [pattern for one in left.values() for pattern in one.memory.patterns]
    assert sum(p.outcome is None for p in patterns) > 10, "some were cancelled, or never filled"
    resolved = np.sort([pattern.outcome.resolved_at for pattern in patterns if pattern.outcome])
    n_at_once = 0
    for one in left.values():
        for pattern, decision in zip(one.memory.patterns, one.memory.decisions, strict=True):
            assert decision.n_known == np.searchsorted(resolved, pattern.entry.known_at, side="right")
            n_at_once += pattern.entry.known_at in resolved
    assert n_at_once > 10


def test_one_symbol_pooled_is_that_symbol_by_itself():
    one = {"A": frames()["A"].iloc[:250]}
    together, alone = played(one)["A"], played(one, is_pooled=False)["A"]
    assert together.metrics == alone.metrics
    assert together.memory.decisions == alone.memory.decisions
    assert together.memory.run.run_id == alone.memory.run.run_id
    pd.testing.assert_frame_equal(together.trades, alone.trades)
    pd.testing.assert_frame_equal(together.equity, alone.equity)


def test_a_sweep_of_one_symbol_is_the_same_sweep(tmp_path):
    data = {"A": frames()["A"].iloc[:120]}
    one, other = (sweep(Cross, data, GRID, pooled=way, folder=tmp_path, **FIXED) for way in (True, False))
    assert one.run_id == other.run_id
    pd.testing.assert_frame_equal(one.table, other.table)


def test_rows_depend_neither_on_the_process_nor_on_the_order_of_symbols(swept):
    (one_url, one), (two_url, two) = swept
    assert one.failed.empty
    order = ["symbol", "fast"]
    pd.testing.assert_frame_equal(*(r.table.sort_values(order, ignore_index=True) for r in (one, two)))
    assert list(one.table["symbol"]) == ["C", "C", "B", "B", "A", "A"]
    for run_id in one.table["run_id"]:
        assert PatternRegistry(one_url).get_decisions(run_id) == PatternRegistry(two_url).get_decisions(run_id)
        pd.testing.assert_frame_equal(one.equity(run_id), two.equity(run_id))
    best = one.best(by="objective")
    assert best["objective"] == one.table.pivot(index="symbol", columns="fast", values="objective").mean().max()


def test_a_sweep_runs_what_the_adapter_runs(swept, pooled):
    url, result = swept[0]
    for row in result.table[result.table["fast"] == 2].to_dict("records"):
        left = pooled[row["symbol"]]
        assert {name: row[name] for name in left.metrics} == pytest.approx(left.metrics, rel=0, nan_ok=True)
        recorded = {d["pattern_id"]: d for d in PatternRegistry(url).get_decisions(row["run_id"])}
        assert [recorded[d.pattern_id]["confidence"] for d in left.memory.decisions] == [
            d.confidence for d in left.memory.decisions
        ]


def test_the_record_says_with_whom_a_run_was_pooled_and_it_can_be_reproduced(swept, pooled):
    url, result = swept[0]
    registry = PatternRegistry(url)
    row = result.table[(result.table["symbol"] == "A") & (result.table["fast"] == 2)].iloc[0]
    run = registry.get_run(row["run_id"])
    hashes = {about["symbol"]: about["data_hash"] for about in registry.get_runs() if about["kind"] == "cell"}
    shared = run["params"]["data"]["pooled_with"]
    assert {symbol: about["data_hash"] for symbol, about in shared.items()} == {s: hashes[s] for s in "BC"}
    assert (run["kind"], run["symbol"], run["parent_run_id"]) == ("cell", "A", result.run_id)
    assert registry.n_trials("Cross", frames()["A"]) == 2
    by_itself = {left.memory.run.run_id for left in pooled.values()}  # their markets were not told of each other
    assert not by_itself & set(result.table["run_id"])
    again = reproduce(url, row["run_id"], strategy=Cross)
    assert again.is_identical, again.comparisons
    assert again.changes == ()


def test_an_error_on_one_symbol_fails_the_point_and_it_is_resumed_as_a_whole(tmp_path):
    data = {"GOOD": frames()["A"].iloc[:120], "BAD": frames()["B"].iloc[:120]}
    url = f"sqlite:///{tmp_path}/x.db"
    before = set(threading.enumerate())
    about = {"pooled": True, "registry": url, "retries": 0, **FIXED}
    flag = tmp_path / "flag"
    flag.touch()
    broken = Cross, data, {"fast": [2, 3], "bad_fast": [3], "flag": [str(flag)]}
    result = sweep(*broken, **about)
    assert set(threading.enumerate()) <= before
    assert list(result.table["status"]) == ["finished", "failed", "finished", "failed"]
    assert set(result.failed["error"]) == {"RuntimeError: the flag is up (in BAD)"}
    statuses = {run["run_id"]: run["status"] for run in PatternRegistry(url).get_runs()}
    assert [statuses[run_id] for run_id in result.table["run_id"]] == list(result.table["status"])
    flag.unlink()
    resumed = sweep(*broken, resume=True, **about)
    assert resumed.failed.empty
    assert resumed.n_feature_passes == 2, "what had finished was not run again"
    raising = sweep(Troubled, data, {"trouble": ["raise"]}, **about)
    assert set(raising.table["error"]) == {"ValueError: this bar is not to be had (in BAD)"}
    assert set(threading.enumerate()) <= before


def test_ctrl_c_in_this_process_ends_all_symbols(tmp_path):
    data = {"GOOD": frames()["A"].iloc[:120], "BAD": frames()["B"].iloc[:120]}
    before, before_threads = signal.signal(signal.SIGINT, signal.default_int_handler), set(threading.enumerate())
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            sweep(Troubled, data, {"trouble": ["interrupt"]}, pooled=True, folder=tmp_path, **FIXED)
    finally:
        signal.signal(signal.SIGINT, before)
    assert "What had finished is kept" in caught.value.__notes__[0]
    assert set(threading.enumerate()) <= before_threads


def test_a_symbol_that_hangs_is_ended_with_its_point(tmp_path):
    data = {"GOOD": frames()["A"].iloc[:120], "BAD": frames()["B"].iloc[:120]}
    result = sweep(
        Troubled,
        data,
        {"trouble": ["raise", "", "hang"]},
        pooled=True,
        time_limit_s=8,
        retries=0,
        folder=tmp_path,
        **FIXED,
    )
    assert list(result.table["status"]) == ["failed", "finished", "failed"] * 2
    assert set(result.failed["error"].str.split(":").str[0]) == {"TimeLimit", "ValueError"}


def test_what_the_host_warns_of_is_told_of_its_symbol():
    data = {name: frame.iloc[:120] for name, frame in frames().items() if name != "C"}
    rich = played(data)
    assert all(left.warned == () for left in rich.values())
    dear = data | {"B": data["B"].assign(**{name: data["B"][name] * 1e5 for name in ("Open", "High", "Low", "Close")})}
    with pytest.warns(UserWarning, match="prices are larger than initial cash"):  # the first host, of the record
        left = played(dear)
    assert left["A"].warned == ()
    assert any("larger than initial cash" in text for text in left["B"].warned)


@pytest.mark.parametrize(
    ("strategy", "options", "message"),
    [
        (Plain, {}, "Plain has no PatternMixin, so its symbols have no memory to share"),
        (Cross, {"gate_model": "frozen"}, "a frozen model learns nothing, so there is nothing to pool"),
    ],
)
def test_what_cannot_be_pooled_is_refused(strategy, options, message, tmp_path):
    with pytest.raises(DataError, match=message):
        sweep(strategy, frames(), GRID, pooled=True, folder=tmp_path, **HOST, **options)


def test_a_walk_forward_is_not_pooled(tmp_path):
    with pytest.raises(DataError, match="walk_forward takes one symbol, so there is nothing to pool"):
        walk_forward(Cross, frames(), GRID, train=100, test=50, pooled=True, folder=tmp_path, **HOST)
