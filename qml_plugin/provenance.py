"""Where a result came from: code, libraries, data and parameters, so that a run can be told from another."""

from __future__ import annotations

import copyreg
import dis
import functools
import hashlib
import importlib
import importlib.util
import inspect
import math
import platform
import re
import subprocess
import sys
import traceback
import uuid
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from pickle import PicklingError
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import cast

import numpy as np
import orjson
import pandas as pd

from qml_plugin.errors import DataError

_RUN_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "qml_plugin/run")
_LIBRARIES = (
    "qml-plugin",
    "numpy",
    "pandas",
    "scipy",
    "numba",
    "faiss-cpu",
    "scikit-learn",
    "xgboost",
    "xgboost-cpu",
    "backtesting",
)
_GIT_TIMEOUT_S = 5.0
_SCRIPT = "qml_script_"
SHIPPED = {
    "QMLStrategy": "strategies.qml:QMLStrategy",
    "MovingAverageCross": "strategies.moving_average:MovingAverageCross",
    "DonchianBreakout": "strategies.donchian:DonchianBreakout",
    "RSIReversion": "strategies.rsi_reversion:RSIReversion",
}
_LONGEST_DIFF = 1_000_000
_SIMPLE = (bool, int, float, complex, str, bytes, np.generic, np.ndarray, pd.DataFrame, pd.Series, pd.Index)
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def canonical_json(value: object) -> bytes:
    """JSON with sorted keys, of values that `plain` has made plain."""
    return orjson.dumps(
        value, default=repr, option=orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
    )


def run_id(*identity: object) -> str:
    """UUIDv5 of what determines a run: the same inputs give the same id.

    >>> run_id("SmaCross", {"fast": 10, "slow": 30}) == run_id("SmaCross", {"slow": 30, "fast": 10})
    True
    """
    return str(uuid.uuid5(_RUN_NAMESPACE, hashlib.sha256(canonical_json(plain(identity))).hexdigest()))


@cache
def library_versions() -> dict[str, str]:
    """Installed versions of the libraries that a result depends on."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def changed_library(versions: Mapping[str, str]) -> tuple[str, str, str | None] | None:
    """The first library that is not of the version it was, with that one and today's; None where all are."""
    now = library_versions()
    return next(((name, old, now.get(name)) for name, old in versions.items() if now.get(name) != old), None)


