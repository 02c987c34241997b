"""Pictures in: what every kind of file decodes to, and what is refused."""

import zlib

import cv2
import numpy as np
import pytest
from defectflow.core.files import UserError
from defectflow.images.image_checks import inspect
from defectflow.images.read_write import JPEG_SIDE, is_plain, read_checked, read_mask, read_rgb, write_jpeg
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

GREY = np.random.default_rng(0).integers(0, 256, (60, 90), dtype=np.uint8)
ORIENTATION = ExifTags.Base.Orientation
XMP = '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("tags", [{ORIENTATION: 6}, {ExifTags.Base.XMLPacket: XMP.encode()}], ids=["exif", "xmp"])
@pytest.mark.parametrize("pixels", [GREY, GREY.astype(np.uint16) * 257, np.dstack([GREY] * 3)], ids=["8", "16", "rgb"])
def test_a_tiff_is_turned_and_its_size_with_it(tmp_path, pixels, tags, compression):
    path = tmp_path / "a.tif"
    Image.fromarray(pixels).save(path, tiffinfo=tags, compression=compression)
    image, found = read_rgb(path), inspect(path, tmp_path)
    assert found.problem == "" and found.size == (60, 90)
    assert (image == np.rot90(GREY, -1)[..., None]).all()


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (GREY.astype(np.float32), "floating-point"),
        (GREY.astype(np.int32) * 70000, "more than 16 bits"),
        (GREY.astype(np.int32) - 99, "negative, down to -99"),
    ],
)
def test_numbers_of_unknown_range_are_a_problem(tmp_path, pixels, message):
    path = tmp_path / "a.tif"
    Image.fromarray(pixels).save(path)
    with pytest.raises(UserError, match=rf"a\.tif: its pixels .*{message}.*\(save it as 8 or 16 bits.*\)"):
        read_rgb(path)
    assert message in inspect(path, tmp_path).problem


def test_16_bits_in_32_are_scaled_as_in_16(tmp_path):
    Image.fromarray(GREY.astype(np.int32) * 257).save(tmp_path / "a.tif")
    assert (read_rgb(tmp_path / "a.tif") == GREY[..., None]).all()


def exif(orientation):
    found = Image.Exif()
    found[ORIENTATION] = orientation
    return found


def raw_profile(orientation):
    """EXIF as ImageMagick writes it into a PNG."""
    data, info = exif(orientation).tobytes(), PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n{len(data):8}\n{data.hex()}\n")
    return info


RGB = Image.fromarray(np.dstack([GREY] * 3))


@pytest.mark.parametrize(
    ("image", "name", "options", "plain"),
    [
        (RGB, "a.png", {}, True),
        (RGB, "a.jpg", {"exif": exif(1)}, True),
        (Image.fromarray(GREY), "a.jpg", {}, True),
        (RGB, "a.jpg", {"exif": exif(6)}, False),
        (RGB, "a.jpg", {"xmp": XMP.encode()}, False),
        (RGB, "a.png", {"exif": exif(6)}, False),
        (RGB, "a.png", {"pnginfo": raw_profile(6)}, False),
        (RGB.convert("CMYK"), "a.jpg", {}, False),
        (Image.fromarray(GREY.astype(np.uint16) * 250), "a.png", {}, False),
    ],
)
def test_only_what_opencv_decodes_to_the_same_pixels_is_plain(tmp_path, image, name, options, plain):
    path = str(tmp_path / name)
    image.save(path, **options)
    decoded, expected = cv2.imread(path, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION), read_rgb(path)
    assert is_plain(path) == plain == (decoded.shape == expected.shape and (decoded == expected).all())
    np.testing.assert_array_equal(read_checked(path), expected)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (b"eXIf", exif(6).tobytes().removeprefix(b"Exif\0\0")),
        (b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + XMP.encode()),
    ],
)
def test_an_orientation_behind_the_pixels_of_a_png_is_seen(tmp_path, kind, content):
    path = tmp_path / "a.png"
    RGB.save(path)
    chunk = len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)
    path.write_bytes(path.read_bytes()[:-12] + chunk + path.read_bytes()[-12:])  # ExifTool writes them there
    assert not is_plain(path)
    found = inspect(path, tmp_path)
    assert found.problem == "" and found.size == (60, 90) == read_rgb(path).shape[1::-1]


def test_what_is_no_image_is_not_plain(tmp_path):
    (tmp_path / "a.png").write_text("text")
    assert not is_plain(tmp_path / "a.png") and not is_plain(tmp_path / "none.png")


FAINT = np.zeros((40, 50), np.uint8)
FAINT[3, 4] = 1
PALETTE = Image.fromarray(FAINT, "P")
PALETTE.putpalette([0, 0, 0, 0, 0, 4])


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(FAINT),
        Image.fromarray(FAINT.astype(bool)),
        Image.fromarray(FAINT.astype(np.uint16)),
        Image.fromarray(np.dstack([0 * FAINT, 0 * FAINT, 4 * FAINT])),
        Image.fromarray(np.dstack([FAINT, 0 * FAINT, 0 * FAINT, 0 * FAINT + 255])),  # opaque is not inside
        PALETTE,
    ],
    ids=["8", "1", "16", "rgb", "rgba", "palette"],
)
def test_every_pixel_of_a_mask_that_is_not_zero_is_inside(tmp_path, image):
    image.save(tmp_path / "a.png")
    mask = read_mask(tmp_path / "a.png")
    assert mask.dtype == bool and (mask == (FAINT > 0)).all()


def test_postscript_is_not_run(tmp_path):
    path = tmp_path / "part.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(UserError, match=r"part.png: its content is PostScript, which is not read"):
        read_rgb(path)


def test_a_line_of_one_pixel_keeps_its_colour_in_a_jpeg(tmp_path):
    picture = np.full((64, 64, 3), 128, np.uint8)
    picture[:, 31] = (120, 190, 255)
    write_jpeg(tmp_path / "a.jpg", picture)
    assert np.abs(read_rgb(tmp_path / "a.jpg").astype(int) - picture).max() < 25


def test_a_strip_longer_than_a_jpeg_may_be_is_written_smaller(tmp_path):
    write_jpeg(tmp_path / "a.jpg", np.full((64, 2 * JPEG_SIDE, 3), 90, np.uint8))
    picture = read_rgb(tmp_path / "a.jpg")
    assert picture.shape == (32, JPEG_SIDE, 3) and (picture == 90).all()
