"""What the commands say, and how: tables, numbers, progress, and a word before a long wait."""

from __future__ import annotations

import gc
import json
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from qml_plugin.errors import DataError, QmlError

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
DEFAULT_DB = "sqlite:///results/experiments.db"
Db = Annotated[str, typer.Option("--db", metavar="URL", help="Registry to use.", envvar="QML_DB")]
_LONGEST_NAME = 48
_REFUSED = 2


class ProgressLine:
    """A progress line on stderr, silent when it is not a terminal."""

    def __enter__(self) -> Any:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        self._bar.start()
        task = self._bar.add_task("preparing", total=None)
        return lambda done, total, text: self._bar.update(task, completed=done, total=total, description=text)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


@contextmanager
def telling_of_compilation() -> Iterator[None]:
    """Within the block, one line on stderr before the first kernel that must be compiled; none where the cache holds all."""
    from qml_plugin.features.compiled import COMPILING, when_compiling

    told: list[str] = []

    def tell(name: str) -> None:
        if not told:
            typer.echo(COMPILING, err=True)
        told.append(name)

    with when_compiling(tell):
        yield


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within the block an error of the file system is a refusal that names the path and the way out."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error}. Choose a folder that exists and has room.") from error


def check_files(*files: Path | None) -> None:
    """Refuse before the work what could not be written after it; - is stdout."""
    from qml_plugin.features.table import check_folder

    for file in files:
        if file is not None and str(file) != "-":
            check_folder(file)
            if file.is_dir():
                raise DataError(f"{file} is a folder. Name a file in it, such as {file / 'page.html'}.")


@contextmanager
def refusing(context: typer.Context) -> Iterator[None]:
    """Within the block an error of ours ends in its sentence and exit code 2, for commands whose code 1 is an answer."""
    try:
        yield
    except QmlError as error:
        if context.find_root().params.get("debug"):
            raise
        sys.stderr.write(inert(f"qml: {error}\n", keep="\n\t"))
        raise typer.Exit(_REFUSED) from None


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the block SIGTERM stops like Ctrl-C does; both end in a sentence and the usual exit code."""
    stopped: list[int] = []

    def stop(signum: int, _: FrameType | None) -> None:
        stopped.append(signum)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt as error:
        for note in getattr(error, "__notes__", ["Nothing had been run."])[:1]:
            typer.echo(f"stopped. {note.replace('resume=True', '--resume')}", err=True)
        gc.freeze()  # whoever pressed Ctrl-C does not wait for the garbage of all libraries
        raise typer.Exit(128 + (stopped or [signal.SIGINT])[0]) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def look_in_current_folder() -> None:
    """Let modules of the current folder be imported, as `python -m` does."""
    if "" not in sys.path:
        sys.path.insert(0, "")


def say(text: str = "") -> None:
    """A line on stdout."""
    typer.echo(text)


def inert(text: str, keep: str = "") -> str:
    """Text that no terminal obeys: what is not printable is written as an escape, but for the characters to `keep`.

    >>> inert("a\\x1b[2J")
    'a\\\\x1b[2J'
    """
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode() for char in text
    )


def percent(value: float | None) -> str:
    """A fraction as percent; a dash for None."""
    return "–" if value is None else f"{number(100 * value, 1)} %"


def number(value: float | None, digits: int = 2) -> str:
    """A number with fixed digits; a dash for None."""
    return "–" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0 turns -0.0 into 0.0


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table as wide as it needs to be; on a terminal that is narrower, a paragraph a row instead."""
    from rich.measure import Measurement

    console, wide = Console(highlight=False, emoji=False), Console(width=10_000, highlight=False, emoji=False)
    cells = [[_cell(value) for value in row] for row in rows]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(_cell(column), overflow="fold")
    for row in cells:
        table.add_row(*row)
    if not console.is_terminal:
        wide.print(table)
    elif len(columns) <= 2 or Measurement.get(wide, wide.options, table).maximum <= console.width:
        console.print(table)
    else:
        for first, *others in cells:
            facts = [f"[dim]{_cell(column)}[/] {text}" for column, text in zip(columns[1:], others, strict=True)]
            console.print(f"[bold]{first}[/]", " · ".join(facts), soft_wrap=False)


def _cell(value: object) -> str:
    from rich.markup import escape

    return escape(inert(text_of(value)))


def text_of(value: object) -> str:
    """A value in words: a dash for None, a time to the minute."""
    return "–" if value is None else value.isoformat(" ", "minutes") if isinstance(value, datetime) else str(value)


def print_groups(groups: Mapping[str, Mapping[str, object]]) -> None:
    """Names and values under a heading a group; groups without any are left out."""
    first = True
    for heading, values in groups.items():
        if not values:
            continue
        say(heading if first else f"\n{heading}")
        first = False
        names = {name: inert(name) for name in values}
        width = max(map(len, names.values()))
        for name, value in values.items():
            say(f"  {names[name]:<{width}}  {inert(text_of(value))}")


def print_mapping(values: dict[str, Any], as_json: bool) -> None:
    """Names and values in two columns, or JSON."""
    if as_json:
        say(json.dumps(values, default=str, indent=2))
        return
    print_table(("what", "value"), [(_shortened(name), value) for name, value in _flat(values)])


def print_statistics(statistics: dict[str, Any], as_json: bool) -> None:
    """What a registry holds: in the table the last run in a word, in JSON all that is told of it."""
    if not as_json:
        run = statistics["last_run"]
        statistics = statistics | {"barrier_win_share": percent(statistics["barrier_win_share"])}
        statistics["last_run"] = run and {
            "run_id": run["run_id"],
            "strategy": run["strategy_name"],
            "status": run["status"],
            "when": run["finished_at"] or run["started_at"],
        }
    print_mapping(statistics, as_json)


def _shortened(text: str) -> str:
    """Text that does not push the rest of a table aside."""
    return text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 1] + "…"


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