def plain(value: object) -> object:
    """A value as JSON can hold it, the same text for the same value in every process.

    Functions become their name and the hash of what they do: their code, their defaults, and what they enclose and read of
    globals. Anything else that JSON lacks becomes its ``repr`` without memory addresses.

    Raises
    ------
    DataError
        If a function encloses or reads what has no text of its own, such as a lock.

    >>> plain({"when": (1, None), 2: 2**70})
    {'when': [1, None], '2': '1180591620717411303424'}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)  # JSON has no word for them
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item) for item in value), key=repr)
    if isinstance(value, FunctionType):
        return f"{value.__qualname__}@{_function_sha256(value)}"
    if isinstance(value, MethodType):
        held = hashlib.sha256(canonical_json(_Reach(value).of("self", value.__self__))).hexdigest()
        return f"{plain(value.__func__)}@{held}"
    if isinstance(value, (np.ndarray, pd.DataFrame, pd.Series, pd.Index)):
        return f"{type(value).__name__}@{_table_sha256(value)}"
    if isinstance(value, functools.partial):
        held = hashlib.sha256(canonical_json(plain([value.args, value.keywords]))).hexdigest()
        return f"partial({plain(value.func)})@{held}"
    if _is_compiled(value) or (
        callable(value) and not isinstance(value, type) and not _is_library(type(value).__module__)
    ):
        held = hashlib.sha256(canonical_json(_Reach(type(value)).of("self", value))).hexdigest()
        return f"{type(value).__qualname__}@{held}"
    text = repr(value)
    if _ADDRESS.search(text) and hasattr(value, "__dict__"):  # the text says where it lies, not what it is
        return f"{type(value).__qualname__}@{_held_sha256(value)}"
    return _ADDRESS.sub("", text).encode("utf-8", "backslashreplace").decode()


def _held_sha256(value: object) -> str:
    """Hash of what an object holds; of its kind alone where it holds itself."""
    try:
        return hashlib.sha256(canonical_json(plain(vars(value)))).hexdigest()
    except RecursionError:
        return hashlib.sha256(type(value).__qualname__.encode()).hexdigest()


def _function_sha256(function: FunctionType) -> str:
    """Hash of what a function does: its code, its defaults, and what it encloses and reads of globals."""
    return hashlib.sha256(canonical_json(_Reach(function).function(function))).hexdigest()


class _Reach:
    """What the result of a function depends on, as JSON can hold it; what was met before is named by its number."""

    def __init__(self, root: object) -> None:
        self._root = str(getattr(root, "__qualname__", root))
        self._met: dict[int, tuple[int, object]] = {}  # the objects too, so that no address is given away again

    def of(self, name: str, value: object) -> object:
        """A value that is read under a name."""
        if value is None or isinstance(value, _SIMPLE):
            return plain(value)
        if isinstance(value, ModuleType):
            return ["module", value.__name__]
        if isinstance(value, (BuiltinFunctionType, np.ufunc)) and not _is_bound(value):
            return ["built in", getattr(value, "__module__", None), getattr(value, "__qualname__", value.__name__)]
        if id(value) in self._met:
            return ["met", self._met[id(value)][0]]
        self._met[id(value)] = (len(self._met), value)
        if isinstance(value, FunctionType):
            return self._library(value) or self.function(value)
        if isinstance(value, type):
            return self._library(value) or ["class", value.__qualname__, source_sha256(value)]
        if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
            return [type(value).__name__, *(self.of(name, item) for item in value)]
        if isinstance(value, (set, frozenset)):
            return ["set", *sorted((self.of(name, item) for item in value), key=repr)]
        if type(value) is dict:
            return ["dict", *([self.of(name, key), self.of(name, item)] for key, item in value.items())]
        return self._object(name, value)

    def function(self, function: FunctionType) -> list[object]:
        """A function with all that it reaches."""
        self._met.setdefault(id(function), (len(self._met), function))
        read: list[object] = []
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            read.append([name, self.of(name, cell.cell_contents)] if cell != CellType() else [name])  # no value yet
        for name in sorted(_globals_of(function.__code__) & function.__globals__.keys()):
            read.append([name, self.of(name, function.__globals__[name])])
        defaults = [self.of("its defaults", value) for value in function.__defaults__ or ()]
        keywords = sorted((function.__kwdefaults__ or {}).items())
        return [plain(_code_parts(function.__code__)), defaults, [[k, self.of(k, v)] for k, v in keywords], read]

    def _object(self, name: str, value: object) -> object:
        """An object as it would be pickled: its class and its state."""
        if _is_compiled(value):  # what it does is what it is made of
            return [type(value).__qualname__, self.of(name, _made_of(value))]
        try:
            special = copyreg.dispatch_table.get(type(value))
            reduced = special(value) if special is not None else value.__reduce_ex__(4)
            reduced = (reduced,) if isinstance(reduced, str) else reduced
            parts = [list(one) if isinstance(one, Iterator) else one for one in reduced]
            return ["object", *(self.of(name, part) for part in parts)]
        except DataError:  # of a part of it
            raise
        except (TypeError, ValueError, AttributeError, RecursionError, PicklingError) as error:
            raise DataError(
                f"{self._root} reads {name!r}, a {type(value).__qualname__}, of which nothing tells one state from another "
                f"({type(error).__name__}: {error}), so its results could not be told apart. Give it as text or numbers, or "
                "make it within the function."
            ) from error

    @staticmethod
    def _library(value: FunctionType | type) -> object:
        """The name of what is installed, whose code is told by versions; None of one's own."""
        return ["library", value.__module__, value.__qualname__] if _is_library(value.__module__) else None


def _made_of(value: object) -> object:
    """The function that was compiled, cached or wrapped."""
    return getattr(value, "py_func", None) or getattr(value, "__wrapped__", None)


