"""Which files are pictures: every format that Pillow decodes is read, what looks like a picture is told."""

import io
import subprocess
import sys
import zipfile
from contextlib import suppress

import cv2
import numpy as np
import pytest
from defectflow.core.files import UserError
from defectflow.images.bit_depth import is_deep
from defectflow.images.decoders import pictures_in
from defectflow.images.exif_orientation import stored_size
from defectflow.images.formats import OTHER, RAW, SUFFIXES, content_suffix, unread
from defectflow.images.image_checks import inspect
from defectflow.images.read_write import read_rgb
from defectflow.listing.image_names import is_image
from PIL import Image

NO_DECODER = {".bufr", ".grib", ".h5", ".hdf", ".mpeg", ".mpg", ".iim"}  # Pillow has a name for these, and no more
WITHOUT_PROGRAM = {".eps", ".ps", ".wmf", ".emf"}  # needs Ghostscript or Windows


def picture(seed=0):
    y, x = np.mgrid[:40, :56]
    return Image.fromarray(np.stack([4 * x, 6 * y, 90 + 0 * x], axis=-1).astype(np.uint8)).rotate(90 * seed)


def test_every_suffix_that_pillow_decodes_is_read_or_named():
    Image.init()
    decoded = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    assert decoded - NO_DECODER - WITHOUT_PROGRAM <= {*SUFFIXES}
    assert not set(SUFFIXES) & {*RAW, *OTHER}


def test_every_suffix_that_opencv_decodes_is_read_or_named(tmp_path):
    # OpenCV has no list of what it decodes, but one of what it encodes.
    words = "bmp dib jpeg jpg jpe jp2 png avif webp gif pbm pgm ppm pxm pnm pam pfm sr ras tiff tif exr hdr pic".split()  # noqa: SIM905
    for word in (*words, "jxl"):
        if cv2.haveImageWriter(f"a.{word}"):
            assert f".{word}" in {*SUFFIXES, *OTHER}
    path, shown = tmp_path / "a.pam", np.asarray(picture())
    cv2.imwrite(str(path), shown)  # written as it stands, without the swap of red and blue
    assert np.array_equal(read_rgb(path), shown)


@pytest.mark.parametrize("suffix", "ico icns cur fits blp gbr fli".split())  # noqa: SIM905
def test_icons_and_the_like_are_photographs_to_the_list(suffix):
    assert is_image(f"a.{suffix}") and is_image(f"a.{suffix.upper()}")


@pytest.mark.parametrize(("planes", "largest"), [(1, 1), (1, 255), (2, 255), (3, 255), (4, 255), (1, 4095), (3, 65535)])
def test_a_pam_fills_the_range_and_a_torn_one_is_told(tmp_path, planes, largest):
    kind = np.uint8 if largest < 256 else ">u2"
    values = np.linspace(0, largest, 24 * planes).astype(kind)
    head = f"P7\n# a comment\nWIDTH 6\nHEIGHT 4\nDEPTH {planes}\nMAXVAL {largest}\nTUPLTYPE X\nENDHDR\n".encode()
    path = tmp_path / "a.pam"
    path.write_bytes(head + values.tobytes())
    expected = values.reshape(4, 6, planes) / largest * 255
    expected = expected[..., :3] if planes > 2 else np.repeat(expected[..., :1], 3, axis=2)
    assert stored_size(path) == ((6, 4), 1) and np.abs(read_rgb(path) - expected).max() <= 1
    assert is_deep(path) == (largest > 255)
    path.write_bytes(head + values.tobytes()[:-4])
    with pytest.raises(UserError, match=r"a\.pam: not a readable image"):
        read_rgb(path)


def floats_in_every_format(folder, numbers):
    """{file name: what it holds} of a grey and a colour picture, as TIFF, PFM and Radiance HDR."""
    colour = np.dstack([numbers, numbers[:, ::-1], numbers * 0.5])
    Image.fromarray(numbers).save(folder / "a.tif")
    (folder / "b.pfm").write_bytes(b"Pf\n56 40\n-1.0\n" + numbers[::-1].tobytes())
    for name in ("c.pfm", "d.tif", "e.hdr", "f.pic"):
        assert cv2.imwrite(str(folder / name), colour[..., ::-1])
    grey = np.dstack([numbers] * 3)
    return {"a.tif": grey, "b.pfm": grey, "c.pfm": colour, "d.tif": colour, "e.hdr": colour, "f.pic": colour}


def test_floating_point_numbers_from_0_to_1_are_read_alike_in_every_format(tmp_path):
    numbers = np.linspace(0, 1, 40 * 56, dtype=np.float32).reshape(40, 56)
    for name, expected in floats_in_every_format(tmp_path, numbers).items():
        found = read_rgb(tmp_path / name, depth="12")  # of the set; it is about whole numbers only
        assert np.abs(found - expected * 255).max() <= 2, name  # RGBE cuts to 8 bits a pixel
        sound = inspect(tmp_path / name, tmp_path, depth="12")
        assert (sound.problem, sound.size, sound.deep) == ("", (56, 40), ""), name
        assert is_image(name) and not is_deep(tmp_path / name)


