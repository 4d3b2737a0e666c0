"""Slow and obvious twins: each value of a feature at bar t, written from its definition with whole slices."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np

from qml_plugin.bars import Bars

Twin = Callable[["Past"], float]


class Past:
    """The bars up to the one asked about, and nothing else."""

    def __init__(self, bars: Bars, t: int) -> None:
        self.o, self.h, self.l, self.c, self.v = (
            getattr(bars, name)[: t + 1] for name in ("open", "high", "low", "close", "volume")
        )
        self.at = bars.opened_at[: t + 1]
        self.r = np.diff(np.log(self.c))
        before = self.c[:-1]
        self.tr = np.append(
            self.h[0] - self.l[0],
            np.max([self.h[1:] - self.l[1:], abs(self.h[1:] - before), abs(self.l[1:] - before)], axis=0),
        )

    def atrs(self, period: int = 14) -> np.ndarray:
        out = [math.nan] * (period - 1) + [float(np.mean(self.tr[:period]))]
        for tr in self.tr[period:]:
            out.append((out[-1] * (period - 1) + tr) / period)
        return np.array(out)

    @property
    def atr(self) -> float:
        return float(self.atrs()[-1])


def ema(values: np.ndarray, span: int) -> float:
    weights = (1 - 2 / (span + 1)) ** np.arange(len(values))[::-1]
    weights[1:] *= 2 / (span + 1)
    return float(weights @ values)


def wilder(values: np.ndarray, period: int) -> np.ndarray:
    out = [float(np.mean(values[:period]))]
    for value in values[period:]:
        out.append((out[-1] * (period - 1) + value) / period)
    return np.array(out)


def dmi(p: Past) -> tuple[float, float, float]:
    up, down = np.diff(p.h), -np.diff(p.l)
    tie = abs(up - down) <= 1e-9 * p.c[1:]
    plus = wilder(np.where((up > down) & (up > 0) & ~tie, up, 0), 14)
    minus = wilder(np.where((down > up) & (down > 0) & ~tie, down, 0), 14)
    tr = wilder(p.tr[1:], 14)
    dx = 100 * abs(plus - minus) / (plus + minus)
    return float(wilder(dx, 14)[-1]), float(100 * plus[-1] / tr[-1]), float(100 * minus[-1] / tr[-1])


def rank(values: np.ndarray, w: int) -> float:
    now, past = values[-1], values[-w - 1 : -1]
    ties = abs(now - past) <= 1e-9 * abs(now)
    return float(np.mean(np.where(ties, 0.5, past < now)))


def position(p: Past, w: int) -> float:
    return float((p.c[-1] - p.l[-w:].min()) / (p.h[-w:].max() - p.l[-w:].min()))


def since(values: np.ndarray) -> int:
    return int(np.argmax(values[::-1]))


def slope(p: Past, w: int) -> float:
    return float(np.polyfit(np.arange(w), np.log(p.c[-w:]), 1)[0] * w / (p.atr / p.c[-1]))


def efficiency(p: Past, w: int) -> float:
    return float(abs(p.c[-1] - p.c[-1 - w]) / abs(np.diff(p.c[-w - 1 :])).sum())


def variance_ratio(p: Past, q: int, n: int = 100) -> float:
    x = np.log(p.c[-n - 1 :])
    mu = (x[-1] - x[0]) / n
    one = np.sum((np.diff(x) - mu) ** 2) / (n - 1)
    many = np.sum((x[q:] - x[:-q] - q * mu) ** 2) / (q * (n - q + 1) * (1 - q / n))
    return float(many / one)


def entropy(p: Past) -> float:
    orders = [tuple(np.argsort(p.c[-50:][i : i + 3], kind="stable")) for i in range(48)]
    shares = np.array([orders.count(order) / 48 for order in itertools.permutations(range(3))])
    return float(-sum(s * math.log(s) for s in shares if s > 0) / math.log(6))


def yang_zhang(p: Past) -> float:
    o, h, low, c = (np.log(x[-20:]) for x in (p.o, p.h, p.l, p.c))
    k = 0.34 / (1.34 + 21 / 19)
    rs = np.mean((h - c) * (h - o) + (low - c) * (low - o))
    return math.sqrt(np.var(o - np.log(p.c[-21:-1]), ddof=1) + k * np.var(c - o, ddof=1) + (1 - k) * rs)


def streak(p: Past) -> float:
    signs = np.sign(np.diff(p.c))[::-1][:10]
    return float(signs[0] * len(list(itertools.takewhile(lambda s: s == signs[0], signs)))) if signs[0] else 0.0


def log_volume_z(p: Past) -> float:
    y = np.log1p(p.v[-20:] / p.v[-20:].mean())
    return float((y[-1] - y.mean()) / y.std())


def obv_slope(p: Past) -> float:
    return float(np.sum(np.sign(np.diff(p.c[-21:])) * p.v[-20:]) / p.v[-20:].sum())


def mfi(p: Past) -> float:
    tp = (p.h + p.l + p.c) / 3
    step, flow = np.diff(tp)[-14:], (tp * p.v)[-14:]
    tie = abs(step) <= 1e-9 * p.c[-14:]
    up, down = flow[(step > 0) & ~tie].sum(), flow[(step < 0) & ~tie].sum()
    return float(100 * up / (up + down))


def vwap_dist(p: Past) -> float:
    tp = ((p.h + p.l + p.c) / 3)[-20:]
    return float((p.c[-1] - np.average(tp, weights=p.v[-20:])) / p.atr)


def hour(p: Past) -> float:
    return float(p.at[-1] / 3.6e9 % 24)


def weekday(p: Past) -> int:
    return int(np.datetime64(int(p.at[-1]), "us").astype(object).weekday())


def macd(p: Past) -> float:
    return ema(p.c, 12) - ema(p.c, 26)


def macd_signal(p: Past) -> float:
    fast, slow = np.empty(len(p.c)), np.empty(len(p.c))
    for span, line in ((12, fast), (26, slow)):
        line[0] = p.c[0]
        for t in range(1, len(p.c)):
            line[t] = line[t - 1] * (1 - 2 / (span + 1)) + p.c[t] * 2 / (span + 1)
    return ema(fast - slow, 9)


def sma_gap(p: Past, w: int) -> float:
    return float((p.c[-1] - p.c[-w:].mean()) / p.atr)


def bands(p: Past) -> tuple[float, float, float]:
    mean, sd = p.c[-20:].mean(), p.c[-20:].std()
    return float(mean - 2 * sd), float(mean), float(mean + 2 * sd)


def cci(p: Past) -> float:
    tp = ((p.h + p.l + p.c) / 3)[-20:]
    return float((tp[-1] - tp.mean()) / (0.015 * abs(tp - tp.mean()).mean()))


def rsi(p: Past, period: int) -> float:
    change = np.diff(p.c)
    gain = loss = 0.0
    for x in change:
        gain += (max(x, 0.0) - gain) / period
        loss += (max(-x, 0.0) - loss) / period
    return 100 - 100 / (1 + gain / loss)


def tsi(p: Past) -> float:
    change = np.diff(p.c)

    def twice(x: np.ndarray) -> float:
        inner = [x[0]]
        for value in x[1:]:
            inner.append(inner[-1] * 24 / 26 + value * 2 / 26)
        return ema(np.array(inner), 13)

    return 100 * twice(change) / twice(abs(change))


def ulcer(p: Past) -> float:
    drops = [100 * (p.c[t] / p.c[t - 13 : t + 1].max() - 1) for t in range(len(p.c) - 14, len(p.c))]
    return math.sqrt(np.mean(np.square(drops)))


def chop(p: Past) -> float:
    top = np.maximum(p.h[-14:], p.c[-15:-1]).max()
    bottom = np.minimum(p.l[-14:], p.c[-15:-1]).min()
    return float(100 * np.log10(p.tr[-14:].sum() / (top - bottom)) / np.log10(14))


def autocorrelation(p: Past) -> float:
    x = p.r[-100:] - p.r[-100:].mean()
    return float(x[1:] @ x[:-1] / (x @ x))


def gap_ratio(p: Past) -> float:
    steps = np.diff(p.at)[-100:]
    return float(steps[-1] / np.median(steps))


def spread(p: Past) -> float:
    return float(p.h[-1] - p.l[-1])


TWINS: dict[str, Twin] = {
    "ctx_atr_14_pct": lambda p: 100 * p.atr / p.c[-1],
    "ctx_rsi_7": lambda p: rsi(p, 7),
    "ctx_rsi_14": lambda p: rsi(p, 14),
    "ctx_dist_sma_20_atr": lambda p: sma_gap(p, 20),
    "ctx_dist_sma_50_atr": lambda p: sma_gap(p, 50),
    "ctx_dist_sma_200_atr": lambda p: sma_gap(p, 200),
    "ctx_dist_ema_10_atr": lambda p: (p.c[-1] - ema(p.c, 10)) / p.atr,
    "ctx_dist_ema_20_atr": lambda p: (p.c[-1] - ema(p.c, 20)) / p.atr,
    "ctx_dist_ema_50_atr": lambda p: (p.c[-1] - ema(p.c, 50)) / p.atr,
    "ctx_slope_sma_50_atr": lambda p: (p.c[-50:].mean() - p.c[-55:-5].mean()) / (5 * p.atr),
    "ctx_slope_ema_20_atr": lambda p: (ema(p.c, 20) - ema(p.c[:-5], 20)) / (5 * p.atr),
    "ctx_bb_20_pctb": lambda p: (p.c[-1] - bands(p)[0]) / (bands(p)[2] - bands(p)[0]),
    "ctx_bb_20_width": lambda p: (bands(p)[2] - bands(p)[0]) / bands(p)[1],
    "ctx_macd_line_atr": lambda p: macd(p) / p.atr,
    "ctx_macd_signal_atr": lambda p: macd_signal(p) / p.atr,
    "ctx_macd_hist_atr": lambda p: (macd(p) - macd_signal(p)) / p.atr,
    "ctx_adx_14": lambda p: dmi(p)[0],
    "ctx_di_plus_14": lambda p: dmi(p)[1],
    "ctx_di_minus_14": lambda p: dmi(p)[2],
    "ctx_cci_20": cci,
    "ctx_stoch_k_14": lambda p: 100 * position(p, 14),
    "ctx_aroon_osc_25": lambda p: 4 * (since(-p.l[-26:]) - since(p.h[-26:])),
    "ctx_candle_body_frac": lambda p: (p.c[-1] - p.o[-1]) / spread(p),
    "ctx_candle_upper_frac": lambda p: (p.h[-1] - max(p.o[-1], p.c[-1])) / spread(p),
    "ctx_candle_lower_frac": lambda p: (min(p.o[-1], p.c[-1]) - p.l[-1]) / spread(p),
    "ctx_close_loc_bar": lambda p: (p.c[-1] - p.l[-1]) / spread(p),
    "ctx_range_bar": lambda p: p.tr[-1] / p.atr,
    "ctx_gap_bar": lambda p: (p.o[-1] - p.c[-2]) / p.atr,
    "temp_hour_sin": lambda p: math.sin(math.tau * hour(p) / 24),
    "temp_hour_cos": lambda p: math.cos(math.tau * hour(p) / 24),
    "temp_dow_sin": lambda p: math.sin(math.tau * weekday(p) / 7),
    "temp_dow_cos": lambda p: math.cos(math.tau * weekday(p) / 7),
    "temp_is_weekend": lambda p: weekday(p) >= 5,
    "temp_is_asia": lambda p: 0 <= hour(p) < 8,
    "temp_is_europe": lambda p: 7 <= hour(p) < 16,
    "temp_is_us": lambda p: 13 <= hour(p) < 22,
    "temp_gap_ratio": gap_ratio,
    "vol_atr_pctile_100": lambda p: rank(p.atrs() / p.c, 100),
    "vol_atr_pctile_250": lambda p: rank(p.atrs() / p.c, 250),
    "vol_atr_ratio_7_21": lambda p: p.atrs(7)[-1] / p.atrs(21)[-1],
    "vol_realized_20": lambda p: np.std(p.r[-20:], ddof=1),
    "vol_realized_50": lambda p: np.std(p.r[-50:], ddof=1),
    "vol_rv_ratio_10_50": lambda p: np.std(p.r[-10:], ddof=1) / np.std(p.r[-50:], ddof=1),
    "vol_parkinson_20": lambda p: math.sqrt(np.mean(np.log(p.h / p.l)[-20:] ** 2) / (4 * math.log(2))),
    "vol_gk_20": lambda p: math.sqrt(
        np.mean((np.log(p.h / p.l) ** 2 / 2 - (2 * math.log(2) - 1) * np.log(p.c / p.o) ** 2)[-20:])
    ),
    "vol_yz_20": yang_zhang,
    "vol_pk_rv_ratio_20": lambda p: TWINS["vol_parkinson_20"](p) / np.std(p.r[-20:], ddof=1),
    "vol_jump_share_50": lambda p: max(
        0, 1 - math.pi / 2 * 50 / 49 * np.sum(abs(p.r[-49:] * p.r[-50:-1])) / np.sum(p.r[-50:] ** 2)
    ),
    "vol_semi_down_50": lambda p: np.sum(np.minimum(p.r[-50:], 0) ** 2) / np.sum(p.r[-50:] ** 2),
    "vol_skew_100": lambda p: np.mean(((p.r[-100:] - p.r[-100:].mean()) / p.r[-100:].std()) ** 3),
    "vol_range_ratio_20": lambda p: spread(p) / np.mean((p.h - p.l)[-20:]),
    "vol_ulcer_14": ulcer,
    "mom_return_1_norm": lambda p: p.r[-1] / np.std(p.r[-100:], ddof=1),
    "mom_return_5_norm": lambda p: p.r[-5:].sum() / (np.std(p.r[-100:], ddof=1) * math.sqrt(5)),
    "mom_return_20_norm": lambda p: p.r[-20:].sum() / (np.std(p.r[-100:], ddof=1) * math.sqrt(20)),
    "mom_return_50_norm": lambda p: p.r[-50:].sum() / (np.std(p.r[-100:], ddof=1) * math.sqrt(50)),
    "mom_zscore_50": lambda p: (p.c[-1] - p.c[-50:].mean()) / p.c[-50:].std(),
    "mom_position_20": lambda p: position(p, 20),
    "mom_position_50": lambda p: position(p, 50),
    "mom_slope_20_norm": lambda p: slope(p, 20),
    "mom_slope_50_norm": lambda p: slope(p, 50),
    "mom_r2_20": lambda p: np.corrcoef(np.arange(20), np.log(p.c[-20:]))[0, 1] ** 2,
    "mom_r2_50": lambda p: np.corrcoef(np.arange(50), np.log(p.c[-50:]))[0, 1] ** 2,
    "mom_er_10": lambda p: efficiency(p, 10),
    "mom_er_20": lambda p: efficiency(p, 20),
    "mom_er_50": lambda p: efficiency(p, 50),
    "mom_tsi": tsi,
    "mom_acf1_100": autocorrelation,
    "mom_up_frac_20": lambda p: np.mean(np.diff(p.c[-21:]) > 0),
    "mom_streak": streak,
    "mom_since_high_50": lambda p: since(p.h[-50:]) / 50,
    "mom_since_low_50": lambda p: since(-p.l[-50:]) / 50,
    "vol_relative_20": lambda p: p.v[-1] / p.v[-20:].mean(),
    "vol_relative_50": lambda p: p.v[-1] / p.v[-50:].mean(),
    "vol_relative_z_20": log_volume_z,
    "vol_relative_pctile_100": lambda p: rank(p.v, 100),
    "vol_relative_trend_5_20": lambda p: p.v[-5:].mean() / p.v[-20:].mean(),
    "vol_relative_obv_slope_20": obv_slope,
    "vol_relative_cmf_20": lambda p: np.average(((2 * p.c - p.h - p.l) / (p.h - p.l))[-20:], weights=p.v[-20:]),
    "vol_relative_mfi_14": mfi,
    "vol_relative_vwap_dist_20_atr": vwap_dist,
    "regime_is_trending": lambda p: dmi(p)[0] > 25 and efficiency(p, 20) > 0.3 + 1e-9,
    "regime_is_ranging": lambda p: dmi(p)[0] < 20,
    "regime_is_volatile": lambda p: rank(p.atrs() / p.c, 250) > 0.8,
    "regime_trend_strength": lambda p: np.sign(ema(p.c, 20) - ema(p.c, 50)) * dmi(p)[0] / 100,
    "regime_vr_2_100": lambda p: variance_ratio(p, 2),
    "regime_vr_5_100": lambda p: variance_ratio(p, 5),
    "regime_perm_entropy_50": entropy,
    "regime_chop_14": chop,
}
