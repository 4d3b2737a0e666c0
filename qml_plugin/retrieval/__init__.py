"""Similar past patterns: a frozen scaler and an exact search that sees only what was known."""

from qml_plugin.retrieval.scaler import Scaler
from qml_plugin.retrieval.store import Hits, VectorStore

__all__ = ["Hits", "Scaler", "VectorStore"]
