"""Similar past patterns: a frozen scaler and an exact search that sees only what was known."""

from qml_plugin.retrieval.scaler import Scaler
from qml_plugin.retrieval.store import LIVE_DEADLINE_S, Hits, VectorStore

__all__ = ["LIVE_DEADLINE_S", "Hits", "Scaler", "VectorStore"]
