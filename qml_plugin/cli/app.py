"""The commands. Everything heavy is imported inside the command that needs it, so that help is instant."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from qml_plugin import __version__
from qml_plugin.cli.audit import audit
from qml_plugin.cli.certify import certify
from qml_plugin.cli.decisions import decisions
from qml_plugin.cli.engines import compare_engines
from qml_plugin.cli.features import features_app, warmup
from qml_plugin.cli.label import label
from qml_plugin.cli.models import models_app, train
from qml_plugin.cli.runs import runs_app
from qml_plugin.cli.setups import setups
from qml_plugin.cli.similar import similar
from qml_plugin.cli.studies import studies_app
from qml_plugin.cli.sweeps import sweep, walk_forward
from qml_plugin.cli.terminal import (
    DEFAULT_DB,
    AsJson,
    Db,
    ProgressLine,
    number,
    percent,
    print_mapping,
    print_statistics,
    print_table,
    say,
    telling_of_compilation,
)
from qml_plugin.cli.trial import trial
from qml_plugin.cli.vrd import vrd

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",
    help="When should I not take my own signal, and is any of this real?",
    epilog="Exit codes: 0 done · 1 refused, with the reason · 2 wrong usage · 3 the database has another schema version · "
    "4 the database is damaged or not ours. `qml --debug COMMAND` shows the traceback of an error.",
)
db_app = typer.Typer(no_args_is_help=True, help="The database: its schema version, its size, its upgrade.")
app.add_typer(db_app, name="db")
app.add_typer(features_app, name="features")
app.add_typer(models_app, name="models")
app.add_typer(runs_app, name="runs")
app.add_typer(studies_app, name="study")


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Options that every command takes."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # the host's own bars would fight with ours


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the databases and the page; created if missing.")] = Path(
        "build"
    ),
) -> None:
    """Run two strategies on real and synthetic data in all three modes, and write one page about it.

    Needs no network. Writes `experiments.db`, `synthetic.db` and `demo.html` into the folder and nothing elsewhere.
    """
    from qml_plugin.demo import run_demo

    with ProgressLine() as step, telling_of_compilation():
        result = run_demo(out, on_step=step)
    print_table(
        ("strategy", "data", "mode", "entries", "taken", "skipped", "abstained", "win share", "return", "Sharpe", "Brier skill"),
        (
            (
                row.strategy, row.data, row.mode, row.n_entries, row.n_taken,
                f"{row.n_skipped} (would {row.n_would_skip})" if row.n_would_skip else row.n_skipped,
                f"{row.n_abstained} {row.main_reason or ''}".strip(), percent(row.win_share), percent(row.return_frac),
                number(row.sharpe_annual), number(row.brier_skill, 3),
            )
            for row in result.rows
        ),
    )  # fmt: skip
    for finding in result.findings:
        say(f"- {finding}")
    say(f"database  {result.database}   (synthetic: {Path(result.database).with_name('synthetic.db')})")
    say(f"report    {result.page}")
    say(f"next      qml stats --db sqlite:///{result.database}")


@app.command()
def stats(db: Db = DEFAULT_DB, as_json: AsJson = False) -> None:
    """Count what the registry holds: patterns, labels, win share, runs; with --json also all of the last run."""
    from qml_plugin.registry import PatternRegistry

    print_statistics(PatternRegistry(db, create=False).get_statistics(), as_json)


app.command()(vrd)
app.command()(certify)
app.command()(audit)
app.command()(similar)
app.command()(setups)
app.command()(decisions)
app.command()(trial)
app.command()(sweep)
app.command("walk-forward")(walk_forward)
app.command()(label)
app.command()(train)
app.command()(warmup)
app.command("compare-engines")(compare_engines)


@db_app.command("migrate")
def db_migrate(db: Db = DEFAULT_DB) -> None:
    """Create the database, or upgrade it to this version; a backup is made beside it first."""
    from qml_plugin.registry.migrations import migrate

    applied = migrate(db)
    say(f"applied {', '.join(applied)}" if applied else "already at the current schema version")


@db_app.command("info")
def db_info(db: Db = DEFAULT_DB, as_json: AsJson = False) -> None:
    """Print path, schema version, size and row counts."""
    from qml_plugin.registry.migrations import info

    print_mapping(info(db), as_json)


@db_app.command("backup")
def db_backup(
    db: Db = DEFAULT_DB,
    out: Annotated[
        Path | None, typer.Option(help="File to make; beside the database, named by the time, if absent.")
    ] = None,
) -> None:
    """Copy the database into one file while others use it; a plain copy of the file would lose the newest rows.

    In another folder than the database's it comes with the files of the models, in `COPY.models` beside it.
    """
    from qml_plugin.registry.maintenance import backup

    say(f"backup    {backup(db, out)}")


@db_app.command("restore")
def db_restore(
    backup: Annotated[Path, typer.Argument(help="File that a backup or an upgrade made.")],
    db: Db = DEFAULT_DB,
    replace: Annotated[bool, typer.Option("--replace", help="Move a database that is there aside first.")] = False,
) -> None:
    """Put a checked backup in the place of the database; what was there is moved aside, never overwritten.

    The files of the models that lie beside the backup go back into `models` beside the database.
    """
    from qml_plugin.registry.maintenance import restore

    aside = restore(db, backup, replace=replace)
    say(f"restored  {db}" + (f"\nbefore    {aside}" if aside else ""))


@db_app.command("doctor")
def db_doctor(
    db: Db = DEFAULT_DB,
    deep: Annotated[bool, typer.Option("--deep", help="Check every row, vector and model file by its hash.")] = False,
    as_json: AsJson = False,
) -> None:
    """Examine the database and say what is wrong with it; exit code 4 if it is damaged."""
    from qml_plugin.registry.maintenance import doctor

    report = doctor(db, deep=deep)
    if as_json:
        print_mapping(report, as_json)
    else:
        findings = {"warning": report.pop("warnings"), "damage": report.pop("damages")}
        print_mapping(report | {"healthy": "no" if findings["damage"] else "yes"}, as_json)
        for kind, sentences in findings.items():
            for sentence in sentences:
                say(f"{kind}: {sentence}")
        report["damages"] = findings["damage"]
    if report["damages"]:
        raise typer.Exit(4)


@db_app.command("export")
def db_export(
    folder: Annotated[Path, typer.Argument(help="Folder to make, with a Parquet file a table and a manifest.")],
    db: Db = DEFAULT_DB,
) -> None:
    """Write every table, value for value, as Parquet with a JSON manifest of rows and hashes."""
    from qml_plugin.registry.transfer import export_registry

    print_table(("table", "rows"), list(export_registry(db, folder).items()))


@db_app.command("import")
def db_import(
    folder: Annotated[Path, typer.Argument(help="Folder that an export made.")],
    db: Db = DEFAULT_DB,
) -> None:
    """Fill a new or empty database from an export, all of it or nothing; what does not match its hash is refused."""
    from qml_plugin.registry.transfer import import_registry

    print_table(("table", "rows"), list(import_registry(db, folder).items()))
