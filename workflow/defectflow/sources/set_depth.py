"""The bit depth of a data set: one depth for all 16-bit files, found from their largest values.

Standard library only: the Snakefile imports this module.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from defectflow.images.bit_depth import DEPTHS, Values, parsed
from defectflow.sources.dataset import Notice, Problem

if TYPE_CHECKING:
    from defectflow.images.image_checks import Picture

SATURATED = 10  # pixels at the top of a depth from which a picture counts as saturated there
GAP = 8  # the largest values of one camera's pictures differ by less than this factor
APART = 2.5  # the same if some pictures are darker than all others: too uncertain to stop
FEW = 4  # with fewer pictures, one may be darker than the others without a notice
NAMED = 20  # files that a notice names
REMEDY = "save it in one depth with the others, or name that of the camera: bit_depth of the data set"


class Decision(NamedTuple):
    """What the 16-bit files of a data set are read as.

    Attributes:
        depth: "" where there is no such file.
        text: what was chosen and why, "" where the full range of 16 bits is used.
        sure: whether the largest value fills at least half of that range.
        odd: {name: why} of the files with values of another depth.
    """

    depth: str
    text: str
    sure: bool
    odd: dict[str, str]


def decide(files: Mapping[str, Values], asked: str = "auto") -> Decision:
    """The depth of a set of 16-bit files, one for all of them.

    Args:
        files: values of each, by name.
        asked: "auto", or the bits that the user gives: then only the alignment is derived from the values.
    """
    if not files:
        return Decision("", "", True, {})
    odd = {}
    if asked == "auto":
        odd = _odd(files)
        files = {name: values for name, values in files.items() if name not in odd}
    largest = max(values.largest for values in files.values())
    zero_bits = min(values.zero_bits for values in files.values())
    if asked != "auto":
        bits = int(asked)
        left = bits < 16 and largest >= 1 << bits and zero_bits >= 16 - bits
        odd = {} if left else {name: _too_large(v.largest, bits) for name, v in files.items() if v.largest >= 1 << bits}
        depth = f"{bits}-left" if left else str(bits)
        text = f"read as {_told(depth)}, as bit_depth of the data set says"
        return Decision(depth, "" if depth == "16" else text, True, odd)
    depth = _depth(files.values())
    bits, left = parsed(depth)
    white = ((1 << bits) - 1) << (16 - bits if left else 0)
    sure = not largest or 2 * largest > white
    odd = {name: f"{text}; most others hold {_told(depth)}" for name, text in odd.items()}
    if depth == "16":
        return Decision(depth, "", True, odd)
    text = f"read as {_told(depth)}: the largest value of all is {largest}"
    if left:
        text += f", and the lowest {min(zero_bits, 16 - bits)} bits are always 0"
    if not left:
        more = " or ".join(str(other) for other in DEPTHS if other > bits)
        text += "" if sure else ", which a deeper camera also gives in the dark"
        text += f" (if the camera has more bits, set bit_depth of the data set to {more})"
    return Decision(depth, text, sure, odd)


def _depth(files: Iterable[Values]) -> str:
    """Depth of files that are alike."""
    files = [values for values in files if values.largest]
    if not files or all(values.stretched for values in files):
        return "16"
    largest, zero_bits = max(values.largest for values in files), min(values.zero_bits for values in files)
    bits = _bits_for(largest)
    could_be_left = zero_bits >= 2 and largest >> (16 - zero_bits) > 0
    if could_be_left and (bits == 16 or 2 * largest <= 1 << bits):
        return f"{max(8, 16 - zero_bits // 2 * 2)}-left"
    return str(bits)


def _odd(files: Mapping[str, Values]) -> dict[str, str]:
    """Files whose values clearly have another depth than most; the depth of most files is that of the set."""
    kinds = _by_steps(files) or {name: kind for name, values in files.items() if (kind := _evident(values))}
    counts = Counter(kinds.values())
    if len(counts) > 1:
        most = max(counts, key=lambda kind: (counts[kind], kind))
        odd = {name: kind for name, kind in kinds.items() if kind != most}
        if most < 16:
            odd |= {name: _bits_for(v.largest) for name, v in files.items() if v.largest >= 1 << most}
        return {name: f"its largest value is {files[name].largest}, as of {kind} bits" for name, kind in odd.items()}
    ordered = sorted((values.largest, name) for name, values in files.items() if values.largest)
    for place in range(1, len(ordered)):
        below, above = ordered[place - 1][0], ordered[place][0]
        if above >= GAP * below and _bits_for(above) - _bits_for(below) >= 4:
            low, high = ordered[:place], ordered[place:]
            few = low if len(low) <= len(high) else high
            rest = f"the others' are {above} or more" if few is low else f"the others' are {below} or less"
            return {name: f"its largest value is {value}, {rest}" for value, name in few}
    return {}


def _by_steps(files: Mapping[str, Values]) -> dict[str, int]:
    """Bits of files that are all 8-bit values shifted up by different numbers of bits; {} if they are not."""
    moved = {name: values for name, values in files.items() if values.largest and not values.stretched}
    steps = {values.zero_bits for values in moved.values()}
    if len(steps) < 2 or not all(v.zero_bits >= 2 and v.largest < 1 << (v.zero_bits + 8) for v in moved.values()):
        return {}
    kinds = {name: values.zero_bits + 8 for name, values in moved.items()}
    return kinds if set(kinds.values()) <= set(DEPTHS) else {}


def darker(files: Mapping[str, Values]) -> tuple[list[str], int, int]:
    """Pictures whose largest values are far below those of all others and would fit a smaller depth.

    Returns:
        Their names, the largest value of them, and the smallest largest value of the others; ([], 0, 0) for none.
    """
    ordered = sorted((values.largest, name) for name, values in files.items() if values.largest)
    if len(ordered) < FEW:
        return [], 0, 0
    for place in range(1, len(ordered)):
        below, above = ordered[place - 1][0], ordered[place][0]
        if above >= APART * below and _bits_for(below) < _bits_for(above):
            return [name for _, name in ordered[:place]], below, above
    return [], 0, 0


def _evident(values: Values) -> int:
    """Bits that a single file proves: 16 (also left-aligned), 8 to 14 if it is saturated; else 0."""
    if values.largest > 0x3FFF or (values.stretched and values.largest):
        return 16
    bits = _bits_for(values.largest)
    full = values.largest >> (bits - 8) == 255
    return bits if full and values.at_top >= SATURATED else 0


def _bits_for(largest: int) -> int:
    return next(bits for bits in DEPTHS if largest < 1 << bits)


def _too_large(largest: int, bits: int) -> str:
    return f"its largest value is {largest}, and {bits} bits hold {(1 << bits) - 1} at most"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _told(depth: str) -> str:
    bits, left = parsed(depth)
    return f"{bits} bits, left-aligned in 16" if left else f"{bits} bits"


def check_depths(
    pictures: Mapping[str, "Picture"], depth: str | None, given: bool
) -> tuple[list[Problem], list[Notice]]:
    """Notices on how 16-bit files were read, and problems of files with another depth than most.

    Args:
        pictures: `image_checks.Picture` of each image.
        depth: what the set was read as, or None.
        given: whether the config gives the bit depth.
    """
    deep = {name: Values.of(picture.deep) for name, picture in pictures.items() if picture.deep}
    if not depth or not deep:
        return [], []
    decision = decide(deep, depth.partition("-")[0] if given else "auto")
    problems = [Problem(name, f"{text} ({REMEDY})", "image") for name, text in sorted(decision.odd.items())]
    notices = []
    if decision.text:
        text = f"{len(deep) - len(decision.odd)} of {len(pictures)} are {decision.text}"
        notices.append(Notice("16-bit photographs", text, "" if decision.sure else "verdicts"))
    low, below, above = darker({name: values for name, values in deep.items() if name not in decision.odd})
    if low and not given:
        text = (
            f"{len(low)} of {len(deep)} have no value above {below}, each of the others one of {above} or more: are "
            f"they of another depth, or only dark? {_listed(low)} (of another depth: save all in one; dark: name the "
            "bits, bit_depth)"
        )
        notices.append(Notice("16-bit photographs", text, "verdicts"))
    shallow = sorted(name for name, picture in pictures.items() if not picture.deep and not picture.problem)
    if shallow:
        few, which = (shallow, "8-bit") if len(shallow) <= len(deep) else (sorted(deep), "16-bit")
        text = (
            f"{len(few)} of {len(shallow) + len(deep)} files are {which} ones, the others are not: {_listed(few)}. Of "
            f"{_told(depth)} the upper 8 are used, as the 8-bit mode of a camera gives them"
        )
        notices.append(Notice("16-bit photographs", text, "verdicts"))
    return problems, notices
