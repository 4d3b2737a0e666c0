"""What features cost: every bar, some bars, bar by bar, in memory and in a fresh process, against ta and TA-Lib."""

from __future__ import annotations

import gc
import resource
import statistics
import subprocess
import sys
import textwrap
import time
import tracemalloc
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import ta
import talib

from experiments.bench.timing import Row, figure, in_turn, timed
from qml_plugin.bars import Bars
from qml_plugin.features import CATALOGUE, FeatureStream, MarketFeatures, compute_features
from qml_plugin.features.series import N_STATE, SERIES, advance

HOUR_US = 3_600_000_000


def random_bars(n: int, seed: int = 0) -> Bars:
    """Hourly bars of a random walk with changing volatility."""
    rng = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(rng.standard_t(4, n) * 0.004 * np.exp(np.cumsum(rng.normal(0, 0.01, n)))))
    open_ = np.append(100.0, close[:-1]) * np.exp(rng.normal(0, 0.001, n))
    high = np.maximum(open_, close) * np.exp(np.abs(rng.normal(0, 0.002, n)))
    low = np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0, 0.002, n)))
    at = 1_600_000_000_000_000 // HOUR_US * HOUR_US + np.arange(n) * HOUR_US
    return Bars("X", "1h", at, at + HOUR_US, open_, high, low, close, rng.lognormal(8, 1, n))


def frame_of(bars: Bars) -> pd.DataFrame:
    columns = {name.title(): getattr(bars, name) for name in ("open", "high", "low", "close", "volume")}
    return pd.DataFrame(columns, index=pd.DatetimeIndex(bars.opened_at.view("M8[us]")))


def run() -> list[Row]:
    """All feature benchmarks."""
    small, large = random_bars(10_000), random_bars(100_000)
    return [
        *against_ta(small),
        *dense(small, large),
        *sparse(large),
        *streaming(random_bars(6_000)),
        *memory(large),
        *cold_start(),
        *against_talib(large),
    ]


def against_ta(bars: Bars) -> list[Row]:
    """On a frame with times, as users have it; and without them, which spares ta a fault of its parabolic SAR."""
    frame = frame_of(bars)
    bare = frame.reset_index(drop=True)

    def all_of_ta(table: pd.DataFrame) -> None:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            ta.add_all_ta_features(table.copy(), "Open", "High", "Low", "Close", "Volume")

    return in_turn(
        f"all {len(CATALOGUE)} features of 10,000 bars",
        {
            "ta.add_all_ta_features, 86 features": lambda: all_of_ta(frame),
            "the same on a RangeIndex": lambda: all_of_ta(bare),
            "compute_features(frame)": lambda: compute_features(frame),
        },
        {"compute_features(frame)": 1 / 40},
        n_runs=3,
    )


def dense(small: Bars, large: Bars) -> list[Row]:
    bench = "all bars, CPU time"
    times = timed(
        {"10,000 bars": lambda: compute_features(small), "100,000 bars": lambda: compute_features(large)},
        clock=time.process_time,
    )
    median = {name: statistics.median(found[1:]) for name, found in times.items()}
    growth = median["100,000 bars"] / median["10,000 bars"]
    return [
        figure(bench, "10,000 bars", median["10,000 bars"], "ms", n_runs=5),
        figure(bench, "100,000 bars", median["100,000 bars"], "ms", at_most=800, n_runs=5),
        figure(bench, "100,000 bars over 10,000", growth, "x", at_most=12, n_runs=5),
    ]


def sparse(bars: Bars) -> list[Row]:
    rows = np.sort(np.random.default_rng(1).choice(np.arange(3_000, len(bars)), 1_000, replace=False))
    times = timed({"1,000 rows of Bars": lambda: compute_features(bars, rows=rows)}, n_runs=15, clock=time.process_time)
    frame = frame_of(bars)
    of_frame = timed({"f": lambda: compute_features(frame, rows=rows)}, n_runs=15, clock=time.process_time)["f"]
    return [
        figure("some of 100,000 bars, CPU time", name, statistics.median(found[1:]), "ms", at_most=40, n_runs=15)
        for name, found in times.items()
    ] + [
        figure(
            "some of 100,000 bars, CPU time", "1,000 rows of a DataFrame, checked first", statistics.median(of_frame[1:]), "ms"
        )
    ]  # fmt: skip


