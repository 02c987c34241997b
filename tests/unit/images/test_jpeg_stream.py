"""JPEG files decoded by OpenCV, against Pillow: all that encoders write, and files that are not whole."""

import io

import cv2
import numpy as np
import pytest
from defectflow.core.files import UserError
from defectflow.images import jpeg_stream
from defectflow.images.read_write import read_photograph, read_rgb
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps


def scene(height, width, seed=0):
    """Smooth areas, edges and noise, so that subsampling and rounding show."""
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    cv2.circle(image, (width // 2, height // 2), max(1, min(height, width) // 3), (250, 20, 90), -1)
    noise = rng.integers(-9, 10, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def by_pillow(content):
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def saved(image, **options):
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from([1, 30, 75, 95, 100]),
    st.sampled_from(["4:4:4", "4:2:2", "4:2:0", "4:1:1"]),
    st.sampled_from([{}, {"progressive": True}, {"optimize": True}, {"restart_marker_rows": 1}]),
    st.booleans(),
)
def test_what_pillow_writes_has_the_same_pixels(height, width, quality, subsampling, how, grey):
    image = Image.fromarray(scene(height, width))
    options = {} if grey else {"subsampling": subsampling}
    content = saved(image.convert("L") if grey else image, quality=quality, **options, **how)
    np.testing.assert_array_equal(jpeg_stream.decode(content), by_pillow(content))


FACTORS = [getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{name}") for name in ("411", "420", "422", "440", "444")]


@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from(FACTORS), st.booleans(), st.integers(0, 3))
def test_what_opencv_writes_has_the_same_pixels(height, width, factor, progressive, restart):
    options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor, cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)]
    options += [cv2.IMWRITE_JPEG_RST_INTERVAL, restart]
    content = cv2.imencode(".jpg", scene(height, width), options)[1].tobytes()
    np.testing.assert_array_equal(jpeg_stream.decode(content), by_pillow(content))


def exif(orientation):
    found = Image.Exif()
    found[ExifTags.Base.Orientation] = orientation
    return found


XMP = '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="8"/>'
RGB = Image.fromarray(scene(60, 90))
KINDS = {
    **{f"exif {n}": (RGB, {"exif": exif(n)}) for n in range(1, 9)},
    "xmp": (RGB, {"xmp": XMP.encode()}),
    "cmyk": (RGB.convert("CMYK"), {}),
    "grey, turned": (RGB.convert("L"), {"exif": exif(6)}),
    "stored as rgb": (RGB, {"keep_rgb": True}),
    "a thumbnail with an end of its own": (RGB, {"exif": exif(1).tobytes() + saved(RGB.resize((20, 30)))}),
    "a comment with markers": (RGB, {"comment": b"\xff\xd9\xff\xda"}),
    "a profile": (RGB, {"icc_profile": bytes(range(256)) * 300}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_read_as_pillow_reads_them(tmp_path, kind):
    image, options = KINDS[kind]
    content = saved(image, quality=90, **options)
    for name, more in {"a.jpg": b"", "padded.jpg": b"behind the end"}.items():
        (tmp_path / name).write_bytes(content + more)
        np.testing.assert_array_equal(read_rgb(tmp_path / name), by_pillow(content))


def test_the_first_picture_of_several_is_read(tmp_path):
    RGB.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[Image.fromarray(scene(60, 90, 1))])
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.jpg"), by_pillow((tmp_path / "a.jpg").read_bytes()))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 2}])
def test_a_file_that_is_cut_off_anywhere_is_refused(tmp_path, options):
    content = saved(RGB, quality=90, **options)
    assert jpeg_stream.is_whole(content)
    for size in [*range(2, len(content), len(content) // 40), len(content) - 2, len(content) - 1]:
        assert not jpeg_stream.is_whole(content[:size])
        (tmp_path / "a.jpg").write_bytes(content[:size])
        with pytest.raises(UserError, match=r"a\.jpg"):
            read_photograph(tmp_path / "a.jpg")


@given(st.integers(0, 10**6), st.integers(0, 255))
def test_a_damaged_byte_changes_what_is_read_for_neither_more_nor_less(place, value):
    content = bytearray(saved(RGB, quality=90))
    content[place % len(content)] = value
    try:
        expected = by_pillow(bytes(content))
    except Exception:
        expected = None
    found = jpeg_stream.decode(bytes(content))
    if found is not None and expected is not None:
        np.testing.assert_array_equal(found, expected)
