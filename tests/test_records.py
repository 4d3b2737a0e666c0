import dataclasses

import pytest

from qml_plugin import records
from qml_plugin.records import BarrierRule, Entry, KnownPatterns

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
