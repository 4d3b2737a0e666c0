"""vectorbt, imported when first asked for because that takes seconds, or how to install it."""

from __future__ import annotations

from typing import Any

from qml_plugin.errors import MissingExtra


def host() -> Any:
    """The module ``vectorbt``."""
    try:
        import vectorbt
    except ImportError as error:
        raise MissingExtra.for_module("vectorbt", "vectorbt") from error
    return vectorbt
