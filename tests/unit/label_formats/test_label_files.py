"""Annotations of other tools: found by content, read as from COCO, wrong ones named with the remedy."""

import json

import labelled_set
import numpy as np
import outlined_set
import pytest
from defectflow.annotations.coco import annotations_by_image, decode, entries_by_name
from defectflow.core.files import UserError, read_json
from defectflow.core.tables import PAIRS, read_table
from defectflow.data import ingest, sam_pairs
from defectflow.label_formats.label_files import files_of, kind_of, read_tool
from defectflow.listing.annotation_files import find
from defectflow.sources import preflight
from defectflow.sources.dataset import read_coco
from outlined_set import SIZE

FILES = {"labelme": "LabelMe", "voc": "Pascal VOC", "yolo": "YOLO", "cvat": "CVAT", "label_studio": "Label Studio"}


@pytest.fixture(autouse=True)
def _read_anew():
    preflight.forget()


def made(root, kind, orientations=()):
    """A set with the annotations of one tool, and those alone; its entry in the config and the right outlines."""
    _, outlines = outlined_set.make(root, orientations=orientations)
    (root / "annotations.json").unlink()
    return labelled_set.write(root, kind, outlines), outlines


@pytest.mark.parametrize("kind", labelled_set.KINDS)
def test_every_tool_gives_the_masks_that_coco_gives(tmp_path, kind):
    place, outlines = made(tmp_path, kind)
    resolved = preflight.resolve({"path": str(tmp_path)})
    assert resolved["annotations"] == str(place) and resolved["found"]
    preflight.check(resolved, cache=tmp_path / "cache.json")
    assert preflight.outlined(resolved, tmp_path / "cache.json") == 6
    source = ["--images", f"{tmp_path}/images", "--annotations", str(place), "--category", "part"]
    out = ["--labels", f"{tmp_path}/labels.csv", "--out", f"{tmp_path}/manifest.csv", "--report", f"{tmp_path}/r.json"]
    ingest.main(ingest.build_parser().parse_args([*source, "--found", *out]))
    report = read_json(tmp_path / "r.json")
    name = FILES[kind.removesuffix("_mask").removesuffix("_brush")]
    (told,) = [one["text"] for one in report["warnings"]]
    assert name in told and "found by" in told and report["annotated"] == 6 and not report["problems"]
    pairs = ["--out", f"{tmp_path}/pairs", "--table", f"{tmp_path}/pairs.csv"]
    sam_pairs.main(sam_pairs.build_parser().parse_args([*source, *pairs]))
    for row in read_table(tmp_path / "pairs.csv", PAIRS).itertuples():
        (one,) = read_json(tmp_path / "pairs" / f"{row.pair}.json")["annotations"]
        mask = decode(one["segmentation"], *SIZE)
        right = decode([outlines[int(row.image_id)].ravel().tolist()], *SIZE)
        assert (mask & right).sum() / (mask | right).sum() > 0.97  # drawn pixels and polygons differ at the rim


@pytest.mark.parametrize("kind", ["yolo", "label_studio", "labelme_mask"])
def test_a_photograph_with_exif_has_the_outline_of_the_upright_picture(tmp_path, kind):
    place, outlines = made(tmp_path, kind, orientations=(6, 6, 6))
    source = ["--images", f"{tmp_path}/images", "--annotations", str(place)]
    pairs = ["--out", f"{tmp_path}/pairs", "--table", f"{tmp_path}/pairs.csv"]
    sam_pairs.main(sam_pairs.build_parser().parse_args([*source, *pairs]))
    rows = list(read_table(tmp_path / "pairs.csv", PAIRS).itertuples())
    assert len(rows) == 6
    for row in rows:
        (one,) = read_json(tmp_path / "pairs" / f"{row.pair}.json")["annotations"]
        mask, right = decode(one["segmentation"], *SIZE), outlined_set.mask_of(outlines[int(row.image_id)])
        assert (mask & right).sum() / (mask | right).sum() > 0.97


