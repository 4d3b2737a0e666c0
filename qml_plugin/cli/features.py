"""The commands about features. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qml_plugin.cli.terminal import (
    AsJson,
    ProgressLine,
    number,
    percent,
    print_table,
    say,
    telling_of_compilation,
    writing,
)

if TYPE_CHECKING:
    import pandas as pd

    from qml_plugin.bars import Bars
    from qml_plugin.features import Feature
    from qml_plugin.records import FloatArray

features_app = typer.Typer(no_args_is_help=True, help="The catalogue of point-in-time features.")

Data = Annotated[Path, typer.Argument(metavar="DATA", help="Bars as a .csv or .parquet file: times, open, high, low, close, volume; or GOOG or EURUSD, which backtesting.py ships.")]  # fmt: skip
Symbol = Annotated[str | None, typer.Option(help="What the bars are called; without it the name of the file.")]
Timeframe = Annotated[str | None, typer.Option(help="Length of a bar, such as 4h; without it their median spacing.")]
Tz = Annotated[str | None, typer.Option("--tz", help="Time zone of times without one; without it they are UTC.")]

_N_DRAWN = 1_000
_PICTURE_WIDTH = 96
_LABEL_WIDTH = 14


@features_app.command("list")
def features_list(
    category: Annotated[str | None, typer.Option(help="Only this category, such as ctx or geo.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the features: name, category, what they need, window, warm-up, definition, source.

    Example: `qml features list --category vol`
    """
    from qml_plugin.errors import DataError
    from qml_plugin.features import CATALOGUE

    categories = sorted({feature.category for feature in CATALOGUE})
    if category is not None and category not in categories:
        raise DataError(f"category {category!r} is unknown. Use one of {', '.join(categories)}.")
    fields = ("name", "category", "needs", "window", "warmup", "definition", "source")
    rows = [
        {field: getattr(feature, field) for field in fields}
        for feature in CATALOGUE
        if category in (None, feature.category)
    ]
    if as_json:
        say(json.dumps(rows, indent=2))
    else:
        print_table(fields, (tuple(row.values()) for row in rows))


@features_app.command("show")
def features_show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a feature, as the command list prints it.")],
    data: Annotated[Path | None, typer.Argument(metavar="DATA", help="Bars as a .csv or .parquet file; without it the GOOG bars of backtesting.py.")] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Also write a page with the feature under the price.")] = None,
    symbol: Symbol = None,
    timeframe: Timeframe = None,
    tz: Tz = None,
) -> None:  # fmt: skip
    """Explain one feature, and show its values on your bars: quantiles, what is missing, a picture under the price.

    Example: `qml features show ctx_rsi_14 bars.csv --html rsi.html`
    """
    from qml_plugin.errors import DataError
    from qml_plugin.features import CATALOGUE

    feature = CATALOGUE[name]
    if html is not None and html.suffix.lower() not in (".html", ".htm"):
        raise DataError(f"{html} is no .html file. Name the page FILE.html.")
    _print_facts(feature)
    if feature.needs != "bars":
        if html is not None:
            raise DataError(
                f"{name} needs an entry's {feature.needs}: bars alone give it no value, so there is no page to draw."
            )
        say(f"\nIt needs an entry's {feature.needs}: bars alone give it no value. Registered entries hold it.")
        return
    bars = read_series(data, symbol, timeframe, tz) if data is not None else _bundled_bars(timeframe)
    if bars is None:
        if html is not None:
            raise DataError(
                "there are no bars to draw. Pass DATA, or install backtesting.py, whose GOOG bars are the default."
            )
        say("\nPass DATA to see its values on your bars.")
        return
    values = _values(bars, feature)
    _print_values(feature, bars, values, is_bundled=data is None)
    if html is not None:
        say(f"\npage  {_write_page(feature, bars, values, html)}")


