"""The commands about runs. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qml_plugin.cli.terminal import (
    DEFAULT_DB,
    AsJson,
    Db,
    inert,
    look_in_current_folder,
    number,
    percent,
    print_groups,
    print_table,
    say,
    telling_of_compilation,
)

if TYPE_CHECKING:
    from qml_plugin.registry import PatternRegistry
    from qml_plugin.registry.comparing import DecisionDifference

runs_app = typer.Typer(no_args_is_help=True, help="The ledger: every run ever recorded, those that died too.")

RunId = Annotated[str, typer.Argument(metavar="RUN_ID", help="Id of a run, its first characters, or latest.")]
OfStrategy = Annotated[str | None, typer.Option("--strategy", help="Only runs of this class, by its name.")]
OfSymbol = Annotated[str | None, typer.Option("--symbol", help="Only runs on this symbol.")]

_N_SHOWN = 20
_HASH = re.compile(r"[0-9a-f]{40,64}")


@runs_app.command("list")
def runs_list(
    db: Db = DEFAULT_DB,
    strategy: OfStrategy = None,
    symbol: OfSymbol = None,
    status: Annotated[str | None, typer.Option(help="Only running, finished, failed or interrupted runs.")] = None,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, help="At most so many runs.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the runs, the latest first: what was run, in which mode, and what came of it.

    Example: `qml runs list --strategy SmaCross --status finished`
    """
    from qml_plugin.registry.comparing import short_ids

    runs = _open(db).get_runs(limit, strategy=strategy, symbol=symbol, status=status)
    if as_json:
        _say_json(runs)
        return
    if not runs:
        say("No run is recorded that meets these conditions.")
        return
    print_table(
        ("run", "when", "strategy", "symbol", "tf", "mode", "status", "entries", "trades", "return", "Sharpe"),
        [(short, *_line(run)) for short, run in zip(short_ids([run["run_id"] for run in runs]), runs, strict=True)],
    )


