"""Detectors: past bars in, setups out, each with the bar from which it may be used."""

from qml_plugin.detection.quasimodo import find_quasimodo
from qml_plugin.detection.swings import Swing, directional_change_swings, fractal_swings

__all__ = ["Swing", "directional_change_swings", "find_quasimodo", "fractal_swings"]
