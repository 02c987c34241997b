"""Whether to trust a part that was found without an outline: one calibrated figure, and the reason against it."""

import math
from typing import NamedTuple

OBJECT, SURFACE = 0.3, 0.5  # of the figure: its maximum below which, and its doubt above which, there is no part
TRUSTED = 0.6  # trust below which the photographs are taken whole
AREA = (0.005, 0.85)  # shares of the photograph that a part may fill
STEEP, LIMIT = 3.0, 1.5  # of the mean evidence; and what one sign can weigh at most


class Sign(NamedTuple):
    """One sign of `choice.find`: where it speaks neither for nor against, what counts as one unit, and its doubt."""

    middle: float
    unit: float
    doubt: str


# Between what was measured on sound and on wrong sets with known masks (benchmarks/part_trust.py).
SIGNS = {
    "learned": Sign(0.85, 0.1, "what is learned from it finds something else"),
    "agreement": Sign(0.68, 0.1, "what looks like it lies in other places too"),
    "maps": Sign(0.55, 0.15, "different ways to find it disagree"),
    "doubt": Sign(0.1, -0.03, "figure and ground are hard to tell apart"),
    "head": Sign(0.75, 0.2, "figure and ground lie elsewhere"),
    "surface": Sign(0.07, -0.05, "the photographs may show a surface"),
    "edge": Sign(1.5, 1.0, "its outlines do not lie on edges"),
    "spread": Sign(0.4, -0.3, "its size differs from photograph to photograph"),
}


class Check(NamedTuple):
    """What is made of what was found.

    Attributes:
        use: "found", or "whole": the photographs are taken whole.
        trust: estimated probability that the masks are right (mean IoU of 0.8 or more), in [0, 1].
        reason: why not to use them; "" where they are used.
    """

    use: str
    trust: float
    reason: str


def evidence(signs: dict[str, float]) -> dict[str, float]:
    """What each of SIGNS says for what was found, in [-LIMIT, LIMIT]."""
    return {name: min(max((signs[name] - s.middle) / s.unit, -LIMIT), LIMIT) for name, s in SIGNS.items()}


def judge(signs: dict[str, float]) -> Check:
    """Judge what was found by its signs, see `choice.find`."""
    if signs["figure"] < OBJECT or signs["surface"] > SURFACE:
        return Check("whole", 0.0, "the photographs show a surface, no part before a background")
    if not AREA[0] < signs["area"] < AREA[1]:
        return Check("whole", 0.0, "it fills nearly nothing or nearly everything")
    told = evidence(signs)
    trust = 1 / (1 + math.exp(-STEEP * sum(told.values()) / len(told)))
    worst = min(told, key=lambda name: told[name])
    return Check("found", trust, "") if trust >= TRUSTED else Check("whole", trust, SIGNS[worst].doubt)
