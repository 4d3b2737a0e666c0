"""What every page is made of: one template, charts as JSON, plotly.js inside, written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from qml_plugin.clock import isoformat
from qml_plugin.report import words

_UNSAFE_IN_SCRIPT = str.maketrans(
    {char: f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}  # "</script>" inside the JSON would end its element
)


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure's place on the page and its JSON."""

    id: str
    label: str
    json: Markup
    height: int


def chart(chart_id: str, label: str, figure: go.Figure) -> Chart:
    """The figure as JSON that may stand inside a script element."""
    text = json.dumps(json.loads(figure.to_json()), ensure_ascii=False, separators=(",", ":"))
    return Chart(chart_id, label, Markup(text.translate(_UNSAFE_IN_SCRIPT)), int(figure.layout.height))


def render(template: str, **values: Any) -> str:
    """A self-contained HTML document; text from outside is escaped."""
    environment = Environment(
        loader=PackageLoader("qml_plugin.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "number": words.number,
        "percent": words.percent,
        "p_value": words.p_value,
        "reason": words.reason,
        "isoformat": isoformat,
        "zip": lambda first, second: zip(first, second, strict=True),
    }
    return environment.get_template(template).render(words=words, plotly_js=Markup(get_plotlyjs()), **values)


def write(html: str, path: str | os.PathLike[str]) -> Path:
    """Absolute path of the written document; an earlier file there is replaced whole, or not at all (OSError)."""
    target = Path(path).absolute()
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"there is no folder {target.parent}", str(target))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("x", encoding="utf-8", newline="\n") as file:
            file.write(html)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == str(temporary):
            raise type(error)(error.errno, error.strerror, str(target)) from error  # the file that was asked for
        raise
    return target
