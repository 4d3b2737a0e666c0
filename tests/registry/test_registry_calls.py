"""The calls that people make: register, label, ask, train."""

from __future__ import annotations

import inspect
import math
import warnings
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from qml_plugin.clock import from_datetime
from qml_plugin.errors import DataError
from qml_plugin.features import CATALOGUE
from qml_plugin.registry import PatternRegistry
from qml_plugin.registry.feature_sets import catalogue
from qml_plugin.registry.maintenance import doctor
from tests.registry.registry_samples import FEATURE_SET, HOUR, NAMES, START, execute, make_outcome, make_pattern, save

FEATURES = [feature.name for feature in CATALOGUE]
DATA = {
    "symbol": "BTC/USDT",
    "timeframe": "4h",
    "pattern_type": "bullish_qml",
    "detection_time": "2024-03-31 12:00",
    "detection_idx": 120,
    "entry_price": 100.0,
    "stop_loss": 95.0,
    "take_profit": 110.0,
    "left_shoulder_price": 99.0,
    "left_shoulder_idx": 90,
    "head_price": 96.0,
    "head_idx": 102,
    "right_shoulder_price": 100.0,
    "right_shoulder_idx": 120,
    "validity_score": 0.8,
}

EVERY_ENGINE = True


def vector(seed, **changes):
    values = np.random.default_rng(seed).normal(size=len(FEATURES))
    return dict(zip(FEATURES, values.tolist(), strict=True)) | changes


def add(registry, number, label=None, outcome=None, **changes):
    """One registered pattern, a bar later for each number, and perhaps labelled."""
    moment = pd.Timestamp("2024-01-01") + pd.Timedelta(hours=4 * number)
    pattern_id = registry.register_pattern({**DATA, "detection_time": moment, **changes}, vector(number))
    if label is not None:
        assert registry.label_pattern(pattern_id, label, outcome)
    return pattern_id


def resolve(path, pattern_id, moment, result="win", r_multiple=2.0):
    execute(
        path,
        "UPDATE ml_pattern_registry SET resolved_at = ?, barrier_outcome = ?, r_multiple = ? WHERE pattern_id = ?",
        (moment, result, r_multiple, pattern_id),
    )


def test_the_signatures_are_those_of_the_documents():
    expected = {
        "register_pattern": "(pattern_data, features, ml_confidence=None)",
        "label_pattern": "(pattern_id, label, outcome=None)",
        "get_training_data": "(min_labels=30, as_of=None)",
        "find_similar_patterns": "(current_features, n=5, as_of=None, **filters)",
        "get_statistics": "()",
        "get_unlabeled_patterns": "(limit=50)",
        "get_pattern": "(pattern_id)",
        "get_patterns": "(symbol=None, timeframe=None, pattern_type=None, label=None, min_validity=None, limit=100)",
        "update_trade_status": "(pattern_id, paper_traded=None, live_traded=None, outcome=None)",
    }
    for name, signature in expected.items():
        parameters = list(inspect.signature(getattr(PatternRegistry, name)).parameters.values())[1:]
        bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
        assert str(inspect.Signature(bare)) == signature


def test_a_described_pattern_becomes_a_row(registry, path):
    pattern_id = registry.register_pattern(DATA, vector(1), 0.625)
    assert registry.register_pattern(dict(reversed(DATA.items())), vector(1)) == pattern_id
    stored = registry.get_pattern(pattern_id)
    assert {name: stored[name] for name in ("symbol", "timeframe", "pattern_type", "validity_score")} == {
        "symbol": "BTC/USDT",
        "timeframe": "4h",
        "pattern_type": "bullish_qml",
        "validity_score": 0.8,
    }
    assert (stored["side"], stored["stop_px"], stored["target_px"], stored["strategy"]) == (1, 95.0, 110.0, "manual")
    assert stored["detection_time"] == datetime(2024, 3, 31, 12)
    assert stored["known_at"] == datetime(2024, 3, 31, 16)
    assert stored["ml_confidence"] == 0.625
    assert stored["features"] == vector(1)
    assert stored["order"]["reference_px"] == 100.0
    assert [(point["bar"], point["px"]) for point in stored["setup"]["points"]] == [
        (90, 99.0),
        (102, 96.0),
        (120, 100.0),
    ]
    assert stored["user_label"] is stored["resolved_at"] is None
    assert execute(path, "SELECT count(*) FROM ml_pattern_registry") == [(1,)]


