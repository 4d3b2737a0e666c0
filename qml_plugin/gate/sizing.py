"""Position size from confidence."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from qml_plugin.errors import DataError
from qml_plugin.records import FloatArray


def kelly_risk_frac(
    confidence: ArrayLike, win_r: float, loss_r: float = 1.0, *, fraction: float = 0.25, cap_frac: float = 0.02
) -> FloatArray:
    """Share of equity to put at risk, by a fraction of the Kelly criterion.

    Nothing calls it by default: a strategy that wants it multiplies its own size.

    Parameters
    ----------
    confidence : array, 0..1
        P(win); NaN is not known.
    win_r, loss_r : float, R, > 0
        Mean gain of a win and mean loss of a loss, in units of planned risk.
    fraction : float, 0..1, default=0.25
        Share of the full Kelly stake. The full one is right only if P(win) is; a quarter gives up little growth for
        much less variance.
    cap_frac : float, 0..1, default=0.02
        The most ever put at risk.

    Returns
    -------
    ndarray, 0..cap_frac
        Equity at risk as a fraction: ``fraction * (P / loss_r - (1 - P) / win_r)``, at least 0 and at most the cap. 0
        where the confidence is NaN.

    Point in time
    -------------
    Value i reads confidence[i] only; pass means of R known at the time.

    Raises
    ------
    DataError
        If a number lies outside its range.

    References
    ----------
    Kelly (1956), A new interpretation of information rate, Bell System Technical Journal 35(4). For a fraction of it:
    MacLean, Ziemba & Blazenko (1992), Growth versus security in dynamic investment analysis.

    Examples
    --------
    >>> kelly_risk_frac([0.6, 0.5, 0.3], win_r=1.0, cap_frac=1.0).round(3).tolist()
    [0.05, 0.0, 0.0]
    """
    p = np.asarray(confidence, dtype=np.float64)
    if (p < 0).any() or (p > 1).any():
        raise DataError("a confidence lies outside 0..1. It is a probability, or NaN where there is none.")
    if not (0 < win_r < np.inf and 0 < loss_r < np.inf and 0 <= fraction <= 1 and 0 <= cap_frac <= 1):
        raise DataError(
            f"win_r {win_r}, loss_r {loss_r}, fraction {fraction}, cap_frac {cap_frac} refused. The first two are "
            "above 0, the other two lie in 0..1."
        )
    stake = fraction * (p / loss_r - (1 - p) / win_r)
    return np.asarray(np.clip(np.nan_to_num(stake), 0.0, cap_frac))
