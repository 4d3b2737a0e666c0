import dataclasses
import json

import pytest

from qml_plugin import records
from qml_plugin.records import BarrierRule, Bucket, Decision, Entry, KnownPatterns, Neighbour

ENTRY = Entry(
    symbol="EURUSD", timeframe="1h", strategy="SmaCross", pattern_type="long_signal", side=1, bar=7, detection_at=1, known_at=2,
    reference_px=1.1, stop_px=1.0, target_px=1.3,
)  # fmt: skip


def test_records_are_frozen_and_slotted():
    classes = [value for value in vars(records).values() if dataclasses.is_dataclass(value)]
    assert len(classes) >= 9
    for cls in classes:
        assert cls.__dataclass_params__.frozen, cls
        assert "__slots__" in vars(cls), cls


@pytest.mark.parametrize(
    "change",
    [
        {"symbol": "GBPUSD"}, {"timeframe": "4h"}, {"detection_at": 2}, {"strategy": "Other"}, {"pattern_type": "bullish_qml"}, {"side": -1},
        {"rule": BarrierRule(max_bars=20)}, {"limit_px": 1.05}, {"trigger_px": 1.2}, {"fill": "close"}, {"stop_px": 1.01}, {"target_px": 1.4},
    ],
)  # fmt: skip
def test_whatever_makes_an_entry_another_gives_another_id(change):
    assert dataclasses.replace(ENTRY, **change).pattern_id != ENTRY.pattern_id


def test_the_id_does_not_depend_on_where_the_series_starts():
    assert dataclasses.replace(ENTRY, bar=107).pattern_id == ENTRY.pattern_id


def test_the_id_is_stable():
    assert ENTRY.pattern_id == "811766ea-7843-5784-9c45-070b1ec3fab8"


def test_an_empty_memory():
    known = KnownPatterns.empty("set", 3)
    assert len(known) == 0
    assert known.features.shape == (0, 3)


def test_a_decision_explains_itself_as_data_and_text():
    decision = Decision(
        "p", "skip", "unconvinced: 0.310 < 0.400", confidence=0.31, base_rate=0.43, threshold=0.4, model="logistic",
        n_known=300, neighbours=(Neighbour("a", 1.0, 5, True, 1.5), Neighbour("b", 2.0, 6, False, -1.0)),
        contributions=(("ctx_rsi_14", -0.2),), low=0.25, high=0.38, bucket=Bucket(0.28, 0.34, 60, 0.3),
    )  # fmt: skip
    explanation = decision.explain()
    data = json.loads(json.dumps(explanation.data))
    assert (data["reason"], data["reason_detail"], data["is_taken"]) == ("unconvinced", "0.310 < 0.400", False)
    assert (data["confidence_low"], data["confidence_high"]) == (0.25, 0.38)
    assert data["bucket"] == {"low": 0.28, "high": 0.34, "n": 60, "win_frac": 0.3}
    assert data["contributions"] == [{"feature": "ctx_rsi_14", "log_odds": -0.2}]
    assert [neighbour["pattern_id"] for neighbour in data["neighbours"]] == ["a", "b"]
    assert str(explanation).splitlines() == [
        "skip (unconvinced): 0.310 < 0.400",
        "P(win) 0.310, 0.250 to 0.380; base rate 0.430, threshold 0.400; logistic spoke, 300 outcomes known",
        "of 60 past entries with P(win) 0.280 to 0.340, 30.0% won",
        "of 2 nearest past patterns 1 won, mean +0.25 R",
        "log-odds added: ctx_rsi_14 -0.200",
    ]


def test_a_decision_without_a_model_explains_that():
    explanation = Decision("p", "take", "record_only").explain()
    assert str(explanation) == "take (record_only)\nno confidence; 0 outcomes known"
    assert explanation.data["bucket"] is None


def test_a_decision_read_back_from_the_registry_explains_what_it_kept():
    """The registry keeps neither the interval nor the bucket."""
    decision = Decision("p", "take", "confident: 0.500 >= 0.400", 0.5, 0.43, 0.4, "xgboost", 90)
    assert "P(win) 0.500; base rate 0.430" in str(decision.explain())
