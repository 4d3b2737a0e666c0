import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qml_plugin.errors import DataError
from qml_plugin.gate import kelly_risk_frac


def test_known_values():
    # Full Kelly stakes: 0.2 of equity at 60 % for even money, 0.25 at 50 % for two to one.
    full = {"fraction": 1.0, "cap_frac": 1.0}
    assert kelly_risk_frac(0.6, 1.0, **full) == pytest.approx(0.2)
    assert kelly_risk_frac(0.5, 2.0, **full) == pytest.approx(0.25)
    assert kelly_risk_frac(0.5, 2.0, cap_frac=1.0) == pytest.approx(0.0625)
    np.testing.assert_array_equal(kelly_risk_frac([0.5, np.nan, 0.1], 2.0), [0.02, 0.0, 0.0])


@given(p=st.floats(0.01, 0.99), win_r=st.floats(0.2, 5), loss_r=st.floats(0.2, 2))
def test_the_full_stake_makes_growth_largest(p, win_r, loss_r):
    stake = float(kelly_risk_frac(p, win_r, loss_r, fraction=1.0, cap_frac=1.0))
    stake = min(stake, 0.999 / loss_r)

    def growth(f):
        return p * np.log1p(f * win_r) + (1 - p) * np.log1p(-f * loss_r)

    for other in (stake + 0.01, stake - 0.01):
        if 0 <= other < min(1.0, 0.99 / loss_r):
            assert growth(other) <= growth(stake) + 1e-12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"confidence": 1.2, "win_r": 1.0}, r"lies outside 0\.\.1"),
        ({"confidence": 0.5, "win_r": 0.0}, r"win_r 0\.0"),
        ({"confidence": 0.5, "win_r": 1.0, "loss_r": -1.0}, r"loss_r -1\.0"),
        ({"confidence": 0.5, "win_r": 1.0, "fraction": 2.0}, r"fraction 2\.0"),
        ({"confidence": 0.5, "win_r": 1.0, "cap_frac": -0.1}, r"cap_frac -0\.1"),
    ],
)
def test_impossible_numbers_are_refused(arguments, message):
    with pytest.raises(DataError, match=message):
        kelly_risk_frac(**arguments)
