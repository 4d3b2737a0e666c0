"""A handful of features in words: what a person wants to know of the market before labelling a pattern."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any


def key_features(features: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The features that say most to a person, in words.

    Parameters
    ----------
    features : mapping of str to float
        Features of one pattern by name, of any catalogue; NaN or absent is missing.

    Returns
    -------
    tuple of (str, str)
        Name of the feature and its value in words, in a fixed order; what is missing is left out.

    Point in time
    -------------
    Reads the features of the decision's moment only. Confidence and outcome are not among them: a label should not
    follow the model that will learn from it.

    References
    ----------
    Wilder (1978), New Concepts in Technical Trading Systems, for RSI (30 and 70) and ADX (25).

    Examples
    --------
    >>> key_features({"ctx_rsi_14": 28.4, "geo_rr_ratio": 2.0, "ctx_adx_14": float("nan")})
    (('geo_rr_ratio', 'target 2.0 times as far as the stop'), ('ctx_rsi_14', 'RSI 28, oversold'))
    """
    found = ((name, _number(features.get(name)), say) for name, say in _WORDS)
    return tuple((name, say(value)) for name, value, say in found if value is not None)


def _number(value: object) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None  # type: ignore[arg-type]


def _beside(value: float, above: str, below: str) -> str:
    return above if value >= 0 else below


def _rsi(value: float) -> str:
    return f"RSI {value:.0f}, " + ("oversold" if value < 30 else "overbought" if value > 70 else "in its middle")


def _adx(value: float) -> str:
    return f"ADX {value:.0f}, " + ("a trend" if value > 25 else "no trend" if value < 20 else "hardly a trend")


def _stack(value: float) -> str:
    if abs(value) >= 0.6:
        return f"averages of 10 to 200 bars stacked {_beside(value, 'upwards', 'downwards')}"
    return "averages of 10 to 200 bars in no order"


def _volatility(value: float) -> str:
    kind = "high" if value > 0.8 else "low" if value < 0.2 else "usual"
    return f"volatility {kind}: above {100 * value:.0f} % of the last 100 bars"


_WORDS: tuple[tuple[str, Callable[[float], str]], ...] = (
    ("geo_rr_ratio", lambda value: f"target {value:.1f} times as far as the stop"),
    ("geo_risk_atr", lambda value: f"stop {value:.1f} ATR away"),
    ("geo_head_depth_atr", lambda value: f"head {abs(value):.1f} ATR {_beside(value, 'beyond', 'short of')} the left shoulder"),
    ("ctx_rsi_14", _rsi),
    ("ctx_dist_ema_200_atr", lambda value: f"close {abs(value):.1f} ATR {_beside(value, 'above', 'below')} its 200-bar EMA"),
    ("regime_ma_stack", _stack),
    ("ctx_adx_14", _adx),
    ("vol_atr_pctile_100", _volatility),
    ("mom_return_20_norm", lambda value: f"{abs(value):.1f} standard deviations {_beside(value, 'up', 'down')} in 20 bars"),
    ("vol_relative_20", lambda value: f"volume {value:.1f} times its mean of 20 bars"),
)  # fmt: skip