def streaming(bars: Bars) -> list[Row]:
    stream = FeatureStream("1h")
    columns = (bars.opened_at.tolist(), bars.open, bars.high, bars.low, bars.close, bars.volume)
    times = []
    for row in zip(*columns, strict=True):
        start = time.perf_counter()
        stream.push(row)
        times.append(1e6 * (time.perf_counter() - start))
    late = times[3_000:]
    bench = "FeatureStream.push, one bar"
    return [
        figure(bench, "median", statistics.median(late), "us", at_most=50, n_runs=len(late)),
        figure(bench, "99th percentile", float(np.percentile(late, 99)), "us", n_runs=len(late)),
    ]


def memory(bars: Bars) -> list[Row]:
    compute_features(bars, rows=[0])
    gc.collect()
    tracemalloc.start()
    table = compute_features(bars)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    size = table.to_numpy().nbytes
    return [
        figure("memory of all features of 100,000 bars", "result", size / 2**20, "MiB"),
        figure("memory of all features of 100,000 bars", "peak over result", peak / size, "x", at_most=2),
        figure("memory of all features of 100,000 bars", "peak of this process", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10, "MiB"),
    ]  # fmt: skip


def cold_start() -> list[Row]:
    """A new process with a warm disk cache, from its start to the first row."""
    code = textwrap.dedent("""
        import numpy as np, pandas as pd
        from qml_plugin.features import compute_features
        rng = np.random.default_rng(0)
        close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, 3000)))
        frame = pd.DataFrame(dict(Open=close, High=close * 1.01, Low=close * 0.99, Close=close, Volume=1.0),
                             index=pd.date_range("2024", periods=3000, freq="h"))
        compute_features(frame, rows=[2999])
    """)

    def start() -> None:
        subprocess.run([sys.executable, "-c", code], check=True)

    def numpy_and_pandas() -> None:
        subprocess.run([sys.executable, "-c", "import numpy, pandas, numba"], check=True)

    times = timed({"first row": start, "of which importing numpy, pandas and numba": numpy_and_pandas})
    return [
        figure(
            "a new process with a warm cache", name, statistics.median(found[1:]) / 1_000, "s",
            at_most=2 if name == "first row" else None, n_runs=5,
        )
        for name, found in times.items()
    ]  # fmt: skip


def against_talib(bars: Bars) -> list[Row]:
    """The indicators that TA-Lib has too: its 30 functions, our recursions, and all our features."""
    o, h, low, c, v = bars.open, bars.high, bars.low, bars.close, bars.volume
    functions: list[Callable[[], object]] = [
        lambda: talib.ATR(h, low, c, 14),
        lambda: talib.ATR(h, low, c, 7),
        lambda: talib.ATR(h, low, c, 21),
        lambda: talib.ATR(h, low, c, 50),
        lambda: talib.RSI(c, 7),
        lambda: talib.RSI(c, 14),
        *(lambda w=w: talib.SMA(c, w) for w in (20, 50, 100, 200)),
        *(lambda w=w: talib.EMA(c, w) for w in (5, 10, 20, 50, 100, 200)),
        lambda: talib.BBANDS(c, 20),
        lambda: talib.MACD(c),
        lambda: talib.ADX(h, low, c, 14),
        lambda: talib.PLUS_DI(h, low, c, 14),
        lambda: talib.MINUS_DI(h, low, c, 14),
        lambda: talib.CCI(h, low, c, 20),
        lambda: talib.STOCHF(h, low, c, 14),
        lambda: talib.STOCHRSI(c, 14),
        lambda: talib.AROONOSC(h, low, 25),
        lambda: talib.ULTOSC(h, low, c),
        lambda: talib.SAR(h, low),
        lambda: talib.KAMA(c, 10),
        lambda: talib.MFI(h, low, c, v, 14),
        lambda: talib.LINEARREG_SLOPE(c, 20),
    ]
    matrix = np.array([o, h, low, c, v])

    def recursions() -> None:
        advance(np.zeros(N_STATE), matrix, bars.known_at, HOUR_US, np.empty((len(SERIES), len(bars))), 0, len(bars))

    name = f"TA-Lib, {len(functions)} functions"
    rows = in_turn(
        "indicators of 100,000 bars",
        {
            name: lambda: [function() for function in functions],
            f"our {len(SERIES)} recursive series": recursions,
            f"our {len(CATALOGUE)} features": lambda: MarketFeatures(bars).rows(),
        },
    )
    n_market = sum(feature.needs == "bars" for feature in CATALOGUE)
    per_value = [
        row.median * 1e6 / len(bars) / n for row, n in zip(rows, (len(functions), len(SERIES), n_market), strict=True)
    ]
    return rows + [
        figure("indicators of 100,000 bars, each", row.contender, value, "ns/bar")
        for row, value in zip(rows, per_value, strict=True)
    ]
