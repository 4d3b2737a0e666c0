"""What costs do to the result: fees and slippage once, twice, three times; and the costs at which nothing is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qml_plugin.errors import DataError
from qml_plugin.records import FloatArray
from qml_plugin.stats.checked import checked_returns
from qml_plugin.stats.resampling import automatic_block_length, bootstrap_interval
from qml_plugin.vrd.evaluation import annual_sharpe

MULTIPLES = (1.0, 2.0, 3.0)


@dataclass(frozen=True, slots=True, eq=False)
class CostStress:
    """Results at multiples of the costs; arrays of shape (n_multiples,).

    ``mean`` is the mean result a bar (or a trade) with its 90 % interval ``low``, ``high``; ``sharpe`` the annual Sharpe
    ratio. ``break_even`` is the multiple of the costs at which the mean is 0: infinite where there are no costs to
    multiply and the mean is positive, NaN where it was never known. ``cost_frac`` is the sum of the costs, fractions.
    """

    multiple: FloatArray
    mean: FloatArray
    low: FloatArray
    high: FloatArray
    sharpe: FloatArray
    break_even: float
    cost_frac: float
    has_costs: bool


def cost_stress(
    returns: FloatArray,
    costs: FloatArray,
    per_year: float,
    *,
    multiples: Sequence[float] = MULTIPLES,
    level: float = 0.90,
    n_draws: int = 1_000,
    block_length: float | None = None,
    seed: int,
) -> CostStress:
    """Results at multiples of the costs, positions being what they were.

    Parameters
    ----------
    returns : ndarray of shape (n_obs,), fractions
        Of bars or of trades, net of the costs once; usually in excess of the market.
    costs : ndarray of shape (n_obs,), fractions
        Fees and slippage that each return holds.
    per_year : float
        Observations a year.
    multiples : sequence of float, >= 0, default=(1, 2, 3)
    level, n_draws, block_length, seed
        Of the intervals; as `bootstrap_interval`.

    Returns
    -------
    CostStress

    Point in time
    -------------
    Judges a finished run.

    Raises
    ------
    DataError
        If lengths differ, a value is not finite, a cost or a multiple is negative.
    """
    earned, paid = checked_returns(returns), checked_returns(costs, name="costs")
    if len(earned) != len(paid) or (paid < 0).any() or min(multiples, default=-1) < 0:
        raise DataError(
            f"{len(earned)} returns, {len(paid)} costs, the least {paid.min():g}, multiples {tuple(multiples)} refused. Each "
            "return has its cost, and neither costs nor multiples are negative."
        )
    results = [earned - (k - 1.0) * paid for k in multiples]
    block = automatic_block_length(results[0]) if block_length is None else block_length
    found = [
        bootstrap_interval(values, level=level, n_draws=n_draws, block_length=min(block, len(values)), seed=seed)
        for values in results
    ]
    total, cost_frac = float(results[0].sum()), float(paid.sum())
    if cost_frac > 0:
        break_even = float(multiples[0]) + total / cost_frac
    else:
        break_even = np.inf if total > 0 else np.nan
    return CostStress(
        np.array(multiples, dtype=np.float64), np.array([one.estimate for one in found]),
        np.array([one.low for one in found]), np.array([one.high for one in found]),
        np.array([float(annual_sharpe(values, per_year)) for values in results]),
        break_even, cost_frac, cost_frac > 0,
    )  # fmt: skip
