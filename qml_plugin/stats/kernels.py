"""Compiled loops of resampling. All that is random is a function of (seed, draw, counter), so threads change nothing.

The generator is SplitMix64 (Steele, Lea & Flood 2014, Fast splittable pseudorandom number generators, fig. 16), each
draw a stream of its own that starts at a hash of seed and draw. Every kernel of the package that draws stands in this
file, because numba's cache notices changes of a kernel's own file only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from qml_plugin.compiling import kernel
from qml_plugin.records import FloatArray, IntArray


def in_threads(n_draws: int, run: Callable[[int, int], object], n_threads: int | None = None) -> None:
    """Call `run(first, last)` on consecutive slices of the draws, a thread each.

    Parameters
    ----------
    n_draws : int
    run : callable
        A kernel that fills its own slice and releases the interpreter's lock.
    n_threads : int, optional
        Without it, as many as this process may use processors.

    Point in time
    -------------
    Draws do not depend on one another.
    """
    wanted = n_threads or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else n_threads or 1
    n_slices = max(1, min(wanted, n_draws))
    if n_slices == 1:
        run(0, n_draws)
        return
    edges = np.linspace(0, n_draws, n_slices + 1).astype(np.int64)
    with ThreadPoolExecutor(n_slices) as pool:
        for done in [pool.submit(run, int(a), int(b)) for a, b in pairwise(edges)]:
            done.result()


@kernel
def _mixed(value: np.uint64) -> np.uint64:
    """The finaliser of SplitMix64."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@kernel
def _stream(seed: np.uint64, draw: int) -> np.uint64:
    """Where the numbers of one draw begin."""
    return _mixed(_mixed(seed) ^ _mixed(np.uint64(draw) + np.uint64(0x9E3779B97F4A7C15)))


@kernel
def _uniform(stream: np.uint64, counter: int) -> float:
    """Number `counter` of a stream, 0 <= value < 1, with 53 bits."""
    bits = _mixed(stream + np.uint64(counter + 1) * np.uint64(0x9E3779B97F4A7C15))
    return float(np.int64(bits >> np.uint64(11))) * (1.0 / 9007199254740992.0)


@kernel
def _length(stream: np.uint64, counter: int, log_stay: float) -> int:
    """Geometric length of a block, 1 or more; `log_stay` is log(1 - 1 / mean length), 0 for independent draws."""
    if log_stay == 0.0:
        return 1
    length = 1.0 + np.floor(np.log(1.0 - _uniform(stream, counter)) / log_stay)
    return int(min(length, 1e15))


@kernel
def resample_rows(n_obs: int, log_stay: float, seed: np.uint64, first: int, last: int, out: IntArray) -> None:
    """Rows of the stationary bootstrap, out[draw - first, step]."""
    n_steps = out.shape[1]
    for draw in range(first, last):
        stream, counter, step = _stream(seed, draw), 0, 0
        while step < n_steps:
            row = int(_uniform(stream, counter) * n_obs)
            length = min(_length(stream, counter + 1, log_stay), n_steps - step)
            counter += 2
            for _ in range(length):
                out[draw - first, step] = row
                step += 1
                row = row + 1 if row + 1 < n_obs else 0


@kernel
def resample_sums(prefix: FloatArray, log_stay: float, seed: np.uint64, first: int, last: int, out: FloatArray) -> None:
    """Column sums of resamples as long as the data, out[draw, column]; `prefix` holds n_obs + 1 running sums.

    A block costs two subtractions a column, however long it is.
    """
    n_obs, n_columns = prefix.shape[0] - 1, prefix.shape[1]
    for draw in range(first, last):
        stream, counter, step = _stream(seed, draw), 0, 0
        for column in range(n_columns):
            out[draw, column] = 0.0
        while step < n_obs:
            row = int(_uniform(stream, counter) * n_obs)
            length = min(_length(stream, counter + 1, log_stay), n_obs - step)
            counter += 2
            step += length
            end = row + length
            if end <= n_obs:
                for column in range(n_columns):
                    out[draw, column] += prefix[end, column] - prefix[row, column]
            else:
                for column in range(n_columns):
                    out[draw, column] += prefix[n_obs, column] - prefix[row, column] + prefix[end - n_obs, column]


