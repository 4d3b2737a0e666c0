"""The command that validates a strategy. Everything heavy is imported inside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qml_plugin.cli.terminal import (
    DEFAULT_DB,
    Db,
    ProgressLine,
    inert,
    look_in_current_folder,
    number,
    print_table,
    refusing,
    say,
    telling_of_compilation,
    writing,
)

if TYPE_CHECKING:
    from qml_plugin.vrd.gates import Gate
    from qml_plugin.vrd.strategies import StrategyValidation

_NOT_MET, _INTERRUPTED = 1, 130
_FAILED = "FAILED"
_ENOUGH = {"DEPLOY": ("DEPLOY",), "CAUTION": ("DEPLOY", "CAUTION")}


def vrd(
    context: typer.Context,
    strategy: Annotated[str | None, typer.Argument(metavar="STRATEGY", help="A shipped strategy such as QMLStrategy, package.module:Class or path/to/file.py:Class; left out with --trades.")] = None,
    symbol: Annotated[list[str] | None, typer.Option("--symbol", "-s", help="Market, such as BTC/USDT; may be given again.")] = None,
    timeframe: Annotated[str | None, typer.Option("--timeframe", "-t", help="Length of a bar, such as 4h; inferred if absent.")] = None,
    data: Annotated[list[str] | None, typer.Option("--data", metavar="FILE", help="Bars of each symbol in turn, .csv or .parquet; without it the EURUSD and GOOG that backtesting.py ships.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="No search unless there is a --grid, fewer draws and paths.")] = False,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Processes that the trials of a search are spread over.")] = 1,
    grid: Annotated[list[str] | None, typer.Option("--grid", metavar="NAME=VALUES", help="Values to try: fast=5,10,20 or size=0.1:0.5:0.1; may be given again.")] = None,
    trades: Annotated[Path | None, typer.Option("--trades", metavar="FILE.csv", help="Returns from anywhere in the place of a strategy: columns return_frac (net of costs) and exit_at, and cost_frac where known.")] = None,
    fees: Annotated[float, typer.Option(help="Fraction of the price of each fill, slippage included.")] = 0.0005,
    exclusive: Annotated[bool | None, typer.Option("--exclusive/--no-exclusive", help="Whether an order closes what is open, as exclusive_orders of Backtest; by the strategy if absent.")] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the dossiers and kept steps go, a folder for each market.")] = Path("results/vrd"),
    db: Db = DEFAULT_DB,
    config: Annotated[Path | None, typer.Option("--config", metavar="FILE.toml", help="Thresholds in the place of the shipped ones, key by key.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")] = 0,
    require: Annotated[str | None, typer.Option("--require", metavar="VERDICT", help="DEPLOY or CAUTION: exit code 1 where a verdict is worse.")] = None,
) -> None:  # fmt: skip
    """Is the edge real? Search, walk forward, compare with luck, stress, and write a dossier: one page, the verdict first.

    An interrupted validation goes on where it was when the same command is given again. Every trial is recorded in the
    registry and counted. Exit codes: 0 whatever the verdict · 1 worse than --require, or
    every trial failed · 2 refused.

    Examples:

    - `qml vrd QMLStrategy --quick -s EURUSD -t 1h`
    - `qml vrd my.py:Breakout -s BTC/USDT -t 4h --data btc.parquet --grid n=10,20,40 --jobs 2`
    - `qml vrd --trades broker.csv`
    """
    if (strategy is None) == (trades is None):
        raise typer.BadParameter("give a STRATEGY, or --trades FILE.csv.")
    if require is not None and require not in _ENOUGH:
        raise typer.BadParameter(f"--require is DEPLOY or CAUTION, not {require}.")
    look_in_current_folder()
    options: dict[str, Any] = {"is_quick": quick, "seed": seed}
    try:
        with refusing(context):
            if trades is not None:
                if symbol or data or grid:
                    raise typer.BadParameter("--trades takes no --symbol, --data or --grid.")
                words = [_of_trades(trades, config, out, options)]
            else:
                options |= {"fees": fees, "is_exclusive": exclusive, "registry": db, "n_jobs": jobs}
                if grid:
                    from qml_plugin.sweeps.points import parse_grid

                    options["grid"] = parse_grid(grid)
                words = _of_strategy(str(strategy), symbol or [], data or [], timeframe, config, out, options)
    except KeyboardInterrupt:
        typer.echo("interrupted; what was done is kept, and the same command goes on from there", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    if _FAILED in words:
        raise typer.Exit(_NOT_MET)
    if require is not None and not set(words) <= set(_ENOUGH[require]):
        raise typer.Exit(_NOT_MET)


def _of_strategy(
    strategy: str, symbols: list[str], files: list[str], timeframe: str | None, config: Path | None, out: Path,
    options: dict[str, Any],
) -> list[str]:  # fmt: skip
    from qml_plugin.vrd.strategies import find_strategy, market_bars, validate_strategy
    from qml_plugin.vrd.thresholds import load_thresholds

    if not symbols or (files and len(files) != len(symbols)):
        raise typer.BadParameter(
            f"{len(symbols)} --symbol and {len(files)} --data. Give a symbol, and a file for each or none."
        )
    cls, thresholds = find_strategy(strategy), load_thresholds(config)
    of_symbols: list[str | None] = list(files) or [None] * len(symbols)
    # All are read before anything is computed: a typing error in the last name must not cost the work on the first.
    markets = [market_bars(one, timeframe, file) for one, file in zip(symbols, of_symbols, strict=True)]
    words = []
    for bars in markets:
        folder = out / _name(cls.__name__, bars.symbol, bars.timeframe)
        with ProgressLine() as line, telling_of_compilation():
            found = validate_strategy(
                cls, bars, symbol=bars.symbol, thresholds=thresholds, folder=folder / "steps",
                on_progress=_heard(line, bars.symbol), **options,
            )  # fmt: skip
        words.append(_told(found, folder))
    return words


def _of_trades(path: Path, config: Path | None, out: Path, options: dict[str, Any]) -> str:
    from qml_plugin.vrd.strategies import validate_trades
    from qml_plugin.vrd.thresholds import load_thresholds

    folder = out / _name("trades", path.stem)
    with ProgressLine() as line:
        found = validate_trades(
            path, thresholds=load_thresholds(config), folder=folder / "steps",
            on_progress=_heard(line, path.stem), **options,
        )  # fmt: skip
    return _told(found, folder)


def _heard(line: Any, market: str) -> Callable[[str, int, int], object]:
    """Steps of a validation on a line of progress."""
    return lambda name, done, total: line(done, total, f"{inert(market)} {name}")


def _told(found: StrategyValidation, folder: Path) -> str:
    """Write the dossier, say the verdict, and return its word; `_FAILED` where no trial of a strategy gave a result."""
    from qml_plugin.report.dossier import write_dossier

    v = found.validation
    say(inert(f"{v.verdict.word}  {v.strategy_name} {v.symbol} {v.timeframe}".rstrip()))
    say(inert(v.verdict.sentence))
    for warning in (*v.warnings, *found.file_warnings):
        say(inert(f"warning   {warning}"))
    if v.trials is not None and v.trials.failed:
        first = v.trials.failed[0]
        n_all = v.trials.n_trials + len(v.trials.failed)
        say(
            inert(
                f"{len(v.trials.failed)} of {n_all} trials failed; the first, {first.parameters}, with {first.reason}"
            )
        )
    has_failed = found.bars is not None and v.trials is None
    if found.n_attempts is not None and not has_failed:
        say(
            f"attempt {found.n_attempts} of {v.strategy_name} on these bars; "
            f"recorded runs of any strategy on them: {found.n_trials_on_bars}"
        )
    if not has_failed:  # else the one error would stand in every row
        _print_gates(v.gates)
    with writing(folder):
        page, numbers = write_dossier(found, folder)
    say(f"\ndossier   {page}\nnumbers   {numbers}\n")
    return _FAILED if has_failed else v.verdict.word


def _print_gates(gates: Sequence[Gate]) -> None:
    say()
    print_table(
        ("gate", "answer", "value", "threshold", "why"),
        [(gate.name, gate.status, _value(gate), number(_finite(gate.threshold), 3), gate.reason) for gate in gates],
    )  # fmt: skip


def _value(gate: Gate) -> str | None:
    is_p = gate.name in ("timing", "selection")
    return "<0.001" if is_p and gate.value < 0.0005 else number(_finite(gate.value), 3)


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None


def _name(*parts: str) -> str:
    """A name of a folder: whatever is no letter, digit, dot or dash becomes a dash."""
    return "_".join("".join(c if c.isalnum() or c in ".-" else "-" for c in part).lstrip(".") or "-" for part in parts)