@pytest.mark.parametrize("values", [(0, 3), (-1, 1), (0, float("nan"))])
def test_floating_point_numbers_of_another_range_stop(tmp_path, values):
    numbers = np.linspace(*values, 40 * 56, dtype=np.float32).reshape(40, 56)
    for name in list(floats_in_every_format(tmp_path, numbers))[: 6 if values == (0, 3) else 4]:  # RGBE has no sign
        with pytest.raises(UserError, match=rf"{name}: its pixels are floating-point .* \(save it as 8 or 16 bits\)"):
            read_rgb(tmp_path / name)
        assert "only 0 (black) to 1 (white) is read" in inspect(tmp_path / name, tmp_path).problem


def test_openexr_is_told_by_name():
    told = unread("a.exr")
    assert told.picture and told.reason.startswith("OpenEXR, which is not read (convert")


@pytest.mark.parametrize(
    "suffix",
    "jpg jpeg JPE jfif png bmp dib tif TIFF webp gif avif jp2 j2k ppm pnm tga pcx sgi qoi dds".split(),  # noqa: SIM905
)
def test_a_picture_of_any_suffix_is_read_as_what_it_shows(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    picture().save(path, **({"quality": 95} if suffix.lower() in ("jpg", "jpeg", "jpe", "jfif", "avif") else {}))
    assert is_image(path.name) and stored_size(path) == ((56, 40), 1) and pictures_in(path) == 1
    assert np.abs(read_rgb(path).astype(int) - np.asarray(picture())).mean() < 12


@pytest.mark.parametrize("suffix", "jpg png bmp tif webp gif avif jp2 ppm tga pcx sgi qoi dds".split())  # noqa: SIM905
def test_a_damaged_file_is_told_in_one_line_whatever_its_format(tmp_path, suffix):
    path, rng = tmp_path / f"a.{suffix}", np.random.default_rng(0)
    picture().save(path)
    whole = path.read_bytes()
    for trial in range(40):
        torn = bytearray(whole[: rng.integers(1, len(whole))] if trial % 2 else whole)
        for place in rng.integers(0, min(len(torn), 200), 6):
            torn[place] = rng.integers(256)
        path.write_bytes(torn)
        assert pictures_in(path) >= 1
        for read in (read_rgb, stored_size):
            with suppress(UserError):
                read(path)


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("JPEG", ".jpg"), ("PNG", ".png"), ("BMP", ".bmp"), ("TIFF", ".tif"), ("WEBP", ".webp"), ("GIF", ".gif"),
        ("AVIF", ".avif"), ("JPEG2000", ".jp2"), ("PPM", ".pnm"), ("QOI", ".qoi"), ("SGI", ".sgi"), ("DDS", ".dds"),
    ],
)  # fmt: skip
def test_a_picture_is_known_by_its_first_bytes(tmp_path, kind, found):
    stream = io.BytesIO()
    picture().save(stream, kind)
    (tmp_path / "a.part").write_bytes(stream.getvalue())
    assert content_suffix(tmp_path / "a.part") == found
    told = unread(tmp_path / "a.part")
    assert told.picture and f"rename it to {found}" in told.reason and "ends in .part" in told.reason


@pytest.mark.parametrize(
    "content", [b"", b"P", b"Photographs of Monday", b"BMW i3, good", b"{}", b"\0\0\0\x18ftypisom"]
)
def test_what_is_no_picture_does_not_look_like_one(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    assert content_suffix(tmp_path / "a") == "" and not unread(tmp_path / "a").picture


def test_raw_files_archives_and_other_formats_are_told_with_a_remedy(tmp_path):
    for name, reason in (
        ("a.CR2", "camera's raw file"),
        ("a.jxl", "JPEG XL"),
    ):
        told = unread(tmp_path / name)
        assert told.picture and reason in told.reason and "convert it" in told.reason
    for name, inside, holds in (("a.zip", "b/c.jpg", True), ("b.zip", "notes.txt", False)):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(inside, "x")
        assert unread(tmp_path / name).picture is holds and "unpack it" in unread(tmp_path / name).reason
    assert unread(tmp_path / "set.tar.gz").picture and not unread(tmp_path / "labels.csv.gz").picture


def test_a_file_of_a_phone_names_the_package_that_it_needs(tmp_path):
    (tmp_path / "a.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    for read in (read_rgb, stored_size):
        if "pillow_heif" not in sys.modules:
            with pytest.raises(UserError, match=r"a\.HEIC: a HEIC picture needs pillow-heif \(pip install pillow-heif"):
                read(tmp_path / "a.HEIC")
    (tmp_path / "a.png").write_text("no picture at all")
    with pytest.raises(UserError, match="its content is no picture"):
        read_rgb(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match="the file is empty"):
        read_rgb(tmp_path / "a.png")


def test_pictures_in_a_file_are_counted_and_thumbnails_are_not(tmp_path):
    for name in ("a.gif", "a.png", "a.webp", "a.tif"):
        picture().save(tmp_path / name, save_all=True, append_images=[picture(2), picture(1).resize((56, 40))])
        assert pictures_in(tmp_path / name) == 3
    picture().save(tmp_path / "b.tif", save_all=True, append_images=[picture().resize((14, 10))])
    assert pictures_in(tmp_path / "b.tif") == 1
    (tmp_path / "torn.gif").write_bytes(b"GIF89a")
    assert pictures_in(tmp_path / "torn.gif") == 1


def test_the_list_is_there_without_any_library():
    code = "import sys, defectflow.sources.passed_over; print({'PIL', 'numpy', 'cv2'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
