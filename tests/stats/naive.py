"""Slow and obvious versions of the nulls, the resampling and the overfitting."""

from itertools import combinations

import numpy as np
from scipy.stats import rankdata


def sharpe(values):
    return 0.0 if np.ptp(values) == 0 else values.mean() / values.std()


def shifted_sharpes(position, returns, costs):
    """Positions rolled by each number of bars, one by one."""
    return np.array([sharpe(np.roll(position, s) * returns - np.roll(costs, s)) for s in range(len(position))])


def slow_holds(exposure):
    """First bar and the bar after the last of each run on one side, bar by bar."""
    found, first = [], None
    for t in range(len(exposure) + 1):
        side = np.sign(exposure[t]) if t < len(exposure) else 0
        if first is not None and side != np.sign(exposure[first]):
            found.append((first, t))
            first = None
        if first is None and side != 0:
            first = t
    return found


def placed_sharpe(holds, order, start, returns):
    """`holds` are (sizes, costs); the rest of the bars is flat."""
    earned = np.zeros(len(returns))
    for hold, first in zip(order, start, strict=True):
        sizes, costs = holds[hold]
        bars = slice(first, first + len(sizes))
        earned[bars] = sizes * returns[bars] - costs
    return sharpe(earned)


def rebuilt_bars(bars, gaps, inner, n_warmup):
    """Masters' permutation in logarithms, bar by bar; `gaps` and `inner` are orders of the rows behind the warm-up."""
    out, log_px = bars.copy(), np.log(bars[:, :4])
    last = log_px[n_warmup - 1, 3]
    for row in range(len(bars) - n_warmup):
        gap_of, inner_of = n_warmup + gaps[row], n_warmup + inner[row]
        open_ = last + log_px[gap_of, 0] - log_px[gap_of - 1, 3]
        within = log_px[inner_of, 1:] - log_px[inner_of, 0]
        out[n_warmup + row, 0] = np.exp(open_)
        out[n_warmup + row, 1:4] = np.exp(open_ + within)
        out[n_warmup + row, 4:] = bars[inner_of, 4:]
        last = open_ + within[2]
    return out


def path(returns, ruin_equity):
    """Deepest drawdown, longest stretch under water, step of ruin and final equity of one path from 1."""
    equity, peak, deepest, below, longest, ruin = 1.0, 1.0, 0.0, 0, 0, 0
    for step, value in enumerate(returns, start=1):
        equity = max(equity * (1 + value), 0.0)
        peak = max(peak, equity)
        deepest = max(deepest, 1 - equity / peak)
        below = 0 if equity >= peak else below + 1
        longest = max(longest, below)
        if not ruin and equity <= ruin_equity:
            ruin = step
    return deepest, longest, ruin, equity


def pbo_logits(matrix, n_splits):
    """Each way to halve the blocks by itself, from the returns."""
    blocks = np.array_split(np.arange(len(matrix)), n_splits)

    def sharpes(rows):
        return np.array([0.0 if np.ptp(c) == 0 else c.mean() / c.std(ddof=1) for c in matrix[rows].T])

    logits = []
    for chosen in combinations(range(n_splits), n_splits // 2):
        inside = np.concatenate([blocks[i] for i in chosen])
        outside = np.setdiff1d(np.arange(len(matrix)), inside)
        place = rankdata(sharpes(outside))[np.argmax(sharpes(inside))] / (matrix.shape[1] + 1)
        logits.append(np.log(place / (1 - place)))
    return np.array(logits)
