"""Running a recorded run again, on what it saw, and telling whether everything comes out as it was."""

from __future__ import annotations

import contextlib
import math
import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qml_plugin import provenance
from qml_plugin.adapters import cells
from qml_plugin.adapters.backtesting_host import Backtest
from qml_plugin.adapters.backtesting_py import PatternMixin
from qml_plugin.adapters.pooled_cells import pooled, run_pooled
from qml_plugin.adapters.recorded_run import Start, nothing_recorded, with_frozen
from qml_plugin.adapters.run_memory import RunMemory
from qml_plugin.bars import read_bars
from qml_plugin.errors import DataError
from qml_plugin.features import CATALOGUE
from qml_plugin.records import BarrierRule
from qml_plugin.registry import PatternRegistry
from qml_plugin.registry.run_rows import as_recorded

_DECIDED = ("action", "confidence", "reason", "threshold", "model", "base_rate", "n_known", "trade_return")
_NAMED = re.compile(r"@[0-9a-f]{64}$|^<.*>$")
_RULE = re.compile(r"barrier\(stop=(.+)atr,target=(.+)atr,max=(\d+)bars\)")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure of a run: as recorded, and as it came out again."""

    what: str
    recorded: object
    again: object

    @property
    def is_identical(self) -> bool:
        """The same value bit for bit, or no value both times."""
        one, other = self.recorded, self.again
        if isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other):
            return True
        return one == other


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What came of running a run again.

    ``changes`` says what is not as it was: code, data, libraries, registry. ``comparisons`` hold metric by metric, then
    the decisions and the returns of the bars.
    """

    run_id: str
    comparisons: tuple[Comparison, ...]
    changes: tuple[str, ...]

    @property
    def is_identical(self) -> bool:
        """Whether every figure came out as it was recorded."""
        return all(comparison.is_identical for comparison in self.comparisons)


def reproduce(
    url: str, run_id: str, *, data: pd.DataFrame | str | Path | None = None, strategy: str | type | None = None
) -> Reproduction:
    """Run a finished backtest again on the same bars and the same snapshot of the registry; nothing is recorded.

    Parameters
    ----------
    url : str
        The registry that holds the run.
    run_id : str
        Its id, or the first characters of it.
    data : DataFrame or path, optional
        The bars; those that the registry kept, unless given.
    strategy : str or type, optional
        The strategy's class, or where it is (``package.module:Class``, ``file.py:Class``); where it was, unless given.

    Returns
    -------
    Reproduction

    Raises
    ------
    DataError
        If the run did not finish, its class or its bars cannot be had, or it depended on something that no record can hold,
        such as a function as commission.
    """
    registry = PatternRegistry(url, create=False)
    run = registry.get_run(run_id)
    if run["kind"] not in ("backtest", "cell"):
        raise DataError(
            f"run {run['run_id']} is a {run['kind']}: a search, not a backtest. Reproduce one of its cells."
        )
    if run["status"] != "finished":
        raise DataError(f"run {run['run_id']} is {run['status']}: it left no metrics to compare with.")
    if run["params"]["host"].get("host") == "vectorbt":
        raise DataError(
            f"run {run['run_id']} played arrays of signals on vectorbt, which no record holds. Run the script that made them."
        )
    cls = strategy if isinstance(strategy, type) else _class_of(run, strategy)
    frame = _frame_of(registry, run, data)
    start = _start_of(registry, run)
    others = run["params"].get("data", {}).get("pooled_with", {})
    if others:
        frames = {symbol: _frame_of(registry, _as_run(run, symbol, others[symbol]), None) for symbol in others}
        memory = _run_again_pooled(cls, {run["symbol"]: frame, **frames}, run, start)
    else:
        memory = _run_again(cls, frame, run, start)
    return Reproduction(
        run["run_id"], tuple(_compared(registry, run, memory)), tuple(_changes(run, cls, frame, start, memory))
    )


def _class_of(run: Mapping[str, Any], given: str | None) -> type:
    path = given or run["strategy_path"]
    if path is None:
        raise DataError(
            f"run {run['run_id']} was recorded before the place of strategies was. Give --strategy module:{run['strategy_name']}."
        )
    # What a script prints is not what was asked for.
    with nothing_recorded(), contextlib.redirect_stdout(sys.stderr):
        cls = provenance.find_class(provenance.place_of(path))
    if not issubclass(cls, PatternMixin):
        raise DataError(
            f"{path} has no PatternMixin, so it made no run of this registry. Name the class with the mixin."
        )
    return cls


