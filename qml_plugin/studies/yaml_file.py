"""A YAML file as plain values, each with the path of its key, so that a refusal can name the place."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from qml_plugin.errors import DataError

_MOST_BYTES = 1_000_000
_N_LISTED = 20
_LONGEST_SHOWN = 60
_WORDS = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Plain values only; a key that comes twice is refused, and 1e-3 is a number, as in YAML 1.2."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        self.flatten_mapping(node)
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(None, None, "a key is no single value", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} comes twice", key_node.start_mark)
            seen.add(key)
        found: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        return found


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> Node:
    """The root of a file, which is a mapping.

    Parameters
    ----------
    path : Path

    Returns
    -------
    Node

    Raises
    ------
    DataError
        If the file cannot be read, is no YAML, holds a key twice, or is no mapping.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"the study {path} cannot be read: {error.strerror or error}. Name a YAML file; `qml study new {path.name}` writes one "
            "to begin with."
        ) from error
    if len(content) > _MOST_BYTES:
        raise DataError(f"{path} has {len(content):,} bytes. A study is a page of YAML; this is another file.")
    try:
        value = yaml.load(content, Loader=_Loader)  # noqa: S506 a safe loader
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        said = " ".join(re.sub(' in "<byte string>",', " at", str(error)).split())
        raise DataError(f"{path} is no YAML: {said or type(error).__name__}.") from error
    return Node(path, "", value).mapping()


@dataclass(frozen=True, slots=True)
class Node:
    """A value of the file, and where it stands: ``markets[1].timeframe``."""

    file: Path
    at: str
    value: Any

    def refused(self, rule: str, names: Collection[str] = ()) -> NoReturn:
        """Raise DataError with the place, the value seen, the rule, and a name that is near."""
        self._refuse("is", self.value, rule, names)

    def refused_key(self, key: object, rule: str, names: Collection[str] = ()) -> NoReturn:
        """Raise DataError for a key that a mapping must not have."""
        self._refuse("has an unknown key" if isinstance(key, str) else "has the key", key, rule, names)

    def _refuse(self, what: str, value: object, rule: str, names: Collection[str]) -> NoReturn:
        shown = repr(value)
        shown = shown if len(shown) <= _LONGEST_SHOWN else shown[: _LONGEST_SHOWN - 1] + "…"
        near = difflib.get_close_matches(str(value), list(names), n=1) if names else []
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise DataError(f"{self.file.name}: {self.at or 'the file'} {what} {shown}. {rule}{hint}")

    def mapping(self, allowed: Collection[str] | None = None, required: Collection[str] = ()) -> Node:
        """Itself, once it is a mapping of text with allowed keys only, and with all that are required."""
        if not isinstance(self.value, dict):
            self.refused(f"It must be a mapping, not {_WORDS.get(type(self.value), 'a single value')}.")
        for key in self.value:
            if not isinstance(key, str):
                self.refused_key(key, "Keys are text; put it in quotes.")
            if allowed is not None and key not in allowed:
                self.refused_key(key, f"Known keys are {listed(allowed)}.", allowed)
        for key in required:
            if key not in self.value:
                raise DataError(f"{self.file.name}: {self._below(key)} is missing. It has to be given.")
        return self

    def has(self, key: str) -> bool:
        return key in self.value

    def __getitem__(self, key: str) -> Node:
        return Node(self.file, self._below(key), self.value[key])

    def get(self, key: str, otherwise: Any = None) -> Node:
        """The value of a key, or what stands for one that is not there."""
        return self[key] if self.has(key) else Node(self.file, self._below(key), otherwise)

    def _below(self, key: str) -> str:
        return f"{self.at}.{key}" if self.at else key

    def names(self) -> list[str]:
        return list(self.value)

    def items(self) -> Iterator[Node]:
        """The values of a list; DataError where it is none, or has none."""
        if not isinstance(self.value, list) or not self.value:
            self.refused("It must be a list with at least one value.")
        for place, value in enumerate(self.value):
            yield Node(self.file, f"{self.at}[{place}]", value)

    def one_or_more(self) -> list[Node]:
        """The values of a list, or the single value itself."""
        return list(self.items()) if isinstance(self.value, list) else [self]

    def text(self, longest: int = 500) -> str:
        if not isinstance(self.value, str) or not self.value.strip():
            self.refused("It must be text; put it in quotes.")
        if len(self.value) > longest or not self.value.replace("\n", " ").isprintable():
            self.refused(f"It must be printable text of at most {longest} characters.")
        return self.value

    def choice(self, names: Collection[str]) -> str:
        if self.value not in list(names):
            self.refused(f"Use one of {listed(names)}.", names)
        return str(self.value)

    def truth(self) -> bool:
        if not isinstance(self.value, bool):
            self.refused("It must be true or false.")
        return self.value

    def whole(self, least: int, most: int = 10**12) -> int:
        if not isinstance(self.value, int) or isinstance(self.value, bool) or not least <= self.value <= most:
            self.refused(f"It must be a whole number from {least} to {most:,}.")
        return self.value

    def number(self, least: float, most: float, *, is_open: bool = False) -> float:
        """A finite number between two, the lower one left out where `is_open`."""
        is_number = isinstance(self.value, (int, float)) and not isinstance(self.value, bool)
        if not is_number or not math.isfinite(self.value) or not least <= self.value <= most:
            self.refused(f"It must be a number from {least:g} to {most:g}.")
        if is_open and self.value == least:
            self.refused(f"It must be more than {least:g}.")
        return float(self.value)

    def scalar(self) -> Any:
        """A single value: a number, text, true, false or nothing."""
        if not isinstance(self.value, (int, float, str, bool, type(None))):
            self.refused("It must be a single value: a number, text, true, false or null.")
        if isinstance(self.value, float) and not math.isfinite(self.value):
            self.refused("It must be a finite number.")
        return self.value


def listed(names: Collection[str]) -> str:
    """Names in a row, the first twenty of many."""
    shown = sorted(names)
    return ", ".join(shown[:_N_LISTED]) + (", …" if len(shown) > _N_LISTED else "")
