"""How heat is drawn: colours, their range, opacity; also as command-line options of a stage."""

import argparse
from dataclasses import dataclass, fields
from typing import Any

from defectflow.core.files import UserError

COLOURS = ("inferno", "magma", "plasma", "viridis", "cividis", "turbo", "jet", "gray")
ALPHA_MODES = ("excess", "heat", "constant")


@dataclass(frozen=True)
class Look:
    """How anomaly maps look; none of it changes a figure, a verdict, an outline or a box.

    Attributes:
        colours: matplotlib's colour map, one of COLOURS. The first five are safe for the colour-blind and in print.
        vmax_quantile: quantile of all maps of the run where the colours end, in (0, 1]; the colour of the level that is
            outlined stays below the end.
        gamma: exponent on the values between the ends; below 1 brightens faint heat.
        blur: sigma of another Gaussian on the heat, in pixels of a picture whose longer side has 256; 0 for none.
        alpha_mode: which part of an overlay is covered by heat, and how much: "excess" begins where good images end
            and is full at the level that is outlined; "heat" follows the colour, over the whole frame; "constant"
            covers all beyond what good images reach alike.
        alpha_min, alpha_max: opacity where heat begins and where it is full, 0 to 1.
        opacity: of all heat together; 0 leaves the outlines alone.
    """

    colours: str = "inferno"
    vmax_quantile: float = 0.999
    gamma: float = 1.0
    blur: float = 0.0
    alpha_mode: str = "excess"
    alpha_min: float = 0.0
    alpha_max: float = 0.6
    opacity: float = 1.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add an option for each attribute of `Look`."""
    choices = {"colours": COLOURS, "alpha_mode": ALPHA_MODES}
    told = {
        "colours": "colour map",
        "vmax_quantile": "quantile of the maps where the colours end",
        "gamma": "exponent on the heat, below 1 brightens faint heat",
        "blur": "sigma of another Gaussian, pixels at a longer side of 256",
        "alpha_mode": "where overlays show heat",
        "alpha_min": "opacity where heat begins",
        "alpha_max": "opacity where it is full",
        "opacity": "of all heat",
    }
    group = parser.add_argument_group("look of the heat")
    for field in fields(Look):
        kind: dict[str, Any] = {"choices": choices[field.name]} if field.name in choices else {"type": float}
        flag = f"--{field.name.replace('_', '-')}"
        group.add_argument(flag, default=field.default, help=f"{told[field.name]} (%(default)s)", **kind)


def look_of(args: argparse.Namespace) -> Look:
    """The look that the options describe.

    Raises:
        UserError: a number is out of its range.
    """
    look = Look(**{field.name: getattr(args, field.name) for field in fields(Look)})
    checks = (
        ("vmax_quantile", 0 < look.vmax_quantile <= 1, "above 0 and at most 1"),
        ("gamma", look.gamma > 0, "above 0"),
        ("blur", look.blur >= 0, "0 or more"),
        ("alpha_min", 0 <= look.alpha_min <= look.alpha_max, "from 0 to alpha_max"),
        ("alpha_max", look.alpha_max <= 1, "at most 1"),
        ("opacity", 0 <= look.opacity <= 1, "from 0 to 1"),
    )
    for name, holds, meant in checks:
        if not holds:
            raise UserError(f"--{name.replace('_', '-')} {getattr(look, name):g}: must be {meant}")
    return look
