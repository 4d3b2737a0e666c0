"""How loops are compiled outside the features, whose machine code is kept under a hash of their own folder.

Numba's own cache notices changes of a kernel's own file only: kernels that call one another stand in one file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compiled without fastmath and without the interpreter's lock; kept on disk where a folder can be written."""
    try:
        return njit(nogil=True, cache=True)(function)  # type: ignore[return-value]
    except RuntimeError:  # no folder for the cache: every process compiles anew
        return njit(nogil=True)(function)  # type: ignore[return-value]
