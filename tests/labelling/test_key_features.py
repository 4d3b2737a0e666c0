from __future__ import annotations

import numpy as np
import pytest

from qml_plugin.features import CATALOGUE
from qml_plugin.labelling.key_features import _WORDS, key_features


def test_every_key_feature_is_in_the_catalogue():
    assert {name for name, _ in _WORDS} <= set(CATALOGUE.names)


@pytest.mark.parametrize(("name", "value", "text"), [
    ("ctx_rsi_14", 29.9, "RSI 30, oversold"), ("ctx_rsi_14", 70.0, "RSI 70, in its middle"), ("ctx_rsi_14", 71.0, "RSI 71, overbought"),
    ("ctx_adx_14", 19.9, "ADX 20, no trend"), ("ctx_adx_14", 22.0, "ADX 22, hardly a trend"), ("ctx_adx_14", 26.0, "ADX 26, a trend"),
    ("regime_ma_stack", -0.8, "averages of 10 to 200 bars stacked downwards"), ("regime_ma_stack", 0.2, "averages of 10 to 200 bars in no order"),
    ("vol_atr_pctile_100", 0.84, "volatility high: above 84 % of the last 100 bars"),
    ("ctx_dist_ema_200_atr", -1.26, "close 1.3 ATR below its 200-bar EMA"),
    ("mom_return_20_norm", 1.0, "1.0 standard deviations up in 20 bars"),
])  # fmt: skip
def test_values_in_words(name, value, text):
    assert key_features({name: value}) == ((name, text),)


def test_what_is_missing_is_left_out():
    assert key_features({}) == ()
    strange = dict.fromkeys(CATALOGUE.names, float("nan")) | {
        "geo_rr_ratio": float("inf"),
        "ctx_rsi_14": "28",
        "ctx_adx_14": None,
    }
    assert key_features(strange) == ()


def test_any_finite_value_has_words():
    for value in np.random.default_rng(0).normal(scale=100, size=50).tolist():
        found = key_features(dict.fromkeys(CATALOGUE.names, value))
        assert [name for name, _ in found] == [name for name, _ in _WORDS]
        assert all(text and text.isprintable() for _, text in found)
