"""The page of a study: verdicts by strategy and market, what is left of them among all, searches, and links to dossiers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qml_plugin.report.document import Chart, chart, render, write
from qml_plugin.report.study_figures import matrix_figure, search_figure

_MOST_SURFACES = 60
_WORDS = ("DEPLOY", "CAUTION", "REJECT", "INSUFFICIENT")


@dataclass(frozen=True, slots=True, eq=False)
class CellView:
    """One strategy on one market.

    ``about`` is what the manifest says of it: hashes of code and bars. ``sweep`` and ``validation`` are the records of its
    parts, each with a ``status`` of ``"waiting"``, ``"running"``, ``"done"`` or ``"failed"``. ``q`` is the p-value of the
    gate of selection adjusted for all cells by Benjamini and Hochberg, ``q_any`` by Benjamini and Yekutieli; None, like
    ``is_discovery``, where the cell has not been judged.
    """

    name: str
    strategy: str
    symbol: str
    timeframe: str
    about: Mapping[str, Any]
    sweep: Mapping[str, Any]
    validation: Mapping[str, Any]
    q: float | None
    q_any: float | None
    is_discovery: bool | None

    @property
    def market(self) -> str:
        """Symbol and timeframe."""
        return f"{self.symbol} {self.timeframe}"

    @property
    def error(self) -> str | None:
        """Why it failed; None where it did not."""
        return next((part["error"] for part in (self.sweep, self.validation) if part["status"] == "failed"), None)

    @property
    def status(self) -> str:
        """``"failed"``, ``"done"``, ``"running"``, ``"waiting"``, or ``"searched"`` where the validation is still to come."""
        states = [self.sweep["status"], self.validation["status"]]
        for word in ("failed", "running"):
            if word in states:
                return word
        return {2: "done", 1: "searched"}.get(states.count("done"), "waiting")

    @property
    def verdict(self) -> str | None:
        """The word of its verdict, None before there is one."""
        return self.validation.get("verdict") if self.validation["status"] == "done" else None

    @property
    def is_alone(self) -> bool:
        """Whether it says DEPLOY and would not among all cells of the study."""
        return self.verdict == "DEPLOY" and not self.is_discovery


@dataclass(frozen=True, slots=True, eq=False)
class StudyView:
    """A study as its page shows it.

    ``n_tried`` cells were judged, and the false discovery rate is controlled over them. ``n_trials`` are the different trials
    that the ledger counts on their series, and those of the study's own grids. ``manifest`` has the fingerprints.
    """

    name: str
    description: str
    status: str
    cells: tuple[CellView, ...]
    false_discovery_rate: float
    n_tried: int
    n_trials: tuple[int, int]
    manifest: Mapping[str, Any]

    @property
    def strategies(self) -> list[str]:
        """Names in order of the study."""
        return list(dict.fromkeys(cell.strategy for cell in self.cells))

    @property
    def markets(self) -> list[str]:
        """Names in order of the study."""
        return list(dict.fromkeys(cell.market for cell in self.cells))

    def counts(self) -> dict[str, int]:
        """Cells by verdict, and by status where there is none."""
        words = [cell.verdict or cell.status for cell in self.cells]
        return {
            word: words.count(word) for word in (*_WORDS, "failed", "running", "searched", "waiting") if word in words
        }

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON; what depends on the clock is under ``times`` alone."""
        times = {
            cell.name: {"sweep": cell.sweep["times"], "validation": cell.validation["times"]} for cell in self.cells
        }
        own = ("process", "started_at", "cells", "version", "status")
        return {
            "name": self.name, "description": self.description, "status": self.status, "counts": self.counts(),
            "false_discovery_rate": self.false_discovery_rate, "n_tried": self.n_tried,
            "n_trials_ledger": self.n_trials[0], "n_trials_study": self.n_trials[1],
            "cells": [
                {
                    **cell.about, "status": cell.status, "verdict": cell.verdict, "q": cell.q, "q_any": cell.q_any,
                    "is_discovery": cell.is_discovery, "sweep": _without_times(cell.sweep),
                    "validation": _without_times(cell.validation),
                }
                for cell in self.cells
            ],
            "fingerprints": {name: value for name, value in self.manifest.items() if name not in own},
            "times": {"started_at": self.manifest.get("started_at"), "cells": times},
        }  # fmt: skip


