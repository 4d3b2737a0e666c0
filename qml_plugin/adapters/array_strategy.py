"""A strategy as one function from bars to arrays: backtesting.py plays it row by row, vectorbt takes it whole."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from qml_plugin.adapters.backtesting_host import Strategy
from qml_plugin.adapters.backtesting_py import PatternMixin
from qml_plugin.adapters.settings import none_for_nan
from qml_plugin.bars import Bars, bars_from_frame
from qml_plugin.errors import DataError
from qml_plugin.features.compiled import kernel
from qml_plugin.features.kernels import wilder_atr
from qml_plugin.records import FloatArray, Signals

BoolArray = NDArray[np.bool_]


class ArrayStrategy(PatternMixin, Strategy):  # type: ignore[misc]
    """A strategy with a memory that is written as arrays. Subclass it, and write `signals`; that is all.

    Class attributes are parameters, for `Backtest.run`, `Backtest.optimize` and `arrays` alike::

        class Momentum(ArrayStrategy):
            n_bars = 20

            def signals(self, bars):
                move = np.zeros(len(bars))
                move[self.n_bars :] = np.sign(bars.close[self.n_bars :] - bars.close[: -self.n_bars])
                return with_stops(bars, np.where(np.diff(move, prepend=0) != 0, move, 0), stop_loss_atr=2.0)


        Backtest(frame, Momentum, exclusive_orders=True).run(n_bars=30)  # the arrays, played bar by bar
        Momentum.arrays(frame, n_bars=30)  # the arrays, without a broker

    ``size`` is what one entry takes: a fraction of the free margin, or whole units; None takes all. ``reverses`` says whether
    an entry against the open position takes its place, or is passed over.

    In backtesting.py an entry is passed over where the price that the host checks, which holds the spread, does not
    lie between its stop and its target; override `may_enter` to pass over more. An exit closes whatever is open.

    Point in time
    -------------
    `signals` sees all bars at once: that row t reads bars 0..t only is its own promise.
    """

    size: float | None = None
    reverses: bool = True

    def signals(self, bars: Bars) -> Signals:
        """What is asked for at the close of each bar, from `bars` and the parameters; nothing else exists yet."""
        raise NotImplementedError(f"{type(self).__name__} has no signals. Write: def signals(self, bars): ...")

    def lines(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Lines for the host's chart, by name; none unless overridden."""
        return {}

    @classmethod
    def arrays(cls, frame: pd.DataFrame | Bars, **parameters: Any) -> Signals:
        """The signals of a whole series, without a broker.

        Parameters
        ----------
        frame : DataFrame that `read_bars` accepts, or Bars
            Of one symbol.
        **parameters
            In place of the class attributes of these names.

        Returns
        -------
        Signals
            Arrays of shape (n_bars,).

        Point in time
        -------------
        Row t reads bars 0..t, as far as `signals` keeps to it.

        Raises
        ------
        DataError
            If a parameter is no class attribute, the bars are bad, or the signals are not as many as the bars.
        """
        if unknown := sorted(name for name in parameters if not hasattr(cls, name)):
            known = cls._own_parameters()
            near = difflib.get_close_matches(unknown[0], known, n=1)
            raise DataError(
                f"{cls.__name__} has no parameter {unknown[0]!r}.{f' Did you mean {near[0]!r}?' if near else ''} "
                f"Parameters are class attributes; it has {', '.join(known)}, and the settings of PatternMixin."
            )
        strategy = object.__new__(cls)
        for name, value in parameters.items():
            setattr(strategy, name, value)
        return strategy._checked_signals(frame if isinstance(frame, Bars) else strategy._bars_of(frame))

    def init(self) -> None:
        # The host shows all bars here; row t of the signals is used at bar t, and knows nothing of later bars.
        bars = self._bars_of(self.data.df)
        for name in self._own_parameters():  # the host's optimizer hands None back as NaN
            if getattr(type(self), name) is None and none_for_nan(getattr(self, name)) is None:
                setattr(self, name, None)
        self.asked = self._checked_signals(bars)
        for name, line in self.lines(bars).items():
            self.I(np.copy, line, name=name)  # on the chart only: as an attribute it would postpone the first bar

    def next(self) -> None:
        bar = len(self.data) - 1
        if self.asked.exits[bar] and self.position:
            self.position.close()
        if self.asked.side[bar] != 0 and self._is_between(bar) and self.may_enter(bar):
            self.enter(bar)

    def may_enter(self, bar: int) -> bool:
        """Whether backtesting.py takes the entry of this bar: as `reverses` says, unless overridden."""
        return self.reverses or self.position.size * int(self.asked.side[bar]) >= 0

    def enter(self, bar: int) -> None:
        """Order the entry of this bar at the market."""
        asked = self.asked
        order: dict[str, Any] = {"tag": asked.setups.get(bar)}
        if self.size is not None:
            order["size"] = self.size
        for name, px in (("sl", asked.stop_px[bar]), ("tp", asked.target_px[bar])):
            if np.isfinite(px):
                order[name] = float(px)
        place = self.buy if asked.side[bar] > 0 else self.sell
        place(**order)

    @classmethod
    def _own_parameters(cls) -> list[str]:
        """Names of the parameters that neither the mixin nor the host has."""
        foreign = {PatternMixin, *Strategy.__mro__}
        names = {name for base in cls.__mro__ if base not in foreign for name in vars(base)}
        return sorted(name for name in names if name[0] != "_" and not callable(getattr(cls, name)))

    def _is_between(self, bar: int) -> bool:
        """Whether the price that the host checks, spread and all, lies between stop and target."""
        side = int(self.asked.side[bar])
        price = self._broker._adjusted_price(side)
        beyond = [side * (price - self.asked.stop_px[bar]), side * (self.asked.target_px[bar] - price)]
        return not any(gap <= 0 for gap in beyond)  # one that is not there is NaN

    def _bars_of(self, frame: pd.DataFrame) -> Bars:
        return bars_from_frame(
            frame, symbol=self.symbol or "UNKNOWN", timeframe=self.timeframe, bar_label=self.bar_label
        )

    def _checked_signals(self, bars: Bars) -> Signals:
        asked = self.signals(bars)
        if not isinstance(asked, Signals):
            raise DataError(
                f"{type(self).__name__}.signals returned a {type(asked).__name__}, not Signals. "
                "Return with_stops(bars, side), where side holds +1, -1 or 0 for each bar."
            )
        for name in ("side", "stop_px", "target_px", "exits"):
            if np.shape(getattr(asked, name)) != (len(bars),):
                raise DataError(
                    f"{name} of {type(self).__name__}.signals has shape {np.shape(getattr(asked, name))}, but there are "
                    f"{len(bars)} bars. Return one value for each bar."
                )
        _refuse_other_sides(f"side of {type(self).__name__}.signals", asked.side)
        return asked


