"""16-bit photographs: the depth of a set, what is told of it, and what cannot be of it."""

import json
import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from defectflow.core.files import UserError, sha256_of
from defectflow.images.bit_depth import Values, is_deep
from defectflow.images.image_checks import inspect
from defectflow.images.read_write import read_rgb
from defectflow.images.sixteen_to_eight_bits import measure, to_8_bits
from defectflow.sources import preflight
from defectflow.sources.depth_lookup import depth_of, depth_of_set
from defectflow.sources.set_depth import check_depths, darker, decide
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

BITS = (8, 10, 12, 14)


def scene(seed: int, brightest: float = 1.0, bits: int = 16, size=(40, 50)) -> np.ndarray:
    """A picture of a camera of so many bits, uint16; its brightest pixel is a share of the range."""
    share = np.random.default_rng(seed).random(size)
    share *= brightest / share.max()
    return np.round(share * ((1 << bits) - 1)).astype(np.uint16)


def decided(*pictures: np.ndarray, asked: str = "auto"):
    return decide({f"{number}.png": measure(picture) for number, picture in enumerate(pictures)}, asked)


# --- The depth of a set ---------------------------------------------------------------------------------------------
@settings(max_examples=60, deadline=None)
@given(
    bits=st.sampled_from((*BITS, 16)),
    left=st.booleans(),
    bright=st.lists(st.floats(0.1, 1), min_size=1, max_size=6),
    most=st.floats(0.55, 1),
)
def test_the_depth_follows_from_the_largest_value_of_all(bits, left, bright, most):
    pictures = [scene(number, share, bits) for number, share in enumerate((*bright, most))]
    if left:
        pictures = [picture << (16 - bits) for picture in pictures]
    found = decided(*pictures)
    assert found.depth == (f"{bits}-left" if left and bits < 16 else str(bits))
    assert found.sure and found.odd == {} and bool(found.text) == (bits < 16)


def test_a_dark_set_is_read_brighter_and_that_is_said():
    found = decided(scene(0, 0.22, 12), scene(1, 0.2, 12))
    assert found.depth == "10" and found.sure
    assert "largest value of all is 901" in found.text
    assert "set bit_depth of the data set to 12 or 14 or 16" in found.text
    found = decided(scene(0, 0.3, 12))
    assert found.depth == "12" and not found.sure and "a deeper camera also gives in the dark" in found.text


def test_eight_bits_stretched_to_16_are_the_full_range_in_the_dark_too():
    assert decided(scene(0, 0.2, 8) * 257).depth == "16"
    assert decided(np.zeros((4, 5), np.uint16)).depth == "16"


def test_steps_of_16_that_fill_12_bits_are_12_bits_and_not_left_aligned():
    for bits in (10, 12, 14):
        assert decided(scene(0, 1, 8) << (bits - 8)).depth == str(bits)


def saturated(seed: int, bits: int) -> np.ndarray:
    return np.minimum(scene(seed, 1, bits).astype(int) * 2, (1 << bits) - 1).astype(np.uint16)


@pytest.mark.parametrize(("few", "many"), [(10, 12), (12, 10), (12, 14), (12, 16), (16, 12), (8, 12), (14, 16)])
def test_files_of_another_depth_are_told_by_name(few, many):
    found = decided(*(saturated(number, many) for number in range(4)), saturated(9, few))
    assert list(found.odd) == ["4.png"] and found.depth == str(many)
    assert f"as of {few} bits" in found.odd["4.png"] and f"most others hold {many} bits" in found.odd["4.png"]


def test_8_bits_moved_up_by_different_numbers_of_bits_are_told_apart():
    dark = [scene(number, 0.6, 8) for number in range(5)]
    found = decided(*(picture << 4 for picture in dark[:3]), *(picture << 2 for picture in dark[3:]))
    assert found.depth == "12" and list(found.odd) == ["3.png", "4.png"]


