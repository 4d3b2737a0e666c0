"""The command that audits a strategy. Everything heavy is imported inside it."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qml_plugin.cli.terminal import (
    ProgressLine,
    check_files,
    inert,
    look_in_current_folder,
    print_table,
    refusing,
    say,
    telling_of_compilation,
    writing,
)

if TYPE_CHECKING:
    from qml_plugin.audit import AuditReport, SelfTest

_OF_THE_AUDIT = {"subject", "data", "n_cuts", "seed", "tolerance", "is_gated", "on_step"}


def audit(
    context: typer.Context,
    strategy: Annotated[str | None, typer.Argument(metavar="STRATEGY", help="package.module:Name or path/to/file.py:Name of a Strategy, or of a function of bars that returns signals; left out with --self-test.")] = None,
    data: Annotated[str | None, typer.Option("--data", metavar="DATA", help="A .csv or .parquet file, or the bundled GOOG or EURUSD; GOOG by default.")] = None,
    cuts: Annotated[int, typer.Option("--cuts", min=1, help="Bars after which the future is replaced.")] = 20,
    seed: Annotated[int, typer.Option("--seed", help="Of the cuts and of the other futures.")] = 0,
    tolerance: Annotated[float, typer.Option("--tolerance", min=0.0, help="Share within which numbers count as equal; 0 compares exactly.")] = 0.0,
    ignore: Annotated[list[str] | None, typer.Option("--ignore", metavar="NAME", help="An indicator or attribute that no decision reads; may be given again.")] = None,
    parameter: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the strategy; may be given again.")] = None,
    host: Annotated[list[str] | None, typer.Option("--host", metavar="NAME=VALUE", help="An option of Backtest, such as exclusive_orders=true; may be given again.")] = None,
    registry: Annotated[str | None, typer.Option("--registry", metavar="URL", help="Registry of which a copy is poisoned; one of the strategy's own by default.")] = None,
    self_test: Annotated[bool, typer.Option("--self-test", help="Audit planted leaks and honest twins instead of a strategy.")] = False,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page about it.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all of it as JSON; - is stdout.")] = None,
) -> None:  # fmt: skip
    """Replace the future of the bars and compare the past: prove that STRATEGY sees no future, or name what does.

    Exit codes: 0 clean · 1 a leak · 2 refused, or nothing can be said.

    Examples:

    - `qml audit my_strategies.py:Breakout --data EURUSD.csv --host exclusive_orders=true`
    - `qml audit strategies.qml:QMLStrategy --cuts 50 --html audit.html`
    - `qml audit --self-test`
    """
    if (strategy is None) != self_test:
        raise typer.BadParameter("give a STRATEGY, or --self-test alone.")
    if self_test and (html is not None or parameter or host or ignore or registry):
        raise typer.BadParameter("--self-test takes --data, --cuts, --seed and --json only.")
    with refusing(context):
        check_files(html, json_file)
        if strategy is None:
            code = _self_test(data, cuts, seed, json_file)
        else:
            settings = {"parameters": _settings("--set", parameter), "registry": registry, "ignore": ignore or ()}
            options = _settings("--host", host)
            if own := sorted(options.keys() & (settings.keys() | _OF_THE_AUDIT)):
                raise typer.BadParameter(f"--host {own[0]} is no option of Backtest.")
            options |= settings
            code = _audit(
                strategy, data, {"n_cuts": cuts, "seed": seed, "tolerance": tolerance, **options}, html, json_file
            )
    raise typer.Exit(code)


def _audit(strategy: str, data: str | None, options: dict[str, Any], html: Path | None, json_file: Path | None) -> int:
    from qml_plugin.audit import audit

    look_in_current_folder()
    with ProgressLine() as step, telling_of_compilation(), contextlib.redirect_stdout(sys.stderr):
        report = audit(strategy, data, on_step=step, **options)
    is_piped = json_file is not None and str(json_file) == "-"
    if not is_piped:
        _print(report)
    if html is not None:
        from qml_plugin.report.audit_page import write_audit_page

        with writing(html):
            page = write_audit_page(report, html)
        typer.echo(f"page  {page}", err=is_piped)
    _write_json(report.as_dict(), json_file)
    return report.exit_code


def _self_test(data: str | None, cuts: int, seed: int, json_file: Path | None) -> int:
    from qml_plugin.audit import self_test

    with ProgressLine() as step:
        result = self_test(data, n_cuts=cuts, seed=seed, on_step=step)
    if json_file is None or str(json_file) != "-":
        _print_self_test(result)
    _write_json(
        {
            "data": result.data,
            "n_bars": result.n_bars,
            "leaking": [_planted(key, report) for key, report in result.leaking.items()],
            "honest": [_planted(key, report) for key, report in result.honest.items()],
            "missed": result.missed,
            "accused": result.accused,
        },
        json_file,
    )
    return result.exit_code


def _planted(key: tuple[str, str], report: AuditReport) -> dict[str, Any]:
    first = report.leaks[0] if report.leaks else None
    return {
        "place": key[0],
        "leak": key[1],
        "verdict": report.verdict,
        "n_cuts": 0 if first is None else first.n_cuts,
        "n_compared": len(report.cuts),
        "text": report.headline(),
    }


def _print(report: AuditReport) -> None:
    say(inert(report.headline()))
    if report.findings:
        say()
        print_table(
            ("grade", "what", "bar", "when", "cuts", "bars ahead"),
            (
                (
                    finding.grade, f"{finding.kind} {finding.name}" if finding.kind != finding.name else finding.kind,
                    finding.bar, finding.stamp, f"{finding.n_cuts} of {finding.n_compared}" if finding.cut is not None else None,
                    finding.lead_bars,
                )
                for finding in report.findings
            ),
        )  # fmt: skip
        say()
        for finding in report.findings:
            if finding.text not in report.headline():
                say(inert(f"- {finding}"))
    say(
        f"{report.verdict}: {report.n_runs} runs over {report.n_bars} bars of {inert(report.data)} in {report.seconds:.1f} s, "
        f"{report.cuts_made()}, seed {report.seed}; checked {', '.join(report.checks)}"
    )


def _print_self_test(result: SelfTest) -> None:
    places = list(dict.fromkeys(place for place, _ in result.leaking))
    leaks = list(dict.fromkeys(leak for _, leak in result.leaking))
    print_table(
        ("planted leak", *(f"{place}: cuts" for place in places), "honest twins"),
        (
            (
                leak,
                *(_caught(result.leaking[place, leak]) for place in places),
                "clean" if not any(leak == accused for _, accused in result.accused) else "accused",
            )
            for leak in leaks
        ),
    )
    say()
    say(inert(str(result), keep="\n"))


def _caught(report: AuditReport) -> str:
    return f"{report.leaks[0].n_cuts} of {len(report.cuts)}" if report.leaks else "missed"


def _settings(option: str, given: list[str] | None) -> dict[str, Any]:
    """NAME=VALUE as keyword arguments: numbers, true, false, null and lists as JSON has them, else text."""
    found: dict[str, Any] = {}
    for text in given or ():
        name, separator, value = text.partition("=")
        if not separator or not name.isidentifier():
            raise typer.BadParameter(f"{option} is {text!r}. Write NAME=VALUE, such as {option} {_EXAMPLES[option]}.")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


_EXAMPLES = {"--set": "fast=10", "--host": "exclusive_orders=true"}


def _write_json(content: dict[str, Any], path: Path | None) -> None:
    text = json.dumps(content, indent=2)
    if path is not None and str(path) == "-":
        say(text)
    elif path is not None:
        with writing(path):
            path.write_text(text + "\n", encoding="utf-8")