@features_app.command("compute")
def features_compute(
    data: Data,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="File to write, .parquet or .csv.")],
    force: Annotated[bool, typer.Option("--force", help="Replace FILE where it exists.")] = False,
    timeframe: Timeframe = None,
    tz: Tz = None,
) -> None:
    """Compute all features of all bars and write them to a file, a row a bar.

    Features that need an entry are NaN. Example: `qml features compute bars.csv --out features.parquet`
    """
    from qml_plugin.errors import DataError
    from qml_plugin.features import CATALOGUE
    from qml_plugin.features.table import check_target, write_features

    check_target(out, may_replace=force)
    if out.resolve() == data.resolve():
        raise DataError(f"{out} is the file of the bars. Choose another name: the bars would be lost.")
    bars = read_series(data, None, timeframe, tz)
    began = time.perf_counter()
    with ProgressLine() as step, telling_of_compilation():
        written = write_features(bars, out, step)
    n_of_entries = sum(feature.needs != "bars" for feature in CATALOGUE)
    say(f"file      {out}")
    say(f"size      {written.n_rows:,} rows x {written.n_features} features")
    say(
        f"finite    {percent(written.finite_frac)} of the values; {n_of_entries} features need an entry and are NaN here"
    )
    say(f"time      {number(time.perf_counter() - began, 1)} s")


@features_app.command("redundancy")
def features_redundancy(
    data: Data,
    threshold: Annotated[
        float, typer.Option(help="Absolute correlation above which two features say the same.")
    ] = 0.95,
    timeframe: Timeframe = None,
    tz: Tz = None,
    as_json: AsJson = False,
) -> None:
    """Find features that say the same on your bars, and how many independent ones they amount to.

    Describes these bars, all of them: do not choose features by bars that a strategy is then judged on.
    Example: `qml features redundancy bars.csv --threshold 0.9`
    """
    from qml_plugin.features import CATALOGUE, compute_features
    from qml_plugin.features.redundancy import redundancy

    bars = read_series(data, None, timeframe, tz)
    with telling_of_compilation():
        table = compute_features(bars)
    found = redundancy(table[[feature.name for feature in CATALOGUE if feature.needs == "bars"]], threshold=threshold)
    if as_json:
        clusters = [{"representative": one.representative, "others": dict(one.others)} for one in found.clusters]
        left_out = {"constant": found.constant, "never_finite": found.never_finite}
        counts = {"n_rows": found.n_rows, "n_features": found.n_features, "n_clusters": len(found.clusters)}
        n_effective = found.n_effective if found.clusters else None
        say(json.dumps({"threshold": threshold, **counts, "n_effective": n_effective, "clusters": clusters, **left_out}, indent=2))  # fmt: skip
        return
    several = [one for one in found.clusters if one.others]
    if several:
        rows = [(one.representative, ", ".join(f"{name} {number(r)}" for name, r in one.others)) for one in several]
        print_table(("representative", "features that correlate with it"), rows)
        say()
    say(f"rows              {found.n_rows:,}")
    say(f"features          {found.n_features} that vary on these bars")
    say(
        f"clusters          {len(found.clusters)} at |r| > {threshold:g}, {len(several)} of them with more than one feature"
    )
    say(f"effective number  {number(found.n_effective, 1) if found.clusters else number(None)} (participation ratio of the eigenvalues of the correlations)")  # fmt: skip
    if found.constant:
        say(f"constant          {', '.join(found.constant)}")
    if found.never_finite:
        say(f"never a value     {', '.join(found.never_finite)}")


def warmup() -> None:
    """Compile the kernels of the features ahead, so that the first use does not wait.

    The machine code stays on disk until the version, numba or the processor changes. Example: `qml warmup`
    """
    from qml_plugin.features.warmup import warm_up

    began = time.perf_counter()
    names: list[str] = []
    with ProgressLine() as step:

        def tell(name: str) -> None:
            names.append(name)
            step(len(names), None, f"compiling {name}")

        n_compiled = warm_up(tell)
    seconds = number(time.perf_counter() - began, 1)
    say(f"compiled {n_compiled} kernels in {seconds} s" if n_compiled else f"already compiled, loaded in {seconds} s")


