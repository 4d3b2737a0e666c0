"""What a study came to, from what its folder holds: cells, trials, and the verdicts once false discoveries are controlled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qml_plugin.report.study_page import CellView, StudyView
from qml_plugin.stats import false_discovery_p_values
from qml_plugin.studies.description import Description, folder_name
from qml_plugin.studies.folder import PARTS, StudyFolder, is_at_work

_NOTHING: dict[str, Any] = {"status": "waiting", "error": None, "warned": [], "times": None}


def study_page(description: Description, folder: Path | str) -> StudyView:
    """The study as it stands: finished, on its way in another process, or not begun.

    Parameters
    ----------
    description : Description
    folder : path
        Of the study.

    Returns
    -------
    StudyView
        Of the cells that were asked for when the study began or was last resumed; of those of `description`, all waiting,
        where it was not.

    Point in time
    -------------
    Judges finished validations. A cell whose p-value is not known counts as one with p = 1: it was tried. One that failed
    was not.

    Raises
    ------
    DataError
        If the manifest is damaged.
    """
    kept = StudyFolder(Path(folder).absolute())
    manifest = kept.read_manifest()
    if manifest is None:
        return _view(_unbegun(description), [], "waiting")
    running = is_at_work(manifest)
    status = "running" if running else "interrupted" if manifest["status"] == "running" else manifest["status"]
    parts = [
        {part: _part(kept, cell["name"], part, cell["part_ids"][part], running) for part in PARTS}
        for cell in manifest["cells"]
    ]
    return _view(manifest, parts, status)


def _unbegun(description: Description) -> dict[str, Any]:
    d = description
    cells = [
        {
            "name": folder_name(entry.name, market.symbol, market.timeframe), "strategy": entry.name, "symbol": market.symbol,
            "timeframe": market.timeframe,
        }
        for entry, market in d.cells()
    ]  # fmt: skip
    return {
        "name": d.name, "description": d.text, "file": str(d.file), "cells": cells, "objective": d.objective,
        "false_discovery_rate": d.false_discovery_rate, "is_quick": d.is_quick, "fees": d.fees, "seed": d.seed,
    }  # fmt: skip


def _part(kept: StudyFolder, cell: str, part: str, part_id: str, is_running: bool) -> dict[str, Any]:
    record = kept.read_part(cell, part, part_id)
    if record is None or (record["status"] == "running" and not is_running):
        return _NOTHING
    return _NOTHING | record


def _view(manifest: Mapping[str, Any], parts: list[dict[str, dict[str, Any]]], status: str) -> StudyView:
    parts = parts or [dict.fromkeys(PARTS, _NOTHING) for _ in manifest["cells"]]
    p = np.array([_p_value(record["validation"]) for record in parts])
    positive, anyhow = np.full(len(p), np.nan), np.full(len(p), np.nan)
    is_tried = np.array([record["validation"]["status"] == "done" for record in parts], dtype=np.bool_)
    if is_tried.any():
        positive[is_tried] = false_discovery_p_values(p[is_tried])
        anyhow[is_tried] = false_discovery_p_values(p[is_tried], dependence="any")
    rate = manifest["false_discovery_rate"]
    cells = []
    for place, (about, record) in enumerate(zip(manifest["cells"], parts, strict=True)):
        q, q_any = (float(values[place]) if is_tried[place] else None for values in (positive, anyhow))
        cells.append(
            CellView(
                about["name"], about["strategy"], about["symbol"], about["timeframe"], about, record["sweep"],
                record["validation"], q, q_any, None if q is None else q <= rate,
            )
        )  # fmt: skip
    return StudyView(
        manifest["name"], manifest["description"], status, tuple(cells), rate, int(is_tried.sum()), _n_trials(cells), dict(manifest)
    )  # fmt: skip


def _p_value(validation: Mapping[str, Any]) -> float:
    """The selection-adjusted p-value of a cell; 1 where it is not known."""
    p = validation.get("p_selection")
    return 1.0 if p is None else float(p)


def _n_trials(cells: list[CellView]) -> tuple[int, int]:
    """Different trials that the ledger counts on all series of the study, and those of the study's own grids."""
    of_series: dict[tuple[str, str], int] = {}
    n_own = 0
    for cell in cells:
        if cell.validation["status"] == "done":
            series = (cell.validation["source_sha256"], cell.validation["data_sha256"])
            of_series[series] = max(of_series.get(series, 0), cell.validation["n_attempts"] or 0)
            n_own += cell.validation["n_trials"]
    return sum(of_series.values()), n_own
