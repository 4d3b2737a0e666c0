"""Runs beside each other: what they differ in, how their decisions differ, and which of them came out best."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from qml_plugin.errors import DataError
from qml_plugin.registry.ledger import NO_TRIALS, RunLedger

ParsedRun = Mapping[str, Any]

# What a run has not, where another has it.
ABSENT = "absent"
SHORT_NAMES = {
    "sharpe": "sharpe_annual",
    "return": "return_frac",
    "drawdown": "max_drawdown_frac",
    "buy_hold": "buy_hold_return_frac",
    "win_share": "trade_win_share",
    "trades": "n_trades",
    "entries": "n_entries",
}
# A limit that no ledger reaches.
ALL = 2**62
_MOST_NAMED = 10
_SHORTEST_ID = 8
_PASSES = ("take", "abstain")
# Columns of `experiments` by group, in the order of a report; params, versions and metrics bring their own names.
_COLUMNS = {
    "run": ("kind", "status", "strategy_name", "error", "verdict"),
    "data": ("symbol", "timeframe", "data_start", "data_end", "data_bars", "data_hash"),
    "code": ("strategy_path", "source_sha256", "git_hash", "git_dirty", "git_diff_sha256"),
    "snapshot": ("snapshot_seq", "snapshot_patterns", "snapshot_sha256"),
}
_PARAMS = {"strategy": "parameters", "qml": "settings", "host": "host"}


@dataclass(frozen=True, slots=True)
class Difference:
    """Something in which runs differ: ``values`` holds one for each run, `ABSENT` for a run that has none."""

    group: str
    what: str
    values: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class DecisionDifference:
    """An entry that not all runs treated alike: ``actions`` holds one for each run, None for a run that had no such entry."""

    pattern_id: str
    actions: tuple[str | None, ...]

    @property
    def is_everywhere(self) -> bool:
        """Whether every run had the entry, so that some passed what others skipped."""
        return None not in self.actions


@dataclass(frozen=True, slots=True)
class DecisionComparison:
    """How the decisions of runs differ. ``n_entries`` and ``n_only`` (entries that no other run has) hold one for each run."""

    n_entries: tuple[int, ...]
    n_only: tuple[int, ...]
    n_common: int
    differences: tuple[DecisionDifference, ...]


@dataclass(frozen=True, slots=True)
class Ranking:
    """Finished runs by one metric, the highest first, and how many trials they are the best of.

    ``strategy`` and ``data_hash`` are None where runs of several are ranked together. ``n_without`` finished runs have no
    value of the metric.
    """

    metric: str
    strategy: str | None
    data_hash: str | None
    n_trials: int
    n_without: int
    runs: tuple[ParsedRun, ...]


def short_ids(run_ids: Sequence[str]) -> list[str]:
    """The first characters of each id, as few as tell them all apart, and at least eight.

    Examples
    --------
    >>> short_ids(["22f80537-0f2c", "22f80537-1f2c"])
    ['22f80537-0', '22f80537-1']
    """
    length = _SHORTEST_ID
    while length < max(map(len, run_ids), default=0) and len({name[:length] for name in run_ids}) < len(set(run_ids)):
        length += 1
    return [name[:length] for name in run_ids]


def grouped(run: ParsedRun) -> dict[str, dict[str, object]]:
    """What determined a run and what came of it, by group and name.

    Parameters
    ----------
    run : mapping
        As from `RunLedger.get_run`.

    Returns
    -------
    dict of dict
        Groups ``run``, ``parameters``, ``settings``, ``host``, ``data``, ``code``, ``libraries``, ``snapshot``, ``metrics``.
    """
    params = run["params"] or {}
    groups: dict[str, dict[str, object]] = {"run": {name: run[name] for name in _COLUMNS["run"]}}
    groups |= {group: dict(params.get(name) or {}) for name, group in _PARAMS.items()}
    groups["settings"]["seed"] = run["seed"]
    # Parameters that no host of ours has grouped.
    groups["parameters"] |= {name: value for name, value in params.items() if name not in _PARAMS}
    groups["data"] = {name: run[name] for name in _COLUMNS["data"]}
    groups["code"] = {name: run[name] for name in _COLUMNS["code"]}
    groups["libraries"] = {name: v for name, v in (run["versions"] or {}).items() if name != "strategy_source"}
    groups["snapshot"] = {name: run[name] for name in _COLUMNS["snapshot"]}
    groups["metrics"] = dict(run["metrics"] or {})
    return groups


def differences(runs: Sequence[ParsedRun]) -> list[Difference]:
    """What is not the same in all runs, in the order of a report; what is the same is left out.

    Parameters
    ----------
    runs : sequence of mapping
        As from `RunLedger.get_run`, at least two.

    Returns
    -------
    list of Difference
        Values that JSON tells apart differ: 1 and 1.0 do.

    Raises
    ------
    DataError
        If there are fewer than two runs, or one is there twice.
    """
    ids = [run["run_id"] for run in runs]
    if len(ids) < 2 or len(set(ids)) < len(ids):
        raise DataError(f"{len(set(ids))} runs cannot be compared. Name at least two, each once.")
    described = [grouped(run) for run in runs]
    found = []
    for group in described[0]:
        for name in dict.fromkeys(name for one in described for name in one[group]):
            values = tuple(one[group].get(name, ABSENT) for one in described)
            if len({orjson.dumps(value) for value in values}) > 1:
                found.append(Difference(group, name, values))
    return found


def compare_decisions(decisions: Sequence[Sequence[Mapping[str, Any]]]) -> DecisionComparison:
    """How the decisions of runs differ, entry by entry.

    Parameters
    ----------
    decisions : sequence of sequence of mapping
        For each run its decisions, as from `RunLedger.get_decisions`.

    Returns
    -------
    DecisionComparison
        ``differences``, by ``pattern_id``: the entries that some runs do not have, and those that some let pass (taken or
        not judged) and others skipped. Entries are the same where their ``pattern_id`` is: the same strategy by name, at
        the same bar, with the same order plan.
    """
    actions = [{str(row["pattern_id"]): str(row["action"]) for row in rows} for rows in decisions]
    entries = sorted(set().union(*actions))
    treated = {entry: tuple(one.get(entry) for one in actions) for entry in entries}
    return DecisionComparison(
        n_entries=tuple(map(len, actions)),
        n_only=tuple(
            sum(how[place] is not None and sum(one is not None for one in how) == 1 for how in treated.values())
            for place in range(len(actions))
        ),
        n_common=sum(None not in how for how in treated.values()),
        differences=tuple(
            DecisionDifference(entry, how)
            for entry, how in treated.items()
            if len({None if action is None else action in _PASSES for action in how}) > 1
        ),
    )


def best_runs(
    ledger: RunLedger,
    metric: str,
    *,
    strategy: str | None = None,
    symbol: str | None = None,
    n: int = 10,
    across: bool = False,
) -> list[Ranking]:
    """The finished runs with the highest values of a metric, in one ranking for each strategy and series.

    Parameters
    ----------
    ledger : RunLedger
    metric : str
        Name in ``metrics``, or a short one: ``"sharpe"``, ``"return"``, ``"drawdown"`` (0 is the best: it is never
        positive), ``"buy_hold"``, ``"win_share"``, ``"trades"``, ``"entries"``.
    strategy, symbol : str, optional
        Only runs of this strategy name, on this symbol.
    n : int, default=10
        At most so many runs in each ranking, at least 1.
    across : bool, default=False
        Rank all together, whatever the strategy and the series. Figures of different series say little about each other.

    Returns
    -------
    list of Ranking
        The strategy and series that ran last first. ``n_trials`` counts every trial of that strategy on that series, as
        `RunLedger.n_trials` does; `across`, every recorded run that the filters let through.

    Raises
    ------
    DataError
        If no finished run has the metric, or `n` is less than 1.
    """
    if n < 1:
        raise DataError(f"n is {n!r}. Ask for at least 1 run.")
    runs = [run for run in ledger.get_runs(ALL, strategy=strategy, symbol=symbol) if run["kind"] not in NO_TRIALS]
    name = _metric_of(metric, runs)
    if across:
        return [_ranking(name, None, None, len(runs), runs, n)]
    series: dict[tuple[str, str], list[ParsedRun]] = {}
    for run in runs:
        series.setdefault((run["strategy_name"], run["data_hash"]), []).append(run)
    rankings = [_ranking(name, *of, ledger.n_trials(*of), those, n) for of, those in series.items()]
    return [ranking for ranking in rankings if ranking.runs]


def find_series(ledger: RunLedger, strategy: str, *, data_hash: str | None = None, symbol: str | None = None) -> str:
    """The ``data_hash`` of the one series on which a strategy was run, as far as it is told.

    Parameters
    ----------
    ledger : RunLedger
    strategy : str
        Name of the strategy's class.
    data_hash : str, optional
        The hash, or its first characters.
    symbol : str, optional

    Raises
    ------
    DataError
        If it was run on none such, or on several; the message names them.
    """
    runs = ledger.get_runs(ALL, strategy=strategy, symbol=symbol)
    found: dict[str, ParsedRun] = {
        run["data_hash"]: run
        for run in runs
        if run["kind"] not in NO_TRIALS and (data_hash is None or run["data_hash"].startswith(data_hash))
    }
    if not found:
        asked = [
            f"{name} {value!r}" for name, value in (("symbol", symbol), ("data hash", data_hash)) if value is not None
        ]
        raise DataError(
            f"strategy {strategy!r} has no run{' of ' + ' and '.join(asked) if asked else ''}. `qml runs list` names the runs."
        )
    if len(found) > 1:
        several = ", ".join(
            f"{name[:12]} ({run['symbol']!r}, {run['timeframe']!r}, {run['data_bars']} bars)"
            for name, run in list(found.items())[:_MOST_NAMED]
        )
        raise DataError(
            f"strategy {strategy!r} was run on {len(found)} series: {several}. Name one: --data-hash {next(iter(found))[:12]}."
        )
    return next(iter(found))


def _metric_of(metric: str, runs: Sequence[ParsedRun]) -> str:
    """The metric's name as runs have it."""
    there = sorted(
        {name for run in _finished(runs) for name, value in (run["metrics"] or {}).items() if _is_number(value)}
    )
    name = metric if metric in there else SHORT_NAMES.get(metric, metric)
    if name in there:
        return name
    if not there:
        raise DataError(
            f"there is no finished run to rank by {metric!r}. `qml runs list` names those that are recorded."
        )
    close = difflib.get_close_matches(metric, [*there, *SHORT_NAMES], n=1)
    more = len(there) - _MOST_NAMED
    raise DataError(
        f"no finished run has the metric {metric!r}. Those there are: {', '.join(map(ascii, there[:_MOST_NAMED]))}"
        f"{f' and {more} more' if more > 0 else ''}.{f' Did you mean {close[0]!r}?' if close else ''}"
    )


def _ranking(
    metric: str, strategy: str | None, data_hash: str | None, n_trials: int, runs: Sequence[ParsedRun], n: int
) -> Ranking:
    finished = list(_finished(runs))
    having = [run for run in finished if _is_number((run["metrics"] or {}).get(metric))]
    # By the id where values are equal, so that the order is the same every time.
    having.sort(key=lambda run: (-run["metrics"][metric], run["run_id"]))
    return Ranking(metric, strategy, data_hash, n_trials, len(finished) - len(having), tuple(having[:n]))


def _finished(runs: Sequence[ParsedRun]) -> Iterator[ParsedRun]:
    return (run for run in runs if run["status"] == "finished")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