def _is_compiled(value: object) -> bool:
    return not isinstance(value, type) and isinstance(_made_of(value), FunctionType)


def _is_bound(value: object) -> bool:
    """Whether a compiled method belongs to an object."""
    owner = getattr(value, "__self__", None)
    return owner is not None and not isinstance(owner, (ModuleType, type))


@cache
def _is_library(name: str | None) -> bool:
    if name == "__main__":  # what is called so in a worker is not the script that began the search
        return False
    top = str(name).partition(".")[0]
    if top in sys.stdlib_module_names or top == "qml_plugin":
        return True
    file = getattr(sys.modules.get(str(name)), "__file__", None) or ""
    return bool({"site-packages", "dist-packages"} & set(Path(file).parts))


def _globals_of(code: CodeType) -> set[str]:
    """Names of the globals that code reads, that of functions within it too."""
    own = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return own.union(*(_globals_of(item) for item in code.co_consts if isinstance(item, CodeType)))


def _own_parts(function: FunctionType) -> object:
    """What a function is without what it reads elsewhere, which may be the class that it belongs to."""
    enclosed = [cell.cell_contents for cell in function.__closure__ or () if cell != CellType()]
    simple = [value for value in enclosed if value is None or isinstance(value, _SIMPLE)]
    return plain([_code_parts(function.__code__), function.__defaults__, function.__kwdefaults__, simple])


def _code_parts(code: CodeType) -> list[object]:
    constants = [_code_parts(item) if isinstance(item, CodeType) else item for item in code.co_consts]
    return [code.co_code.hex(), code.co_names, constants]


def _table_sha256(table: np.ndarray | pd.DataFrame | pd.Series | pd.Index) -> str:
    values = np.asarray(table)
    labels = [] if isinstance(table, np.ndarray) else [str(axis.tolist()) for axis in getattr(table, "axes", [table])]
    if values.dtype == object:
        return hashlib.sha256(canonical_json(plain([labels, values.shape, values.tolist()]))).hexdigest()
    header = canonical_json([values.dtype.str, values.shape, labels])
    return hashlib.sha256(header + np.ascontiguousarray(values).tobytes()).hexdigest()


@cache
def source_sha256(cls: Hashable) -> str:
    """Hash of the code that makes a class what it is: its own and that of its bases outside installed libraries."""
    digest = hashlib.sha256()
    for base in cast(type, cls).__mro__:
        if base is object or base.__module__.split(".")[0] in ("backtesting", "qml_plugin", "abc"):
            continue
        try:
            digest.update(inspect.getsource(base).encode())
        except (OSError, TypeError):  # an interactive definition
            functions = (value for value in vars(base).values() if isinstance(value, FunctionType))
            digest.update(canonical_json([_own_parts(function) for function in functions]))
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class GitState:
    """Where a working tree stood: its commit, whether tracked files differed from it, and how; None outside a repository.

    A diff of more than a million characters is cut there, and says so.
    """

    commit: str | None = None
    is_dirty: bool | None = None
    diff: str | None = None


