"""What the gate promises of a table of events."""

import math

import numpy as np
import pandas as pd
import pytest

from experiments.gate_worlds import HOUR, Kind, make_world
from qml_plugin.errors import DataError, LookAheadError
from qml_plugin.gate import GateSettings, OnlineGate, Requirements, WalkForwardGate

EAGER = Requirements(min_labels=60, min_per_class=15, level=0.3)


def columns(world):
    return {"X": world.X, "known_at": world.known_at, "resolved_at": world.resolved_at, "r_multiple": world.r_multiple}


@pytest.fixture(scope="module")
def strong():
    return columns(make_world(Kind("strong", 0.76, 400, 1), 3))


@pytest.fixture(scope="module")
def table(strong):
    return WalkForwardGate(seed=0, requirements=EAGER).run(**strong)


def test_one_row_per_event_in_time_order(strong, table):
    assert list(table.columns[:5]) == ["confidence", "low", "high", "action", "reason"]
    assert list(table.index) == list(range(400))
    assert set(table["action"]) == {"take", "skip", "abstain"}
    said = table[table["confidence"].notna()]
    assert len(said) > 300
    assert ((said["low"] <= said["confidence"]) & (said["confidence"] <= said["high"])).all()
    skipped, taken = table[table["action"] == "skip"], table[table["action"] == "take"]
    assert (skipped["confidence"] < skipped["threshold"]).all()
    assert (taken["confidence"] >= taken["threshold"]).all()
    assert strong["r_multiple"][skipped.index].mean() < min(0, strong["r_multiple"][taken.index].mean())


def test_the_order_of_the_arrays_does_not_matter(strong, table):
    shuffled = np.random.default_rng(0).permutation(400)
    again = WalkForwardGate(seed=0, requirements=EAGER).run(
        **{name: column[shuffled] for name, column in strong.items()}
    )
    assert list(shuffled[again.index]) == list(table.index)
    pd.testing.assert_frame_equal(again.reset_index(drop=True), table.reset_index(drop=True))


def test_the_past_does_not_depend_on_the_future(strong, table):
    cut = 300
    rng = np.random.default_rng(1)
    now = strong["known_at"][cut]
    later = strong["resolved_at"] > now
    changed = {
        "X": np.where((np.arange(400) > cut)[:, None], rng.normal(3, 5, strong["X"].shape), strong["X"]),
        "known_at": strong["known_at"],
        "resolved_at": np.where(later, strong["resolved_at"] + rng.integers(0, 90, 400) * HOUR, strong["resolved_at"]),
        "r_multiple": np.where(later, rng.normal(0, 4, 400), strong["r_multiple"]),
    }
    again = WalkForwardGate(seed=0, requirements=EAGER).run(**changed)
    pd.testing.assert_frame_equal(again.iloc[: cut + 1], table.iloc[: cut + 1], check_exact=True)
    assert not again.iloc[cut + 1 :].equals(table.iloc[cut + 1 :])


def test_a_table_that_ends_earlier_gives_the_same_past(strong, table):
    short = WalkForwardGate(seed=0, requirements=EAGER).run(**{name: column[:250] for name, column in strong.items()})
    pd.testing.assert_frame_equal(short, table.iloc[:250], check_exact=True)


def test_times_may_be_datetimes(strong, table):
    for zone in (None, "Europe/Berlin"):
        at = {
            name: pd.to_datetime(strong[name], unit="us", utc=True).tz_convert(zone)
            for name in ("known_at", "resolved_at")
        }
        again = WalkForwardGate(seed=0, requirements=EAGER).run(strong["X"], r_multiple=strong["r_multiple"], **at)
        pd.testing.assert_frame_equal(again, table, check_exact=True)


def test_events_that_never_resolve_teach_nothing(strong):
    open_too = {name: np.repeat(column[:120], 2, axis=0) for name, column in strong.items()}
    open_too["r_multiple"][1::2] = np.nan
    open_too["resolved_at"][1::2] = 0
    with_open = WalkForwardGate().run(**open_too)
    without = WalkForwardGate().run(**{name: column[:120] for name, column in strong.items()})
    np.testing.assert_array_equal(with_open["confidence"].to_numpy()[::2], without["confidence"].to_numpy())


def test_fail_closed_skips_what_it_cannot_judge(strong, table):
    closed = WalkForwardGate(requirements=EAGER, on_abstain="fail_closed").run(**strong)
    abstained = table["action"] == "abstain"
    assert (closed.loc[abstained, "action"] == "skip").all()
    assert (closed.loc[abstained, "reason"] == table.loc[abstained, "reason"] + " (fail_closed)").all()
    pd.testing.assert_frame_equal(closed[~abstained], table[~abstained])


def test_executed_memory_learns_only_from_what_was_not_skipped(strong, table):
    executed = WalkForwardGate(requirements=EAGER, memory="executed").run(**strong)
    first = int(np.argmax(table["action"] == "skip"))
    pd.testing.assert_frame_equal(executed.iloc[: first + 1], table.iloc[: first + 1])
    n_skipped = (executed["action"] == "skip").sum()
    assert n_skipped > 5
    assert executed["n_known"].iloc[-1] < table["n_known"].iloc[-1] - n_skipped / 2


