"""Random sequences of calls against a dictionary: SQLite and PostgreSQL do what it does."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from qml_plugin.errors import DataError
from qml_plugin.features import CATALOGUE
from qml_plugin.registry import PatternRegistry
from qml_plugin.registry.maintenance import doctor
from tests.registry.postgresql_server import schema_of_its_own
from tests.registry.registry_samples import HOUR, START, make_outcome, make_pattern, make_run, save, take

LABELS = st.sampled_from(["win", "loss", "ignore", None])
SYMBOLS = st.sampled_from(["GOOG", "EURUSD", "'; DROP TABLE experiments; --"])


def described(symbol, hour, *, is_long=True):
    """The dictionary of a pattern, as a person gives it."""
    stop, target = (95.0, 110.0) if is_long else (105.0, 90.0)
    return {
        "symbol": symbol, "timeframe": "1h", "pattern_type": "seen", "detection_time": START + hour * HOUR,
        "detection_idx": hour, "entry_price": 100.0, "stop_loss": stop, "take_profit": target, "validity_score": None,
        **dict.fromkeys(f"{point}_{what}" for point in ("left_shoulder", "head", "right_shoulder") for what in ("price", "idx")),
    }  # fmt: skip


class Machine(RuleBasedStateMachine):
    """The registry under test beside ``model``: {pattern_id: what is known of it}, and ``runs``: {run_id: status}."""

    ids = Bundle("ids")
    new_url = None  # a function that names an empty registry, set by the test

    @initialize()
    def open(self):
        self.closing, url = type(self).new_url()
        self.registry = PatternRegistry(url)
        self.model, self.runs = {}, {}
        self.numbers = itertools.count()

    def teardown(self):
        if hasattr(self, "closing"):
            self.closing()

    @rule(
        target=ids,
        symbol=SYMBOLS,
        hour=st.integers(0, 5),
        is_long=st.booleans(),
        confidence=st.none() | st.floats(0, 1),
    )
    def register(self, symbol, hour, is_long, confidence):
        features = {"ctx_rsi_14": 30.0 + hour, "ctx_rsi_7": math.nan}
        pattern_id = self.registry.register_pattern(described(symbol, hour, is_long=is_long), features, confidence)
        old = self.model.setdefault(
            pattern_id,
            {"symbol": symbol, "side": 1 if is_long else -1, "label": None, "outcome": None, "paper": False, "barrier": None,
             "confidence": None, "r": None, "strategy": "manual"},
        )  # fmt: skip
        if old["confidence"] is None and confidence is not None:
            old["confidence"] = confidence + 0.0
        return pattern_id

    @rule(target=ids, first=st.integers(0, 4), n=st.integers(0, 3), r=st.floats(-2, 3), is_resolved=st.booleans(),
          status=st.sampled_from(["finished", "failed", "interrupted"]), is_started=st.booleans())  # fmt: skip
    def run(self, first, n, r, is_resolved, status, is_started):
        run_id = f"run-{first}-{n}"
        patterns = [
            make_pattern(
                bar, np.full(len(CATALOGUE), 0.5), CATALOGUE.feature_set,
                outcome=make_outcome(bar, r) if is_resolved else None,
            )
            for bar in range(first, first + n)
        ]  # fmt: skip
        if is_started:
            self.registry.start_run(make_run(run_id, status="running", metrics=None, finished_at=None))
            if self.runs.get(run_id) != "finished":
                self.runs[run_id] = "running"
                assert self.registry.get_run(run_id)["status"] == "running"
        save(self.registry, patterns, make_run(run_id, status=status), [take(p) for p in patterns], names=None)
        if self.runs.get(run_id) != "finished":
            self.runs[run_id] = status
        for pattern in patterns:
            old = self.model.setdefault(
                pattern.pattern_id,
                {"symbol": "GOOG", "side": 1, "label": None, "outcome": None, "paper": False, "barrier": None,
                 "confidence": None, "r": None, "strategy": "Cross"},
            )  # fmt: skip
            if is_resolved and old["barrier"] is None:
                old["barrier"], old["r"] = ("win" if r > 0 else "loss"), r + 0.0
        return multiple(*(pattern.pattern_id for pattern in patterns))

    @rule(pattern_id=ids, label=LABELS, outcome=st.none() | st.floats(-50, 50))
    def label(self, pattern_id, label, outcome):
        assert self.registry.label_pattern(pattern_id, label, outcome) is True
        self.model[pattern_id]["label"] = label
        if outcome is not None:
            self.model[pattern_id]["outcome"] = outcome + 0.0

    @rule(pattern_id=ids, paper=st.none() | st.booleans(), outcome=st.none() | st.floats(-50, 50))
    def trade(self, pattern_id, paper, outcome):
        assert self.registry.update_trade_status(pattern_id, paper_traded=paper, outcome=outcome) is True
        if paper is not None:
            self.model[pattern_id]["paper"] = paper
        if outcome is not None:
            self.model[pattern_id]["outcome"] = outcome + 0.0

    @rule(pattern_id=ids, label=st.sampled_from(["Win", "", "x'; --"]))
    def mislabel(self, pattern_id, label):
        with pytest.raises(DataError, match="label is"):
            self.registry.label_pattern(pattern_id, label)

    @rule()
    def ask_for_what_is_not_there(self):
        assert self.registry.label_pattern("nothing", "win") is False
        with pytest.raises(DataError, match="'nothing' is not in"):
            self.registry.get_pattern("nothing")

    @rule(pattern_id=consumes(ids))
    def look(self, pattern_id):
        stored, expected = self.registry.get_pattern(pattern_id), self.model[pattern_id]
        found = {
            "symbol": stored["symbol"], "side": stored["side"], "label": stored["user_label"],
            "outcome": stored["trade_outcome"], "paper": stored["paper_traded"], "barrier": stored["barrier_outcome"],
            "confidence": stored["ml_confidence"], "r": stored["r_multiple"], "strategy": stored["strategy"],
        }  # fmt: skip
        assert found == expected

    @invariant()
    def counts_agree(self):
        if not hasattr(self, "model"):
            return
        counted, rows = self.registry.get_statistics(), self.model.values()
        assert counted["n_patterns"] == len(rows)
        assert counted["symbols"] == Counter(row["symbol"] for row in rows)
        assert counted["labels"] == Counter(row["label"] for row in rows if row["label"])
        assert counted["runs"] == Counter(self.runs.values())
        results = [row["label"] or row["barrier"] for row in rows if row["label"] != "ignore"]
        n_known = sum(result is not None for result in results)
        assert counted["barrier_win_share"] == (results.count("win") / n_known if n_known else None)
        known = self.registry.known_patterns(CATALOGUE.feature_set, CATALOGUE.names)
        assert len(known) == n_known
        assert int(known.is_win.sum()) == results.count("win")
        unlabelled = self.registry.get_unlabeled_patterns(1000)
        assert {row["pattern_id"] for row in unlabelled} == {i for i, row in self.model.items() if row["label"] is None}

    @rule()
    def examine(self):
        assert doctor(self.registry.url, deep=True)["damages"] == []


def check(new_url, n_examples):
    machine = type("OnThisEngine", (Machine,), {"new_url": staticmethod(new_url)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=n_examples, stateful_step_count=12, deadline=None, derandomize=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )  # fmt: skip


@pytest.mark.slow
def test_sqlite_does_what_a_dictionary_does():
    def new_url():
        folder = tempfile.TemporaryDirectory()
        return folder.cleanup, f"sqlite:///{folder.name}/registry.db"

    check(new_url, 20)


@pytest.mark.slow
def test_postgresql_does_what_a_dictionary_does(postgresql):
    def new_url():
        schema = schema_of_its_own(postgresql)
        url = schema.__enter__()
        return lambda: schema.__exit__(None, None, None), url

    check(new_url, 10)