def render_study(view: StudyView) -> str:
    """One self-contained HTML file but for its links to dossiers, which lie beside it; nothing is fetched from anywhere.

    Parameters
    ----------
    view : StudyView
        Names in it are escaped wherever they appear.

    Returns
    -------
    str
        The whole document, also of a study that is not finished.

    Point in time
    -------------
    Draws all that was found: a look back on finished validations.
    """
    searched = [cell for cell in view.cells if cell.sweep.get("surface")]
    surfaces = [
        (cell, chart(f"search-{i}", f"{cell.sweep['objective']} of {cell.strategy} on {cell.market}", search_figure(cell.sweep["surface"], cell.sweep["objective"])))
        for i, cell in enumerate(searched[:_MOST_SURFACES], 1)
    ]  # fmt: skip
    maps = [
        _map(view, "sharpe", "Sharpe ratio of the excess, out of sample", lambda cell: cell.validation.get("excess_sharpe")),
        _map(view, "plateau", f"{view.manifest['objective']} at the plateau of the search", _at_plateau),
    ]  # fmt: skip
    return render(
        "study.html.j2", view=view, headline=headline(view), by_place={(c.strategy, c.market): c for c in view.cells},
        maps=[one for one in maps if one is not None], surfaces=surfaces, n_searched=len(searched),
        failed=[cell for cell in view.cells if cell.error], short=[c for c in view.cells if c.sweep.get("n_failed")],
        data={c.market: c for c in view.cells if "data_sha256" in c.about},
        code={c.strategy: c for c in view.cells if "source_sha256" in c.about},
    )  # fmt: skip


def write_study(view: StudyView, folder: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Absolute paths of ``study.html`` and ``study.json``; earlier ones are replaced whole, or not at all.

    Parameters
    ----------
    view : StudyView
    folder : path
        Of the study, so that the links lead somewhere; made where it is missing.

    Returns
    -------
    (html, json) : pair of Path

    Point in time
    -------------
    As `render_study`.

    Raises
    ------
    OSError
        If a file cannot be written; the earlier one is intact.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    text = json.dumps(view.as_dict(), allow_nan=False, ensure_ascii=False, indent=1)
    written = write(text, place / "study.json")
    return write(render_study(view), place / "study.html"), written


def headline(view: StudyView) -> str:
    """What the study says, in a sentence."""
    judged = [cell for cell in view.cells if cell.verdict]
    deploy = [cell for cell in judged if cell.verdict == "DEPLOY"]
    held = [cell for cell in deploy if not cell.is_alone]
    if not judged:
        return "Nothing has been judged yet."
    cells = f"{len(judged)} cell" + ("s" if len(judged) > 1 else "")
    if not deploy:
        return f"No edge was shown in {cells}."
    if not held:
        return f"{len(deploy)} of {cells} say DEPLOY, and none does among all."
    return f"{len(held)} of {cells} say DEPLOY and still do among all."


def _without_times(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "times"}


def _at_plateau(cell: CellView) -> float | None:
    return (cell.sweep.get("best") or {}).get("objective")


def _map(view: StudyView, chart_id: str, title: str, value: Callable[[CellView], float | None]) -> Chart | None:
    """A number by strategy and market; None where no cell has it."""
    found = {(cell.strategy, cell.market): value(cell) for cell in view.cells}
    rows, columns = view.strategies, view.markets
    values = np.array([[found.get((row, column)) for column in columns] for row in rows], dtype=np.float64)
    if not np.isfinite(values).any():
        return None
    return chart(chart_id, title, matrix_figure(rows, columns, values, title))
