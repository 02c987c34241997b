"""Pictures in and out: upright RGB, binary masks, letterboxing."""

import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION

from defectflow.core.files import UserError, atomic
from defectflow.images import floats, jpeg_stream
from defectflow.images.bit_depth import is_deep
from defectflow.images.decoders import UNREADABLE, unreadable
from defectflow.images.formats import ARCHIVES, RAW, unread
from defectflow.images.sixteen_to_eight_bits import numbers_of, to_8_bits, whole_numbers

TURN_PNG = (
    b"eXIf",
    b"Raw profile type exif",
    b"XML:com.adobe.xmp",
)  # all places that may hold the orientation of a PNG
JPEG_SIDE = 65500  # pixels: the limit of libjpeg
# Colours at full resolution: at half, thin outlines fringe.
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 92, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]


def read_rgb(path: str | Path, depth: str | None = None) -> np.ndarray:
    """Read a photograph upright (EXIF orientation applied) as uint8 RGB of shape (height, width, 3).

    Args:
        path: the file.
        depth: bits that the numbers of a 16-bit file (see `bit_depth.is_deep`) hold: the upper 8 are taken. None: the
            full range of 16 bits. Files of 8 bits are read as they are.

    Raises:
        UserError: the file is absent, truncated or not an image, or its values have no known range or do not fit the
            depth.
    """
    try:
        # Opened here, since a TIFF that Pillow maps into memory is scrambled when it is turned by 90 degrees.
        with open(path, "rb") as file, Image.open(file) as image:
            if depth and is_deep(path):
                return _read_deep(image, path, depth)
            if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L") and orientation_of(image) == 1:
                begin = file.tell()
                file.seek(0)
                if (pixels := jpeg_stream.decode(file.read())) is not None:
                    return pixels
                file.seek(begin)
            ImageOps.exif_transpose(image, in_place=True)  # a copy of 100 megapixels would take 400 MB
            if image.mode == "F":
                return _grey_as_rgb(floats.to_8_bits(np.asarray(image)), image)
            if image.mode.startswith("I"):
                return _grey_as_rgb((whole_numbers(image, path).astype(np.float32) / 257).astype(np.uint8), image)
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UNREADABLE as error:
        raise unreadable(path, error) from None


