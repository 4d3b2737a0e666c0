"""The command that shows the nearest past patterns. Everything heavy is imported inside the functions that need it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qml_plugin.cli.features import Tz, read_series
from qml_plugin.cli.terminal import (
    DEFAULT_DB,
    AsJson,
    Db,
    inert,
    number,
    print_table,
    say,
    telling_of_compilation,
    writing,
)

if TYPE_CHECKING:
    from qml_plugin.neighbours.question import Question
    from qml_plugin.registry import PatternRegistry
    from qml_plugin.report.views import AnswerView

_SIDES = {"long": +1, "short": -1}
_PAGE = Path("similar.html")
_PAGE_BARS = 120
_FAN_LINES = 11


def similar(
    pattern_id: Annotated[str | None, typer.Argument(metavar="PATTERN_ID", help="Id of a registered pattern; left out with --now.")] = None,
    page: Annotated[str | None, typer.Argument(metavar="OUT", help="With --html: the .html file to write, else similar.html.")] = None,
    now: Annotated[Path | None, typer.Option("--now", metavar="DATA", help="Ask for an entry at the close of the last bar of this .csv or .parquet file.")] = None,
    side: Annotated[str | None, typer.Option(help="With --now: only long or only short entries; both otherwise.")] = None,
    tz: Tz = None,
    n: Annotated[int, typer.Option("-n", min=1, help="At most so many neighbours.")] = 10,
    symbol: Annotated[str | None, typer.Option(help="Only neighbours of this symbol; with --now the name of the bars too.")] = None,
    timeframe: Annotated[str | None, typer.Option(help="Only neighbours of this timeframe; with --now that of the bars too.")] = None,
    pattern_type: Annotated[str | None, typer.Option(help="Only neighbours of this pattern type.")] = None,
    strategy: Annotated[str | None, typer.Option(help="Only neighbours of this strategy.")] = None,
    max_age: Annotated[str | None, typer.Option(metavar="AGE", help="Only outcomes that became known so recently, such as 90d.")] = None,
    apart_bars: Annotated[int | None, typer.Option(min=0, metavar="BARS", help="Of neighbours of one market no more bars apart than this, only the nearest.")] = None,
    html: Annotated[bool, typer.Option("--html", help="Write a page of charts too; a name that ends in .html is its file.")] = False,
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """List the nearest past patterns whose outcome was known when PATTERN_ID was detected, and what happened next.

    Filters come before the choice. Nothing is shown that became known after the moment of the question: no neighbour,
    no outcome, no price. Computed now, with one scaling of all that was known then; what a run saw is in its
    `run_decisions`.

    Examples:

    - `qml similar PATTERN_ID --symbol GOOG --apart-bars 10`
    - `qml similar --now EURUSD.csv --side long --max-age 365d`
    - `qml similar PATTERN_ID --html similar.html`
    """
    from qml_plugin.neighbours.answer import answers
    from qml_plugin.registry import PatternRegistry

    names = [name for name in (pattern_id, page) if name is not None]
    pages = [name for name in names if html and name.lower().endswith((".html", ".htm"))]
    ids = [name for name in names if name not in pages]
    _refuse_contradictions(ids, pages, now, side, tz)
    filters: dict[str, Any] = {"symbol": symbol, "timeframe": timeframe, "pattern_type": pattern_type}
    filters |= {"max_age": _microseconds(max_age), "apart_bars": apart_bars}
    registry = PatternRegistry(db, create=False)
    with telling_of_compilation():
        asked = _asked(registry, ids, now, (symbol, timeframe, tz), side)
        found = answers(registry, asked, k=n, strategy=strategy, **filters)
    written = _written_page(asked, found, Path(pages[0]) if pages else _PAGE) if html else None
    if as_json:
        say(json.dumps([_as_data(*pair) for pair in zip(asked, found, strict=True)], indent=2, allow_nan=False))
    else:
        for i, pair in enumerate(zip(asked, found, strict=True)):
            _print(*pair, is_first=i == 0, is_one=len(asked) == 1)
    if written is not None:
        typer.echo(f"page  {written}", err=as_json)


def _refuse_contradictions(
    ids: Sequence[str], pages: Sequence[str], now: Path | None, side: str | None, tz: str | None
) -> None:
    if len(ids) + (now is not None) != 1 or len(pages) > 1:
        raise typer.BadParameter(
            "one question at a time: PATTERN_ID or --now DATA, and with --html at most one .html file."
        )
    if now is None and (side is not None or tz is not None):
        raise typer.BadParameter("--side and --tz belong to --now: a registered pattern has its side and its time.")
    if side is not None and side not in _SIDES:
        raise typer.BadParameter(f"--side is {side!r}. It must be long or short.")


def _microseconds(age: str | None) -> int | None:
    from qml_plugin.clock import timeframe_seconds
    from qml_plugin.errors import DataError

    try:
        return None if age is None else round(timeframe_seconds(age) * 1_000_000)
    except DataError as error:
        raise typer.BadParameter(
            f"--max-age is {age!r}. Write a count and a unit of s, m, h, d, w, mo, such as 90d."
        ) from error


def _asked(
    registry: PatternRegistry,
    ids: Sequence[str],
    now: Path | None,
    market: tuple[str | None, str | None, str | None],
    side: str | None,
) -> tuple[Question, ...]:
    from qml_plugin.neighbours.question import question_of, questions_now

    if now is None:
        return (question_of(registry, ids[0]),)
    return questions_now(read_series(now, *market), tuple(_SIDES.values()) if side is None else (_SIDES[side],))


def _as_data(question: Question, answer: AnswerView) -> dict[str, Any]:
    from qml_plugin.clock import isoformat

    return {
        "pattern_id": question.pattern["pattern_id"],
        "symbol": question.pattern["symbol"],
        "timeframe": question.pattern["timeframe"],
        "side": "long" if answer.side > 0 else "short",
        "as_of": isoformat(answer.as_of),
        "n_eligible": answer.n_eligible,
        "win_share": answer.win_share,
        "win_share_low": answer.share_low,
        "win_share_high": answer.share_high,
        "mean_r": answer.mean_r,
        "median_r": answer.median_r,
        "base_win_share": answer.base_share,
        "base_mean_r": answer.base_mean_r,
        "neighbours": [
            {
                "pattern_id": past.pattern_id,
                "symbol": past.symbol,
                "timeframe": past.timeframe,
                "pattern_type": past.pattern_type,
                "strategy": past.strategy,
                "detection_time": isoformat(past.detection_at),
                "resolved_at": isoformat(past.resolved_at),
                "distance": past.distance,
                "outcome": "win" if past.is_win else "loss",
                "r_multiple": past.r_multiple if past.r_multiple == past.r_multiple else None,
            }
            for past in answer.neighbours
        ],
    }


def _print(question: Question, answer: AnswerView, *, is_first: bool, is_one: bool) -> None:
    from qml_plugin.cli.blocks import fan_lines
    from qml_plugin.cli.pattern_text import wrapped
    from qml_plugin.clock import isoformat
    from qml_plugin.neighbours.sentences import sentences

    width = shutil.get_terminal_size().columns
    if not is_first:
        say()
    if answer.neighbours or not is_one:
        side = "long" if answer.side > 0 else "short"
        market = f"{question.pattern['symbol']} {question.pattern['timeframe']}"
        say(inert(f"{market} · {side} · as of {isoformat(answer.as_of)}"))
    if answer.neighbours:
        print_table(
            ("distance", "when", "symbol", "timeframe", "strategy", "outcome", "R", "pattern_id"),
            (
                (
                    number(past.distance, 3), isoformat(past.detection_at), past.symbol, past.timeframe, past.strategy,
                    "win" if past.is_win else "loss",
                    number(past.r_multiple if past.r_multiple == past.r_multiple else None), past.pattern_id,
                )
                for past in answer.neighbours
            ),
        )  # fmt: skip
    fan = fan_lines(answer.fan, width, _FAN_LINES)
    if fan:
        say(f"\nprices after the entry in ATR, upwards in its favour, {len(answer.n_paths) - 1} bars")
        for line in fan:
            say(line)
        say("█ median  ▒ 25 to 75 %  ░ 10 to 90 %\n")
    for sentence in sentences(answer):
        for line in wrapped(sentence.replace("\u202f", " "), width):
            say(line)


def _written_page(asked: Sequence[Question], found: Sequence[AnswerView], path: Path) -> Path:
    from qml_plugin.labelling.view import pattern_view
    from qml_plugin.neighbours.page import similar_page
    from qml_plugin.report.similar_page import write_similar_page

    views = [pattern_view(question.pattern, question.found, n_bars=_PAGE_BARS, hide_future=True) for question in asked]
    with writing(path):
        return write_similar_page(similar_page(asked, views, found), path)
