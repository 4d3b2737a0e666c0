"""The bars that runs saw, each series once: for running again, and for pictures."""

from __future__ import annotations

import hashlib
import zlib
from datetime import datetime

import numpy as np
import sqlalchemy as sa

from qml_plugin.bars import Bars
from qml_plugin.errors import RegistryCorrupt
from qml_plugin.registry.checks import MOST_BARS, bars_fault, unpacked
from qml_plugin.registry.schema import bars as bars_table
from qml_plugin.registry.schema import experiments

_TIMES = ("opened_at", "known_at")
_VALUES = ("open", "high", "low", "close", "volume")
_LEVEL = 1  # a tenth larger than the smallest, in a tenth of the time


def keep(connection: sa.Connection, bars: Bars, data_hash: str, tz: str | None, now: datetime) -> None:
    """Store the bars, unless they are there already or too many."""
    is_there = sa.select(sa.literal(1)).where(bars_table.c.data_hash == data_hash)
    if len(bars) > MOST_BARS or connection.scalar(is_there):
        return
    columns = [getattr(bars, name).astype("<i8").tobytes() for name in _TIMES]
    columns += [getattr(bars, name).astype("<f8").tobytes() for name in _VALUES]
    packed = zlib.compress(b"".join(columns), _LEVEL)
    row = {"data_hash": data_hash, "n_bars": len(bars), "tz": tz, "columns_zlib": packed, "created_at": now}
    connection.execute(sa.insert(bars_table).values(sha256=hashlib.sha256(packed).hexdigest(), **row))


def kept(connection: sa.Connection, data_hash: str) -> tuple[Bars, str | None] | None:
    """The bars of a hash and the time zone of their stamps; None where they were not kept.

    Raises
    ------
    RegistryCorrupt
        If what is stored is not what was stored.
    """
    row = connection.execute(sa.select(bars_table).where(bars_table.c.data_hash == data_hash)).mappings().first()
    if row is None:
        return None
    if fault := bars_fault(dict(row)):
        raise RegistryCorrupt(f"{fault}. Delete that row of bars; a run on the same data keeps them again.")
    named = sa.select(experiments.c.symbol, experiments.c.timeframe).where(experiments.c.data_hash == data_hash)
    symbol, timeframe = connection.execute(named.limit(1)).first() or ("UNKNOWN", "")
    n = row["n_bars"]
    raw = unpacked(row["columns_zlib"], n)
    times = np.frombuffer(raw, "<i8", 2 * n).reshape(2, n).astype(np.int64)
    values = np.frombuffer(raw, "<f8", 5 * n, 16 * n).reshape(5, n).astype(np.float64)
    return Bars(symbol, timeframe, *times, *values), row["tz"]


def covering(connection: sa.Connection, symbol: str, timeframe: str, moment: datetime) -> Bars | None:
    """The longest kept series of a market that holds a bar of that stamp; None where there is none."""
    found = sa.select(experiments.c.data_hash).join(bars_table, bars_table.c.data_hash == experiments.c.data_hash)
    found = found.where(
        experiments.c.symbol == symbol,
        experiments.c.timeframe == timeframe,
        experiments.c.data_start <= moment,
        experiments.c.data_end >= moment,
    ).order_by(bars_table.c.n_bars.desc(), bars_table.c.data_hash)
    data_hash = connection.scalar(found.limit(1))
    series = None if data_hash is None else kept(connection, data_hash)
    return None if series is None else series[0]