def test_pictures_far_darker_than_all_others_are_named():
    files = {f"{n}.png": measure(scene(n, 0.7, 10 if n > 3 else 12)) for n in range(6)}
    assert darker(files) == (["4.png", "5.png"], 716, 2866)
    pictures = {name: SimpleNamespace(deep=" ".join(map(str, map(int, v))), problem="") for name, v in files.items()}
    problems, notices = check_depths(pictures, "12", False)
    assert problems == [] and "4.png, 5.png" in notices[1].text and "of another depth, or only dark?" in notices[1].text
    assert len(check_depths(pictures, "12", True)[1]) == 1
    assert darker({f"{n}.png": measure(scene(n, 0.9 / 2**n, 12)) for n in range(6)})[0] == []


def test_one_picture_of_another_depth_is_asked_for_though_nothing_is_saturated():
    twelve = {f"{n}.png": measure(scene(n, 0.7, 12)) for n in range(4)}
    assert darker(twelve | {"odd.png": measure(scene(9, 0.7, 10))})[0] == ["odd.png"]
    assert darker(twelve | {"odd.png": measure(scene(9, 0.7, 14))})[0] == list(twelve)
    assert darker({"a.png": measure(scene(0, 0.7, 12)), "b.png": measure(scene(1, 0.2, 12))})[0] == []


def test_a_left_aligned_file_among_others_is_told():
    right = [scene(number, 0.9, 12) for number in range(4)]
    found = decided(*right, scene(9, 0.9, 12) << 4)
    assert list(found.odd) == ["4.png"] and found.depth == "12"
    found = decided(right[0], *(picture << 4 for picture in right[1:]))
    assert list(found.odd) == ["0.png"] and found.depth == "12-left"


def test_pictures_of_one_camera_in_changing_light_are_of_one_depth():
    assert decided(*(scene(number, 0.9 / 2**number, 12) for number in range(6))).odd == {}
    assert decided(scene(0, 0.9, 12), scene(1, 0.1, 12), np.zeros((40, 50), np.uint16)).odd == {}  # a lens cap


def test_pictures_far_below_all_others_are_told_though_nothing_is_saturated():
    found = decided(*(scene(number, 0.8) for number in range(3)), scene(9, 0.9, 12))
    assert found.depth == "16" and list(found.odd) == ["3.png"] and "the others' are" in found.odd["3.png"]


def test_the_bits_that_the_config_names_are_taken():
    dark = scene(0, 0.1, 12)
    assert decided(dark, asked="12").depth == "12" and decided(dark, asked="14").depth == "14"
    assert decided(scene(0, 0.9, 12) << 4, asked="12").depth == "12-left"
    assert decided(dark, asked="16").text == ""
    found = decided(dark, scene(1, 0.9, 14), asked="12")
    assert found.depth == "12" and list(found.odd) == ["1.png"] and "12 bits hold 4095 at most" in found.odd["1.png"]


# --- Pixels ---------------------------------------------------------------------------------------------------------
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), bits=st.sampled_from(BITS), left=st.booleans())
def test_what_is_read_is_what_the_8_bit_mode_of_the_camera_gives(seed, bits, left):
    mode8 = scene(seed, 1, 8)
    deep = mode8 << (16 - 8 if left else bits - 8)
    low = np.random.default_rng(seed).integers(0, 1 << (bits - 8), deep.shape).astype(np.uint16)
    deep = deep | (low << (16 - bits) if left else low)
    assert (to_8_bits(deep, f"{bits}-left" if left else str(bits)) == mode8).all()


