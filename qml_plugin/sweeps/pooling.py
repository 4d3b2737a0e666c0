"""Points whose symbols learn from one another: run, kept and lost together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from qml_plugin.adapters.pooled_cells import run_pooled
from qml_plugin.features import MarketFeatures
from qml_plugin.sweeps.folder import Folder
from qml_plugin.sweeps.task import Plan, Point, loaded, with_tables_kept


def run_pooled_point(plan: Plan, points: Sequence[Point]) -> dict[str, Any]:
    """Run one point on all its symbols, and keep what they leave in the order of `task.run_point`: all or none is believed.

    The records are returned under ``"records"``, in the order of `points`.
    """
    strategy, markets, facts = loaded(plan)
    before = MarketFeatures.n_passes
    common = {**plan.fixed, **points[0].params, "registry": plan.registry}
    done = run_pooled(
        strategy,
        [markets[point.symbol] for point in points],
        plan.host,
        {point.symbol: common | {"symbol": point.symbol} for point in points},
        {point.symbol: replace(point.run, git_diff=facts["git_diff"]) for point in points},
        plan.objective,
    )
    n_passes = MarketFeatures.n_passes - before
    folder = Folder(plan.folder)
    records = [
        with_tables_kept(folder, point.run.run_id, done[point.symbol]) | {"n_feature_passes": n_passes}
        for point in points
    ]
    for left in done.values():
        if left.memory is not None:
            left.memory.commit()
    for point, record in zip(points, records, strict=True):
        folder.write_cell(point.run.run_id, record)
    return {"n_feature_passes": n_passes, "records": records}
