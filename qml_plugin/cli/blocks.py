"""Pictures made of block characters: lines of text in, nothing printed."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from qml_plugin.records import FloatArray
from qml_plugin.stats.distribution import Distribution

_UP = " ▁▂▃▄▅▆▇█"
_RIGHT = " ▏▎▍▌▋▊▉█"


def histogram_lines(found: Distribution, width: int) -> list[str]:
    """A line a bin, the fullest bin `width` characters long."""
    labels = _labels(found)
    most = max(found.counts.tolist(), default=0)
    pad = max(map(len, labels), default=0)
    return [
        f"{label:>{pad}}  {_bar(count / most, width)} {count:,}"
        for label, count in zip(labels, found.counts.tolist(), strict=True)
    ]


def series_lines(values: FloatArray, width: int, height: int) -> list[str]:
    """The series from left to right, in columns of equally many values whose mean is drawn; blank where none is finite.

    The scale runs from the 0.5 % quantile at the bottom to the 99.5 % quantile at the top; what lies beyond is cut.
    """
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return []
    low, high = (float(value) for value in np.quantile(finite, [0.005, 0.995]))
    spread = high - low if high > low else 1.0
    levels = [_level(part, low, spread, 8 * height) for part in np.array_split(values, min(width, len(values)))]
    pad = max(len(f"{high:.4g}"), len(f"{low:.4g}"))
    lines = []
    for row in range(height - 1, -1, -1):
        label = f"{high:.4g}" if row == height - 1 else f"{low:.4g}" if row == 0 else ""
        lines.append(f"{label:>{pad}} ┤" + "".join(_UP[min(max(level - 8 * row, 0), 8)] for level in levels))
    return lines


def fan_lines(fan: FloatArray, width: int, height: int) -> list[str]:
    """Quantiles that spread from left to right: light is 10 to 90 %, dark is 25 to 75 %, a line the median, a dash 0.

    Parameters
    ----------
    fan : ndarray of shape (5, n_columns)
        Ascending quantiles by column, NaN where there is none.
    width : int, cells, >= 1
        Of the whole line. Columns share a cell where there are not enough cells; the last of them is drawn.
    height : int, lines, >= 3

    Returns
    -------
    list of str
        Empty where there is no quantile. The first and the last line carry the ends of the scale.
    """
    finite = fan[np.isfinite(fan)]
    if len(finite) == 0:
        return []
    low, high = min(0.0, float(finite.min())), max(0.0, float(finite.max()))
    spread = high - low if high > low else 1.0
    pad = max(len(f"{high:+.1f}"), len(f"{low:+.1f}"))
    per_cell = -(-fan.shape[1] // max(1, width - pad - 2))
    columns = fan[:, per_cell - 1 :: per_cell] if per_cell > 1 else fan
    rows = np.where(np.isfinite(columns), np.nan_to_num((columns - low) / spread) * (height - 1), -1.0).round()
    zero = round(-low / spread * (height - 1))
    lines = []
    for row in range(height - 1, -1, -1):
        label = f"{high:+.1f}" if row == height - 1 else f"{low:+.1f}" if row == 0 else "0" if row == zero else ""
        cells = "".join(_fan_cell(row, *column, is_zero=row == zero) for column in rows.T.astype(int).tolist())
        lines.append(f"{label:>{pad}} ┤{cells}".rstrip())
    return lines


def _fan_cell(row: int, lowest: int, lower: int, middle: int, upper: int, highest: int, *, is_zero: bool) -> str:
    if row == middle:
        return "█"
    if lower <= row <= upper:
        return "▒"
    return "░" if lowest <= row <= highest else "─" if is_zero else " "


def _level(part: FloatArray, low: float, spread: float, n_levels: int) -> int:
    """Height of a column in eighths, at least 1 where there is a value."""
    finite = part[np.isfinite(part)]
    if len(finite) == 0:
        return 0
    return 1 + round(float(np.clip((finite - low) / spread, 0.0, 1.0).mean()) * (n_levels - 1))


def _bar(frac: float, width: int) -> str:
    eighths = max(round(frac * width * 8), int(frac > 0))
    return "█" * (eighths // 8) + _RIGHT[eighths % 8].strip()


def _labels(found: Distribution) -> list[str]:
    if found.is_discrete:
        return [f"{value:.6g}" for value in found.edges]
    inner = [f"{low:.4g} to {high:.4g}" for low, high in pairwise(found.edges)]
    return [f"up to {found.edges[1]:.4g}", *inner[1:-1], f"from {found.edges[-2]:.4g}"]
