"""Statistics on plain arrays: splits, calibration, resampling."""

from qml_plugin.stats.calibration import brier_score, brier_skill, fit_sigmoid, sigmoid
from qml_plugin.stats.resampling import bootstrap_lower_bound
from qml_plugin.stats.splits import purged_walk_forward

__all__ = [
    "bootstrap_lower_bound",
    "brier_score",
    "brier_skill",
    "fit_sigmoid",
    "purged_walk_forward",
    "sigmoid",
]
