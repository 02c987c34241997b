import json
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
import zlib
from dataclasses import replace
from pathlib import Path

import bundle_set
import cv2
import numpy as np
import pytest
from defectflow.backbones import tiles
from defectflow.backbones.network_input import Loaded
from defectflow.commands import cli
from defectflow.core.files import UserError
from defectflow.decision.damaged_regions import find_damage
from defectflow.decision.pred_score import BELOW_HALF
from defectflow.images.read_write import read_photograph, write_png
from defectflow.inspection.bundle_files import read_bundle
from defectflow.inspection.inspector import Inspector, Ready
from defectflow.inspection.outputs import boxes_of, json_of, line_of, row_of
from defectflow.methods.numpy_detector import Scored
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

RUNTIMES = ["openvino", "onnx", "torch"]


@pytest.fixture(scope="module", params=RUNTIMES)
def inspector(request, bundle_folder):
    return Inspector.load(bundle_folder, request.param)


@pytest.fixture(scope="module")
def one(bundle_folder):
    return Inspector.load(bundle_folder, "openvino")


def test_every_runtime_tells_bad_from_good_and_shows_where(inspector):
    good, bad = (inspector(bundle_set.photograph(30, bad)) for bad in (False, True))
    assert not good.bad and good.score < 0.5 and good.regions == []
    assert bad.bad and bad.score >= 0.5 and bad.flagged
    dark = bundle_set.photograph(30, True).max(axis=2) < 60
    rows, columns = np.nonzero(dark)
    x, y, width, height = boxes_of(bad)[0]
    assert x <= columns.mean() < x + width and y <= rows.mean() < y + height
    assert bad.heat.shape == (96, 128)
    assert bad.heat[dark].mean() > 2 * bad.heat[~dark].mean()


def test_runtimes_agree(bundle_folder):
    photos = [bundle_set.photograph(seed, seed % 2 == 1) for seed in range(60, 66)]
    table = [[Inspector.load(bundle_folder, runtime)(photo) for photo in photos] for runtime in RUNTIMES]
    for other in table[:2]:
        for found, expected in zip(other, table[2], strict=True):
            assert found.raw_score == pytest.approx(expected.raw_score, rel=1e-4)
            np.testing.assert_allclose(found.map.grid_map, expected.map.grid_map, atol=1e-3 * expected.heat.max())
            assert found.bad == expected.bad


def test_two_scales_are_one_map_and_runtimes_agree(tmp_path):
    folder = bundle_set.make_with_two_scales(tmp_path)
    photos = [bundle_set.photograph(seed, seed % 2 == 1) for seed in range(60, 64)]
    table = [[Inspector.load(folder, runtime)(photo) for photo in photos] for runtime in RUNTIMES]
    for other in table:
        for found, expected in zip(other, table[2], strict=True):
            assert found.raw_score == pytest.approx(expected.raw_score, rel=1e-4)
            assert found.map.grid_map.shape == bundle_set.GRID and found.raw_score == found.map.grid_map.max()
            np.testing.assert_allclose(found.map.grid_map, expected.map.grid_map, atol=1e-3 * expected.heat.max())
    assert table[0][1].raw_score > 1.5 * table[0][0].raw_score and table[0][1].regions


