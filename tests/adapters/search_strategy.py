"""A strategy for searches in other processes, which can be told to kill its own."""

from __future__ import annotations

import os
import signal

from strategies.moving_average import MovingAverageCross


class Cross(MovingAverageCross):
    """Its last bars are deadly where a process says so."""

    _is_deadly = False

    def next(self):
        if self._is_deadly and len(self.data) > 500:
            os.kill(os.getpid(), signal.SIGKILL)
        super().next()
