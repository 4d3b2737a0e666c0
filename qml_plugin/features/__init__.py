"""Features of the market at a bar and of an entry made there; see `catalogue` for what each one means.

The catalogue is read without loading numba: what computes is loaded when first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from qml_plugin.features.catalogue import CATALOGUE, Feature

if TYPE_CHECKING:
    from qml_plugin.features.entry import entry_features
    from qml_plugin.features.extractor import PatternFeatureExtractor
    from qml_plugin.features.market import MarketFeatures, compute_features
    from qml_plugin.features.stream import FeatureStream
    from qml_plugin.features.user import remove_user_feature, user_feature

__all__ = [
    "CATALOGUE",
    "Feature",
    "FeatureStream",
    "MarketFeatures",
    "PatternFeatureExtractor",
    "compute_features",
    "entry_features",
    "remove_user_feature",
    "user_feature",
]

_HOME = {
    "FeatureStream": "stream",
    "MarketFeatures": "market",
    "PatternFeatureExtractor": "extractor",
    "compute_features": "market",
    "entry_features": "entry",
    "remove_user_feature": "user",
    "user_feature": "user",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"qml_plugin.features.{_HOME[name]}"), name)


def _load_user_features() -> None:
    from importlib.metadata import entry_points

    if entry_points(group="qml_plugin.features"):
        from qml_plugin.features.user import load_entry_points

        load_entry_points()


_load_user_features()
