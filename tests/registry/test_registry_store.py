"""What goes into the registry comes out: exactly, once, and without harm to what was there."""

from __future__ import annotations

import json
import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qml_plugin.clock import from_datetime
from qml_plugin.errors import DataError, RegistryError
from qml_plugin.records import Level, Neighbour, Zone
from qml_plugin.registry import PatternRegistry
from qml_plugin.registry.run_rows import params_hash
from qml_plugin.registry.schema import VERSION_TABLE, metadata
from tests.registry.registry_samples import (
    FEATURE_SET,
    HOUR,
    NAMES,
    START,
    dump,
    execute,
    make_outcome,
    make_pattern,
    make_run,
    make_setup,
    save,
    take,
)

FLOATS = st.floats(width=32, allow_infinity=False) | st.floats(-3e38, 3e38)

EVERY_ENGINE = True


def bits(values):
    return np.array(values, np.float64).tobytes()


@settings(max_examples=25, deadline=None)
@given(st.lists(FLOATS, min_size=3, max_size=3))
def test_features_come_back_bit_for_bit(values):
    registry = PatternRegistry("sqlite://")
    pattern = make_pattern(features=values, outcome=make_outcome())
    save(registry, [pattern])
    features = registry.get_pattern(pattern.pattern_id)["features"]
    canonical = [math.nan if math.isnan(value) else value for value in values]
    assert list(features) == NAMES
    assert bits(list(features.values())) == bits(canonical)
    assert registry.known_patterns(FEATURE_SET, NAMES).features.tobytes() == np.float32([canonical]).tobytes()


def test_nan_is_null_in_the_file_and_never_zero(registry, path):
    save(registry, [make_pattern(features=[math.nan, 0.0, 1.0], confidence=math.nan, outcome=make_outcome())])
    assert execute(path, "SELECT features_json, ml_confidence FROM ml_pattern_registry") == [
        ('{"ctx_atr":null,"mom_return":0.0,"geo_depth":1.0}', None)
    ]
    assert np.isnan(registry.known_patterns(FEATURE_SET, NAMES).confidence).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
def test_times_come_back_to_the_microsecond(moment):
    registry = PatternRegistry("sqlite://")
    pattern = make_pattern(detection_at=moment, known_at=moment, outcome=make_outcome(resolved_at=moment))
    save(registry, [pattern], make_run(started_at=moment))
    stored = registry.get_pattern(pattern.pattern_id)
    known = registry.known_patterns(FEATURE_SET, NAMES)
    assert stored["detection_time"].tzinfo is None
    assert from_datetime(stored["detection_time"]) == known.known_at[0] == known.resolved_at[0] == moment
    assert from_datetime(registry.get_runs()[0]["started_at"]) == moment


def test_what_else_a_detector_saw_is_kept_and_left_out_where_it_saw_nothing(registry):
    block = Zone(98.5, 99.75, 2)
    seen = replace(make_setup(), levels=(Level("change of character", 99.0, 5),), order_block=block)
    patterns = [make_pattern(bar=7, setup=seen), make_pattern(bar=8, setup=make_setup())]
    save(registry, patterns)
    full, plain = (registry.get_pattern(pattern.pattern_id)["setup"] for pattern in patterns)
    assert full["levels"] == [{"name": "change of character", "px": 99.0, "bar": 5}]
    assert full["order_block"] == {"low_px": 98.5, "high_px": 99.75, "bar": 2}
    assert set(full) - set(plain) == {"levels", "order_block"}
    assert plain["points"] == full["points"]


