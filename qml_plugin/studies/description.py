"""What a study is: read from its file and checked whole, so that nothing runs before everything is understood."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from qml_plugin.adapters import cells
from qml_plugin.adapters.backtesting_host import Strategy
from qml_plugin.adapters.backtesting_py import BUNDLED, SETTINGS, PatternMixin
from qml_plugin.adapters.plain_runs import parameters_of
from qml_plugin.clock import canonical_timeframe
from qml_plugin.errors import DataError
from qml_plugin.provenance import SHIPPED
from qml_plugin.records import BarrierRule
from qml_plugin.studies.yaml_file import Node, listed, read_yaml
from qml_plugin.sweeps.points import parse_grid
from qml_plugin.vrd.strategies import FULL, QUICK, find_strategy
from qml_plugin.vrd.thresholds import Thresholds, load_thresholds
from qml_plugin.vrd.validate import Plan

TOP = ("name", "description", "strategies", "markets", "host", "gate", "objective", "validation", "seed")
HOST = ("cash", "commission", "margin", "exclusive_orders", "finalize_trades")
GATE = tuple(sorted(SETTINGS - {*cells.SHARED_SETTINGS, "seed"}))
VALIDATION = (
    "quick", "fees", "windows", "draws", "paths", "permutations", "thresholds", "false_discovery_rate",
)  # fmt: skip
_FEES = 0.0005
_MOST_POINTS = 2_000
_MOST_CELLS = 1_000
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class StrategyEntry:
    """A strategy of a study: where its class is, what is searched, and what stays fixed."""

    name: str
    cls: type
    grid: Mapping[str, tuple[Any, ...]]
    fixed: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MarketEntry:
    """A market of a study; ``file`` None for bars that backtesting.py ships, ``last_bars`` None for all."""

    symbol: str
    timeframe: str
    file: Path | None
    last_bars: int | None
    at: str


@dataclass(frozen=True, slots=True, eq=False)
class Description:
    """A study as its file describes it, checked.

    ``gate`` holds the settings of the mixin that all points share, ``gate_grid`` those with several values, which are
    swept; both are for strategies with a memory. ``fees`` are what the validation charges, a fraction of each fill.
    """

    file: Path
    name: str
    text: str
    strategies: tuple[StrategyEntry, ...]
    markets: tuple[MarketEntry, ...]
    host: Mapping[str, Any]
    gate: Mapping[str, Any]
    gate_grid: Mapping[str, tuple[Any, ...]]
    objective: str
    is_quick: bool
    plan: Plan
    thresholds: Thresholds
    fees: float
    false_discovery_rate: float
    seed: int

    def cells(self) -> list[tuple[StrategyEntry, MarketEntry]]:
        """Every strategy on every market, strategy by strategy."""
        return list(product(self.strategies, self.markets))


def read_description(path: Path | str) -> Description:
    """Read a study and check all that can be checked without its bars.

    Parameters
    ----------
    path : path
        A YAML file; `qml study new` writes one that explains its keys.

    Returns
    -------
    Description

    Point in time
    -------------
    Reads no market. A study that is written after a look at the bars is another trial.

    Raises
    ------
    DataError
        If a key is unknown or missing, a value has another type or lies outside its range, or a strategy, a parameter or a
        file is not there. The message names the key.
    """
    root = read_yaml(Path(path).absolute()).mapping(TOP, ("strategies", "markets"))
    name = _name(root.get("name", root.file.stem))
    strategies = _strategies(root["strategies"])
    markets = tuple(one for node in root["markets"].items() for one in _markets(node))
    _refuse_twice(root.file.name, markets)
    gate, gate_grid = _gate(root.get("gate", {}))
    host = _host(root.get("host", {}))
    seed = root.get("seed", 0).whole(0, 2**32 - 1)
    validation = root.get("validation", {}).mapping(VALIDATION)
    is_quick = validation.get("quick", False).truth()
    found = Description(
        root.file, name, root.get("description", "-").text(5_000).strip("-\n "), strategies, markets, host, gate, gate_grid,
        root.get("objective", "sharpe_annual").choice(cells.CELL_METRICS), is_quick, _plan(validation, is_quick),
        _thresholds(validation), validation.get("fees", host.get("commission", _FEES)).number(0, 0.5),
        validation.get("false_discovery_rate", 0.05).number(0, 0.5, is_open=True), seed,
    )  # fmt: skip
    if len(found.cells()) > _MOST_CELLS:
        raise DataError(
            f"{root.file.name}: {len(strategies)} strategies on {len(markets)} markets are {len(found.cells())} cells, and "
            f"{_MOST_CELLS} at most are run. Make several studies."
        )
    for entry in strategies:
        n_points = math.prod(map(len, (*entry.grid.values(), *gate_grid.values())))
        if n_points > _MOST_POINTS:
            raise DataError(f"{root.file.name}: the grid of {entry.name} has {n_points} points, and {_MOST_POINTS} at most are searched.")  # fmt: skip
    return found


def _name(node: Node) -> str:
    name = node.text(100)
    if not _NAME.fullmatch(name):
        node.refused("It names a folder: use letters, digits, dots, dashes and underscores.")
    return name


def _strategies(node: Node) -> tuple[StrategyEntry, ...]:
    found = [_strategy(one) for one in node.items()]
    for place, entry in enumerate(found):
        if entry.name in [other.name for other in found[:place]]:
            raise DataError(
                f"{node.file.name}: strategies[{place}] is called {entry.name!r} like another one. Give it a name: of its own."
            )
    return tuple(found)


def _strategy(node: Node) -> StrategyEntry:
    node.mapping(("strategy", "name", "grid", "fixed"), ("strategy", "grid"))
    cls = _class_of(node["strategy"])
    name = _name(node.get("name", cls.__name__))
    grid, fixed = node["grid"].mapping(), node.get("fixed", {}).mapping()
    if not grid.names():
        grid.refused("It must name at least one parameter with values to try, such as fast: [10, 20].")
    for one in (grid, fixed):
        for key in one.names():
            _check_parameter(one, key, cls)
    if both := sorted(set(grid.names()) & set(fixed.names())):
        fixed[both[0]].refused(f"{both[0]} is searched by the grid too. Give it once.")
    values = {key: _values(grid[key]) for key in grid.names()}
    return StrategyEntry(name, cls, values, {key: fixed[key].scalar() for key in fixed.names()})


def _class_of(node: Node) -> type:
    place = node.text()
    file, colon, name = place.rpartition(":")
    if colon and file.endswith(".py"):
        place = f"{node.file.parent / file}:{name}"
    if not colon and place not in SHIPPED:
        node.refused(f"Use one of {listed(SHIPPED)}, package.module:Class, or file.py:Class beside the study.", SHIPPED)
    try:
        return find_strategy(place)
    except DataError as error:
        node.refused(str(error))


def _check_parameter(node: Node, name: str, cls: type) -> None:
    known = {one for one in dir(cls) if _is_parameter(cls, one)}
    if name in known:
        return
    if name in SETTINGS:
        node.refused_key(name, f"It is a setting of the memory. Settings stand under gate:, and are {listed(GATE)}.")
    node.refused_key(
        name, f"{cls.__name__} has no such parameter; it has {listed(parameters_of(cls)) or 'none'}.", known
    )


def _is_parameter(cls: type, name: str) -> bool:
    if name.startswith("_") or name in SETTINGS or name in vars(Strategy):
        return False
    value = getattr(cls, name, None)
    return value is None or isinstance(value, (int, float, str))


def _values(node: Node) -> tuple[Any, ...]:
    """Values to try: a list, or a range as low:high:step."""
    if isinstance(node.value, str) and node.value.count(":") == 2:
        try:
            (values,) = parse_grid([f"x={node.value}"]).values()
        except DataError:
            node.refused("A range is low:high:step with numbers, a positive step and low <= high.")
        return tuple(values)
    if not isinstance(node.value, list):
        node.refused("It must be a list of values, such as [10, 20], or a range, such as 10:50:10.")
    values = [one.scalar() for one in node.items()]
    if len({(type(value), value) for value in values}) < len(values):
        node.refused("A value comes twice. Give each once.")
    return tuple(values)


def _markets(node: Node) -> list[MarketEntry]:
    """Every symbol at every timeframe of one entry."""
    node.mapping(("symbol", "timeframe", "file", "last_bars"), ("symbol",))
    last_bars = node["last_bars"].whole(100) if node.has("last_bars") else None
    found = []
    for symbol_node in node["symbol"].one_or_more():
        symbol = symbol_node.text(100)
        if not node.has("file") and symbol not in BUNDLED:
            symbol_node.refused(f"Only {listed(BUNDLED)} come along. Name a file: for it.", BUNDLED)
        if node.has("file") and not node.has("timeframe"):
            raise DataError(f"{node.file.name}: {node.at}.timeframe is missing. Say how long a bar of the file is, such as 4h.")  # fmt: skip
        for timeframe_node in node.get("timeframe", BUNDLED.get(symbol)).one_or_more():
            timeframe = _timeframe(timeframe_node)
            if not node.has("file") and timeframe != BUNDLED[symbol]:
                timeframe_node.refused(f"The bundled {symbol} has bars of {BUNDLED[symbol]}.")
            file = _file(node["file"], symbol=symbol, timeframe=timeframe_node.value) if node.has("file") else None
            found.append(MarketEntry(symbol, timeframe, file, last_bars, node.at))
    return found


def _timeframe(node: Node) -> str:
    try:
        return canonical_timeframe(node.text(20))
    except DataError:
        node.refused("Write a count and a unit of ms, s, m, h, d, w, mo, such as 15m, 4h or 1d.")


def _file(node: Node, **names: str) -> Path:
    """The file that a path stands for, looked for beside the study; it has to be there."""

    def known(match: re.Match[str]) -> str:
        value = os.environ.get(match[1]) or match[2]
        if value is None:
            node.refused(f"The variable {match[1]} is not set. Set it, or give a default as ${{{match[1]}:-folder}}.")
        return value

    path = _VARIABLE.sub(known, node.text(1_000))
    for name, value in names.items():
        path = path.replace(f"{{{name}}}", value)
    file = node.file.parent / Path(path).expanduser()
    if file.suffix.lower() not in (".csv", ".parquet") and "symbol" in names:
        node.refused(f"{file} is neither .csv nor .parquet.")
    if not file.is_file():
        node.refused(f"There is no file {file}.")
    return file


def _refuse_twice(file_name: str, markets: tuple[MarketEntry, ...]) -> None:
    seen: set[str] = set()
    for market in markets:
        place = folder_name(market.symbol, market.timeframe)
        if place in seen:
            raise DataError(
                f"{file_name}: {market.at}: {market.symbol} {market.timeframe} comes twice, or differs from another market in "
                "signs only."
            )
        seen.add(place)


def _host(node: Node) -> dict[str, Any]:
    node.mapping(HOST)
    found: dict[str, Any] = {"commission": _FEES, "finalize_trades": True}
    for key in node.names():
        one = node[key]
        match key:
            case "cash":
                found[key] = one.number(0, 1e18, is_open=True)
            case "commission":
                found[key] = one.number(0, 0.5)
            case "margin":
                found[key] = one.number(0, 1, is_open=True)
            case _:
                found[key] = one.truth()
    return found


def _gate(node: Node) -> tuple[dict[str, Any], dict[str, tuple[Any, ...]]]:
    """Settings with one value, and those with several; the mode is record unless it is given."""
    node.mapping(GATE)
    found: dict[str, tuple[Any, ...]] = {"mode": ("record",)}
    for key in node.names():
        found[key] = tuple(_rule(one) if key == "barriers" else one.scalar() for one in node[key].one_or_more())
    fixed = {key: values[0] for key, values in found.items() if len(values) == 1}
    grid = {key: values for key, values in found.items() if len(values) > 1}
    for key in node.names():
        one = node[key].one_or_more()
        for place, value in enumerate(found[key]):
            first = {other: values[0] for other, values in found.items()}
            try:
                cells.settings_of(PatternMixin, {**first, key: value})
            except (DataError, TypeError) as error:
                one[place].refused(str(error))
    return fixed, grid


def _rule(node: Node) -> BarrierRule:
    node.mapping(("stop_atr", "target_atr", "max_bars"))
    return BarrierRule(**{key: node[key].scalar() for key in node.names()})


def _plan(node: Node, is_quick: bool) -> Plan:
    base = QUICK if is_quick else FULL
    return replace(
        base,
        n_windows=node.get("windows", base.n_windows).whole(2, 200),
        n_draws=node.get("draws", base.n_draws).whole(19, 1_000_000),
        n_paths=node.get("paths", base.n_paths).whole(100, 10_000_000),
        n_permutations=node.get("permutations", base.n_permutations).whole(0, 100_000),
    )


def _thresholds(node: Node) -> Thresholds:
    if not node.has("thresholds"):
        return load_thresholds()
    file = _file(node["thresholds"])
    try:
        return load_thresholds(file)
    except DataError as error:
        node["thresholds"].refused(str(error))


def folder_name(*parts: str) -> str:
    """A name of a folder: whatever is no letter, digit, dot or dash becomes a dash."""
    return "_".join("".join(c if c.isalnum() or c in ".-" else "-" for c in part).lstrip(".") or "-" for part in parts)
