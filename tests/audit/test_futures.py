"""Another future: the past bit for bit, and bars that are valid."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from qml_plugin.audit.futures import FUTURES, other_future
from qml_plugin.bars import read_bars
from tests.conftest import random_walk


@pytest.mark.parametrize("kind", FUTURES)
@pytest.mark.parametrize("cut", [0, 57, 116])
def test_the_past_stays_and_the_future_is_valid_and_another(kind, cut):
    frame = random_walk(120, 3).assign(Signal=np.arange(120) % 7, Word=list("abcd") * 30)
    changed = other_future(frame, cut, kind, np.random.default_rng(1))
    pd.testing.assert_frame_equal(changed.iloc[: cut + 1], frame.iloc[: cut + 1], check_exact=True)
    assert changed.dtypes.equals(frame.dtypes)
    assert read_bars(changed).index.equals(changed.index.tz_localize("UTC"))
    if kind == "shorter":
        assert cut + 3 <= len(changed) < max(len(frame), cut + 4)
    else:
        assert changed.index.equals(frame.index)
        assert (changed["Close"].iloc[cut + 1 :] != frame["Close"].iloc[cut + 1 :]).any()


def test_integers_stay_integers():
    frame = (random_walk(100, 1) * 1000).round().astype("int64")
    for kind in FUTURES:
        assert other_future(frame, 40, kind, np.random.default_rng(0)).dtypes.eq("int64").all(), kind


def test_the_same_seed_makes_the_same_future():
    frame = random_walk(100, 1)
    one, two = (other_future(frame, 40, "garbage", np.random.default_rng(5)) for _ in range(2))
    pd.testing.assert_frame_equal(one, two)
