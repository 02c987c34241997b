"""Whether to trust a part that was found without an outline: one figure made of signs, and the reason against it."""

import math
from typing import NamedTuple

OBJECT, SURFACE = 0.3, 0.5  # of the figure: its maximum below which, and its doubt above which, there is no part
TRUSTED = 0.6  # trust below which photographs are taken whole: doubts 2 of 10 sound sets of those it was learned from
AREA = (0.005, 0.85)  # shares of the photograph that a part may fill
LITTLE_BACKGROUND = 0.45  # share from which masks are not used: what they cut off by mistake costs more than they gain
LIMIT = 2.5  # units at most that a sign counts away from its middle: none decides alone


class Sign(NamedTuple):
    """One sign of `choice.find`.

    Attributes:
        middle, unit: its mean and standard deviation over the sets that weights were learned from.
        weight: what one unit adds to the log-odds.
        doubt: what it says where it speaks against the part.
    """

    middle: float
    unit: float
    weight: float
    doubt: str


# benchmarks/part_trust.py --fit: logistic regression on 65 sets with known masks; docs/parts.md has what it is
# worth on others.
INTERCEPT = 0.86
SIGNS = {
    "maps": Sign(0.677, 0.126, 0.29, "different ways to find it disagree"),
    "learned": Sign(0.912, 0.071, 1.21, "what is learned from it finds something else"),
    "doubt": Sign(0.085, 0.047, -0.74, "figure and ground are hard to tell apart"),
    "head": Sign(0.832, 0.238, 0.72, "figure and ground lie elsewhere"),
}


class Check(NamedTuple):
    """What is made of what was found.

    Attributes:
        use: "found", or "whole": the photographs are taken whole.
        trust: probability that the masks are right (mean IoU of 0.7 or more) among sets as those that it was learned
            from.
        reason: why not to use them; "" where they are used.
    """

    use: str
    trust: float
    reason: str


def evidence(signs: dict[str, float]) -> dict[str, float]:
    """What each of SIGNS adds to the log-odds of the masks being right."""
    return {
        name: sign.weight * min(max((signs[name] - sign.middle) / sign.unit, -LIMIT), LIMIT)
        for name, sign in SIGNS.items()
    }


def shows_surface(figure: float, surface: float) -> bool:
    """Whether photographs show no part before a background, by the medians of what `part-nano` says of them.

    Args:
        figure: largest probability of a thing in a photograph.
        surface: probability that there is none.
    """
    return figure < OBJECT or surface > SURFACE


def judge(signs: dict[str, float]) -> Check:
    """Judge what was found by its signs, see `choice.find`."""
    if shows_surface(signs["figure"], signs["surface"]):
        return Check("whole", 0.0, "the photographs show a surface, no part before a background")
    if not AREA[0] < signs["area"] < AREA[1]:
        return Check("whole", 0.0, "it fills nearly nothing or nearly everything")
    if signs["area"] > LITTLE_BACKGROUND:
        return Check(
            "whole", 0.0, "what was found fills much of the photographs, and little background is left to cut away"
        )
    told = evidence(signs)
    trust = 1 / (1 + math.exp(-INTERCEPT - sum(told.values())))
    worst = min(told, key=lambda name: told[name])
    return Check("found", trust, "") if trust >= TRUSTED else Check("whole", trust, SIGNS[worst].doubt)
