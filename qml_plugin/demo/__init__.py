"""The demonstration: two strategies, real data, a planted edge, three modes, one page."""

from qml_plugin.demo.tour import DemoResult, run_demo

__all__ = ["DemoResult", "run_demo"]
