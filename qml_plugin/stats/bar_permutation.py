"""Markets that could have been: bars whose moves are those of the real ones in another order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from qml_plugin.errors import DataError
from qml_plugin.records import FloatArray
from qml_plugin.stats.kernels import as_seed, permute_bars
from qml_plugin.stats.nulls import NullResult, check_alpha, exceeding, insufficient, judged

_NULL = "the moves of the market come in random order: whatever the strategy and its search found, is luck"


@dataclass(frozen=True, slots=True, eq=False)
class PermutedBars:
    """Bars of markets like one, numbered by draw: the same seed and draw give the same bars, in any process.

    Make it with `PermutedBars.of`; ``permuted[draw]`` returns an array of the shape of the bars. ``gap`` holds each open
    over the close before it, ``within`` the other prices over the open: what is permuted.
    """

    bars: FloatArray
    gap: FloatArray
    within: FloatArray
    n_warmup: int
    block_bars: int
    seed: int

    @classmethod
    def of(cls, bars: ArrayLike, *, n_warmup: int = 1, block_bars: int = 1, seed: int) -> PermutedBars:
        """Prepare the bars of one market, or of several that are permuted alike.

        Parameters
        ----------
        bars : array of shape (n_bars, n_columns) or (n_markets, n_bars, n_columns), price units
            Open, high, low, close, then any further columns, such as volume, which travel with the bar's own moves.
        n_warmup : int, >= 1, default=1
            Leading bars that stay as they are: those that the strategy needs before its first decision. The last of them
            is where the permuted market sets out.
        block_bars : int, >= 1, default=1
            Bars that stay together. With 1, gaps between bars and moves within bars are permuted independently of each
            other; more keep gap and bar together, and the clustering of volatility up to this length. But a block also
            keeps an edge that lives within it, which the test then cannot see: choose fewer bars than the strategy looks
            back on. Single bars are the default because they held their size under clustered volatility.
        seed : int

        Returns
        -------
        PermutedBars

        Point in time
        -------------
        Made for judging a finished search; permuted bars hold moves of the whole series on purpose.

        Raises
        ------
        DataError
            If the shape is another, a price is not positive and finite, or there are not two blocks to exchange.

        References
        ----------
        Masters (2018), Testing and tuning market trading systems, ch. 7 (permuting bars): the gap from the last close
        to the open; high, low and close relative to the open. Differs in: ratios of prices in place of differences of
        logarithms, blocks, and further columns.
        """
        array = np.array(bars, dtype=np.float64, order="C")
        if array.ndim not in (2, 3) or array.shape[-1] < 4:
            raise DataError(
                f"bars have shape {array.shape}. Pass (n_bars, n_columns) or (n_markets, n_bars, n_columns), the first "
                "four columns open, high, low, close."
            )
        px = array[..., :4]
        bad = np.argwhere(~((px > 0) & np.isfinite(px)))
        if len(bad):
            raise DataError(
                f"the price at {tuple(int(i) for i in bad[0])} is {px[tuple(bad[0])]}. Prices must be positive and "
                "finite: their ratios are permuted."
            )
        n_bars = array.shape[-2]
        if n_warmup < 1 or block_bars < 1 or n_bars - n_warmup < 2 * block_bars:
            raise DataError(
                f"{n_bars} bars with n_warmup {n_warmup} and block_bars {block_bars} refused. Both are at least 1, and "
                "two blocks must fit behind the warm-up."
            )
        markets = array.reshape(-1, n_bars, array.shape[-1])
        open_ = markets[:, n_warmup:, 0]
        within = markets[:, n_warmup:, 1:].copy()
        within[..., :3] /= open_[..., None]
        return cls(array, open_ / markets[:, n_warmup - 1 : -1, 3], within, n_warmup, block_bars, seed)

    def __getitem__(self, draw: int) -> FloatArray:
        out = self.bars.copy()
        view = out.reshape(-1, *out.shape[-2:])
        permute_bars(self.gap, self.within, self.n_warmup, self.block_bars, as_seed(self.seed), draw, view)
        return out


def bar_permutation_test(
    permuted: PermutedBars,
    statistic: Callable[[FloatArray], float],
    *,
    n_draws: int = 999,
    alpha: float = 0.05,
    stop_after: int | None = 10,
    map_draws: Callable[[Callable[[int], float], Iterable[int]], Iterable[float]] = map,
) -> NullResult:
    """Best result of a whole search against those of the same search on permuted bars.

    Null hypothesis: the moves of the market come in random order, drift and size of the moves being what they were. With
    ``block_bars`` above 1 the order within a block is the market's own. The only null that charges for the search, if
    `statistic` does all of it.

    Parameters
    ----------
    permuted : PermutedBars
    statistic : callable
        Bars in the shape of ``permuted.bars`` to one number, higher is better: the result per bar, such as the Sharpe
        ratio with costs, of the best parameters *found on these very bars*. Use a number for "no trade" too, such as 0;
        NaN of a permuted market counts against the strategy.
    n_draws : int, default=999
        Most permutations to try.
    alpha : float, 0..1, default=0.05
    stop_after : int, optional, default=10
        Stop when so many permuted markets have done as well: the answer is then clear. None draws all.
    map_draws : callable, default=map
        Calls a function on the numbers of the draws and yields results in order; for parallel runs. The function
        pickles where `statistic` does.

    Returns
    -------
    NullResult
        INSUFFICIENT if n_draws cannot reach alpha or the observed statistic is NaN.

    Point in time
    -------------
    Judges a finished search. Warm-up bars are never permuted.

    Raises
    ------
    DataError
        If alpha or a count is impossible. What `statistic` raises is not caught.

    Notes
    -----
    It lies where the strategy feeds on what permuting destroys but no trader can earn from. Size and power with and
    without blocks are measured by ``python -m experiments.null_sizes``.

    References
    ----------
    Masters (2018), Testing and tuning market trading systems, ch. 7. Besag & Clifford (1991), Sequential Monte Carlo
    p-values, Biometrika 78(2): stopping early keeps the p-value valid.
    """
    check_alpha(alpha)
    if n_draws < 1 or (stop_after is not None and stop_after < 1):
        raise DataError(f"n_draws {n_draws} and stop_after {stop_after} refused. Both are at least 1.")
    name = "bar permutation" if permuted.block_bars == 1 else f"bar permutation in blocks of {permuted.block_bars}"
    observed = float(statistic(permuted.bars.copy()))
    if np.isnan(observed):
        return insufficient(name, _NULL, alpha, "the statistic of the real bars is NaN.", permuted.seed)
    draws: list[float] = []
    n_exceeding = 0
    for value in map_draws(_OfDraw(permuted, statistic), range(n_draws)):
        draws.append(float(value))
        n_exceeding += exceeding(draws[-1:], observed)
        if stop_after is not None and n_exceeding >= stop_after:
            break
    return judged(name, _NULL, observed, np.array(draws), alpha=alpha, seed=permuted.seed, stop_after=stop_after)


@dataclass(frozen=True, slots=True)
class _OfDraw:
    """The statistic of one permuted market; pickles."""

    permuted: PermutedBars
    statistic: Callable[[FloatArray], float]

    def __call__(self, draw: int) -> float:
        return float(self.statistic(self.permuted[draw]))
