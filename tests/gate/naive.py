"""Slow, obvious twins of the gate's running accounts."""

import itertools
import math

import numpy as np


def uncovered(rows, i):
    """Share of the interval of row i that no earlier row of its group covers, from segment to segment."""
    begin, end, group = rows[i]
    others = [(b, e) for b, e, g in rows[:i] if g == group]
    if begin == end:
        return float(not any(b <= begin <= e for b, e in others))
    edges = sorted({begin, end, *(x for pair in others for x in pair if begin < x < end)})
    free = sum(hi - lo for lo, hi in itertools.pairwise(edges) if not any(b <= lo and hi <= e for b, e in others))
    return free / (end - begin)


def account(scored, requirements):
    """(is_active, reason code, effective labels, evidence) of rows (confidence, reference, is_win, begin, end, group)."""
    gains, weights, promised, briers = [], [], [], []
    is_active = was_active = False
    best = lowest = 0.0
    for i, (confidence, reference, is_win, *_) in enumerate(scored):
        p, q = (c if is_win else 1 - c for c in (confidence, reference))
        gains.append(math.log(p) - math.log(q))
        weights.append(uncovered([row[3:] for row in scored], i))
        promised.append(sum(a * math.log(a / b) for a, b in ((confidence, reference), (1 - confidence, 1 - reference))))
        briers.append((1 - q) ** 2 - (1 - p) ** 2)
        full, weighted = sum(gains), float(np.dot(gains, weights))
        if is_active:
            best = max(best, full)
            if best - full >= max(2.0, 1 + 75 * np.mean(promised[-75:])):
                is_active, lowest = False, weighted
            continue
        lowest = min(lowest, weighted)
        wins = sum(row[2] for row in scored[: i + 1])
        is_active = weighted - lowest >= 2.0 if was_active else bool(
            sum(weights) >= requirements.min_labels
            and min(wins, i + 1 - wins) >= requirements.min_per_class
            and weighted >= -math.log(requirements.level)
            and np.dot(briers, weights) > 0
        )  # fmt: skip
        if is_active:
            was_active, best = True, full
    wins = sum(row[2] for row in scored)
    code = (
        "active" if is_active
        else "few_labels" if sum(weights) < requirements.min_labels
        else "one_class" if min(wins, len(scored) - wins) < requirements.min_per_class
        else "no_skill"
    )  # fmt: skip
    return is_active, code, sum(weights), float(np.dot(gains, weights))


def threshold(scored, r_multiple, is_win):
    """The best of all past confidences as a threshold, tried one by one; scored are (confidence, R, is_win, weight)."""
    gain = np.mean([r for r, win in zip(r_multiple, is_win, strict=True) if win])
    cost = -np.mean([r for r, win in zip(r_multiple, is_win, strict=True) if not win])
    worth = worth_of(scored)
    best, at = 0.0, cost / (gain + cost)
    for candidate in sorted({row[0] for row in scored}):
        earned = sum(w for w, row in zip(worth, scored, strict=True) if row[0] >= candidate)
        if earned > best + 1e-12:
            best, at = earned, candidate
    return at


def worth_of(scored):
    """Half what each entry brought and half what its confidence promised, times its weight."""
    wins = [row[1] for row in scored if row[2]]
    losses = [row[1] for row in scored if not row[2]]
    if not wins or not losses:
        return [weight * r for _, r, _, weight in scored]
    return [weight * (r + c * np.mean(wins) + (1 - c) * np.mean(losses)) / 2 for c, r, _, weight in scored]
