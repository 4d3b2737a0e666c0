"""Studies: strategies on markets, each searched and validated, from one file to one page."""

from __future__ import annotations

from qml_plugin.studies.course import Outcome, run_study
from qml_plugin.studies.description import Description, read_description
from qml_plugin.studies.overview import study_page

__all__ = ["Description", "Outcome", "read_description", "run_study", "study_page"]
