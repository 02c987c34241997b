"""COCO files are found by their content, whatever a tool calls them."""

import json

import pytest
from defectflow.annotations.coco import annotations_by_image, entries_by_name
from defectflow.core.files import UserError
from defectflow.listing.annotation_files import find, is_coco, merged
from defectflow.sources import preflight
from defectflow.sources.dataset import read_coco

SQUARE = [[1, 1, 9, 1, 9, 9]]


@pytest.fixture(autouse=True)
def _read_anew():
    preflight.forget()


def coco(names, first=1, category="part", category_id=1):
    images = [{"id": first + n, "file_name": name, "width": 48, "height": 40} for n, name in enumerate(names)]
    outlines = [
        {"id": n, "image_id": image["id"], "category_id": category_id, "segmentation": SQUARE}
        for n, image in enumerate(images)
    ]
    return {"images": images, "annotations": outlines, "categories": [{"id": category_id, "name": category}]}


def make(root, photographs, files, labels=None):
    for name in photographs:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content if isinstance(content, str) else json.dumps(content))
    (root / "labels.csv").write_text("filename,label\n" + "".join(f"{name},0\n" for name in labels or photographs[:2]))
    return {"path": str(root)}


NAMES = ["images/a.jpg", "images/b.jpg"]


@pytest.mark.parametrize(
    "where",
    [
        "annotations.json", "result.json", "_annotations.coco.json", "images/_annotations.coco.json", "labels_v2.json",
        "annotations/instances_default.json", "Annotations/instances_train.json", "export/coco/x.json",
    ],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_one_coco_file_is_found_whatever_its_name(tmp_path, where, encoding):
    entry = make(
        tmp_path, NAMES, {where: "", "images/notes.json": '{"images": [], "annotations": "none"}'}, ["a.jpg", "b.jpg"]
    )
    (tmp_path / where).write_text(json.dumps(coco(["a.jpg", "b.jpg"]), indent=1), encoding=encoding)
    resolved = preflight.resolve(entry)
    assert resolved["annotations"] == str(tmp_path / where)
    preflight.check(resolved)
    assert preflight.unread(resolved, []) == [str(tmp_path / "images/notes.json")]
    assert len(read_coco(resolved["annotations"])["images"]) == 2


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"images": [{}]}', '{"images": [], "annotations": [{}]}', '{"shapes": []}']
)
def test_other_json_is_no_coco_file(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    assert not is_coco(tmp_path / "a.json") and find(tmp_path, tmp_path).others == [str(tmp_path / "a.json")]


def test_a_file_beside_each_of_several_parts_is_read_as_one(tmp_path):
    parts = ("train", "valid", "test")
    names = [f"{part}/{name}" for part in parts for name in ("a.jpg", f"{part}.jpg")]
    files = {f"{part}/_annotations.coco.json": coco(["a.jpg", f"{part}.jpg"]) for part in parts}
    resolved = preflight.resolve(make(tmp_path, names, files))
    assert resolved["layout"] == "coco" and len(resolved["annotations"]) == 3
    preflight.check(resolved)
    found, problems = entries_by_name(read_coco(resolved["annotations"], resolved["images"]), names)
    assert sorted(found) == sorted(names) and not problems
    assert len({entry["id"] for entry in found.values()}) == 6
    before = preflight.images_digest(resolved, None, annotated_only=True)
    preflight.forget()
    (tmp_path / "valid/_annotations.coco.json").write_text(json.dumps(coco(["a.jpg"])))
    assert preflight.images_digest(resolved, None, annotated_only=True) != before


@pytest.mark.parametrize("other", ["a.jpg", "images/a.jpg", "/home/anna/images/a.jpg"])
def test_two_files_that_list_one_photograph_stop_the_run(tmp_path, other):
    entry = make(
        tmp_path, NAMES, {"annotations.json": coco(["a.jpg"]), "result.json": coco([other])}, ["a.jpg", "b.jpg"]
    )
    resolved = preflight.resolve(entry)
    with pytest.raises(UserError, match=r"annotations.json and .*result.json both list a.jpg.*`annotations: .*`"):
        preflight.check(resolved, on_problem="leave_out", cache=tmp_path / "cache")
    one = preflight.resolve(entry | {"annotations": str(tmp_path / "result.json")})
    preflight.check(one, cache=tmp_path / "cache")
    assert preflight.unread(one, []) == [str(tmp_path / "annotations.json")]
    assert preflight.resolve(entry | {"annotations": []})["annotations"] is None


def test_a_new_json_file_runs_ingest_again(tmp_path):
    resolved = preflight.resolve(make(tmp_path, NAMES, {}, ["a.jpg", "b.jpg"]))
    before = [preflight.images_digest(resolved, None, annotations=whole) for whole in (True, False)]
    (tmp_path / "images/new.json").write_text("{}")
    preflight.forget()
    after = [preflight.images_digest(resolved, None, annotations=whole) for whole in (True, False)]
    assert before[0] != after[0] and before[1] == after[1]


def test_ids_of_several_files():
    apart = merged([("a", coco(["a"], 1)), ("b", coco(["b"], 7))])
    assert [image["id"] for image in apart["images"]] == [1, 7]
    whole = merged(
        [("a", coco(["a", "b"])), ("b", coco(["c", "d"], category_id=3)), ("c", coco(["e"], category="hole"))]
    )
    assert [image["id"] for image in whole["images"]] == [1, 2, 3, 4, 5]
    assert {category["name"]: category["id"] for category in whole["categories"]} == {"part": 1, "hole": 2}
    assert sorted(annotations_by_image(whole, "part")) == [1, 2, 3, 4]
    assert sorted(annotations_by_image(whole, "hole")) == [5]


def test_an_annotation_of_an_unlisted_image_goes_to_no_image_of_another_file():
    stray = coco(["a"])
    stray["annotations"].append({"id": 9, "image_id": 2, "category_id": 1, "segmentation": SQUARE})
    whole = merged([("a", stray), ("b", coco(["b"], 2))])
    assert len(annotations_by_image(whole)[2]) == 1


def test_many_json_files_are_not_all_looked_at(tmp_path):
    files = {f"images/{n:03}.json": "{}" for n in range(200)} | {"images/zz_annotations.json": coco(["a.jpg"])}
    found = find(tmp_path, tmp_path / "images") if make(tmp_path, NAMES, files) else None
    assert found.annotations == [str(tmp_path / "images/zz_annotations.json")] and len(found.others) < 100


@pytest.mark.parametrize("key", ["annotations", "labels", "path"])
def test_a_typo_in_a_path_gets_the_nearest_one_that_exists(tmp_path, key):
    entry = make(tmp_path / "mine", NAMES, {"outlines.json": coco(["a.jpg"])}, ["a.jpg", "b.jpg"])
    typo = {"annotations": "mine/outline.json", "labels": "mien/labels.csv", "path": "Mine"}[key]
    right = {"annotations": "mine/outlines.json", "labels": "mine/labels.csv", "path": "mine"}[key]
    with pytest.raises(UserError, match=f"{typo}: no such .*; did you mean {tmp_path}/{right}"):
        preflight.check(preflight.resolve(entry | {key: str(tmp_path / typo)}))