def _refuse_other_sides(name: str, side: NDArray[Any]) -> None:
    """Refuse (DataError) what is neither +1, -1 nor 0."""
    if len(strange := np.flatnonzero(~np.isin(side, (-1, 0, 1)))):
        raise DataError(f"{name} is {side[strange[0]]} at bar {strange[0]}. It must be +1, -1 or 0.")


def with_stops(
    bars: Bars,
    side: NDArray[Any],
    *,
    exits: BoolArray | None = None,
    stop_loss_atr: float | None = None,
    take_profit_rr: float | None = None,
    atr_period: int = 14,
) -> Signals:
    """Signals whose stops and targets lie at multiples of ATR from the close of the bar that asks.

    Parameters
    ----------
    bars : Bars
        Of one symbol.
    side : ndarray of shape (n_bars,)
        +1 asks to buy, -1 to sell, 0 and NaN for nothing.
    exits : ndarray of shape (n_bars,), bool, optional
        Where to close what is open; nowhere unless given.
    stop_loss_atr : float, ATRs, optional
        Distance of the stop, above 0; without it there is neither stop nor target.
    take_profit_rr : float, optional
        Distance of the target in distances to the stop, above 0; without it there is no target.
    atr_period : int, bars, default=14
        Period of Wilder's ATR.

    Returns
    -------
    Signals
        Prices are NaN where there is no entry, where ATR is NaN or 0, and where they would not be positive.

    Point in time
    -------------
    Row t reads bars 0..t and row t of `side` and `exits`.

    Raises
    ------
    DataError
        If a distance is not a positive finite number, `side` or `exits` has not one value for each bar, or `side` holds
        another number.
    """
    for name, distance in (("stop_loss_atr", stop_loss_atr), ("take_profit_rr", take_profit_rr)):
        if distance is not None and not (isinstance(distance, Real) and 0 < distance < math.inf):
            raise DataError(
                f"{name} is {distance!r}. It is a distance: use a finite number above 0, such as 2.0, or None for none."
            )
    for name, values in (("side", side), ("exits", exits)):
        if values is not None and np.shape(values) != (len(bars),):
            raise DataError(
                f"{name} has the shape {np.shape(values)}, but there are {len(bars)} bars. Give one value for each bar, "
                "0 or False where nothing is asked."
            )
    side = np.asarray(side)
    side = np.where(np.isnan(side), 0, side)  # of a warm-up
    _refuse_other_sides("side", side)
    stop_px, target_px = np.full(len(bars), np.nan), np.full(len(bars), np.nan)
    if stop_loss_atr is not None:
        risk = stop_loss_atr * wilder_atr(bars.high, bars.low, bars.close, int(atr_period))
        risk[~((side != 0) & (risk > 0))] = np.nan
        stop_px = bars.close - side * risk
        if take_profit_rr is not None:
            target_px = bars.close + side * take_profit_rr * risk
    for px in (stop_px, target_px):
        px[px <= 0] = np.nan
    return Signals(
        side=side.astype(np.int8),
        stop_px=stop_px,
        target_px=target_px,
        exits=np.zeros(len(bars), np.bool_) if exits is None else np.asarray(exits, np.bool_),
    )


