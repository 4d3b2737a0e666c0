from __future__ import annotations

import calendar
import math
from datetime import UTC, datetime

import numpy as np

from .past import Past, Twin


def now(p: Past) -> datetime:
    return datetime.fromtimestamp(int(p.at[-1]) / 1e6, tz=UTC)


def hour(p: Past) -> float:
    moment = now(p)
    return moment.hour + moment.minute / 60 + moment.second / 3600


def gap_ratio(p: Past) -> float:
    steps = np.diff(p.at)[-100:]
    return float(steps[-1] / np.median(steps))


TWINS: dict[str, Twin] = {
    "temp_hour_sin": lambda p: math.sin(math.tau * hour(p) / 24),
    "temp_hour_cos": lambda p: math.cos(math.tau * hour(p) / 24),
    "temp_dow_sin": lambda p: math.sin(math.tau * now(p).weekday() / 7),
    "temp_dow_cos": lambda p: math.cos(math.tau * now(p).weekday() / 7),
    "temp_month_sin": lambda p: math.sin(math.tau * (now(p).month - 1) / 12),
    "temp_month_cos": lambda p: math.cos(math.tau * (now(p).month - 1) / 12),
    "temp_dom_frac": lambda p: (now(p).day - 1) / calendar.monthrange(now(p).year, now(p).month)[1],
    "temp_is_weekend": lambda p: now(p).weekday() >= 5,
    "temp_is_asia": lambda p: 0 <= hour(p) < 8,
    "temp_is_europe": lambda p: 7 <= hour(p) < 16,
    "temp_is_us": lambda p: 13 <= hour(p) < 22,
    "temp_is_overlap": lambda p: 13 <= hour(p) < 16,
    "temp_gap_ratio": gap_ratio,
}
