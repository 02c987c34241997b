import json
import shutil
from types import SimpleNamespace

import inspection_set
import numpy as np
import pytest
from defectflow import drawing, evaluate, naming, render
from defectflow.drawing import Scale
from defectflow.files import UserError
from defectflow.images import read_mask, read_rgb
from defectflow.tables import PREDICTIONS, read_table, write_table
from PIL import Image

SHEETS = ["best.png", "borderline.png", "masks.png", "worst.png"]


def run(data, out, *more):
    render.main(render.build_parser().parse_args(data.render_args(out, *more)))


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    root = tmp_path_factory.mktemp("render")
    data = inspection_set.make(root / "set", size=(240, 320))
    evaluate.main(evaluate.build_parser().parse_args(data.evaluate_args(root / "out")))
    run(data, root / "out")
    return data, root


def test_every_scored_image_has_a_heatmap_and_an_overlay_of_its_size(rendered):
    _, root = rendered
    names = {f"{i}.png" for i in read_table(root / "out/predictions.csv", PREDICTIONS)["image_id"]}
    assert len(names) == 16
    for folder in ("heatmaps", "overlays"):
        assert {p.name for p in (root / "out" / folder).iterdir()} == names
    heat = Image.open(root / "out/heatmaps/odd__001.png")
    assert heat.size == (320, 240) and heat.mode == "P"
    assert read_rgb(root / "out/overlays/odd__001.png").shape == (240 + drawing.strip_height(320), 320, 3)
    assert sorted(p.name for p in (root / "out/sheets").iterdir()) == SHEETS


def test_pictures_of_a_large_set_are_spread_over_subfolders(rendered, tmp_path, monkeypatch):
    data, root = rendered
    monkeypatch.setattr(naming, "FLAT", 8)
    shutil.copytree(root / "out", tmp_path / "out", ignore=shutil.ignore_patterns("heatmaps", "overlays", "sheets"))
    run(data, tmp_path / "out")
    for folder in ("heatmaps", "overlays"):
        pictures = sorted((tmp_path / "out" / folder).glob("*/*.png"))
        assert len(pictures) == 16 and not list((tmp_path / "out" / folder).glob("*.png"))
        assert all(p.read_bytes() == (root / "out" / folder / p.name).read_bytes() for p in pictures)
        assert max(len(list(p.iterdir())) for p in (tmp_path / "out" / folder).iterdir()) <= 8
    assert sorted(p.name for p in (tmp_path / "out/sheets").iterdir()) == SHEETS


def test_the_heat_is_where_the_defect_is(rendered):
    _, root = rendered
    heat = np.asarray(Image.open(root / "out/heatmaps/odd__001.png"))  # palette indices: the values
    truth = read_mask(root / "set/truth/odd__001.png")
    part = read_mask(root / "set/masks/odd__001.png")
    assert heat[truth].mean() > 3 * heat[part & ~truth].mean()
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    rows, columns = np.nonzero(truth)
    assert abs(row - rows.mean()) < 24 and abs(column - columns.mean()) < 24


def test_a_good_image_keeps_its_colours_off_the_outlines(rendered):
    data, root = rendered
    photo = read_rgb(data.root / "images/good/003.png").astype(int)
    picture = read_rgb(root / "out/overlays/good__003.png")[:240].astype(int)
    same = (np.abs(photo - picture).max(axis=2) <= 2).mean()
    assert 0.9 < same < 1.0


def test_threads_make_the_same_bytes(rendered):
    data, root = rendered
    before = {
        p: p.read_bytes() for folder in ("heatmaps", "overlays", "sheets") for p in (root / "out" / folder).iterdir()
    }
    run(data, root / "out", "--threads", "2")
    assert before == {p: p.read_bytes() for p in before}
    assert len(before) == 36


