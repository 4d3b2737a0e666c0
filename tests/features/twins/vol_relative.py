from __future__ import annotations

import math

import numpy as np

from .past import Past, Twin, emas, rank


def log_score(p: Past, w: int) -> float:
    v = p.v[-w:]
    logs = np.log(v[v > 0])
    return float((math.log(v[-1]) - logs.mean()) / logs.std())


def signed_share(p: Past, w: int) -> float:
    return float(np.sum(np.sign(np.diff(p.c[-w - 1 :])) * p.v[-w:]) / p.v[-w:].sum())


def mfi(p: Past) -> float:
    tp = (p.h + p.l + p.c) / 3
    step, flow = np.diff(tp)[-14:], (tp * p.v)[-14:]
    tie = abs(step) <= 1e-9 * p.c[-1]
    up, down = flow[(step > 0) & ~tie].sum(), flow[(step < 0) & ~tie].sum()
    return float(100 * up / (up + down))


def vwap_dist(p: Past, w: int) -> float:
    tp = ((p.h + p.l + p.c) / 3)[-w:]
    return float((p.c[-1] - np.average(tp, weights=p.v[-w:])) / p.atr)


def money_flow_share(p: Past) -> float:
    spread = p.h - p.l
    share = np.where(spread > 1e-8 * p.c, ((p.c - p.l) - (p.h - p.c)) / np.where(spread > 0, spread, 1), 0)
    return float((share * p.v)[-20:].sum() / p.v[-20:].sum())


def illiquidity(p: Past) -> np.ndarray:
    with np.errstate(divide="ignore"):
        each = np.where(p.v[1:] > 0, abs(p.r) / (p.c[1:] * p.v[1:]), np.nan)
    return np.array([np.nanmean(each[t - 20 : t]) for t in range(len(each) - 100, len(each) + 1)])


def pvo(p: Past) -> np.ndarray:
    line = 100 * (emas(p.v, 12) / emas(p.v, 26) - 1)
    line[:25] = 0.0
    return line


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.corrcoef(x, y)[0, 1])


TWINS: dict[str, Twin] = {
    **{f"vol_relative_{w}": lambda p, w=w: p.v[-1] / p.v[-w:].mean() for w in (10, 20, 50)},
    **{f"vol_relative_z_{w}": lambda p, w=w: log_score(p, w) for w in (20, 100)},
    "vol_relative_pctile_100": lambda p: rank(p.v, 100),
    "vol_relative_trend_5_20": lambda p: p.v[-5:].mean() / p.v[-20:].mean(),
    "vol_relative_slope_20": lambda p: np.polyfit(np.arange(20), p.v[-20:], 1)[0] * 20 / p.v[-20:].mean(),
    **{f"vol_relative_obv_slope_{w}": lambda p, w=w: signed_share(p, w) for w in (20, 50)},
    "vol_relative_cmf_20": money_flow_share,
    "vol_relative_mfi_14": mfi,
    **{f"vol_relative_vwap_dist_{w}_atr": lambda p, w=w: vwap_dist(p, w) for w in (20, 50)},
    "vol_relative_amihud_pctile_100": lambda p: rank(illiquidity(p), 100),
    "vol_relative_pv_corr_20": lambda p: correlation(abs(p.r[-20:]), p.v[-20:]),
    "vol_relative_return_corr_20": lambda p: correlation(p.r[-20:], p.v[-20:]),
    "vol_relative_hhi_20": lambda p: (np.sum((p.v[-20:] / p.v[-20:].sum()) ** 2) - 1 / 20) / (1 - 1 / 20),
    "vol_relative_pvo_line": lambda p: pvo(p)[-1],
    "vol_relative_pvo_hist": lambda p: pvo(p)[-1] - emas(pvo(p), 9)[-1],
}
