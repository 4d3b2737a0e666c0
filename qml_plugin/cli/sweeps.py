"""The commands of searches. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qml_plugin.cli.terminal import (
    check_files,
    inert,
    interruptible,
    look_in_current_folder,
    number,
    percent,
    print_table,
    say,
    telling_of_compilation,
    writing,
)

if TYPE_CHECKING:
    from qml_plugin.sweeps import SweepResult

_N_SHOWN = 10
_CLOSING = {"exclusive_orders": "the next signal", "finalize_trades": "the last bar"}

Strategy = Annotated[str, typer.Argument(metavar="STRATEGY", help="A shipped strategy such as QMLStrategy, module:Class or file.py:Class.")]  # fmt: skip
DataFile = Annotated[list[str], typer.Option("--data", metavar="[SYMBOL=]FILE", help="Bars as .csv or .parquet, or GOOG or EURUSD, which backtesting.py ships.")]  # fmt: skip
GridOption = Annotated[list[str], typer.Option("--grid", metavar="NAME=VALUES", help="Values to try: atr_period=10,14,20 or min_depth_ratio=0.3:0.7:0.2. Repeat it.")]  # fmt: skip
Jobs = Annotated[int | None, typer.Option("--jobs", "-j", help="Worker processes; -1 for one on each processor. 1 unless given; with --backend dask or ray, all of the cluster.")]  # fmt: skip
Backend = Annotated[str | None, typer.Option(help="Where the workers are: loky (this machine), dask (DASK_SCHEDULER_ADDRESS) or ray (RAY_ADDRESS).")]  # fmt: skip
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the same search that was interrupted.")]
Pooled = Annotated[bool, typer.Option("--pooled", help="Let the symbols of a point learn from one another: one gate over all.")]  # fmt: skip
Search = Annotated[str, typer.Option(help="grid, random, or tpe, which needs Optuna.")]
Points = Annotated[int | None, typer.Option("--points", help="How many points of a random or TPE search.")]
Objective = Annotated[str, typer.Option(help="Metric to maximise, such as sharpe_annual or return_frac.")]
TimeLimit = Annotated[float | None, typer.Option("--time-limit", metavar="SECONDS", help="Of one attempt of a point.")]
Retries = Annotated[int, typer.Option(help="Further attempts at a point that failed.")]
Seed = Annotated[int, typer.Option(help="Of a random or TPE search.")]
Registry = Annotated[str | None, typer.Option("--db", metavar="URL", help="Registry to record in; none without it.", envvar="QML_DB")]  # fmt: skip
Options = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="An option of the host, a setting or a parameter, the same for all points: cash=1e6, commission=0.001, mode=shadow.")]  # fmt: skip
Folder = Annotated[Path | None, typer.Option(help="Where the folder of the search is made.")]
Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page of charts too, and its numbers as .csv beside it.")]  # fmt: skip


def sweep(
    strategy: Strategy, data: DataFile, grid: GridOption, jobs: Jobs = None, backend: Backend = None, resume: Resume = False, search: Search = "grid",
    points: Points = None, objective: Objective = "sharpe_annual", time_limit: TimeLimit = None, retries: Retries = 1,
    seed: Seed = 0, db: Registry = None, options: Options = None, folder: Folder = None, pooled: Pooled = False,
    out: Annotated[Path | None, typer.Option(help="Write the whole table to this .csv or .parquet file.")] = None,
    html: Html = None,
) -> None:  # fmt: skip
    """Run a strategy at many points of a grid, in parallel; trades and equity of each are kept. Exit code 1 if any failed.

    Examples: `qml sweep QMLStrategy --data GOOG --grid atr_period=10,14,20 --jobs 2 --set cash=1000000`;
    `qml sweep MovingAverageCross --data GOOG --grid fast=5,10,20 --set cash=1000000 --set exclusive_orders=true --set finalize_trades=true`
    """
    from qml_plugin.features.table import check_target, write_table
    from qml_plugin.sweeps import sweep as run

    if out is not None:
        check_target(out, may_replace=True)
    check_files(html)
    with interruptible(), telling_of_compilation():
        arguments = _common(strategy, data, grid, options, search, points, jobs)
        result = run(
            *arguments[:3], n_jobs=jobs, backend=backend, resume=resume, search=search, n_points=points, objective=objective, registry=db,
            time_limit_s=time_limit, retries=retries, seed=seed, folder=folder, pooled=pooled, **arguments[3],
        )  # fmt: skip
    if out is not None:
        write_table(result.table, out)
    if resume:
        points_kept = "1 point" if result.n_kept == 1 else f"{result.n_kept} points"
        say(f"resumed   kept {points_kept} from before, {len(result.table) - result.n_kept} run now")
    _print_sweep(result, arguments[3])
    if html is not None:
        from qml_plugin.report.sweep_page import write_sweep_page

        with writing(html):
            say(f"page      {write_sweep_page(result, html)[0]}")
    if len(result.failed):
        raise typer.Exit(1)


def walk_forward(
    strategy: Strategy, data: DataFile, grid: GridOption,
    train: Annotated[int, typer.Option(help="Bars of a training window.")],
    test: Annotated[int, typer.Option(help="Bars of a test window.")],
    purge: Annotated[str, typer.Option(help="Bars left out between the two; auto for the longest trade or label.")] = "auto",
    warmup: Annotated[str, typer.Option(help="Bars seen before a test window; auto for all since training began.")] = "auto",
    anchored: Annotated[bool, typer.Option("--anchored", help="Training windows begin with the first bar.")] = False,
    by: Annotated[str, typer.Option(help="How to choose: plateau, objective or a metric.")] = "plateau",
    jobs: Jobs = None, backend: Backend = None, resume: Resume = False, search: Search = "grid", points: Points = None,
    objective: Objective = "sharpe_annual", time_limit: TimeLimit = None, retries: Retries = 1, seed: Seed = 0,
    db: Registry = None, options: Options = None, folder: Folder = None, html: Html = None,
) -> None:  # fmt: skip
    """Search in each training window, trade the next one with the choice, and stitch those windows. Exit code 1 if any failed.

    Example: `qml walk-forward MovingAverageCross --data GOOG --grid fast=5,10,20 --train 800 --test 200 --set cash=1000000 --set exclusive_orders=true --set finalize_trades=true`
    """
    from qml_plugin.sweeps import walk_forward as run

    check_files(html)
    with interruptible(), telling_of_compilation():
        arguments = _common(strategy, data, grid, options, search, points, jobs)
        result = run(
            *arguments[:3], train=train, test=test, purge=_bars(purge), warmup=_bars(warmup), anchored=anchored, by=by,
            n_jobs=jobs, backend=backend, resume=resume, search=search, n_points=points, objective=objective, registry=db,
            time_limit_s=time_limit, retries=retries, seed=seed, folder=folder, **arguments[3],
        )  # fmt: skip
    names = list(result.searches[0].grid_names)
    rows = [
        (row["test_start_at"], row["test_end_at"], *(row[name] for name in names), number(row["in_sample"]), number(row["out_of_sample"]), percent(row["return_frac"]), row["error"])
        for row in result.folds.to_dict("records")
    ]  # fmt: skip
    print_table(("from", "to", *names, "in sample", "out of sample", "return", "error"), rows)
    metrics = result.metrics
    say(
        f"out of sample: return {percent(metrics['return_frac'])}, Sharpe {number(metrics['sharpe_annual'])}, drawdown "
        f"{percent(metrics['max_drawdown_frac'])}, {int(metrics['n_trades'])} trades; purge {result.purge_bars} bars"
    )
    say(f"folder    {result.folder}")
    if html is not None:
        from qml_plugin.report.walk_forward_page import write_walk_forward_page

        with writing(html):
            say(f"page      {write_walk_forward_page(result, html)[0]}")
    if len(result.failed):
        say(
            inert(
                f"failed    {len(result.failed)} of {len(result.folds)} windows; first: {result.failed['error'].iloc[0]}"
            )
        )
        raise typer.Exit(1)


def _common(
    strategy: str,
    data: list[str],
    grid: list[str],
    options: list[str] | None,
    search: str,
    points: int | None,
    jobs: int | None,
) -> tuple[str, Any, dict[str, Any], dict[str, Any]]:
    """What both commands are given, as the functions take it."""
    from qml_plugin.errors import DataError
    from qml_plugin.provenance import place_of
    from qml_plugin.sweeps.points import parse_grid, value_of
    from qml_plugin.sweeps.search import SEARCHES

    if search not in SEARCHES:
        raise typer.BadParameter(f"--search is {search!r}. It must be one of {', '.join(SEARCHES)}.")
    if search != "grid" and points is None:
        raise typer.BadParameter(f"--search {search} has no end. Say how many points: --points 50.")
    if jobs == 0:
        raise typer.BadParameter("--jobs is 0. It is a number of processes, or -1 for one on each processor.")
    try:
        values = parse_grid(grid)
    except DataError as error:
        raise typer.BadParameter(str(error)) from error

    look_in_current_folder()
    given: dict[str, Any] = {}
    for text in options or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"--set {text!r} is not understood. Write name=value, such as cash=1000000.")
        given[name.strip()] = value_of(value)
    files = dict(_symbol_and_bars(text) for text in data)
    if len(files) < len(data):
        raise DataError("--data names a symbol twice. Give each file a symbol of its own: --data GOOG=goog.csv.")
    if len(files) == 1 and "symbol" in given:
        files = {str(given.pop("symbol")): next(iter(files.values()))}
    return place_of(strategy), files, values, given


def _symbol_and_bars(text: str) -> tuple[str, Any]:
    from qml_plugin.adapters.backtesting_py import BUNDLED, bundled_data

    symbol, equals, file = text.partition("=")
    if equals:
        return symbol, file
    return (text, bundled_data(text)) if text in BUNDLED else (Path(text).stem, text)


def _bars(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def _print_sweep(result: SweepResult, given: Mapping[str, Any]) -> None:
    from qml_plugin.errors import DataError
    from qml_plugin.sweeps.result import is_no_gain

    done = result.table[result.table["status"] == "finished"].sort_values("objective", ascending=False, kind="stable")
    names = [name for name in ("symbol", *result.grid_names) if name in result.table]
    print_table(
        (*names, result.objective, "return", "drawdown", "trades", "run"),
        [
            (
                *(row[name] for name in names), number(row["objective"], 4), percent(row["return_frac"]),
                percent(row["max_drawdown_frac"]), int(row["n_trades"]), row["run_id"][:8],
            )
            for row in done.head(_N_SHOWN).to_dict("records")
        ],
    )  # fmt: skip
    ways = [
        f"--set {name}=true closes a position with {when}" for name, when in _CLOSING.items() if not given.get(name)
    ]
    if n_open := int((done["n_trades"] == 0).sum()):
        say(
            f"no trade  {n_open} of {len(done)} points closed no trade and are not chosen"
            + ("; " + ", ".join(ways) if ways else "")
        )
    if len(done) > _N_SHOWN:
        say(f"and {len(done) - _N_SHOWN} more; --out FILE writes all")
    try:
        best = result.best()
        is_poor = is_no_gain(result.objective, best["objective"])
        poor = (
            f"; nothing here is worth going on with: {result.objective} {number(best['objective'])}" if is_poor else ""
        )
        say("plateau   " + ", ".join(f"{name}={best[name]}" for name in result.grid_names) + poor)
    except DataError as error:
        say(inert(f"plateau   none: {error}"))
    say(f"tested    {result.n_tested} of {len(result.table)} points; the best of many is biased upwards")
    say(f"folder    {result.folder}")
    for row in result.failed.to_dict("records"):
        point = ", ".join(f"{name}={row[name]}" for name in names)
        say(inert(f"failed    {point}: {row['error']}"))
    if len(result.failed):
        say(f"{len(result.failed)} points failed and count as not tested; --resume tries them again")