@kernel
def equity_paths(
    returns: FloatArray,
    n_steps: int,
    log_stay: float,
    ruin_equity: float,
    checkpoints: IntArray,
    seed: np.uint64,
    first: int,
    last: int,
    drawdown: FloatArray,
    under_water: IntArray,
    ruin_step: IntArray,
    equity_at: FloatArray,
) -> None:
    """Compounds resampled returns from an equity of 1 and notes what each path went through; see `monte_carlo`."""
    n_obs = len(returns)
    for draw in range(first, last):
        stream, counter, left, row = _stream(seed, draw), 0, 0, 0
        equity, peak, worst, below, longest, ruin, noted = 1.0, 1.0, 1.0, 0, 0, 0, 0
        for step in range(1, n_steps + 1):
            if left == 0:
                row = int(_uniform(stream, counter) * n_obs)
                left = _length(stream, counter + 1, log_stay)
                counter += 2
            equity = max(equity * (1.0 + returns[row]), 0.0)
            left -= 1
            row = row + 1 if row + 1 < n_obs else 0
            if equity >= peak:
                peak = equity
                below = 0
            else:
                below += 1
                longest = max(longest, below)
                if equity < worst * peak:  # spares a division on most steps
                    worst = equity / peak
            if ruin == 0 and equity <= ruin_equity:
                ruin = step
            if noted < len(checkpoints) and step == checkpoints[noted]:
                equity_at[draw, noted] = equity
                noted += 1
        drawdown[draw] = 1.0 - worst
        under_water[draw] = longest
        ruin_step[draw] = ruin


@kernel
def _place(hold_bars: IntArray, n_flat: int, stream: np.uint64, order: IntArray, start: IntArray) -> None:
    """One random order of the holds and their first bars, by Fisher and Yates and by selection sampling."""
    n_holds, counter = len(hold_bars), 0
    for i in range(n_holds):
        order[i] = i
    for i in range(n_holds - 1, 0, -1):
        other = int(_uniform(stream, counter) * (i + 1))
        counter += 1
        order[i], order[other] = order[other], order[i]
    placed, bar = 0, 0
    for place in range(n_flat + n_holds):
        wanted = n_holds - placed
        if wanted == 0:
            break
        if _uniform(stream, counter) * (n_flat + n_holds - place) < wanted:
            start[placed] = bar
            bar += hold_bars[order[placed]]
            placed += 1
        else:
            bar += 1
        counter += 1


@kernel
def entry_placements(
    hold_bars: IntArray, n_flat: int, seed: np.uint64, first: int, last: int, order: IntArray, start: IntArray
) -> None:
    """Random places of the same holds: out order[draw, i] is the i-th hold in time and start[draw, i] its first bar.

    The order is a uniform permutation, the flat bars between, before and after the holds a uniform composition: of
    n_flat + n_holds places a uniform choice of n_holds.
    """
    for draw in range(first, last):
        _place(hold_bars, n_flat, _stream(seed, draw), order[draw], start[draw])


@kernel
def placed_moments(
    size: FloatArray,
    cost: FloatArray,
    hold_first: IntArray,
    hold_bars: IntArray,
    returns: FloatArray,
    n_flat: int,
    seed: np.uint64,
    first: int,
    last: int,
    out: FloatArray,
) -> None:
    """Sum and sum of squares of size * return - cost over the holds placed at random, out[draw, 0..1]."""
    n_holds = len(hold_bars)
    order, start = np.empty(n_holds, dtype=np.int64), np.empty(n_holds, dtype=np.int64)
    for draw in range(first, last):
        _place(hold_bars, n_flat, _stream(seed, draw), order, start)
        total, squares = 0.0, 0.0
        for i in range(n_holds):
            hold = order[i]
            for step in range(hold_bars[hold]):
                own = hold_first[hold] + step
                value = size[own] * returns[start[i] + step] - cost[own]
                total += value
                squares += value * value
        out[draw, 0] = total
        out[draw, 1] = squares


@kernel
def shuffled(n: int, block: int, stream: np.uint64, counter: int, out: IntArray) -> int:
    """A random order of n rows in blocks that begin at a random row; returns the counter of the next random number."""
    offset = 1 + int(_uniform(stream, counter) * block)
    counter += 1
    n_blocks = 1 + (n - offset + block - 1) // block
    order = np.arange(n_blocks)
    for i in range(n_blocks - 1, 0, -1):
        other = int(_uniform(stream, counter) * (i + 1))
        counter += 1
        order[i], order[other] = order[other], order[i]
    at = 0
    for i in range(n_blocks):
        low = 0 if order[i] == 0 else offset + (order[i] - 1) * block
        high = min(offset + order[i] * block, n)
        for row in range(low, high):
            out[at] = row
            at += 1
    return counter