def _frame_of(
    registry: PatternRegistry, run: Mapping[str, Any], data: pd.DataFrame | str | Path | None
) -> pd.DataFrame:
    """The bars as the host takes them."""
    if data is not None:
        return data if isinstance(data, pd.DataFrame) else read_bars(data)
    kept = registry.bars_under(run["data_hash"])
    if kept is None:
        raise DataError(f"the registry keeps no bars of run {run['run_id']}. Give them: --data FILE.")
    data_of_run = run["params"].get("data", {})
    if others := sorted(data_of_run.get("columns", {})):
        raise DataError(
            f"run {run['run_id']} had bars with other columns beside ({', '.join(others[:10])}), which the registry does not "
            "keep. Run it from Python: reproduce(url, run_id, data=frame)."
        )
    bars, tz = kept
    tz = data_of_run.get("tz", tz)
    index = pd.to_datetime(bars.opened_at, unit="us", utc=True)
    index = index.tz_localize(None) if tz is None else index.tz_convert(tz)
    columns = {"Open": bars.open, "High": bars.high, "Low": bars.low, "Close": bars.close, "Volume": bars.volume}
    return pd.DataFrame(columns, index=index)


def _as_run(run: Mapping[str, Any], symbol: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """What a run says of a symbol that it shared its past with, as the record of that symbol's own run says it."""
    return {"run_id": f"{run['run_id']} ({symbol})", "data_hash": about["data_hash"], "params": {"data": about}}


def _start_of(registry: PatternRegistry, run: Mapping[str, Any]) -> Start | None:
    """The snapshot that the run started from, as far as it is still there."""
    if run["snapshot_seq"] is None:
        return None
    start = Start(*registry.read_snapshot(CATALOGUE.feature_set, CATALOGUE.names, through_seq=run["snapshot_seq"]))
    model_id = run["params"]["qml"].get("model_id")
    return start if model_id is None else with_frozen(start, registry, model_id)


def _run_again(cls: type, frame: pd.DataFrame, run: Mapping[str, Any], start: Start | None) -> RunMemory:
    options = _options(run)
    host_cls = _host_of(options.pop("host"))
    first_bar = options.pop("trade_from_bar", 0)
    traded = cells.trading_from(cls, first_bar)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the host says what it said the first time
        host = host_cls(frame, traded, **options)
        if start is not None:
            host._qml_start = start
        stats = host.run(**_parameters(cls, run))
    memory: RunMemory = stats["_strategy"].qml
    if run["kind"] == "cell":
        cells.add_metrics(memory, cells.stats_from(stats, frame, first_bar))
    return memory


def _run_again_pooled(
    cls: type, frames: Mapping[str, pd.DataFrame], run: Mapping[str, Any], start: Start | None
) -> RunMemory:
    """A run whose past was shared, together with those that it was shared with."""
    options, given = _options(run), _parameters(cls, run)
    host = {name: value for name, value in options.items() if name in cells.HOST_OPTIONS}
    about = {run["symbol"]: run, **run["params"]["data"]["pooled_with"]}
    of = {symbol: {**given, "symbol": symbol, "timeframe": about[symbol]["timeframe"]} for symbol in frames}
    markets = pooled(
        [
            cells.Market(symbol, frame, cells.bars_of(cls, frame, of[symbol], symbol), start=start)
            for symbol, frame in frames.items()
        ]
    )
    diff = provenance.git_state(provenance.source_folder(cls)).diff
    runs = {}
    for market in markets:
        backtest = cells.host_of(cls, market, host)
        begun = cells.begun_cell(cls, market, host, of[market.symbol], backtest=backtest, parent_run_id=None)
        runs[market.symbol] = replace(begun, git_diff=diff)
    memory = run_pooled(cls, markets, host, of, runs, "sharpe_annual")[run["symbol"]].memory
    assert memory is not None
    return memory


def _options(run: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the host as it took them."""
    options = dict(run["params"]["host"])
    if unknown := [name for name, value in options.items() if isinstance(value, str) and name != "host"]:
        raise DataError(
            f"run {run['run_id']} had {unknown[0]}={options[unknown[0]]!r}, which a record can name but not hold. Run the "
            "script that made it."
        )
    if isinstance(options["commission"], list):
        options["commission"] = tuple(options["commission"])  # JSON has no tuples
    return options


def _host_of(name: str) -> type:
    if name == "Backtest":
        host: type = Backtest
        return host
    if name == "FractionalBacktest":
        from backtesting.lib import FractionalBacktest

        fractional: type = FractionalBacktest
        return fractional
    raise DataError(f"the run used {name}, a host of its own. Only Backtest and FractionalBacktest can be made again.")


def _parameters(cls: type, run: Mapping[str, Any]) -> dict[str, object]:
    """Arguments of `Backtest.run` under which the class has the parameters and settings of the run."""
    settings = dict(run["params"]["qml"])
    settings.pop("model_id", None)
    rule = _RULE.fullmatch(settings.pop("barriers"))
    if rule is None:
        raise DataError(f"run {run['run_id']} has a label rule that is none: {run['params']['qml']['barriers']!r}.")
    barriers = BarrierRule(float(rule[1]), float(rule[2]), int(rule[3]))
    defaults = {name: getattr(cls, name) for name in run["params"]["strategy"] if hasattr(cls, name)}
    plain = as_recorded({name: provenance.plain(value) for name, value in defaults.items()})
    own = {
        name: _argument(run, name, value, defaults[name])
        for name, value in run["params"]["strategy"].items()
        if name in defaults and plain[name] != value
    }
    return {
        **own, **settings, "barriers": barriers, "symbol": run["symbol"], "timeframe": run["timeframe"],
        "seed": run["seed"], "registry": None,
    }  # fmt: skip


def _argument(run: Mapping[str, Any], name: str, value: object, default: object) -> object:
    """A recorded parameter as the strategy took it."""
    if isinstance(value, list) and isinstance(default, tuple):
        return tuple(value)
    if not isinstance(value, str) or isinstance(default, str):
        return value
    if value in ("inf", "-inf", "nan"):
        return float(value)
    if default is None and not _NAMED.search(value):
        return value
    raise DataError(
        f"run {run['run_id']} had the parameter {name}={value!r}, which a record can name but not hold. Run the script "
        "that made it."
    )


def _compared(registry: PatternRegistry, run: Mapping[str, Any], memory: RunMemory) -> list[Comparison]:
    recorded, again = run["metrics"], dict(memory.run.metrics or {})
    found = [
        Comparison(name, recorded.get(name), _plain(again.get(name))) for name in dict.fromkeys([*recorded, *again])
    ]
    rows = {row["pattern_id"]: tuple(row[name] for name in _DECIDED) for row in registry.get_decisions(run["run_id"])}
    table = {
        decision.pattern_id: (
            *(_plain(getattr(decision, name)) for name in _DECIDED[:-1]),
            _plain(memory.returns.get(decision.pattern_id)),
        )
        for decision in memory.decisions
    }
    n_same = sum(rows.get(pattern_id) == decided for pattern_id, decided in table.items())
    found.append(
        Comparison(
            "decisions", len(rows), n_same if len(table) == len(rows) else f"{len(table)}, {n_same} of them the same"
        )
    )
    returns = registry.get_returns(run["run_id"])
    if returns is not None and memory.run.returns_frac is not None:
        same = returns.tobytes() == np.asarray(memory.run.returns_frac, "<f8").tobytes()
        found.append(
            Comparison(
                "returns of the bars",
                len(returns),
                len(returns) if same else _first_other(returns, memory.run.returns_frac),
            )
        )
    return found


def _plain(value: object) -> object:
    """A value as the database gives it back."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _first_other(recorded: np.ndarray, again: np.ndarray) -> str:
    n_both = min(len(recorded), len(again))
    other = np.flatnonzero(recorded[:n_both] != again[:n_both])
    return f"another from bar {1 + (int(other[0]) if len(other) else n_both)} on"


def _changes(
    run: Mapping[str, Any], cls: type, frame: pd.DataFrame, start: Start | None, memory: RunMemory
) -> list[str]:
    """What is not as it was, in words."""
    now, changes = memory.run, []
    if now.data_hash != run["data_hash"]:
        changes.append(f"data: {now.data_bars} bars with another hash than the {run['data_bars']} that the run saw")
    if provenance.source_sha256(cls) != run["source_sha256"]:
        changes.append(f"code: the source of {cls.__name__} is another")
    if now.git_hash != run["git_hash"]:
        changes.append(f"code: commit {now.git_hash}, it was {run['git_hash']}")
    if (now.git_diff or None) != run["git_diff"]:
        changes.append("code: the working tree differs from its commit in another way than it did")
    n_ignored = len(start.known.ignored & memory.decided) if start is not None else 0
    if n_ignored:
        changes.append(f"labels: {n_ignored} of the run's own patterns are labelled ignore now, and teach nothing")
    recorded = run["versions"]
    if recorded.get("feature_set") != CATALOGUE.feature_set:
        changes.append("features: the catalogue is another, so the patterns that the run knew cannot be compared with")
    for name in sorted({*recorded, *now.versions} - {"feature_set", "strategy_source"}):
        if recorded.get(name) != now.versions.get(name):
            changes.append(f"library: {name} {now.versions.get(name)}, it was {recorded.get(name)}")
    if start is not None and start.snapshot.sha256 != run["snapshot_sha256"]:
        changes.append(
            f"registry: {start.snapshot.n_patterns} known patterns up to its commit {run['snapshot_seq']}, and they are not "
            f"the {run['snapshot_patterns']} that the run started from (relabelled, deleted, or recorded anew)"
        )
    again: Any = as_recorded(now.params)["strategy"]
    params = {name: value for name, value in run["params"]["strategy"].items() if again.get(name) != value}
    changes += [f"parameter: {name} cannot be set to {value!r} again" for name, value in params.items()]
    return changes
