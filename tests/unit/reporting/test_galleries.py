import base64
import io
import json
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
from defectflow.core.anomaly_maps import AnomalyMap
from defectflow.core.disk_index import DiskIndex
from defectflow.decision.damaged_regions import Region, coco_result
from defectflow.drawing import overlay_images
from defectflow.drawing.heat_settings import Look
from defectflow.images.read_write import write_png
from defectflow.reporting import galleries
from defectflow.reporting.outlier_gallery import without
from PIL import Image


def table(rows):
    frame = pd.DataFrame(rows, columns=["filename", "label", "predicted_label", "margin", "outcome"])
    return frame.assign(raw_score=frame["margin"] + 5, threshold=5.0, review=0.0)


ROWS = [
    *((f"good{k}", 0.0, 0.0, -3 + 0.1 * k, "right") for k in range(20)),
    *((f"bad{k}", 1.0, 1.0, 0.01 + 0.02 * k, "right") for k in range(20)),
    *((f"missed{k}", 1.0, 0.0, -2 + 0.1 * k, "missed defect") for k in range(12)),
    ("alarm0", 0.0, 1.0, 0.2, "false alarm"),
    ("alarm1", 0.0, 1.0, 0.9, "false alarm"),
    *((f"new{k}", np.nan, float(k > 6), -1 + 0.2 * k, "") for k in range(8)),
]


def names(gallery):
    return gallery.rows["filename"].tolist()


def test_each_gallery_shows_what_its_title_says():
    chosen = {g.title: g for g in galleries.choose(table(ROWS), 8)}
    assert names(chosen["Missed defects"])[:2] == ["missed0", "missed1"]
    assert (chosen["Missed defects"].total, len(chosen["Missed defects"].rows)) == (12, galleries.ERRORS_SHOWN)
    assert names(chosen["False alarms"]) == ["alarm1", "alarm0"]
    assert set(names(chosen["Close calls"])) == {f"bad{k}" for k in range(galleries.CLOSE_SHOWN)}
    assert names(chosen["Typical good"]) == ["good8", "good9", "good10"]
    assert names(chosen["Typical bad"]) == ["bad11", "bad12", "bad13"]  # of those that are no close calls
    assert names(chosen["Without a label"])[0] == "new7"


def test_far_from_the_threshold_nothing_is_called_close():
    far = [("good", 0.0, 0.0, -2.65, "right"), ("bad", 1.0, 1.0, 0.3, "right")]
    chosen = {g.title: g for g in galleries.choose(table(far), 0)}
    assert "Close calls" not in chosen and "none is a close call" in chosen["Nearest to the threshold"].lead
    assert names(chosen["Nearest to the threshold"]) == ["good", "bad"]
    # 0.20 under 2.85 may be near in units of the range, and is far in those of the score.
    one = table([("good", 0.0, 0.0, -0.05, "right")]).assign(raw_score=0.2, threshold=2.85)
    assert "Close calls" not in {g.title for g in galleries.choose(one, 0)}


def test_what_could_not_go_wrong_is_not_praised():
    good, both = (galleries.choose(table(rows), 0) for rows in (ROWS[:20], [*ROWS[:25]]))
    assert (good[0].title, good[0].none) == ("Missed defects", "No photograph of a bad part has a label and a verdict.")
    assert good[1].none == "None of 20 good ones."
    assert both[0].none == "None of 5 bad ones."


def test_what_is_shown_above_leaves_the_galleries_below_true():
    rows = [(f"good{k}", 0.0, 0.0, -3.0, "right") for k in range(9)] + [("far", 0.0, 1.0, 2.0, "false alarm")]
    chosen = galleries.choose(table(rows), 0)
    missed, alarms = chosen[:2]
    above = replace(alarms, title="Please look at these first")
    assert without(missed, above).none == "No photograph of a bad part has a label and a verdict."
    rest = without(alarms, above)
    assert rest.total == 0 and rest.none.endswith("1 is shown above.")