def test_a_pattern_has_the_documented_columns(registry):
    pattern = make_pattern(
        bar=7, setup=make_setup(), outcome=make_outcome(7, -1.0), confidence=0.625, trade_return_frac=0.025
    )
    save(registry, [pattern])
    stored = registry.get_pattern(pattern.pattern_id)
    created_at = datetime(2020, 12, 5, 20, 26, 40, 17)
    assert stored.pop("features")["ctx_atr"] == 1.0
    order, setup = stored.pop("order"), stored.pop("setup")
    assert order == {"bar": 7, "fill": "open", "limit_px": None, "reference_px": 100.0, "trigger_px": None}
    assert setup["points"][4] == {"bar": 4, "px": 100.0 + 4 / 3, "confirmed_bar": 6}
    assert stored == {
        "pattern_id": pattern.pattern_id,
        "symbol": "GOOG",
        "timeframe": "1h",
        "detection_time": datetime(2020, 9, 13, 19, 26, 40),
        "pattern_type": "long_signal",
        "validity_score": 0.75,
        "ml_confidence": 0.625,
        "user_label": None,
        "trade_outcome": 2.5,
        "paper_traded": False,
        "live_traded": False,
        "regime_at_detection": None,
        "created_at": created_at,
        "updated_at": created_at,
        "strategy": "Cross",
        "side": 1,
        "known_at": datetime(2020, 9, 13, 20, 26, 40),
        "resolved_at": datetime(2020, 9, 14, 0, 26, 40),
        "entry_px": 100.25,
        "stop_px": 98.5,
        "target_px": 103.0,
        "barrier_outcome": "loss",
        "r_multiple": -1.0,
        "exit_reason": "stop",
        "label_rule": "barrier(stop=1.5atr,target=3atr,max=50bars)",
        "feature_set": FEATURE_SET,
    }


def test_saving_again_changes_the_times_of_the_run_alone(registry, path):
    patterns = [make_pattern(bar, outcome=make_outcome(bar), confidence=0.5) for bar in range(5)]
    save(registry, patterns)
    before = dump(path)
    save(registry, patterns, make_run(started_at=START, finished_at=START + 1))
    after = dump(path)
    assert after["ml_pattern_registry"] == before["ml_pattern_registry"]
    assert after["run_decisions"] == before["run_decisions"]
    changed = [old != new for old, new in zip(before["experiments"][0], after["experiments"][0], strict=True)]
    assert len(after["experiments"]) == 1
    assert sum(changed) == 2


def test_updated_at_moves_when_an_outcome_arrives_and_created_at_never(registry):
    pattern = make_pattern()
    save(registry, [pattern])
    save(registry, [replace(pattern, outcome=make_outcome())], make_run(finished_at=START + 9000 * HOUR))
    save(registry, [pattern], make_run(finished_at=START + 9500 * HOUR))
    stored = registry.get_pattern(pattern.pattern_id)
    assert from_datetime(stored["created_at"]) == START + 2000 * HOUR + 17
    assert from_datetime(stored["updated_at"]) == START + 9000 * HOUR
    assert stored["barrier_outcome"] == "win"


OPTIONAL = st.none() | st.floats(-1, 1)
STEPS = st.lists(
    st.tuples(st.integers(0, 2), OPTIONAL, OPTIONAL, OPTIONAL, st.sampled_from([None, "win", "loss", "ignore"])),
    max_size=8,
)


@settings(max_examples=25, deadline=None)
@given(STEPS)
def test_registering_fills_what_is_empty_and_erases_nothing(steps):
    registry = PatternRegistry("sqlite://")
    model: dict[str, dict[str, object]] = {}
    for bar, confidence, trade, r_multiple, label in steps:
        outcome = None if r_multiple is None else make_outcome(bar, r_multiple)
        pattern = make_pattern(bar, confidence=confidence, trade_return_frac=trade, outcome=outcome)
        save(registry, [pattern])
        row = model.setdefault(pattern.pattern_id, {})
        offered = {
            "ml_confidence": confidence,
            "trade_outcome": None if trade is None else 100.0 * trade,
            "r_multiple": r_multiple,
            "barrier_outcome": None if outcome is None else "win" if r_multiple > 0 else "loss",
        }
        for name, value in offered.items():
            if row.get(name) is None:
                row[name] = value
        if label is not None:
            row["user_label"] = label
            with registry._database.write() as connection:
                connection.exec_driver_sql(
                    "UPDATE ml_pattern_registry SET user_label = ? WHERE pattern_id = ?", (label, pattern.pattern_id)
                )
    for pattern_id, row in model.items():
        stored = registry.get_pattern(pattern_id)
        assert {name: stored[name] for name in row} == row
    assert registry.get_statistics()["n_patterns"] == len(model)