@pytest.mark.parametrize("kind", FILES)
def test_an_edit_of_one_file_changes_the_hash_of_that_outline_alone(tmp_path, kind):
    _, outlines = made(tmp_path, kind)
    resolved = preflight.resolve({"path": str(tmp_path)})

    def hashes():
        preflight.forget()
        return preflight.index(json.dumps(resolved, sort_keys=True), None).outlines

    before = hashes()
    labelled_set_again(tmp_path, kind, [outlines[0] + 3, *outlines[1:]])
    after = hashes()
    assert len(before) == 6 and [name for name in before if before[name] != after[name]] == ["0.png"]


def labelled_set_again(root, kind, outlines):
    for folder in ("Annotations", "labels"):
        if (root / folder).exists():
            for path in (root / folder).iterdir():
                path.unlink()
            (root / folder).rmdir()
    labelled_set.write(root, kind, outlines)


def test_kinds_are_known_by_content(tmp_path):
    for kind, name in FILES.items():
        _, outlines = outlined_set.make(tmp_path / kind, count=1)
        place = labelled_set.write(tmp_path / kind, kind, outlines)
        files = files_of(str(place))
        assert list(files.values()) == [name] and kind_of(next(iter(files))) == name
    for name, content in {
        "a.txt": "a list of things\n", "b.txt": "", "c.txt": "0 12 40 30 20\n", "d.txt": "0 0.5 0.5 0.1\n",
        "a.xml": "<annotations><track id='0'/></annotations>", "b.xml": "<annotation><folder>x</folder></annotation>",
        "c.xml": "<project/>", "a.json": '{"shapes": [1]}', "b.json": '[{"image": "a.jpg", "label": []}]',
    }.items():  # fmt: skip
        (tmp_path / name).write_text(content)
        assert kind_of(tmp_path / name) == "", name
    picture_first = {"imageData": "A" * 70_000, "imagePath": "a.jpg", "shapes": []}
    (tmp_path / "sorted.json").write_text(json.dumps(picture_first, sort_keys=True))
    assert kind_of(tmp_path / "sorted.json") == "LabelMe"


