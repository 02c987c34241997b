"""Area and place of defects, from masks or regions."""

import json

import card_set
import cv2
import numpy as np
import pytest
from defectflow.annotations.coco import encode
from defectflow.core.disk_index import DiskIndex
from defectflow.dataset_card.defect_places import grid_of, places


def write_masks(folder, boxes):
    """A mask of 60x40 for each list of boxes (x, y, width, height); "" for None."""
    paths = []
    for number, those in enumerate(boxes):
        mask = np.zeros((40, 60), np.uint8)
        for x, y, w, h in those or ():
            mask[y : y + h, x : x + w] = 255
        paths.append("" if those is None else str(folder / f"{number}.png"))
        if those is not None:
            cv2.imwrite(paths[-1], mask)
    return paths


def test_masks_are_laid_over_each_other_by_kind(tmp_path):
    paths = write_masks(tmp_path, [None, [(0, 0, 30, 20)], [(0, 0, 30, 20), (50, 30, 6, 4)], [(30, 20, 30, 20)], []])
    table = card_set.table("01111", defect_type=["", "dent", "dent", "crack", "crack"], mask=paths)
    found = places(table, None, 2)
    assert (found.source, found.bad, found.marked) == ("ground truth", 4, 3)
    assert found.kinds["dent"] == {"n": 2, "area": pytest.approx([0.25, 0.255, 0.26]), "spots": 1.5}
    assert found.kinds["crack"]["n"] == 1 and found.kinds[""]["n"] == 3
    frame = found.frames[""]
    assert frame.shape == grid_of(table) == (64, 96)
    assert frame[10, 10] == pytest.approx(2 / 3) and frame[50, 60] == pytest.approx(1 / 3) and frame[50, 10] == 0
    assert found.frames["dent"][10, 10] == 1 and found.frames["crack"][10, 10] == 0


def test_regions_stand_in_only_where_no_photograph_has_a_mask(tmp_path):
    pixels = np.zeros((40, 60), bool)
    pixels[:20, :30] = True
    rle = encode(pixels)
    regions = DiskIndex(
        [
            ("p001", json.dumps([[[0, 0, 30, 20]], [rle]]), ""),
            ("p002", json.dumps([[[0, 0, 9, 9]], [rle]]), "the peak"),
        ],
        2,
        ["regions.csv"],
    )
    found = places(card_set.table("0111"), regions)
    assert (found.source, found.bad, found.marked) == ("regions", 3, 1) and found.frames[""][10, 10] == 1
    masks = ["", *write_masks(tmp_path, [[(30, 20, 30, 20)]]), "", ""]
    assert places(card_set.table("0111", mask=masks), regions).source == "ground truth"


def test_nothing_marked_is_nothing_drawn(tmp_path):
    assert places(card_set.table("0011"), None) is None and places(card_set.table("00--"), None) is None
    assert places(card_set.table("01", mask=write_masks(tmp_path, [None, []])), None) is None


def test_the_grid_has_the_proportions_of_the_photographs():
    assert grid_of(card_set.table("01", width=40, height=80)) == (96, 48)
    assert grid_of(card_set.table("01", width=40, height=40)) == (96, 96)