def test_a_short_pattern_without_geometry(registry):
    geometry = {
        f"{point}_{what}": None for point in ("left_shoulder", "head", "right_shoulder") for what in ("price", "idx")
    }
    data = {
        **DATA,
        **geometry,
        "pattern_type": "bearish_qml",
        "stop_loss": 105.0,
        "take_profit": 90,
        "validity_score": None,
    }
    stored = registry.get_pattern(registry.register_pattern(data, {"ctx_rsi_14": None, "ctx_rsi_7": 55}))
    assert (stored["side"], stored["setup"]["points"], stored["validity_score"]) == (-1, [], None)
    assert stored["features"]["ctx_rsi_7"] == 55.0
    assert math.isnan(stored["features"]["ctx_rsi_14"])
    assert set(stored["features"]) == set(FEATURES)


@pytest.mark.parametrize(
    "moment",
    [
        "2024-03-31T14:00+02:00",
        datetime(2024, 3, 31, 12),
        datetime(2024, 3, 31, 12, tzinfo=UTC),
        pd.Timestamp("2024-03-31 12:00", tz="UTC"),
        np.datetime64("2024-03-31T12:00"),
        1_711_886_400_000_000,
    ],
)
def test_one_moment_has_many_spellings(registry, moment):
    assert registry.register_pattern({**DATA, "detection_time": moment}, vector(1)) == registry.register_pattern(
        DATA, vector(1)
    )


@pytest.mark.parametrize("key", DATA)
def test_a_missing_key_is_named(registry, key):
    with pytest.raises(DataError, match=f"pattern_data lacks '{key}'"):
        registry.register_pattern({name: value for name, value in DATA.items() if name != key}, vector(1))
    assert registry.get_statistics()["n_patterns"] == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("symbol", ""), ("symbol", 5), ("timeframe", "4 parsecs"), ("timeframe", None), ("pattern_type", "bearish_qml"),
        ("pattern_type", None), ("detection_time", "yesterday-ish"), ("detection_time", None), ("detection_time", pd.NaT),
        ("detection_idx", -1), ("detection_idx", 1.5), ("detection_idx", True), ("entry_price", "100"),
        ("entry_price", float("nan")), ("stop_loss", None), ("stop_loss", 100.0), ("stop_loss", -1), ("take_profit", 99.0),
        ("take_profit", math.inf), ("left_shoulder_price", None), ("left_shoulder_idx", 103), ("head_price", 0),
        ("head_idx", 89), ("right_shoulder_idx", 121), ("right_shoulder_idx", None), ("validity_score", "good"),
        ("validity_score", math.nan),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_under_its_key(registry, key, value):
    names = {"left_shoulder_idx": "(left_shoulder|head)_idx", "stop_loss": "stop_loss", "head_idx": "head_idx"}
    with pytest.raises(DataError, match=f"'{names.get(key, key)}'"):
        registry.register_pattern({**DATA, key: value}, vector(1))
    assert registry.get_statistics()["n_patterns"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({**DATA, "head_prize": 1.0}, vector(1)), "'head_prize' that is not known"),
        (([], vector(1)), "pattern_data is a list"),
        ((DATA, [1.0]), "features is a list"),
        ((DATA, {}), "features is empty"),
        ((DATA, {"ctx_rsi_15": 1.0}), "feature 'ctx_rsi_15' is not in the catalogue"),
        ((DATA, {"ctx_rsi_14": "high"}), "feature 'ctx_rsi_14' is 'high'"),
        ((DATA, {"ctx_rsi_14": math.inf}), "feature 'ctx_rsi_14' of pattern .* is inf"),
        ((DATA, vector(1), 1.5), "ml_confidence is 1.5"),
        ((DATA, vector(1), "sure"), "'ml_confidence' .* 'sure'"),
    ],
)
def test_what_describes_no_pattern_is_refused(registry, arguments, message):
    with pytest.raises(DataError, match=message):
        registry.register_pattern(*arguments)
    assert registry.get_statistics()["n_patterns"] == 0


