"""Whether to trust a part that was found without an outline: one calibrated figure, and the reason against it."""

from typing import NamedTuple

from defectflow.finding.choice import Found

TRUSTED = 0.5  # trust below which the photographs are taken whole


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


def judge(found: Found) -> Check:
    """Judge what was found."""
    signs = found.signs
    if signs["figure"] < 0.3:
        return Check("whole", 0.0, "no photograph shows an object before a background")
    doubts = {
        "edge": (signs["edge"] < 1.2, "the outlines do not lie on edges"),
        "seeds": (signs["seeds"] < 0.6, "different ways to find it disagree"),
        "agreement": (signs["agreement"] < 0.6, "what looks like it lies in different places"),
        "area": (not 0.01 < signs["area"] < 0.85, "it fills nearly nothing or nearly everything"),
        "spread": (signs["spread"] > 0.5, "its size differs from photograph to photograph"),
    }
    said = [text for bad, text in doubts.values() if bad]
    return Check("whole" if said else "found", 0.2 if said else 0.9, said[0] if said else "")
