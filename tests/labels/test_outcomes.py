import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qml_plugin.bars import Bars, bars_from_frame
from qml_plugin.errors import DataError
from qml_plugin.labels.outcomes import barrier_outcome, barriers_for, last_resolving_bar
from qml_plugin.records import BarrierRule, Entry


def make_bars(rows: list[tuple[float, float, float, float]]) -> Bars:
    index = pd.date_range("2024-01-01", periods=len(rows), freq="h")
    return bars_from_frame(
        pd.DataFrame(rows, columns=["Open", "High", "Low", "Close"], index=index), symbol="X", timeframe="1h"
    )


def make_entry(
    side=1, stop=95.0, target=110.0, *, bar=0, reference=100.0, limit=None, trigger=None, fill="open", max_bars=50
):
    return Entry(
        symbol="X", timeframe="1h", strategy="s", pattern_type="p", side=side, bar=bar, detection_at=0, known_at=0,
        reference_px=limit or trigger or reference, stop_px=stop, target_px=target, limit_px=limit, trigger_px=trigger,
        fill=fill, rule=BarrierRule(max_bars=max_bars),
    )  # fmt: skip


def outcome(entry, rows, through=None):
    bars = make_bars(rows)
    return barrier_outcome(entry, bars, through_bar=len(bars) - 1 if through is None else through)


FLAT = (100.0, 101.0, 99.0, 100.0)


@pytest.mark.parametrize(
    ("entry", "rows", "expected"),
    [
        # the target, one bar after the fill at the next open
        (make_entry(), [FLAT, FLAT, (100, 111, 99, 109)], ("target", 2, 110.0, 2.0)),
        # both barriers in one bar: the stop counts
        (make_entry(), [FLAT, (100, 111, 94, 100)], ("stop", 1, 95.0, -1.0)),
        # a gap through the stop fills at the open
        (make_entry(), [FLAT, FLAT, (90, 92, 89, 91)], ("stop", 2, 90.0, -2.0)),
        # a gap through the target fills at the open
        (make_entry(), [FLAT, FLAT, (115, 116, 114, 115)], ("target", 2, 115.0, 3.0)),
        # a gap through the stop before the fill costs nothing but the fill
        (make_entry(), [FLAT, (90, 92, 89, 91)], ("stop", 1, 90.0, 0.0)),
        # time limit: close of the second exposed bar
        (make_entry(max_bars=2), [FLAT, FLAT, (100, 104, 99, 102.5)], ("time", 2, 102.5, 0.5)),
        # short: mirrored
        (make_entry(-1, 105.0, 90.0), [FLAT, FLAT, (100, 101, 89, 90)], ("target", 2, 90.0, 2.0)),
        (make_entry(-1, 105.0, 90.0), [FLAT, (100, 106, 89, 100)], ("stop", 1, 105.0, -1.0)),
        # filled at the decision's close: that bar itself is not checked
        (make_entry(fill="close"), [(100, 120, 80, 100), (100, 101, 94, 96)], ("stop", 1, 95.0, -1.0)),
        (make_entry(fill="close", max_bars=1), [FLAT, (100, 103, 99, 102.5)], ("time", 1, 102.5, 0.5)),
        # a buy limit fills at its price, or at a better open
        (make_entry(limit=99.0, stop=94.0), [FLAT, (100, 100, 98.5, 100), (100, 111, 99, 110)], ("target", 2, 110.0, 2.2)),
        (make_entry(limit=99.0, stop=94.0), [FLAT, (97, 98, 96, 97), (97, 98, 93, 94)], ("stop", 2, 94.0, -0.6)),
        # on the bar that fills a limit only the stop is checked
        (make_entry(limit=99.0, stop=94.0), [FLAT, (100, 111, 98, 110), (110, 111, 109, 110)], ("target", 2, 110.0, 2.2)),
        (make_entry(limit=99.0, stop=94.0), [FLAT, (100, 111, 93, 110)], ("stop", 1, 94.0, -1.0)),
        # a stop entry fills at its trigger or at a worse open
        (make_entry(trigger=102.0, stop=97.0), [FLAT, (100, 103, 99, 103), (104, 111, 103, 111)], ("target", 2, 110.0, 1.6)),
        (make_entry(trigger=102.0, stop=97.0), [FLAT, (104, 105, 103, 104), (104, 105, 96, 97)], ("stop", 2, 97.0, -1.4)),
    ],
)  # fmt: skip
def test_worked_examples(entry, rows, expected):
    result = outcome(entry, rows)
    assert (result.exit_reason, result.exit_bar, result.exit_px) == expected[:3]
    assert result.r_multiple == pytest.approx(expected[3])
    assert result.is_win == (expected[3] > 0)