def read_photograph(path: str | Path, depth: str | None = None) -> np.ndarray:
    """`read_rgb` for files from anywhere: whatever a decoder raises becomes a UserError.

    ``depth``: see `read_rgb`; 16-bit files that cannot be of it are refused, files of 8 bits never. Of an animation
    or a file of several pages the first picture is taken. Images of more than 178 megapixels are refused before they
    are decoded.
    """
    if Path(path).suffix.lower() in (*RAW, *ARCHIVES):  # of a raw file Pillow would give the thumbnail
        raise UserError(f"{path}: {unread(path).reason}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return read_rgb(path, depth)
    except UserError:
        raise
    except Exception as error:  # decoders raise all kinds of exceptions for damaged files
        raise UserError(f"{path}: not a readable image ({type(error).__name__}: {error})") from None


def read_checked(path: str | Path) -> np.ndarray:
    """`read_rgb` of an 8-bit file that an earlier stage has fully read or written, 1.1 to 1.8 times faster.

    Uses OpenCV if it decodes exactly the same pixels (`is_plain`). OpenCV silently fills missing parts of a damaged
    file with grey: read files of unknown origin with `read_photograph` or `read_rgb`.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION) if is_plain(path) else None
    return read_rgb(path) if image is None else image


def _read_deep(image: Image.Image, path: str | Path, depth: str) -> np.ndarray:
    """An opened file of more than 8 bits as `read_rgb` returns it."""
    grey = image.mode.startswith("I")
    if image.format == "PNG":
        image.load()  # its orientation may come after the pixels
    exif = image.getexif()  # loading a TIFF turns it, and takes the orientation out
    if grey:
        ImageOps.exif_transpose(image, in_place=True)
    try:
        values = to_8_bits(numbers_of(image, path), depth)
    except ValueError as error:
        raise UserError(f"{path}: {error} (save it in the depth of the others, or as 8 bits)") from None
    if grey:
        return _grey_as_rgb(values, image)
    reduced = Image.fromarray(values)
    reduced.getexif()[ExifTags.Base.Orientation] = exif.get(ExifTags.Base.Orientation, 1)
    ImageOps.exif_transpose(reduced, in_place=True)
    return np.asarray(reduced.convert("RGB"))


def _grey_as_rgb(grey: np.ndarray, image: Image.Image) -> np.ndarray:
    """Values of an opened file reduced to uint8 (height, width) as RGB (height, width, 3).

    They are inverted where a TIFF says that 0 is white (TIFF 6.0, PhotometricInterpretation): Pillow does so up to 8
    bits only. The depth of the set, and not that of the file, says which value is black.
    """
    white_is_zero = image.format == "TIFF" and getattr(image, "tag_v2", {}).get(PHOTOMETRIC_INTERPRETATION) == 0
    return np.asarray(Image.fromarray(255 - grey if white_is_zero else grey).convert("RGB"))


def is_plain(path: str | Path) -> bool:
    """Whether OpenCV decodes a file to what `read_rgb` returns: JPEG or PNG, grey or RGB, stored upright.

    Only the header is decoded; False for a file that is not an image.
    """
    try:
        with Image.open(path) as image:
            if image.format not in ("JPEG", "MPO", "PNG") or image.mode not in ("RGB", "L"):
                return False
            if image.format == "PNG":  # asked for the orientation, Pillow decodes all of it
                data = Path(path).read_bytes()
                return not any(mark in data for mark in TURN_PNG)
            return orientation_of(image) == 1
    except UNREADABLE:
        return False


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8, that the size in the header of an opened image leaves out."""
    if image.format == "TIFF" and ExifTags.Base.Orientation in getattr(image, "tag_v2", ()):
        return 1  # Pillow gives the size of the turned picture, unless the orientation is in XMP only
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    return orientation if orientation in range(1, 9) else 1


def read_mask(path: str | Path) -> np.ndarray:
    """Read a mask as bool of shape (height, width): every non-zero pixel is inside.

    Raises:
        UserError: the file is absent or not an image.
    """
    # If OpenCV converted it to grey or 8 bits, faint pixels would become 0.
    mask = cv2.imread(str(path), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
    if mask is None:
        raise UserError(f"{path}: not a readable mask image")
    # Colour masks take 30 times as long with mask.any(axis=2).
    return cv2.inRange(mask, (0, 0, 0), (0, 0, 0)) == 0 if mask.ndim == 3 else mask > 0


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Write uint8 RGB (height, width, 3), uint8 grey (height, width) or a bool mask (as 0/255) as PNG, atomically."""
    if image.dtype == bool:
        image = image.astype(np.uint8) * 255
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    with atomic(path) as temporary:
        # Encoded first, because imwrite reports no error on a full disk. OpenCV's own choice (differences of
        # neighbours, runs of equal bytes) takes half the time of level 1 and a tenth more space.
        temporary.write_bytes(cv2.imencode(".png", image)[1].data)


def write_jpeg(path: str | Path, image: np.ndarray) -> None:
    """Write uint8 RGB (height, width, 3) as JPEG, atomically, for people to look at: lines keep their colours.

    A picture with a side longer than a JPEG may have is written smaller.
    """
    if max(image.shape[:2]) > JPEG_SIDE:
        scale = JPEG_SIDE / max(image.shape[:2])
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    with atomic(path) as temporary:
        temporary.write_bytes(cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), JPEG)[1].data)


def letterbox(
    image: np.ndarray, size: tuple[int, int], fill: int | tuple[int, int, int] = 0, *, rim: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Resize to fit into ``size`` with the aspect ratio kept, and pad evenly.

    Args:
        image: uint8 (height, width, 3), or a bool or uint8 mask (height, width).
        size: (height, width) of the result in pixels.
        fill: value of the padding.
        rim: least padding on each side, in pixels, which mirrors the picture (not a mask) instead; None: ``fill``.

    Returns:
        The picture of shape ``size``, and the 2x3 float64 affine matrix that takes pixel-centre coordinates of the
        result to those of ``image`` (use with ``cv2.warpAffine`` and ``WARP_INVERSE_MAP`` swapped accordingly).

    >>> picture, back = letterbox(np.full((2, 4, 3), 9, np.uint8), (4, 4))
    >>> picture[..., 0].tolist()
    [[0, 0, 0, 0], [9, 9, 9, 9], [9, 9, 9, 9], [0, 0, 0, 0]]
    >>> (back @ [0, 1, 1]).tolist()  # the first pixel (x 0, y 1) of the picture within
    [0.0, 0.0]
    """
    height, width = image.shape[:2]
    scale = min((size[0] - 2 * (rim or 0)) / height, (size[1] - 2 * (rim or 0)) / width)
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (size[0] - new_height) // 2, (size[1] - new_width) // 2
    is_mask = image.ndim == 2
    if image.dtype == bool:
        image = image.astype(np.uint8)
    method = cv2.INTER_NEAREST if is_mask else cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(image, (new_width, new_height), interpolation=method)
    bottom, right = size[0] - new_height - top, size[1] - new_width - left
    kind = cv2.BORDER_CONSTANT if rim is None or is_mask else cv2.BORDER_REFLECT_101
    result = cv2.copyMakeBorder(resized, top, bottom, left, right, kind, value=fill)
    sx, sy = width / new_width, height / new_height
    back = np.array([[sx, 0, (0.5 - left) * sx - 0.5], [0, sy, (0.5 - top) * sy - 0.5]])
    return result, back