def test_a_run_is_replaced_with_its_decisions_and_keeps_its_verdict(registry, path):
    first, second = make_pattern(0), make_pattern(1)
    near = Neighbour(first.pattern_id, 0.1, START, True, 2.0)
    save(registry, [first, second], returns={first.pattern_id: 0.01, second.pattern_id: None})
    execute(path, "UPDATE experiments SET verdict = 'NOISE'")
    save(
        registry,
        [second],
        make_run(metrics={"sharpe": math.nan}),
        [take(second, neighbours=(near,), confidence=0.4)],
        {second.pattern_id: -0.5},
    )
    (decision,) = execute(path, "SELECT * FROM run_decisions")
    assert decision[1:5] == (second.pattern_id, "take", 0.4, "record")
    assert json.loads(decision[5]) == [
        {"pattern_id": first.pattern_id, "distance": 0.1, "resolved_at": START, "is_win": True, "r_multiple": 2.0}
    ]
    assert decision[6] == -0.5
    (run,) = registry.get_runs()
    assert run["verdict"] == "NOISE"
    assert run["metrics"] == {"sharpe": None}
    assert run["params"] == {"fast": 10, "slow": 30}
    assert run["params_hash"] == params_hash({"slow": 30, "fast": 10})
    assert registry.get_statistics()["n_patterns"] == 2


def test_runs_come_newest_first(registry):
    for number in range(4):
        save(registry, run=make_run(f"run-{number}", finished_at=START + number % 2))
    assert [run["run_id"] for run in registry.get_runs(3)] == ["run-1", "run-3", "run-0"]
    with pytest.raises(DataError, match="limit is 0"):
        registry.get_runs(0)


def test_statistics_count(registry, path):
    patterns = [make_pattern(bar, outcome=make_outcome(bar, 1.0 if bar else -1.0), side=-1) for bar in range(3)]
    save(registry, [*patterns, make_pattern(9, symbol="EURUSD")])
    save(registry, run=make_run("run-2", status="failed", error="boom", finished_at=START + 9000 * HOUR))
    ignored = patterns[2].pattern_id
    execute(path, "UPDATE ml_pattern_registry SET user_label = 'ignore' WHERE pattern_id = ?", (ignored,))
    statistics = registry.get_statistics()
    assert statistics.pop("last_run")["run_id"] == "run-2"
    assert statistics == {
        "n_patterns": 4,
        "symbols": {"EURUSD": 1, "GOOG": 3},
        "timeframes": {"1h": 4},
        "pattern_types": {"long_signal": 4},
        "strategies": {"Cross": 4},
        "labels": {"ignore": 1},
        "n_resolved": 3,
        "n_open": 1,
        "barrier_win_share": 0.5,
        "first_detection": datetime(2020, 9, 13, 12, 26, 40),
        "last_detection": datetime(2020, 9, 13, 21, 26, 40),
        "n_runs": 2,
        "runs": {"finished": 1, "failed": 1},
    }


def test_an_empty_registry_has_statistics(registry):
    statistics = registry.get_statistics()
    assert statistics["n_patterns"] == statistics["n_runs"] == 0
    assert statistics["barrier_win_share"] is statistics["last_run"] is statistics["first_detection"] is None


