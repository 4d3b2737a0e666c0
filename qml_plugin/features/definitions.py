"""What each feature means: the rows of the catalogue, and nothing else.

Terms: O, H, L, C, V are the bar's prices and volume, r the log return of the close, TR the true range, ATR Wilder's
average true range over 14 bars in price units, TP = (H+L+C)/3. "Flat" means that a spread is at most 1e-8 of the
price, or that a standard deviation of returns is at most 1e-8; for ATR and other smoothed moves the limit is 1e-6 of
the price. What is flat divides nothing. Sums and means run over the last w bars including the present one. Nothing
depends on the unit of prices or volumes.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Row(NamedTuple):
    """A feature without its category; `needs` says what it is computed from: bars, order or setup."""

    name: str
    window: int
    warmup: int
    definition: str
    source: str = ""
    needs: str = "bars"


def _ema(span: int) -> int:
    """Bars after which an EMA has forgotten its seed to exp(-25)."""
    return math.ceil(12.5 * (span + 1))


def _wilder(period: int) -> int:
    """Bars after which a Wilder average has forgotten its seed to exp(-25)."""
    return 26 * period


def _htf(k: int) -> int:
    """Bars that hold 20 completed bars of k times the timeframe, wherever the first one begins."""
    return 21 * k


_ATR = _wilder(14)
_ADX = 38 * 14  # two averages in a row, the second of a share that survives while the first decays on flat prices
_MACD = _ema(26) + _ema(9)
_KAMA = 1_000  # its slowest pace forgets a share of 0.4 % a bar, its usual one 5 %
_RANK = "share of the {w} earlier values below the present one, equals (to 1e-9) counting half"
_NO_ATR = "NaN if ATR is flat"
_QM = "needs a setup of five points, else NaN; s is the side"
_WILDER_1978 = "Wilder 1978"
_KAUFMAN = "Kaufman 1995"
_TSMOM = "Moskowitz, Ooi and Pedersen 2012"
_YZ = (
    "sqrt(var ln(O/previous C) + k var ln(C/O) + (1-k) mean(ln(H/C) ln(H/O) + ln(L/C) ln(L/O))) over {w}, "
    "var with ddof 1, k = 0.34 / (1.34 + ({w}+1)/({w}-1)); 0 on flat prices"
)
_JUMP = (
    "max(0, 1 - bipower / realized variance) of {w} r, bipower = pi/2 * {w}/({w}-1) * sum |r| |previous r|; NaN if flat"
)
_DAY = "NaN on bars of a day or longer"


def _setup(name: str, definition: str, source: str = "", *, window: int = 0) -> Row:
    warmup = _ATR if name.endswith("_atr") else 0
    return Row(name, max(window, 14 if warmup else 0), warmup, f"{definition}; {_QM}", source, "setup")


def _order(name: str, definition: str) -> Row:
    return Row(name, 14 if name.endswith("_atr") else 0, _ATR if name.endswith("_atr") else 0, definition, "", "order")


CTX: tuple[Row, ...] = (
    Row("atr_14_pct", 14, _ATR, "100 * ATR / C; 0 on flat prices", _WILDER_1978),
    Row("rsi_7", 7, _wilder(7), "Wilder RSI over 7, 0..100; NaN if smoothed gain and loss are flat", _WILDER_1978),
    Row("rsi_14", 14, _ATR, "Wilder RSI over 14, 0..100; NaN if smoothed gain and loss are flat", _WILDER_1978),
    *(Row(f"dist_sma_{w}_atr", w, _ATR, f"(C - SMA{w}) / ATR; {_NO_ATR}") for w in (20, 50, 100, 200)),
    *(
        Row(f"dist_ema_{w}_atr", w, max(_ATR, _ema(w)), f"(C - EMA{w}) / ATR; {_NO_ATR}")
        for w in (5, 10, 20, 50, 100, 200)
    ),
    *(
        Row(f"slope_sma_{w}_atr", w + 5, _ATR, f"(SMA{w} - SMA{w} five bars ago) / (5 ATR); {_NO_ATR}")
        for w in (20, 50, 200)
    ),
    *(
        Row(
            f"slope_ema_{w}_atr",
            w + 5,
            max(_ATR, _ema(w) + 5),
            f"(EMA{w} - EMA{w} five bars ago) / (5 ATR); {_NO_ATR}",
        )
        for w in (20, 50)
    ),
    Row(
        "bb_20_pctb",
        20,
        19,
        "(C - lower) / (upper - lower) of SMA20 +- 2 sd (ddof 0); NaN if sd is flat",
        "Bollinger 2001",
    ),
    Row("bb_20_width", 20, 19, "(upper - lower) / SMA20 of SMA20 +- 2 sd (ddof 0); 0 on flat prices", "Bollinger 2001"),
    Row("macd_line_atr", 26, _ATR, f"(EMA12 - EMA26) / ATR; {_NO_ATR}", "Appel 1979"),
    Row("macd_signal_atr", 35, _MACD, f"EMA9 of the MACD line / ATR; {_NO_ATR}", "Appel 1979"),
    Row("macd_hist_atr", 35, _MACD, f"(MACD line - its EMA9) / ATR; {_NO_ATR}", "Appel 1979"),
    Row(
        "adx_14",
        28,
        _ADX,
        "Wilder ADX over 14; moves equal to 1e-9 C count for neither side; DX is 0 without directional movement; "
        "NaN if the smoothed TR is flat",
        _WILDER_1978,
    ),
    Row(
        "di_plus_14",
        14,
        _ATR,
        "Wilder +DI over 14, ties as in ctx_adx_14; NaN if the smoothed TR is flat",
        _WILDER_1978,
    ),
    Row(
        "di_minus_14",
        14,
        _ATR,
        "Wilder -DI over 14, ties as in ctx_adx_14; NaN if the smoothed TR is flat",
        _WILDER_1978,
    ),
    Row(
        "cci_20",
        20,
        19,
        "(TP - SMA20(TP)) / (0.015 * mean absolute deviation); NaN if the deviation is flat",
        "Lambert 1980",
    ),
    Row("stoch_k_14", 14, 13, "100 * (C - lowest L) / (highest H - lowest L) over 14; NaN if flat", "Lane"),
    Row(
        "stochrsi_14",
        28,
        _ATR + 13,
        "(RSI14 - lowest) / (highest - lowest RSI14 of 14); NaN if they differ by 1e-6 or less",
        "Chande-Kroll 1994",
    ),
    Row(
        "aroon_osc_25",
        26,
        25,
        "100 * (bars since lowest L - bars since highest H) / 25 over 26 bars, the last extreme wins ties; 0 if flat",
        "Chande 1995",
    ),
    Row(
        "ultosc",
        29,
        28,
        "100 (4 a(7) + 2 a(14) + a(28)) / 7, a(w) = sum of C - min(L, previous C) / sum of TR over w; NaN if any is flat",
        "Williams 1985",
    ),
    Row(
        "vortex_diff_14",
        15,
        14,
        "(sum |H - previous L| - sum |L - previous H|) / sum TR over 14; NaN if flat",
        "Botes-Siepman 2010",
    ),
    Row(
        "keltner_pos_20",
        20,
        max(_ema(20), _wilder(10)),
        "(C - EMA20) / (2 ATR10); NaN if ATR10 is flat",
        "Keltner/Raschke",
    ),
    Row(
        "squeeze_20",
        20,
        _wilder(10),
        "Bollinger width 4 sd20 (ddof 0) / Keltner width 4 ATR10; NaN if ATR10 is flat",
        "Carter 2005",
    ),
    Row(
        "psar_dist_atr",
        50,
        _ATR,
        "(C - SAR) / ATR, the parabolic SAR (0.02, 0.2) started afresh 49 bars ago, turning where a low or high passes "
        f"it by more than 1e-9 C; {_NO_ATR}",
        _WILDER_1978,
    ),
    Row("kama_dist_10_atr", 10, _KAMA, f"(C - KAMA(10, 2, 30)) / ATR; {_NO_ATR}", _KAUFMAN),
    Row(
        "ichi_tk_diff_atr",
        26,
        _ATR,
        f"(middle of the range of 9 - middle of the range of 26) / ATR; {_NO_ATR}",
        "Hosoda",
    ),
    Row(
        "ichi_cloud_dist_atr",
        78,
        _ATR,
        "C above or below the cloud of 26 bars ago / ATR, 0 inside; its edges are the mean of the middles of 9 and 26, "
        f"and the middle of 52; {_NO_ATR}",
        "Hosoda",
    ),
    Row("candle_body_frac", 1, 0, "(C - O) / (H - L), signed; NaN if H - L is flat"),
    Row("candle_upper_frac", 1, 0, "(H - max(O, C)) / (H - L); NaN if H - L is flat"),
    Row("candle_lower_frac", 1, 0, "(min(O, C) - L) / (H - L); NaN if H - L is flat"),
    Row("close_loc_bar", 1, 0, "(C - L) / (H - L); NaN if H - L is flat"),
    Row(
        "close_loc_5", 5, 4, "mean of ctx_close_loc_bar over 5 without the flat ones; NaN if all are", "Pagonidis 2014"
    ),
    Row("range_bar", 2, _ATR, f"TR / ATR; {_NO_ATR}"),
    Row("gap_bar", 2, _ATR, f"(O - previous C) / ATR; {_NO_ATR}"),
)

GEO: tuple[Row, ...] = (
    _setup("head_depth_atr", "-s (P3 - P1) / ATR of the entry's bar"),
    _setup("leg1_atr", "s (P2 - P1) / ATR"),
    _setup("leg2_atr", "-s (P3 - P2) / ATR"),
    _setup("leg3_atr", "s (P4 - P3) / ATR"),
    _setup("leg4_atr", "-s (P5 - P4) / ATR"),
    _setup("leg_ratio_21", "leg 2 / leg 1; NaN unless leg 1 exceeds 1e-8 C"),
    _setup("leg_ratio_32", "leg 3 / leg 2; NaN unless leg 2 exceeds 1e-8 C"),
    _setup("bos_depth_atr", "s (P4 - P2) / ATR"),
    _setup("retrace_p5", "(P5 - P4) / (P3 - P4); NaN unless leg 3 exceeds 1e-8 C"),
    _setup("shoulder_diff_atr", "-s (P5 - P1) / ATR"),
    _setup("shoulder_sym", "min / max of -s (P3 - P1) and -s (P3 - P5); NaN unless both exceed 1e-8 C"),
    _setup("neckline_slope_atr", "s (P4 - P2) / (bars P2..P4 * ATR); NaN if P4 is not after P2"),
    _setup("time_leg1_frac", "bars P1..P2 / bars P1..P5; NaN if P5 is not after P1"),
    _setup("time_leg2_frac", "bars P2..P3 / bars P1..P5; NaN if P5 is not after P1"),
    _setup("time_leg3_frac", "bars P3..P4 / bars P1..P5; NaN if P5 is not after P1"),
    _setup("time_ratio", "bars P1..P3 / bars P3..P5; NaN if P5 is not after P3"),
    _setup("speed_choch_atr", "leg 1 / (bars P1..P2 * ATR); NaN if P2 is not after P1"),
    _setup("speed_bos_atr", "leg 3 / (bars P3..P4 * ATR); NaN if P4 is not after P3"),
    _setup(
        "area_ratio",
        "sum of |C - P2| over bars P1..P3 / over bars P3..P5; NaN if the latter is flat or P3 is before P1",
    ),
    _setup(
        "noise_ratio", "sum of wicks (H - L - |C - O|) / sum of |C - O| over bars P1..entry; NaN if the latter is flat"
    ),
    _setup("path_eff", "|C at P5 - C at P1| / sum of |change of C| between; NaN if flat", _KAUFMAN),
    _setup("choch_body_frac", "s (C - O) / (H - L) of the bar of P2; NaN if H - L is flat"),
    _setup("bos_body_frac", "s (C - O) / (H - L) of the bar of P4; NaN if H - L is flat"),
    _setup("entry_neck_dist_atr", "s (C of the entry's bar - P2) / ATR"),
    _setup("stop_head_gap_atr", "s (P3 - stop) / ATR"),
    _setup(
        "sr_dist_atr",
        "s (extreme of the 100 bars before P1 - C) / ATR, the highest H for a long entry and the lowest L for a short "
        "one; NaN if P1 is before bar 100",
        window=100,
    ),
    _setup("prior_trend_20_atr", "-s (C at P1 - C 20 bars before P1) / ATR; NaN if P1 is before bar 20", window=20),
    _setup("prior_trend_50_atr", "-s (C at P1 - C 50 bars before P1) / ATR; NaN if P1 is before bar 50", window=50),
    Row(
        "rsi_div_head",
        14,
        _ATR,
        f"s (RSI14 at P3 - RSI14 at P1); NaN if P1 or P3 is before bar {_ATR} or an RSI is; {_QM}",
        "",
        "setup",
    ),
    Row(
        "macd_div_head_atr",
        35,
        _MACD,
        f"s (MACD histogram at P3 - at P1) / ATR; NaN if P1 or P3 is before bar {_MACD}; {_QM}",
        "",
        "setup",
    ),
    _order("risk_atr", "s (reference price - stop) / ATR of the entry's bar"),
    _order("reward_atr", "s (target - reference price) / ATR of the entry's bar"),
    _order("rr_ratio", "reward / risk; NaN unless risk exceeds 1e-8 C"),
    _order("entry_body_frac", "s (C - O) / (H - L) of the entry's bar; NaN if H - L is flat"),
    _order("is_bullish", "1 for a long entry, 0 for a short one"),
)

TEMP: tuple[Row, ...] = (
    Row("hour_sin", 1, 0, f"sine of the UTC time of day of the bar's stamp; {_DAY}"),
    Row("hour_cos", 1, 0, f"cosine of the UTC time of day of the bar's stamp; {_DAY}"),
    Row("dow_sin", 1, 0, "sine of the UTC weekday of the stamp (Monday 0) over 7; NaN on bars longer than a day"),
    Row("dow_cos", 1, 0, "cosine of the UTC weekday of the stamp (Monday 0) over 7; NaN on bars longer than a day"),
    Row("month_sin", 1, 0, "sine of the UTC month of the stamp (January 0) over 12; NaN on bars longer than 31 days"),
    Row("month_cos", 1, 0, "cosine of the UTC month of the stamp (January 0) over 12; NaN on bars longer than 31 days"),
    Row("dom_frac", 1, 0, "(UTC day of the month - 1) / days in that month; NaN on bars longer than a day"),
    Row("is_weekend", 1, 0, f"1 on Saturday and Sunday UTC, else 0; {_DAY}"),
    Row("is_asia", 1, 0, f"1 from 00:00 to before 08:00 UTC, else 0; {_DAY}"),
    Row("is_europe", 1, 0, f"1 from 07:00 to before 16:00 UTC, else 0; {_DAY}"),
    Row("is_us", 1, 0, f"1 from 13:00 to before 22:00 UTC, else 0; {_DAY}"),
    Row("is_overlap", 1, 0, f"1 from 13:00 to before 16:00 UTC, Europe and the US together, else 0; {_DAY}"),
    Row("gap_ratio", 101, 100, "time since the bar before / median of the last 100 such times"),
    _setup("bars_pattern_log", "log(1 + bars P1..P5); NaN if P5 is before P1"),
    _setup("bars_since_head_log", "log(1 + bars from P3 to the entry)"),
    _setup("bars_since_bos_log", "log(1 + bars from P4 to the entry)"),
    _setup("bars_since_choch_log", "log(1 + bars from P2 to the entry)"),
    _order("since_last_signal_log", "log(1 + bars since the strategy's entry before this one); NaN for the first"),
)

VOL: tuple[Row, ...] = (
    *(
        Row(f"atr_pctile_{w}", w, _ATR + w, f"rank of ATR / C: {_RANK.format(w=w)}; NaN if an ATR is flat")
        for w in (100, 250, 500)
    ),
    Row("atr_ratio_7_21", 21, _wilder(21), "Wilder ATR over 7 / over 21; NaN if flat", _WILDER_1978),
    Row("atr_ratio_14_50", 50, _wilder(50), "Wilder ATR over 14 / over 50; NaN if flat", _WILDER_1978),
    *(Row(f"realized_{w}", w + 1, w, f"sd (ddof 1) of {w} r, per bar; 0 on flat prices") for w in (10, 20, 50)),
    Row("rv_ratio_10_50", 51, 50, "sd (ddof 1) of 10 r / of 50 r; NaN if flat"),
    Row("rv_ratio_20_100", 101, 100, "sd (ddof 1) of 20 r / of 100 r; NaN if flat"),
    *(
        Row(f"parkinson_{w}", w, w - 1, f"sqrt(mean ln(H/L)^2 / (4 ln 2)) over {w}; 0 on flat prices", "Parkinson 1980")
        for w in (20, 50)
    ),
    Row(
        "gk_20",
        20,
        19,
        "sqrt(mean(0.5 ln(H/L)^2 - (2 ln 2 - 1) ln(C/O)^2)) over 20, at least 0; 0 on flat prices",
        "Garman-Klass 1980",
    ),
    Row(
        "rs_20",
        20,
        19,
        "sqrt(mean(ln(H/C) ln(H/O) + ln(L/C) ln(L/O))) over 20, at least 0; 0 on flat prices",
        "Rogers-Satchell 1991",
    ),
    *(Row(f"yz_{w}", w + 1, w, _YZ.format(w=w), "Yang-Zhang 2000") for w in (20, 50)),
    Row("pk_rv_ratio_20", 21, 20, "vol_parkinson_20 / vol_realized_20; NaN if the latter is flat"),
    *(Row(f"jump_share_{w}", w + 1, w, _JUMP.format(w=w), "Barndorff-Nielsen and Shephard 2004") for w in (20, 50)),
    *(
        Row(
            f"semi_down_{w}",
            w + 1,
            w,
            f"sum of r^2 over negative r / sum of r^2, of {w} r; NaN if flat",
            "Barndorff-Nielsen, Kinnebrock and Shephard 2010",
        )
        for w in (20, 50)
    ),
    Row("of_vol_50", 51, _ATR + 50, "sd (ddof 1) of 50 changes of log ATR; NaN if an ATR is flat"),
    *(Row(f"skew_{w}", w + 1, w, f"third central moment of {w} r / sd^3 (ddof 0); NaN if flat") for w in (50, 100)),
    *(
        Row(f"kurt_{w}", w + 1, w, f"fourth central moment of {w} r / sd^4 (ddof 0) - 3; NaN if flat")
        for w in (50, 100)
    ),
    Row(
        "ewma94_ratio",
        101,
        405,
        "sqrt of the EWMA of r^2 with decay 0.94 / sd (ddof 1) of 100 r; NaN if the latter is flat",
        "RiskMetrics 1996",
    ),
    Row(
        "abs_acf1_100",
        101,
        100,
        "lag-1 autocorrelation of 100 |r| about their mean; NaN if their sd is flat",
        "Ding, Granger and Engle 1993",
    ),
    Row(
        "leverage_100",
        101,
        100,
        "correlation of |r| with the r before it, 99 pairs of 100 r; NaN if either sd is flat",
        "Bouchaud, Matacz and Potters 2001",
    ),
    Row("range_ratio_20", 20, 19, "(H - L) / mean(H - L) over 20; NaN if the mean is flat"),
    Row(
        "nr_rank_7",
        7,
        6,
        "rank of H - L: share of the 6 earlier ranges below it, equals (to 1e-9 C) counting half",
        "Crabel 1990",
    ),
    Row("maxdd_50", 50, _ATR, f"largest fall from a C to a later C within 50 / ATR, at least 0; {_NO_ATR}"),
    Row(
        "ulcer_14",
        27,
        26,
        "root mean square over 14 of the percent drop of C below its highest in 14; 0 if flat",
        "Martin 1989",
    ),
    Row(
        "spread_cs_20",
        21,
        20,
        "mean over 20 pairs of bars of the high-low spread 2 (e^a - 1) / (1 + e^a), negative ones as 0, bars after a "
        "gap moved back to the close before; 0 on flat prices",
        "Corwin-Schultz 2012",
    ),
    Row(
        "spread_roll_50",
        51,
        50,
        "2 sqrt(-cov(r, previous r)), 49 pairs of 50 r about their own means; 0 unless the covariance is below -1e-16",
        "Roll 1984",
    ),
    Row("bbw_pctile_100", 120, 119, f"rank of ctx_bb_20_width: {_RANK.format(w=100)}"),
)

MOM: tuple[Row, ...] = (
    Row("return_1_norm", 101, 100, "r / sd (ddof 1) of 100 r; NaN if sd is flat", _TSMOM),
    *(
        Row(
            f"return_{k}_norm",
            101,
            100,
            f"log return over {k} bars / (sd of 100 r * sqrt {k}); NaN if sd is flat",
            _TSMOM,
        )
        for k in (5, 10, 20, 50, 100)
    ),
    Row("max_20_norm", 101, 100, "largest of 20 r / sd of 100 r; NaN if sd is flat", "Bali, Cakici and Whitelaw 2011"),
    Row("min_20_norm", 101, 100, "smallest of 20 r / sd of 100 r; NaN if sd is flat", "Bali, Cakici and Whitelaw 2011"),
    Row(
        "overnight_20_norm",
        101,
        100,
        "sum of 20 ln(O / previous C) / (sd of 100 r * sqrt 20); NaN if sd is flat",
        "Lou, Polk and Skouras 2019",
    ),
    *(Row(f"zscore_{w}", w, w - 1, f"(C - mean) / sd (ddof 0) over {w}; NaN if sd is flat") for w in (50, 100)),
    *(
        Row(f"position_{w}", w, w - 1, f"(C - lowest L) / (highest H - lowest L) over {w}; NaN if flat", "Donchian")
        for w in (20, 50, 200)
    ),
    *(
        Row(f"slope_{w}_norm", w, _ATR, f"OLS slope of log C per bar over {w}, times {w}, / (ATR / C); {_NO_ATR}")
        for w in (20, 50, 100)
    ),
    *(Row(f"r2_{w}", w, w - 1, f"R2 of the OLS line through log C over {w}; NaN if flat") for w in (20, 50)),
    *(
        Row(f"er_{w}", w + 1, w, f"|C - C {w} bars ago| / sum of |change of C|; NaN if flat", _KAUFMAN)
        for w in (10, 20, 50)
    ),
    Row(
        "tsi",
        38,
        _ema(25) + _ema(13),
        "100 * EMA13(EMA25(change of C)) / EMA13(EMA25(|change of C|)); NaN if the latter is flat",
        "Blau 1991",
    ),
    Row("ao_atr", 34, _ATR, f"(SMA5 - SMA34 of (H+L)/2) / ATR; {_NO_ATR}", "Williams 1995"),
    *(
        Row(
            f"acf1_{w}",
            w + 1,
            w,
            f"lag-1 autocorrelation of {w} r about their mean; NaN if sd is flat",
            "Lo-MacKinlay 1988",
        )
        for w in (20, 100)
    ),
    Row("up_frac_20", 21, 20, "share of 20 bars with C above the previous C"),
    Row("streak", 11, 10, "bars in a row with C above (+) or below (-) the previous C, at most 10; 0 if unchanged"),
    Row("since_high_50", 50, 49, "bars since the highest H of 50, the last wins ties, / 50"),
    Row("since_low_50", 50, 49, "bars since the lowest L of 50, the last wins ties, / 50"),
    Row(
        "accel_10",
        101,
        100,
        "(log return over 10 bars - the one 10 bars ago) / (sd of 100 r * sqrt 20); NaN if sd is flat",
    ),
    Row(
        "discreteness_50",
        51,
        50,
        "sign(C - C 50 bars ago) * (share of falls - share of rises of C among 50 bars), sign 0 within 1e-9 C",
        "Da, Gurun and Warachka 2014",
    ),
)

VOL_RELATIVE: tuple[Row, ...] = (
    *(Row(f"{w}", w, w - 1, f"V / mean V over {w}; NaN if none traded") for w in (10, 20, 50)),
    *(
        Row(
            f"z_{w}",
            w,
            w - 1,
            f"(log V - mean) / sd (ddof 0) over the bars of {w} that traded; NaN if this one did not or sd <= 1e-8",
        )
        for w in (20, 100)
    ),
    Row("pctile_100", 101, 100, f"rank of V: {_RANK.format(w=100)}"),
    Row("trend_5_20", 20, 19, "mean V over 5 / mean V over 20; NaN if none traded"),
    Row("slope_20", 20, 19, "OLS slope of V per bar over 20, times 20, / mean V; NaN if none traded"),
    *(
        Row(
            f"obv_slope_{w}",
            w + 1,
            w,
            f"sum of sign(change of C) V / sum of V over {w}, sign 0 within 1e-9 C; NaN if none traded",
            "Granville 1963",
        )
        for w in (20, 50)
    ),
    Row(
        "cmf_20",
        20,
        19,
        "sum of ((C-L) - (H-C)) / (H-L) V / sum of V over 20, flat bars adding 0; NaN if none traded",
        "Chaikin",
    ),
    Row(
        "mfi_14",
        15,
        14,
        "100 * rising / (rising + falling) sum of TP V over 14, steps of TP within 1e-9 C being neither; NaN if there "
        "are none",
        "Quong-Soudack 1989",
    ),
    *(
        Row(f"vwap_dist_{w}_atr", w, _ATR, f"(C - sum TP V / sum V over {w}) / ATR; NaN if none traded or ATR is flat")
        for w in (20, 50)
    ),
    Row(
        "amihud_pctile_100",
        121,
        120,
        "rank of the mean of |r| / (C V) over 20, bars without trades left out: "
        f"{_RANK.format(w=100)}; NaN if none traded in one of the windows",
        "Amihud 2002",
    ),
    Row(
        "pv_corr_20",
        21,
        20,
        "correlation of |r| and V over 20; NaN if |r| is flat or sd V <= 1e-8 mean V",
        "Karpoff 1987",
    ),
    Row(
        "return_corr_20",
        21,
        20,
        "correlation of r and V over 20; NaN if r is flat or sd V <= 1e-8 mean V",
        "Karpoff 1987",
    ),
    Row(
        "hhi_20",
        20,
        19,
        "(sum of squared shares in V of 20 - 1/20) / (1 - 1/20): 0 even, 1 one bar; NaN if none traded",
    ),
    Row(
        "pvo_line",
        26,
        _MACD,
        "100 (EMA12 - EMA26 of V) / EMA26 of V; NaN if none traded in 26, and for a warm-up after a missing volume",
        "Appel 1979, on volume",
    ),
    Row(
        "pvo_hist",
        35,
        _MACD,
        "vol_relative_pvo_line - its EMA9, in which it counts 0 where it is NaN; NaN if none traded in 26",
        "Appel 1979, on volume",
    ),
    _setup("at_head", "V at P3 / mean V of the 20 bars before; NaN if none traded or P3 is before bar 20"),
    _setup("at_bos", "V at P4 / mean V of the 20 bars before; NaN if none traded or P4 is before bar 20"),
    _setup("at_choch", "V at P2 / mean V of the 20 bars before; NaN if none traded or P2 is before bar 20"),
    _setup(
        "pattern_slope",
        "OLS slope of V per bar over bars P1..P5, times their number, / their mean V; NaN if none traded or P5 is not "
        "after P1",
    ),
)

REGIME: tuple[Row, ...] = (
    Row("is_trending", 28, _ADX, "1 if ctx_adx_14 > 25 and mom_er_20 > 0.3 + 1e-9, else 0; NaN if either is"),
    Row("is_ranging", 28, _ADX, "1 if ctx_adx_14 < 20, else 0; NaN if that is"),
    Row("is_volatile", 250, _ATR + 250, "1 if vol_atr_pctile_250 > 0.8, else 0; NaN if that is"),
    Row("trend_strength", 50, _ema(50), "sign(EMA20 - EMA50) ctx_adx_14 / 100, sign 0 within 1e-9 C"),
    Row("adx_pctile_250", 250, _ADX + 250, f"rank of ctx_adx_14: {_RANK.format(w=250)}; NaN if one of them is"),
    *(
        Row(
            f"vr_{q}_100",
            101,
            100,
            f"variance ratio of {q}-bar to 1-bar r over 100 r, bias-corrected; NaN if flat",
            "Lo-MacKinlay 1988",
        )
        for q in (2, 5, 10)
    ),
    Row(
        "hurst_128",
        128,
        127,
        "OLS slope of log sd (ddof 0) of the k-bar changes of log C over 128 on log k, k = 2, 4, 8, 16, 32; NaN if one "
        "is flat; descriptive only: a random walk gives 0.41 on average here, with an sd of 0.11",
        "Di Matteo 2007, q = 2",
    ),
    Row(
        "perm_entropy_50",
        50,
        49,
        "entropy of the orders of 3 successive C over 50 bars / log 6, the earlier of equals counting as the smaller; "
        "0 on flat prices",
        "Bandt-Pompe 2002",
    ),
    Row(
        "ma_stack",
        200,
        _ema(200),
        "mean of sign(EMA a - EMA b) over the ten pairs a < b of 10, 20, 50, 100, 200, sign 0 within 1e-9 C",
    ),
    Row(
        "chop_14",
        15,
        14,
        "100 * log10(sum TR / (highest true high - lowest true low)) / log10 14 over 14; NaN if flat",
        "Dreiss",
    ),
    Row("bars_in_log", 250, _ADX + 250, "log(1 + bars since regime_is_trending changed, at most 250); NaN if it is"),
    *(
        Row(
            f"htf_align_{k}",
            _htf(k),
            _htf(k),
            f"sign of C - SMA20 on the last 20 completed bars of {k} times the timeframe, cut at multiples of it since "
            "1970 UTC; 0 within 1e-9 C",
        )
        for k in (4, 16)
    ),
    Row("dd_250_atr", 250, _ATR, f"(C - highest H of 250) / ATR; {_NO_ATR}"),
    Row("above_ema200_frac_50", 250, _ema(200) + 49, "share of 50 bars with C above EMA200 by more than 1e-9 C"),
)

TABLE: dict[str, tuple[Row, ...]] = {
    "ctx": CTX,
    "geo": GEO,
    "temp": TEMP,
    "vol": VOL,
    "mom": MOM,
    "vol_relative": VOL_RELATIVE,
    "regime": REGIME,
}
"""The categories in the order of the columns."""
