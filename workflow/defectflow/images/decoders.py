"""Picture files as Pillow opens them: which format needs another package, and how many pictures a file holds."""

import os
import struct
import warnings
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from PIL import EpsImagePlugin, Image, ImageSequence, UnidentifiedImageError

from defectflow.core.files import UserError
from defectflow.images import floats, pam
from defectflow.images.formats import HEIC, content_suffix

EpsImagePlugin.gs_binary = False  # PostScript is a program: Pillow would let Ghostscript run what a file says
pam.register()
floats.register()
with suppress(ImportError):  # optional: it contains a decoder of 15 MB that only files of phones need
    import_module("pillow_heif").register_heif_opener()

# What Pillow's decoders raise for a file that is damaged or of an unsupported kind.
UNREADABLE = (
    OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError,
    struct.error, Image.DecompressionBombError,
)  # fmt: skip
# Files of these formats may hold several pictures of equal rank; in others those behind the first are thumbnails,
# layers or other views of it.
SEQUENCES = ("GIF", "PNG", "WEBP", "AVIF", "TIFF", "DCX")


def unreadable(path: str | Path, error: Exception) -> UserError:
    """The error for a file that Pillow cannot open or decode: the reason, and the remedy if one is known."""
    if isinstance(error, floats.NoRange):
        return UserError(f"{path}: {error}")
    try:
        found = content_suffix(path)
        if not os.path.getsize(path):
            return UserError(f"{path}: not a readable image (the file is empty; copy it again)")
    except OSError:
        found = ""
    if found in HEIC and isinstance(error, UnidentifiedImageError):
        return UserError(f"{path}: a HEIC picture needs pillow-heif (pip install pillow-heif, or convert it to JPEG)")
    if found and isinstance(error, UnidentifiedImageError):
        what = f"a {found[1:].upper()} picture that is damaged, or of a kind that is not read here"
        return UserError(f"{path}: {what} (save it again as JPEG or PNG)")
    if "Ghostscript" in str(error):
        return UserError(f"{path}: its content is PostScript, which is not read (save it as JPEG or PNG)")
    why = "its content is no picture" if isinstance(error, UnidentifiedImageError) else error
    return UserError(f"{path}: not a readable image ({why})")


def pictures_in(path: str | Path) -> int:
    """How many pictures of the size of the first a file holds: frames of an animation, pages; 1 for a single one.

    Decodes only headers if the format allows it; 1 also for a file that is not an image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
        with image:
            if image.format not in SEQUENCES or (frames := int(getattr(image, "n_frames", 1))) == 1:
                return 1
            if image.format != "TIFF":
                return frames
            first = image.size
            return sum(page.size == first for page in ImageSequence.Iterator(image))
    except UNREADABLE:
        return 1
