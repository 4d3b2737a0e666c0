"""A strategy whose point goes wrong once, at a worker of any kind on this machine."""

from __future__ import annotations

from pathlib import Path

from tests.sweeps.troubled import Plain


class Once(Plain):
    """Takes the trouble called ``once`` for a kill while a file is there, which it removes."""

    flag = ""

    def init(self):
        if self.trouble == "once" and Path(self.flag).exists():
            Path(self.flag).unlink()
            self.trouble = "kill"
        super().init()
