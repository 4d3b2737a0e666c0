from __future__ import annotations

import math

import numpy as np

from .past import Past, Twin, dmi, ema, emas, since


def sma_gap(p: Past, w: int) -> float:
    return float((p.c[-1] - p.c[-w:].mean()) / p.atr)


def sma_slope(p: Past, w: int) -> float:
    return float((p.c[-w:].mean() - p.c[-w - 5 : -5].mean()) / (5 * p.atr))


def ema_gap(p: Past, w: int) -> float:
    return float((p.c[-1] - ema(p.c, w)) / p.atr)


def ema_slope(p: Past, w: int) -> float:
    return float((ema(p.c, w) - ema(p.c[:-5], w)) / (5 * p.atr))


def bands(p: Past) -> tuple[float, float, float]:
    mean, sd = p.c[-20:].mean(), p.c[-20:].std()
    return float(mean - 2 * sd), float(mean), float(mean + 2 * sd)


def macd(p: Past) -> np.ndarray:
    return emas(p.c, 12) - emas(p.c, 26)


def cci(p: Past) -> float:
    tp = ((p.h + p.l + p.c) / 3)[-20:]
    return float((tp[-1] - tp.mean()) / (0.015 * abs(tp - tp.mean()).mean()))


def rsis(p: Past, period: int) -> np.ndarray:
    out = [math.nan]
    gain = loss = 0.0
    for x in np.diff(p.c):
        gain += (max(x, 0.0) - gain) / period
        loss += (max(-x, 0.0) - loss) / period
        out.append(100 - 100 / (1 + gain / loss) if loss > 0 else 100.0)
    return np.array(out)


def stoch(p: Past, w: int) -> float:
    return float(100 * (p.c[-1] - p.l[-w:].min()) / (p.h[-w:].max() - p.l[-w:].min()))


def stoch_rsi(p: Past) -> float:
    values = rsis(p, 14)[-14:]
    return float((values[-1] - values.min()) / (values.max() - values.min()))


def ultimate(p: Past) -> float:
    pressure = p.c[1:] - np.minimum(p.l[1:], p.c[:-1])
    a7, a14, a28 = (pressure[-w:].sum() / p.tr[-w:].sum() for w in (7, 14, 28))
    return float(100 * (4 * a7 + 2 * a14 + a28) / 7)


def vortex(p: Past) -> float:
    up = abs(p.h[1:] - p.l[:-1])[-14:].sum()
    down = abs(p.l[1:] - p.h[:-1])[-14:].sum()
    return float((up - down) / p.tr[-14:].sum())


def middle(p: Past, w: int, back: int = 0) -> float:
    stop = len(p.c) - back
    return float((p.h[stop - w : stop].max() + p.l[stop - w : stop].min()) / 2)


def cloud_gap(p: Past) -> float:
    edges = sorted(((middle(p, 9, 26) + middle(p, 26, 26)) / 2, middle(p, 52, 26)))
    c = p.c[-1]
    return float((c - edges[1] if c > edges[1] else c - edges[0] if c < edges[0] else 0.0) / p.atr)


def parabolic(p: Past) -> float:
    """Wilder's rules one by one over the last 50 bars."""
    high, low, tie = p.h[-50:], p.l[-50:], 1e-9 * p.c[-1]
    is_long = high[1] + low[1] - high[0] - low[0] >= -tie
    trail, best, step = (low[0], high[0], 0.02) if is_long else (high[0], low[0], 0.02)
    for j in range(1, 50):
        trail += step * (best - trail)
        recent = slice(max(j - 2, 0), j)
        trail = min(trail, low[recent].min()) if is_long else max(trail, high[recent].max())
        if (low[j] - trail if is_long else trail - high[j]) < -tie:
            trail, is_long, step = best, not is_long, 0.02
            best = high[j] if is_long else low[j]
        elif (high[j] - best if is_long else best - low[j]) > tie:
            best, step = (high[j] if is_long else low[j]), min(step + 0.02, 0.2)
    return float((p.c[-1] - trail) / p.atr)


