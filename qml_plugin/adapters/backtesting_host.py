"""The names of backtesting.py that the adapter uses, or how to install it."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from qml_plugin.errors import MissingExtra

try:
    import backtesting.backtesting
    from backtesting import Backtest, Strategy
    from backtesting._stats import compute_stats
    from backtesting.backtesting import Order, Trade, _Broker
except ImportError as error:
    raise MissingExtra.for_module("backtesting", "backtesting") from error

__all__ = ["Backtest", "Order", "Strategy", "Trade", "_Broker", "compute_stats", "no_progress_bars"]


@contextmanager
def no_progress_bars(before_bar: Callable[[], None] | None = None) -> Iterator[None]:
    """Within the block the host draws none of its progress bars; `before_bar` is called where one would have moved."""

    def told(bars: Iterable[int], **_: object) -> Iterator[int]:
        assert before_bar is not None
        for bar in bars:
            before_bar()
            yield bar

    drawn = backtesting.backtesting._tqdm
    backtesting.backtesting._tqdm = told if before_bar is not None else lambda bars, **_: bars
    try:
        yield
    finally:
        backtesting.backtesting._tqdm = drawn
