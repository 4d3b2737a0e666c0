"""Features of the market at a bar and of an entry made there; see `catalogue` for what each one means.

The catalogue is read without loading numba: the computing functions are resolved when first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qml_plugin.features.catalogue import CATALOGUE, FEATURE_SET, Feature

if TYPE_CHECKING:
    from qml_plugin.features.entry import entry_features
    from qml_plugin.features.market import compute_features, market_features

__all__ = ["CATALOGUE", "FEATURE_SET", "Feature", "compute_features", "entry_features", "market_features"]


def __getattr__(name: str) -> object:
    if name == "entry_features":
        from qml_plugin.features.entry import entry_features

        return entry_features
    if name in ("compute_features", "market_features"):
        from qml_plugin.features import market

        return getattr(market, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