def test_resolved_when_the_exit_bar_is_known():
    bars = make_bars([FLAT, (100, 111, 99, 109), FLAT])
    result = barrier_outcome(make_entry(), bars, through_bar=2)
    assert result.resolved_at == bars.known_at[1] == bars.opened_at[2]


def test_a_stop_limit_waits_for_the_limit_after_a_gap_beyond_it():
    entry = make_entry(trigger=102.0, limit=103.0, stop=95.0, target=120.0)
    rows = [FLAT, (106, 107, 105, 106), (105, 106, 102.5, 104), (104, 121, 103, 120)]
    result = outcome(entry, rows)
    assert (result.entry_bar, result.entry_px, result.exit_reason) == (2, 103.0, "target")


def test_pending_order_that_is_not_reached_in_time_never_resolves():
    entry = make_entry(limit=90.0, stop=80.0, max_bars=2)
    rows = [FLAT, FLAT, FLAT, (100, 100, 79, 80), FLAT, FLAT, FLAT]
    assert outcome(entry, rows) is None
    assert last_resolving_bar(entry) < len(rows)


def test_unresolved_is_none():
    assert outcome(make_entry(), [FLAT] * 10) is None
    assert outcome(make_entry(bar=9), [FLAT] * 10) is None


def naive_market_outcome(entry, rows, through):
    """The rule in plain words, for market orders at the next open."""
    if entry.bar + 1 > through:
        return None
    entry_px = rows[entry.bar + 1][0]
    exposed = range(entry.bar + 1, entry.bar + 1 + entry.rule.max_bars)
    for i in exposed:
        if i > through:
            return None
        open_, high, low, close = rows[i]
        if entry.side > 0:
            stopped, reached = low <= entry.stop_px, high >= entry.target_px
            stop_fill, target_fill = min(open_, entry.stop_px), max(open_, entry.target_px)
        else:
            stopped, reached = high >= entry.stop_px, low <= entry.target_px
            stop_fill, target_fill = max(open_, entry.stop_px), min(open_, entry.target_px)
        if stopped:
            return "stop", i, stop_fill, entry_px
        if reached:
            return "target", i, target_fill, entry_px
        if i == exposed[-1]:
            return "time", i, close, entry_px
    return None


@st.composite
def walks(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(3, 60))
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, n)))
    open_ = close * np.exp(rng.normal(0, 0.01, n))
    high = np.maximum(open_, close) * np.exp(np.abs(rng.normal(0, 0.01, n)))
    low = np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0, 0.01, n)))
    return list(zip(open_, high, low, close, strict=True))


@settings(max_examples=150, deadline=None)
@given(walks(), st.sampled_from([1, -1]), st.integers(1, 30), st.data())
def test_agrees_with_the_plain_rule_and_ignores_the_future(rows, side, max_bars, data):
    bar = data.draw(st.integers(0, len(rows) - 1))
    through = data.draw(st.integers(max(bar, 1), len(rows) - 1))
    close = rows[bar][3]
    entry = make_entry(
        side, close * (1 - 0.03 * side), close * (1 + 0.05 * side), bar=bar, reference=close, max_bars=max_bars
    )
    expected = naive_market_outcome(entry, rows, through)
    got = outcome(entry, rows, through)
    assert got == outcome(entry, rows[: through + 1])
    altered = rows[: through + 1] + [(2.0, 3.0, 1.0, 2.0)] * (len(rows) - through - 1)
    assert got == outcome(entry, altered, through)
    if expected is None:
        assert got is None
    else:
        assert (got.exit_reason, got.exit_bar, got.exit_px, got.entry_px) == expected
    if got is not None:
        assert got == outcome(entry, rows), "a resolved outcome never changes"


def test_missing_or_impossible_barriers_come_from_the_rule():
    rule = BarrierRule(stop_atr=2.0, target_atr=4.0)
    assert barriers_for(-1, 100.0, 1.0, rule) == (102.0, 96.0)
    assert barriers_for(1, 100.0, 1.0, rule, 99.0, 103.0) == (99.0, 103.0)
    assert barriers_for(1, 100.0, 1.0, rule, 101.0, 103.0) == (98.0, 103.0)
    assert barriers_for(1, 100.0, float("nan"), rule, 99.0, 103.0) == (99.0, 103.0)
    stop, target = barriers_for(1, 100.0, 0.0, rule)
    assert stop < 100.0 < target


def test_no_barrier_without_atr():
    with pytest.raises(DataError, match="no barrier can be derived from ATR nan"):
        barriers_for(1, 100.0, float("nan"), BarrierRule())
