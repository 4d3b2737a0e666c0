"""The command that takes labels by hand. Everything heavy is imported inside the functions that need it."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qml_plugin.cli.features import Tz, read_series
from qml_plugin.cli.terminal import DEFAULT_DB, Db, print_statistics, say, writing

if TYPE_CHECKING:
    from qml_plugin.cli.answers import Answers
    from qml_plugin.labelling.session import LabellingSession
    from qml_plugin.registry import PatternRegistry
    from qml_plugin.report.views import PatternView

_Pattern = Any

_LABELS = {"win": "win", "loss": "loss", "ignore": "ignore", "none": None}
_KEYS = {"w": "win", "l": "loss", "i": "ignore", "s": "skip", "u": "undo", "q": "quit"}
_PAGE = Path("labels.html")
_PAGE_BARS = 120
_OTHER_LINES = 10
_CHART_LINES = (8, 22)


def label(
    pattern_id: Annotated[str | None, typer.Argument(metavar="PATTERN_ID", help="One pattern by its id or its first characters; without it all that have no label, newest first.")] = None,
    answer: Annotated[str | None, typer.Argument(metavar="LABEL", help="Its label without asking: win, loss, ignore, or none to take it back.")] = None,
    outcome: Annotated[float | None, typer.Option(metavar="PERCENT", help="With LABEL: the result of the trade, 2.5 for +2.5 %.")] = None,
    symbol: Annotated[str | None, typer.Option(help="Only patterns of this symbol.")] = None,
    timeframe: Annotated[str | None, typer.Option(help="Only patterns of this timeframe, such as 4h.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many patterns.")] = 20,
    no_outcome: Annotated[bool, typer.Option("--no-outcome", help="Ask for the label only.")] = False,
    hide_future: Annotated[bool, typer.Option("--hide-future", help="Show nothing later than the decision: no bar, no outcome.")] = False,
    data: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the bars of this .csv or .parquet file, not those that runs saw.")] = None,
    tz: Tz = None,
    html: Annotated[bool, typer.Option("--html", help="Write a page of charts instead; a name that ends in .html is its file, else labels.html.")] = False,
    stats: Annotated[bool, typer.Option("--stats", help="Print what the registry holds instead.")] = False,
    db: Db = DEFAULT_DB,
) -> None:  # fmt: skip
    """Label patterns by hand: each with its chart, its setup and its market in words; a key answers.

    **w** win · **l** loss · **i** ignore: nothing learns from it · **s** skip · **u** undo: label and outcome as before ·
    **q** quit. After a win or a loss it asks for the result of the trade in percent; Enter leaves it out. Every answer
    is stored before the next pattern is shown, whatever ends the program.

    Examples:

    - `qml label --symbol GOOG --limit 50`
    - `qml label --hide-future --no-outcome` shows what the decision saw, and no more
    - `printf 'w\\n2.5\\nl\\n-1\\nq\\n' | qml label` takes answers as lines
    - `qml label PATTERN_ID win --outcome 2.5` labels one pattern without asking
    - `qml label --html charts.html` writes a page to look at
    """
    from qml_plugin.registry import PatternRegistry
    from qml_plugin.registry.pattern_ids import whole_pattern_id

    names = [name for name in (pattern_id, answer) if name is not None]
    _refuse_contradictions(names, outcome, html=html, stats=stats, no_outcome=no_outcome)
    registry = PatternRegistry(db, create=False)
    if stats:
        print_statistics(registry.get_statistics(), as_json=False)
        return
    if html:
        pages = [Path(name) for name in names if name.lower().endswith((".html", ".htm"))]
        names = [name for name in names if Path(name) not in pages]
        pattern_id = names[0] if names else None
    if pattern_id is not None:
        pattern_id = whole_pattern_id(registry, pattern_id)
    if not html and pattern_id is not None and answer is not None:
        _label_one(registry, pattern_id, answer, outcome)
        return
    patterns = (
        registry.get_patterns(symbol=symbol, timeframe=timeframe, label="none", limit=limit)
        if pattern_id is None
        else [registry.get_pattern(pattern_id)]
    )
    views = _views(registry, patterns, data, tz, hide_future)
    if html:
        _write_page(registry, patterns, views, pages[0] if pages else _PAGE, hide_future, (symbol, timeframe))
    else:
        _ask(registry, patterns, views, not no_outcome, (symbol, timeframe))


def _refuse_contradictions(
    names: Sequence[str], outcome: float | None, *, html: bool, stats: bool, no_outcome: bool
) -> None:
    if stats and (names or html or outcome is not None):
        raise typer.BadParameter("--stats stands alone: it labels nothing and writes no page.")
    if outcome is not None and (len(names) < 2 or html):
        raise typer.BadParameter("--outcome needs PATTERN_ID and LABEL.")
    if outcome is not None and no_outcome:
        raise typer.BadParameter("--outcome and --no-outcome contradict each other.")
    if html:
        n_pages = sum(name.lower().endswith((".html", ".htm")) for name in names)
        if n_pages > 1 or len(names) - n_pages > 1:
            raise typer.BadParameter(
                "--html takes one .html file to write and at most one PATTERN_ID; it labels nothing."
            )
    elif len(names) > 1 and names[1] not in _LABELS:
        raise typer.BadParameter(f"LABEL is {names[1]!r}. It must be win, loss or ignore, or none to take one back.")


def _label_one(registry: PatternRegistry, pattern_id: str, answer: str, outcome: float | None) -> None:
    before = registry.get_pattern(pattern_id)["user_label"]
    registry.label_pattern(pattern_id, _LABELS[answer], outcome)
    result = "" if outcome is None else f", outcome {outcome:+g} %"
    say(f"{pattern_id} labelled {answer}{result} (before: {before or 'none'})")


def _views(
    registry: PatternRegistry, patterns: Sequence[_Pattern], data: Path | None, tz: str | None, hide_future: bool
) -> Callable[[_Pattern, int], PatternView]:
    """What gives the view of a pattern with room for a number of bars."""
    from qml_plugin.labelling.view import bars_from_series, one_market, pattern_view

    series = read_series(data, *one_market(patterns), tz) if data is not None and patterns else None

    def view(pattern: _Pattern, n_bars: int) -> PatternView:
        found = registry.bars_of(pattern["pattern_id"]) if series is None else bars_from_series(series, pattern)
        return pattern_view(pattern, found, n_bars=n_bars, hide_future=hide_future)

    return view


def _ask(
    registry: PatternRegistry,
    patterns: Sequence[_Pattern],
    views: Callable[[_Pattern, int], PatternView],
    wants_outcome: bool,
    market: tuple[str | None, str | None],
) -> None:
    """Show and ask until the end, and say how far it went, whatever ended it."""
    from qml_plugin.cli.answers import Answers, Interrupted
    from qml_plugin.labelling.session import LabellingSession

    session, code = LabellingSession(registry, patterns), 0
    with Answers() as answers:
        try:
            while patterns and _answered(session, len(patterns), answers, views, wants_outcome):
                pass
        except Interrupted as stop:
            code = 128 + stop.signum
            say()
        finally:
            _say_progress(registry, session.n_labelled, market)
    if code:
        raise typer.Exit(code)


def _answered(
    session: LabellingSession,
    n_patterns: int,
    answers: Answers,
    views: Callable[[_Pattern, int], PatternView],
    wants_outcome: bool,
) -> bool:
    """Show the current pattern and take its answer; False at the end."""
    pattern = session.current
    if pattern is not None:
        _show(pattern, views, f"{session.position + 1} of {n_patterns}")
    chosen = _choice(answers, is_end=pattern is None)
    if chosen == "quit":
        say()
        return False
    if chosen == "undo":
        _undo(session)
    elif chosen == "skip":
        session.skip()
        say(chosen)
    elif not session.label(chosen):
        say("Somebody else labelled it meanwhile; their label stays.")
    else:
        say(chosen)  # not before it is stored
        return chosen == "ignore" or not wants_outcome or _took_outcome(session, answers)
    return True


def _choice(answers: Answers, *, is_end: bool) -> str:
    """The word for what was answered, after asking again on a terminal; the end of the input quits."""
    from qml_plugin.errors import DataError

    keys = {key: word for key, word in _KEYS.items() if not is_end or key in "uq"}
    asked = " ".join(f"[{word[0]}]{word[1:]}" for word in keys.values())
    while True:
        typer.echo(f"{'No more to show. ' if is_end else ''}{asked} > ", nl=False)
        given = answers.key()
        if given is None:
            return "quit"
        word = next((word for key, word in keys.items() if given.lower() in (key, word)), None)
        if word is not None:
            return word
        say()
        if not answers.is_terminal:
            raise DataError(
                f"line {answers.n_lines} of the answers is {given[:40]!r}. It must be one of {', '.join(keys)}. The answers "
                "before it are stored."
            )


def _took_outcome(session: LabellingSession, answers: Answers) -> bool:
    """Take the outcome of the pattern that was labelled last; False at the end."""
    from qml_plugin.errors import DataError

    while True:
        typer.echo("result in percent, Enter for none > ", nl=False)
        given = answers.line()
        if not answers.is_terminal:
            say(given or "")
        if given is None or given.lower() in ("q", "quit"):
            return False
        if given.lower() in ("u", "undo"):
            _undo(session)
            return True
        if not given:
            return True
        percent = _percent(given)
        if percent is not None:
            if not session.outcome(percent):
                say("Somebody else changed it meanwhile; their outcome stays.")
            return True
        rule = "a number of percent such as 2.5 or -1, an empty line, u to undo or q to quit"
        if not answers.is_terminal:
            raise DataError(
                f"line {answers.n_lines} of the answers is {given[:40]!r}. It must be {rule}; with --no-outcome none is asked "
                "for. The answers before it are stored."
            )
        say(f"That is not {rule}.")


def _percent(text: str) -> float | None:
    import math

    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _undo(session: LabellingSession) -> None:
    is_back = session.undo()
    if is_back is None:
        say("There is nothing to undo.")
    else:
        say("undone" if is_back else "Somebody else changed it meanwhile; theirs stays.")


def _show(pattern: _Pattern, views: Callable[[_Pattern, int], PatternView], counted: str) -> None:
    from qml_plugin.cli.candles import n_columns
    from qml_plugin.cli.pattern_text import pattern_lines

    width, height = shutil.get_terminal_size()
    fewest, most = _CHART_LINES
    view = views(pattern, n_columns((pattern["stop_px"], pattern["target_px"]), width))
    say(f"\n{counted}")
    for line in pattern_lines(view, width, min(most, max(fewest, height - _OTHER_LINES))):
        say(line)


def _say_progress(registry: PatternRegistry, n_labelled: int, market: tuple[str | None, str | None]) -> None:
    from qml_plugin.labelling.session import progress

    now = progress(registry, *market)
    among = " ".join(name for name in market if name is not None)
    say(f"{n_labelled} labelled, {now.n_left} {f'of {among} ' if among else ''}left without a label")
    say(
        f"{now.n_missing} more results are needed for get_training_data, {now.n_known} are known"
        if now.n_missing
        else f"{now.n_known} results are known, enough for get_training_data"
    )


def _write_page(
    registry: PatternRegistry,
    patterns: Sequence[_Pattern],
    views: Callable[[_Pattern, int], PatternView],
    path: Path,
    hide_future: bool,
    market: tuple[str | None, str | None],
) -> None:
    from qml_plugin.errors import DataError
    from qml_plugin.report.label_page import write_label_page
    from qml_plugin.report.views import PatternsPage

    if not patterns:
        raise DataError(
            "no pattern is without a label here, so there is no page to draw. `qml label --stats` counts them."
        )
    # The URL of a server may hold a password, which belongs on no page.
    place = f" --db {shlex.quote(registry.url)}" if registry.url.startswith("sqlite:") else ""
    page = PatternsPage(
        title="Patterns to label",
        patterns=tuple(views(pattern, _PAGE_BARS) for pattern in patterns),
        commands=tuple(f"qml label {shlex.quote(pattern['pattern_id'])} LABEL{place}" for pattern in patterns),
        n_left=registry.count_unlabeled(*market),
        is_future_hidden=hide_future,
    )
    with writing(path):
        say(f"page  {write_label_page(page, path)}")
