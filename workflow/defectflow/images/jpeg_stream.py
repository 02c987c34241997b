"""JPEG files decoded by OpenCV: the pixels that Pillow gives, sooner. Files that are not whole are left to Pillow."""

import re

import cv2
import numpy as np

START, END, SCAN = 0xD8, 0xD9, 0xDA
# In the data of a scan, 255 is followed by 0; restart markers belong to the data too (ITU-T T.81, B.1.1).
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def decode(content: bytes) -> np.ndarray | None:
    """uint8 RGB (height, width, 3) of the content of a JPEG file, as stored; None unless all of it is there.

    OpenCV fills what is missing with grey and says nothing, and Pillow refuses such a file. Both use libjpeg-turbo,
    so that the pixels of a whole file are the same for grey and RGB pictures (not CMYK).
    """
    if not is_whole(content):
        return None
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    return image


def is_whole(content: bytes) -> bool:
    """Whether the segments of a JPEG follow each other, with at least one scan, up to the marker of the end."""
    at, scanned = 0, False
    try:
        while True:
            if content[at] != 0xFF:
                return False
            while content[at] == 0xFF:  # any number of them may stand before a marker
                at += 1
            marker = content[at]
            at += 1
            if marker == START:
                continue
            if marker == END:
                return scanned
            at += int.from_bytes(content[at : at + 2])
            if marker == SCAN:
                scanned = True
                found = MARKER.search(content, at)
                if found is None:
                    return False
                at = found.start()
    except IndexError:
        return False
