from __future__ import annotations

import math

import numpy as np

from .past import Past, Twin, rank


def yang_zhang(p: Past, w: int) -> float:
    o, h, low, c = (np.log(x[-w:]) for x in (p.o, p.h, p.l, p.c))
    k = 0.34 / (1.34 + (w + 1) / (w - 1))
    rs = np.mean((h - c) * (h - o) + (low - c) * (low - o))
    return math.sqrt(np.var(o - np.log(p.c[-w - 1 : -1]), ddof=1) + k * np.var(c - o, ddof=1) + (1 - k) * rs)


def rogers_satchell(p: Past) -> float:
    o, h, low, c = (np.log(x[-20:]) for x in (p.o, p.h, p.l, p.c))
    return math.sqrt(np.mean((h - c) * (h - o) + (low - c) * (low - o)))


def parkinson(p: Past, w: int) -> float:
    return math.sqrt(np.mean(np.log(p.h / p.l)[-w:] ** 2) / (4 * math.log(2)))


def jump_share(p: Past, w: int) -> float:
    r = p.r[-w:]
    return float(max(0, 1 - math.pi / 2 * w / (w - 1) * np.sum(abs(r[1:] * r[:-1])) / np.sum(r**2)))


def ulcer(p: Past) -> float:
    drops = [100 * (p.c[t] / p.c[t - 13 : t + 1].max() - 1) for t in range(len(p.c) - 14, len(p.c))]
    return math.sqrt(np.mean(np.square(drops)))


def moment(p: Past, w: int, power: int) -> float:
    r = p.r[-w:]
    return float(np.mean(((r - r.mean()) / r.std()) ** power))


def ewma_sd(p: Past) -> float:
    variance = p.r[0] ** 2
    for r in p.r[1:]:
        variance = 0.94 * variance + 0.06 * r**2
    return math.sqrt(variance)


def autocorrelation(x: np.ndarray) -> float:
    x = x - x.mean()
    return float(x[1:] @ x[:-1] / (x @ x))


def corwin_schultz(p: Past) -> float:
    out = []
    for t in range(len(p.c) - 20, len(p.c)):
        h, low, before = p.h[t], p.l[t], p.c[t - 1]
        if low > before:
            h, low = h - (low - before), before
        elif h < before:
            h, low = before, low + (before - h)
        beta = math.log(p.h[t - 1] / p.l[t - 1]) ** 2 + math.log(h / low) ** 2
        gamma = math.log(max(h, p.h[t - 1]) / min(low, p.l[t - 1])) ** 2
        k = 3 - 2 * math.sqrt(2)
        alpha = (math.sqrt(2 * beta) - math.sqrt(beta)) / k - math.sqrt(gamma / k)
        out.append(max(0.0, 2 * (math.exp(alpha) - 1) / (1 + math.exp(alpha))))
    return float(np.mean(out))


def roll_spread(p: Past) -> float:
    r = p.r[-50:]
    return 2 * math.sqrt(max(0.0, -np.cov(r[1:], r[:-1], ddof=0)[0, 1]))


def largest_fall(p: Past) -> float:
    c = p.c[-50:]
    return max(c[i] - c[j] for i in range(50) for j in range(i, 50)) / p.atr


def widths(p: Past) -> np.ndarray:
    return np.array([4 * p.c[t - 20 : t].std() / p.c[t - 20 : t].mean() for t in range(len(p.c) - 100, len(p.c) + 1)])


def range_rank(p: Past) -> float:
    ranges = (p.h - p.l)[-7:]
    ties = abs(ranges[:-1] - ranges[-1]) <= 1e-9 * p.c[-1]
    return float(np.mean(np.where(ties, 0.5, ranges[:-1] < ranges[-1])))


TWINS: dict[str, Twin] = {
    **{f"vol_atr_pctile_{w}": lambda p, w=w: rank(p.atrs() / p.c, w) for w in (100, 250, 500)},
    "vol_atr_ratio_7_21": lambda p: p.atrs(7)[-1] / p.atrs(21)[-1],
    "vol_atr_ratio_14_50": lambda p: p.atr / p.atrs(50)[-1],
    **{f"vol_realized_{w}": lambda p, w=w: np.std(p.r[-w:], ddof=1) for w in (10, 20, 50)},
    "vol_rv_ratio_10_50": lambda p: np.std(p.r[-10:], ddof=1) / np.std(p.r[-50:], ddof=1),
    "vol_rv_ratio_20_100": lambda p: np.std(p.r[-20:], ddof=1) / np.std(p.r[-100:], ddof=1),
    **{f"vol_parkinson_{w}": lambda p, w=w: parkinson(p, w) for w in (20, 50)},
    "vol_gk_20": lambda p: math.sqrt(
        np.mean((np.log(p.h / p.l) ** 2 / 2 - (2 * math.log(2) - 1) * np.log(p.c / p.o) ** 2)[-20:])
    ),
    "vol_rs_20": rogers_satchell,
    **{f"vol_yz_{w}": lambda p, w=w: yang_zhang(p, w) for w in (20, 50)},
    "vol_pk_rv_ratio_20": lambda p: parkinson(p, 20) / np.std(p.r[-20:], ddof=1),
    **{f"vol_jump_share_{w}": lambda p, w=w: jump_share(p, w) for w in (20, 50)},
    **{
        f"vol_semi_down_{w}": lambda p, w=w: np.sum(np.minimum(p.r[-w:], 0) ** 2) / np.sum(p.r[-w:] ** 2)
        for w in (20, 50)
    },
    "vol_of_vol_50": lambda p: np.std(np.diff(np.log(p.atrs()[-51:])), ddof=1),
    **{f"vol_skew_{w}": lambda p, w=w: moment(p, w, 3) for w in (50, 100)},
    **{f"vol_kurt_{w}": lambda p, w=w: moment(p, w, 4) - 3 for w in (50, 100)},
    "vol_ewma94_ratio": lambda p: ewma_sd(p) / np.std(p.r[-100:], ddof=1),
    "vol_abs_acf1_100": lambda p: autocorrelation(abs(p.r[-100:])),
    "vol_leverage_100": lambda p: np.corrcoef(abs(p.r[-99:]), p.r[-100:-1])[0, 1],
    "vol_range_ratio_20": lambda p: (p.h[-1] - p.l[-1]) / np.mean((p.h - p.l)[-20:]),
    "vol_nr_rank_7": range_rank,
    "vol_maxdd_50": largest_fall,
    "vol_ulcer_14": ulcer,
    "vol_spread_cs_20": corwin_schultz,
    "vol_spread_roll_50": roll_spread,
    "vol_bbw_pctile_100": lambda p: rank(widths(p), 100),
}
