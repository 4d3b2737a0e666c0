from __future__ import annotations

import itertools
import math

import numpy as np

from .past import Past, Twin, efficiency, emas, since


def sd(p: Past) -> float:
    return float(np.std(p.r[-100:], ddof=1))


def position(p: Past, w: int) -> float:
    return float((p.c[-1] - p.l[-w:].min()) / (p.h[-w:].max() - p.l[-w:].min()))


def slope(p: Past, w: int) -> float:
    return float(np.polyfit(np.arange(w), np.log(p.c[-w:]), 1)[0] * w / (p.atr / p.c[-1]))


def tsi(p: Past) -> float:
    change = np.diff(p.c)
    return float(100 * emas(emas(change, 25), 13)[-1] / emas(emas(abs(change), 25), 13)[-1])


def autocorrelation(p: Past, w: int) -> float:
    x = p.r[-w:] - p.r[-w:].mean()
    return float(x[1:] @ x[:-1] / (x @ x))


def streak(p: Past) -> float:
    signs = np.sign(np.diff(p.c))[::-1][:10]
    return float(signs[0] * len(list(itertools.takewhile(lambda s: s == signs[0], signs)))) if signs[0] else 0.0


def awesome(p: Past) -> float:
    middle = (p.h + p.l) / 2
    return float((middle[-5:].mean() - middle[-34:].mean()) / p.atr)


def discreteness(p: Past) -> float:
    steps = np.sign(np.diff(p.c[-51:]))
    move = p.c[-1] - p.c[-51]
    direction = 0.0 if abs(move) <= 1e-9 * p.c[-1] else np.sign(move)
    return float(direction * (np.mean(steps < 0) - np.mean(steps > 0)))


TWINS: dict[str, Twin] = {
    **{f"mom_return_{k}_norm": lambda p, k=k: p.r[-k:].sum() / (sd(p) * math.sqrt(k)) for k in (1, 5, 10, 20, 50, 100)},
    "mom_max_20_norm": lambda p: p.r[-20:].max() / sd(p),
    "mom_min_20_norm": lambda p: p.r[-20:].min() / sd(p),
    "mom_overnight_20_norm": lambda p: np.log(p.o[-20:] / p.c[-21:-1]).sum() / (sd(p) * math.sqrt(20)),
    **{f"mom_zscore_{w}": lambda p, w=w: (p.c[-1] - p.c[-w:].mean()) / p.c[-w:].std() for w in (50, 100)},
    **{f"mom_position_{w}": lambda p, w=w: position(p, w) for w in (20, 50, 200)},
    **{f"mom_slope_{w}_norm": lambda p, w=w: slope(p, w) for w in (20, 50, 100)},
    **{f"mom_r2_{w}": lambda p, w=w: np.corrcoef(np.arange(w), np.log(p.c[-w:]))[0, 1] ** 2 for w in (20, 50)},
    **{f"mom_er_{w}": lambda p, w=w: efficiency(p, w) for w in (10, 20, 50)},
    "mom_tsi": tsi,
    "mom_ao_atr": awesome,
    **{f"mom_acf1_{w}": lambda p, w=w: autocorrelation(p, w) for w in (20, 100)},
    "mom_up_frac_20": lambda p: np.mean(np.diff(p.c[-21:]) > 0),
    "mom_streak": streak,
    "mom_since_high_50": lambda p: since(p.h[-50:]) / 50,
    "mom_since_low_50": lambda p: since(-p.l[-50:]) / 50,
    "mom_accel_10": lambda p: (p.r[-10:].sum() - p.r[-20:-10].sum()) / (sd(p) * math.sqrt(20)),
    "mom_discreteness_50": discreteness,
}
