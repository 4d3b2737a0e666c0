"""Calls in processes that are reached over a network: what is sent, and how what comes back reaches whoever waits."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from qml_plugin.errors import DataError
from qml_plugin.sweeps.failures import words_of

Answer = tuple[Any, Exception | None]


def sent(call: Callable[..., Any], arguments: tuple[Any, ...]) -> bytes:
    """A call as it travels: classes of an interactive session by value, all others by name."""
    import cloudpickle  # which Dask needs, and Ray's extra names

    content: bytes = cloudpickle.dumps((call, arguments))
    return content


def answered(path: tuple[str, ...], content: bytes) -> Answer:
    """Make a call that was `sent`; its result, or the error that it raised in a form that can be sent back."""
    sys.path += [place for place in path if place not in sys.path]
    try:
        call, arguments = pickle.loads(content)  # noqa: S301 from the process that searches
        return call(*arguments), None
    except Exception as error:  # noqa: BLE001 whoever asks for the result gets it
        return None, _portable(error)


def answer(future: Future[Any], given: Answer) -> None:
    """Give a future the answer of `answered`, unless its worker has been found dead meanwhile."""
    result, error = given
    try:
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
    except InvalidStateError:
        pass


def died(future: Future[Any], why: str = "no exit code") -> None:
    """Tell a future that the process of its worker is gone."""
    answer(future, (None, BrokenProcessPool(f"{{{why}}}")))


def _portable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 what was just made
    except Exception:  # noqa: BLE001 its words can always be sent
        return DataError(words_of(error))
    return error
