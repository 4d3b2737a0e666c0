"""Compile a kernel with numba and keep the machine code on disk until any kernel of this folder changes."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from numba import njit
from numba.core.caching import FunctionCache

from qml_plugin.features.versions import kernels_sha256

F = TypeVar("F", bound=Callable[..., Any])
Listener = Callable[[str], object]
COMPILING = "compiling the feature kernels, once per machine and version, about a minute (qml warmup does it ahead) ..."

_listeners: list[Listener] = []


class _SharedSourceCache(FunctionCache):
    """Numba's own notices changes of the kernel's file only, not of the kernels and constants it takes from others."""

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return (*super()._index_key(sig, codegen), kernels_sha256())  # type: ignore[no-untyped-call]

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        found = super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        if found is None:
            if not _listeners:
                _say_once()
            for tell in _listeners:
                tell(f"{self._py_func.__module__.rpartition('.')[2]}.{self._py_func.__name__}")
        return found


@functools.cache
def _say_once() -> None:
    """One line for those who wait at a terminal and did not ask to be told."""
    if sys.stderr is not None and sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{COMPILING}\n")
        sys.stderr.flush()


@functools.cache
def _warn_of_no_cache() -> None:
    warnings.warn(
        "compiled kernels cannot be kept: no folder for them can be written. Every process compiles anew, for about a minute; "
        "let NUMBA_CACHE_DIR name one that can.",
        RuntimeWarning,
        stacklevel=3,
    )


def kernel(function: F) -> F:
    """`numba.njit` without fastmath, cached under the hash of all kernels."""
    dispatcher = njit(function)
    try:
        dispatcher._cache = _SharedSourceCache(function)  # type: ignore[no-untyped-call]
    except RuntimeError:  # no folder to write to: neither the package's, nor the user's
        _warn_of_no_cache()
    return dispatcher  # type: ignore[no-any-return]


@contextmanager
def when_compiling(tell: Listener) -> Iterator[None]:
    """Within the block, call `tell` with the name of each kernel that the disk does not hold, before it is compiled.

    Asked at the very lookup that decides, so that it cannot err about the signature, the processor or the version.
    """
    _listeners.append(tell)
    try:
        yield
    finally:
        _listeners.remove(tell)
