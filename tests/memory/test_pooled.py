"""Memories of several series with one past: what each knows of the others, and when."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from qml_plugin.demo.synthetic import planted_edge_market
from qml_plugin.errors import DataError, FeatureMismatch, LookAheadError
from qml_plugin.features import CATALOGUE
from qml_plugin.memory import PatternMemory, Policy, PooledPast
from qml_plugin.records import BarrierRule, KnownPatterns
from tests.conftest import random_walk
from tests.memory.conftest import EAGER
from tests.memory.worlds import cross_entries, make_bars, make_entry, snapshot

POLICY = Policy(mode="gate", model="logistic", requirements=EAGER, on_abstain="fail_open")
FUTURE_FROM_BAR = 370
RULE = BarrierRule(max_bars=8)


def series():
    """Three series: two of the same hours, and one of two hours a bar that begins later."""
    late = random_walk(220, 13, freq="2h")
    late.index = late.index + pd.Timedelta(days=3)
    return {
        "A": make_bars(random_walk(420, 11), "A"),
        "B": make_bars(random_walk(420, 12), "B"),
        "C": make_bars(late, "C", "2h"),
    }


def entries_of(bars):
    """Entries at the open, at the close and at a limit."""
    crosses = cross_entries(bars, 2, 14, rule=RULE)
    for i, entry in enumerate(crosses):
        if i % 5 == 1:
            limit = float(bars.close[entry.bar]) * (1 - 0.004 * entry.side)
            crosses[i] = make_entry(bars, entry.bar, entry.side, rule=RULE, limit_px=limit)
        elif i % 5 == 3:
            crosses[i] = make_entry(bars, entry.bar, entry.side, rule=RULE, fill="close")
    return crosses


def another_future(bars, from_bar):
    """The same bars up to `from_bar`, and others of the same times from there on."""
    rng = np.random.default_rng(7)
    factor = np.ones(len(bars))
    factor[from_bar:] = np.exp(np.cumsum(rng.normal(0, 0.03, len(bars) - from_bar)))
    return replace(bars, **{name: getattr(bars, name) * factor for name in ("open", "high", "low", "close")})


def walk_together(series, policy=POLICY, *, joined=None, ties=1):
    """Memories that have decided all entries in order of time; of one moment the names decide, or their reverse."""
    pool = PooledPast(policy=policy)
    memories = {symbol: PatternMemory(series[symbol], pool=pool) for symbol in joined or series}
    entries = [entry for symbol in series for entry in entries_of(series[symbol])]
    names = sorted(series)
    for entry in sorted(entries, key=lambda entry: (entry.known_at, ties * names.index(entry.symbol))):
        memories[entry.symbol].decide(entry)
    return memories


@pytest.fixture(scope="module")
def together():
    return walk_together(series())


def test_each_decides_as_one_that_knows_the_others_from_a_registry(together):
    """The twin walks alone, from a snapshot that holds what became of all entries of the others, as of each moment."""
    n_scored, n_foreign = 0, 0
    for symbol, memory in together.items():
        others = [pattern for other in together if other != symbol for pattern in together[other].patterns()]
        twin = PatternMemory(memory.bars, snapshot(others), memory.policy)
        for pattern in memory.patterns():
            assert twin.decide(pattern.entry) == memory.decisions[pattern.pattern_id]
        foreign = {pattern.pattern_id for pattern in others}
        n_foreign += sum(n.pattern_id in foreign for d in memory.decisions.values() for n in d.neighbours)
        n_scored += sum(decision.confidence is not None for decision in memory.decisions.values())
    assert n_scored > 50
    assert n_foreign > 300


def test_alone_it_knows_less_and_decides_otherwise(together):
    alone = walk_together({"A": series()["A"]})["A"]
    mine = together["A"]
    assert list(alone.decisions) == list(mine.decisions)
    assert alone.decisions != mine.decisions
    last = list(mine.decisions)[-1]
    assert alone.decisions[last].n_known < mine.decisions[last].n_known


def test_neither_the_order_of_joining_nor_that_of_one_moment_matters(together):
    moments = [pattern.entry.known_at for memory in together.values() for pattern in memory.patterns()]
    assert len(set(moments)) < len(moments), "some entries share a moment"
    other = walk_together(series(), joined=["C", "B", "A"], ties=-1)
    for symbol, memory in together.items():
        assert other[symbol].decisions == memory.decisions


def test_another_future_of_one_series_changes_no_decision_before_it(together):
    changed = series()
    changed["B"] = another_future(changed["B"], FUTURE_FROM_BAR)
    now = int(changed["B"].known_at[FUTURE_FROM_BAR])
    other = walk_together(changed)
    n_before, n_explained, n_other = 0, 0, 0
    for symbol in ("A", "C"):
        for pattern in together[symbol].patterns():
            mine, theirs = (m[symbol].decisions[pattern.pattern_id] for m in (together, other))
            if pattern.entry.known_at < now:
                assert mine == theirs
                assert repr(mine) == repr(theirs), "bit for bit, contributions too"
                n_before += mine.confidence is not None
                n_explained += len(mine.contributions) > 0
            else:
                n_other += mine != theirs
    assert n_before > 15
    assert n_explained > 0
    assert n_other > 3, "later decisions do depend on it"


def test_what_another_series_resolves_at_this_very_moment_is_known(together):
    """A decides first at a moment at which an entry of B resolves, or of C, and knows of it already."""
    outcomes = [p.outcome.resolved_at for symbol in "BC" for p in together[symbol].patterns() if p.outcome]
    ties = [p for p in together["A"].patterns() if p.entry.known_at in outcomes]
    assert ties
    resolved = sorted(p.outcome.resolved_at for m in together.values() for p in m.patterns() if p.outcome)
    for pattern in ties:
        n_known = int(np.searchsorted(resolved, pattern.entry.known_at, side="right"))
        assert together["A"].decisions[pattern.pattern_id].n_known == n_known


def test_a_pool_of_one_is_a_memory_of_its_own():
    bars = series()["A"]
    alone = PatternMemory(bars, policy=POLICY)
    for entry in entries_of(bars):
        alone.decide(entry)
    assert walk_together({"A": bars})["A"].decisions == alone.decisions


def test_a_gate_of_four_short_series_is_active_before_those_of_each():
    """Markets of the demonstration, alike in what there is to learn; by itself none is long enough."""
    markets = {f"S{i}": make_bars(planted_edge_market(1_700, seed=1_000 + i), f"S{i}") for i in range(4)}
    entries = {symbol: cross_entries(bars, rule=BarrierRule(max_bars=24)) for symbol, bars in markets.items()}
    judged = {}
    for names in (*([symbol] for symbol in markets), list(markets)):
        pool = PooledPast()
        memories = {symbol: PatternMemory(markets[symbol], pool=pool) for symbol in names}
        for entry in sorted((e for symbol in names for e in entries[symbol]), key=lambda e: (e.known_at, e.symbol)):
            memories[entry.symbol].decide(entry)
        actions = [decision.action for memory in memories.values() for decision in memory.decisions.values()]
        judged[tuple(names)] = len(actions) - actions.count("abstain")
    *alone, together = judged.values()
    assert alone == [0, 0, 0, 0]
    assert together > 10


def test_only_what_was_taken_teaches_the_others_where_that_is_asked():
    policy = replace(POLICY, teachers="executed", on_abstain="fail_closed")
    for memory in walk_together(series(), policy).values():
        assert {decision.n_known for decision in memory.decisions.values()} == {0}


def test_an_entry_older_than_one_of_another_series_is_refused():
    bars = series()
    pool = PooledPast(policy=POLICY)
    one, other = PatternMemory(bars["A"], pool=pool), PatternMemory(bars["B"], pool=pool)
    one.decide(one.entry(200, +1))
    other.decide(other.entry(200, -1))
    with pytest.raises(LookAheadError, match="A memory only moves forwards"):
        other.decide(other.entry(199, +1))


def test_snapshot_and_policy_are_the_pools():
    bars, pool = series()["A"], PooledPast()
    with pytest.raises(DataError, match="Give them to PooledPast alone"):
        PatternMemory(bars, policy=POLICY, pool=pool)
    with pytest.raises(FeatureMismatch, match="Record the history again"):
        PooledPast(KnownPatterns.empty("e" * 64, len(CATALOGUE)))
