"""A calibrated confidence for each entry, and the verdict on whether it may decide.

`WalkForwardGate` takes arrays of events and needs no host; `OnlineGate` is the same gate driven event by event.
"""

from qml_plugin.gate.confidence import ConfidenceModel, fit_confidence
from qml_plugin.gate.evidence import Evidence, Requirements, Verdict
from qml_plugin.gate.online import GateSettings, Judgement, OnlineGate, schedule_size
from qml_plugin.gate.sizing import kelly_risk_frac
from qml_plugin.gate.threshold import best_threshold, break_even_confidence, expected_r
from qml_plugin.gate.trial import GateTrial, TrialRun, gate_trial
from qml_plugin.gate.walk_forward import WalkForwardGate

__all__ = [
    "ConfidenceModel",
    "Evidence",
    "GateSettings",
    "GateTrial",
    "Judgement",
    "OnlineGate",
    "Requirements",
    "TrialRun",
    "Verdict",
    "WalkForwardGate",
    "best_threshold",
    "break_even_confidence",
    "expected_r",
    "fit_confidence",
    "gate_trial",
    "kelly_risk_frac",
    "schedule_size",
]