# Labels


def test_a_label_makes_an_open_pattern_known_from_now_on(registry):
    pattern_id = add(registry, 0)
    before = datetime.now(UTC).replace(tzinfo=None)
    assert registry.label_pattern(pattern_id, "loss", -1.25) is True
    stored = registry.get_pattern(pattern_id)
    assert (stored["user_label"], stored["trade_outcome"]) == ("loss", -1.25)
    assert before <= stored["resolved_at"] <= datetime.now(UTC).replace(tzinfo=None)
    assert registry.get_training_data(1)[1].tolist() == [0]
    with pytest.raises(DataError, match="0 patterns have a known result"):
        registry.get_training_data(1, as_of=before)


def test_a_label_leaves_the_time_of_a_barrier_alone(registry):
    pattern = make_pattern(outcome=make_outcome(0, -1.0))
    save(registry, [pattern])
    assert registry.label_pattern(pattern.pattern_id, "win")
    stored = registry.get_pattern(pattern.pattern_id)
    assert (stored["user_label"], stored["barrier_outcome"]) == ("win", "loss")
    assert from_datetime(stored["resolved_at"]) == START + 5 * HOUR
    assert registry.known_patterns(FEATURE_SET, NAMES).is_win.tolist() == [True]


def test_a_barrier_that_comes_later_brings_its_own_time(registry):
    pattern = make_pattern()
    save(registry, [pattern])
    registry.label_pattern(pattern.pattern_id, "win")
    save(registry, [make_pattern(outcome=make_outcome(0, -1.0))])
    known = registry.known_patterns(FEATURE_SET, NAMES)
    assert (known.is_win.tolist(), known.resolved_at.tolist(), known.r_multiple.tolist()) == (
        [True],
        [START + 5 * HOUR],
        [-1.0],
    )


def test_a_label_can_be_taken_back(registry):
    pattern_id = add(registry, 0, "win", 2.0)
    assert registry.label_pattern(pattern_id, None)
    stored = registry.get_pattern(pattern_id)
    assert stored["user_label"] is stored["resolved_at"] is None
    assert stored["trade_outcome"] == 2.0
    pattern = make_pattern(outcome=make_outcome())
    save(registry, [pattern])
    registry.label_pattern(pattern.pattern_id, "ignore")
    assert len(registry.known_patterns(FEATURE_SET, NAMES)) == 0
    registry.label_pattern(pattern.pattern_id, None)
    assert len(registry.known_patterns(FEATURE_SET, NAMES)) == 1


def test_a_label_is_not_known_before_its_entry_whatever_the_clock_says(registry):
    pattern = make_pattern(0, detection_at=32_503_680_000_000_000, known_at=32_503_683_600_000_000)
    save(registry, [pattern])
    registry.label_pattern(pattern.pattern_id, "win")
    row = registry.get_pattern(pattern.pattern_id)
    assert row["resolved_at"] == row["known_at"]


def test_labelling_the_same_again_changes_nothing(registry, path):
    pattern_id = add(registry, 0, "win", 2.0)
    before = execute(path, "SELECT * FROM ml_pattern_registry")
    assert registry.label_pattern(pattern_id, "win", 2.0)
    assert execute(path, "SELECT * FROM ml_pattern_registry") == before


def test_what_is_not_registered_cannot_be_labelled_or_traded(registry):
    assert registry.label_pattern("nope", "win") is False
    assert registry.update_trade_status("nope", paper_traded=True) is False


@pytest.mark.parametrize("label", ["WIN", "", 1, "win'; DROP TABLE experiments; --"])
def test_a_label_that_is_none_of_the_three(registry, label):
    pattern_id = add(registry, 0)
    with pytest.raises(DataError, match="It must be 'win', 'loss' or 'ignore'"):
        registry.label_pattern(pattern_id, label)
    assert registry.get_pattern(pattern_id)["user_label"] is None


