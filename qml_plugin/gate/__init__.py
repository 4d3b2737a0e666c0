"""A calibrated confidence for each entry, and the verdict on whether it may decide."""

from qml_plugin.gate.activation import Requirements, Verdict, break_even_confidence, judge
from qml_plugin.gate.confidence import ConfidenceModel, fit_confidence

__all__ = [
    "ConfidenceModel",
    "Requirements",
    "Verdict",
    "break_even_confidence",
    "fit_confidence",
    "judge",
]
