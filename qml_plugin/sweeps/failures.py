"""Errors of points, in words: not every error of a strategy survives the way between processes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pickle import PicklingError
from typing import Any

from qml_plugin.errors import QmlError

_LONGEST_ERROR = 2_000
_LONGEST_CAUSE = 300
_TRACES = ("_RemoteTraceback", "RemoteTraceback")  # how executors bring along where it was raised


class PointFailed(QmlError):
    """A point raised; `is_short` where its process may be short of memory or disk since."""

    def __init__(self, text: str, is_short: bool) -> None:
        super().__init__(text, is_short)
        self.text, self.is_short = text, is_short


def attempt(call: Callable[..., Any], *arguments: Any) -> Any:
    """What a call returns, where it is one of a point in a worker.

    Raises
    ------
    PointFailed
        Whatever the point raised, `sys.exit` too; only interrupts and the death of a worker pass as they are.
    """
    try:
        return call(*arguments)
    except (KeyboardInterrupt, BrokenProcessPool):
        raise
    except BaseException as error:  # noqa: BLE001 it is told to whoever asked for the point
        raise PointFailed(words_of(error), isinstance(error, (MemoryError, OSError))) from None


def words_of(error: BaseException) -> str:
    """An error in a line that any file, database and terminal can hold, the same whatever the process that it came from."""
    if isinstance(error, PointFailed):
        return error.text
    if isinstance(error, BrokenProcessPool):
        codes = str(error).rpartition("{")[2].partition("}")[0]
        return f"WorkerDied: its process was ended ({codes or 'no exit code'}), perhaps for want of memory"
    if isinstance(error, PicklingError):
        return f"PicklingError: {str(error).splitlines()[0] if str(error) else 'a value cannot be pickled'}"
    notes = " ".join(getattr(error, "__notes__", []))
    first = " ".join(str(error).split())
    if isinstance(error, SystemExit):
        first = f"the strategy called sys.exit({first})"
    text = f"{type(error).__name__}: {first}" + (f" ({notes})" if notes else "") + _cause_of(error)
    text = text.encode("utf-8", "backslashreplace").decode()
    n_more = len(text) - _LONGEST_ERROR
    return text if n_more <= 0 else f"{text[:_LONGEST_ERROR]} … ({n_more:,} characters more)"


def _cause_of(error: BaseException) -> str:
    """What an error came from, the first of all, in a few words; nothing where it says so itself."""
    if isinstance(error, QmlError):
        return ""
    first, met = error, {id(error)}
    while (before := first.__cause__ or (None if first.__suppress_context__ else first.__context__)) is not None:
        if id(before) in met or type(before).__name__ in _TRACES:
            break
        met.add(id(before))
        first = before
    said = " ".join(str(first).split())
    if first is error or (said and said in str(error)):
        return ""
    said = said if len(said) <= _LONGEST_CAUSE else f"{said[:_LONGEST_CAUSE]} …"
    return f" (caused by {type(first).__name__}: {said})"