def read_frame(data: Path, tz: str | None = None) -> pd.DataFrame:
    """The bars of a file, or those that come along under this name."""
    from qml_plugin.bars import read_bars

    if not data.suffix and not data.exists():
        from qml_plugin.adapters.backtesting_py import BUNDLED, bundled_data

        if str(data) in BUNDLED:
            return read_bars(bundled_data(str(data)), tz=tz)
    return read_bars(data, tz=tz)


def read_series(data: Path, symbol: str | None, timeframe: str | None, tz: str | None) -> Bars:
    """The same under a symbol or the name of the file."""
    from qml_plugin.bars import bars_from_frame

    frame = read_frame(data, tz)
    frame = frame if tz is None else frame.tz_convert(tz)  # days of a market are 23 hours long once a year
    return bars_from_frame(frame, symbol=symbol or data.stem, timeframe=timeframe)


def _bundled_bars(timeframe: str | None) -> Bars | None:
    """GOOG as backtesting.py ships it, or None where that is not installed."""
    from qml_plugin.bars import bars_from_frame
    from qml_plugin.errors import MissingExtra

    try:
        from qml_plugin.adapters.backtesting_py import bundled_data
    except MissingExtra:
        return None
    return bars_from_frame(bundled_data("GOOG"), symbol="GOOG", timeframe=timeframe)


def _values(bars: Bars, feature: Feature) -> FloatArray:
    from qml_plugin.features import compute_features

    with telling_of_compilation():
        return compute_features(bars)[feature.name].to_numpy()


def _print_facts(feature: Feature) -> None:
    say(feature.name)
    say(f"definition  {feature.definition}")
    say(f"source      {feature.source or '–'}")
    say(f"needs       {feature.needs}")
    say(f"window      {feature.window} {'bar' if feature.window == 1 else 'bars'}")
    say(f"warm-up     {feature.warmup} {'bar' if feature.warmup == 1 else 'bars'}")
    say(f"version     {feature.version}")


def _print_values(feature: Feature, bars: Bars, values: FloatArray, *, is_bundled: bool) -> None:
    from qml_plugin.cli.blocks import histogram_lines, series_lines
    from qml_plugin.clock import isoformat
    from qml_plugin.stats.distribution import QUANTILES, distribution

    found = distribution(values, warmup=feature.warmup)
    first, last = (isoformat(int(bars.opened_at[t])) for t in (0, -1))
    origin = ", bundled with backtesting.py; pass DATA for your own" if is_bundled else ""
    say(f"\ndata        {bars.symbol}, {len(bars):,} bars of {bars.timeframe} from {first} to {last}{origin}")
    say(f"missing     {percent(found.missing_frac)}: {found.n_early:,} in the warm-up, {found.n_missing:,} after it")
    if not found.quantiles:
        say("\nIt has no value on these bars.")
        return
    say()
    print_table([f"{100 * share:g} %" for share in QUANTILES], [[f"{value:.4g}" for value in found.quantiles]])
    say()
    for line in histogram_lines(found, 48):
        say(line)
    width = min(_PICTURE_WIDTH, shutil.get_terminal_size((_PICTURE_WIDTH + _LABEL_WIDTH, 24)).columns - _LABEL_WIDTH)
    for title, series, height in (("close", bars.close, 4), (feature.name, values, 6)):
        say(f"\n{title}")
        for line in series_lines(series, width, height):
            say(line)


def _write_page(feature: Feature, bars: Bars, values: FloatArray, path: Path) -> Path:
    from qml_plugin.report.feature_page import write_feature_page
    from qml_plugin.report.views import FeatureView
    from qml_plugin.stats.distribution import distribution

    drawn = slice(max(0, len(bars) - _N_DRAWN), None)
    columns = {name: getattr(bars, name)[drawn] for name in ("opened_at", "open", "high", "low", "close")}
    facts = {
        name: getattr(feature, name)
        for name in ("name", "definition", "source", "needs", "window", "warmup", "version")
    }
    view = FeatureView(
        **facts, **columns, symbol=bars.symbol, timeframe=bars.timeframe, n_bars=len(bars), values=values[drawn],
        distribution=distribution(values, warmup=feature.warmup),
    )  # fmt: skip
    with writing(path):
        return write_feature_page(view, path)
