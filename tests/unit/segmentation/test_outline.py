"""The tool outline: a few clicks become an outline in a COCO file that ingest reads."""

import json

import numpy as np
import outlined_set
import pytest
from defectflow.annotations.coco import annotations_by_image, part_mask
from defectflow.core.files import UserError
from defectflow.images.exif_orientation import stored_size
from defectflow.images.read_write import read_rgb
from defectflow.parts.registration_frame import iou
from defectflow.segmentation import outline
from defectflow.segmentation.promptable_network import load_network
from defectflow.sources.dataset import read_coco
from micro_sam import write_checkpoint, write_micro
from onnx_sam import write_pair


def run(*words):
    outline.main(outline.build_parser().parse_args([str(word) for word in words]))


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Folder of three photographs, upright, on its side and upside down; their outlines; results go to the folder."""
    monkeypatch.chdir(tmp_path)
    _, outlines = outlined_set.make(tmp_path / "set", count=3, orientations=(1, 6, 3))
    (tmp_path / "set/annotations.json").unlink()
    return tmp_path / "set", outlines


def box_of(points, margin=6):
    width, height = outlined_set.SIZE
    (x, y), (right, bottom) = points.min(0) - margin, points.max(0) + margin
    return f"{max(x, 0):.0f},{max(y, 0):.0f},{min(right, width):.0f},{min(bottom, height):.0f}"


def mask_in(folder, name):
    """The mask that ingest makes of what the file has of a photograph."""
    coco = read_coco(folder / "annotations.json")
    entry = next(one for one in coco["images"] if one["file_name"] == name)
    own = [one for one in coco["annotations"] if one["image_id"] == entry["id"]]
    mask, used, problems = part_mask(entry, own, *stored_size(folder / "images" / name))
    assert used == 1 and problems == []
    return mask


def test_boxes_become_outlines_in_the_upright_frame_of_one_file(photos, capsys):
    folder, outlines = photos
    for k in range(3):
        run(folder / f"images/{k}.png", "--box", box_of(outlines[k]))
    for k in range(3):
        assert iou(mask_in(folder, f"{k}.png"), outlined_set.mask_of(outlines[k])) > 0.9
    coco = json.loads((folder / "annotations.json").read_text())
    assert [one["id"] for one in coco["images"]] == [one["id"] for one in coco["annotations"]] == [1, 2, 3]
    assert coco["categories"] == [{"id": 1, "name": "part"}]
    assert "photographs with an outline there: 3" in capsys.readouterr().out
    assert read_rgb("results/outlines/1.png").shape == (200, 240, 3)  # upright, as the photograph is shown


def test_points_alone_are_enough_and_points_beside_it_stay_out(photos):
    folder, outlines = photos
    x, y = outlines[0].mean(0).round()
    # Two of the points beside it are on the pieces of clutter that touch it.
    run(
        folder / "images/0.png",
        "--points",
        f"{x:.0f},{y:.0f}",
        f"{x + 20:.0f},{y:.0f}",
        "--not",
        "3,3",
        "110,170",
        "170,175",
    )
    mask = mask_in(folder, "0.png")
    assert iou(mask, outlined_set.mask_of(outlines[0])) > 0.7 and not mask[3, 3]


def test_a_polygon_is_the_outline(photos):
    folder, outlines = photos
    run(folder / "images/1.png", "--polygon", *(f"{x:.1f},{y:.1f}" for x, y in outlines[1]))
    assert iou(mask_in(folder, "1.png"), outlined_set.mask_of(outlines[1])) > 0.99


def test_an_existing_file_keeps_what_it_says(photos):
    folder, outlines = photos
    coco = {
        "info": {"year": 2020},
        "images": [{"id": "seven", "file_name": "0.png", "width": 240, "height": 200}],
        "annotations": [{"id": 40, "image_id": "seven", "category_id": 5, "segmentation": [[9, 9, 60, 9, 60, 60]]}],
        "categories": [{"id": 5, "name": "bracket"}],
    }
    (folder / "annotations.json").write_text(json.dumps(coco))
    run(folder / "images/2.png", "--box", box_of(outlines[2]))
    after = json.loads((folder / "annotations.json").read_text())
    assert after["info"] == coco["info"] and after["annotations"][0] == coco["annotations"][0]
    assert after["images"] == [*coco["images"], {"id": 1, "file_name": "2.png", "width": 240, "height": 200}]
    new = after["annotations"][1]
    assert (new["id"], new["image_id"], new["category_id"]) == (41, 1, 5)


def test_an_outline_is_replaced_only_on_demand(photos):
    folder, outlines = photos
    run(folder / "images/0.png", "--box", box_of(outlines[0]))
    before = (folder / "annotations.json").read_bytes()
    with pytest.raises(UserError, match=r"0\.png already has an outline \(add --replace"):
        run(folder / "images/0.png", "--box", "5,5,60,60")
    assert (folder / "annotations.json").read_bytes() == before
    run(folder / "images/0.png", "--box", "20,20,90,90", "--replace")
    coco = json.loads((folder / "annotations.json").read_text())
    assert len(coco["annotations"]) == len(coco["images"]) == 1 and coco["annotations"][0]["bbox"][0] < 90


def test_outlines_of_another_category_stay(photos):
    folder, outlines = photos
    damage = {"id": 1, "image_id": 1, "category_id": 2, "segmentation": [[9, 9, 60, 9, 60, 60]]}
    categories = [{"id": 1, "name": "part"}, {"id": 2, "name": "scratch"}]
    images = [{"id": 1, "file_name": "0.png", "width": 240, "height": 200}]
    (folder / "annotations.json").write_text(
        json.dumps({"images": images, "annotations": [damage], "categories": categories})
    )
    for more in ([], ["--replace"]):
        run(folder / "images/0.png", "--box", box_of(outlines[0]), "--category", "part", *more)
        kept = json.loads((folder / "annotations.json").read_text())["annotations"]
        assert kept[0] == damage and [one["category_id"] for one in kept] == [2, 1]


def test_a_file_without_categories_keeps_its_outlines(photos):
    folder, outlines = photos
    file = folder / "annotations.json"
    images = [{"id": 1, "file_name": "0.png", "width": 240, "height": 200}]
    before = {"id": 1, "image_id": 1, "segmentation": [[9, 9, 60, 9, 60, 60]]}
    file.write_text(json.dumps({"images": images, "annotations": [before]}))
    with pytest.raises(UserError, match="lists no categories"):
        run(folder / "images/2.png", "--box", box_of(outlines[2]), "--category", "part")
    run(folder / "images/2.png", "--box", box_of(outlines[2]))
    assert sorted(annotations_by_image(read_coco(file))) == [1, 2]


@pytest.mark.parametrize("name", ["images/0.png", "./images/0.png", "./0.png"])
def test_a_photograph_under_another_name_in_the_file_is_the_same(photos, name):
    folder, outlines = photos
    content = {"images": [{"id": 1, "file_name": name, "width": 240, "height": 200}], "categories": []}
    content["annotations"] = [{"id": 1, "image_id": 1, "segmentation": [[9, 9, 60, 9, 60, 60]]}]
    (folder / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="already has an outline"):
        run(folder / "images/0.png", "--box", box_of(outlines[0]))
    run(folder / "images/0.png", "--box", box_of(outlines[0]), "--replace")
    after = json.loads((folder / "annotations.json").read_text())
    assert after["images"] == content["images"] and len(after["annotations"]) == 1


def test_a_file_of_another_tool_is_not_added_to(photos):
    folder, outlines = photos
    shape = {"label": "part", "points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon"}
    told = {"shapes": [shape], "imagePath": "0.png", "imageHeight": 200, "imageWidth": 240, "imageData": None}
    (folder / "annotations.json").write_text(json.dumps({"version": "5.0", "flags": {}} | told))
    with pytest.raises(UserError, match="of another tool than COCO"):
        run(folder / "images/0.png", "--box", box_of(outlines[0]))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "no part is marked"),
        (["--points", "240,10"], r"point 240,10 is outside the photograph \(240 x 200"),
        (["--not", "1,200", "--box", "1,1,50,50"], "point 1,200 is outside"),
        (["--box", "10,10,300,50"], "box 10,10,300,50 extends beyond"),
        (["--box", "50,50,10,10"], "is too small"),
        (["--box", "10,10,60,60", "--points", "90,90"], "is outside the box"),
        (["--polygon", "1,1", "9,9"], "at least three corners"),
        (["--polygon", "1,1", "9,9", "1,9", "--box", "1,1,60,60"], "no box or points in addition"),
        (["--polygon", "1,1", "9,9", "1,900"], "point 1,900 is outside"),
        (["--box", "1,1,60,60", "--checkpoint", "mine.pt"], "does not contain the variant"),
    ],
)
def test_clear_errors_leave_no_file(photos, words, told):
    folder, _ = photos
    with pytest.raises(UserError, match=told):
        run(folder / "images/1.png", *words)
    assert not (folder / "annotations.json").exists()


def test_an_unreadable_photograph_and_a_file_that_is_not_coco_are_told(photos):
    folder, outlines = photos
    (folder / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"broken\.jpg"):
        run(folder / "broken.jpg", "--box", "1,1,50,50")
    (folder / "annotations.json").write_text('{"shapes": []}')
    with pytest.raises(UserError, match="not a COCO file"):
        run(folder / "images/0.png", "--box", box_of(outlines[0]))
    with pytest.raises(SystemExit):
        run(folder / "images/0.png", "--box", "1,1,x,4")


def test_an_empty_outline_is_told(photos, monkeypatch):
    folder, _ = photos
    monkeypatch.setattr(outline, "by_grabcut", lambda image, clicks: np.zeros(image.shape[:2], bool))
    with pytest.raises(UserError, match="the outline is empty"):
        run(folder / "images/0.png", "--box", "1,1,50,50")


def test_sam_is_asked_with_all_clicks(tmp_path, photos):
    folder, outlines = photos
    config = write_micro(tmp_path)
    network = load_network({"checkpoint": write_checkpoint(tmp_path, config)}, config)
    image = read_rgb(folder / "images/0.png")
    x, y = outlines[0].mean(0)
    box = tuple(map(float, box_of(outlines[0]).split(",")))
    for clicks in (outline.Clicks(box), outline.Clicks(box, [(x, y)], [(2.0, 2.0)])):
        mask = outline.by_network(image, clicks, network)
        assert mask.shape == image.shape[:2] and mask.dtype == bool
    assert outline.variant_of("x/sam2.1_hiera_base_plus.pt", None) == "sam2.1_hiera_b+"


def test_points_alone_prompt_the_network_that_is_given(tmp_path, photos):
    folder, outlines = photos
    encoder, decoder = write_pair(tmp_path / "pair")
    point = ",".join(f"{value:.0f}" for value in outlines[0].mean(0))
    words = [folder / "images/0.png", "--points", point, "--not", "2,2"]
    with pytest.raises(UserError, match="are given together"):
        run(*words, "--encoder", encoder)
    run(*words, "--encoder", encoder, "--decoder", decoder)
    mask = mask_in(folder, "0.png")
    x, y = map(int, point.split(","))
    assert mask[y, x] and not mask[2, 2]


def test_tidy_keeps_the_pieces_that_were_clicked_and_no_specks():
    mask = np.zeros((100, 100), bool)
    mask[10:50, 10:50] = mask[60:90, 60:90] = mask[5, 95] = True
    mask[30, 30] = False
    assert outline.tidy(mask, outline.Clicks(None)).sum() == 1600
    both = outline.tidy(mask, outline.Clicks(None, [(20, 20), (70, 70)], [(30, 30)]))
    assert both.sum() == 1599 + 900 and not both[30, 30]


def test_names_are_relative_to_the_folder_of_the_file(tmp_path):
    for photo, out, name in (
        ("set/images/a/1.png", "set/annotations.json", ["a/1.png", "images/a/1.png"]),
        ("set/train/good/1.png", "set/outlines.json", ["train/good/1.png"]),
        ("elsewhere/1.png", "set/annotations.json", []),
    ):
        assert outline._spelled(tmp_path / out, tmp_path / photo) == name