def test_a_long_photograph_keeps_its_shape_and_runtimes_agree(tmp_path):
    folder = bundle_set.make_of_strips(tmp_path)
    photos = [bundle_set.photograph(seed, seed % 2 == 1, bundle_set.STRIP) for seed in range(60, 64)]
    table = [[Inspector.load(folder, runtime)(photo) for photo in photos] for runtime in RUNTIMES]
    for other in table:
        for photo, found, expected in zip(photos, other, table[2], strict=True):
            assert found.raw_score == pytest.approx(expected.raw_score, rel=1e-4)
            np.testing.assert_allclose(found.map.grid_map, expected.map.grid_map, atol=1e-3 * expected.heat.max())
            height, width = bundle_set.STRIP_INPUT
            assert found.map.grid_map.shape == (height // 8, width // 8) and found.heat.shape == photo.shape[:2]
    dark = photos[1].max(axis=2) < 60
    assert table[0][1].raw_score > 1.5 * table[0][0].raw_score
    assert table[0][1].heat[dark].mean() > 2 * table[0][1].heat[~dark].mean()
    item = Inspector.load(folder, "onnx").prepare(photos[0])
    assert item.picture.shape == (*bundle_set.STRIP_INPUT, 3) and item.picture.min() > 40, "black rims"
    square = bundle_set.photograph(61, True, (60, 60))  # of another shape: most of the input mirrors it
    judged = [Inspector.load(folder, runtime) for runtime in RUNTIMES]
    assert {len(inspector.prepare(square).cells) for inspector in judged} == {8 * 8}
    scores = [inspector(square).raw_score for inspector in judged]
    assert scores[:2] == pytest.approx(scores[2:] * 2, rel=1e-4)


def test_a_defect_on_a_seam_of_tiles_is_one_box_at_its_place_and_runtimes_agree(tmp_path):
    folder = bundle_set.make_with_tiles(tmp_path)
    good, bad = (bundle_set.photograph(60, size=bundle_set.LARGE) for _ in range(2))
    settings = read_bundle(folder).settings["network"]
    height, width = settings["input_size"]
    seams = [tiles.starts(side, bundle_set.TILE)[1] + bundle_set.TILE.overlap // 2 for side in (height, width)]
    centre = [seam * bundle_set.LARGE[i] // settings["input_size"][i] for i, seam in enumerate(seams)]
    cv2.circle(bad, (centre[1], centre[0]), 12, (20, 20, 20), -1)
    table = [[Inspector.load(folder, runtime)(photo) for photo in (good, bad)] for runtime in RUNTIMES]
    for other in table:
        for found, expected in zip(other, table[2], strict=True):
            assert found.raw_score == pytest.approx(expected.raw_score, rel=1e-4)
            np.testing.assert_allclose(found.map.grid_map, expected.map.grid_map, atol=1e-3 * expected.heat.max())
    sound, seen = table[0]
    assert seen.raw_score > 1.5 * sound.raw_score and seen.heat.shape == bundle_set.LARGE
    cut = (sound.heat.max() + seen.heat.max()) / 2
    count, _, boxes, centres = cv2.connectedComponentsWithStats((seen.heat > cut).astype(np.uint8))
    assert count == 2, "one box, and the background"
    assert np.abs(centres[1] - centre[::-1]).max() < 5 and boxes[1][:4].max() < 400
    rows, columns = np.unravel_index(seen.heat.argmax(), seen.heat.shape)
    assert abs(rows - centre[0]) < 12 and abs(columns - centre[1]) < 12


@pytest.mark.skipif(sys.platform != "linux", reason="says on Linux where a thread may compute")
def test_openvino_leaves_each_process_all_cores(bundle_folder):
    one = Inspector.load(bundle_folder, "openvino")
    item, allowed, seen = one.prepare(bundle_set.photograph(3)), os.sched_getaffinity(0), []
    number, begun, done = [], threading.Event(), threading.Event()

    def judge():
        number.append(threading.get_native_id())
        begun.set()
        for _ in range(60):
            one.embed(item)
        done.set()

    thread = threading.Thread(target=judge)
    thread.start()
    begun.wait()
    while not done.is_set():
        seen.append(os.sched_getaffinity(number[0]))
    thread.join()
    assert seen and all(cores == allowed for cores in seen)


def test_the_review_band_and_the_threshold_are_those_of_the_bundle(one):
    one.settings["review"], before = [0.0, 100.0], one.settings["review"]
    verdict = one(bundle_set.photograph(31))
    one.settings["review"] = before
    assert verdict.review and verdict.flagged and not verdict.bad and verdict.threshold == 1.2
    assert 0.5 + (verdict.raw_score - 1.2) / (3.0 - 0.7) == pytest.approx(verdict.score)


def test_a_bad_verdict_without_a_region_shows_its_peak_and_says_so(one):
    one.settings["pixel_threshold"], before = 1000.0, one.settings["pixel_threshold"]
    good, bad = (one(bundle_set.photograph(30, bad)) for bad in (False, True))
    one.settings["pixel_threshold"] = None
    without = one(bundle_set.photograph(30, True))
    one.settings["pixel_threshold"] = before
    assert good.regions == [] and len(bad.regions) == 1 == len(without.regions)
    dark = bundle_set.photograph(30, True).max(axis=2) < 60
    rows, columns = np.nonzero(dark)
    ((x, y, width, height),) = boxes_of(bad)
    assert abs(x + width / 2 - columns.mean()) < 12 and abs(y + height / 2 - rows.mean()) < 12
    mark = "above the image threshold only"
    assert row_of(Path("a.png"), bad)["mark"] == row_of(Path("a.png"), without)["mark"] == mark
    assert json_of(Path("a.png"), bad)["regions"][0]["mark"] == mark
    assert line_of(Path("a.png"), bad).endswith(f"a.png  (no damaged region, box at the peak: {mark})")
    assert row_of(Path("a.png"), good)["mark"] == ""


def test_a_good_verdict_is_not_told_as_damaged(one):
    bad = one(bundle_set.photograph(30, True))
    assert "(1 damaged region)" in line_of(Path("a.png"), bad)
    good = replace(bad, bad=False, score=0.42)
    assert line_of(Path("a.png"), good) == "good  0.42  a.png  (1 region above the pixel threshold only)"


def test_whoever_reads_the_exit_status_hears_of_a_doubtful_mask(one):
    sure = replace(one(bundle_set.photograph(31)), present=True, doubtful=False)
    assert not sure.flagged
    assert replace(sure, doubtful=True).flagged and replace(sure, present=False).flagged


def test_a_row_tells_the_verdict_of_its_scores_however_near_the_threshold(one):
    near = {"bad": False, "threshold": 1.2, "raw_score": 1.19999999, "score": BELOW_HALF}
    verdict = replace(one(bundle_set.photograph(31)), **near)
    for entry in (row_of(Path("a.png"), verdict), json_of(Path("a.png"), verdict)):
        assert entry["verdict"] == "good"
        assert float(entry["score"]) < 0.5 and float(entry["raw_score"]) < float(entry["threshold"])


@pytest.mark.parametrize("wrong", [np.zeros((5, 5), np.uint8), np.zeros((5, 5, 3)), np.zeros((0, 5, 3), np.uint8)])
def test_what_is_no_rgb_image_is_refused(one, wrong):
    with pytest.raises(UserError, match="uint8 RGB"):
        one(wrong)


def test_a_picture_of_one_pixel_is_judged(one):
    assert np.isfinite(one(np.full((1, 1, 3), 9, np.uint8)).raw_score)


def test_a_runtime_that_does_not_exist_or_lacks_a_precision_is_one_line(bundle_folder):
    with pytest.raises(UserError, match="runtime 'abacus' is unknown"):
        Inspector.load(bundle_folder, "abacus")
    with pytest.raises(UserError, match="no int8 for openvino in this bundle"):
        Inspector.load(bundle_folder, "openvino", precision="int8")


# Every kind of file shows the same photograph: what is read must be it.
def as_16_bit(path, photo):
    grey = photo.mean(axis=2).astype(np.uint16) * 257
    Image.fromarray(grey).save(path)


def turned(path, photo):
    exif = Image.Exif()
    exif[274] = 6  # shown turned by 90 degrees clockwise
    Image.fromarray(np.rot90(photo).copy()).save(path, exif=exif, quality=95)


def animated(path, photo):
    pages = [Image.fromarray(picture) for picture in (photo, 255 - photo)]
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=100)


KINDS = {
    "sixteen.png": as_16_bit,
    "grey.png": lambda path, photo: Image.fromarray(photo).convert("L").save(path),
    "one_bit.png": lambda path, photo: Image.fromarray(photo).convert("1").save(path),
    "palette.png": lambda path, photo: Image.fromarray(photo).convert("P").save(path),
    "rgba.png": lambda path, photo: Image.fromarray(photo).convert("RGBA").save(path),
    "cmyk.jpg": lambda path, photo: Image.fromarray(photo).convert("CMYK").save(path, quality=95),
    "turned.jpg": turned,
    "animated.png": animated,
    "animated.webp": animated,
    "pages.tif": animated,
}


@pytest.mark.parametrize("name", KINDS)
def test_any_kind_of_image_is_read_as_what_it_shows(tmp_path, one, name):
    photo = bundle_set.photograph(33, bad=True)
    KINDS[name](tmp_path / name, photo)
    read = read_photograph(tmp_path / name)
    assert read.shape == photo.shape and read.dtype == np.uint8
    limit = {"one_bit.png": 130, "palette.png": 60}.get(name, 25)
    assert np.abs(read.astype(int).mean(axis=2) - photo.mean(axis=2)).mean() < limit
    assert one(tmp_path / name).bad


def with_depth(folder, depth):
    """The bundle of another depth."""
    settings = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps(settings | {"depth": depth}))
    return Inspector.load(folder)


def test_a_bundle_keeps_the_depth_of_its_photographs_and_refuses_any_other(tmp_path, bundle_folder, capsys):
    folder = shutil.copytree(bundle_folder, tmp_path / "bundle")
    grey = np.dstack([bundle_set.photograph(33, bad=True).mean(axis=2).astype(np.uint8)] * 3)
    files = {"eight.png": grey[..., 0], "twelve.png": grey[..., 0].astype(np.uint16) << 4}
    files["sixteen.png"] = grey[..., 0].astype(np.uint16) * 257
    for name, pixels in files.items():
        Image.fromarray(pixels).save(tmp_path / name)
    expected = with_depth(folder, "12")(grey).raw_score
    inspector = with_depth(folder, "12")
    assert inspector(tmp_path / "twelve.png").raw_score == inspector(tmp_path / "eight.png").raw_score == expected
    Image.fromarray(files["twelve.png"]).save(tmp_path / "twelve.jp2")
    Image.fromarray(4095 - files["twelve.png"]).save(tmp_path / "white.tif", tiffinfo={262: 0})  # 0 is white
    for name in ("twelve.jp2", "white.tif"):
        assert inspector(tmp_path / name).raw_score == expected
    with pytest.raises(UserError, match=r"sixteen\.png: its largest value is \d+, and 12 bits hold 4095 at most"):
        inspector(tmp_path / "sixteen.png")
    with pytest.raises(UserError, match=r"twelve\.png: its largest value is \d+, and 8 bits hold 255 at most"):
        with_depth(folder, "8")(tmp_path / "twelve.png")
    for depth in ("8", "16"):
        assert with_depth(folder, depth)(tmp_path / "sixteen.png").raw_score == expected
    with_depth(folder, "12")
    with pytest.raises(SystemExit) as ended:
        cli.main(["inspect", str(folder), *(str(tmp_path / name) for name in files), "--out", str(tmp_path / "out")])
    told = capsys.readouterr().out
    assert ended.value.code == 2 and "sixteen.png" in told and told.count("4095") == 1
    with pytest.raises(UserError, match="depth '13' is unknown"):
        with_depth(folder, "13")


@pytest.mark.parametrize(("name", "reason"), [("a.NEF", "a camera's raw file"), ("a.zip", "an archive")])
def test_raw_files_and_archives_that_are_named_are_refused(tmp_path, one, name, reason):
    """A raw file is a TIFF to Pillow, which would give the small preview in it."""
    Image.fromarray(bundle_set.photograph(33)).save(tmp_path / name, format="TIFF")
    with pytest.raises(UserError, match=rf"{name}: {reason} \("):
        one(tmp_path / name)


def bomb(path, width=60000, height=60000):
    """A PNG of a few kilobytes that says it has 3.6 thousand million pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(bytes(100000), 9)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def torn(path):
    write_png(path.with_name("whole.png"), bundle_set.photograph(1))
    path.write_bytes(path.with_name("whole.png").read_bytes()[:2000])


def torn_jpeg(path):
    Image.fromarray(bundle_set.photograph(1)).save(path)
    path.write_bytes(path.read_bytes()[:1500])


BROKEN = {
    "bomb.png": bomb,
    "torn.png": torn,
    "torn.jpg": torn_jpeg,
    "empty.png": lambda path: path.write_bytes(b""),
    "text.jpg": lambda path: path.write_text("not an image"),
    "folder.png": lambda path: path.mkdir(),
    "absent.png": lambda path: None,
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_is_one_line_with_its_name(tmp_path, one, name):
    BROKEN[name](tmp_path / name)
    with pytest.raises(UserError, match=name) as caught:
        one(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_hundred_megapixels_are_judged_within_bounded_memory(tmp_path, bundle_folder):
    path = tmp_path / "large.png"
    Image.fromarray(bundle_set.photograph(34, True)).resize((12000, 8400)).save(path, compress_level=1)
    code = (
        f"import sys; from defectflow.inspection.inspector import Inspector; {bundle_set.PEAK}"
        "verdict = Inspector.load(sys.argv[1], 'openvino')(sys.argv[2]);"
        "assert verdict.bad and verdict.size == (8400, 12000) and max(verdict.heat.shape) == 4096;"
        "print(peak())"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, bundle_folder, path], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 1_500_000  # kilobytes; the picture itself has 300 MB


def test_several_photographs_are_judged_as_each_alone(bundle_folder, inspector):
    photos = [bundle_set.photograph(20 + seed, bad=seed == 1, size=(96 + 8 * seed, 128)) for seed in range(3)]
    together = inspector.judge(photos)
    assert inspector.judge([]) == []
    for photo, verdict in zip(photos, together, strict=True):
        alone = inspector(photo)
        assert (verdict.bad, verdict.size) == (alone.bad, alone.size)
        assert verdict.raw_score == pytest.approx(alone.raw_score, rel=1e-4)
        np.testing.assert_allclose(verdict.map.grid_map, alone.map.grid_map, rtol=1e-3, atol=1e-4)


def test_a_gpu_means_torch_and_is_told_where_there_is_none(bundle_folder, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device is available"):
        Inspector.load(bundle_folder, device="cuda")
    with pytest.raises(UserError, match="openvino computes on the processor"):
        Inspector.load(bundle_folder, "openvino", device="cuda")


def judged(distances, bounds, level, bad):
    """A stub's verdict on a photograph with these distances on a grid of 8 x 8; an item each time they were asked."""
    made, asked = Inspector.__new__(Inspector), []
    made.runtime, made.clock, made._locate, made._namer = "stub", time.perf_counter, None, None

    def all_of_them():
        asked.append(True)
        return distances

    made._scorer = lambda patches, cells: Scored(2.0 if bad else 0.0, bounds, all_of_them)
    made._network = lambda pictures: np.ones((len(pictures), 64, 1), np.float32)
    made.settings = {
        "network": {"grid": [8, 8], "input_size": [32, 32]},
        "threshold": {"value": 1.0, "low": 0.0, "high": 2.0},
        "review": None,
        "pixel_threshold": level,
        "regions": {"merge": 0.05},
    }
    item = Loaded(np.zeros((32, 32, 3), np.uint8), np.arange(64), True, np.eye(2, 3))
    return made.finish([Ready((32, 32), None, item, {})])[0], asked


@given(
    st.lists(st.floats(0, 4, width=32), min_size=64, max_size=64),
    st.sampled_from([0.0, 0.01, 1.0]),
    st.none() | st.floats(0.5, 5),
    st.booleans(),
)
def test_the_map_is_left_out_only_where_it_has_no_regions(values, above, level, bad):
    distances = np.array(values, np.float32)
    bounds = np.minimum(distances + np.float32(above), distances.max())
    verdict, asked = judged(distances, bounds, level, bad)
    before = len(asked)
    expected = find_damage(verdict.heat, level, None, bad, merge=0.05)
    assert verdict.regions == expected and verdict.bad == bad
    assert before == 1 or not expected
    np.testing.assert_array_equal(verdict.map.grid_map.ravel(), distances)
    assert len(asked) == 1


def test_a_verdict_for_keeping_has_no_map():
    values = np.ones(64, np.float32)
    kept = judged(values, values, 2.0, False)[0].without_part()
    assert kept.part is None and not kept.regions
    with pytest.raises(ValueError, match="ask for `heat` before"):
        _ = kept.heat