def test_where_heat_shows_is_told_as_it_is():
    scale, look = overlay_images.Scale(0, 1, 2, 6), Look()
    cases = [galleries.Case(None, (), frozenset(["found"]), glow) for glow in (0.01, 0.2, 0.9)]
    calm = galleries.heat_note(look, scale, True, cases[:2])
    assert "99 of 100 pixels of good photographs" in calm and "glow" not in calm
    assert "1 of the 3 pictured glows over more than half" in galleries.heat_note(look, scale, True, cases)
    assert "pixels of good photographs exceed too" in galleries.heat_note(
        look, overlay_images.Scale(0, 2, 2, 6), True, cases
    )
    assert "No photograph is labelled good" in galleries.heat_note(look, scale, False, [])
    whole = galleries.heat_note(Look(alpha_mode="heat"), scale, True, cases)
    assert "covers the whole" in whole and "glow" not in whole


def test_no_photograph_is_shown_twice():
    shown = [name for gallery in galleries.choose(table(ROWS), 8) for name in names(gallery)]
    assert len(shown) == len(set(shown))


def test_without_errors_their_galleries_say_none_and_others_are_left_out():
    chosen = galleries.choose(table(ROWS[:20]), 0)
    assert [(g.title, g.total) for g in chosen[:2]] == [("Missed defects", 0), ("False alarms", 0)]
    assert "Typical bad" not in [g.title for g in chosen]
    assert [g.title for g in galleries.choose(table(ROWS[-8:]), 8)][-1] == "Without a label"


@pytest.fixture
def case(tmp_path):
    """A photograph of 900 x 600 with its part, its defect in the lower right, and a map that is hot there."""
    photo = np.full((600, 900, 3), 120, np.uint8)
    part, truth = np.zeros((600, 900), bool), np.zeros((600, 900), bool)
    part[50:550, 50:850], truth[400:460, 700:780] = True, True
    for name, picture in (("photo", photo), ("part", part), ("truth", truth)):
        write_png(tmp_path / f"{name}.png", picture)
    grid = np.zeros((20, 30), np.float32)
    grid[14, 24] = 9
    back = np.array([[3.0, 0, 1], [0, 3.0, 1]])
    row = {"image_id": "x", "path": str(tmp_path / "photo.png"), "mask": str(tmp_path / "truth.png"), "label": 1.0}
    row |= {"part": str(tmp_path / "part.png"), "predicted_label": 1.0, "mask_present": 1, "mask_doubtful": 0}
    return row, {"x": AnomalyMap(grid, back, (200, 300))}


