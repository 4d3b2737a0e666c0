"""What all points of a sweep share, written once and mapped into the memory of every worker."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qml_plugin.adapters.cells import Market
from qml_plugin.adapters.recorded_run import Start
from qml_plugin.bars import Bars
from qml_plugin.features import MarketFeatures
from qml_plugin.gate.predictor import XGBoostPredictor
from qml_plugin.model_files import card_path, read_model
from qml_plugin.records import KnownPatterns
from qml_plugin.registry import PatternRegistry, Snapshot

_COLUMNS = ("side", "known_at", "resolved_at", "is_win", "r_multiple", "confidence", "features")


def write_shared(
    folder: Path, markets: Sequence[Market], start: Start | None, facts: Mapping[str, Any], registry: PatternRegistry | None
) -> None:  # fmt: skip
    """Write markets, snapshot, frozen models and facts into a folder that is new: all that a worker needs to read."""
    folder.mkdir(parents=True)
    meta: dict[str, Any] = {"facts": dict(facts), "markets": [], "start": None}
    for place, market in enumerate(markets):
        about = _write_market(folder, f"market-{place}", market)
        if market.start is not None and market.start.model_id is not None and registry is not None:
            about["model"] = _write_model(folder, registry.get_model(market.start.model_id))
        meta["markets"].append(about)
    if start is not None:
        known = start.known
        for name in _COLUMNS:
            np.save(folder / f"known-{name}.npy", getattr(known, name))
        names = {"pattern_id": known.pattern_id, "group": known.group, "ignored": sorted(known.ignored)}
        (folder / "known.json").write_text(json.dumps({**names, "versions": dict(known.versions)}))
        meta["start"] = {"feature_set": known.feature_set, "snapshot": asdict(start.snapshot)}
    (folder / "meta.json").write_text(json.dumps(meta))


def read_shared(folder: Path) -> tuple[dict[str, Market], dict[str, Any]]:
    """The markets by symbol with the snapshot that they share, mapped from the files, and the facts."""
    meta = json.loads((folder / "meta.json").read_text())
    start = None if meta["start"] is None else _read_start(folder, meta["start"])
    markets = {}
    for place, about in enumerate(meta["markets"]):
        begins = start
        if start is not None and "model" in about:
            model = XGBoostPredictor.load(folder / about["model"])
            begins = replace(start, model_id=about["model_id"], frozen=model)
        markets[about["symbol"]] = _read_market(folder, f"market-{place}", about, begins)
    return markets, meta["facts"]


def _write_market(folder: Path, name: str, market: Market) -> dict[str, Any]:
    bars, frame, index = market.bars, market.frame, market.frame.index
    assert isinstance(index, pd.DatetimeIndex)
    matrix = np.array([bars.open, bars.high, bars.low, bars.close, bars.volume])
    np.save(folder / f"{name}-matrix.npy", matrix)
    np.save(folder / f"{name}-times.npy", np.array([bars.opened_at, bars.known_at]))
    user: list[str] = []
    if market.features is not None:
        columns = market.features.user_columns()
        user = list(columns)
        np.save(folder / f"{name}-series.npy", market.features.series)
        np.save(folder / f"{name}-user.npy", np.array(list(columns.values())).reshape(len(user), len(bars)))
    is_mapped = all(isinstance(column, str) and frame[column].dtype.kind in "fiub" for column in frame.columns)
    if is_mapped:
        np.save(folder / f"{name}-index.npy", index.asi8)
        for place, column in enumerate(frame.columns):
            np.save(folder / f"{name}-{place}.npy", frame[column].to_numpy())
    else:
        frame.to_parquet(folder / f"{name}.parquet")
    return {
        "symbol": market.symbol, "timeframe": bars.timeframe, "trade_from_bar": market.trade_from_bar,
        "has_features": market.features is not None, "user": user, "is_mapped": is_mapped,
        "columns": [str(column) for column in frame.columns], "unit": index.unit, "index_name": index.name,
        "tz": None if index.tz is None else str(index.tz),
        "model_id": market.start.model_id if market.start is not None else None,
    }  # fmt: skip


def _write_model(folder: Path, model: Mapping[str, Any]) -> str:
    """The file of a model, as it is, and the registry's card of it."""
    name = f"model-{model['model_id']}{model['path'].suffix}"
    (folder / name).write_bytes(read_model(model["path"], model["card"].sha256))
    card_path(folder / name).write_text(model["card"].to_json())
    return name


def _read_market(folder: Path, name: str, about: Mapping[str, Any], start: Start | None) -> Market:
    # Copy on write: to compiled code a read-only array is another type, and no write reaches the file or a neighbour.
    matrix, times = _mapped(folder / f"{name}-matrix.npy"), _mapped(folder / f"{name}-times.npy")
    bars = Bars(about["symbol"], about["timeframe"], times[0], times[1], *matrix)
    features = None
    if about["has_features"]:
        user = dict(zip(about["user"], _mapped(folder / f"{name}-user.npy"), strict=True)) if about["user"] else {}
        features = MarketFeatures.computed(bars, matrix, _mapped(folder / f"{name}-series.npy"), user)
    if about["is_mapped"]:
        stamps = np.load(folder / f"{name}-index.npy").view(f"M8[{about['unit']}]")
        index = pd.DatetimeIndex(stamps, name=about["index_name"])
        if about["tz"] is not None:
            index = index.tz_localize("UTC").tz_convert(about["tz"])
        columns = {
            column: np.asarray(np.load(folder / f"{name}-{place}.npy", mmap_mode="r"))
            for place, column in enumerate(about["columns"])
        }
        frame = pd.DataFrame(columns, index=index, copy=False)
    else:
        frame = pd.read_parquet(folder / f"{name}.parquet")
    return Market(about["symbol"], frame, bars, features, start, about["trade_from_bar"])


def _read_start(folder: Path, about: Mapping[str, Any]) -> Start:
    names = json.loads((folder / "known.json").read_text())
    known = KnownPatterns(
        feature_set=about["feature_set"],
        pattern_id=tuple(names["pattern_id"]),
        group=tuple(names["group"]),
        ignored=frozenset(names["ignored"]),
        versions=names["versions"],
        **{name: _mapped(folder / f"known-{name}.npy") for name in _COLUMNS},
    )
    return Start(known, Snapshot(**about["snapshot"]))


def _mapped(file: Path) -> Any:
    return np.asarray(np.load(file, mmap_mode="c"))
