"""The catalogue: every feature by name, with what it means, its window, its warm-up and its source.

A feature is one row here plus its values, under the same name, in the `compute` of its category's module (features
of an entry: in `entry`). Adding, renaming, reordering or redefining one changes `FEATURE_SET`.

Terms: O, H, L, C, V are the bar's prices and volume, r the log return of the close, TR the true range, ATR Wilder's
average true range over 14 bars in price units. "Flat" means that a spread is at most 1e-8 of the price, or that a
standard deviation of returns is at most 1e-8; for ATR and other smoothed moves the limit is 1e-6 of the price. What
is flat divides nothing. Sums and means run over the last w bars including the present one. Nothing depends on the
unit of prices or volumes.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Feature:
    """One column: `warmup` is the first bar with a value, `window` the bars it looks at in earnest.

    From bar `warmup` on, the bars before the window no longer matter: recursions have forgotten their seed to a
    share of about 1e-11, unless prices stand still for much of the warm-up. ``category`` is explicit, as ``vol`` begins ``vol_relative`` too.
    """

    name: str
    category: str
    window: int
    warmup: int
    definition: str
    source: str


_Row = tuple[str, int, int, str, str]


def _ema(span: int) -> int:
    """Bars after which an EMA has forgotten its seed to exp(-25)."""
    return math.ceil(12.5 * (span + 1))


def _wilder(period: int) -> int:
    """Bars after which a Wilder average has forgotten its seed to exp(-25)."""
    return 26 * period


_ATR = _wilder(14)
_ADX = 38 * 14  # two averages in a row, the second of a share that survives while the first decays on flat prices
_RANK = "share of the {w} earlier values below the present one, equals (to 1e-9) counting half"
_WILDER = "Wilder 1978"
_QM = "needs a setup of five points, else NaN; s is the side"

_CTX: tuple[_Row, ...] = (
    ("atr_14_pct", 14, _ATR, "100 * ATR / C; 0 on flat prices", _WILDER),
    ("rsi_7", 7, _wilder(7), "Wilder RSI over 7, 0..100; NaN if smoothed gain and loss are flat", _WILDER),
    ("rsi_14", 14, _ATR, "Wilder RSI over 14, 0..100; NaN if smoothed gain and loss are flat", _WILDER),
    ("dist_sma_20_atr", 20, _ATR, "(C - SMA20) / ATR; NaN if ATR is flat", ""),
    ("dist_sma_50_atr", 50, _ATR, "(C - SMA50) / ATR; NaN if ATR is flat", ""),
    ("dist_sma_200_atr", 200, _ATR, "(C - SMA200) / ATR; NaN if ATR is flat", ""),
    ("dist_ema_10_atr", 10, _ATR, "(C - EMA10) / ATR; NaN if ATR is flat", ""),
    ("dist_ema_20_atr", 20, _ATR, "(C - EMA20) / ATR; NaN if ATR is flat", ""),
    ("dist_ema_50_atr", 50, _ema(50), "(C - EMA50) / ATR; NaN if ATR is flat", ""),
    ("slope_sma_50_atr", 55, _ATR, "(SMA50 - SMA50 five bars ago) / (5 ATR); NaN if ATR is flat", ""),
    ("slope_ema_20_atr", 25, _ATR, "(EMA20 - EMA20 five bars ago) / (5 ATR); NaN if ATR is flat", ""),
    (
        "bb_20_pctb",
        20,
        19,
        "(C - lower) / (upper - lower) of SMA20 +- 2 sd (ddof 0); NaN if sd is flat",
        "Bollinger 2001",
    ),
    ("bb_20_width", 20, 19, "(upper - lower) / SMA20 of SMA20 +- 2 sd (ddof 0); 0 on flat prices", "Bollinger 2001"),
    ("macd_line_atr", 26, _ATR, "(EMA12 - EMA26) / ATR; NaN if ATR is flat", "Appel 1979"),
    ("macd_signal_atr", 35, _ema(26) + _ema(9), "EMA9 of the MACD line / ATR; NaN if ATR is flat", "Appel 1979"),
    ("macd_hist_atr", 35, _ema(26) + _ema(9), "(MACD line - its EMA9) / ATR; NaN if ATR is flat", "Appel 1979"),
    (
        "adx_14",
        28,
        _ADX,
        "Wilder ADX over 14; moves equal to 1e-9 C count for neither side; DX is 0 without directional movement; "
        "NaN if the smoothed TR is flat",
        _WILDER,
    ),
    ("di_plus_14", 14, _ATR, "Wilder +DI over 14, ties as in ctx_adx_14; NaN if the smoothed TR is flat", _WILDER),
    ("di_minus_14", 14, _ATR, "Wilder -DI over 14, ties as in ctx_adx_14; NaN if the smoothed TR is flat", _WILDER),
    (
        "cci_20",
        20,
        19,
        "(TP - SMA20(TP)) / (0.015 * mean absolute deviation), TP = (H+L+C)/3; NaN if the deviation is flat",
        "Lambert 1980",
    ),
    ("stoch_k_14", 14, 13, "100 * (C - lowest L) / (highest H - lowest L) over 14; NaN if flat", "Lane"),
    (
        "aroon_osc_25",
        26,
        25,
        "100 * (bars since lowest L - bars since highest H) / 25 over 26 bars, the last extreme wins ties; 0 if flat",
        "Chande 1995",
    ),
    ("candle_body_frac", 1, 0, "(C - O) / (H - L), signed; NaN if H - L is flat", ""),
    ("candle_upper_frac", 1, 0, "(H - max(O, C)) / (H - L); NaN if H - L is flat", ""),
    ("candle_lower_frac", 1, 0, "(min(O, C) - L) / (H - L); NaN if H - L is flat", ""),
    ("close_loc_bar", 1, 0, "(C - L) / (H - L); NaN if H - L is flat", ""),
    ("range_bar", 2, _ATR, "TR / ATR; NaN if ATR is flat", ""),
    ("gap_bar", 2, _ATR, "(O - previous C) / ATR; NaN if ATR is flat", ""),
)
_GEO: tuple[_Row, ...] = (
    ("head_depth_atr", 14, _ATR, f"-s (P3 - P1) / ATR of the entry's bar; {_QM}", ""),
    ("leg1_atr", 14, _ATR, f"s (P2 - P1) / ATR; {_QM}", ""),
    ("leg2_atr", 14, _ATR, f"-s (P3 - P2) / ATR; {_QM}", ""),
    ("leg3_atr", 14, _ATR, f"s (P4 - P3) / ATR; {_QM}", ""),
    ("leg4_atr", 14, _ATR, f"-s (P5 - P4) / ATR; {_QM}", ""),
    ("leg_ratio_21", 0, 0, f"leg 2 / leg 1; NaN unless leg 1 exceeds 1e-8 C; {_QM}", ""),
    ("leg_ratio_32", 0, 0, f"leg 3 / leg 2; NaN unless leg 2 exceeds 1e-8 C; {_QM}", ""),
    ("bos_depth_atr", 14, _ATR, f"s (P4 - P2) / ATR; {_QM}", ""),
    ("retrace_p5", 0, 0, f"(P5 - P4) / (P3 - P4); NaN unless leg 3 exceeds 1e-8 C; {_QM}", ""),
    ("shoulder_diff_atr", 14, _ATR, f"-s (P5 - P1) / ATR; {_QM}", ""),
    ("shoulder_sym", 0, 0, f"min / max of -s (P3 - P1) and -s (P3 - P5); NaN unless both are positive; {_QM}", ""),
    ("neckline_slope_atr", 14, _ATR, f"s (P4 - P2) / (bars P2..P4 * ATR); {_QM}", ""),
    ("time_ratio", 0, 0, f"bars P1..P3 / bars P3..P5; NaN if P5 is not after P3; {_QM}", ""),
    ("entry_neck_dist_atr", 14, _ATR, f"s (C of the entry's bar - P2) / ATR; {_QM}", ""),
    ("stop_head_gap_atr", 14, _ATR, f"s (P3 - stop) / ATR; {_QM}", ""),
    ("path_eff", 0, 0, f"|C at P5 - C at P1| / sum of |change of C| between; NaN if flat; {_QM}", "Kaufman 1995"),
    (
        "prior_trend_50_atr",
        50,
        _ATR,
        f"-s (C at P1 - C 50 bars before P1) / ATR; NaN if P1 is before bar 50; {_QM}",
        "",
    ),
    ("risk_atr", 14, _ATR, "s (reference price - stop) / ATR of the entry's bar", ""),
    ("reward_atr", 14, _ATR, "s (target - reference price) / ATR of the entry's bar", ""),
    ("rr_ratio", 0, 0, "reward / risk; NaN unless risk exceeds 1e-8 C", ""),
    ("is_bullish", 0, 0, "1 for a long entry, 0 for a short one", ""),
)
_TEMP: tuple[_Row, ...] = (
    ("hour_sin", 1, 0, "sine of the UTC time of day of the bar's stamp; NaN on bars of a day or longer", ""),
    ("hour_cos", 1, 0, "cosine of the UTC time of day of the bar's stamp; NaN on bars of a day or longer", ""),
    ("dow_sin", 1, 0, "sine of the UTC weekday of the stamp (Monday 0) over 7; NaN on bars longer than a day", ""),
    ("dow_cos", 1, 0, "cosine of the UTC weekday of the stamp (Monday 0) over 7; NaN on bars longer than a day", ""),
    ("is_weekend", 1, 0, "1 on Saturday and Sunday UTC, else 0; NaN on bars of a day or longer", ""),
    ("is_asia", 1, 0, "1 from 00:00 to before 08:00 UTC, else 0; NaN on bars of a day or longer", ""),
    ("is_europe", 1, 0, "1 from 07:00 to before 16:00 UTC, else 0; NaN on bars of a day or longer", ""),
    ("is_us", 1, 0, "1 from 13:00 to before 22:00 UTC, else 0; NaN on bars of a day or longer", ""),
    ("bars_pattern_log", 0, 0, f"log(1 + bars P1..P5); NaN if P5 is before P1; {_QM}", ""),
    ("bars_since_head_log", 0, 0, f"log(1 + bars from P3 to the entry); {_QM}", ""),
    ("bars_since_bos_log", 0, 0, f"log(1 + bars from P4 to the entry); {_QM}", ""),
    ("bars_since_choch_log", 0, 0, f"log(1 + bars from P2 to the entry); {_QM}", ""),
    ("gap_ratio", 100, 100, "time since the bar before / median of the last 100 such times", ""),
)
_VOL: tuple[_Row, ...] = (
    ("atr_pctile_100", 100, _ATR + 100, f"rank of ATR / C: {_RANK.format(w=100)}; NaN if an ATR is flat", ""),
    ("atr_pctile_250", 250, _ATR + 250, f"rank of ATR / C: {_RANK.format(w=250)}; NaN if an ATR is flat", ""),
    ("atr_ratio_7_21", 21, _wilder(21), "Wilder ATR over 7 / over 21; NaN if flat", _WILDER),
    ("realized_20", 20, 20, "sd (ddof 1) of 20 r, per bar; 0 on flat prices", ""),
    ("realized_50", 50, 50, "sd (ddof 1) of 50 r, per bar; 0 on flat prices", ""),
    ("rv_ratio_10_50", 50, 50, "sd (ddof 1) of 10 r / of 50 r; NaN if flat", ""),
    ("parkinson_20", 20, 19, "sqrt(mean ln(H/L)^2 / (4 ln 2)) over 20; 0 on flat prices", "Parkinson 1980"),
    (
        "gk_20",
        20,
        19,
        "sqrt(mean(0.5 ln(H/L)^2 - (2 ln 2 - 1) ln(C/O)^2)) over 20, at least 0; 0 on flat prices",
        "Garman-Klass 1980",
    ),
    (
        "yz_20",
        20,
        20,
        "sqrt(var ln(O/previous C) + k var ln(C/O) + (1-k) mean(ln(H/C) ln(H/O) + ln(L/C) ln(L/O))) over 20, "
        "var with ddof 1, k = 0.34 / (1.34 + 21/19); 0 on flat prices",
        "Yang-Zhang 2000",
    ),
    ("pk_rv_ratio_20", 20, 20, "vol_parkinson_20 / vol_realized_20; NaN if the latter is flat", ""),
    (
        "jump_share_50",
        50,
        50,
        "max(0, 1 - bipower / realized variance) of 50 r, bipower = pi/2 * 50/49 * sum |r| |previous r|; NaN if flat",
        "Barndorff-Nielsen and Shephard 2004",
    ),
    (
        "semi_down_50",
        50,
        50,
        "sum of r^2 over negative r / sum of r^2, of 50 r; NaN if flat",
        "Barndorff-Nielsen, Kinnebrock and Shephard 2010",
    ),
    ("skew_100", 100, 100, "third central moment of 100 r / sd^3 (ddof 0); NaN if flat", ""),
    ("range_ratio_20", 20, 19, "(H - L) / mean(H - L) over 20; NaN if the mean is flat", ""),
    (
        "ulcer_14",
        27,
        26,
        "root mean square over 14 of the percent drop of C below its highest in 14; 0 if flat",
        "Martin 1989",
    ),
)
_TSMOM = "Moskowitz, Ooi and Pedersen 2012"
_MOM: tuple[_Row, ...] = (
    ("return_1_norm", 101, 100, "r / sd (ddof 1) of 100 r; NaN if sd is flat", _TSMOM),
    ("return_5_norm", 101, 100, "log return over 5 bars / (sd of 100 r * sqrt 5); NaN if sd is flat", _TSMOM),
    ("return_20_norm", 101, 100, "log return over 20 bars / (sd of 100 r * sqrt 20); NaN if sd is flat", _TSMOM),
    ("return_50_norm", 101, 100, "log return over 50 bars / (sd of 100 r * sqrt 50); NaN if sd is flat", _TSMOM),
    ("zscore_50", 50, 49, "(C - mean) / sd (ddof 0) over 50; NaN if sd is flat", ""),
    ("position_20", 20, 19, "(C - lowest L) / (highest H - lowest L) over 20; NaN if flat", "Donchian"),
    ("position_50", 50, 49, "(C - lowest L) / (highest H - lowest L) over 50; NaN if flat", "Donchian"),
    ("slope_20_norm", 20, _ATR, "OLS slope of log C per bar over 20, times 20, / (ATR / C); NaN if ATR is flat", ""),
    ("slope_50_norm", 50, _ATR, "OLS slope of log C per bar over 50, times 50, / (ATR / C); NaN if ATR is flat", ""),
    ("r2_20", 20, 19, "R2 of the OLS line through log C over 20; NaN if flat", ""),
    ("r2_50", 50, 49, "R2 of the OLS line through log C over 50; NaN if flat", ""),
    ("er_10", 11, 10, "|C - C 10 bars ago| / sum of |change of C|; NaN if flat", "Kaufman 1995"),
    ("er_20", 21, 20, "|C - C 20 bars ago| / sum of |change of C|; NaN if flat", "Kaufman 1995"),
    ("er_50", 51, 50, "|C - C 50 bars ago| / sum of |change of C|; NaN if flat", "Kaufman 1995"),
    (
        "tsi",
        38,
        _ema(25) + _ema(13),
        "100 * EMA13(EMA25(change of C)) / EMA13(EMA25(|change of C|)); NaN if the latter is flat",
        "Blau 1991",
    ),
    ("acf1_100", 101, 100, "lag-1 autocorrelation of 100 r about their mean; NaN if sd is flat", "Lo-MacKinlay 1988"),
    ("up_frac_20", 21, 20, "share of 20 bars with C above the previous C", ""),
    ("streak", 11, 10, "bars in a row with C above (+) or below (-) the previous C, at most 10; 0 if unchanged", ""),
    ("since_high_50", 50, 49, "bars since the highest H of 50, the last wins ties, / 50", ""),
    ("since_low_50", 50, 49, "bars since the lowest L of 50, the last wins ties, / 50", ""),
)
_VOL_RELATIVE: tuple[_Row, ...] = (
    ("20", 20, 19, "V / mean V over 20; NaN if none traded", ""),
    ("50", 50, 49, "V / mean V over 50; NaN if none traded", ""),
    ("z_20", 20, 19, "(y - mean) / sd (ddof 0) over 20 of y = log(1 + V / mean V over 20); NaN if sd <= 1e-8", ""),
    ("pctile_100", 101, 100, f"rank of V: {_RANK.format(w=100)}", ""),
    ("trend_5_20", 20, 19, "mean V over 5 / mean V over 20; NaN if none traded", ""),
    ("obv_slope_20", 21, 20, "sum of sign(change of C) V / sum of V over 20; NaN if none traded", "Granville 1963"),
    (
        "cmf_20",
        20,
        19,
        "sum of ((C-L) - (H-C)) / (H-L) V / sum of V over 20, flat bars adding 0; NaN if none traded",
        "Chaikin",
    ),
    (
        "mfi_14",
        15,
        14,
        "100 * rising / (rising + falling) sum of TP V over 14, TP = (H+L+C)/3, steps of TP within 1e-9 C being "
        "neither; NaN if there are none",
        "Quong-Soudack 1989",
    ),
    ("vwap_dist_20_atr", 20, _ATR, "(C - sum TP V / sum V over 20) / ATR; NaN if none traded or ATR is flat", ""),
    ("at_head", 21, 0, f"V at P3 / mean V of the 20 bars before; NaN if none traded or P3 is before bar 20; {_QM}", ""),
    ("at_bos", 21, 0, f"V at P4 / mean V of the 20 bars before; NaN if none traded or P4 is before bar 20; {_QM}", ""),
    (
        "at_choch",
        21,
        0,
        f"V at P2 / mean V of the 20 bars before; NaN if none traded or P2 is before bar 20; {_QM}",
        "",
    ),
)
_REGIME: tuple[_Row, ...] = (
    ("is_trending", 28, _ADX, "1 if ctx_adx_14 > 25 and mom_er_20 > 0.3 + 1e-9, else 0; NaN if either is", ""),
    ("is_ranging", 28, _ADX, "1 if ctx_adx_14 < 20, else 0; NaN if that is", ""),
    ("is_volatile", 250, _ATR + 250, "1 if vol_atr_pctile_250 > 0.8, else 0; NaN if that is", ""),
    ("trend_strength", 50, _ema(50), "sign(EMA20 - EMA50) ctx_adx_14 / 100, sign 0 within 1e-9 C", ""),
    (
        "vr_2_100",
        101,
        100,
        "variance ratio of 2-bar to 1-bar r over 100 r, bias-corrected; NaN if flat",
        "Lo-MacKinlay 1988",
    ),
    (
        "vr_5_100",
        101,
        100,
        "variance ratio of 5-bar to 1-bar r over 100 r, bias-corrected; NaN if flat",
        "Lo-MacKinlay 1988",
    ),
    (
        "perm_entropy_50",
        50,
        49,
        "entropy of the orders of 3 successive C over 50 bars / log 6, the earlier of equals counting as the smaller; "
        "0 on flat prices",
        "Bandt-Pompe 2002",
    ),
    (
        "chop_14",
        15,
        14,
        "100 * log10(sum TR / (highest true high - lowest true low)) / log10 14 over 14; NaN if flat",
        "Dreiss",
    ),
)
_TABLE = {
    "ctx": _CTX,
    "geo": _GEO,
    "temp": _TEMP,
    "vol": _VOL,
    "mom": _MOM,
    "vol_relative": _VOL_RELATIVE,
    "regime": _REGIME,
}

CATALOGUE: tuple[Feature, ...] = tuple(
    Feature(f"{category}_{name}", category, window, max(warmup, window - 1), definition, source)
    for category, rows in _TABLE.items()
    for name, window, warmup, definition, source in rows
)
"""Every feature, in the order of the columns."""

FEATURE_SET: str = hashlib.sha256("\n".join(f"{f.name}: {f.definition}" for f in CATALOGUE).encode()).hexdigest()
"""SHA-256 of the ordered names and definitions: features of two sets must never be compared."""
