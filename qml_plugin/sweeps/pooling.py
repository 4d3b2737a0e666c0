"""Points whose symbols learn from one another: run, kept and lost together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qml_plugin.adapters.pooled_cells import run_pooled
from qml_plugin.features import MarketFeatures
from qml_plugin.sweeps.task import Left, Plan, Point, Work, kept, left_of, loaded


def computed_pooled(plan: Plan, points: Sequence[Point]) -> list[Left]:
    """What one point leaves on all its symbols, in the order of `points`."""
    strategy, markets, _ = loaded(plan)
    before = MarketFeatures.n_passes
    common = {**plan.fixed, **points[0].params, "registry": plan.registry}
    done = run_pooled(
        strategy,
        [markets[point.symbol] for point in points],
        plan.host,
        {point.symbol: common | {"symbol": point.symbol} for point in points},
        {point.symbol: point.run for point in points},
        plan.objective,
    )
    n_passes = MarketFeatures.n_passes - before
    return [left_of(done[point.symbol], n_passes) for point in points]


def keep_pooled(plan: Plan, points: Sequence[Point], left: Sequence[Left]) -> dict[str, Any]:
    """Write what they left: all or none is believed. Their records are under ``"records"``."""
    return {"n_feature_passes": left[0].record["n_feature_passes"], "records": kept(plan, points, left)}


POOLED = Work(computed_pooled, keep_pooled)
