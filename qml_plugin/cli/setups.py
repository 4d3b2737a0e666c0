"""The command that lists the setups of a series. Everything heavy is imported inside it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qml_plugin.cli.features import Data, Symbol, Timeframe, Tz, read_series
from qml_plugin.cli.terminal import AsJson, number, print_table, say, telling_of_compilation, writing

if TYPE_CHECKING:
    from qml_plugin.bars import Bars
    from qml_plugin.records import Setup


def setups(
    data: Data,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Also write a page with a chart a setup.")] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="At most so many, the last ones.")] = 20,
    swing_model: Annotated[str, typer.Option(help="atr: a turn counts once the close is some ATRs away; fractal: once some bars have passed.")] = "atr",
    swing_atr: Annotated[float, typer.Option(help="With atr: how many ATRs. More finds larger patterns.")] = 1.0,
    fractal_bars: Annotated[int, typer.Option(help="With fractal: how many bars on each side.")] = 3,
    symbol: Symbol = None,
    timeframe: Timeframe = None,
    tz: Tz = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Find Quasimodo setups on your bars: when each became known, its entry, stop, target and score.

    Example: `qml setups EURUSD --swing-atr 2 --html setups.html`
    """
    from qml_plugin.clock import isoformat
    from qml_plugin.detection import find_quasimodo
    from qml_plugin.errors import DataError

    if html is not None and html.suffix.lower() not in (".html", ".htm"):
        raise DataError(f"{html} is no .html file. Name the page FILE.html.")
    if swing_model not in ("atr", "fractal"):
        raise typer.BadParameter(f"--swing-model is {swing_model!r}. It must be atr or fractal.")
    bars = read_series(data, symbol, timeframe, tz)
    with telling_of_compilation():
        found = find_quasimodo(bars, swing_model=swing_model, swing_atr=swing_atr, fractal_bars=fractal_bars)
    shown = found[-n:]
    page = _written_page(bars, shown, len(found), html) if html is not None else None
    if as_json:
        say(json.dumps([_as_data(bars, setup) for setup in shown], indent=2, allow_nan=False))
    elif shown:
        print_table(
            ("known", "side", "entry", "stop", "target", "score", "first bar", "known bar", "seen"),
            (
                (
                    isoformat(int(bars.opened_at[setup.known_bar])), "long" if setup.side > 0 else "short",
                    *(f"{px or 0:.6g}" for px in (setup.points[-1].px, setup.stop_px, setup.target_px)),
                    number(setup.validity_score), setup.points[0].bar, setup.known_bar,
                    ", ".join([*(level.name for level in setup.levels), *["order block"] * (setup.order_block is not None)]),
                )
                for setup in shown
            ),
        )  # fmt: skip
        say(f"\n{len(found)} setups on {len(bars):,} bars" + (f", the last {n} shown" if len(found) > n else ""))
    else:
        say(
            f"no setup on the {len(bars):,} bars of {data.name}; --swing-atr or --swing-model fractal looks on another scale"
        )
    if page is not None:
        typer.echo(f"page  {page}", err=as_json)


def _as_data(bars: Bars, setup: Setup) -> dict[str, Any]:
    """A setup with the times of its bars."""
    from qml_plugin.clock import isoformat

    data = asdict(setup)
    placed = [*data["points"], *data["levels"], *([data["order_block"]] if data["order_block"] else [])]
    for one in placed:
        one["at"] = isoformat(int(bars.opened_at[one["bar"]]))
    return {"at": isoformat(int(bars.opened_at[setup.known_bar])), **data}


def _written_page(bars: Bars, shown: list[Setup], n_found: int, path: Path) -> Path:
    from qml_plugin.report.setup_page import write_setups_page

    with writing(path):
        return write_setups_page(bars, shown[::-1], n_found, path)
