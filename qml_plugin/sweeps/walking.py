"""Walk-forward optimisation: search in the past, trade the next window with what was found, and stitch the windows."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qml_plugin import provenance
from qml_plugin.adapters import cells
from qml_plugin.adapters.recorded_run import Start
from qml_plugin.adapters.run_memory import returns_of
from qml_plugin.errors import DataError
from qml_plugin.processes import Process
from qml_plugin.sweeps.failures import words_of
from qml_plugin.sweeps.folder import Folder
from qml_plugin.sweeps.points import Grid, shown
from qml_plugin.sweeps.progress import Progress
from qml_plugin.sweeps.result import SweepResult
from qml_plugin.sweeps.search import (
    Asked,
    Data,
    How,
    Objective,
    facts_of,
    markets_of,
    record_end,
    resumed,
    start_of,
    swept,
)

_FEWEST_BARS = 2


@dataclass(frozen=True, slots=True)
class Fold:
    """Bars of one step: search in [train_start, train_end), trade in [test_start, test_end), see from `seen_start` on."""

    train_start: int
    train_end: int
    seen_start: int
    test_start: int
    test_end: int


@dataclass(frozen=True, slots=True, eq=False)
class WalkForwardResult:
    """What a walk-forward optimisation came to, out of sample.

    Attributes
    ----------
    run_id : str
        Of the whole in a registry: the parent of its searches and of the runs of its test windows.
    folds : DataFrame
        A row a test window: its bars and times, the parameters chosen, ``in_sample`` (the objective of that choice in its
        training window), ``out_of_sample`` (the objective of the test window alone, whatever was seen before it) and
        ``return_frac`` (of the test window), the run ids, and ``error`` where
        nothing could be chosen or the run failed, in which case nothing was traded.
    equity : Series
        Out of sample, from the first test bar on, in cash: the returns of the windows one after the other.
    trades : DataFrame
        Of all test windows, with the number of the ``fold``; bars count in the whole series.
    metrics : dict
        Of the stitched equity, named as in `SweepResult.table`.
    purge_bars : int
        Bars left out between the end of training and the test.
    searches : tuple of SweepResult
        The search of each fold.
    """

    run_id: str
    folds: pd.DataFrame
    equity: pd.Series
    trades: pd.DataFrame
    metrics: Mapping[str, float]
    purge_bars: int
    folder: Path
    searches: tuple[SweepResult, ...]

    @property
    def failed(self) -> pd.DataFrame:
        """The folds in which nothing was traded because something failed."""
        return self.folds[self.folds["error"].notna()]

    def __repr__(self) -> str:
        return f"<WalkForwardResult {self.run_id}: {len(self.folds)} folds, return {self.metrics['return_frac']:+.1%}>"


def walk_forward(
    strategy: type | str,
    data: Data | Mapping[str, Data],
    grid: Mapping[str, Any],
    *,
    train: int,
    test: int,
    purge: int | str = "auto",
    warmup: int | str = "auto",
    anchored: bool = False,
    by: str = "plateau",
    n_jobs: int | None = None,
    backend: str | None = None,
    registry: str | None = None,
    constraint: Callable[[Any], bool] | None = None,
    search: str = "grid",
    n_points: int | None = None,
    objective: Objective = "sharpe_annual",
    time_limit_s: float | None = None,
    retries: int = 1,
    seed: int = 0,
    resume: bool = False,
    folder: str | Path | None = None,
    progress: Progress | bool | None = None,
    **options: Any,
) -> WalkForwardResult:
    """Search within each training window, trade the next window with the choice, and stitch those windows.

    Parameters
    ----------
    strategy, data, grid
        As for `sweep`; a mapping may hold one symbol.
    train, test : int, bars
        Lengths of the windows; the last test window ends with the bars.
    purge : int or "auto", bars, default="auto"
        Bars left out between training and test. ``"auto"`` is the longest interval that a result in training reaches over:
        that of the mixin's label rule, and the longest trade of any point in the first training window.
    warmup : int or "auto", bars, default="auto"
        Bars before the test window that the strategy sees without trading, so that its indicators have values there;
        ``"auto"`` begins where training began.
    anchored : bool, default=False
        Whether all training windows begin with the first bar and grow.
    by : str, default="plateau"
        How the choice is made: as for `SweepResult.best`.
    n_jobs, backend, registry, constraint, search, n_points, objective, time_limit_s, retries, seed, resume, folder, progress
        As for `sweep`.
    **options
        As for `sweep`. ``finalize_trades`` is on unless given: no position is carried from one window into the next.

    Returns
    -------
    WalkForwardResult

    Point in time
    -------------
    A search is given the bars of its training window and no others, a test window those up to its end; the purge is fixed
    by the first training window. What is traded in a window depends on nothing later. All runs see one snapshot of the
    registry, and of that only what had resolved by the bar they decide at: what the searches register here teaches
    later sweeps, not this one. The `grid` itself was chosen by a person: if they had seen the test bars, no purge mends it.

    Raises
    ------
    DataError
        If the windows do not fit the bars, or whatever `sweep` refuses.
    """
    _check_windows(train, test, purge, warmup)
    if "pooled" in options:
        raise DataError("walk_forward takes one symbol, so there is nothing to pool. Leave pooled away.")
    asked = Asked.of(
        strategy, data, grid, constraint=constraint, search=search, n_points=n_points, objective=objective, seed=seed,
        registry=registry, options={"finalize_trades": True, **options},
    )  # fmt: skip
    if by not in (choices := ("plateau", "objective", *asked.metrics)):
        raise DataError(f"by {by!r} is no way to choose. Use one of {', '.join(choices)}.")
    if len(asked.frames) > 1:
        raise DataError("walk_forward takes one symbol. Call it for each: their windows lie at other times.")
    how = How.of(backend, n_jobs, time_limit_s, retries, resume, progress)
    (frame,) = asked.frames.values()
    if len(frame) < train + test:
        raise DataError(f"{len(frame)} bars are too few for train={train} and test={test}. Take shorter windows.")
    run_id = provenance.run_id(
        "walk_forward",
        "measured in the windows",
        asked.sweep_id(markets_of(asked)),
        train,
        test,
        purge,
        warmup,
        anchored,
        by,
    )
    kept = Folder(asked.folder_of(folder) / run_id)
    walk = _Walk(asked, replace(how, resume=True), kept, run_id, by)
    with closing(how.backend):
        return walk.carried_out(train, test, purge, warmup, anchored=anchored, is_resumed=resume)


def _check_windows(train: object, test: object, purge: object, warmup: object) -> None:
    for name, value, least, words in (
        ("train", train, _FEWEST_BARS, ()), ("test", test, _FEWEST_BARS, ()), ("purge", purge, 0, ("auto",)),
        ("warmup", warmup, 0, ("auto",)),
    ):  # fmt: skip
        is_count = isinstance(value, int) and not isinstance(value, bool) and value >= least
        if not is_count and value not in words:
            raise DataError(
                f"{name} is {value!r}. It is a number of bars, {least} or more{', or auto' if words else ''}."
            )


@dataclass(frozen=True, slots=True, eq=False)
class _Walk:
    asked: Asked
    how: How
    kept: Folder
    run_id: str
    by: str

    def carried_out(
        self, train: int, test: int, purge: int | str, warmup: int | str, *, anchored: bool, is_resumed: bool
    ) -> WalkForwardResult:
        """All folds in turn; the record of the whole is open meanwhile."""
        asked = self.asked
        before = resumed(self.kept, is_resumed)
        start = start_of(asked, before) if asked.sees_registry else None
        windows = {"train": train, "test": test, "purge": purge, "warmup": warmup, "anchored": anchored}
        manifest = {
            "run_id": self.run_id, "strategy": asked.strategy.__name__, "status": "running",
            "process": asdict(Process.own()), "versions": provenance.library_versions(),
            "snapshot": None if start is None else asdict(start.snapshot), **facts_of(asked, markets_of(asked)),
            "windows": {**windows, "by": self.by},
        }  # fmt: skip
        self.kept.claim(manifest)
        run = self._run(start, windows)
        try:
            if asked.registry is not None:
                asked.registry.start_run(run)
            purge_bars = purge if isinstance(purge, int) else self._longest_reach(train, start)
            folds = list(folds_of(self._n_bars, train, test, purge_bars, warmup, anchored=anchored))
            if not folds:
                raise DataError(
                    f"{self._n_bars} bars are too few for train={train}, test={test} and a purge of {purge_bars}. Take shorter "
                    "windows."
                )
            result = self._stitched(folds, [self._fold(fold, start) for fold in folds], purge_bars)
        except BaseException as error:
            status = "failed" if isinstance(error, Exception) else "interrupted"
            self.kept.note_end(manifest, status)
            record_end(asked.registry, run, status, {}, words_of(error))
            raise
        n_failed = len(result.failed)
        status = "failed" if n_failed else "finished"
        text = f"{n_failed} of {len(result.folds)} folds failed" if n_failed else None
        returns = np.zeros(self._n_bars - 1)
        returns[folds[0].test_start :] = returns_of(result.equity)
        record_end(asked.registry, replace(run, returns_frac=returns), status, result.metrics, text)
        self.kept.note_end(manifest, status)
        return result

    @property
    def _frame(self) -> pd.DataFrame:
        (frame,) = self.asked.frames.values()
        return frame

    @property
    def _n_bars(self) -> int:
        return len(self._frame)

    def _part(self, first: int, end: int) -> dict[str, pd.DataFrame]:
        return {symbol: frame.iloc[first:end] for symbol, frame in self.asked.frames.items()}

    def _search(self, first: int, end: int, start: Start | None) -> SweepResult:
        asked = replace(self.asked, frames=self._part(first, end))
        return swept(asked, self.how, self.kept.path / "sweeps", start=start, parent_run_id=self.run_id)

    def _longest_reach(self, train: int, start: Start | None) -> int:
        """The longest interval over which a result of the first training window reaches."""
        reach = cells.label_bars(self.asked.strategy, self.asked.fixed)
        table = self._search(0, train, start).table  # the search of the first fold, which is not repeated
        longest = table["longest_trade_bars"].max()
        reach = max(reach, 0 if np.isnan(longest) else int(longest))
        if reach > train // 2:
            warnings.warn(
                f"results in training reach over {reach} bars, more than half of train={train}; the purge is {train // 2}. "
                "Use a longer training window.",
                UserWarning,
                stacklevel=5,
            )
        return min(reach, train // 2)

    def _fold(self, fold: Fold, start: Start | None) -> _Done:
        """Search, choose, and trade the test window."""
        search = self._search(fold.train_start, fold.train_end, start)
        try:
            best = search.best(by=self.by)
        except DataError as error:
            return _Done(search, {}, np.nan, None, None, f"nothing chosen: {error}")
        params = search.parameters(best["run_id"])
        asked = replace(
            self.asked, frames=self._part(fold.seen_start, fold.test_end), search="grid", n_points=None,
            grid=Grid({name: [value] for name, value in params.items()}), trade_from_bar=fold.test_start - fold.seen_start,
        )  # fmt: skip
        run = swept(asked, self.how, self.kept.path / "tests", start=start, parent_run_id=self.run_id)
        row = run.table.iloc[0]
        return _Done(
            search,
            params,
            float(best["objective" if self.by == "plateau" else self.by]),
            run,
            row["run_id"],
            row["error"],
        )

    def _stitched(self, folds: list[Fold], done: list[_Done], purge_bars: int) -> WalkForwardResult:
        frame, first = self._frame, folds[0].test_start
        returns, trades, rows = np.zeros(folds[-1].test_end - first), [], []
        for number, (fold, one) in enumerate(zip(folds, done, strict=True)):
            row: dict[str, Any] = {**asdict(fold), "test_start_at": frame.index[fold.test_start]}
            row |= {"test_end_at": frame.index[fold.test_end - 1]} | dict.fromkeys(self.asked.grid.names)
            row |= {name: shown(value) for name, value in one.params.items()} | {"in_sample": one.in_sample}
            row |= {"out_of_sample": np.nan, "return_frac": 0.0, "search_run_id": one.search.run_id}
            row |= {"run_id": one.run_id, "error": one.error}
            if one.run is not None and one.error is None and one.run_id is not None:
                skip = fold.test_start - fold.seen_start
                equity = one.run.equity(one.run_id)["Equity"]
                part = returns_of(equity.iloc[skip:])
                returns[fold.test_start - first + 1 : fold.test_end - first] = part
                row |= {
                    "out_of_sample": float(one.run.table["objective"].iloc[0]),
                    "return_frac": float(np.prod(1 + part) - 1),
                }
                own = one.run.trades(one.run_id)
                trades.append(
                    own.assign(
                        EntryBar=own["EntryBar"] + fold.seen_start,
                        ExitBar=own["ExitBar"] + fold.seen_start,
                        fold=number,
                    )
                )
            rows.append(row)
        cash = float(self.asked.host.get("cash", 10_000))
        equity = pd.Series(cash * np.cumprod(1 + returns), index=frame.index[first : folds[-1].test_end], name="Equity")
        kept = [one for one in trades if len(one)]
        all_trades = pd.concat(kept, ignore_index=True) if kept else (trades[0] if trades else pd.DataFrame())
        metrics = cells.metrics_of(all_trades, equity, frame.iloc[first : folds[-1].test_end], first)
        table = pd.DataFrame(rows)
        table["error"] = pd.Series([row["error"] for row in rows], dtype=object)
        return WalkForwardResult(
            self.run_id,
            table,
            equity,
            all_trades,
            metrics,
            purge_bars,
            self.kept.path,
            tuple(one.search for one in done),
        )

    def _run(self, start: Start | None, windows: Mapping[str, object]) -> Any:
        """The record of the whole as of its start."""
        asked = self.asked
        (market,) = markets_of(asked)
        backtest = cells.host_of(asked.strategy, market, asked.host)
        point = asked.grid.point(asked.first_place())
        run = cells.begun_cell(
            asked.strategy, market, asked.host, {**asked.fixed, **point}, backtest=backtest, parent_run_id=None
        )
        searched = {"grid": provenance.plain(asked.grid.values), "search": asked.search, "by": self.by, **windows}
        return replace(
            run, run_id=self.run_id, kind="walk_forward", started_at=time.time_ns() // 1000,
            params={"walk_forward": searched, "host": run.params["host"], "data": run.params["data"]},
            git_diff=provenance.git_state(provenance.source_folder(asked.strategy)).diff,
            snapshot_seq=start.snapshot.seq if start else None,
            snapshot_patterns=start.snapshot.n_patterns if start else None,
            snapshot_sha256=start.snapshot.sha256 if start else None,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _Done:
    search: SweepResult
    params: Mapping[str, Any]
    in_sample: float
    run: SweepResult | None
    run_id: str | None
    error: str | None


def folds_of(n_bars: int, train: int, test: int, purge_bars: int, warmup: int | str, *, anchored: bool) -> list[Fold]:
    """The windows of a series, in order; test windows follow one another without a gap.

    Examples
    --------
    >>> folds_of(100, 40, 25, 10, "auto", anchored=False)[0]
    Fold(train_start=0, train_end=40, seen_start=0, test_start=50, test_end=75)
    >>> folds_of(100, 40, 25, 10, 5, anchored=True)[1]
    Fold(train_start=0, train_end=65, seen_start=70, test_start=75, test_end=100)
    """
    folds = []
    for test_start in range(train + purge_bars, n_bars - _FEWEST_BARS + 1, test):
        train_end = test_start - purge_bars
        train_start = 0 if anchored else train_end - train
        seen_start = train_start if isinstance(warmup, str) else max(0, test_start - warmup)
        folds.append(Fold(train_start, train_end, seen_start, test_start, min(test_start + test, n_bars)))
    return folds
