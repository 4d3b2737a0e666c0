"""The commands of studies. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qml_plugin.cli.terminal import (
    DEFAULT_DB,
    AsJson,
    Db,
    inert,
    interruptible,
    look_in_current_folder,
    number,
    print_table,
    say,
    telling_of_compilation,
    writing,
)

if TYPE_CHECKING:
    from qml_plugin.studies import Description

studies_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Studies: many strategies on many markets, each searched and validated, on one page.\n\n"
    "A study is a YAML file. It names strategies with the parameters to search, markets with their files, the costs and how "
    "strictly to judge:\n\n"
    "```yaml\n"
    "strategies:\n"
    "  - strategy: MovingAverageCross          # or my.py:Breakout, beside this file\n"
    "    grid: {fast: [5, 10, 20], slow: [50, 100]}\n"
    "markets:\n"
    "  - symbol: [BTCUSDT, ETHUSDT]\n"
    "    timeframe: [1h, 4h]\n"
    "    file: ${QML_DATA:-data}/{symbol}_{timeframe}.parquet\n"
    "validation: {quick: true}\n"
    "```\n\n"
    "- `qml study new my.yaml` writes one that runs as it is and explains every key.\n\n"
    "- `qml study run my.yaml --jobs 2` runs it, and ends with the address of the page.\n\n"
    "- `qml study status my.yaml`, also from another terminal, says how far it is.\n\n"
    "- `qml study resume my.yaml` goes on after Ctrl-C, a crash, or a change of the file: what is done is kept.\n\n"
    "- `qml study report my.yaml` writes the page of what is there so far.",
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The study, a YAML file.")]
Jobs = Annotated[int, typer.Option("--jobs", "-j", help="Parts that run at once, each in a process of its own; -1 for one on each processor.")]  # fmt: skip
Out = Annotated[Path | None, typer.Option("--out", metavar="FOLDER", help="Where the study is kept; results/studies/NAME unless given.")]  # fmt: skip


@studies_app.command()
def run(
    file: File, jobs: Jobs = 1, out: Out = None, db: Db = DEFAULT_DB,
    afresh: Annotated[bool, typer.Option("--afresh", help="Move what an earlier run left aside, and begin again.")] = False,
) -> None:  # fmt: skip
    """Search and validate every strategy of a study on every market, and write the page.

    Everything is read and checked before anything runs. Exit codes: 0 done, whatever the verdicts · 1 a cell or a point
    failed, or the study was refused · 130 interrupted.
    """
    _carry_out(file, jobs, out, db, is_resumed=False, is_afresh=afresh)


@studies_app.command()
def resume(file: File, jobs: Jobs = 1, out: Out = None, db: Db = DEFAULT_DB) -> None:
    """Go on with a study: what is done under the same code, data and description is kept, what failed is tried again."""
    _carry_out(file, jobs, out, db, is_resumed=True, is_afresh=False)


@studies_app.command()
def status(file: File, out: Out = None, as_json: AsJson = False) -> None:
    """Say how far a study is, cell by cell; also while another process runs it."""
    import json

    from qml_plugin.studies import study_page

    description = _read(file)
    view = study_page(description, _folder(description, out))
    if as_json:
        say(json.dumps(view.as_dict(), ensure_ascii=False, indent=2))
        return
    print_table(
        ("strategy", "market", "search", "validation", "verdict", "among all", "Sharpe"),
        [
            (
                cell.strategy, cell.market, cell.sweep["status"], cell.validation["status"], cell.verdict,
                None if cell.is_discovery is None else "yes" if cell.is_discovery else "no",
                number(cell.validation.get("excess_sharpe")),
            )
            for cell in view.cells
        ],
    )  # fmt: skip
    counts = ", ".join(f"{n} {word}" for word, n in view.counts().items())
    say(f"study     {view.name}, {'not begun' if view.status == 'waiting' else view.status}: {counts}")
    for cell in view.cells:
        if cell.error:
            say(inert(f"failed    {cell.strategy} {cell.market}: {cell.error}"))


@studies_app.command()
def report(file: File, out: Out = None) -> None:
    """Write the page of what is there so far, and all numbers as JSON beside it."""
    description = _read(file)
    folder = _folder(description, out)
    _write_page(description, folder)


@studies_app.command()
def new(file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to make.")]) -> None:
    """Write a study that runs as it is, on data that come along, and explains every key."""
    from importlib import resources

    from qml_plugin.errors import DataError

    if file.exists():
        raise DataError(f"{file} is there already. Name another file.")
    text = resources.files("qml_plugin.studies").joinpath("template.yaml").read_text(encoding="utf-8")
    with writing(file):
        file.write_text(text, encoding="utf-8")
    say(f"study     {file}\nnext      qml study run {file}")


def _carry_out(file: Path, jobs: int, out: Path | None, db: str, *, is_resumed: bool, is_afresh: bool) -> None:
    from qml_plugin.studies import run_study
    from qml_plugin.studies.folder import StudyFolder
    from qml_plugin.sweeps.progress import ProgressLine

    if jobs == 0:
        raise typer.BadParameter("--jobs is 0. It is a number of processes, or -1 for one on each processor.")
    description = _read(file)
    folder = _folder(description, out)
    if is_afresh and folder.exists():
        say(f"before    {StudyFolder(folder).move_aside()}")
    with interruptible(), telling_of_compilation(), ProgressLine(f"study {description.name}", "parts") as line:
        try:
            done = run_study(description, folder, registry=db, n_jobs=jobs, resume=is_resumed, progress=line)
        except KeyboardInterrupt:
            stopped = KeyboardInterrupt()  # that of a search would say how the search goes on
            stopped.add_note(f"What had finished is kept in {folder}; qml study resume {file} goes on from there.")
            raise stopped from None
    if done.n_kept:
        say(f"kept      {done.n_kept} parts from before, {done.n_run} run now")
    _write_page(description, folder)
    for name, error_text in done.failed.items():
        say(inert(f"failed    {name}: {error_text}"))
    if not done.is_whole:
        points = f", and {done.n_failed_points} points of searches" if done.n_failed_points else ""
        say(f"{len(done.failed)} cells failed{points}; they count as not tested. Try again: qml study resume {file}")
        raise typer.Exit(1)


def _write_page(description: Description, folder: Path) -> None:
    from qml_plugin.report.study_page import headline, write_study
    from qml_plugin.studies import study_page

    view = study_page(description, folder)
    with writing(folder):
        page, numbers = write_study(view, folder)
    print_table(
        ("strategy", "market", "verdict", "p", "q", "attempts"),
        [
            (
                cell.strategy, cell.market, f"{cell.verdict or cell.status}{' alone' if cell.is_alone else ''}",
                number(cell.validation.get("p_selection"), 3), number(cell.q, 3), cell.validation.get("n_attempts"),
            )
            for cell in view.cells
        ],
    )  # fmt: skip
    say(headline(view))
    say(f"page      {page}\nnumbers   {numbers}")


def _read(file: Path) -> Description:
    from qml_plugin.studies import read_description

    look_in_current_folder()
    return read_description(file)


def _folder(description: Description, out: Path | None) -> Path:
    return (out or Path("results/studies") / description.name).absolute()
