"""Outlines of a data set through ingest and sam_pairs: corrections, problems and the sheet."""

import json

import cv2
import numpy as np
import outlined_set
import pytest
from defectflow.annotations.coco import decode, encode, part_mask
from defectflow.core.files import UserError, read_json
from defectflow.core.tables import PAIRS, read_table
from defectflow.data import ingest, sam_pairs
from defectflow.sources import preflight
from outlined_set import SIZE, annotation, mask_of, stored, write


def taken(root, *options):
    """Report of ingest, and {file name: mask} as sam_pairs hands them on."""
    source = ["--images", f"{root}/images", "--annotations", f"{root}/annotations.json"]
    out = ["--out", f"{root}/manifest.csv", "--report", f"{root}/report.json", "--sheet", f"{root}/sheet/outlines.jpg"]
    ingest.main(ingest.build_parser().parse_args([*source, "--labels", f"{root}/labels.csv", *out, *options]))
    report = read_json(root / "report.json")
    if not report["annotated"]:
        return report, {}
    sam_pairs.main(
        sam_pairs.build_parser().parse_args([*source, "--out", f"{root}/pairs", "--table", f"{root}/pairs.csv"])
    )
    table = read_table(root / "pairs.csv", PAIRS)
    masks = {}
    for row in table[table["pair"] != ""].itertuples():
        (one,) = read_json(root / "pairs" / f"{row.pair}.json")["annotations"]
        masks[row.path.rsplit("/", 1)[1]] = decode(one["segmentation"], *one["segmentation"]["size"][::-1])
    assert len(masks) == report["annotated"]  # both stages decide alike
    return report, masks


def told(report, kind="warnings"):
    return " | ".join(one["text"] for one in report[kind])


def worst(masks, outlines):
    shares = []
    for name, mask in masks.items():
        right = decode([outlines[int(name.split(".")[0])].ravel().tolist()], *SIZE)
        shares.append((mask & right).sum() / (mask | right).sum())
    return min(shares)


def redrawn(coco, outlines, change):
    """The same file with every outline changed: ``change`` takes the number of the image and the points."""
    return coco | {"annotations": [annotation(k + 1, change(k, points)) for k, points in enumerate(outlines)]}


def test_right_outlines_are_taken_without_a_word(tmp_path):
    _, outlines = outlined_set.make(tmp_path)
    report, masks = taken(tmp_path)
    assert report["problems"] == report["warnings"] == [] and worst(masks, outlines) == 1
    assert not (tmp_path / "sheet").exists() or not list((tmp_path / "sheet").iterdir())


@pytest.mark.parametrize("half", [True, False])
def test_sizes_of_the_stored_pixels_and_outlines_of_the_upright_picture(tmp_path, half):
    orientations = [6 if k % 2 or not half else 1 for k in range(6)]
    coco, outlines = outlined_set.make(tmp_path, orientations=orientations)
    for image, orientation in zip(coco["images"], orientations, strict=True):
        if orientation == 6:
            image["width"], image["height"] = SIZE[::-1]
    write(tmp_path, coco)
    report, masks = taken(tmp_path)
    assert report["problems"] == [] and worst(masks, outlines) > 0.99
    assert f"{3 if half else 6} images" in told(report) and "the outlines of the upright picture" in told(report)


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_frames_of_one_size_are_told_apart_by_the_photograph(tmp_path, orientation):
    coco, outlines = outlined_set.make(tmp_path, orientations=[orientation] * 6)
    report, masks = taken(tmp_path)
    assert report["warnings"] == [] and worst(masks, outlines) > 0.99
    write(tmp_path, redrawn(coco, outlines, lambda _, points: stored(points, orientation)))
    report, masks = taken(tmp_path)
    assert "drawn on the pixels as stored" in told(report) and worst(masks, outlines) > 0.97


def test_another_size(tmp_path):
    coco, outlines = outlined_set.make(tmp_path)
    larger = redrawn(coco, outlines, lambda _, points: 1.5 * points)
    write(tmp_path, larger)
    with pytest.raises(UserError, match="6 problems"):
        taken(tmp_path)
    report, masks = taken(tmp_path, "--on-problem", "leave_out")
    assert not masks and "scaled by 0.667 they lie on edges" in told(report, "problems")
    for image in larger["images"]:
        image["width"], image["height"] = (int(1.5 * side) for side in SIZE)
    write(tmp_path, larger)
    report, masks = taken(tmp_path)
    assert "drawn at another size" in told(report) and worst(masks, outlines) > 0.99


@pytest.mark.parametrize("scale", [0.5, 1])
def test_without_sizes_the_photographs_must_confirm(tmp_path, scale):
    coco, outlines = outlined_set.make(tmp_path)
    for image in coco["images"]:
        del image["width"], image["height"]
    write(tmp_path, redrawn(coco, outlines, lambda _, points: scale * points))
    report, masks = taken(tmp_path, "--on-problem", "leave_out")
    if scale == 1:
        assert report["problems"] == [] and worst(masks, outlines) == 1
    else:
        assert not masks and "no width and height" in told(report, "problems")


