"""Statistics on plain arrays: splits, calibration, scores of probabilities, resampling."""

from qml_plugin.stats.calibration import brier_score, brier_skill, fit_sigmoid, log_loss, sigmoid, sigmoid_covariance
from qml_plugin.stats.resampling import bootstrap_lower_bound
from qml_plugin.stats.scores import (
    average_precision,
    calibration_error,
    calibration_error_interval,
    lift_curve,
    reliability,
)
from qml_plugin.stats.splits import CombinatorialPurgedCV, PurgedWalkForward, purged_walk_forward
from qml_plugin.stats.venn_abers import VennAbers

__all__ = [
    "CombinatorialPurgedCV",
    "PurgedWalkForward",
    "VennAbers",
    "average_precision",
    "bootstrap_lower_bound",
    "brier_score",
    "brier_skill",
    "calibration_error",
    "calibration_error_interval",
    "fit_sigmoid",
    "lift_curve",
    "log_loss",
    "purged_walk_forward",
    "reliability",
    "sigmoid",
    "sigmoid_covariance",
]