def kama(p: Past) -> float:
    out = p.c[10]
    for t in range(11, len(p.c)):
        path = abs(np.diff(p.c[t - 10 : t + 1])).sum()
        er = abs(p.c[t] - p.c[t - 10]) / path if path > 0 else 0.0
        out += (er * (2 / 3 - 2 / 31) + 2 / 31) ** 2 * (p.c[t] - out)
    return float((p.c[-1] - out) / p.atr)


def spread(p: Past) -> float:
    return float(p.h[-1] - p.l[-1])


def mean_place(p: Past) -> float:
    spreads = (p.h - p.l)[-5:]
    places = (p.c - p.l)[-5:][spreads > 1e-8 * p.c[-5:]] / spreads[spreads > 1e-8 * p.c[-5:]]
    return float(places.mean()) if len(places) else math.nan


TWINS: dict[str, Twin] = {
    "ctx_atr_14_pct": lambda p: 100 * p.atr / p.c[-1],
    "ctx_rsi_7": lambda p: rsis(p, 7)[-1],
    "ctx_rsi_14": lambda p: rsis(p, 14)[-1],
    **{f"ctx_dist_sma_{w}_atr": lambda p, w=w: sma_gap(p, w) for w in (20, 50, 100, 200)},
    **{f"ctx_dist_ema_{w}_atr": lambda p, w=w: ema_gap(p, w) for w in (5, 10, 20, 50, 100, 200)},
    **{f"ctx_slope_sma_{w}_atr": lambda p, w=w: sma_slope(p, w) for w in (20, 50, 200)},
    **{f"ctx_slope_ema_{w}_atr": lambda p, w=w: ema_slope(p, w) for w in (20, 50)},
    "ctx_bb_20_pctb": lambda p: (p.c[-1] - bands(p)[0]) / (bands(p)[2] - bands(p)[0]),
    "ctx_bb_20_width": lambda p: (bands(p)[2] - bands(p)[0]) / bands(p)[1],
    "ctx_macd_line_atr": lambda p: macd(p)[-1] / p.atr,
    "ctx_macd_signal_atr": lambda p: ema(macd(p), 9) / p.atr,
    "ctx_macd_hist_atr": lambda p: (macd(p)[-1] - ema(macd(p), 9)) / p.atr,
    "ctx_adx_14": lambda p: dmi(p)[0][-1],
    "ctx_di_plus_14": lambda p: dmi(p)[1],
    "ctx_di_minus_14": lambda p: dmi(p)[2],
    "ctx_cci_20": cci,
    "ctx_stoch_k_14": lambda p: stoch(p, 14),
    "ctx_stochrsi_14": stoch_rsi,
    "ctx_aroon_osc_25": lambda p: 4 * (since(-p.l[-26:]) - since(p.h[-26:])),
    "ctx_ultosc": ultimate,
    "ctx_vortex_diff_14": vortex,
    "ctx_keltner_pos_20": lambda p: (p.c[-1] - ema(p.c, 20)) / (2 * p.atrs(10)[-1]),
    "ctx_squeeze_20": lambda p: (bands(p)[2] - bands(p)[0]) / (4 * p.atrs(10)[-1]),
    "ctx_psar_dist_atr": parabolic,
    "ctx_kama_dist_10_atr": kama,
    "ctx_ichi_tk_diff_atr": lambda p: (middle(p, 9) - middle(p, 26)) / p.atr,
    "ctx_ichi_cloud_dist_atr": cloud_gap,
    "ctx_candle_body_frac": lambda p: (p.c[-1] - p.o[-1]) / spread(p),
    "ctx_candle_upper_frac": lambda p: (p.h[-1] - max(p.o[-1], p.c[-1])) / spread(p),
    "ctx_candle_lower_frac": lambda p: (min(p.o[-1], p.c[-1]) - p.l[-1]) / spread(p),
    "ctx_close_loc_bar": lambda p: (p.c[-1] - p.l[-1]) / spread(p),
    "ctx_close_loc_5": mean_place,
    "ctx_range_bar": lambda p: p.tr[-1] / p.atr,
    "ctx_gap_bar": lambda p: (p.o[-1] - p.c[-2]) / p.atr,
}