def test_the_users_threshold_is_obeyed(strong):
    table = WalkForwardGate(requirements=EAGER, min_confidence=0.5).run(**strong)
    said = table[table["confidence"].notna()]
    assert (said["threshold"] == 0.5).all()
    assert (table.loc[table["confidence"] >= 0.5, "action"] != "skip").all()


def test_a_cost_raises_the_threshold(strong, table):
    costly = WalkForwardGate(requirements=EAGER, cost_r=0.5).run(**strong)
    assert costly["threshold"].iloc[-1] > table["threshold"].iloc[-1] + 0.05


def test_what_is_late_or_novel_is_not_judged(strong, table):
    acted = np.flatnonzero(table["action"] != "abstain")
    late, novel = int(acted[-1]), int(acted[-2])
    distance = np.random.default_rng(0).uniform(1, 2, 400)
    distance[novel] = 3.0
    is_late = np.arange(400) == late
    again = WalkForwardGate(requirements=EAGER).run(**strong, distance=distance, is_late=is_late)
    assert again.loc[late, ["action", "reason"]].tolist() == ["abstain", "deadline: neighbours came too late"]
    assert again.loc[novel, "action"] == "abstain"
    assert again.loc[novel, "reason"].startswith("novel: nearest at 3.00, of past entries ")
    others = again.index.difference([late, novel])
    pd.testing.assert_frame_equal(again.loc[others], table.loc[others])


def driven(strong, n=400):
    """A gate that has learnt the first events of a world, all confidences near the truth."""
    gate = OnlineGate(GateSettings(requirements=EAGER))
    truth = make_world(Kind("strong", 0.76, 400, 1), 3).p_win
    for i in np.argsort(strong["resolved_at"][:n], kind="stable"):
        r = float(strong["r_multiple"][i])
        gate.learn(int(strong["known_at"][i]), int(strong["resolved_at"][i]), r > 0, r, confidence=float(truth[i]))
    learnt = np.argsort(strong["resolved_at"][:n], kind="stable")
    gate.refit(strong["X"][learnt[: gate.due]])
    return gate


def test_a_row_of_another_width_is_named_not_judged(strong):
    gate = driven(strong)
    now = int(strong["resolved_at"].max())
    said = gate.judge(np.zeros(19, np.float32), now)
    assert (said.action, said.reason) == ("abstain", "feature_mismatch: 19 features, fitted on 20")
    assert math.isnan(said.confidence)
    assert gate.judge(strong["X"][0], now).action in ("take", "skip")


def test_a_gate_that_hears_nothing_for_too_long_is_stale(strong):
    gate = driven(strong)
    now = int(strong["resolved_at"].max())
    span = now - int(strong["known_at"][0])
    assert gate.judge(strong["X"][0], now + span // 2).action != "abstain"
    assert gate.judge(strong["X"][0], now + 2 * span).reason.startswith("stale_model: no outcome since ")


def test_past_scores_of_a_like_confidence_are_shown(strong):
    gate = driven(strong)
    said = gate.judge(strong["X"][0], int(strong["resolved_at"].max()))
    assert said.bucket.n == pytest.approx(gate._fitted_size / 5, abs=1)
    assert said.bucket.low <= said.confidence
    shares = [bucket.win_frac for bucket in gate._buckets]
    assert shares[0] < shares[-1]


def test_a_gate_refuses_to_look_back(strong):
    gate = driven(strong)
    with pytest.raises(LookAheadError, match="Judge entries before learning what resolved after them"):
        gate.judge(strong["X"][0], int(strong["known_at"][10]))
    with pytest.raises(DataError, match="Learn outcomes in the order in which they resolved"):
        gate.learn(0, 1, True, 1.0)
    with pytest.raises(DataError, match="401 rows refused: 400 outcomes are known"):
        gate.refit(np.zeros((401, 20), np.float32))
    with pytest.raises(DataError, match="r_multiple is nan"):
        gate.learn(10**18, 10**18, True, math.nan)
    assert len(gate) == 400


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"known_at": np.arange(399)}, "refused. X has a row"),
        ({"X": np.full((400, 20), np.inf)}, "feature 0 of event 0 is infinite"),
        ({"r_multiple": np.full(400, np.inf)}, "an r_multiple is infinite"),
        ({"resolved_at": np.zeros(400, int)}, "event 0 resolves at 0, before it is known"),
        ({"is_win": np.ones(3, bool)}, "'is_win': 3"),
    ],
)
def test_columns_that_do_not_fit_are_refused(strong, change, message):
    with pytest.raises(DataError, match=message):
        WalkForwardGate().run(**(strong | change))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "magic"}, "gate model 'magic' is unknown"),
        ({"min_confidence": 1.5}, r"min_confidence is 1\.5"),
        ({"on_abstain": "open"}, "on_abstain 'open' is unknown"),
        ({"cost_r": -1.0}, r"cost_r is -1\.0"),
        ({"memory": "all"}, "memory 'all' is unknown"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_settings_that_cannot_work_are_refused(options, message):
    with pytest.raises(DataError, match=message):
        WalkForwardGate(**options)