def regions(box=None, mark=""):
    """The index of the regions of a set: a plus sign in this box (x, y, width, height) on the photograph x, or none."""
    if box is None:
        return DiskIndex([], 2, [])
    x, y, width, height = box
    pixels = np.zeros((height, width), bool)
    pixels[height // 2 - 9 : height // 2 + 9] = pixels[:, width // 2 - 9 : width // 2 + 9] = True
    found = Region(x, y, width, height, int(pixels.sum()), 9.0, pixels, mark)
    runs = coco_result(found, 1, (600, 900))["segmentation"]
    return DiskIndex([("x", json.dumps([[box], [runs]]), mark)], 2, [])


DEFECT = (700, 400, 80, 60)


def decoded(picture):
    head, _, data = picture.uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_pictures_are_small_and_show_photograph_part_heat_and_overlay(case):
    row, maps = case
    made = galleries.case_of(
        next(pd.DataFrame([row]).itertuples()), maps, overlay_images.Scale(0, 1, 2, 6), regions(DEFECT)
    )
    assert [p.kind for p in made.pictures] == ["photograph", "part", "heat", "overlay"]
    photo, part, heat, overlay = (decoded(p) for p in made.pictures)
    assert [(p.height, p.width) for p in made.pictures] == [a.shape[:2] for a in (photo, part, heat, overlay)]
    assert max(photo.shape) == galleries.SIDE and photo.shape == overlay.shape
    assert part[5, 5].max() < 60 < part[150, 200].min()  # dark off the part
    peak = np.unravel_index(cv2.GaussianBlur(heat, (9, 9), 0).sum(axis=2).argmax(), heat.shape[:2])
    assert peak[0] / heat.shape[0] == pytest.approx(0.72, abs=0.05)
    assert peak[1] / heat.shape[1] == pytest.approx(0.81, abs=0.05)
    changed = np.abs(overlay.astype(int) - photo).max(axis=2) > 40
    assert changed[200:320, 380:520].mean() > 0.05 > changed[60:150, 60:300].mean()


def test_boxes_are_drawn_where_they_are_in_the_photograph(case):
    row, maps = case
    at, scale = next(pd.DataFrame([row]).itertuples()), overlay_images.Scale(0, 98, 99, 100)
    plain = decoded(galleries.case_of(at, maps, scale, regions()).pictures[-1]).astype(int)
    boxed = galleries.case_of(at, maps, scale, regions((90, 90, 180, 90))).pictures[-1]
    rows, columns = np.nonzero(np.abs(decoded(boxed) - plain).max(axis=2) > 60)
    factor = galleries.SIDE / 900
    assert [columns.min(), rows.min()] == pytest.approx([90 * factor, 90 * factor], abs=6)
    assert [columns.max(), rows.max()] == pytest.approx([270 * factor, 180 * factor], abs=6)


def test_a_case_knows_what_is_drawn_on_it_and_a_peak_is_dashed(case):
    row, maps = case
    bad = next(pd.DataFrame([row]).itertuples())
    made = galleries.case_of(bad, maps, overlay_images.Scale(0, 1, 2, 6), regions(DEFECT))
    assert made.drawn == {"found", "truth", "part"} and 0 < made.glow < 0.3 and made.mark == ""
    plain = next(pd.DataFrame([row | {"part": "", "mask": ""}]).itertuples())
    faint = {"x": replace(maps["x"], grid_map=maps["x"].grid_map / 99)}
    cold = galleries.case_of(plain, faint, overlay_images.Scale(0, 1, 2, 6), regions())
    assert cold.drawn == set() and cold.glow == 0
    scale = overlay_images.Scale(0, 98, 99, 100)
    cases = [
        galleries.case_of(bad, maps, scale, regions((90, 90, 300, 200), mark))
        for mark in ("", "above the image threshold only")
    ]
    assert [case.mark for case in cases] == ["", "above the image threshold only"]
    whole, dashed = (decoded(case.pictures[-1]).astype(int) for case in cases)
    top = [int(p[50:58, 60:240].max(axis=0)[:, 0].__gt__(200).sum()) for p in (whole, dashed)]
    assert 0.25 * top[0] < top[1] < 0.75 * top[0]


def test_heat_has_the_colours_that_were_asked_for(case):
    row, maps = case
    at = next(pd.DataFrame([row]).itertuples())
    look = Look(colours="gray", opacity=0.0)
    photo, _, heat, overlay = (
        decoded(p) for p in galleries.case_of(at, maps, overlay_images.Scale(0, 1, 2, 6), regions(), look=look).pictures
    )
    assert np.ptp(heat.astype(int), axis=2).max() < 12 and heat.max() > 100  # grey, but for what JPEG makes of it
    assert np.abs(overlay[60:150, 60:300].astype(int) - photo[60:150, 60:300]).max() < 25


def test_without_masks_or_map_there_are_fewer_pictures(case):
    row, _ = case
    made = galleries.case_of(
        next(pd.DataFrame([row | {"part": ""}]).itertuples()), {}, overlay_images.Scale(0, 1, 2, 6), regions()
    )
    assert [p.kind for p in made.pictures] == ["photograph"]


def test_a_flagged_mask_is_outlined_in_yellow(case):
    row, _ = case
    for flag, colour in ((0, overlay_images.PART), (1, overlay_images.WRONG)):
        (picture,) = galleries.mask_case(next(pd.DataFrame([row | {"mask_doubtful": flag}]).itertuples())).pictures
        edge = decoded(picture)[150:200, 26:36].astype(int)
        assert (np.abs(edge - colour).sum(axis=2) < 90).any()


def test_a_scratch_of_one_pixel_is_outlined_in_the_small_picture(tmp_path):
    mask = np.zeros((3000, 4000), bool)
    mask[1000, 500:3000] = True
    mask[2000:2400, 500:900] = True
    small = galleries._shrunk(mask, np.empty((420, 560, 3)))
    assert small[138:142, 75:415].any(0).all() and not small[143:270].any()
    assert small[280:336, 70:126].mean() > 0.99 and not small[280:336, 128:].any()
