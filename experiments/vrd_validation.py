"""``qml vrd`` as a study: ``python -m experiments.vrd_validation --quick -s EURUSD -t 1h``; QMLStrategy unless one is named."""

from __future__ import annotations

import sys

from qml_plugin.cli import main

if __name__ == "__main__":
    is_named = len(sys.argv) > 1 and not sys.argv[1].startswith("-")
    main(["vrd", *([] if is_named or "--trades" in sys.argv else ["QMLStrategy"]), *sys.argv[1:]])