def test_text_files_of_numbers_without_a_photograph_are_no_annotations(tmp_path):
    outlined_set.make(tmp_path, count=2)
    (tmp_path / "pose.txt").write_text("1 0 0 0 1\n")
    assert find(tmp_path, tmp_path / "images").annotations == [str(tmp_path / "annotations.json")]
    (tmp_path / "images" / "1.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    assert str(tmp_path / "images") in find(tmp_path, tmp_path / "images").annotations


@pytest.mark.parametrize(("kind", "name"), [("yolo", "YOLO"), ("labelme", "LabelMe"), ("cvat", "CVAT")])
def test_two_tools_for_one_photograph_stop_the_run(tmp_path, kind, name):
    _, outlines = outlined_set.make(tmp_path)
    place = labelled_set.write(tmp_path, kind, outlines)
    with pytest.raises(UserError, match=rf"annotations.json and {place} \({name}\) both list 0.png: which outlines"):
        preflight.check(preflight.resolve({"path": str(tmp_path)}), on_problem="leave_out")
    one = preflight.resolve({"path": str(tmp_path), "annotations": str(place)})
    preflight.check(one)
    assert preflight.unread(one, []) == [str(tmp_path / "annotations.json")]


def test_two_tools_in_one_folder_for_one_photograph_stop_the_run(tmp_path):
    _, outlines = outlined_set.make(tmp_path)
    labelled_set.write(tmp_path, "labelme", outlines)
    (tmp_path / "images" / "3.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "annotations.json").unlink()
    with pytest.raises(UserError, match=r"3.json and .*3.txt: annotations of one photograph by LabelMe and by YOLO"):
        preflight.check(preflight.resolve({"path": str(tmp_path)}))


def test_tools_for_different_photographs_are_read_together(tmp_path):
    coco, outlines = outlined_set.make(tmp_path)
    rest = {"images": coco["images"][3:], "annotations": coco["annotations"][3:]}
    (tmp_path / "annotations.json").write_text(json.dumps(coco | rest))
    labelled_set.write(tmp_path, "yolo", outlines[:3])
    resolved = preflight.resolve({"path": str(tmp_path)})
    preflight.check(resolved)
    found = read_coco(resolved["annotations"], resolved["images"])
    entries, problems = entries_by_name(found, [f"{n}.png" for n in range(6)])
    assert not problems and len(annotations_by_image(found, "part")) == len(entries) == 6
    out = ["--labels", f"{tmp_path}/labels.csv", "--out", f"{tmp_path}/manifest.csv", "--report", f"{tmp_path}/r.json"]
    given = ["--images", f"{tmp_path}/images", "--annotations", *resolved["annotations"], "--category", "part"]
    ingest.main(ingest.build_parser().parse_args([*given, *out]))
    assert read_json(tmp_path / "r.json")["annotated"] == 6


@pytest.mark.parametrize("kind", ["labelme", "voc", "yolo"])
def test_files_of_single_photographs_may_lie_in_several_folders(tmp_path, kind):
    for part in ("train", "test"):
        _, outlines = outlined_set.make(tmp_path / part, count=2, seed=len(part))
        (tmp_path / part / "annotations.json").unlink()
        (tmp_path / part / "labels.csv").unlink()
        labelled_set.write(tmp_path / part, kind, outlines)
    names = [f"{part}/images/{n}.png" for part in ("test", "train") for n in range(2)]
    (tmp_path / "labels.csv").write_text("filename,label\n" + "".join(f"{name},0\n" for name in names))
    resolved = preflight.resolve({"path": str(tmp_path)})
    preflight.check(resolved)
    entries, problems = entries_by_name(read_coco(resolved["annotations"], resolved["images"]), names)
    assert sorted(entries) == names and not problems


def test_a_folder_without_annotation_files_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing\n")
    with pytest.raises(UserError, match="no LabelMe, Pascal VOC or YOLO file in this folder"):
        read_tool(str(tmp_path))
    (tmp_path / "a.xml").write_text("<project/>")
    with pytest.raises(UserError, match=r"a.xml: neither Pascal VOC nor CVAT"):
        read_tool(str(tmp_path / "a.xml"))
    assert read_tool(str(tmp_path / "annotations.json")) is None


def test_categories_are_chosen_by_name_as_in_coco(tmp_path):
    place, _ = made(tmp_path, "cvat")
    text = place.read_text().replace('label="part"', 'label="scratch"', 1)
    place.write_text(text)
    with pytest.raises(UserError, match=r"annotations.xml: outlines of 2 categories: part .*5.*, scratch"):
        preflight.check(preflight.resolve({"path": str(tmp_path)}))
    with pytest.raises(UserError, match=r"no category 'prt' \(part\? it has: scratch, part\)"):
        preflight.check(preflight.resolve({"path": str(tmp_path), "category": "prt"}))
    preflight.check(preflight.resolve({"path": str(tmp_path), "category": "part"}))


def test_boxes_mean_what_those_of_coco_mean(tmp_path):
    _, outlines = outlined_set.make(tmp_path)
    (tmp_path / "annotations.json").unlink()
    labels = tmp_path / "labels"
    labels.mkdir()
    for number, points in enumerate(outlines):
        low, high = points.min(0) / SIZE, points.max(0) / SIZE
        values = [*(low + high) / 2, *(high - low)]
        (labels / f"{number}.txt").write_text("0 " + " ".join(f"{value:.5f}" for value in values) + "\n")
    resolved = preflight.resolve({"path": str(tmp_path)})
    preflight.check(resolved)
    assert resolved["annotations"] == str(labels) and preflight.outlined(resolved, None) == 0
    out = ["--labels", f"{tmp_path}/labels.csv", "--out", f"{tmp_path}/manifest.csv", "--report", f"{tmp_path}/r.json"]
    given = ["--images", f"{tmp_path}/images", "--annotations", str(labels)]
    ingest.main(ingest.build_parser().parse_args([*given, *out]))
    report = read_json(tmp_path / "r.json")
    told = " | ".join(one["text"] for one in report["warnings"])
    assert report["annotated"] == 0 and "box only, no mask is learned from it" in told and "no list of classes" in told
    found = read_coco(str(labels))
    box = np.array(found["annotations"][0]["bbox"]) * [*SIZE, *SIZE]
    assert np.allclose(box[:2], outlines[0].min(0), atol=0.01)
