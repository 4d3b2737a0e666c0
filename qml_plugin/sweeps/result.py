"""What a sweep came to: a row a point, the trades and the equity of each, surfaces, and the best that lasts."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qml_plugin.errors import DataError
from qml_plugin.sweeps.folder import Folder
from qml_plugin.sweeps.points import Grid, Places, shown

_AFTER = ("objective", "status", "run_id", "error")
_HOW = ("mean", "median", "min", "max")
_LOW_QUANTILE = 0.25
# Of these nothing above 0 means that nothing was earned.
_GAINS = frozenset({
    "return_frac", "return_annual_frac", "sharpe_annual", "sortino_annual", "calmar_annual", "mean_trade_frac",
    "expectancy_frac", "sqn",
})  # fmt: skip
_N_LISTED = 40


@dataclass(frozen=True, slots=True, eq=False)
class SweepResult:
    """Every point of a sweep.

    Attributes
    ----------
    run_id : str
        Of the sweep: the parent of its points in a registry.
    table : DataFrame
        A row a point in order of the grid: ``symbol``, the parameters, the metrics, ``objective``, ``status``
        (``"finished"`` or ``"failed"``), ``run_id``, ``error``. NaN where a metric has no value. The same for any number of
        jobs, and for a sweep that was killed and resumed.
    folder : Path
        Where trades and equity are kept.
    n_feature_passes : int
        How often the features of a series of bars were computed for it.
    warned : mapping of str to int
        What the host warned of, and of how many points.
    n_kept : int
        How many points were there from before, and were not run again.
    """

    run_id: str
    table: pd.DataFrame
    folder: Path
    objective: str
    n_feature_passes: int
    warned: Mapping[str, int]
    _grid: Grid
    _places: Sequence[Places]
    _symbols: tuple[str, ...]
    n_kept: int = 0
    _closing: str = "exclusive_orders closes a position with the next signal, finalize_trades with the last bar"

    @property
    def grid_names(self) -> tuple[str, ...]:
        """The parameters of the grid."""
        return self._grid.names

    @property
    def grid(self) -> dict[str, list[Any]]:
        """The values of each parameter as the table holds them."""
        return {name: [shown(value) for value in tried] for name, tried in self._grid.values.items()}

    @property
    def failed(self) -> pd.DataFrame:
        """The points that failed, with their errors; they count as not tested."""
        return self.table[self.table["status"] == "failed"]

    @property
    def n_tested(self) -> int:
        """How many points finished."""
        return int((self.table["status"] == "finished").sum())

    def __repr__(self) -> str:
        return f"<SweepResult {self.run_id}: {self.n_tested} of {len(self.table)} points finished, in {self.folder}>"

    def trades(self, run_id: str) -> pd.DataFrame:
        """The trades of a point, as the host gives them; tags as text.

        Raises
        ------
        DataError
            If no point of the sweep that finished has this id.
        """
        return Folder(self.folder).table("trades", run_id)

    def equity(self, run_id: str) -> pd.DataFrame:
        """Equity (``Equity``, in cash) and drawdown (``DrawdownPct``, a fraction) of a point, a row a bar.

        Raises
        ------
        DataError
            If no point of the sweep that finished has this id.
        """
        return Folder(self.folder).table("equity", run_id)

    def parameters(self, run_id: str) -> dict[str, Any]:
        """The parameters of a point as `Backtest.run` takes them.

        Raises
        ------
        DataError
            If no point of the sweep has this id.
        """
        rows = np.flatnonzero(self.table["run_id"] == run_id)
        if not len(rows):
            raise DataError(f"run {run_id[:80]!r} is no point of this sweep. result.table names them.")
        return self._grid.point(self._places[int(rows[0]) % len(self._places)])

    def surface(
        self,
        row: str,
        column: str,
        *,
        metric: str = "objective",
        how: str = "mean",
        symbol: str | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> pd.DataFrame:
        """A metric over two parameters.

        Parameters
        ----------
        row, column : str
            Two parameters of the grid.
        metric : str, default="objective"
            A column of the table.
        how : {"mean", "median", "min", "max"}, default="mean"
            What stands for the points that differ in other parameters, or in their symbol. A mean hides a cliff: look at
            ``"min"`` too, or fix the others by `where`.
        symbol : str, optional
            Only this one.
        where : mapping, optional
            Values of other parameters.

        Returns
        -------
        DataFrame
            A row and a column for each value of the grid, NaN where no point finished with a value.

        Raises
        ------
        DataError
            If a parameter, a metric or a value is unknown.
        """
        for name in (row, column, *(where or {})):
            _known(name, self._grid.names, "parameter")
        if row == column:
            raise DataError(f"a surface has two parameters, and {row!r} was given twice.")
        if how not in _HOW:
            raise DataError(f"how {how!r} is unknown. Use one of {', '.join(map(repr, _HOW))}.")
        table = self._of(symbol)
        _known(metric, self._metrics, "metric")
        for name, value in (where or {}).items():
            _known(shown(value), [shown(tried) for tried in self._grid.values[name]], f"value of {name}")
            table = table[table[name] == shown(value)]
        found = table[table["status"] == "finished"].groupby([row, column])[metric].agg(how).unstack(column)
        values = {name: [shown(value) for value in self._grid.values[name]] for name in (row, column)}
        index, columns = (pd.Index(values[name], name=name) for name in (row, column))
        return found.reindex(index=index, columns=columns)

    def best(self, by: str = "plateau", *, symbol: str | None = None) -> pd.Series:
        """The point to go on with.

        Parameters
        ----------
        by : str, default="plateau"
            ``"plateau"``: where the objective is good all around. A point's score is the lower quartile of the objective
            over the point and its neighbours, which are at most one step of the grid away in each parameter whose values
            are numbers. A neighbour that failed, or has no value, counts as the worst of all; a step off the grid as the
            median of all, so that an edge wins nothing by having few neighbours. ``"objective"`` or a metric: the single
            highest value, which is biased upwards the more points there are.
        symbol : str, optional
            Only this one; otherwise the mean over all symbols counts, of points that finished on all of them.

        A point that closed no trade has no value here: what it shows is a position left open, or nothing at all.

        Returns
        -------
        Series
            The parameters, ``plateau`` or the metric, ``objective``, and the ``run_id`` where there is one symbol.

        Raises
        ------
        DataError
            If no point has a value, or, by plateau, no point has half of its neighbours tested.
        """
        table = self._of(symbol)
        metric = "objective" if by == "plateau" else by
        _known(metric, self._metrics, "metric")
        values, n_symbols = _values(table, metric)
        if not np.isfinite(values).any():
            raise DataError(self._why_none(table, self.objective if metric == "objective" else metric))
        scores = plateau_scores(self._grid, self._places, values) if by == "plateau" else values
        if not np.isfinite(scores).any():
            raise DataError(
                "no point has half of its neighbours tested, so nothing is known of plateaus. Search the grid "
                "(search='grid'), give more points, or ask for best(by='objective')."
            )
        finite = np.isfinite(scores)
        ranked = np.lexsort((-np.where(np.isfinite(values), values, -np.inf), -np.where(finite, scores, -np.inf)))
        place = int(ranked[0])
        found: dict[str, Any] = {name: shown(value) for name, value in self._grid.point(self._places[place]).items()}
        found |= {by: float(scores[place]), metric: float(values[place])}
        if n_symbols == 1:
            found["run_id"] = table["run_id"].iloc[place]
        return pd.Series(found, dtype=object)

    def points(self, *, symbol: str | None = None) -> pd.DataFrame:
        """What `best` compares.

        Parameters
        ----------
        symbol : str, optional
            Only this one; otherwise the mean over all symbols.

        Returns
        -------
        DataFrame
            A row a point in order of the grid: the parameters, ``objective`` and the score of its ``plateau``; NaN where a
            point has none, and cannot be chosen.
        """
        values, _ = _values(self._of(symbol), "objective")
        rows = [{name: shown(value) for name, value in self._grid.point(place).items()} for place in self._places]
        scores = plateau_scores(self._grid, self._places, values)
        return pd.DataFrame(rows, columns=list(self._grid.names)).assign(objective=values, plateau=scores)

    @property
    def _metrics(self) -> list[str]:
        """Columns of the table that measure a point."""
        return [str(name) for name in self.table.select_dtypes("number") if name not in self._grid.names]

    def _why_none(self, table: pd.DataFrame, metric: str) -> str:
        """Why no point can be chosen."""
        done = table[table["status"] == "finished"]
        text = f"no point has a value of {metric}: {len(done)} of {len(table)} points finished"
        if len(done) and not (done["n_trades"] > 0).any():
            text += f", and none of them closed a trade. {self._closing}"
        errors = table["error"].dropna()
        return text + (f". The first error: {errors.iloc[0]}" if len(errors) else ".")

    def _of(self, symbol: str | None) -> pd.DataFrame:
        if symbol is None:
            return self.table
        _known(symbol, self._symbols, "symbol")
        return self.table[self.table["symbol"] == symbol] if "symbol" in self.table else self.table


def is_no_gain(objective: str, value: float) -> bool:
    """Whether a value of an objective says that nothing was earned; False where 0 is no border of it."""
    return objective in _GAINS and not value > 0


def _values(table: pd.DataFrame, metric: str) -> tuple[Any, int]:
    """A metric by point, the mean over symbols, NaN where a point cannot be chosen; and the number of symbols."""
    n_symbols = table["symbol"].nunique() if "symbol" in table else 1
    is_eligible = (table["status"] == "finished") & (table["n_trades"] > 0)
    return table[metric].where(is_eligible).to_numpy(float).reshape(n_symbols, -1).mean(axis=0), n_symbols


def plateau_scores(grid: Grid, places: Sequence[Places], values: Any) -> Any:
    """Lower quartile of the values over each place and its neighbours; see `SweepResult.best`.

    Parameters
    ----------
    grid : Grid
    places : sequence of tuple, shape (n_points,)
        Places that were tested.
    values : ndarray of shape (n_points,)
        NaN where a place has none.

    Returns
    -------
    ndarray of shape (n_points,)
        NaN where a place has no value itself, or less than half of its neighbours were tested.
    """
    finite = values[np.isfinite(values)]
    worst, median = (float(finite.min()), float(np.median(finite))) if len(finite) else (np.nan, np.nan)
    tested = {place: value if np.isfinite(value) else worst for place, value in zip(places, values, strict=True)}
    scores = np.full(len(values), np.nan)
    for at, place in enumerate(places):
        if not np.isfinite(values[at]):
            continue
        near = list(grid.neighbourhood(place))
        # What the constraint forbids is off the grid.
        inside = [one for one in near if one is not None and (one in tested or grid.admits(one))]
        found = [tested[one] for one in inside if one in tested]
        if 2 * (len(found) - 1) >= len(inside) - 1:
            scores[at] = np.quantile(found + [median] * (len(near) - len(inside)), _LOW_QUANTILE)
    return scores


def point_table(
    grid: Grid, places: Sequence[Places], symbols: Sequence[str], run_ids: Sequence[str],
    records: Sequence[Mapping[str, Any] | None], metrics: Sequence[str],
) -> pd.DataFrame:  # fmt: skip
    """The table of a sweep: symbol by symbol, place by place."""
    rows = []
    for at, (run_id, record) in enumerate(zip(run_ids, records, strict=True)):
        symbol, place = symbols[at // len(places)], places[at % len(places)]
        row: dict[str, Any] = {"symbol": symbol} if len(symbols) > 1 else {}
        row |= {name: shown(value) for name, value in grid.point(place).items()}
        kept = record or {"status": "failed", "error": "it was not run"}
        found = kept.get("metrics") or {}
        row |= {name: np.nan if found.get(name) is None else float(found[name]) for name in metrics}
        value = kept.get("objective")
        row |= {"objective": np.nan if value is None else float(value), "status": kept["status"], "run_id": run_id}
        rows.append(row | {"error": kept["error"]})
    names = (["symbol"] if len(symbols) > 1 else []) + [*grid.names, *metrics, *_AFTER]
    table = pd.DataFrame(rows, columns=names)
    table["error"] = pd.Series([row["error"] for row in rows], dtype=object, index=table.index)  # None, not NaN
    return table


def _known(name: object, names: Sequence[Any], what: str) -> None:
    if name in names:
        return
    near = difflib.get_close_matches(str(name), list(map(str, names)), n=1)
    listed = ", ".join(map(str, list(names)[:_N_LISTED])) + (", …" if len(names) > _N_LISTED else "")
    raise DataError(
        f"the sweep has no {what} {name!r}: it has {listed}." + (f" Did you mean {near[0]!r}?" if near else "")
    )
