"""Statistics on plain arrays: is an edge real, what can luck do; splits, calibration, scores of probabilities.

What stands on compiled kernels is loaded on first use, so that whoever only scores or splits does not wait for numba.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from qml_plugin.stats.calibration import brier_score, brier_skill, fit_sigmoid, log_loss, sigmoid, sigmoid_covariance
from qml_plugin.stats.inference import (
    MeanShift,
    TailRisk,
    false_discovery_p_values,
    mean_shift,
    normal_tail_risk,
    tail_risk,
    wilson_interval,
)
from qml_plugin.stats.scores import (
    average_precision,
    calibration_error,
    calibration_error_interval,
    lift_curve,
    reliability,
)
from qml_plugin.stats.sharpe import (
    Moments,
    deflated_sharpe_ratio,
    excess_returns,
    expected_max_sharpe,
    min_backtest_length,
    min_track_record_length,
    probabilistic_sharpe_ratio,
    sharpe_moments,
    sharpe_ratio,
)
from qml_plugin.stats.splits import CombinatorialPurgedCV, PurgedWalkForward, purged_walk_forward
from qml_plugin.stats.venn_abers import VennAbers

if TYPE_CHECKING:
    from qml_plugin.stats.bar_permutation import PermutedBars, bar_permutation_test
    from qml_plugin.stats.nulls import NullResult, circular_shift_test, random_entry_test, sign_flip_test
    from qml_plugin.stats.overfitting import (
        Overfitting,
        SuperiorAbility,
        effective_n_trials,
        pbo,
        reality_check,
        superior_predictive_ability,
    )
    from qml_plugin.stats.resampling import (
        Interval,
        MonteCarlo,
        automatic_block_length,
        bootstrap_interval,
        monte_carlo,
        pessimist_mean,
    )

__all__ = [
    "CombinatorialPurgedCV",
    "Interval",
    "MeanShift",
    "Moments",
    "MonteCarlo",
    "NullResult",
    "Overfitting",
    "PermutedBars",
    "PurgedWalkForward",
    "SuperiorAbility",
    "TailRisk",
    "VennAbers",
    "automatic_block_length",
    "average_precision",
    "bar_permutation_test",
    "bootstrap_interval",
    "brier_score",
    "brier_skill",
    "calibration_error",
    "calibration_error_interval",
    "circular_shift_test",
    "deflated_sharpe_ratio",
    "effective_n_trials",
    "excess_returns",
    "expected_max_sharpe",
    "false_discovery_p_values",
    "fit_sigmoid",
    "lift_curve",
    "log_loss",
    "mean_shift",
    "min_backtest_length",
    "min_track_record_length",
    "monte_carlo",
    "normal_tail_risk",
    "pbo",
    "pessimist_mean",
    "probabilistic_sharpe_ratio",
    "purged_walk_forward",
    "random_entry_test",
    "reality_check",
    "reliability",
    "sharpe_moments",
    "sharpe_ratio",
    "sigmoid",
    "sigmoid_covariance",
    "sign_flip_test",
    "superior_predictive_ability",
    "tail_risk",
    "wilson_interval",
]

_HOME = {
    "Interval": "resampling",
    "MonteCarlo": "resampling",
    "NullResult": "nulls",
    "Overfitting": "overfitting",
    "PermutedBars": "bar_permutation",
    "SuperiorAbility": "overfitting",
    "automatic_block_length": "resampling",
    "bar_permutation_test": "bar_permutation",
    "bootstrap_interval": "resampling",
    "circular_shift_test": "nulls",
    "effective_n_trials": "overfitting",
    "monte_carlo": "resampling",
    "pbo": "overfitting",
    "pessimist_mean": "resampling",
    "random_entry_test": "nulls",
    "reality_check": "overfitting",
    "sign_flip_test": "nulls",
    "superior_predictive_ability": "overfitting",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'qml_plugin.stats' has no attribute {name!r}; its names are in __all__")
    return getattr(import_module(f"qml_plugin.stats.{_HOME[name]}"), name)
