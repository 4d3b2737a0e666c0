"""A hash of the code behind a feature, blind to comments, docstrings and layout."""

from __future__ import annotations

import functools
import hashlib
import inspect
import io
import tokenize
from collections.abc import Callable
from pathlib import Path
from types import CodeType

_FOLDER = Path(__file__).parent
_LAYOUT = frozenset(
    (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING)
)
_STATEMENT_ENDS = frozenset((tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING))


def code_sha256(source: str) -> str:
    """SHA-256 of the tokens of Python source, without comments, docstrings and layout.

    Examples
    --------
    >>> code_sha256("x = 1  # one") == code_sha256("# a number\\nx  =  1")
    True
    >>> code_sha256("x = 1") == code_sha256("x = 2")
    False
    """
    digest = hashlib.sha256()
    before = tokenize.ENCODING
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        is_docstring = token.type == tokenize.STRING and before in _STATEMENT_ENDS
        if token.type not in _LAYOUT and not is_docstring:
            digest.update(token.string.encode() + b"\0")
        elif token.type in (tokenize.INDENT, tokenize.DEDENT):
            digest.update(b"\x01" if token.type == tokenize.INDENT else b"\x02")
        if token.type not in (tokenize.COMMENT, tokenize.NL):
            before = token.type
    return digest.hexdigest()


@functools.cache
def file_sha256(name: str) -> str:
    """`code_sha256` of a file of this folder."""
    return code_sha256((_FOLDER / name).read_text(encoding="utf-8"))


@functools.cache
def kernels_sha256() -> str:
    """One hash of every compiled file of this folder, in which kernels call one another."""
    text = "".join(file_sha256(name) for name in ("compiled.py", "kernels.py", *KERNEL_FILES))
    return hashlib.sha256(text.encode()).hexdigest()


def function_sha256(function: Callable[..., object]) -> str:
    """Hash of a function's code, defaults and enclosed values; helpers that it calls are not covered.

    The code is its source, or its bytecode where it has no source, as in an interactive session.
    """
    if isinstance(function, functools.partial):
        bound = f"{function_sha256(function.func)}{function.args!r}{sorted(function.keywords.items())!r}"
        return hashlib.sha256(bound.encode()).hexdigest()
    code = getattr(function, "__code__", None)
    if code is None:
        raise TypeError(f"a {type(function).__name__} has no code to know it by")
    try:
        text = code_sha256(inspect.cleandoc("\n" + inspect.getsource(function)))
    except (OSError, TypeError, tokenize.TokenError, IndentationError):
        text = _bytecode(code)
    enclosed = []
    for name, cell in zip(code.co_freevars, getattr(function, "__closure__", None) or (), strict=True):
        value = cell.cell_contents
        enclosed.append(f"{name}={function_sha256(value) if inspect.isfunction(value) else repr(value)}")
    text += repr((enclosed, getattr(function, "__defaults__", None), getattr(function, "__kwdefaults__", None)))
    return hashlib.sha256(text.encode()).hexdigest()


def _bytecode(code: CodeType) -> str:
    constants = [_bytecode(value) if isinstance(value, CodeType) else repr(value) for value in code.co_consts]
    return repr((code.co_code.hex(), code.co_names, code.co_varnames, code.co_freevars, constants))


KERNEL_FILES = (
    "series.py",
    "ctx.py",
    "temp.py",
    "vol.py",
    "mom.py",
    "vol_relative.py",
    "regime.py",
    "entry.py",
)
