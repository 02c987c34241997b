"""Whether to trust a part that was found without an outline: one calibrated figure, and the reason against it."""

from typing import NamedTuple

OBJECT, SURFACE = 0.3, 0.5  # of the figure: its maximum below which, and its doubt above which, there is no part
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


SIGNS = ("edge", "maps", "head", "stability", "agreement", "spread", "figure", "rim", "learned", "doubt", "surface")


def evidence(signs: dict[str, float]) -> list[float]:
    """Signs in the order of SIGNS, each limited to about [0, 1]."""
    limits = {"edge": 5.0, "spread": 1.0, "doubt": 0.3}
    return [min(max(signs[name] / limits.get(name, 1.0), 0.0), 1.0) for name in SIGNS]


def judge(signs: dict[str, float]) -> Check:
    """Judge what was found by its signs, see `choice.find`."""
    if signs["figure"] < OBJECT or signs["surface"] > SURFACE:
        return Check("whole", 0.0, "the photographs show a surface, no part before a background")
    doubts = [
        (signs["edge"] < 1.0, "its outlines do not lie on edges"),
        (signs["maps"] < 0.4, "different ways to find it disagree"),
        (signs["agreement"] < 0.6, "what looks like it lies in different places"),
        (not 0.005 < signs["area"] < 0.85, "it fills nearly nothing or nearly everything"),
        (signs["spread"] > 0.5, "its size differs from photograph to photograph"),
    ]
    said = [text for bad, text in doubts if bad]
    return Check("whole" if said else "found", 0.2 if said else 0.9, said[0] if said else "")
