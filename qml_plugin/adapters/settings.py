"""The settings that a strategy carries as class attributes, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from qml_plugin.errors import DataError
from qml_plugin.gate.online import MODELS
from qml_plugin.labels.outcomes import check_rule
from qml_plugin.memory import Policy
from qml_plugin.records import BarrierRule

ON_SKIP = ("flat", "hold")
_LONGEST_SYMBOL = 100


@dataclass(frozen=True, slots=True)
class Settings:
    """The mixin's class attributes, checked."""

    symbol: str | None
    timeframe: str | None
    registry: str | None
    on_skip: str
    barriers: BarrierRule
    bar_label: str
    policy: Policy
    is_frozen: bool

    @classmethod
    def of(cls, strategy: Any, name: str) -> Settings:
        """The settings among the attributes of `strategy`, which messages call `name`."""
        registry, symbol = strategy.registry, strategy.symbol
        if strategy.on_skip not in ON_SKIP:
            raise DataError(f"on_skip {strategy.on_skip!r} is unknown. Use one of {', '.join(map(repr, ON_SKIP))}.")
        if registry is not None and not isinstance(registry, str):
            raise DataError(f"registry is a {type(registry).__name__}. Give a URL such as 'sqlite:///experiments.db'.")
        if registry in ("sqlite://", "sqlite:///:memory:"):
            raise DataError(
                f"registry {registry!r} would vanish with the run. Leave it None to keep nothing, or name a file."
            )
        if registry is not None and not symbol:
            raise DataError(
                f"{name}.symbol is {symbol!r}, but a registry tells markets apart by it. "
                "Set symbol, such as symbol = 'EURUSD'."
            )
        if symbol is not None and not (
            isinstance(symbol, str) and symbol.isprintable() and len(symbol) <= _LONGEST_SYMBOL
        ):
            raise DataError(
                f"symbol {str(symbol)[:40]!r} is no name of a market. Use printable text of at most {_LONGEST_SYMBOL} characters."
            )
        if strategy.gate_model not in (*MODELS, "frozen"):
            raise DataError(
                f"gate_model {strategy.gate_model!r} is unknown. Use one of {', '.join(map(repr, (*MODELS, 'frozen')))}."
            )
        is_frozen = strategy.gate_model == "frozen"
        if is_frozen and strategy.min_confidence is None:
            raise DataError("gate_model 'frozen' skips below min_confidence, which is None. Set it, such as 0.45.")
        check_rule(strategy.barriers)
        minimum = none_for_nan(strategy.min_confidence)
        return cls(
            symbol=symbol,
            timeframe=strategy.timeframe,
            registry=registry,
            on_skip=strategy.on_skip,
            barriers=strategy.barriers,
            bar_label=strategy.bar_label,
            policy=Policy(
                mode=strategy.mode,
                model="auto" if is_frozen else strategy.gate_model,
                min_confidence=minimum,
                n_neighbours=strategy.n_neighbours,
                seed=strategy.seed,
                on_abstain=strategy.on_abstain,
                teachers=strategy.teachers,
                cost_r=strategy.cost_r,
                kelly_fraction=none_for_nan(strategy.kelly_fraction),
                risk_cap_frac=strategy.risk_cap_frac,
            ),
            is_frozen=is_frozen,
        )

    def as_dict(self) -> dict[str, object]:
        """What determines decisions; the registry's place does not."""
        policy, rule = self.policy, self.barriers
        # Left out where sizes are the strategy's own, so that such runs keep the ids that they have always had.
        sizing: dict[str, object] = {}
        if policy.kelly_fraction is not None:
            sizing = {"kelly_fraction": policy.kelly_fraction, "risk_cap_frac": policy.risk_cap_frac}
        return {
            "mode": policy.mode,
            "gate_model": "frozen" if self.is_frozen else policy.model,
            "min_confidence": policy.min_confidence,
            "n_neighbours": policy.n_neighbours,
            "on_abstain": policy.on_abstain,
            "teachers": policy.teachers,
            "cost_r": policy.cost_r,
            "on_skip": self.on_skip,
            "seed": policy.seed,
            "barriers": f"barrier(stop={rule.stop_atr!r}atr,target={rule.target_atr!r}atr,max={rule.max_bars}bars)",
            "bar_label": self.bar_label,
            **sizing,
        }


def none_for_nan(value: Any) -> Any:
    """None, where the host's optimizer hands it back as NaN; a NaN of the user's own cannot be told from that."""
    return None if isinstance(value, float) and math.isnan(value) else value
