from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd

from qml_plugin.clock import timeframe_seconds

from .past import Past, Twin, dmi, ema, emas, rank


def side(value: float, p: Past) -> float:
    return 0.0 if abs(value) <= 1e-9 * p.c[-1] else math.copysign(1.0, value)


def flags(p: Past, n: int) -> list[bool]:
    """Whether each of the last n bars trends."""
    adx = dmi(p)[0]
    paths = [efficiency_at(p, back) for back in range(n - 1, -1, -1)]
    return [a > 25 and e > 0.3 + 1e-9 for a, e in zip(adx[-n:], paths, strict=True)]


def efficiency_at(p: Past, back: int) -> float:
    c = p.c[: len(p.c) - back]
    return float(abs(c[-1] - c[-21]) / abs(np.diff(c[-21:])).sum())


def bars_in(p: Past) -> float:
    now, *before = flags(p, 251)[::-1]
    return math.log1p(len(list(itertools.takewhile(lambda flag: flag == now, before))))


def variance_ratio(p: Past, q: int, n: int = 100) -> float:
    x = np.log(p.c[-n - 1 :])
    mu = (x[-1] - x[0]) / n
    one = np.sum((np.diff(x) - mu) ** 2) / (n - 1)
    many = np.sum((x[q:] - x[:-q] - q * mu) ** 2) / (q * (n - q + 1) * (1 - q / n))
    return float(many / one)


def hurst(p: Past) -> float:
    x, lags = np.log(p.c[-128:]), [2, 4, 8, 16, 32]
    return float(np.polyfit(np.log(lags), [math.log(np.std(x[k:] - x[:-k])) for k in lags], 1)[0])


def entropy(closes: np.ndarray) -> float:
    orders = [tuple(np.argsort(closes[i : i + 3], kind="stable")) for i in range(len(closes) - 2)]
    shares = np.array([orders.count(order) / len(orders) for order in itertools.permutations(range(3))])
    return float(-sum(s * math.log(s) for s in shares if s > 0) / math.log(6))


def stack(p: Past) -> float:
    averages = [ema(p.c, w) for w in (10, 20, 50, 100, 200)]
    return sum(side(a - b, p) for a, b in itertools.combinations(averages, 2)) / 10


def chop(p: Past) -> float:
    top = np.maximum(p.h[-14:], p.c[-15:-1]).max()
    bottom = np.minimum(p.l[-14:], p.c[-15:-1]).min()
    return float(100 * np.log10(p.tr[-14:].sum() / (top - bottom)) / np.log10(14))


def higher(p: Past, k: int) -> float:
    """Close by close: the last of each group that ends no later than now."""
    length = int(k * timeframe_seconds(p.timeframe) * 1e6)
    ends = -(-p.known_at // length) * length
    closes = pd.Series(p.c).groupby(ends).last()
    done = closes[closes.index <= p.known_at[-1]].to_numpy()[-20:]
    assert len(done) == 20
    gap = done[-1] - done.mean()
    return 0.0 if abs(gap) <= 1e-9 * done[-1] else math.copysign(1.0, gap)


TWINS: dict[str, Twin] = {
    "regime_is_trending": lambda p: flags(p, 1)[0],
    "regime_is_ranging": lambda p: dmi(p)[0][-1] < 20,
    "regime_is_volatile": lambda p: rank(p.atrs() / p.c, 250) > 0.8,
    "regime_trend_strength": lambda p: side(ema(p.c, 20) - ema(p.c, 50), p) * dmi(p)[0][-1] / 100,
    "regime_adx_pctile_250": lambda p: rank(dmi(p)[0], 250),
    **{f"regime_vr_{q}_100": lambda p, q=q: variance_ratio(p, q) for q in (2, 5, 10)},
    "regime_hurst_128": hurst,
    "regime_perm_entropy_50": lambda p: entropy(p.c[-50:]),
    "regime_ma_stack": stack,
    "regime_chop_14": chop,
    "regime_bars_in_log": bars_in,
    "regime_htf_align_4": lambda p: higher(p, 4),
    "regime_htf_align_16": lambda p: higher(p, 16),
    "regime_dd_250_atr": lambda p: (p.c[-1] - p.h[-250:].max()) / p.atr,
    "regime_above_ema200_frac_50": lambda p: np.mean(((p.c - emas(p.c, 200)) > 1e-9 * p.c)[-50:]),
}
