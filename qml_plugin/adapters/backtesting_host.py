"""The names of backtesting.py that the adapter uses, or how to install it."""

from qml_plugin.errors import MissingExtra

try:
    import backtesting.backtesting as host_module
    from backtesting import Backtest, Strategy
    from backtesting._stats import compute_stats
    from backtesting.backtesting import Order, Trade, _Broker
except ImportError as error:
    raise MissingExtra.for_module("backtesting", "backtesting") from error

__all__ = ["Backtest", "Order", "Strategy", "Trade", "_Broker", "compute_stats", "host_module"]
