import json
import shutil
from dataclasses import replace

import cv2
import inspection_set
import numpy as np
import pandas as pd
import pytest
from defectflow.core.files import UserError
from defectflow.core.tables import PREDICTIONS, REGIONS, read_table, write_table
from defectflow.decision.outcomes import with_outcomes
from defectflow.drawing import overlay_images
from defectflow.drawing.heat_settings import Look
from defectflow.drawing.overlay_images import Scale
from defectflow.evaluation import boxes, evaluate
from defectflow.images.read_write import read_mask, read_rgb
from defectflow.listing import image_names
from defectflow.reporting import render
from PIL import Image

SHEETS = ["best.jpg", "borderline.jpg", "masks.jpg", "worst.jpg"]


def run(data, out, *more):
    boxes.main(boxes.build_parser().parse_args(data.boxes_args(out)))
    render.main(render.build_parser().parse_args(data.render_args(out, *more)))


def without(args, *flags):
    """Words of a command line without these options, each of one value."""
    places = [args.index(flag) for flag in flags]
    return [word for i, word in enumerate(args) if i not in places and i - 1 not in places]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    root = tmp_path_factory.mktemp("render")
    data = inspection_set.make(root / "set", size=(240, 320))
    evaluate.main(evaluate.build_parser().parse_args(data.evaluate_args(root / "out")))
    run(data, root / "out")
    return data, root


def test_every_scored_image_has_a_heatmap_and_an_overlay_of_its_size(rendered):
    _, root = rendered
    names = set(read_table(root / "out/predictions.csv", PREDICTIONS)["image_id"])
    assert len(names) == 16
    for folder, suffix in (("heatmaps", ".png"), ("overlays", ".jpg")):
        assert {p.name for p in (root / "out" / folder).iterdir()} == {f"{i}{suffix}" for i in names}
    heat = Image.open(root / "out/heatmaps/odd__001.png")
    assert heat.size == (320, 240) and heat.mode == "P"
    assert read_rgb(root / "out/overlays/odd__001.jpg").shape == (240 + overlay_images.strip_height(320), 320, 3)
    assert sorted(p.name for p in (root / "out/sheets").iterdir()) == SHEETS


def test_pictures_of_a_large_set_are_spread_over_subfolders(rendered, tmp_path, monkeypatch):
    data, root = rendered
    monkeypatch.setattr(image_names, "FLAT", 8)
    shutil.copytree(root / "out", tmp_path / "out", ignore=shutil.ignore_patterns("heatmaps", "overlays", "sheets"))
    run(data, tmp_path / "out")
    for folder in ("heatmaps", "overlays"):
        pictures = sorted((tmp_path / "out" / folder).glob("*/*.*g"))
        assert len(pictures) == 16 and not list((tmp_path / "out" / folder).glob("*.*g"))
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
    picture = read_rgb(root / "out/overlays/good__003.jpg")[:240].astype(int)
    same = (np.abs(photo - picture).max(axis=2) <= 12).mean()
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
    boxes.main(boxes.build_parser().parse_args(data.boxes_args(tmp_path / "out")))
    args = [word for word in data.render_args(tmp_path / "out") if word != "--masks"]
    render.main(render.build_parser().parse_args(args))
    assert len(list((tmp_path / "out/overlays").iterdir())) == 3
    assert sorted(p.name for p in (tmp_path / "out/sheets").iterdir()) == SHEETS


@pytest.mark.parametrize(
    "good, bad, sections",
    [
        (9, 7, ["Highest scores", "Missed defects, lowest score first", "False alarms, highest score first"]),
        (9, 0, ["Highest scores", "False alarms, highest score first"]),
        (0, 7, ["Highest scores", "Missed defects, lowest score first"]),
        (0, 0, ["Highest scores"]),
    ],
)
def test_errors_that_nobody_could_make_have_no_section(good, bad, sections, tmp_path, monkeypatch):
    told = {}

    def contact_sheet(heading, content):
        told[heading] = [name for name, _ in content]
        return np.zeros((2, 2, 3), np.uint8)

    monkeypatch.setattr(overlay_images, "contact_sheet", contact_sheet)
    rows = pd.DataFrame(columns=["image_id", "filename", "margin", "near", "outcome", "raw_score", "threshold"])
    render.sheets(rows, 0, (good, bad), tmp_path, tmp_path)
    assert told["Worst: most anomalous, and wrong verdicts"] == sections