@pytest.mark.parametrize("outcome", [math.nan, math.inf, "2", True])
def test_an_outcome_that_is_no_number(registry, outcome):
    pattern_id = add(registry, 0)
    with pytest.raises(DataError, match=r"outcome is .*finite number"):
        registry.label_pattern(pattern_id, "win", outcome)
    with pytest.raises(DataError, match=r"outcome is .*finite number"):
        registry.update_trade_status(pattern_id, outcome=outcome)


def test_trades_are_noted_one_by_one(registry):
    pattern_id = add(registry, 0)
    assert registry.update_trade_status(pattern_id, paper_traded=True)
    assert registry.update_trade_status(pattern_id, live_traded=True, outcome=-0.0)
    assert registry.update_trade_status(pattern_id)
    stored = registry.get_pattern(pattern_id)
    assert (stored["paper_traded"], stored["live_traded"], stored["trade_outcome"]) == (True, True, 0.0)
    assert stored["user_label"] is stored["resolved_at"] is None
    with pytest.raises(DataError, match="paper_traded is 1"):
        registry.update_trade_status(pattern_id, paper_traded=1)


def test_every_call_leaves_rows_that_their_hash_vouches_for(registry, url):
    ids = [add(registry, n, label) for n, label in enumerate(("win", "loss", "ignore", None))]
    registry.update_trade_status(ids[0], True, True, 1.0)
    registry.label_pattern(ids[1], None)
    registry.register_pattern({**DATA, "detection_time": "2024-01-01"}, vector(0), 0.25)
    save(registry, [make_pattern(outcome=make_outcome())])
    report = doctor(url, deep=True)
    assert (report["damages"], report["n_patterns_checked"], report["n_patterns_without_hash"]) == ([], 5, 0)


# Questions


def test_training_data_are_the_known_results_in_the_order_of_their_time(registry, path):
    ids = [add(registry, n) for n in range(6)]
    for place, pattern_id in enumerate(ids[:4]):
        resolve(path, pattern_id, f"2024-02-0{4 - place} 00:00:00.000000", "win" if place % 2 else "loss")
    registry.label_pattern(ids[0], "win")
    registry.label_pattern(ids[1], "ignore")
    X, y = registry.get_training_data(min_labels=3)
    assert list(X.index) == [ids[3], ids[2], ids[0]]
    assert y.tolist() == [1, 0, 1]
    assert list(X.columns) == FEATURES
    assert X.loc[ids[2]].to_dict() == pytest.approx(vector(2), rel=1e-6)
    assert X.attrs["trained_through"] == datetime(2024, 2, 4)
    X, y = registry.get_training_data(1, as_of="2024-02-02")
    assert (list(X.index), y.tolist()) == ([ids[3], ids[2]], [1, 0])
    assert set(X.dtypes.astype(str)) == {"float32"}


def test_what_resolves_later_is_not_in_the_training_data_of_then(registry):
    bars = range(40)
    width = len(FEATURES)
    feature_set, _ = catalogue()
    patterns = [
        make_pattern(
            bar, np.full(width, bar), feature_set=feature_set, outcome=make_outcome(bar, 1.0 if bar % 3 else -1.0)
        )
        for bar in bars
    ]
    save(registry, patterns[:20], names=None)
    as_of = START + 24 * HOUR
    past = registry.get_training_data(1, as_of=as_of)
    save(registry, patterns[20:], names=None)
    now = registry.get_training_data(1, as_of=as_of)
    pd.testing.assert_frame_equal(past[0], now[0])
    assert past[1].tolist() == now[1].tolist()
    assert len(past[1]) == 20
    assert len(registry.get_training_data()[1]) == 40


