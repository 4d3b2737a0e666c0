"""The catalogue as a page: ``python -m qml_plugin.features.page`` prints ``docs/features.md``."""

from __future__ import annotations

import sys

from qml_plugin.features.catalogue import CATALOGUE, N_BUILT_IN, Feature

_TITLES = {
    "ctx": "averages, bands, oscillators, the candle",
    "geo": "geometry of the setup and of the order",
    "temp": "time",
    "vol": "volatility",
    "mom": "momentum",
    "vol_relative": "volume",
    "regime": "regime",
}
_HEAD = """\
# Features

{n} features in {n_categories} categories. {n_bars} of them need bars only, {n_order} an order (an entry with stop and target), \
{n_setup} a setup of five points. This page is made from the catalogue by `make docs`; do not edit it.

```python
from qml_plugin import compute_features

features = compute_features(bars)  # a row a bar
features = compute_features(bars, rows=[500])  # some bars only
```

In the terminal: `qml features list`, `qml features show NAME [DATA]`, `qml features compute DATA --out FILE`, \
`qml features redundancy DATA`.

## How to read it

- **Point in time.** The value of bar t reads bars 0..t: it is known at the close of bar t, and later bars never change it.
- **Needs.** `bars`: the market at the bar. `order`: also the side, stop and target of an entry. `setup`: also its five \
points P1..P5. What needs more than bars is NaN in a table of bars.
- **Window.** The bars a feature looks at in earnest, the present one included.
- **Warm-up.** The first bar with a value; before it the feature is NaN. From there on the bars before the window no longer \
matter: averages that remember for ever, such as EMAs, have forgotten where they began to a share of about 1e-11.
- **NaN** means that there is no value, and never stands for 0: during the warm-up, where the definition says so, and where \
volume is unknown. No feature is ever infinite.
- **Units.** Nothing depends on the unit of prices or volumes.

## Terms

- O, H, L, C, V: open, high, low, close and volume of the bar. TP: (H+L+C)/3. r: log return of the close. TR: true range.
- ATR: Wilder's average true range over 14 bars, in price units. SMA, EMA: simple and exponential moving average. \
RSI, MACD, DI, ADX, OLS as usual.
- Sums and means run over the last w bars including the present one. sd: standard deviation; ddof: what its divisor lacks to w.
- Flat: a spread of at most 1e-8 of the price, or a standard deviation of returns of at most 1e-8; for ATR and other smoothed \
moves the limit is 1e-6 of the price. What is flat divides nothing.
- s: the side of the entry, 1 long and -1 short. P1..P5: left shoulder, change of character, head, break of structure, entry.
"""


def features_page() -> str:
    """Markdown that defines every built-in feature, in the order of the columns."""
    features = CATALOGUE[:N_BUILT_IN]
    count = {needs: sum(feature.needs == needs for feature in features) for needs in ("bars", "order", "setup")}
    categories = list(dict.fromkeys(feature.category for feature in features))
    head = _HEAD.format(
        n=len(features), n_categories=len(categories), **{f"n_{needs}": n for needs, n in count.items()}
    )
    return head + "".join(
        _table(category, [feature for feature in features if feature.category == category]) for category in categories
    )


def _table(category: str, features: list[Feature]) -> str:
    rows = "".join(
        f"| `{f.name}` | {f.needs} | {f.window} | {f.warmup} | {_escaped(f.definition)} | {_escaped(f.source)} |\n"
        for f in features
    )
    return (
        f"\n## `{category}`: {_TITLES[category]}\n\n{len(features)} features.\n\n"
        f"| name | needs | window | warm-up | definition | source |\n|---|---|---:|---:|---|---|\n{rows}"
    )


def _escaped(text: str) -> str:
    """Text whose bars, stars and angles Markdown leaves alone."""
    return "".join(f"\\{char}" if char in "|*<\\" else char for char in text)


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
    sys.stdout.write(features_page())
