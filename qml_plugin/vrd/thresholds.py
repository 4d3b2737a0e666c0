"""The thresholds of the gates: shipped with their reasons, replaced key by key by the user's own file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any

from qml_plugin.errors import DataError

_SHARES = ("alpha", "level", "quantile", "frac", "score", "equity")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """All thresholds; ``evidence_min_trades`` is the key ``min_trades`` of the table ``[evidence]``.

    What each means and why it has its value is said in ``thresholds.toml`` beside this module.
    """

    evidence_min_trades: int
    evidence_min_years: float
    evidence_alpha: float
    timing_alpha: float
    timing_min_annual_sharpe: float
    selection_alpha: float
    costs_multiple: float
    costs_min_annual_sharpe: float
    plateau_min_score: float
    concentration_n_periods: int
    concentration_max_period_frac: float
    concentration_min_regime_frac: float
    ruin_horizon_years: float
    ruin_pessimist_level: float
    ruin_drawdown_quantile: float
    ruin_max_drawdown_frac: float
    ruin_ruin_equity: float
    ruin_max_ruin_frac: float

    @classmethod
    def shipped(cls) -> Thresholds:
        """The thresholds of the package."""
        return cls(**_flat(_shipped_tables()))


def load_thresholds(path: Path | str | None = None) -> Thresholds:
    """The shipped thresholds, with those of a TOML file in their place.

    Parameters
    ----------
    path : path, optional
        Tables and keys as in the shipped ``thresholds.toml``; any subset.

    Returns
    -------
    Thresholds

    Point in time
    -------------
    Choose thresholds before looking at results: changing them afterwards is another trial.

    Raises
    ------
    DataError
        If the file cannot be read, a key is unknown, or a value has another type or lies outside its range.
    """
    values = _flat(_shipped_tables())
    if path is None:
        return Thresholds(**values)
    try:
        given = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(
            f"thresholds cannot be read from {path}: {error}. Start from a copy of the shipped file."
        ) from error
    for name, value in _flat(given).items():
        values[name] = _checked(name, value, values, path)
    return Thresholds(**values)


def _shipped_tables() -> dict[str, Any]:
    return tomllib.loads(resources.files("qml_plugin.vrd").joinpath("thresholds.toml").read_text(encoding="utf-8"))


def _flat(tables: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for table, keys in tables.items():
        if not isinstance(keys, Mapping):
            raise DataError(f"{table} stands outside of a table. Thresholds are keys of tables such as [timing].")
        flat |= {f"{table}_{key}": value for key, value in keys.items()}
    return flat


def _checked(name: str, value: Any, known: Mapping[str, Any], path: Path | str) -> Any:
    shown = name.replace("_", ".", 1)
    if name not in known:
        near = get_close_matches(name, [field.name for field in fields(Thresholds)], n=1)
        hint = f" Did you mean {near[0].replace('_', '.', 1)}?" if near else ""
        raise DataError(f"threshold {shown} in {path} is unknown.{hint} A key that nobody reads would protect nobody.")
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or (isinstance(known[name], int) and not isinstance(value, int)):
        kind = "a whole number" if isinstance(known[name], int) else "a number"
        raise DataError(f"threshold {shown} in {path} is {value!r}. It must be {kind}.")
    is_share = name.rsplit("_", 1)[1] in _SHARES
    if not (0 < value < 1 if is_share else -1e9 < value < 1e9) or (isinstance(known[name], int) and value < 1):
        raise DataError(f"threshold {shown} in {path} is {value!r}, which is outside its range.")
    return type(known[name])(value)
