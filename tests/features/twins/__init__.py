"""Slow and obvious twins: each value of a feature at bar t, written from its definition with whole slices."""

from . import ctx, mom, regime, temp, vol, vol_relative
from .past import Past, Twin

__all__ = ["TWINS", "Past"]

TWINS: dict[str, Twin] = {
    **ctx.TWINS, **temp.TWINS, **vol.TWINS, **mom.TWINS, **vol_relative.TWINS, **regime.TWINS
}  # fmt: skip
