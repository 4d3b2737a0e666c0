"""The command that explains the decisions of a run. Everything heavy is imported inside the functions that need it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qml_plugin.cli.runs import RunId, warn_of_failure
from qml_plugin.cli.terminal import DEFAULT_DB, AsJson, Db, inert, number, print_table, say, writing

if TYPE_CHECKING:
    from qml_plugin.records import Decision
    from qml_plugin.registry import PatternRegistry
    from qml_plugin.report.views import NeighbourView

_ACTIONS = ("take", "skip", "abstain")
_PAGE_BARS = 120


def decisions(
    run_id: RunId,
    pattern_id: Annotated[str | None, typer.Argument(metavar="[PATTERN_ID]", help="Explain this decision; its first characters will do.")] = None,
    db: Db = DEFAULT_DB,
    action: Annotated[str | None, typer.Option(help="Only decisions to take, to skip or to abstain.")] = None,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, help="At most so many decisions in the list.")] = 50,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="With PATTERN_ID: write a page about it too.")] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """List what a run decided, the latest first, or explain one decision: its confidence, its neighbours, its reason.

    Examples:

    - `qml decisions latest --action skip`
    - `qml decisions 22f80537 6f7b9a50 --html why.html`
    """
    from qml_plugin.registry import PatternRegistry

    if html is not None and pattern_id is None:
        raise typer.BadParameter("--html draws one decision: name it by PATTERN_ID.")
    if action is not None and (action not in _ACTIONS or pattern_id is not None):
        raise typer.BadParameter(f"--action is {action!r}. It lists take, skip or abstain, and needs no PATTERN_ID.")
    registry = PatternRegistry(db, create=False)
    if pattern_id is None:
        run = registry.get_run(run_id)
        warn_of_failure(run)
        _list(registry, run["run_id"], action, limit, as_json)
    else:
        _explain(registry, run_id, pattern_id, html, as_json)


def _list(registry: PatternRegistry, run_id: str, action: str | None, limit: int, as_json: bool) -> None:
    found = registry.get_decisions(run_id)
    rows = [row for row in found if action is None or row["action"] == action]
    patterns = registry.patterns_by_id([row["pattern_id"] for row in rows])
    rows.sort(key=lambda row: (patterns[row["pattern_id"]]["detection_time"], row["pattern_id"]), reverse=True)
    listed = [_line(row, patterns[row["pattern_id"]]) for row in rows[:limit]]
    if as_json:
        say(json.dumps(listed, default=str, indent=2))
        return
    if not listed:
        say("The run decided nothing that meets these conditions.")
        return
    print_table(
        ("when", "side", "action", "P(win)", "90 % interval", "outcome", "R", "pattern_id", "reason"),
        [
            (
                line["detection_time"], line["side"], line["action"], number(line["confidence"], 3),
                _interval(line["confidence_low"], line["confidence_high"]), line["outcome"], number(line["r_multiple"]),
                line["pattern_id"], line["reason"],
            )
            for line in listed
        ],
    )  # fmt: skip
    if len(rows) > len(listed):
        say(f"and {len(rows) - len(listed)} more; -n tells how many to list")


def _line(row: dict[str, Any], pattern: dict[str, Any]) -> dict[str, Any]:
    return {
        "pattern_id": row["pattern_id"],
        "detection_time": pattern["detection_time"],
        "side": "long" if pattern["side"] > 0 else "short",
        "action": row["action"],
        "reason": row["reason"],
        "confidence": row["confidence"],
        "confidence_low": row["confidence_low"],
        "confidence_high": row["confidence_high"],
        "outcome": pattern["barrier_outcome"],
        "r_multiple": pattern["r_multiple"],
        "trade_return": row["trade_return"],
    }


def _interval(low: float | None, high: float | None) -> str | None:
    return None if low is None or high is None else f"{number(low, 3)} to {number(high, 3)}"


def _explain(registry: PatternRegistry, run_id: str, pattern_id: str, html: Path | None, as_json: bool) -> None:
    from qml_plugin.cli.pattern_text import wrapped

    run = registry.get_run(run_id)
    decision = registry.get_decision(run["run_id"], pattern_id)
    pattern = registry.get_pattern(decision.pattern_id)
    near = _neighbours(registry, decision)
    written = None if html is None else _written(registry, run, pattern, decision, near, html)
    explained = decision.explain()
    if as_json:
        say(json.dumps({"run_id": run["run_id"]} | explained.data, indent=2))
    else:
        width = shutil.get_terminal_size().columns
        side = "long" if pattern["side"] > 0 else "short"
        when = pattern["detection_time"].isoformat(" ", "minutes")
        text = f"{pattern['symbol']} {pattern['timeframe']} · {side} · {pattern['strategy']} · {when}\n{explained}"
        for line in text.splitlines():
            for part in wrapped(line, width):
                say(part)
        if near:
            say()
            print_table(
                ("distance", "when", "symbol", "timeframe", "strategy", "outcome", "R"),
                [
                    (
                        number(past.distance, 3), _moment(past.detection_at), past.symbol, past.timeframe, past.strategy,
                        "win" if past.is_win else "loss", number(past.r_multiple),
                    )
                    for past in near
                ],
            )  # fmt: skip
        ended = pattern["barrier_outcome"]
        said = (
            "Its barriers have not ended it."
            if ended is None
            else f"What became of it, not known then: a {ended} of {number(pattern['r_multiple'])} R."
        )
        say(f"\n{inert(said)}")
    if written is not None:
        typer.echo(f"page  {written}", err=as_json)


def _neighbours(registry: PatternRegistry, decision: Decision) -> list[NeighbourView]:
    """What the decision looked at; a neighbour that is no longer registered is left out."""
    from qml_plugin.clock import from_datetime
    from qml_plugin.report.views import NeighbourView

    found = registry.patterns_by_id([near.pattern_id for near in decision.neighbours])
    return [
        NeighbourView(
            symbol=past["symbol"], timeframe=past["timeframe"], strategy=past["strategy"],
            detection_at=from_datetime(past["detection_time"]), distance=near.distance, is_win=near.is_win,
            r_multiple=near.r_multiple,
        )
        for near in decision.neighbours if (past := found.get(near.pattern_id)) is not None
    ]  # fmt: skip


def _moment(at: int) -> str:
    from qml_plugin.clock import isoformat

    return isoformat(at)


def _written(
    registry: PatternRegistry,
    run: dict[str, Any],
    pattern: dict[str, Any],
    decision: Decision,
    near: list[NeighbourView],
    path: Path,
) -> Path:
    from qml_plugin.labelling.view import pattern_view
    from qml_plugin.report.decision_page import card_of, write_decision_page

    view = pattern_view(pattern, registry.bars_of(decision.pattern_id), n_bars=_PAGE_BARS)
    mode = str((run["params"].get("qml") or {}).get("mode"))
    facts = {"run": run["run_id"], "strategy": run["strategy_name"], "mode": mode}
    with writing(path):
        return write_decision_page(card_of(view, decision, near), path, facts)
