"""How often is noise called an edge? Verdicts counted on markets whose truth is known.

`certify` counts them for the shipped `FAMILIES`, or for a strategy of one's own (`own_strategy.OwnStrategy`); `docs/vrd.md` has the figures.
"""

from qml_plugin.vrd.certification.counting import PUBLISHED_SEED, Certification, Count, Share, certify
from qml_plugin.vrd.certification.families import DESIGNED_ON, FAMILIES, Family, Searched
from qml_plugin.vrd.certification.judging import JUDGES, Draws, judged_set
from qml_plugin.vrd.certification.worlds import NO_EDGE, WORLDS, Market, world

__all__ = [
    "DESIGNED_ON",
    "FAMILIES",
    "JUDGES",
    "NO_EDGE",
    "PUBLISHED_SEED",
    "WORLDS",
    "Certification",
    "Count",
    "Draws",
    "Family",
    "Market",
    "Searched",
    "Share",
    "certify",
    "judged_set",
    "world",
]
