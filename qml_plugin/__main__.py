"""``python -m qml_plugin`` is the ``qml`` command."""

from qml_plugin.cli import main

if __name__ == "__main__":
    main()