def test_the_full_range_is_read_as_before(tmp_path):
    pixels = scene(0)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (read_rgb(tmp_path / "a.png", "16") == read_rgb(tmp_path / "a.png")).all()
    cv2.imwrite(str(tmp_path / "b.png"), np.dstack([pixels, pixels // 2, pixels // 3]))
    assert (read_rgb(tmp_path / "b.png", "16") == read_rgb(tmp_path / "b.png")).all()


@pytest.mark.parametrize("depth", BITS)
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jp2"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_kind_of_16_bit_file_is_read_in_its_depth(tmp_path, name, channels, depth):
    grey = scene(1, 1, 8).astype(np.uint8)
    picture = np.dstack([grey, 255 - grey, grey // 2])
    deep = (grey if channels == 1 else picture[..., ::-1]).astype(np.uint16) << (depth - 8)
    if channels == 4:
        deep = np.dstack([deep, np.full_like(deep[..., :1], 65535)])
    lossless = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000]
    cv2.imwrite(str(tmp_path / name), deep, lossless if name.endswith("jp2") else [])
    assert is_deep(tmp_path / name)
    expected = np.dstack([grey] * 3) if channels == 1 else picture
    assert (read_rgb(tmp_path / name, str(depth)) == expected).all()


def test_jpeg_2000_of_12_bits_in_16_is_found_and_one_that_declares_12_is_read_as_it_says(tmp_path):
    grey = scene(1, 1, 8)
    for name in ("a.jp2", "b.j2k"):  # in boxes, and bare
        Image.fromarray(grey << 4).save(tmp_path / name)
        assert is_deep(tmp_path / name) and (read_rgb(tmp_path / name, "12")[..., 0] == grey).all()
    assert depth_of({"a.jp2": (str(tmp_path / "a.jp2"), sha256_of(tmp_path / "a.jp2"))}, "auto", None) == "12"
    Image.fromarray(grey.astype(np.uint8)).save(tmp_path / "c.jp2")
    assert not is_deep(tmp_path / "c.jp2") and (read_rgb(tmp_path / "c.jp2", "12")[..., 0] == grey).all()
    bare = bytearray((tmp_path / "b.j2k").read_bytes())
    bare[42] = 11  # 12 bits
    (tmp_path / "d.j2k").write_bytes(bare)
    assert not is_deep(tmp_path / "d.j2k")
    for end in (0, 11, 30, 60):
        (tmp_path / "e.jp2").write_bytes((tmp_path / "a.jp2").read_bytes()[:end])
        assert not is_deep(tmp_path / "e.jp2")


@pytest.mark.parametrize("depth", [None, "12", "12-left", "16"])
def test_a_tiff_whose_0_is_white_is_read_as_one_whose_0_is_black(tmp_path, depth):
    grey = scene(1, 1, 8)
    exif = {ExifTags.Base.Orientation: 6}
    for white, values in ((0, 255 - grey), (1, grey)):
        deep = values << {"12": 4, "12-left": 8}[depth] if depth in ("12", "12-left") else values * 257
        photograph = Image.fromarray(deep.astype(np.uint16))
        photograph.save(tmp_path / "a.tif", tiffinfo=exif | {ExifTags.Base.PhotometricInterpretation: white})
        assert Image.open(tmp_path / "a.tif").tag_v2[262] == white
        assert (read_rgb(tmp_path / "a.tif", depth)[..., 0] == np.rot90(grey, -1)).all()
        Image.fromarray((values / 255).astype(np.float32)).save(tmp_path / "f.tif", tiffinfo={262: white})
        assert (read_rgb(tmp_path / "f.tif", depth)[..., 0] == grey).all()
        Image.fromarray(grey.astype(np.uint8)).save(tmp_path / "b.tif", tiffinfo={262: white})  # inverts 8 bits itself
        assert (read_rgb(tmp_path / "b.tif", depth)[..., 0] == grey).all()


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_grey_with_an_orientation_is_turned(tmp_path, name):
    grey = scene(1, 1, 8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    options = {"exif": exif} if name == "a.png" else {"tiffinfo": {ExifTags.Base.Orientation: 6}}
    Image.fromarray(grey << 4).save(tmp_path / name, **options)
    assert (read_rgb(tmp_path / name, "12")[..., 0] == np.rot90(grey, -1)).all()


def test_colours_with_an_orientation_are_turned(tmp_path):
    grey = scene(1, 1, 8)
    cv2.imwrite(str(tmp_path / "a.png"), np.dstack([grey << 4] * 3))
    data = (tmp_path / "a.png").read_bytes()
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png", exif=_turned())
    other = (tmp_path / "b.png").read_bytes()
    at = other.index(b"eXIf") - 4
    chunk = other[at : at + 12 + int.from_bytes(other[at : at + 4])]
    (tmp_path / "a.png").write_bytes(data[:33] + chunk + data[33:])
    assert (read_rgb(tmp_path / "a.png", "12")[..., 0] == np.rot90(grey, -1)).all()


@pytest.mark.parametrize("orientation", [3, 6])
def test_colours_of_a_tiff_are_turned_once(tmp_path, orientation):
    grey = scene(1, 1, 8)
    path = tmp_path / "a.tif"
    cv2.imwrite(str(path), np.dstack([grey << 4] * 3))
    content = path.read_bytes()
    assert content[:2] == b"II"
    (at,) = struct.unpack("<I", content[4:8])
    rows = [content[at + 2 + 12 * n :][:12] for n in range(*struct.unpack("<H", content[at : at + 2]))]
    rows = [row for row in rows if row[:2] != struct.pack("<H", 274)] + [
        struct.pack("<HHIHH", 274, 3, 1, orientation, 0)
    ]
    rows.sort(key=lambda row: row[1::-1])
    directory = struct.pack("<H", len(rows)) + b"".join(rows) + bytes(4)
    path.write_bytes(content[:4] + struct.pack("<I", len(content)) + content[8:] + directory)
    expected = np.rot90(grey, {3: 2, 6: -1}[orientation])
    assert (read_rgb(path, "12")[..., 0] == expected).all()


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return exif


@pytest.mark.parametrize(
    ("pixels", "depth", "message"),
    [
        (scene(0, 1, 14), "12", "its largest value is 16383, and 12 bits hold 4095 at most"),
        (scene(0, 1, 12), "12-left", "not multiples of 16"),
        (scene(0, 1, 12), "8", "8 bits hold 255 at most"),
    ],
)
def test_what_cannot_be_of_the_depth_is_refused_by_name(tmp_path, pixels, depth, message):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=rf"a\.png: .*{message}.*save it"):
        read_rgb(tmp_path / "a.png", depth)
    assert message in inspect(tmp_path / "a.png", tmp_path, depth=depth).problem


def test_files_of_8_bits_are_read_as_they_are_whatever_the_depth(tmp_path):
    grey = scene(0, 1, 8).astype(np.uint8)
    for name in ("a.png", "a.tif", "a.bmp"):
        Image.fromarray(grey).save(tmp_path / name)
        assert not is_deep(tmp_path / name)
        for depth in (None, "8", "12", "12-left", "16"):
            assert (read_rgb(tmp_path / name, depth)[..., 0] == grey).all()


def test_an_8_bit_depth_takes_8_bits_stretched_to_16(tmp_path):
    grey = scene(0, 1, 8)
    Image.fromarray(grey * 257).save(tmp_path / "a.png")
    assert (read_rgb(tmp_path / "a.png", "8")[..., 0] == grey).all()


# --- Headers, and what is remembered --------------------------------------------------------------------------------
def test_headers_of_all_kinds_are_told_apart(tmp_path):
    rgb = np.dstack([scene(0)] * 3)
    for name, pixels, deep in (
        ("grey.tif", scene(0), True),
        ("rgb.tif", rgb, True),
        ("rgb8.tif", (rgb >> 8).astype(np.uint8), False),
        ("rgb.png", rgb, True),
        ("rgb8.png", (rgb >> 8).astype(np.uint8), False),
        ("rgb8.jpg", (rgb >> 8).astype(np.uint8), False),
    ):
        cv2.imwrite(str(tmp_path / name), pixels)
        assert is_deep(tmp_path / name) == deep, name
    Image.fromarray(scene(0)).save(tmp_path / "big.tif", big_tiff=True)
    Image.fromarray((rgb >> 8).astype(np.uint8)).save(tmp_path / "big8.tif", big_tiff=True)
    assert is_deep(tmp_path / "big.tif") and not is_deep(tmp_path / "big8.tif")
    Image.fromarray(scene(0).astype(">u2").astype(np.uint16)).save(tmp_path / "one.png")
    for broken in (b"", b"II*\0", b"MM\0*\0\0\0\x08", b"\x89PNG\r\n\x1a\n", b"II*\0\xff\xff\xff\xff" + bytes(20)):
        (tmp_path / "broken.tif").write_bytes(broken)
        assert not is_deep(tmp_path / "broken.tif")
    assert not is_deep(tmp_path / "absent.png")


def files(folder, **pictures):
    for name, picture in pictures.items():
        Image.fromarray(picture).save(folder / f"{name}.png")
    return {path.name: (str(path), sha256_of(path)) for path in sorted(folder.glob("*.png"))}


def test_only_new_files_are_measured(tmp_path, monkeypatch):
    cache = tmp_path / "cache/a.depth.json"
    (tmp_path / "images").mkdir()
    plain = scene(5, 1, 8).astype(np.uint8)
    known = files(tmp_path / "images", a=scene(0, 0.9, 12), b=scene(1, 0.8, 12), plain=plain)
    assert depth_of(known, "auto", cache) == "12"
    assert len(json.loads(cache.read_text())["deep"]) == 2
    measured = []
    monkeypatch.setattr(
        "defectflow.sources.depth_lookup._measured", lambda paths: measured.extend(paths) or [[9000, 0, 0, False]]
    )
    assert depth_of(known, "auto", cache) == "12" and measured == []
    assert depth_of(known, "14", cache) == "14" and measured == []
    more = files(tmp_path / "images", c=scene(2))
    assert depth_of(more, "auto", cache) == "14" and measured == [more["c.png"][0]]


def test_a_set_without_16_bit_files_has_no_depth(tmp_path):
    known = files(tmp_path, a=scene(0, 1, 8).astype(np.uint8))
    assert depth_of(known, "auto", None) == "" == depth_of(known, "12", None)


def test_a_broken_16_bit_file_is_left_to_the_stage_that_reads_it(tmp_path):
    known = files(tmp_path, a=scene(0, 0.9, 12), b=scene(1, 0.9, 12))
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:400])
    known["b.png"] = (known["b.png"][0], sha256_of(tmp_path / "b.png"))
    assert depth_of(known, "auto", None) == "12"


def test_a_measurement_that_fails_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.executable", "false")
    with pytest.raises(UserError, match=r"a\.png: how many bits .* could not be measured .*bit_depth"):
        depth_of(files(tmp_path, a=scene(0)), "auto", None)
    assert depth_of(files(tmp_path, a=scene(0)), "12", None) == "12"


def test_the_depth_of_a_data_set_is_known_before_the_first_job(tmp_path):
    (tmp_path / "images").mkdir()
    files(tmp_path / "images", a=scene(0, 0.9, 12), b=scene(1, 0.8, 12))
    (tmp_path / "labels.csv").write_text("filename,label\na.png,0\nb.png,0\n")
    resolved = preflight.resolve({"path": str(tmp_path)})
    assert depth_of_set(resolved, "auto", tmp_path / "set.json") == "12"
    assert (tmp_path / "set.depth.json").exists()
    assert depth_of_set(resolved, 14, None) == "14"


def test_values_survive_as_text():
    assert Values.of("4080 4 28 0") == Values(4080, 4, 28, False)
