"""How many bits the values of a 16-bit file use.

Cameras of 10, 12 or 14 bits write 16-bit files, with the numbers at the lower end (largest value of 12 bits: 4095) or
at the upper end ("left-aligned": the low bits are always zero). A file does not say which, so `set_depth` looks at all
files of a set. A depth is written as text: "8", "10", "12", "14", "16", or, left-aligned, "12-left" and the like.

Standard library only: the Snakefile imports this module.
"""

import argparse
import re
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

DEPTHS = (8, 10, 12, 14, 16)
DEPTH_NAMES = (*map(str, DEPTHS), *(f"{bits}-left" for bits in DEPTHS[:-1]))
HEADER = 4096  # bytes of a PGM, PPM or PAM file in which its largest value is looked for: comments may come first


class Values(NamedTuple):
    """Statistics of the values of one 16-bit file.

    Attributes:
        largest: largest value.
        zero_bits: lowest bits that no value uses; 16 where all are 0.
        at_top: pixels whose upper 8 bits, counted from the largest value's highest bit of a depth, are full.
        stretched: whether all are multiples of 257, as 8 bits stretched to 16 are.
    """

    largest: int
    zero_bits: int
    at_top: int
    stretched: bool

    @classmethod
    def of(cls, text: str) -> "Values":
        """From the text that `sixteen_bit.measured` gives."""
        largest, zero_bits, at_top, stretched = map(int, text.split())
        return cls(largest, zero_bits, at_top, bool(stretched))


def is_deep(path: str | Path) -> bool:
    """Whether the header of a PNG, TIFF, PGM, PPM or PAM file declares more than 8 bits per value; False for others."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(26)
            if head[:1] == b"P" and head[1:2] in b"23567" and head[2:3].isspace():
                return _largest_of_netpbm(head + stream.read(HEADER)) > 255
            if head[:8] == b"\x89PNG\r\n\x1a\n":
                return len(head) > 24 and head[24] > 8
            order = {b"II": "<", b"MM": ">"}.get(head[:2])
            if order is None or len(head) < 16:
                return False
            version = struct.unpack(f"{order}H", head[2:4])[0]
            if version == 42:  # classic TIFF
                return _tiff_bits(stream, order, struct.unpack(f"{order}I", head[4:8])[0], "H", 12, "I") > 8
            if version == 43:  # BigTIFF
                return _tiff_bits(stream, order, struct.unpack(f"{order}Q", head[8:16])[0], "Q", 20, "Q") > 8
    except (OSError, struct.error):
        pass
    return False


def _largest_of_netpbm(head: bytes) -> int:
    """The largest value that the header of a PGM, PPM or PAM file declares; 0 if it declares none."""
    plain = re.sub(rb"#[^\n]*", b"", head)
    found = (
        re.search(rb"\nMAXVAL\s+(\d+)", plain) if head[:2] == b"P7" else re.match(rb"P\d\s+\d+\s+\d+\s+(\d+)", plain)
    )
    return int(found[1]) if found else 0


def _tiff_bits(stream: BinaryIO, order: str, offset: int, count: str, size: int, number: str) -> int:
    """BitsPerSample (tag 258) of the first directory of a TIFF file; 1 where it has none."""
    stream.seek(offset)
    (entries,) = struct.unpack(order + count, stream.read(struct.calcsize(order + count)))
    for _ in range(min(entries, 1000)):
        entry = stream.read(size)
        if struct.unpack(f"{order}H", entry[:2])[0] == 258:
            (samples,) = struct.unpack(order + number, entry[4 : 4 + struct.calcsize(order + number)])
            place = 4 + struct.calcsize(order + number)
            if 2 * samples > size - place:
                stream.seek(struct.unpack(order + number, entry[place:])[0])
                return int(struct.unpack(f"{order}H", stream.read(2))[0])
            return int(struct.unpack(f"{order}H", entry[place : place + 2])[0])
    return 1


def add_option(parser: argparse.ArgumentParser) -> None:
    """The option --depth of a stage that reads photographs."""
    text = "bits that the numbers of 16-bit files hold, e.g. 12 or 12-left (the full range)"
    parser.add_argument("--depth", metavar="BITS", help=text)


def parsed(depth: str) -> tuple[int, bool]:
    """Bits of a depth given as text, and whether it is left-aligned."""
    bits, _, side = depth.partition("-")
    return int(bits), side == "left"
