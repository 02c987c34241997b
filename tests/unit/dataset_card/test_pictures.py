"""Pictures of a card."""

import card_set
import cv2
import numpy as np
from defectflow.dataset_card.pictures import chosen, extremes, mean_picture, places_picture, thumbnails


def test_examples_are_spread_over_each_class():
    table = card_set.table("0" * 50 + "1" * 3 + "-")
    found = chosen(table)
    assert list(found) == ["good", "bad", "no label"]
    assert found["good"]["image_id"].tolist() == ["p000", "p009", "p019", "p029", "p039", "p049"]
    assert len(found["bad"]) == 3 and len(found["no label"]) == 1


def test_extremes_are_the_ends_of_light_and_sharpness():
    table = card_set.table("0011", luminance=[9.0, 200, 50, 60], sharpness=[5.0, 4, 9, 1])
    found = {word: row.image_id for word, row in extremes(table)}
    assert found == {"darkest": "p000", "brightest": "p001", "least sharp": "p003", "sharpest": "p002"}
    assert extremes(card_set.table("0")) == []


def test_the_ground_truth_of_a_bad_photograph_is_outlined(tmp_path):
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 20:40] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    cv2.imwrite(str(tmp_path / "a.png"), np.full((40, 60, 3), 128, np.uint8))
    table = card_set.table("01", path=str(tmp_path / "a.png"), mask=["", str(tmp_path / "mask.png")])
    rows = [("", row) for row in table.rename(columns={"class": "kind"}).itertuples()]
    good, bad = (one.picture for one in thumbnails(rows, None, 1))
    assert good.shape == bad.shape == (200, 300, 3) and (good == 128).all()
    green = (bad[..., 1] > 200) & (bad[..., 0] < 90)
    _, xs = np.nonzero(green)
    assert green.any() and 95 <= xs.min() <= 100 and 200 <= xs.max() <= 206 and not green[60:90, 110:190].any()


def test_the_ground_is_the_mean_of_good_photographs(tmp_path):
    for name, level in (("a", 100), ("b", 120), ("c", 250)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((40, 60, 3), level, np.uint8))
    table = card_set.table("001", path=[str(tmp_path / f"{name}.png") for name in "abc"])
    assert (mean_picture(table, (20, 30), None, 1) == 110).all()
    assert (mean_picture(table.assign(label=np.nan), (20, 30), None, 1) == 157).all()


def test_heat_covers_where_defects_lie_and_nothing_else():
    frame = np.zeros((40, 60), np.float32)
    frame[10:20, 10:20] = 0.5
    picture = places_picture(frame, np.full((400, 600), 100, np.uint8)).astype(int)
    grey = (picture.max(axis=2) - picture.min(axis=2)) == 0
    assert grey[300:].all() and not grey[120:180, 120:180].any()
    assert picture[150, 150].sum() > picture[102, 102].sum() > 0