ONE, TWO = make_pattern(0), make_pattern(1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patterns": [ONE], "names": NAMES[:2]}, r"shape \(3,\), but 2 names"),
        ({"patterns": [make_pattern(features=[1, -math.inf, 0])]}, "'mom_return' of pattern .* is -inf"),
        ({"patterns": [make_pattern(features=[1, 1e39, 0])]}, "range of float32"),
        ({"patterns": [ONE, make_pattern(1, feature_set="x")]}, "2 feature sets"),
        ({"patterns": [ONE], "decisions": [take(TWO)]}, "not among the run's patterns"),
        ({"patterns": [ONE], "decisions": [take(ONE), take(ONE)]}, "two decisions"),
        ({"patterns": [ONE], "decisions": [], "returns": {ONE.pattern_id: 0.1}}, "no decision in this run"),
        ({"patterns": [make_pattern(side=0)]}, "ck_ml_pattern_registry_side"),
        ({"patterns": [ONE], "decisions": [replace(take(ONE), action="maybe")]}, "ck_run_decisions_action"),
        ({"patterns": [make_pattern(outcome=replace(make_outcome(), exit_reason="luck"))]}, "exit_reason"),
        ({"run": make_run(params={"f": print})}, "params of the run cannot be written as JSON"),
        ({"run": make_run(metrics={1: 2})}, "metrics of the run cannot be written as JSON"),
        ({"run": make_run(seed=2**70)}, "cannot be stored"),
        ({"run": make_run(error="\ud800")}, "cannot be stored"),
        ({"patterns": [ONE], "names": None}, "catalogue"),
    ],
)
def test_what_contradicts_itself_is_refused_and_leaves_nothing(registry, path, arguments, message):
    before = dump(path)
    with pytest.raises(DataError, match=message):
        save(registry, **{"patterns": [TWO], **arguments})
    assert dump(path) == before


def test_an_unknown_pattern_is_refused_with_a_hint(registry):
    with pytest.raises(DataError, match=r"pattern 'nope' is not in .*qml stats"):
        registry.get_pattern("nope")


@pytest.mark.parametrize(
    "text", ["x'); DROP TABLE experiments; --", "<script>alert(1)</script>", "%s ? :a {b}", "Ω\n\t"]
)
def test_text_is_data_and_nothing_else(registry, path, text):
    pattern = make_pattern(symbol=text, strategy=text, timeframe=text, pattern_type=text, outcome=make_outcome())
    save(registry, [pattern], make_run(text, strategy_name=text, error=text, params={text: text}))
    assert registry.get_pattern(pattern.pattern_id)["symbol"] == text
    assert registry.known_patterns(FEATURE_SET, NAMES).group == (f"{text}|{text}",)
    assert registry.get_statistics()["symbols"] == {text: 1}
    assert registry.get_runs()[0]["params"] == {text: text}
    assert registry.known_patterns(text, NAMES).pattern_id == ()
    assert sorted(dump(path)) == sorted([*metadata.tables, VERSION_TABLE])


def test_parameters_hash_in_full_and_whatever_their_order():
    assert params_hash({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert params_hash({"a": np.float64(1.5), "b": (1, 2)}) == params_hash({"b": [1, 2], "a": 1.5})
    values = [math.inf, -math.inf, math.nan, None, 0, 1]
    assert len({params_hash({"a": value}) for value in values}) == len(values)


def test_a_registry_on_a_file_travels_in_a_pickle(registry):
    save(registry, [make_pattern()])
    assert pickle.loads(pickle.dumps(registry)).get_statistics()["n_patterns"] == 1  # noqa: S301
    assert registry.url in repr(registry)


def test_a_registry_in_memory_belongs_to_its_object():
    registry, other = PatternRegistry("sqlite://"), PatternRegistry("sqlite:///:memory:")
    save(registry, [make_pattern()])
    assert registry.get_statistics()["n_patterns"] == 1
    assert other.get_statistics()["n_patterns"] == 0
    with pytest.raises(RegistryError, match="cannot be pickled"):
        pickle.dumps(registry)


@pytest.mark.parametrize("is_in_memory", [False, True])
def test_threads_take_turns(url, is_in_memory):
    registry = PatternRegistry("sqlite://" if is_in_memory else url)
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(save, registry, [make_pattern(n)], make_run(f"run-{n}")) for n in range(20)]
        for job in jobs:
            job.result()
    assert registry.get_statistics()["n_patterns"] == registry.get_statistics()["n_runs"] == 20