@pytest.mark.parametrize("unit", [1, 100])
def test_shares_and_percent(tmp_path, unit):
    coco, outlines = outlined_set.make(tmp_path)
    write(tmp_path, redrawn(coco, outlines, lambda _, points: points * unit / SIZE))
    report, masks = taken(tmp_path)
    assert "6 images" in told(report) and "converted" in told(report) and worst(masks, outlines) > 0.98


@pytest.mark.parametrize("unit", [1, 100])
def test_one_image_in_another_unit(tmp_path, unit):
    coco, outlines = outlined_set.make(tmp_path)
    write(tmp_path, redrawn(coco, outlines, lambda k, points: points * unit / SIZE if k == 2 else points))
    report, masks = taken(tmp_path)
    assert told(report).startswith("2.png: coordinates are") and worst(masks, outlines) > 0.98


def test_a_part_in_the_corner_is_not_taken_for_percent(tmp_path):
    _, outlines = outlined_set.make(tmp_path, centre=(0.21, 0.22), reach=0.15)
    assert max(points.max() for points in outlines) < 100
    report, masks = taken(tmp_path)
    assert worst(masks, outlines) == 1 and report["problems"] == report["warnings"] == []


def test_bare_run_lengths(tmp_path):
    coco, outlines = outlined_set.make(tmp_path)
    for one, points in zip(coco["annotations"], outlines, strict=True):
        flat = mask_of(points).T.ravel()
        one["segmentation"] = np.diff([0, *(np.flatnonzero(np.diff(flat)) + 1), flat.size]).tolist()
    write(tmp_path, coco)
    report, masks = taken(tmp_path)
    assert "bare run lengths" in told(report)
    assert all((mask == mask_of(outlines[int(name[0])])).all() for name, mask in masks.items())


def test_boxes_are_no_outlines(tmp_path):
    coco, outlines = outlined_set.make(tmp_path)
    for one in coco["annotations"][1:]:
        one["segmentation"] = []
    write(tmp_path, coco)
    report, masks = taken(tmp_path)
    assert list(masks) == ["0.png"] and worst(masks, outlines) == 1
    assert "5 images" in told(report) and "box only" in told(report) and report["problems"] == []
    resolved = preflight.resolve({"path": str(tmp_path)})
    assert preflight.outlined(resolved, None) == 1
    coco["annotations"][0]["segmentation"] = [coco["annotations"][0]["bbox"]]
    write(tmp_path, coco)
    preflight.forget()
    assert not preflight.outlined(resolved, None)
    assert "no outline in it: no mask is learned" in told(taken(tmp_path)[0])
    assert not preflight.outlined(resolved | {"annotations": None}, None)


