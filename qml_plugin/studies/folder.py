"""Where a study keeps what it found: a folder with a manifest, and for each part of each cell a record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qml_plugin.errors import DataError
from qml_plugin.processes import Process
from qml_plugin.sweeps.folder import manifest_in, moved_aside, replace_file, writing

VERSION = 1
PARTS = ("sweep", "validation")


class StudyFolder:
    """One study on disk.

    ``manifest.json`` says what was asked for and who is at it. ``cells/NAME/`` holds ``sweep.json`` and
    ``validation.json``, which say what became of each part, and beside them the table of the sweep and the dossier. A
    record is believed only if it names the id of the part, which is made of all that its result depends on.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def cell(self, name: str) -> Path:
        return self.path / "cells" / name

    def claim(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest of a study that begins; DataError where another process was faster."""
        if (there := self.read_manifest()) is not None:
            self.refuse_if_at_work(there)
        self.write_manifest(manifest)

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        _replace(self.path / "manifest.json", {"version": VERSION, **manifest})

    def read_manifest(self) -> dict[str, Any] | None:
        """What was asked for; None where no study began here.

        Raises
        ------
        DataError
            If the file is damaged, or of another version.
        """
        return manifest_in(self.path, VERSION, "run the study again")

    def write_part(self, cell: str, part: str, record: Mapping[str, Any]) -> None:
        _replace(self.cell(cell) / f"{part}.json", record)

    def read_part(self, cell: str, part: str, part_id: str) -> dict[str, Any] | None:
        """What became of a part; None where there is nothing of this id, or it cannot be read."""
        try:
            record: dict[str, Any] = json.loads((self.cell(cell) / f"{part}.json").read_bytes())
        except (OSError, ValueError):
            return None  # it is simply run again
        return record if record.get("part_id") == part_id else None

    def refuse_if_at_work(self, manifest: Mapping[str, Any]) -> None:
        """DataError where another living process is at this very study."""
        process = Process(**manifest["process"])
        if manifest["status"] == "running" and process != Process.own() and process.is_alive():
            raise DataError(
                f"process {process.pid} is at this study, in {self.path}. `qml study status` shows how far it is; wait for it, "
                "or stop it and resume."
            )

    def move_aside(self) -> Path:
        """Keep what is here under another name; DataError where another process is at it."""
        if (manifest := self.read_manifest()) is not None:
            self.refuse_if_at_work(manifest)
        return moved_aside(self.path)


def is_at_work(manifest: Mapping[str, Any]) -> bool:
    """Whether the process that wrote a manifest is still running the study; one on another host is believed."""
    process = Process(**manifest["process"])
    is_alive = process.is_alive()
    is_elsewhere = is_alive is None and process.host != Process.own().host
    return manifest["status"] == "running" and bool(is_alive or is_elsewhere)


def _replace(file: Path, value: object) -> None:
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, json.dumps(value, allow_nan=False, indent=1, ensure_ascii=False).encode())
