"""A strategy whose points go wrong once, at a worker of any kind on this machine."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.sweeps.troubled import Cross


class Once(Cross):
    """Kills its process or hangs while a file of the name of its trouble is in ``place``; it removes the file before."""

    trouble = ""
    place = ""

    def init(self):
        if self.trouble == "raise":
            raise ValueError("this point is not to be had")
        file = Path(self.place) / self.trouble
        if file.is_file():
            file.unlink()
            if self.trouble == "hang":
                time.sleep(600)
            os.kill(os.getpid(), signal.SIGKILL)
        super().init()
