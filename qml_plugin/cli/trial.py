"""The command that puts the gate of a recorded run on trial. Everything heavy is imported inside it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from qml_plugin.cli.runs import RunId, warn_of_failure
from qml_plugin.cli.terminal import DEFAULT_DB, AsJson, Db, inert, say, writing


def trial(
    run_id: RunId,
    db: Db = DEFAULT_DB,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page of charts too, the verdict first.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random gates.")] = 0,
    permutations: Annotated[int, typer.Option(min=1, help="How many random gates it is compared with.")] = 2000,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Say whether the gate of a run in the mode shadow or gate was worth it: gated, ungated and at random.

    The same entries in three ways, in R and in return, with a permutation test. Too few entries are no result, and it
    says so. Example: `qml trial latest --html trial.html`
    """
    from qml_plugin.gate import gate_trial
    from qml_plugin.registry import PatternRegistry

    registry = PatternRegistry(db, create=False)
    run = registry.get_run(run_id)
    warn_of_failure(run)
    found = gate_trial(registry.trial_entries(run["run_id"]), seed=seed, n_permutations=permutations)
    written = None
    if html is not None:
        from qml_plugin.report.trial_page import write_trial_page

        facts = {
            "strategy": run["strategy_name"], "market": f"{run['symbol']} {run['timeframe']}",
            "mode": str((run["params"].get("qml") or {}).get("mode")), "bars": f"{run['data_bars']:,}",
            "from": f"{run['data_start']:%Y-%m-%d}", "to": f"{run['data_end']:%Y-%m-%d}",
        }  # fmt: skip
        with writing(html):
            written = write_trial_page(found, html, facts)
    if as_json:
        say(json.dumps(_finite(found.to_dict() | {"run_id": run["run_id"]}), indent=2, allow_nan=False))
    else:
        for line in str(found).splitlines():
            say(inert(line))
    if written is not None:
        typer.echo(f"page  {written}", err=as_json)


def _finite(value: Any) -> Any:
    """JSON knows no NaN: what has no value is null."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
