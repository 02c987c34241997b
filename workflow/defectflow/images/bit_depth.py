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
BITS, ORIENTATION, SAMPLES, SAMPLE_FORMAT = 258, 274, 277, 339  # tags of TIFF (TIFF 6.0, sections 4 and 19)
SHORT, IS_FLOAT = 3, 3
JPEG2000 = b"\xff\x4f\xff\x51"  # start of a codestream; in a .jp2 it lies in a box
FIRST_COMPONENT = 42  # bytes from there to the depth of the first component (ISO/IEC 15444-1, A.5.1)
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
        """From the text that `sixteen_to_eight_bits.measured` gives."""
        largest, zero_bits, at_top, stretched = map(int, text.split())
        return cls(largest, zero_bits, at_top, bool(stretched))


def is_deep(path: str | Path) -> bool:
    """Whether the header of a PNG, TIFF, PGM, PPM or PAM file declares more than 8 bits per value; False for others.

    True for JPEG 2000 that declares 16 or more: 9 to 15 are its depth, and its decoder stretches them to 16.
    """
    try:
        with open(path, "rb") as stream:
            head = stream.read(26)
            if head[:1] == b"P" and head[1:2] in b"23567" and head[2:3].isspace():
                return _largest_of_netpbm(head + stream.read(HEADER)) > 255
            if head[:8] == b"\x89PNG\r\n\x1a\n":
                return len(head) > 24 and head[24] > 8
            if head[4:8] == b"jP  " or head[:4] == JPEG2000:
                return _bits_of_jpeg2000(stream) >= 16
            tags = tiff_tags(stream)
            return tags.get(BITS, 1) > 8 and tags.get(SAMPLE_FORMAT) != IS_FLOAT
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


def _bits_of_jpeg2000(stream: BinaryIO) -> int:
    """The bits that the first component of a JPEG 2000 file declares; 0 for signed ones, or without a codestream.

    Raises:
        struct.error: the file ends within a header.
    """
    place = 0
    stream.seek(place)
    if stream.read(4) != JPEG2000:
        kind = b""
        while kind != b"jp2c":  # I.4: boxes, each with its length
            stream.seek(place)
            length, kind = struct.unpack(">I4s", stream.read(8))
            head = 8
            if length == 1:
                (length,), head = struct.unpack(">Q", stream.read(8)), 16
            if kind != b"jp2c" and length < head:
                return 0
            place += head if kind == b"jp2c" else length
    stream.seek(place + FIRST_COMPONENT)
    (depth,) = struct.unpack("B", stream.read(1))
    return 0 if depth & 0x80 else int(depth) + 1


def tiff_tags(stream: BinaryIO) -> dict[int, int]:
    """The numbers of the first directory of a TIFF or BigTIFF file, {tag: first value}; {} for any other file.

    Raises:
        struct.error: the file ends within the directory.
    """
    order, places = tiff_places(stream)
    tags = {}
    for tag, place in places.items():
        stream.seek(place)
        tags[tag] = int(struct.unpack(f"{order}H", stream.read(2))[0])
    return tags


def tiff_places(stream: BinaryIO) -> tuple[str, dict[int, int]]:
    """Byte order ("<" or ">") of a TIFF or BigTIFF file, and where the first value of each tag of 16-bit numbers is.

    Returns:
        {tag: offset in bytes} of the first directory; {} for any other file.

    Raises:
        struct.error: the file ends within the directory.
    """
    stream.seek(0)
    head = stream.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 16:
        return "", {}
    version = struct.unpack(f"{order}H", head[2:4])[0]
    if version == 42:
        offset, count, size, number = struct.unpack(f"{order}I", head[4:8])[0], "H", 12, "I"
    elif version == 43:  # BigTIFF
        offset, count, size, number = struct.unpack(f"{order}Q", head[8:16])[0], "Q", 20, "Q"
    else:
        return "", {}
    stream.seek(offset)
    (entries,) = struct.unpack(order + count, stream.read(struct.calcsize(order + count)))
    begin, places = stream.tell(), {}
    for row, data in enumerate([stream.read(size) for _ in range(min(entries, 1000))]):
        tag, kind = struct.unpack(f"{order}HH", data[:4])
        place = 4 + struct.calcsize(order + number)
        (samples,) = struct.unpack(order + number, data[4:place])
        if kind == SHORT:
            inside = 2 * samples <= size - place
            places[tag] = begin + row * size + place if inside else struct.unpack(order + number, data[place:])[0]
    return order, places


def add_option(parser: argparse.ArgumentParser) -> None:
    """The option --depth of a stage that reads photographs."""
    text = "bits that the numbers of 16-bit files hold, e.g. 12 or 12-left (the full range)"
    parser.add_argument("--depth", metavar="BITS", help=text)


def parsed(depth: str) -> tuple[int, bool]:
    """Bits of a depth given as text, and whether it is left-aligned."""
    bits, _, side = depth.partition("-")
    return int(bits), side == "left"
