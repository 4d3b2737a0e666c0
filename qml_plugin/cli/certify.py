"""The command that certifies the verdict. Everything heavy is imported inside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qml_plugin.cli.terminal import (
    ProgressLine,
    check_files,
    inert,
    look_in_current_folder,
    number,
    percent,
    print_table,
    refusing,
    say,
    telling_of_compilation,
    writing,
)
from qml_plugin.errors import DataError

if TYPE_CHECKING:
    from qml_plugin.vrd.certification import Certification, Count, Market, Searched, Share

_INTERRUPTED = 130
_SETS, _OWN_SETS = 20, 60
_WORLDS = "null,drift,real,edge2"
_JUDGES = {"ours": "qml vrd", "naive": "best PSR", "classic": "classic recipe", "permuted": "qml vrd, permuted"}


def certify(
    context: typer.Context,
    strategy: Annotated[str | None, typer.Argument(metavar="[STRATEGY]", help="Your own: package.module:Class or path/to/file.py:Class of an ArrayStrategy. Left out, the shipped families are certified.")] = None,
    worlds: Annotated[list[str] | None, typer.Option("--worlds", metavar="NAMES", help=f"null, drift, real, edge1, edge2, edge3, or all; {_WORLDS} by default, those without an edge with a STRATEGY.")] = None,
    families: Annotated[list[str] | None, typer.Option("--families", metavar="NAMES", help="moving_average, breakout, mean_reversion, quasimodo; all by default.")] = None,
    sets: Annotated[int | None, typer.Option("--sets", min=1, help=f"Markets of each world and family; {_SETS} by default, {_OWN_SETS} with a STRATEGY.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of the first market; by default that of the published counts, 2000000.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="Processes; -1 for one on each processor. The counts are the same for any number.")] = 1,
    permutations: Annotated[int, typer.Option("--permutations", min=0, metavar="N", help="Judge each market once more, with the whole search repeated on N permutations of its bars as the gate of selection; at least 19, 99 are usual.")] = 0,
    grid: Annotated[list[str] | None, typer.Option("--grid", metavar="NAME=VALUES", help="The search of your STRATEGY: n=10,20,40 or size=0.1:0.5:0.1; may be given again.")] = None,
    fees: Annotated[float, typer.Option(help="Of your STRATEGY: fraction of the price of each fill, slippage included.")] = 0.0005,
    symbol: Annotated[str | None, typer.Option("--symbol", "-s", help="Market of --data, or EURUSD or GOOG, which backtesting.py ships.")] = None,
    timeframe: Annotated[str | None, typer.Option("--timeframe", "-t", help="Length of a bar, such as 4h; inferred if absent.")] = None,
    data: Annotated[Path | None, typer.Option("--data", metavar="FILE", help="Bars, .csv or .parquet: worlds become as long and as volatile as these, and real is made of their blocks.")] = None,
    config: Annotated[Path | None, typer.Option("--config", metavar="FILE.toml", help="Thresholds in the place of the shipped ones, key by key.")] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where finished sets are kept; they are not computed again.")] = Path("results/certify"),
    seconds: Annotated[float | None, typer.Option("--seconds", min=0, help="Begin no further market after so long.")] = None,
    table: Annotated[bool, typer.Option("--table", help="Count what is kept, and compute nothing.")] = False,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page about it.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all counts as JSON; - is stdout.")] = None,
) -> None:  # fmt: skip
    """How often is noise called an edge? Count the verdicts of `qml vrd` on markets whose truth is known.

    **null** markets are pure noise with clustered volatility, **drift** ones rise besides, **real** ones are blocks of real
    bars in another order: on all three DEPLOY is wrong. In **edge1** to **edge3** an annual Sharpe ratio of 1 to 3 is
    planted: there DEPLOY is right. Each market is searched by a family of strategies with its whole grid, and judged by
    `qml vrd`, by "the best has a PSR of 0.95", and by the classic recipe of shuffled trades with fixed thresholds.

    With a STRATEGY the question is: on how many markets without an edge would my own search be called DEPLOY? An
    interrupted certification goes on where it was. Exit codes: 0 counted · 2 refused.

    Examples:

    - `qml certify --jobs 2 --html certify.html` (a minute or two)
    - `qml certify --worlds null --families quasimodo --sets 100 --seed 7`
    - `qml certify my.py:Breakout --grid n=10,20,40 -s BTC/USDT -t 4h --data btc.parquet`
    """
    if strategy is not None and families:
        raise typer.BadParameter("--families are the shipped ones. Give them or a STRATEGY.")
    if strategy is None and grid:
        raise typer.BadParameter("--grid is the search of a STRATEGY; the shipped families have their own.")
    if 0 < permutations < 19:
        raise typer.BadParameter(f"--permutations {permutations} cannot reach p = 0.05. Use 19 or more.")
    look_in_current_folder()
    try:
        with refusing(context):
            check_files(html, json_file)
            found = _counted(
                strategy, _names(worlds), _names(families), sets, seed, jobs, permutations, grid, fees, symbol, timeframe, data,
                config, out, seconds, table,
            )  # fmt: skip
            _tell(found, html, json_file)
    except KeyboardInterrupt:
        typer.echo("interrupted; finished sets are kept, and the same command goes on from there", err=True)
        raise typer.Exit(_INTERRUPTED) from None


def _counted(
    strategy: str | None, worlds: list[str], families: list[str], sets: int | None, seed: int | None, jobs: int,
    permutations: int, grid: list[str] | None, fees: float, symbol: str | None, timeframe: str | None, data: Path | None,
    config: Path | None, out: Path, seconds: float | None, is_only_counted: bool,
) -> Certification:  # fmt: skip
    from qml_plugin.vrd.certification import FAMILIES, NO_EDGE, PUBLISHED_SEED, WORLDS, Draws, certify
    from qml_plugin.vrd.thresholds import load_thresholds

    searched: list[Searched]
    if strategy is not None:
        from qml_plugin.sweeps.points import parse_grid
        from qml_plugin.vrd.certification.own_strategy import OwnStrategy

        searched = [OwnStrategy.of(strategy, parse_grid(grid) if grid else None, fees=fees)]
    else:
        if unknown := [name for name in families if name not in FAMILIES]:
            raise DataError(f"there is no family {unknown[0]!r}. The families are {', '.join(FAMILIES)}.")
        searched = [FAMILIES[name] for name in families or FAMILIES]
    if worlds == ["all"]:
        worlds = list(WORLDS if strategy is None else NO_EDGE)
    default = _WORLDS.split(",") if strategy is None else list(NO_EDGE)
    with ProgressLine() as line, telling_of_compilation():
        return certify(
            searched, worlds or default, n_sets=sets or (_SETS if strategy is None else _OWN_SETS),
            seed=PUBLISHED_SEED if seed is None else seed, market=_market(data, symbol, timeframe),
            draws=Draws(n_permutations=permutations), thresholds=load_thresholds(config), folder=out, n_jobs=jobs,
            seconds=float("inf") if seconds is None else seconds, is_only_counted=is_only_counted, on_progress=line,
        )  # fmt: skip


def _market(data: Path | None, symbol: str | None, timeframe: str | None) -> Market | None:
    if data is None and symbol is None:
        if timeframe is not None:
            raise DataError(
                "--timeframe says how long the bars of --data or --symbol are; without these it has no meaning."
            )
        return None
    from qml_plugin.vrd.certification import Market
    from qml_plugin.vrd.strategies import market_bars

    return Market.of(market_bars(symbol or (data.stem if data else ""), timeframe, data))


def _tell(found: Certification, html: Path | None, json_file: Path | None) -> None:
    is_piped = str(json_file) == "-"
    if not is_piped:
        _print(found)
    if html is not None:
        from qml_plugin.report.certification_page import write_certification_page

        with writing(html):
            page = write_certification_page(found, html)
        typer.echo(f"page      {page}", err=is_piped)
    if json_file is not None:
        text = json.dumps(found.as_dict(), indent=1)
        if is_piped:
            say(text)
        else:
            with writing(json_file):
                json_file.write_text(text + "\n", encoding="utf-8")


def _print(found: Certification) -> None:
    if not found.counts:
        say("no set is kept that was made with these settings; run it without --table")
        return
    print_table(
        ("world", "strategy", "markets", *(f"{_JUDGES[judge]}: DEPLOY" for judge in found.judges), "planted Sharpe"),
        [
            (
                row.world, row.family, row.n, *(_share(row, judge) for judge in found.judges),
                None if row.true_sharpe is None else number(row.true_sharpe),
            )
            for row in found.counts
        ],
    )  # fmt: skip
    say()
    say(inert(found.sentence()))
    fewest = min(row.n for row in found.counts)
    if fewest < 200:
        say(f"A row of {fewest} markets leaves a wide interval; --sets makes it narrower, and what is done is kept.")


def _share(row: Count, judge: str) -> str:
    share: Share | None = row.shares.get(judge)
    if share is None:
        return "–"
    return f"{percent(share.share)} ({number(100 * share.low, 1)} to {number(100 * share.high, 1)})"


def _names(given: list[str] | None) -> list[str]:
    return [name.strip() for text in given or () for name in text.split(",") if name.strip()]