@kernel
def permute_bars(
    gap: FloatArray, within: FloatArray, n_warmup: int, block: int, seed: np.uint64, draw: int, out: FloatArray
) -> None:
    """Fill the bars behind the warm-up of out[market, bar, column]; see `PermutedBars`.

    `gap` holds open / last close, [market, row]; `within` high, low and close over open, then the further columns as they
    are, [market, row, column].
    """
    n = gap.shape[1]
    stream, gaps, inner = _stream(seed, draw), np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    counter = shuffled(n, block, stream, 0, inner)
    if block > 1:
        gaps[:] = inner
    else:
        shuffled(n, block, stream, counter, gaps)
    for market in range(gap.shape[0]):
        close = out[market, n_warmup - 1, 3]
        for row in range(n):
            bar, source = n_warmup + row, inner[row]
            open_ = close * gap[market, gaps[row]]
            close = open_ * within[market, source, 2]
            out[market, bar, 0] = open_
            out[market, bar, 1] = open_ * within[market, source, 0]
            out[market, bar, 2] = open_ * within[market, source, 1]
            out[market, bar, 3] = close
            for column in range(3, within.shape[2]):
                out[market, bar, column + 1] = within[market, source, column]


def log_stay(block_length: float) -> float:
    """Log of the chance that a block goes on by one more; 0 stands for independent draws.

    Parameters
    ----------
    block_length : float, >= 1
        Mean length of a block.

    Returns
    -------
    float, <= 0

    Point in time
    -------------
    Reads no data.
    """
    return float(np.log1p(-1.0 / block_length)) if block_length > 1 else 0.0


def as_seed(seed: int) -> np.uint64:
    """Any integer as the 64 bits that the kernels take.

    Parameters
    ----------
    seed : int

    Returns
    -------
    uint64

    Point in time
    -------------
    Reads no data.
    """
    return np.uint64(int(seed) & 0xFFFFFFFFFFFFFFFF)


def resampled_rows(
    n_obs: int, n_steps: int, block_length: float, n_draws: int, seed: int, *, first_draw: int = 0
) -> NDArray[np.int64]:
    """Rows of resamples of the stationary bootstrap: those that all kernels here draw.

    Parameters
    ----------
    n_obs, n_steps : int
        Rows to draw from, and to draw.
    block_length : float, >= 1
        Mean length of a block.
    n_draws, seed : int
    first_draw : int, default=0
        Number of the first resample.

    Returns
    -------
    ndarray of shape (n_draws, n_steps), int64

    Point in time
    -------------
    Reads no data.

    References
    ----------
    Politis & Romano (1994), The stationary bootstrap, JASA 89(428), §2.
    """
    out = np.empty((n_draws, n_steps), dtype=np.int64)
    resample_rows(n_obs, log_stay(block_length), as_seed(seed), first_draw, first_draw + n_draws, out)
    return out


def resampled_means(
    centred: FloatArray, n_draws: int, block_length: float, seed: int, n_threads: int | None
) -> FloatArray:
    """Column means of resamples of the stationary bootstrap.

    Parameters
    ----------
    centred : ndarray of shape (n_obs, n_columns)
        Of mean 0, so that running sums lose nothing to rounding. The columns are resampled together.
    n_draws : int
    block_length : float, >= 1
        Mean length of a block.
    seed : int
    n_threads : int, optional
        All processors by default. Results are the same bits for any number.

    Returns
    -------
    ndarray of shape (n_draws, n_columns)

    Point in time
    -------------
    Reads all rows given.
    """
    prefix = np.zeros((len(centred) + 1, centred.shape[1]))
    np.cumsum(centred, axis=0, out=prefix[1:])
    sums = np.empty((n_draws, centred.shape[1]))

    def run(low: int, high: int) -> None:
        resample_sums(prefix, log_stay(block_length), as_seed(seed), low, high, sums)

    in_threads(n_draws, run, n_threads)
    return sums / len(centred)