def test_a_failure_leaves_no_folder(tmp_path):
    data = inspection_set.make(tmp_path / "set", good=3, bad=2, unlabelled=0)
    evaluate.main(evaluate.build_parser().parse_args(data.evaluate_args(tmp_path / "out")))
    (tmp_path / "set/images/odd/001.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"001\.png"):
        run(data, tmp_path / "out")
    assert not any((tmp_path / "out" / name).exists() for name in ("heatmaps", "overlays", "sheets"))


def test_maps_of_another_run_are_refused(rendered, tmp_path):
    data, root = rendered
    table = read_table(root / "out/predictions.csv", PREDICTIONS)
    write_table(tmp_path / "predictions.csv", table.assign(image_id="strange"), PREDICTIONS)
    (tmp_path / "metrics.json").write_text(json.dumps({"pixel": None}))
    with pytest.raises(UserError, match="no image has both a score and a map"):
        run(data, tmp_path)


def test_without_labels_or_masks(tmp_path):
    data = inspection_set.make(tmp_path / "set", good=0, bad=0, unlabelled=3)
    evaluate.main(evaluate.build_parser().parse_args(data.evaluate_args(tmp_path / "out")))
    data.masks.clear()
    args = [word for word in data.render_args(tmp_path / "out") if word != "--masks"]
    render.main(render.build_parser().parse_args(args))
    assert len(list((tmp_path / "out/overlays").iterdir())) == 3
    assert sorted(p.name for p in (tmp_path / "out/sheets").iterdir()) == SHEETS


def test_a_scale_leaves_room_above_the_level():
    rng = np.random.default_rng(0)
    good = rng.normal(3, 0.3, 5000)
    scale = drawing.colour_scale(good, np.append(good, [8.0] * 20), level=6.0)
    assert scale.low < scale.warm < scale.level < scale.high
    assert drawing.heat_index(np.array([[0.0, 6.0, 99.0]]), scale).tolist()[0][::2] == [0, 255]
    assert 128 < drawing.heat_index(np.array([[6.0]]), scale)[0, 0] < 230
    flat = drawing.colour_scale(np.ones(9), np.ones(9))
    assert flat.high > flat.low  # constant maps do not divide by zero


def test_overlay_outlines_in_the_colours_of_the_legend():
    photo = np.full((100, 100, 3), 90, np.uint8)
    heat = np.zeros((100, 100), np.float32)
    found, truth, part = (np.zeros((100, 100), bool) for _ in range(3))
    found[20:40, 20:40], truth[60:80, 60:80], part[5:95, 5:95] = True, True, True
    picture = drawing.overlay(photo, heat, Scale(0, 1, 2, 3), found, truth, part)
    assert picture[30, 20].tolist() == list(drawing.FOUND)
    for at, colour in (((70, 58), drawing.TRUTH), ((50, 5), drawing.PART)):
        assert np.abs(picture[at].astype(int) - colour).max() < 40  # thin lines are anti-aliased
    assert picture[70, 61].tolist() == [90, 90, 90]  # the defect itself stays visible
    assert picture[50, 50].tolist() == [90, 90, 90]


@pytest.mark.parametrize("width", [64, 320, 1024, 4000])
def test_caption_strip_fits_any_width(width):
    strip = drawing.caption_strip(
        width, "a/very/long/name/" + "x" * 200 + ".jpg", "BAD 0.87", drawing.BAD, "missed defect", "y" * 300,
        [("part", drawing.PART)],
    )  # fmt: skip
    assert strip.shape == (drawing.strip_height(width), width, 3) and strip.std() > 5


def test_shorten_keeps_beginning_and_end():
    font = drawing._font(14)
    short = drawing.shorten("beginning" + "x" * 100 + "end.png", font, 150)
    assert font.getlength(short) <= 150 and short.startswith("beg") and short.endswith(".png") and "…" in short
    assert drawing.shorten("a.png", font, 150) == "a.png"


def row(**values):
    known = {"label": 1.0, "predicted_label": 1.0, "pred_score": 0.9, "raw_score": 4.0, "defect_type": ""}
    return SimpleNamespace(**{**known, "mask_present": 1, "mask_doubtful": 0, "mask_reason": "", **values})


@pytest.mark.parametrize(
    "values, verdict, notice, detail",
    [
        ({}, "BAD  0.90", "", "labelled bad"),
        ({"label": np.nan}, "BAD  0.90", "", "no label"),
        ({"predicted_label": 0.0, "pred_score": 0.2}, "GOOD  0.20", "missed defect", "labelled bad"),
        ({"label": 0.0, "mask_reason": "area"}, "BAD  0.90", "false alarm", "labelled good · area"),
        ({"predicted_label": np.nan, "pred_score": np.nan}, "no verdict  raw 4", "", "labelled bad"),
        ({"mask_present": 0, "mask_reason": "no part found (x)"}, "BAD  0.90", "no part found (x)", "labelled bad"),
        ({"mask_doubtful": 1, "mask_reason": "area"}, "BAD  0.90", "doubtful mask: area", "labelled bad"),
        ({"mask_doubtful": 1, "defect_type": "hole"}, "BAD  0.90", "doubtful mask", "labelled bad: hole"),
        ({"mask_present": np.nan, "mask_doubtful": np.nan}, "BAD  0.90", "", "labelled bad"),
    ],
)
def test_captions(values, verdict, notice, detail):
    image = row(**values)
    text, _, rest = render.verdict_of(image)
    assert (text, render.notice_of(image), rest) == (verdict, notice, detail)
