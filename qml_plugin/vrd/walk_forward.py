"""Walk-forward: parameters searched again in each window, one equity stitched from what came after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import comb
from typing import Literal

import numpy as np

from qml_plugin.bars import Bars
from qml_plugin.errors import DataError
from qml_plugin.records import FloatArray, IntArray
from qml_plugin.stats.nulls import holds
from qml_plugin.vrd.evaluation import Evaluate, Parameters, Trials, annual_sharpe, run_trials
from qml_plugin.vrd.kernels import open_over, range_sums

Scheme = Literal["anchored", "rolling"]
_FEWEST_BARS = 20  # of a window, for a Sharpe ratio of it to mean anything at all
_MOST_SPLITS = 1_000


@dataclass(frozen=True, slots=True)
class Window:
    """One step of a walk: trained on [train_first_bar, train_end_bar), tested on [test_first_bar, test_end_bar).

    ``parameters`` were the best of the training, None where nothing was chosen; ``reason`` says why. Sharpe ratios are
    annual, of the excess over the market at the mean exposure; NaN where nothing was chosen. ``n_purged_bars`` were not
    trained on because the chosen trial's position over them was still open when the test began, or embargoed.
    """

    train_first_bar: int
    train_end_bar: int
    test_first_bar: int
    test_end_bar: int
    trial: int
    parameters: Parameters | None
    train_sharpe: float
    test_sharpe: float
    n_purged_bars: int
    is_failed: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class WalkForward:
    """The stitched result; arrays of shape (n_bars,), the bars of all test windows in order.

    ``bar`` are their positions in the series. ``returns`` hold the costs of changing parameters at the edges of windows
    too. ``sharpe`` and ``excess_sharpe`` are annual. Bars of windows that failed are left out.
    """

    scheme: str
    windows: tuple[Window, ...]
    bar: IntArray
    returns: FloatArray
    exposure: FloatArray
    costs: FloatArray
    market: FloatArray
    excess: FloatArray
    equity: FloatArray
    n_trades: int
    sharpe: float
    excess_sharpe: float
    bars_per_year: float

    @property
    def n_failed(self) -> int:
        return sum(window.is_failed for window in self.windows)


@dataclass(frozen=True, slots=True, eq=False)
class CombinatorialPaths:
    """Out-of-sample results that another order of training and testing would have given.

    ``sharpe`` of shape (n_paths,) are annual, of the excess; ``loss_frac`` the share of paths below 0; ``chosen`` of
    shape (n_splits,) the trial that was best in the training of each split, -1 where none had a position.
    """

    sharpe: FloatArray
    loss_frac: float
    chosen: IntArray
    n_blocks: int
    n_test_blocks: int
    embargo_bars: int


def _sums(trials: Trials, first: IntArray, end: IntArray, out: FloatArray | None = None) -> FloatArray:
    """Sums over [first, end), a pair for each trial, added to those given; see `range_sums`."""
    total = np.zeros((8, trials.n_trials)) if out is None else out
    range_sums(trials.returns, trials.exposure, trials.market, first, np.maximum(first, end), total)
    return total


def _open_over(trials: Trials, edge: int) -> tuple[IntArray, IntArray]:
    """First bar, and the bar after the last, of the position that each trial carries over the edge; else the edge."""
    first, end = np.empty(trials.n_trials, dtype=np.int64), np.empty(trials.n_trials, dtype=np.int64)
    open_over(trials.exposure, edge, first, end)
    return first, end


def _sharpe_of_sums(sums: FloatArray, per_year: float) -> FloatArray:
    """Annual Sharpe ratio of the excess; -inf where there was no position or too little to tell."""
    r, rr, x, rm, m, mm, held, n = sums
    n_safe = np.maximum(n, 1.0)
    beta = x / n_safe
    mean = (r - beta * m) / n_safe
    square = (rr - 2 * beta * rm + beta**2 * mm) / n_safe
    variance = (square - mean**2) * n_safe / np.maximum(n - 1, 1.0)
    is_known = (held > 0) & (n >= _FEWEST_BARS) & (variance > 1e-14 * np.maximum(square, 1e-300))
    return np.where(is_known, mean / np.sqrt(np.where(is_known, variance, 1.0)) * np.sqrt(per_year), -np.inf)


def plan_windows(n_bars: int, *, n_windows: int, first_train_frac: float, scheme: Scheme) -> list[tuple[int, int, int]]:
    """First bar of training, first and end bar of testing, for each window.

    Parameters
    ----------
    n_bars : int
    n_windows : int, >= 1
        Test windows, contiguous and of nearly equal length, from the end of the first training to the last bar.
    first_train_frac : float, 0..1
        Share of the bars that are only trained on.
    scheme : {"anchored", "rolling"}
        Whether training begins at the first bar, or keeps the length of the first training.

    Returns
    -------
    list of (int, int, int)

    Point in time
    -------------
    Training ends where testing begins.

    Raises
    ------
    DataError
        If an option lies outside its range or a window would have fewer than 20 bars.
    """
    if n_windows < 1 or not 0 < first_train_frac < 1 or scheme not in ("anchored", "rolling"):
        raise DataError(
            f"n_windows {n_windows}, first_train_frac {first_train_frac}, scheme {scheme!r} refused. There is at least one "
            "window, a share between 0 and 1 to train on, and the scheme is 'anchored' or 'rolling'."
        )
    train = int(n_bars * first_train_frac)
    edges = np.linspace(train, n_bars, n_windows + 1).round().astype(int)
    shortest = min(train, int(np.diff(edges).min()))
    if shortest < _FEWEST_BARS:
        raise DataError(
            f"{n_bars} bars cut into {n_windows} windows leave one of {shortest} bars; {_FEWEST_BARS} are needed. Bring more "
            "bars or ask for fewer windows."
        )
    return [(0 if scheme == "anchored" else int(a) - train, int(a), int(b)) for a, b in pairwise(edges)]


def walk_forward(
    trials: Trials,
    *,
    n_windows: int = 8,
    first_train_frac: float = 0.25,
    scheme: Scheme = "anchored",
    embargo_bars: int = 0,
) -> WalkForward:
    """Walk forward over trials that were evaluated once on all bars.

    Fast, and exact for a strategy whose past does not change with its future, which the audit asks. For one that fits
    itself to the bars it is given use `walk_forward_rerun`.

    Parameters
    ----------
    trials : Trials
    n_windows, first_train_frac, scheme
        As `plan_windows`.
    embargo_bars : int, >= 0, default=0
        Bars before each test that are not trained on besides.

    Returns
    -------
    WalkForward
        In each window the trial with the highest Sharpe ratio of excess in training is held. It takes over the position
        that it would have had, and pays for the change. Where no trial had a position in training, none is held.

    Point in time
    -------------
    The choice for a window reads bars before it, and of each trial none from the entry of the position on that was still
    open at the window's first bar less the embargo: the true interval of the trade.

    Raises
    ------
    DataError
        As `plan_windows`; if the embargo is negative.

    References
    ----------
    Pardo (2008), The evaluation and optimization of trading strategies, ch. 11. López de Prado (2018), Advances in
    Financial Machine Learning, §7.4 (purging, embargo).
    """
    _check_embargo(embargo_bars)
    plan = plan_windows(trials.n_bars, n_windows=n_windows, first_train_frac=first_train_frac, scheme=scheme)
    chosen = [_choose(trials, *window, embargo_bars) for window in plan]
    return _stitched(scheme, chosen, [trials] * len(plan))


def walk_forward_rerun(
    bars: Bars,
    evaluate: Evaluate,
    grid: Sequence[Parameters],
    *,
    n_windows: int = 8,
    first_train_frac: float = 0.25,
    scheme: Scheme = "anchored",
    embargo_bars: int = 0,
    on_progress: Callable[[int, int], object] | None = None,
) -> WalkForward:
    """Walk forward, every window evaluated anew on no bars later than its own end.

    Parameters
    ----------
    bars : Bars
    evaluate : callable
        As `run_trials`.
    grid : sequence of mappings
    n_windows, first_train_frac, scheme, embargo_bars
        As `walk_forward`.
    on_progress : callable, optional
        Called with (windows done, windows in all).

    Returns
    -------
    WalkForward
        A window in which every trial raised is recorded as failed with the first reason; the others are kept.

    Point in time
    -------------
    As `walk_forward`; besides, bars after a window do not exist for it. Bars *in* the window do: that the strategy does
    not look ahead there is for the audit to say.

    Raises
    ------
    DataError
        As `walk_forward`; if every window failed.
    """
    _check_embargo(embargo_bars)
    plan = plan_windows(len(bars), n_windows=n_windows, first_train_frac=first_train_frac, scheme=scheme)
    chosen: list[Window] = []
    of_windows: list[Trials | None] = []
    for done, (train_first, test_first, test_end) in enumerate(plan, 1):
        try:
            trials = run_trials(first_bars(bars, test_end), evaluate, grid)
        except DataError as error:
            chosen.append(_none(train_first, test_first, test_end, str(error), is_failed=True))
            of_windows.append(None)
        else:
            chosen.append(_choose(trials, train_first, test_first, test_end, embargo_bars))
            of_windows.append(trials)
        if on_progress is not None:
            on_progress(done, len(plan))
    return _stitched(scheme, chosen, of_windows)


def first_bars(bars: Bars, n_bars: int) -> Bars:
    """The bars before position `n_bars`, as if no later ones existed.

    Parameters
    ----------
    bars : Bars
    n_bars : int

    Returns
    -------
    Bars

    Point in time
    -------------
    Copies the past.
    """
    names = ("opened_at", "known_at", "open", "high", "low", "close", "volume")
    return Bars(bars.symbol, bars.timeframe, *(getattr(bars, name)[:n_bars].copy() for name in names))


def combinatorial_paths(
    trials: Trials, *, n_blocks: int = 8, n_test_blocks: int = 2, embargo_bars: int | None = None
) -> CombinatorialPaths:
    """Every choice of test blocks, the search repeated on the others, joined to paths through all bars.

    Parameters
    ----------
    trials : Trials
    n_blocks, n_test_blocks : int, default=8 and 2
        Contiguous blocks of nearly equal length, and how many each split tests.
    embargo_bars : int, >= 0, optional
        Bars after each test block that are not trained on; a hundredth of all bars by default.

    Returns
    -------
    CombinatorialPaths
        ``n_paths`` is ``n_splits * n_test_blocks / n_blocks``.

    Point in time
    -------------
    Trains on the future of the test blocks on purpose: it shows how results vary, and is no evidence of what was known.
    Of each trial, positions open over an edge between training and test are purged by their true interval.

    Raises
    ------
    DataError
        If the blocks would have fewer than 20 bars, or there would be more than 1,000 splits.

    References
    ----------
    López de Prado (2018), Advances in Financial Machine Learning, §12.4.
    """
    n = trials.n_bars
    embargo = n // 100 if embargo_bars is None else embargo_bars
    _check_embargo(embargo)
    if not 1 <= n_test_blocks < n_blocks or comb(n_blocks, n_test_blocks) > _MOST_SPLITS or n < n_blocks * _FEWEST_BARS:
        raise DataError(
            f"{n_test_blocks} of {n_blocks} blocks of {n} bars refused. Fewer blocks are tested than there are, each has "
            f"{_FEWEST_BARS} bars or more, and there are at most {_MOST_SPLITS} splits."
        )
    edges = np.linspace(0, n, n_blocks + 1).round().astype(np.int64)
    over = [_open_over(trials, int(edge)) for edge in edges]
    splits = list(combinations(range(n_blocks), n_test_blocks))
    chosen = np.full(len(splits), -1, dtype=np.int64)
    for i, tested in enumerate(splits):
        total = np.zeros((8, trials.n_trials))
        for block in sorted(set(range(n_blocks)) - set(tested)):
            first = np.full(trials.n_trials, edges[block])
            end = np.full(trials.n_trials, edges[block + 1])
            for test in tested:
                if test < block:
                    first = np.maximum(first, np.maximum(over[test + 1][1], edges[test + 1] + embargo))
                else:
                    end = np.minimum(end, over[test][0])
            first = np.minimum(first, edges[block + 1])
            _sums(trials, first, end, total)
        sharpe = _sharpe_of_sums(total, trials.bars_per_year)
        if np.isfinite(sharpe).any():
            chosen[i] = int(sharpe.argmax())
    by_block = [[i for i, tested in enumerate(splits) if block in tested] for block in range(n_blocks)]
    sharpes = []
    for path in np.array(by_block).T:
        returns, exposure = np.zeros(n), np.zeros(n)
        for block, split in enumerate(path):
            rows, j = slice(edges[block], edges[block + 1]), chosen[split]
            if j >= 0:
                returns[rows], exposure[rows] = trials.returns[rows, j], trials.exposure[rows, j]
        sharpes.append(float(annual_sharpe(returns - exposure.mean() * trials.market, trials.bars_per_year)))
    found = np.array(sharpes)
    return CombinatorialPaths(found, float((found < 0).mean()), chosen, n_blocks, n_test_blocks, embargo)


def _check_embargo(embargo_bars: int) -> None:
    if embargo_bars < 0:
        raise DataError(f"embargo_bars is {embargo_bars}. It counts bars, 0 or more.")


def _none(train_first: int, test_first: int, test_end: int, reason: str, *, is_failed: bool) -> Window:
    return Window(train_first, test_first, test_first, test_end, -1, None, np.nan, np.nan, 0, is_failed, reason)


def _choose(trials: Trials, train_first: int, test_first: int, test_end: int, embargo: int) -> Window:
    """The window with the trial that was best before it."""
    last = max(train_first, test_first - embargo)
    end = np.minimum(_open_over(trials, last)[0], last)
    first = np.minimum(np.full(trials.n_trials, train_first), end)
    sharpe = _sharpe_of_sums(_sums(trials, first, end), trials.bars_per_year)
    if not np.isfinite(sharpe).any():
        reason = "no trial had a position in training that had ended: nothing is held"
        return _none(train_first, test_first, test_end, reason, is_failed=False)
    j = int(sharpe.argmax())
    rows = slice(test_first, test_end)
    excess = trials.returns[rows, j] - trials.exposure[rows, j].mean() * trials.market[rows]
    return Window(
        train_first, int(end[j]), test_first, test_end, j, trials.parameters[j], float(sharpe[j]),
        float(annual_sharpe(excess, trials.bars_per_year)), test_first - int(end[j]),
    )  # fmt: skip


def _stitched(scheme: str, windows: list[Window], of_windows: Sequence[Trials | None]) -> WalkForward:
    """Test windows joined, with the costs of changing from one trial to the next."""
    known = [trials for trials in of_windows if trials is not None]
    if not known:
        raise DataError(f"every window failed, the first with: {windows[0].reason}")
    bar, returns, exposure, costs, market = [], [], [], [], []
    before = 0.0
    for window, trials in zip(windows, of_windows, strict=True):
        if trials is None:
            before = 0.0
            continue
        rows, j = slice(window.test_first_bar, window.test_end_bar), window.trial
        n = window.test_end_bar - window.test_first_bar
        held = trials.exposure[rows, j].copy() if j >= 0 else np.zeros(n)
        paid = trials.costs[rows, j].copy() if j >= 0 else np.zeros(n)
        earned = trials.returns[rows, j] + paid if j >= 0 else np.zeros(n)
        if j >= 0:
            own_before = trials.exposure[window.test_first_bar - 1, j]
            paid[0] += _cost_frac(trials, j) * (abs(held[0] - before) - abs(held[0] - own_before))
            paid[0] = max(paid[0], 0.0)
        elif before != 0:  # the position is closed with the costs of a typical trial
            paid[0] = np.median([_cost_frac(trials, k) for k in range(trials.n_trials)]) * abs(before)
        before = held[-1]
        bar.append(np.arange(window.test_first_bar, window.test_end_bar))
        returns.append(earned - paid)
        exposure.append(held)
        costs.append(paid)
        market.append(trials.market[rows])
    r, x, m = np.concatenate(returns), np.concatenate(exposure), np.concatenate(market)
    excess = r - x.mean() * m
    per_year = known[-1].bars_per_year
    return WalkForward(
        scheme, tuple(windows), np.concatenate(bar), r, x, np.concatenate(costs), m, excess, np.asarray(np.cumprod(1.0 + r), dtype=np.float64),
        len(holds(x)[0]), float(annual_sharpe(r, per_year)), float(annual_sharpe(excess, per_year)), per_year,
    )  # fmt: skip


def _cost_frac(trials: Trials, trial: int) -> float:
    """What the trial pays for each unit of exposure that changes; 0 where it never changes."""
    changed = float(np.abs(np.diff(trials.exposure[:, trial], prepend=0.0)).sum())
    return float(trials.costs[:, trial].sum()) / changed if changed > 0 else 0.0
