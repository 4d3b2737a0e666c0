import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qml_plugin.errors import DataError
from qml_plugin.labels.weights import average_uniqueness


def naive_uniqueness(known_at, resolved_at, group):
    """Count the open labels at every unit of time."""
    out = []
    for begin, end, own in zip(known_at, resolved_at, group, strict=True):
        others = [(b, e) for b, e, g in zip(known_at, resolved_at, group, strict=True) if g == own]
        if begin == end:
            out.append(1 / sum(b <= begin <= e for b, e in others))
        else:
            shares = [1 / sum(b <= moment < e for b, e in others) for moment in range(begin, end)]
            out.append(sum(shares) / len(shares))
    return np.array(out)


@settings(max_examples=150, deadline=None)
@given(
    events=st.lists(
        st.tuples(st.integers(0, 20), st.integers(0, 8), st.sampled_from(["a|1h", "b|1h", "a|4h"])), max_size=20
    ),
)
def test_equals_counting_at_every_moment(events):
    known_at = np.array([begin for begin, _, _ in events], dtype=np.int64)
    resolved_at = known_at + np.array([length for _, length, _ in events], dtype=np.int64)
    group = [name for _, _, name in events]
    uniqueness = average_uniqueness(known_at, resolved_at, group)
    np.testing.assert_allclose(uniqueness, naive_uniqueness(known_at, resolved_at, group), rtol=1e-12)
    assert ((uniqueness > 0) & (uniqueness <= 1)).all()


def test_by_hand():
    # 0-4 alone for 2, shared with 2-6 for 2: (2 + 2/2) / 4. The label at 10 is alone; two at 20 have no length.
    uniqueness = average_uniqueness(np.array([0, 2, 10, 20, 20]), np.array([4, 6, 11, 20, 20]), ["x"] * 5)
    np.testing.assert_array_equal(uniqueness, [0.75, 0.75, 1.0, 0.5, 0.5])


def test_a_label_alone_gets_exactly_one_in_real_microseconds():
    hour = 3_600_000_000
    known_at = 1_500_000_000_000_000 + np.arange(5000) * 7 * hour
    resolved_at = known_at + 6 * hour
    known_at[:3] = known_at[0]
    uniqueness = average_uniqueness(known_at, resolved_at, np.full(5000, "EURUSD|1h"))
    assert (uniqueness[3:] == 1.0).all()


def test_groups_do_not_overlap_and_order_does_not_matter():
    rng = np.random.default_rng(0)
    known_at = rng.integers(0, 1000, 200)
    resolved_at = known_at + rng.integers(0, 50, 200)
    group = rng.choice(["a", "b"], 200)
    whole = average_uniqueness(known_at, resolved_at, group)
    only_a = group == "a"
    np.testing.assert_array_equal(
        whole[only_a], average_uniqueness(known_at[only_a], resolved_at[only_a], group[only_a])
    )
    shuffled = rng.permutation(200)
    np.testing.assert_array_equal(
        whole[shuffled], average_uniqueness(known_at[shuffled], resolved_at[shuffled], group[shuffled])
    )


def test_no_events_no_weights():
    assert average_uniqueness(np.array([], np.int64), np.array([], np.int64), []).shape == (0,)


def test_refuses_columns_of_different_length():
    with pytest.raises(DataError, match="got 2 known_at, 2 resolved_at and 1 groups"):
        average_uniqueness(np.array([1, 2]), np.array([2, 3]), ["a"])


def test_refuses_an_event_that_ends_before_it_begins():
    with pytest.raises(DataError, match="event 1 resolves at 1, before it is known at 2"):
        average_uniqueness(np.array([1, 2]), np.array([2, 1]), ["a", "a"])
