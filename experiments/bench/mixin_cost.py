"""What the memory costs a backtest: the Quasimodo strategy on GOOG, bare, recording and gated."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

from backtesting import Backtest, Strategy
from backtesting.test import EURUSD, GOOG

from experiments.bench.timing import Row, in_turn
from qml_plugin import PatternRegistry
from qml_plugin.adapters.array_strategy import ArrayStrategy
from strategies.moving_average import MovingAverageCross
from strategies.qml import QMLStrategy

TARGETS = {"record": 3.0, "record, new database": 3.0, "gate": 10.0, "gate, filled registry": 10.0}


def without_mixin(strategy: type[ArrayStrategy]) -> type[Strategy]:
    """The same strategy on the bare host."""
    body: dict[str, object] = {"symbol": None, "timeframe": None, "bar_label": "open"}
    for cls in (ArrayStrategy, strategy):
        body |= {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    return type(strategy.__name__, (Strategy,), body)


def fill(url: str) -> None:
    """Register another market and strategy, dated so that most of it has resolved when GOOG's entries begin."""
    early = EURUSD.set_axis(EURUSD.index - (EURUSD.index[-1] - GOOG.index[600]), axis=0)
    for fast, slow in ((5, 15), (8, 24)):
        host = Backtest(early, MovingAverageCross, cash=1_000_000, exclusive_orders=True, finalize_trades=True)
        host.run(symbol="EURUSD", timeframe="1h", registry=url, mode="record", fast=fast, slow=slow)


def run() -> list[Row]:
    """Bare against record on a database that exists and on a new one, and against gate without and with a past."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder)
        bare = without_mixin(QMLStrategy)

        def remembered(mode: str, name: str, *, is_new: bool = False) -> object:
            if is_new:
                for file in path.glob(f"{name}.db*"):
                    file.unlink()
            host = Backtest(GOOG, QMLStrategy, cash=1_000_000)
            return host.run(symbol="GOOG", timeframe="1d", mode=mode, registry=f"sqlite:///{path / name}.db")

        fill(f"sqlite:///{path / 'filled'}.db")
        n_filled = PatternRegistry(f"sqlite:///{path / 'filled'}.db").get_statistics()["n_patterns"]
        return in_turn(
            f"QMLStrategy on GOOG 1d; the filled registry holds {n_filled} patterns",
            {
                "bare host": lambda: Backtest(GOOG, bare, cash=1_000_000).run(),
                "record": lambda: remembered("record", "record"),
                "record, new database": lambda: remembered("record", "new", is_new=True),
                "gate": lambda: remembered("gate", "gate"),
                "gate, filled registry": lambda: remembered("gate", "filled"),
            },
            TARGETS,
        )
