"""The ``qml`` command: parse, call, print. Exit codes: 0 done, 1 refused, 2 usage, 3 schema, 4 damaged database."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from qml_plugin.errors import QmlError, RegistryCorrupt, SchemaTooNew, SchemaTooOld

_EXIT_CODES = ((SchemaTooOld, 3), (SchemaTooNew, 3), (RegistryCorrupt, 4))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; an error of ours is one line on stderr, or a traceback with ``--debug``."""
    from qml_plugin.cli.app import app

    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        app(arguments, prog_name="qml")
    except QmlError as error:
        if "--debug" in arguments:
            raise
        from qml_plugin.cli.terminal import inert

        sys.stderr.write(inert(f"qml: {error}\n", keep="\n\t"))
        sys.exit(next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), 1))