@runs_app.command("show")
def runs_show(
    run_id: RunId,
    db: Db = DEFAULT_DB,
    diff: Annotated[bool, typer.Option("--diff", help="Also print what the working tree had changed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show all that is recorded of one run: parameters, data, code, libraries, snapshot, metrics, trials, error.

    Example: `qml runs show 22f80537 --diff`
    """
    from qml_plugin.registry.comparing import grouped

    run = _open(db).get_run(run_id)
    if as_json:
        _say_json(run)
        return
    groups = grouped(run)
    groups["run"] = {"run_id": run["run_id"]} | groups["run"] | _course(run)
    changed = run["git_diff"]
    if changed is not None:
        groups["code"]["diff"] = f"{len(changed.splitlines())} lines" + ("" if diff else ", --diff prints them")
    groups["trials"] = {"n_trials": f"{run['n_trials']} of {run['strategy_name']} on these bars, this one included"}
    print_groups(groups)
    if diff and changed is not None:
        say()
        say(inert(changed, keep="\n\t"))


@runs_app.command("compare")
def runs_compare(
    run_ids: Annotated[
        list[str], typer.Argument(metavar="RUN_ID...", help="Two runs or more, by their first characters.")
    ],
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
) -> None:
    """Compare runs: only what differs, from parameters to metrics, and then how their decisions differ.

    An entry is the same where its pattern is: same strategy name, bar and order plan. Example: `qml runs compare 22f8 0b3f`
    """
    from qml_plugin.registry.comparing import compare_decisions, differences, short_ids

    registry = _open(db)
    runs = [registry.get_run(run_id) for run_id in run_ids]
    found = differences(runs)
    names = [run["run_id"] for run in runs]
    decided = compare_decisions([registry.get_decisions(name) for name in names])
    if as_json:
        treated = [{"pattern_id": one.pattern_id, "actions": one.actions} for one in decided.differences]
        counts = {"n_entries": decided.n_entries, "n_only": decided.n_only, "n_common": decided.n_common}
        rows = [{"group": one.group, "what": one.what, "values": one.values} for one in found]
        _say_json({"runs": names, "differences": rows, "decisions": counts | {"differences": treated}})
        return
    short = short_ids(names)
    if found:
        print_table(("group", "what", *short), [(one.group, one.what, *map(_value, one.values)) for one in found])
    else:
        say("Nothing that is recorded of these runs differs, but for when they ran.")
    say()
    print_table(("decisions", *short), [("entries", *decided.n_entries), ("that no other has", *decided.n_only)])
    n_other = sum(one.is_everywhere for one in decided.differences)
    say(f"Of the {decided.n_common} entries that all have, {n_other} passed in one run and were skipped in another.")
    if shown := sorted(decided.differences, key=lambda one: not one.is_everywhere)[:_N_SHOWN]:
        say()
        entries = sorted((_entry(registry, one) for one in shown), key=lambda entry: entry[:2])
        print_table(("detection time", "pattern", "side", *short), entries)
        if len(decided.differences) > len(shown):
            say(f"and {len(decided.differences) - len(shown)} more; --json prints all")


@runs_app.command("best")
def runs_best(
    metric: Annotated[str, typer.Option(help="Such as sharpe, return, drawdown, or a metric by its whole name.")],
    db: Db = DEFAULT_DB,
    strategy: OfStrategy = None,
    symbol: OfSymbol = None,
    n: Annotated[int, typer.Option("-n", min=1, help="At most so many runs in each ranking.")] = 10,
    across: Annotated[
        bool, typer.Option("--across", help="Rank all together, whatever the strategy and the data.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Rank the finished runs by a metric, the highest first; each strategy on each series of bars by itself.

    Example: `qml runs best --metric sharpe --strategy SmaCross`
    """
    from qml_plugin.registry.comparing import best_runs, short_ids

    rankings = best_runs(_open(db), metric, strategy=strategy, symbol=symbol, n=n, across=across)
    if as_json:
        fields = ("metric", "strategy", "data_hash", "n_trials", "n_without", "runs")
        _say_json([{field: getattr(ranking, field) for field in fields} for ranking in rankings])
        return
    for place, ranking in enumerate(rankings):
        if place:
            say()
        first = ranking.runs[0]
        of = (
            f"{ranking.strategy} on {first['symbol']} {first['timeframe']}, {first['data_bars']} bars"
            if ranking.strategy
            else "all strategies and series"
        )
        say(inert(f"{of}: the best of {ranking.n_trials} trials by {ranking.metric}"))
        print_table(
            (ranking.metric, "run", "when", "strategy", "symbol", "tf", "mode", "entries", "trades", "return", "Sharpe", "parameters"),
            [
                (number(run["metrics"][ranking.metric], 4), short, *(cell for at, cell in enumerate(_line(run)) if at != 5), _parameters(run))
                for short, run in zip(short_ids([run["run_id"] for run in ranking.runs]), ranking.runs, strict=True)
            ],
        )  # fmt: skip
        if ranking.n_without:
            say(f"{ranking.n_without} finished runs have no value of it.")
        if ranking.n_trials > 1:
            say(
                f"The best of {ranking.n_trials} trials is biased upwards: the best of many without any edge looks good too."
            )


@runs_app.command("reproduce")
def runs_reproduce(
    run_id: RunId,
    db: Db = DEFAULT_DB,
    data: Annotated[Path | None, typer.Option("--data", metavar="FILE", help="The bars; without it those that the registry kept.")] = None,
    strategy: Annotated[str | None, typer.Option("--strategy", metavar="PATH", help="The class as module:Class or file.py:Class; without it where it was.")] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Run a finished run again on the bars and the registry that it saw, and compare every figure; nothing is recorded.

    Imports and runs the strategy's code. Exit code 0 if all is identical, else 1. Example: `qml runs reproduce 22f80537`
    """
    look_in_current_folder()
    from qml_plugin.adapters.reproduce import reproduce

    with telling_of_compilation():
        found = reproduce(db, run_id, data=data, strategy=strategy)
    if as_json:
        rows = [
            {"what": one.what, "recorded": one.recorded, "again": one.again, "is_identical": one.is_identical}
            for one in found.comparisons
        ]
        _say_json({"run_id": found.run_id, "is_identical": found.is_identical, "comparisons": rows, "changes": found.changes})  # fmt: skip
    else:
        print_table(
            ("what", "recorded", "again", "identical"),
            [(one.what, one.recorded, one.again, "yes" if one.is_identical else "NO") for one in found.comparisons],
        )
        say()
        n_other = sum(not one.is_identical for one in found.comparisons)
        say(
            "identical"
            if found.is_identical
            else f"not identical: {n_other} of {len(found.comparisons)} figures differ"
        )
        for change in found.changes:
            say(inert(f"changed  {change}"))
        if not found.is_identical and not found.changes:
            say("Nothing that is recorded has changed: the strategy depends on something else, such as the clock.")
    if not found.is_identical:
        raise typer.Exit(1)


@runs_app.command("returns")
def runs_returns(
    strategy: Annotated[str, typer.Argument(metavar="STRATEGY", help="Name of the strategy's class.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="File to write, .parquet or .csv.")],
    db: Db = DEFAULT_DB,
    data_hash: Annotated[str | None, typer.Option("--data-hash", help="Trials on these bars, by the first characters.")] = None,
    symbol: OfSymbol = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE where it exists.")] = False,
) -> None:  # fmt: skip
    """Write the returns of all trials of a strategy on one series of bars: a row a bar, a column a trial.

    Example: `qml runs returns SmaCross --symbol EURUSD --out trials.parquet`
    """
    from qml_plugin.features.table import check_target, write_table
    from qml_plugin.registry.comparing import find_series

    check_target(out, may_replace=force)
    registry = _open(db)
    series = find_series(registry, strategy, data_hash=data_hash, symbol=symbol)
    returns = registry.trial_returns(strategy, series)
    write_table(returns, out)
    n_trials = registry.n_trials(strategy, series)
    say(f"file      {out}")
    say(f"data      {series}")
    say(f"size      {returns.shape[0]:,} bars x {returns.shape[1]:,} trials")
    if left_out := n_trials - returns.shape[1]:
        say(f"left out  {left_out} of the {n_trials} trials did not finish and left no returns")


@runs_app.command("export-mlflow")
def runs_export_mlflow(
    run_ids: Annotated[list[str] | None, typer.Argument(metavar="RUN_ID...", help="Runs to export, by their first characters; all runs without it.")] = None,
    db: Db = DEFAULT_DB,
    tracking_uri: Annotated[str | None, typer.Option("--tracking-uri", metavar="URI", envvar="MLFLOW_TRACKING_URI", help="Where MLflow keeps its runs, such as sqlite:///mlflow.db or a server.")] = None,
    experiment: Annotated[str, typer.Option(help="Name of the MLflow experiment; made if missing.")] = "qml",
) -> None:  # fmt: skip
    """Copy runs to MLflow: parameters, metrics, tags and times; exporting again updates them and doubles none.

    Example: `qml runs export-mlflow --tracking-uri sqlite:///mlflow.db`
    """
    from qml_plugin.registry.comparing import ALL
    from qml_plugin.report.mlflow_export import export_runs

    registry = _open(db)
    runs = [registry.get_run(run_id) for run_id in run_ids] if run_ids else registry.get_runs(ALL)
    exported = export_runs(runs, tracking_uri=tracking_uri, experiment=experiment)
    say(f"store       {inert(exported.tracking_uri)}")
    say(f"experiment  {inert(experiment)}")
    say(f"runs        {exported.n_created} created, {exported.n_updated} updated")


def _open(db: str) -> PatternRegistry:
    from qml_plugin.registry import PatternRegistry

    return PatternRegistry(db, create=False)


def _say_json(value: object) -> None:
    say(json.dumps(value, default=str, indent=2))


def _line(run: Mapping[str, Any]) -> tuple[object, ...]:
    """A run in a row: when, what, how, and what came of it."""
    metrics, params = run["metrics"] or {}, run["params"] or {}
    n_trades = metrics.get("n_trades")
    return (
        run["finished_at"] or run["started_at"], run["strategy_name"], run["symbol"], run["timeframe"],
        (params.get("qml") or {}).get("mode"), run["status"], metrics.get("n_entries"),
        None if n_trades is None else int(n_trades), percent(metrics.get("return_frac")), number(metrics.get("sharpe_annual")),
    )  # fmt: skip


def _parameters(run: Mapping[str, Any]) -> str:
    own = (run["params"] or {}).get("strategy") or {}
    return ", ".join(f"{name}={value}" for name, value in own.items())


def _course(run: Mapping[str, Any]) -> dict[str, object]:
    """When a run began and ended, and which process it was."""
    from qml_plugin.processes import Process

    course: dict[str, object] = {"started_at": run["started_at"], "finished_at": run["finished_at"]}
    if run["parent_run_id"]:
        course["parent_run_id"] = run["parent_run_id"]
    if run["host"]:
        course["process"] = f"{run['pid']} on {run['host']}"
    if run["status"] == "running" and run["host"]:
        is_alive = Process(run["host"], run["pid"], run["process_started"]).is_alive()
        course["process"] = f"{course['process']}, " + (
            "which cannot be seen from here" if is_alive is None
            else "alive" if is_alive else "gone: the next run will mark this one as interrupted"
        )  # fmt: skip
    return course


def _value(value: object) -> object:
    """A value that differs, short: None is one too, and of a hash the beginning says enough."""
    if value is None:
        return "None"
    return f"{value[:12]}…" if isinstance(value, str) and _HASH.fullmatch(value) else value


def _entry(registry: PatternRegistry, found: DecisionDifference) -> tuple[Any, ...]:
    pattern = registry.get_pattern(found.pattern_id)
    side = "long" if pattern["side"] > 0 else "short"
    return (pattern["detection_time"], found.pattern_id, side, *(action or "not there" for action in found.actions))


def warn_of_failure(run: dict[str, Any]) -> None:
    """Say on stderr that a run did not end well: what it decided until then is there, and is not all."""
    if run["status"] != "finished":
        said = f": {run['error']}" if run["error"] else ""
        typer.echo(inert(f"run {run['run_id'][:8]} is {run['status']}{said}"), err=True)
