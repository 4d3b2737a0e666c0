"""The command that holds the two hosts against one another."""

from __future__ import annotations

from typing import Annotated

import typer

from qml_plugin.cli.features import Data, Symbol, read_frame
from qml_plugin.cli.terminal import print_table, say, telling_of_compilation


def compare_engines(
    data: Data,
    symbol: Symbol = None,
    timeframe: Annotated[str | None, typer.Option(help="Length of a bar, such as 1h; inferred if absent.")] = None,
    fees: Annotated[float, typer.Option(help="Fraction of the price of each fill.")] = 0.0005,
    seed: Annotated[int, typer.Option(help="Of the entries by chance.")] = 0,
) -> None:
    """Play the same signals on backtesting.py and vectorbt, and compare all that they recorded; exit code 1 if they differ.

    Example: `qml compare-engines EURUSD`
    """
    from qml_plugin.adapters.engines import REASONS, check_engines

    with telling_of_compilation():
        found = list(
            check_engines(read_frame(data), symbol=symbol or data.stem, timeframe=timeframe, fees=fees, seed=seed)
        )
    print_table(
        ("signals", "mode", "fill", "entries", "skipped", "trades", "values", *REASONS, "unexplained"),
        [
            (
                name,
                mode,
                fill,
                c.n_entries,
                c.n_skipped,
                c.n_trades,
                c.n_values,
                *c.reasons.values(),
                len(c.unexplained),
            )
            for name, mode, fill, c in found
        ],
    )
    for reason, sentence in REASONS.items():
        say(f"{reason}: {sentence}")
    differences = [difference for *_, c in found for difference in c.unexplained]
    for difference in differences[:10]:
        say(
            f"unexplained: {difference.table}.{difference.column} of {difference.pattern_id}: backtesting.py "
            f"{difference.backtesting!r}, vectorbt {difference.vectorbt!r}"
        )
    if differences:
        raise typer.Exit(1)
