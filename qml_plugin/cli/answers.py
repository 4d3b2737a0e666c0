"""Answers of a person: single key presses of a terminal, or lines of text from anything else."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from qml_plugin.errors import DataError

try:
    import termios
    import tty
except ImportError:  # Windows: lines of text there, from a terminal too
    termios = tty = None  # type: ignore[assignment]

# What arrow and function keys send: their letters are no answers.
_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|O.|.)?")
_LONGEST_WAIT_S = 0.2
_END = "\x04\0"  # Ctrl-D, which is kept as 0 where it was typed before keys came at once


class Interrupted(Exception):
    """Ctrl-C or SIGTERM arrived while nothing was being stored."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class Answers:
    """What stands on stdin, answer by answer, for as long as a ``with`` block lasts.

    Ctrl-C and SIGTERM raise `Interrupted` while an answer is awaited. While one is being stored they wait until it is;
    a second one does not.
    """

    def __init__(self) -> None:
        self._descriptor = sys.stdin.fileno() if termios and sys.stdin is not None and sys.stdin.isatty() else None
        self._mode: list[Any] = [] if self._descriptor is None else termios.tcgetattr(self._descriptor)
        self._typed = ""
        self._is_waiting = False
        self._pending: int | None = None
        self.n_lines = 0

    @property
    def is_terminal(self) -> bool:
        """Whether single key presses are read."""
        return self._descriptor is not None

    def __enter__(self) -> Answers:
        self._handlers: dict[int, Any] = {
            signum: signal.signal(signum, self._take) for signum in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            with suppress(termios.error):
                self._set_mode(self._descriptor, is_line=True)
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)

    def key(self) -> str | None:
        """The next key that prints, or the next line where stdin is no terminal; None at the end."""
        if self._descriptor is None:
            return self.line()
        with suppress(termios.error):  # the terminal was closed
            self._set_mode(self._descriptor, is_line=False)
        while (found := self._character(self._descriptor)) is not None and found not in _END:
            if found.isprintable() and not found.isspace():
                return found
        return None

    def line(self) -> str | None:
        """The next line without the space around it; None at the end."""
        if self._descriptor is None:
            return self._line_of_text()
        with suppress(termios.error):
            self._set_mode(self._descriptor, is_line=True)
        text = ""
        while (found := self._character(self._descriptor)) != "\n":
            if found is None:
                return text.strip() or None
            text += found
        return text.strip()

    def _line_of_text(self) -> str | None:
        if sys.stdin is None:  # closed before the program began
            return None
        self.n_lines += 1
        with self._waiting():
            try:
                text = sys.stdin.readline()
            except UnicodeDecodeError as error:
                raise DataError(
                    f"line {self.n_lines} of the answers is no text: {error}. Write them in UTF-8."
                ) from error
        return text.strip() if text else None

    def _character(self, descriptor: int) -> str | None:
        """The next character typed; None where the terminal is gone or the line was ended with Ctrl-D."""
        with self._waiting():
            while not self._typed:
                try:
                    # A signal that comes just before a call that waits is seen after it: none waits for long.
                    if not select.select([descriptor], [], [], _LONGEST_WAIT_S)[0]:
                        continue
                    read = os.read(descriptor, 1024)
                except OSError:
                    return None
                if not read:
                    return None
                self._typed = _ESCAPES.sub("", read.decode(errors="replace"))
        found, self._typed = self._typed[0], self._typed[1:]
        return found

    def _set_mode(self, descriptor: int, *, is_line: bool) -> None:
        """A line is edited and seen, a key comes at once and unseen; Ctrl-C interrupts both."""
        if is_line:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, self._mode)
        else:
            tty.setcbreak(descriptor, termios.TCSADRAIN)

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        self._is_waiting = True
        try:
            if self._pending is not None:
                raise Interrupted(self._pending)
            yield
        finally:
            self._is_waiting = False

    def _take(self, signum: int, _: FrameType | None) -> None:
        if self._is_waiting or self._pending is not None:
            raise Interrupted(signum)
        self._pending = signum
