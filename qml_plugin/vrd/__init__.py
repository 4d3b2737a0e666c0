"""Is the edge real? Walk-forward, nulls, sensitivity, regimes, costs, eight gates and a verdict.

`validate` does all of it; each part serves alone too. What is not known is INSUFFICIENT, never PASS.
"""

from qml_plugin.vrd.evaluation import Backtests, Evaluation, Positions, Trials, run_trials
from qml_plugin.vrd.gates import AuditFinding, Gate, Verdict
from qml_plugin.vrd.returns_file import read_returns
from qml_plugin.vrd.thresholds import Thresholds, load_thresholds
from qml_plugin.vrd.validate import Events, Plan, Validation, validate, validate_returns
from qml_plugin.vrd.walk_forward import WalkForward, combinatorial_paths, walk_forward, walk_forward_rerun

__all__ = [
    "AuditFinding",
    "Backtests",
    "Evaluation",
    "Events",
    "Gate",
    "Plan",
    "Positions",
    "Thresholds",
    "Trials",
    "Validation",
    "Verdict",
    "WalkForward",
    "combinatorial_paths",
    "load_thresholds",
    "read_returns",
    "run_trials",
    "validate",
    "validate_returns",
    "walk_forward",
    "walk_forward_rerun",
]
