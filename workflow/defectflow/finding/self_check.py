"""Whether to trust a part that was found without an outline: one figure made of signs, and the reason against it."""

import math
from typing import NamedTuple

OBJECT, SURFACE = 0.3, 0.5  # of the figure: its maximum below which, and its doubt above which, there is no part
TRUSTED = 0.9  # trust below which photographs are taken whole: a mask that cuts the part costs more than a background
AREA = (0.005, 0.85)  # shares of the photograph that a part may fill
STEEP, LIMIT = 3.0, 1.5  # of the mean evidence; and what one sign can say at most
VOUCHES, WARNS = 2.0, 0.5  # weight of signs that see other ways to find the part; the most the others can say for it


class Sign(NamedTuple):
    """One sign of `choice.find`: where it speaks neither for nor against, what counts as one unit, and its doubt.

    ``vouches``: it compares with other ways to find the part. The others cannot see an error that all photographs
    share: they warn, and speak for what was found only a little.
    """

    middle: float
    unit: float
    vouches: bool
    doubt: str


# Set by hand after a look at a few sound and wrong sets; docs/parts.md has what other sets showed.
SIGNS = {
    "maps": Sign(0.55, 0.15, True, "different ways to find it disagree"),
    "head": Sign(0.75, 0.2, True, "figure and ground lie elsewhere"),
    "doubt": Sign(0.1, -0.03, True, "figure and ground are hard to tell apart"),
    "together": Sign(0.8, 0.1, True, "it is not in one place before a fixed camera"),
    "learned": Sign(0.85, 0.1, False, "what is learned from it finds something else"),
    "agreement": Sign(0.68, 0.1, False, "what looks like it lies in other places too"),
    "surface": Sign(0.07, -0.05, False, "the photographs may show a surface"),
    "edge": Sign(1.5, 1.0, False, "its outlines do not lie on edges"),
    "spread": Sign(0.4, -0.3, False, "its size differs from photograph to photograph"),
    "rim": Sign(0.15, -0.1, False, "it fills much of the rim of the photographs"),
}


class Check(NamedTuple):
    """What is made of what was found.

    Attributes:
        use: "found", or "whole": the photographs are taken whole.
        trust: how much speaks for the masks, in [0, 1]; no probability.
        reason: why not to use them; "" where they are used.
    """

    use: str
    trust: float
    reason: str


def evidence(signs: dict[str, float]) -> dict[str, float]:
    """What each of SIGNS says for what was found, in [-LIMIT, LIMIT]."""
    said = {}
    for name, sign in SIGNS.items():
        most = LIMIT if sign.vouches else WARNS
        said[name] = min(max((signs[name] - sign.middle) / sign.unit, -LIMIT), most)
    return said


def judge(signs: dict[str, float]) -> Check:
    """Judge what was found by its signs, see `choice.find`."""
    if signs["figure"] < OBJECT or signs["surface"] > SURFACE:
        return Check("whole", 0.0, "the photographs show a surface, no part before a background")
    if not AREA[0] < signs["area"] < AREA[1]:
        return Check("whole", 0.0, "it fills nearly nothing or nearly everything")
    told, weights = evidence(signs), {name: VOUCHES if sign.vouches else 1.0 for name, sign in SIGNS.items()}
    mean = sum(weights[name] * value for name, value in told.items()) / sum(weights.values())
    trust = 1 / (1 + math.exp(-STEEP * mean))
    worst = min(told, key=lambda name: weights[name] * told[name])
    return Check("found", trust, "") if trust >= TRUSTED else Check("whole", trust, SIGNS[worst].doubt)