def test_too_few_labels_tell_how_many_are_missing_and_how_to_get_them(registry):
    add(registry, 0, "win")
    add(registry, 1)
    save(registry, [make_pattern(outcome=make_outcome())])
    message = r"1 patterns have a known result, 30 are asked for: 29 are missing\. .*label_pattern.*\b1 results belong to other"
    with pytest.raises(DataError, match=message):
        registry.get_training_data()
    with pytest.raises(DataError, match="min_labels is 0"):
        registry.get_training_data(0)


def test_results_from_the_future_are_warned_of(registry, path):
    resolve(path, add(registry, 0), "2999-01-01 00:00:00.000000")
    with pytest.warns(UserWarning, match=r"2999-01-01 00:00, later than now.*Pass as_of"):
        registry.get_training_data(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registry.get_training_data(1, as_of="2999-01-01")


def test_similar_patterns_are_the_nearest_that_were_known(registry, path):
    ids = [add(registry, n) for n in range(30)]
    for n, pattern_id in enumerate(ids):
        resolve(
            path, pattern_id, f"2024-02-{n + 1:02d} 00:00:00.000000" if n < 28 else None, "win" if n % 2 else "loss"
        )
    hits = registry.find_similar_patterns(vector(7), n=4, as_of="2024-02-20")
    assert [hits[0]["pattern_id"], hits[0]["distance"]] == [ids[7], 0.0]
    assert [hit["distance"] for hit in hits] == sorted(hit["distance"] for hit in hits)
    assert all(hit["resolved_at"] <= datetime(2024, 2, 20) for hit in hits)
    assert (hits[0]["outcome"], hits[0]["r_multiple"], hits[0]["side"], hits[0]["symbol"]) == (
        "win",
        2.0,
        1,
        "BTC/USDT",
    )
    for number in range(20, 28):
        execute(path, "DELETE FROM ml_pattern_registry WHERE pattern_id = ?", (ids[number],))
    assert registry.find_similar_patterns(vector(7), n=4, as_of="2024-02-20") == hits
    assert len(registry.find_similar_patterns({"ctx_rsi_14": 0.5}, n=100)) == 20


def test_filters_come_before_the_search(registry, path):
    for n in range(12):
        changes = {"symbol": "ETH/USDT", "timeframe": "1d"} if n % 3 == 0 else {}
        if n % 2:
            changes |= {"stop_loss": 105.0, "take_profit": 90.0, "pattern_type": "bearish_qml"}
        resolve(path, add(registry, n, **changes), "2024-03-01 00:00:00.000000")

    def found(features=None, **filters):
        hits = registry.find_similar_patterns(features or {"ctx_rsi_14": 0.0}, n=50, **filters)
        return len(hits), {hit["symbol"] for hit in hits}, {hit["side"] for hit in hits}

    assert found() == (12, {"BTC/USDT", "ETH/USDT"}, {1, -1})
    assert found(symbol="ETH/USDT") == (4, {"ETH/USDT"}, {1, -1})
    assert found(timeframe="24h") == (4, {"ETH/USDT"}, {1, -1})
    assert found(pattern_type="bearish_qml") == (6, {"BTC/USDT", "ETH/USDT"}, {-1})
    assert found(side=1, symbol="ETH/USDT") == (2, {"ETH/USDT"}, {1})
    assert found({"geo_is_bullish": 0.0}) == (6, {"BTC/USDT", "ETH/USDT"}, {-1})
    assert found(strategy="other") == (0, set(), set())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"colour": "red"}, "filter 'colour' is not known. Filter by symbol, timeframe"),
        ({"side": 0}, "filter 'side' is 0"),
        ({"symbol": 5}, "filter 'symbol' is 5"),
        ({"n": 0}, "n is 0"),
        ({"as_of": "soon"}, "as_of is 'soon'"),
        ({"timeframe": "x"}, "timeframe 'x' is not understood"),
        ({"current_features": {"nope": 1}}, "feature 'nope' is not in the catalogue"),
        ({"current_features": {"ctx_rsi_14": 1e39}}, "beyond the range of float32"),
    ],
)
def test_a_question_that_cannot_be_asked(registry, arguments, message):
    with np.errstate(over="ignore"), pytest.raises(DataError, match=message):
        registry.find_similar_patterns(**{"current_features": vector(1), **arguments})