def one_at_a_time(
    buy: BoolArray, sell: BoolArray, leave_long: BoolArray, leave_short: BoolArray
) -> tuple[NDArray[np.int8], BoolArray]:
    """Sides and exits of a strategy that asks for one position at a time.

    A wish to enter counts while nothing is held, or the other side; a wish to leave counts while its side is held.
    What is held is what was asked for last: of stops, fills and skipped entries it knows nothing, and so asks again
    only after it has asked to leave.

    Parameters
    ----------
    buy, sell, leave_long, leave_short : ndarray of shape (n_bars,), bool
        Wishes at the close of each bar; where both `buy` and `sell` are true, neither counts.

    Returns
    -------
    side : ndarray of shape (n_bars,), int8
        +1, -1 or 0.
    exits : ndarray of shape (n_bars,), bool
        Where the position asked for last is to be closed; it may be followed by an entry at the same bar.

    Point in time
    -------------
    Row t reads rows 0..t.
    """
    masks = [np.asarray(mask, np.bool_) for mask in (buy, sell, leave_long, leave_short)]
    side, exits = _one_at_a_time(*masks)
    return side, exits


@kernel
def _one_at_a_time(
    buy: BoolArray, sell: BoolArray, leave_long: BoolArray, leave_short: BoolArray
) -> tuple[NDArray[np.int8], BoolArray]:
    n = len(buy)
    side, exits = np.zeros(n, np.int8), np.zeros(n, np.bool_)
    held = 0
    for t in range(n):
        if (held > 0 and leave_long[t]) or (held < 0 and leave_short[t]):
            exits[t] = True
            held = 0
        wanted = int(buy[t]) - int(sell[t])
        if wanted != 0 and wanted != held:
            side[t] = wanted
            held = wanted
    return side, exits