@cache
def git_state(folder: Path) -> GitState:
    """State of the repository around `folder`, as it is when first asked: about when its code was imported."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return GitState()
    diff = _git(folder, "diff", "--no-color", "--no-ext-diff", "HEAD")
    if diff is not None and len(diff) > _LONGEST_DIFF:
        diff = f"{diff[:_LONGEST_DIFF]}\n… {len(diff) - _LONGEST_DIFF} characters more"
    return GitState(commit.strip(), None if diff is None else bool(diff), diff or None)


def class_path(cls: type) -> str:
    """Where a class can be found again: ``package.module:Class``, or ``/path/file.py:Class`` of a script."""
    module = sys.modules.get(cls.__module__)
    file = getattr(module, "__file__", None)
    is_script = file is not None and (cls.__module__ == "__main__" or cls.__module__.startswith(_SCRIPT))
    return f"{Path(str(file)).resolve() if is_script else cls.__module__}:{cls.__qualname__}"


def place_of(name: str) -> str:
    """Where a strategy of `SHIPPED` is, by its bare name; anything else is returned as it is.

    >>> place_of("QMLStrategy"), place_of("my.py:Breakout")
    ('strategies.qml:QMLStrategy', 'my.py:Breakout')
    """
    return SHIPPED.get(name, name)


def find_class(path: str) -> type:
    """The class that `class_path` named.

    Parameters
    ----------
    path : str
        ``package.module:Class`` or ``path/to/file.py:Class``.

    Raises
    ------
    DataError
        If there is no such module, file or class.
    """
    found = find_object(path)
    if not isinstance(found, type):
        raise DataError(f"{path!r} is a {type(found).__name__}, not a class.")
    return found


def find_object(path: str) -> object:
    """The class or function at ``package.module:Name`` or ``path/to/file.py:Name``.

    Raises
    ------
    DataError
        If there is no such module, file or name.
    """
    place, _, name = path.rpartition(":")
    if not place:
        place, name = path, ""
    if place.endswith(".py") and not Path(place).is_file():
        raise DataError(f"there is no file {place}. Name a class as path/to/file.py:Class or package.module:Class.")
    try:
        found: object = _module_of_file(Path(place)) if place.endswith(".py") else _imported(place)
        module = found
        for part in name.split("."):
            if not hasattr(found, part):
                raise AttributeError(_missing(place, name, module))
            found = getattr(found, part)
    except (ImportError, AttributeError, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"there is no class at {path!r}: {error}. Name it as package.module:Class or path/to/file.py:Class; a module "
            "is looked for in the current folder too."
        ) from error
    return found


def _missing(place: str, name: str, module: object) -> str:
    """What a module lacks, and what it has."""
    own = getattr(module, "__name__", "")
    there = [
        key
        for key, value in vars(module).items()
        if isinstance(value, (type, FunctionType)) and value.__module__ == own and not key.startswith("_")
    ]
    lacking = f"{place} has no {name}" if name else f"no class of {place} is named"
    return f"{lacking}; it has {', '.join(there) or 'no class or function of its own'}"


def _module_of_file(file: Path) -> ModuleType:
    """The module of a script, under a name of its own, so that its ``if __name__ == "__main__"`` stays quiet."""
    name = f"{_SCRIPT}{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:16]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise ImportError(f"{file} cannot be imported")
        module, arguments, places = importlib.util.module_from_spec(spec), sys.argv, list(sys.path)
        sys.modules[name], sys.argv = module, [str(file)]
        sys.path.insert(0, str(file.resolve().parent))  # as when it is run: what it imports may lie beside it
        try:
            spec.loader.exec_module(module)
        except FileNotFoundError as error:
            if error.filename == str(file):
                raise
            raise _unimportable(str(file), error) from error
        except (Exception, SystemExit) as error:
            raise _unimportable(str(file), error) from error
        finally:
            sys.argv, sys.path[:] = arguments, places
            if sys.exc_info()[0] is not None:
                del sys.modules[name]
    return sys.modules[name]


def _imported(place: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except (ModuleNotFoundError, ValueError):  # no such module, or a name that is none
        raise
    except (Exception, SystemExit) as error:
        raise _unimportable(place, error) from error


def _unimportable(what: str, error: BaseException) -> DataError:
    """What code did when it was imported, and where."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    line = error.lineno if isinstance(error, SyntaxError) else last.lineno
    file = error.filename if isinstance(error, SyntaxError) else last.filename
    advice = (
        "Mend that first."
        if isinstance(error, SyntaxError)
        else "What a script does beside defining its classes belongs under: if __name__ == '__main__'."
    )
    said = error.msg if isinstance(error, SyntaxError) else error
    return DataError(f"{what} cannot be imported: {type(error).__name__}: {said}, at line {line} of {file}. {advice}")


def source_folder(cls: type) -> Path:
    """Folder of the file that defines `cls`, or the working folder."""
    try:
        return Path(inspect.getfile(cls)).resolve().parent
    except (OSError, TypeError):
        return Path.cwd()


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True, encoding="utf-8", errors="replace", timeout=_GIT_TIMEOUT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.replace("\0", "\ufffd") if done.returncode == 0 else None