def test_regions_have_a_box_around_them(rendered):
    _, root = rendered
    table = read_table(root / "out/regions.csv", REGIONS)
    found = table[table["image_id"] == "odd__001"].iloc[0]
    picture = read_rgb(root / "out/overlays/odd__001.jpg")[:240].astype(int)
    side = picture[found["y"] : found["y"] + found["height"], found["x"] - 3 : found["x"]]
    assert (np.abs(side - overlay_images.FOUND).max(axis=2) <= 40).any(axis=1).all()
    plain = np.zeros((50, 60, 3), np.uint8)
    overlay_images.boxes(plain, [(0, 0, 60, 50)])  # stays in the picture
    assert plain[0, 30].tolist() == plain[-1, 30].tolist() == list(overlay_images.FOUND)


def test_a_scale_leaves_room_above_the_level():
    rng = np.random.default_rng(0)
    good = rng.normal(3, 0.3, 5000)
    scale = overlay_images.colour_scale(good, np.append(good, [8.0] * 20), level=6.0)
    assert scale.low < scale.warm < scale.level < scale.high
    assert overlay_images.heat_index(np.array([[0.0, 6.0, 99.0]]), scale).tolist()[0][::2] == [0, 255]
    assert 128 < overlay_images.heat_index(np.array([[6.0]]), scale)[0, 0] < 230
    flat = overlay_images.colour_scale(np.ones(9), np.ones(9))
    assert flat.high > flat.low  # constant maps do not divide by zero


def test_overlay_outlines_in_the_colours_of_the_legend():
    photo = np.full((100, 100, 3), 90, np.uint8)
    heat = np.zeros((100, 100), np.float32)
    found, truth, part = (np.zeros((100, 100), bool) for _ in range(3))
    found[20:40, 20:40], truth[60:80, 60:80], part[5:95, 5:95] = True, True, True
    picture = overlay_images.overlay(photo, heat, Scale(0, 1, 2, 3), found, truth, part)
    assert picture[30, 20].tolist() == list(overlay_images.FOUND)
    for at, colour in (((70, 58), overlay_images.TRUTH), ((50, 5), overlay_images.PART)):
        assert np.abs(picture[at].astype(int) - colour).max() < 40  # thin lines are anti-aliased
    assert picture[70, 61].tolist() == [90, 90, 90]  # the defect itself stays visible
    assert picture[50, 50].tolist() == [90, 90, 90]


HEAT = np.tile(np.linspace(0, 4, 100, dtype=np.float32), (60, 1))  # warm from column 25 on, full from 50, end at 75
SCALE = Scale(low=0, warm=1, level=2, high=3)


def covered(look):
    """Opacity that the heat has in each column of an overlay over black."""
    nothing = np.zeros(HEAT.shape, bool)
    picture = overlay_images.overlay(np.zeros((*HEAT.shape, 3), np.uint8), HEAT, SCALE, nothing, None, None, look)
    full = overlay_images.palette(look.colours)[overlay_images.heat_index(HEAT, SCALE, look.gamma)]
    return picture[30].sum(axis=1) / np.maximum(full[30].sum(axis=1, dtype=int), 1)


def test_heat_begins_where_good_images_end_and_is_full_at_the_level():
    alpha = covered(Look(colours="gray", alpha_min=0.2, alpha_max=0.8))
    assert (alpha[:24] == 0).all() and alpha[26] == pytest.approx(0.22, abs=0.03)
    assert alpha[38] == pytest.approx(0.52, abs=0.03) and alpha[52:] == pytest.approx(0.8, abs=0.01)


def test_constant_heat_covers_all_that_exceeds_good_images_alike():
    alpha = covered(Look(colours="gray", alpha_mode="constant", alpha_max=0.5))
    assert (alpha[:24] == 0).all() and alpha[26:] == pytest.approx(0.5, abs=0.01)


def test_heat_over_the_whole_frame_follows_the_colour():
    alpha = covered(Look(colours="gray", alpha_mode="heat", alpha_min=0.1, alpha_max=0.7))
    assert alpha[15] == pytest.approx(0.1 + 0.6 * 15 / 74.25, abs=0.03) and alpha[80:] == pytest.approx(0.7, abs=0.01)


def test_opacity_weakens_all_heat_and_none_leaves_the_outlines():
    assert covered(Look(colours="gray", opacity=0.5))[60:] == pytest.approx(0.3, abs=0.01)
    photo = np.full((*HEAT.shape, 3), 90, np.uint8)
    picture = overlay_images.overlay(photo, HEAT, SCALE, HEAT > 2, None, None, Look(opacity=0))
    assert (picture[30, 60:90] == 90).all() and (picture != photo).any()


def test_gamma_lifts_what_is_faint_and_keeps_the_ends():
    plain, lifted = overlay_images.heat_index(HEAT, SCALE), overlay_images.heat_index(HEAT, SCALE, 0.5)
    assert lifted[0, 0] == 0 and lifted[0, 80] == 255 and lifted[0, 19] == pytest.approx(255 * 0.256**0.5, abs=2)
    assert (lifted >= plain).all()