def test_asking_about_a_past_pattern_without_as_of_is_warned_of(registry, path):
    ids = [add(registry, n) for n in range(4)]
    for n, pattern_id in enumerate(ids):
        resolve(path, pattern_id, f"2024-01-{n + 2:02d} 00:00:00.000000")
    with pytest.warns(
        UserWarning, match=r"features of a pattern known at 2024-01-01 04:00, and 4 of the 4 .*Pass as_of="
    ):
        registry.find_similar_patterns(vector(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert registry.find_similar_patterns(vector(0), as_of="2024-01-01 04:00") == []
        assert len(registry.find_similar_patterns(vector(99))) == 4


def test_patterns_are_listed_newest_first_and_filtered(registry):
    ids = [add(registry, n, symbol="A" if n % 2 else "B", validity_score=n / 10 if n else None) for n in range(6)]
    registry.label_pattern(ids[5], "win")
    registry.label_pattern(ids[4], "ignore")

    def listed(**filters):
        return [pattern["pattern_id"] for pattern in registry.get_patterns(**filters)]

    assert listed() == ids[::-1]
    assert listed(limit=2) == [ids[5], ids[4]]
    assert listed(symbol="A") == [ids[5], ids[3], ids[1]]
    assert listed(timeframe="240m", pattern_type="bullish_qml", min_validity=0.3) == [ids[5], ids[4], ids[3]]
    assert listed(label="win") == [ids[5]]
    assert listed(label="none", symbol="B") == [ids[2], ids[0]]
    assert listed(symbol="' OR 1=1 --") == []
    assert [pattern["pattern_id"] for pattern in registry.get_unlabeled_patterns(limit=3)] == [ids[3], ids[2], ids[1]]
    assert registry.get_patterns(limit=1)[0] == registry.get_pattern(ids[5])


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"limit": 0}, "limit is 0"),
        ({"limit": True}, "limit is True"),
        ({"label": "won"}, "label is 'won'"),
        ({"min_validity": "high"}, "min_validity is 'high'"),
        ({"symbol": 7}, "filter 'symbol' is 7"),
    ],
)
def test_a_list_that_cannot_be_asked_for(registry, filters, message):
    with pytest.raises(DataError, match=message):
        registry.get_patterns(**filters)


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("symbol", "\ud800", "printable"),
        ("symbol", "a\0b", "printable"),
        ("symbol", " ", "not empty"),
        ("symbol", "x" * 101, "at most 100 characters"),
        ("timeframe", "999999999999d", "a count and a unit"),
        ("detection_time", 10**30, "microseconds since 1970"),
        ("detection_time", 1_577_836_800, "not seconds or milliseconds"),
        ("entry_price", 10**400, "a price above 0"),
    ],
)
def test_values_beyond_all_bounds_are_refused_by_their_name(registry, key, value, what):
    with pytest.raises(DataError, match=f"{key}.*{what}"):
        add(registry, 0, **{key: value})
    assert registry.get_statistics()["n_patterns"] == 0


def test_a_pattern_described_anew_keeps_the_first_description_and_says_so(registry):
    first = add(registry, 0)
    with pytest.warns(
        UserWarning, match=f"pattern {first} was registered before with another description, which stays"
    ):
        assert add(registry, 0, detection_idx=119, right_shoulder_idx=118) == first
    assert add(registry, 0) == first


def test_what_is_no_id_is_no_pattern(registry):
    assert registry.label_pattern(5, "win") is False
    assert registry.update_trade_status(None, paper_traded=True) is False
    with pytest.raises(DataError, match=r"5 is not in"):
        registry.get_pattern(5)


def test_similar_patterns_of_now_do_not_include_results_dated_later(registry, path):
    resolve(path, add(registry, 0), "2999-01-01 00:00:00.000000")
    resolve(path, add(registry, 1), "2024-01-01 00:00:00.000000")
    found = registry.find_similar_patterns({"ctx_rsi_14": 30.0})
    assert len(found) == 1
