"""The ``qml`` command: parse, call, print. Exit codes: 0 done, 1 refused, 2 usage, 3 schema, 4 damaged database."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

from qml_plugin.errors import QmlError, RegistryCorrupt, SchemaTooNew, SchemaTooOld

_EXIT_CODES = ((SchemaTooOld, 3), (SchemaTooNew, 3), (RegistryCorrupt, 4))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; errors of ours and warnings are a line on stderr, or with ``--debug`` what Python shows."""
    from qml_plugin.cli.app import app

    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with warnings.catch_warnings():
            if "--debug" not in arguments:
                warnings.showwarning = lambda message, *_, **__: _show_warning(message)
            app(arguments, prog_name="qml")
    except QmlError as error:
        if "--debug" in arguments:
            raise
        from qml_plugin.cli.terminal import inert

        sys.stderr.write(inert(f"qml: {error}\n", keep="\n\t"))
        sys.exit(next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), 1))


def _show_warning(message: Warning | str) -> None:
    """A warning for people: where in the code it was given says nothing to them."""
    from qml_plugin.cli.terminal import inert

    if sys.stderr is not None:
        sys.stderr.write(inert(f"warning: {message}") + "\n")