def test_boxes_that_are_written_as_polygons(tmp_path):
    coco, _ = outlined_set.make(tmp_path)
    for one in coco["annotations"]:
        x, y, w, h = one["bbox"]
        one["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    write(tmp_path, coco)
    report, masks = taken(tmp_path, "--on-problem", "leave_out")
    assert not masks and "all 6 outlines are upright rectangles" in told(report, "problems")


def test_ids_that_two_images_share_leave_nobody_an_outline(tmp_path):
    coco, outlines = outlined_set.make(tmp_path)
    coco["images"][1]["id"] = 1
    write(tmp_path, coco)
    with pytest.raises(UserError):
        taken(tmp_path)
    report, masks = taken(tmp_path, "--on-problem", "leave_out")
    assert sorted(masks) == ["2.png", "3.png", "4.png", "5.png"] and worst(masks, outlines) == 1
    assert "0.png: its annotations may be those of another image" in told(report, "problems")


CHANGES = {
    "mirrored left to right": lambda p: np.stack([SIZE[0] - p[:, 0], p[:, 1]], 1),
    "shifted by": lambda p: p - (30, 15),
    "scaled by 2.00": lambda p: p / 2,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_single_wrong_outline_is_named_with_what_is_better(tmp_path, change):
    coco, outlines = outlined_set.make(tmp_path)
    write(tmp_path, redrawn(coco, outlines, lambda k, points: CHANGES[change](points) if k == 2 else points))
    with pytest.raises(UserError, match=r"1 problem,.*drawn in .*sheet/outlines\.jpg"):
        taken(tmp_path)
    sheet = cv2.imread(f"{tmp_path}/sheet/outlines.jpg")
    assert sheet.shape[1] > 1000 and sheet.std() > 20
    report, masks = taken(tmp_path, "--on-problem", "leave_out")
    assert f"2.png: its outline does not match the part: {change}" in told(report, "problems")
    assert sorted(masks) == ["0.png", "1.png", "3.png", "4.png", "5.png"] and worst(masks, outlines) == 1
    write(tmp_path, coco)
    taken(tmp_path)
    assert not (tmp_path / "sheet/outlines.jpg").exists()


def test_outlines_of_other_photographs(tmp_path):
    coco, outlines = outlined_set.make(tmp_path, count=8)
    write(tmp_path, redrawn(coco, outlines, lambda k, points: outlines[{1: 4, 4: 1}.get(k, k)]))
    report, masks = taken(tmp_path, "--on-problem", "leave_out")
    assert sorted(masks) == ["0.png", "2.png", "3.png", "5.png", "6.png", "7.png"]
    assert "it fits better on 4.png" in told(report, "problems")
    assert "it fits better on 1.png" in told(report, "problems")


def test_several_categories_stop_with_their_counts_and_areas(tmp_path):
    coco, outlines = outlined_set.make(tmp_path)
    coco["categories"] += [{"id": 2, "name": "scratch"}, {"id": 3, "name": "never"}]
    write(tmp_path, coco)
    assert worst(taken(tmp_path)[1], outlines) == 1  # what no annotation has does not count
    scratch = {"id": 9, "image_id": 1, "category_id": 2, "segmentation": [[100, 100, 120, 100, 120, 110]]}
    small = np.zeros(SIZE[::-1], bool)
    small[90:96, 100:110] = True
    another = {"id": 10, "image_id": 2, "category_id": 2, "segmentation": encode(small), "area": 60}
    write(tmp_path, coco | {"annotations": [*coco["annotations"], scratch, another]})
    expected = r"2 categories: part \(outlines: 6, \d+ % .*scratch \(outlines: 2, 0\.17 % .*`category: part`"
    with pytest.raises(UserError, match=expected):
        taken(tmp_path)
    resolved = preflight.resolve({"path": str(tmp_path)})
    with pytest.raises(UserError, match=expected):
        preflight.check(resolved)
    preflight.forget()
    preflight.check(resolved | {"category": "part"})


def test_many_outlines_are_not_all_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr("defectflow.annotations.outline_looker.CHECKED", 4)
    monkeypatch.setattr("defectflow.annotations.outline_set.CHECKED", 4)
    outlined_set.make(tmp_path)
    report, masks = taken(tmp_path)
    assert len(masks) == 6
    assert "2 outlines were not compared with their photographs, 4 others were" in told(report)


def test_the_same_file_is_told_the_same_twice(tmp_path):
    coco, outlines = outlined_set.make(tmp_path)
    write(tmp_path, redrawn(coco, outlines, lambda k, points: points - (30, 15) if k == 2 else points))
    first, second = (json.dumps(taken(tmp_path, "--on-problem", "leave_out")[0]) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("compressed", [True, False])
def test_masks_of_the_ground_instead_of_the_part_are_problems(tmp_path, compressed):
    coco, outlines = outlined_set.make(tmp_path)
    for one, points in zip(coco["annotations"], outlines, strict=True):
        ground = ~mask_of(points)
        runs = np.diff(np.flatnonzero(np.diff(ground.T.ravel(), prepend=0, append=0)), prepend=0).tolist()
        one["segmentation"] = encode(ground) if compressed else {"size": [*SIZE[::-1]], "counts": runs}
    write(tmp_path, coco)
    report, masks = taken(tmp_path, "--on-problem", "leave_out")
    assert (
        masks == {}
        and len(report["problems"]) == len(outlines)
        and "the ground, not the part?" in told(report, "problems")
    )


def test_a_mask_of_a_part_that_fills_the_picture_may_have_a_small_hole(tmp_path):
    coco, _ = outlined_set.make(tmp_path)
    whole = np.ones(SIZE[::-1], bool)
    whole[100:110, 100:110] = False
    assert part_mask(coco["images"][0], [{"id": 1, "segmentation": encode(whole)}], SIZE, 1)[2] == []


@pytest.mark.parametrize("as_stored", [True, False])
@pytest.mark.parametrize("told_stored", [True, False])
def test_an_rle_is_of_the_frame_that_has_its_size(tmp_path, as_stored, told_stored):
    coco, outlines = outlined_set.make(tmp_path, orientations=(6, 8) * 3)
    for k, (one, entry) in enumerate(zip(coco["annotations"], coco["images"], strict=True)):
        mask = mask_of(outlines[k])
        one["segmentation"] = encode(np.rot90(mask, -1 if k % 2 else 1) if as_stored else mask)
        if told_stored:
            entry |= {"width": SIZE[1], "height": SIZE[0]}
    write(tmp_path, coco)
    report, masks = taken(tmp_path)
    assert worst(masks, outlines) > 0.95 and len(masks) == len(outlines)
    assert ("rotated with it" in told(report)) == as_stored and len(report["warnings"]) == as_stored