def test_blur_spreads_heat_and_keeps_its_sum():
    spot = np.zeros((64, 64), np.float32)
    spot[32, 32] = 100
    soft = overlay_images.blurred(spot, Look(blur=8))  # 2 pixels of 64
    assert soft.sum() == pytest.approx(100, rel=1e-3) and soft.max() == pytest.approx(100 / (2 * np.pi * 4), rel=0.02)
    assert overlay_images.blurred(spot, Look()) is spot


def test_colours_end_at_the_quantile():
    values = np.arange(1001.0)
    assert overlay_images.colour_scale(values[:100], values, vmax_quantile=0.9).high == pytest.approx(900)


def test_triptychs_are_drawn_on_request_and_nothing_else(rendered, tmp_path):
    data, root = rendered
    args = data.render_args(root / "out")
    out = tmp_path / "triptychs"
    words = without(args, "--heatmaps", "--overlays", "--sheets")
    render.main(render.build_parser().parse_args([*words, "--triptychs", str(out)]))
    picture = read_rgb(out / "odd__001.jpg")
    photo = read_rgb(data.root / "images/odd/001.png")
    assert picture.shape == (240 + overlay_images.strip_height(320), 3 * 320 + 2 * 4, 3)
    assert np.abs(picture[:240, :320].astype(int) - photo).mean() < 2
    masks, heat = picture[:240, 324:644], picture[:240, 648:]
    part, truth = read_mask(root / "set/masks/odd__001.png"), read_mask(root / "set/truth/odd__001.png")
    off = [np.abs(masks.astype(int) - colour).max(axis=2) for colour in (overlay_images.PAPER, overlay_images.FOUND)]
    assert (off[0][~part] < 12).mean() > 0.95 and (off[1][truth] < 12).any()
    assert heat[truth].mean() > 2 * heat[part & ~truth].mean()
    assert not (tmp_path / "overlays").exists()


def test_what_cannot_be_drawn_is_told(rendered):
    data, root = rendered
    args = without(data.render_args(root / "out"), "--heatmaps", "--overlays", "--sheets")
    for more, message in (([], "nothing to draw"), (["--sheets", str(root / "s")], "give --overlays too")):
        with pytest.raises(UserError, match=message):
            render.main(render.build_parser().parse_args([*args, *more]))


@pytest.mark.parametrize("width", [64, 320, 1024, 4000])
def test_caption_strip_fits_any_width(width):
    strip = overlay_images.caption_strip(
        width, "a/very/long/name/" + "x" * 200 + ".jpg", "BAD 0.87", overlay_images.BAD, "missed defect", "y" * 300,
        [("part", overlay_images.PART)],
    )  # fmt: skip
    assert strip.shape == (overlay_images.strip_height(width), width, 3) and strip.std() > 5


def test_shorten_keeps_beginning_and_end():
    font = overlay_images._font(14)
    short = overlay_images.shorten("beginning" + "x" * 100 + "end.png", font, 150)
    assert font.getlength(short) <= 150 and short.startswith("beg") and short.endswith(".png") and "…" in short
    assert overlay_images.shorten("a.png", font, 150) == "a.png"


def row(**values):
    known = {"label": 1.0, "predicted_label": 1.0, "pred_score": 0.9, "raw_score": 4.0, "defect_type": "", "review": 0}
    known |= {"mask_present": 1, "mask_doubtful": 0, "mask_reason": ""}
    return next(with_outcomes(pd.DataFrame([known | values])).itertuples())


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


def test_16_bit_photographs_are_drawn_as_8_bit_ones(rendered, tmp_path):
    data, root = rendered
    images = shutil.copytree(data.root / "images", tmp_path / "images")
    for path in images.rglob("*.png"):
        cv2.imwrite(str(path), cv2.imread(str(path)).astype(np.uint16) << 4)
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(data.manifest.read_text().replace(str(data.root / "images"), str(images)))
    shutil.copytree(root / "out", tmp_path / "out", ignore=shutil.ignore_patterns("heatmaps", "overlays", "sheets"))
    run(replace(data, manifest=manifest), tmp_path / "out", "--depth", "12")
    for kind in ("overlays", "sheets"):
        names = sorted(path.name for path in (root / "out" / kind).iterdir())
        assert names and names == sorted(path.name for path in (tmp_path / "out" / kind).iterdir())
        for name in names:
            assert (tmp_path / "out" / kind / name).read_bytes() == (root / "out" / kind / name).read_bytes(), name
