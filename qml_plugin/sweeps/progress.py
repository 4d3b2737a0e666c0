"""How far a sweep is: a line on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

Progress = Callable[[int, int, str], None]
_EVERY_S = 0.2


class ProgressLine:
    """Points done of all, their rate and the time left, on stderr where that is a terminal; called with what is done.

    `unit` is what is counted, where it is not points.
    """

    def __init__(self, what: str, unit: str = "points") -> None:
        self._what, self._unit = what, unit
        self._began, self._told, self._is_shown = 0.0, 0.0, False
        self._first: int | None = None
        self._is_measured = False
        self._untold: tuple[int, int, str] | None = None
        self._is_terminal = sys.stderr is not None and sys.stderr.isatty()

    def __call__(self, done: int, total: int, text: str = "") -> None:
        """Tell that `done` of `total` points are there."""
        now = time.monotonic()
        if self._first is None or (done > self._first and not self._is_measured):
            # Those that an earlier sweep left say nothing about the rate, nor does the start of the workers.
            self._is_measured = self._first is not None
            self._first, self._began = done, now
        if not self._is_terminal:
            return
        if now - self._told < _EVERY_S and done < total:
            self._untold = done, total, text
            return
        self._told, self._is_shown, self._untold = now, True, None
        said = words(done, total, done - self._first, now - self._began, text, self._unit)
        sys.stderr.write(f"\r\x1b[K{self._what} {said}")
        sys.stderr.flush()

    def catch_up(self) -> None:
        """Show what came too soon after something else to be shown."""
        if self._untold is not None:
            self(*self._untold)

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        """Take the line away."""
        if self._is_shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def words(done: int, total: int, fresh: int, seconds: float, text: str = "", unit: str = "points") -> str:
    """Progress in words.

    >>> words(12, 60, 12, 4.0)
    '12/60 points, 3.0 a second, 16 s left'
    >>> words(0, 60, 0, 4.0, "1 failed")
    '0/60 points, 1 failed'
    """
    parts = [f"{done}/{total} {unit}"]
    if fresh > 0 and seconds > 0:
        rate = fresh / seconds
        left = (total - done) / rate
        parts.append(f"{rate:.1f} a second" if rate >= 1 else f"{1 / rate:.1f} s each")
        parts.append(f"{left:.0f} s left" if left < 120 else f"{left / 60:.0f} min left")
    return ", ".join(parts + ([text] if text else []))
