"""COCO annotations to masks: every variant, and every way they can be wrong."""

import numpy as np
import pytest
from defectflow.annotations import coco
from defectflow.core.files import UserError
from defectflow.images import exif_orientation
from PIL import Image, ImageOps
from pycocotools import mask as mask_utils

POLYGON = [4, 2, 12, 2, 12, 8, 4, 8]  # a box of 8 x 6 pixels


def box(width=20, height=10):
    mask = np.zeros((height, width), bool)
    mask[2:8, 4:12] = True
    return mask


def uncompressed(mask):
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": ([0] if flat[0] else []) + counts}


POINTS = [[4, 2], [12, 2], [12, 8], [4, 8]]


@pytest.mark.parametrize(
    "segmentation", [[POLYGON], POLYGON, POINTS, [POINTS], uncompressed(box()), coco.encode(box())]
)
def test_every_form_decodes_to_the_same_mask(segmentation):
    mask = coco.decode(segmentation, 20, 10)
    assert mask.dtype == bool
    assert (mask == box()).all()


def test_rle_agrees_with_pycocotools_on_noise():
    rng = np.random.default_rng(0)
    for share in (0.01, 0.5, 0.99, 0, 1):
        mask = rng.random((37, 53)) < share
        rle = coco.encode(mask)
        assert (coco.decode(rle, 53, 37) == mask).all()
        assert (coco.decode(uncompressed(mask), 53, 37) == mask).all()
        assert (mask_utils.decode({**rle, "counts": rle["counts"].encode()}).astype(bool) == mask).all()


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "no outline"),
        ([], "no outline"),
        ([[1, 2, 3, 4]], "at least 3 points"),
        ([[1, 2, 3, 4, 5, 6, 7]], "at least 3 points"),
        ([[1, 2, 3, 4, 5, float("nan")]], "at least 3 points"),
        ([["a", 2, 3, 4, 5, 6]], "at least 3 points"),
        ({"size": [10, 20]}, "malformed"),
        ({"counts": [200]}, "no size"),
        ({"size": [20, 10], "counts": [200]}, "sizes disagree"),
        ({"size": [10, 20], "counts": [100, 99]}, "covers 199 of 200"),
        ({"size": [10, 20], "counts": [300, -100]}, "malformed"),
        ({"size": [10, 20], "counts": "\x01zz"}, "malformed"),
        ({"size": [10, 20], "counts": "oooooooooooooooooo"}, "malformed"),
    ],
)
def test_malformed_segmentations_are_refused(segmentation, message):
    with pytest.raises(UserError, match=message):
        coco.decode(segmentation, 20, 10)


def test_polygons_may_reach_outside():
    mask = coco.decode([[-10, -10, 10, -10, 10, 5, -10, 5]], 20, 10)
    assert mask.sum() == 50 and mask[:5, :10].all()
    assert coco.decode([[-1e9, 0, 1e9, 0, 1e9, 5, -1e9, 5]], 20, 10)[:5].all()


def test_several_annotations_are_merged_and_categories_chosen():
    data = {
        "images": [{"id": "x", "file_name": "x.jpg", "width": 20, "height": 10}],
        "annotations": [
            {"id": 1, "image_id": "x", "category_id": 1, "segmentation": [POLYGON]},
            {"id": 2, "image_id": "x", "category_id": 2, "segmentation": [[14, 0, 18, 0, 18, 4, 14, 4]]},
        ],
        "categories": [{"id": 1, "name": "part"}, {"id": 2, "name": "clip"}],
    }
    entry = data["images"][0]
    both, used, problems = coco.part_mask(entry, coco.annotations_by_image(data)["x"], (20, 10), 1)
    assert (both.sum(), used, problems) == (48 + 16, 2, [])
    one, used, _ = coco.part_mask(entry, coco.annotations_by_image(data, "part")["x"], (20, 10), 1)
    assert (one == box()).all() and used == 1
    with pytest.raises(UserError, match=r"no category 'prt' \(part\?"):
        coco.annotations_by_image(data, "prt")


def test_annotations_of_unknown_categories_are_left_out_where_the_file_lists_categories():
    annotations = [{"id": 1, "image_id": "x", "category_id": 1}, {"id": 2, "image_id": "x", "category_id": 5}]
    known = {"annotations": annotations, "categories": [{"id": 1, "name": "part"}]}
    assert coco.annotations_by_image(known) == {"x": annotations[:1]}
    assert coco.annotations_by_image(known | {"categories": []}) == {"x": annotations}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_agrees_with_pillow(orientation, tmp_path):
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    size, found = exif_orientation.stored_size(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    assert (size, found) == ((3, 2), orientation)
    assert (exif_orientation.upright(pixels, orientation) == expected).all()
    assert exif_orientation.turned_size(size, orientation) == expected.shape[::-1]


def test_annotations_follow_the_picture_they_were_drawn_on():
    annotations = [{"id": 1, "segmentation": coco.encode(box())}]
    drawn_on_stored, _, _ = coco.part_mask({"width": 20, "height": 10}, annotations, (20, 10), 6)
    assert (drawn_on_stored == np.rot90(box(), -1)).all()
    drawn_upright, _, _ = coco.part_mask({"width": 20, "height": 10}, annotations, (10, 20), 6)
    assert (drawn_upright == box()).all()
    told_by_rle, _, _ = coco.part_mask({}, annotations, (20, 10), 6)
    assert (told_by_rle == np.rot90(box(), -1)).all()
    mask, used, problems = coco.part_mask({"width": 20, "height": 11}, annotations, (20, 10), 6)
    assert mask is None and used == 0
    assert problems == [
        "sizes disagree: annotated as 20x11, the picture has 10x20 (20x10 before EXIF rotation)",
    ]


def test_bad_annotations_are_left_out_one_by_one():
    annotations = [
        {"id": 1, "segmentation": [POLYGON]},
        {"id": 2, "segmentation": [[30, 30, 35, 30, 35, 35]]},
        {"id": 3, "bbox": [1, 2, 3, 4]},
    ]
    mask, used, problems = coco.part_mask({"width": 20, "height": 10}, annotations, (20, 10), 1)
    assert (mask == box()).all() and used == 1
    assert "annotation 2: its mask is empty" in problems[0] and "annotation 3: it has no outline" in problems[1]


def test_entries_are_matched_and_oddities_named():
    entries = [
        {"id": 1, "file_name": "a.jpg"},
        {"id": 2, "file_name": "./sub/b.jpg"},
        {"id": 3, "file_name": "elsewhere/a.jpg"},
        {"id": 4, "file_name": "../a.jpg"},
        {"id": 5, "file_name": "none.jpg"},
        {"id": 2, "file_name": "c.jpg"},
    ]
    found, problems = coco.entries_by_name({"images": entries}, ["a.jpg", "sub/b.jpg", "c.jpg"])
    assert {name: entry["id"] for name, entry in found.items()} == {"a.jpg": 1, "sub/b.jpg": 2}
    assert [p.split(": ")[1][:12] for p in problems] == ["no such imag", "the path lea", "no such imag", "its id 2 is "]
