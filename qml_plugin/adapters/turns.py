"""Calls that run one at a time and in one order of time, each in a thread of its own, which waits between its moments."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

Await = Callable[[int], None]
_Key = tuple[int, str]
_LONGEST_WAIT_S = 0.5


class Stopped(BaseException):
    """Raised in a call when another one has failed, or the process was interrupted; no error of its own."""


@dataclass(slots=True)
class _Call:
    name: str
    function: Callable[[Await], Any]
    go: SimpleQueue[None] = field(default_factory=SimpleQueue)
    thread: threading.Thread | None = None
    moment: int | None = None  # it waits for; None before its first, and when it is done
    until: _Key | None = None  # earliest of what the others wait for, None while that is not known
    is_done: bool = False
    result: Any = None
    error: BaseException | None = None

    @property
    def key(self) -> _Key:
        assert self.moment is not None
        return self.moment, self.name


class Turns:
    """Takes calls through time together, only one running at any moment, so that what they share needs no lock.

    Parameters
    ----------
    after_turn : callable, optional
        Told the name of the call each time it has stopped running.
    """

    def __init__(self, after_turn: Callable[[str], None] = lambda name: None) -> None:
        self._after_turn = after_turn
        self._is_stopping = False
        # No semaphore: an interrupt may reach its Python code with a lock in hand, and the calls would wait for ever.
        self._back: SimpleQueue[None] = SimpleQueue()

    def run(self, functions: Mapping[str, Callable[[Await], Any]]) -> dict[str, Any]:
        """Run functions to their end, and give what they return.

        Each is given ``await_turn(moment)``, which returns once no other waits for an earlier moment; of one moment the
        names decide. The moments of one function must not go back. Every function first runs up to its first moment. The
        mapping's order does not matter.

        Raises
        ------
        BaseException
            What the first function to fail raised, with a note of its name. The others have ended then, as they have when
            the wait for them is interrupted: at their next moment, or where they ask `stop_if_told`.
        """
        calls = [_Call(name, functions[name]) for name in sorted(functions)]
        try:
            for call in calls:
                self._turn(call)
            while waiting := sorted((call for call in calls if not call.is_done), key=lambda call: call.key):
                waiting[0].until = waiting[1].key if len(waiting) > 1 else (2**63, "")
                self._turn(waiting[0])
        finally:
            self._stop(calls)
        return {call.name: call.result for call in calls}

    def stop_if_told(self) -> None:
        """End the call that asks, if all are to end."""
        if self._is_stopping:
            raise Stopped

    def _turn(self, call: _Call) -> None:
        """Let a call run until it waits or is done."""
        if call.thread is None:
            # Not kept alive by a thread that hangs in a call of the user's.
            inherited = contextvars.copy_context()
            call.thread = threading.Thread(target=inherited.run, args=(self._carry_out, call), daemon=True)
            call.thread.start()
        else:
            call.go.put(None)
        self._wait()
        self._after_turn(call.name)
        if call.error is not None:
            call.error.add_note(f"in {call.name}")
            raise call.error

    def _wait(self) -> None:
        """Until the call that runs gives way. A signal that comes just before a wait does not end it, so none is long."""
        while True:
            try:
                self._back.get(timeout=_LONGEST_WAIT_S)
            except Empty:
                continue
            return

    def _carry_out(self, call: _Call) -> None:
        def await_turn(moment: int) -> None:
            self.stop_if_told()
            call.moment = moment
            if call.until is not None and call.key < call.until:
                return
            self._back.put(None)
            call.go.get()
            self.stop_if_told()

        try:
            call.result = call.function(await_turn)
        except BaseException as error:  # noqa: BLE001 raised again by whoever waits for it
            call.error = error
        call.is_done = True
        self._back.put(None)

    def _stop(self, calls: list[_Call]) -> None:
        """Leave no thread behind."""
        self._is_stopping = True
        threads = [call.thread for call in calls if call.thread is not None and call.thread.ident is not None]
        for call in calls:
            call.go.put(None)
        for thread in threads:
            thread.join()
