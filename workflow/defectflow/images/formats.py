"""Which files are pictures: by their suffix, or by their first bytes if the suffix is another one.

Standard library only: the Snakefile imports this module through ``naming``.
"""

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


def suffixes(words: str) -> tuple[str, ...]:
    """Suffixes from a line of them without dots."""
    return tuple(f".{word}" for word in words.split())


# What Pillow or OpenCV decodes, as tools and cameras spell it; tests compare the list with theirs.
SUFFIXES = suffixes(
    "jpg jpeg jpe jfif jif mpo png apng bmp dib tif tiff webp gif avif avifs heic heif hif "
    "jp2 j2k jpc j2c jpf jpx pbm pgm ppm pnm pxm pam pfm tga icb vda vst pcx dcx sgi rgb rgba bw ras sr qoi psd dds "
    "im msp pcd pxr xbm xpm ico icns cur blp ftc ftu gbr fli flc fits fit hdr pic"
)
RAW = suffixes(
    "dng cr2 cr3 crw nef nrw arw sr2 srf orf rw2 rwl raf pef ptx srw x3f 3fr fff iiq erf kdc dcr mrw mos mef raw gpr"
)
OTHER = {
    ".jxl": "JPEG XL", ".jxr": "JPEG XR", ".wdp": "JPEG XR", ".jls": "JPEG-LS", ".svg": "SVG", ".eps": "PostScript",
    ".emf": "a drawing of Windows", ".wmf": "a drawing of Windows", ".dcm": "DICOM", ".xcf": "Gimp's own",
    ".kra": "Krita's own", ".exr": "OpenEXR",
}  # fmt: skip
HEIC = (".heic", ".heif", ".hif")
# Signatures at the start of a file and the matching suffix; the first 12 bytes are enough.
MARKS = (
    (b"\xff\xd8\xff", ".jpg"), (b"\x89PNG\r\n\x1a\n", ".png"), (b"GIF87a", ".gif"), (b"GIF89a", ".gif"),
    (b"II*\0", ".tif"), (b"MM\0*", ".tif"), (b"II+\0", ".tif"), (b"MM\0+", ".tif"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", ".jp2"), (b"\xff\x4f\xff\x51", ".j2k"), (b"qoif", ".qoi"), (b"8BPS\0\x01", ".psd"),
    (b"DDS ", ".dds"), (b"\x01\xda\0\x01", ".sgi"), (b"\x01\xda\x01\x01", ".sgi"), (b"\x59\xa6\x6a\x95", ".ras"),
    (b"\xff\x0a", ".jxl"), (b"\0\0\0\x0cJXL \r\n\x87\n", ".jxl"), (b"v/1\x01", ".exr"),
    (b"#?RADIANCE", ".hdr"), (b"#?RGBE", ".hdr"), (b"FUJIFILMCCD-", ".raf"), (b"IIRO", ".orf"), (b"IIU\0", ".rw2"),
    (b"FOVb", ".x3f"),
)  # fmt: skip
BRANDS = {b"avif": ".avif", b"avis": ".avif", b"crx ": ".cr3"} | dict.fromkeys(
    (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"), ".heic"
)
ARCHIVES = (".zip", ".tar", ".tgz", ".7z", ".rar")
PACKED = (".gz", ".bz2", ".xz", ".zst")  # one file, or a .tar
NAMED, LISTED = 20, 200  # suffixes named in a message; names of an archive that are looked at


class PassedOver(NamedTuple):
    """A file that is not read as a photograph.

    Attributes:
        path: of the file, or of a folder that is not searched.
        reason: with the remedy, ready for a message.
        picture: whether it looks like a picture, so that a photograph may be missing.
        files: how many files it stands for.
    """

    path: Path
    reason: str
    picture: bool
    files: int = 1


def common(suffixes: Iterable[str] = SUFFIXES) -> str:
    """The first NAMED suffixes for a message."""
    return ", ".join(list(suffixes)[:NAMED]) + " and others"


def content_suffix(path: str | Path) -> str:
    """The suffix that the first bytes of a file stand for, if they are those of a picture, else "".

    Raises:
        OSError: it cannot be read.
    """
    if Path(path).exists() and not Path(path).is_file():  # reading a pipe would block
        return ""
    with open(path, "rb") as stream:
        head = stream.read(16)
    if head[4:8] == b"ftyp":
        return BRANDS.get(head[8:12], "")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return ".webp"
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0":
        return ".bmp"
    if head[:1] == b"P" and head[1:2] in b"1234567Ff" and head[2:3] in (b"\n", b" ", b"\r", b"\t"):
        return {b"7": ".pam", b"F": ".pfm", b"f": ".pfm"}.get(head[1:2], ".pnm")
    return next((suffix for mark, suffix in MARKS if head.startswith(mark)), "")


def unread(path: str | Path) -> PassedOver:
    """Why a file whose suffix is not in SUFFIXES is not read, and whether it looks like a picture."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in RAW:
        return PassedOver(path, "a camera's raw file (convert it to JPEG, PNG or TIFF)", True)
    if suffix in OTHER:
        return PassedOver(path, f"{OTHER[suffix]}, which is not read (convert it to JPEG, PNG or TIFF)", True)
    if suffix in ARCHIVES + PACKED:
        return PassedOver(path, "an archive (unpack it)", _holds_pictures(path))
    try:
        found = content_suffix(path)
    except OSError as error:
        return PassedOver(path, f"cannot be read ({error.strerror})", True)
    if found:
        ending = f"its name ends in {suffix}" if suffix else "its name has no ending"
        remedy = f"rename it to {found}" if found in SUFFIXES else "convert it to JPEG, PNG or TIFF"
        return PassedOver(path, f"a {found[1:].upper()} picture, but {ending} ({remedy})", True)
    return PassedOver(path, "not a picture", False)


def _holds_pictures(path: Path) -> bool:
    """Whether an archive has a picture among its first names; one that cannot be listed may have."""
    if path.suffix.lower() in PACKED:
        return path.stem.lower().endswith((".tar", *SUFFIXES, *RAW))
    if path.suffix.lower() != ".zip":
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.lower().endswith((*SUFFIXES, *RAW)) for name in archive.namelist()[:LISTED])
    except (OSError, zipfile.BadZipFile, NotImplementedError):
        return True
