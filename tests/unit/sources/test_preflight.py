"""Data sets before anything is computed: paths, checks, and hashes that decide what runs again."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from defectflow.core.files import UserError, sha256_of
from defectflow.listing.image_names import image_ids, leaves, shard_of
from defectflow.listing.match_names_to_photographs import Matcher
from defectflow.sources import digest_cache, preflight
from defectflow.sources.dataset import categories, image_paths, image_rows
from defectflow.sources.labels_csv import read_labels


def make(root: Path, labels: str = "filename,label,group\na.jpg,0,A\nb.jpg,0,A\nsub/c.png,1,B\n") -> dict:
    """A data set of three placeholder files; only a.jpg has an outline."""
    (root / "images" / "sub").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "sub/c.png"):
        (root / "images" / name).write_bytes(name.encode())
    outline = {"id": 7, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 9, 0, 9, 9]]}
    coco = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 10, "height": 10}, {"id": 2, "file_name": "b.jpg"}],
        "annotations": [outline],
        "categories": [{"id": 1, "name": "part"}],
    }
    (root / "annotations.json").write_text(json.dumps(coco))
    (root / "labels.csv").write_text(labels)
    return preflight.resolve({"path": str(root)})


def digest(resolved: dict, cache: Path | None = None, **options) -> str:
    preflight.forget()
    return preflight.images_digest(resolved, cache, **options)


def test_only_the_standard_library_is_imported():
    code = (
        "import sys; before = set(sys.modules); import defectflow.sources.preflight; "
        "new = {m.split('.')[0] for m in set(sys.modules) - before}; "
        "print(sorted(new - set(sys.stdlib_module_names) - {'defectflow'}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_resolve_folder_explicit_paths_and_mvtec(tmp_path):
    resolved = make(tmp_path / "a")
    assert resolved["layout"] == "coco"
    assert resolved["images"] == str(tmp_path / "a" / "images")
    assert resolved["annotations"] == str(tmp_path / "a" / "annotations.json")
    (tmp_path / "a" / "annotations.json").unlink()
    assert preflight.resolve({"path": str(tmp_path / "a")})["annotations"] is None
    other = preflight.resolve({"path": str(tmp_path / "a"), "labels": "other.csv", "category": "part"})
    assert (other["labels"], other["category"]) == ("other.csv", "part")
    (tmp_path / "m" / "train" / "good").mkdir(parents=True)
    assert preflight.resolve({"path": str(tmp_path / "m")})["layout"] == "mvtec"
    with pytest.raises(UserError, match="neither `path` nor `images`"):
        preflight.resolve({"labels": "x.csv"})


def test_photographs_directly_in_the_folder(tmp_path):
    (tmp_path / "ground_truth").mkdir()
    for name in ("a.jpg", "ground_truth/a.png", ".hidden.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert list(image_paths(preflight.resolve({"path": str(tmp_path)}))) == ["a.jpg"]


def test_sound_data_set_passes(tmp_path):
    preflight.check(make(tmp_path))


@pytest.fixture(autouse=True)
def _read_anew():
    preflight.forget()


def spoil(resolved: dict, root: Path, what: str) -> None:
    """Break one thing."""
    coco = json.loads((root / "annotations.json").read_text())
    labels = (root / "labels.csv").read_text()
    match what:
        case "no folder":
            resolved["images"] = str(root / "imags")
        case "no images":
            for path in (root / "images").rglob("*.*"):
                path.unlink()
        case "no annotations":
            resolved["annotations"] = str(root / "anotations.json")
        case "no labels":
            resolved["labels"] = str(root / "label.csv")
        case "not json":
            (root / "annotations.json").write_text("{")
        case "not coco":
            (root / "annotations.json").write_text("[]")
        case "no annotation":
            (root / "annotations.json").write_text(json.dumps(coco | {"annotations": []}))
        case "no image":
            (root / "annotations.json").write_text(json.dumps(coco | {"images": []}))
        case "category":
            resolved["category"] = "prat"
        case "column":
            (root / "labels.csv").write_text(labels.replace("label,", "lable,"))
        case "missing column":
            (root / "labels.csv").write_text("filename,group\na.jpg,A\n")
        case "label":
            (root / "labels.csv").write_text(labels.replace("a.jpg,0", "a.jpg,2"))
        case "split":
            (root / "labels.csv").write_text("filename,label,split\na.jpg,0,training\n")
        case "loose split":
            (root / "labels.csv").write_text("filename,label,split\na.jpg,0,train\nb.jpg,0,\n")
        case "absent image":
            (root / "labels.csv").write_text(labels + "d.jpg,1,B\n")
        case "twice":
            (root / "labels.csv").write_text(labels + "a.jpg,1,B\n")
        case "no good":
            (root / "labels.csv").write_text("filename,label\na.jpg,0\nb.jpg,\n")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no folder", "imags: no such folder"),
        ("no images", "images: no images in this folder"),
        ("no annotations", "anotations.json: no such file"),
        ("no labels", "label.csv: no such file"),
        ("not json", "annotations.json: not valid JSON"),
        ("not coco", "annotations.json: not a COCO file"),
        ("no annotation", "annotations.json: the list `annotations` is empty"),
        ("no image", "annotations.json: the list `images` is empty"),
        ("category", r"no category 'prat' \(part\? it has: part\)"),
        ("column", r"labels.csv: unknown column 'lable' \(label\? allowed: filename, label"),
        ("missing column", "labels.csv: column 'label' is missing"),
        ("label", "labels.csv, line 2: label '2' is not allowed"),
        ("split", "labels.csv, line 2: split 'training' is not allowed"),
        ("loose split", "b.jpg has a label and no split"),
        ("absent image", "labels.csv: d.jpg: no such image in the image folder"),
        ("twice", "labels.csv: a.jpg: this image has two rows"),
        ("no good", "1 images are labelled good"),
    ],
)
def test_each_fault_is_one_clear_line(tmp_path, what, message):
    resolved = make(tmp_path)
    preflight.check(resolved, cache=tmp_path / "cache.json")
    spoil(resolved, tmp_path, what)
    preflight.forget()
    with pytest.raises(UserError, match=message) as caught:
        preflight.check(resolved, cache=tmp_path / "cache.json")
        preflight.check_learnable(resolved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("split, judged", [("", 3), ("test", 3), ("train", 0)])
@pytest.mark.parametrize("label, kind", [(0, "good"), (1, "bad")])
def test_too_few_labels_for_the_threshold_are_told(tmp_path, label, kind, split, judged):
    # Three images of each label, and a good one more, for the detector to learn from where the split is fixed.
    resolved = make(tmp_path)
    for name in "tuvwxyz":
        (tmp_path / f"images/{name}.jpg").write_bytes(name.encode())
    rows = [f"{name}.jpg,{label},{split}" for name in "tuv"] + [f"{name}.jpg,{1 - label},{split}" for name in "wxy"]
    labels = "\n".join(["filename,label,split", *rows, f"z.jpg,0,{'train' if split else ''}"]) + "\n"
    (tmp_path / "labels.csv").write_text(labels)
    judged += kind == "good" and not split
    preflight.check_learnable(resolved, {"good": 0, "bad": 0, kind: max(judged - 1, 0)})
    least = max(judged, 1)  # one is judged, so all of them are one too few to choose its threshold on
    with pytest.raises(UserError, match=rf"csv: {judged} images to be judged are labelled {kind}.* at least {least} "):
        preflight.check_learnable(resolved, {"good": 0, "bad": 0, kind: least})


def test_leave_out_accepts_labels_of_absent_images(tmp_path):
    resolved = make(tmp_path)
    spoil(resolved, tmp_path, "absent image")
    preflight.check(resolved, on_problem="leave_out")


def test_labels_from_a_spreadsheet(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes("\ufefffilename;label\r\nä.jpg;0.0\r\nb.jpg;Bad\r\n;\r\nc.jpg;\r\n".encode())
    assert [(row["filename"], row["label"]) for row in read_labels(path)] == [
        ("ä.jpg", "0"),
        ("b.jpg", "1"),
        ("c.jpg", ""),
    ]


def test_image_ids_are_safe_unique_and_independent_of_order():
    names = ["a/b 1.jpg", "a/b_1.png", "c.d.jpg", "C.D.png", "ü.png", "x" * 300 + ".png"]
    ids = image_ids(names)
    assert len({i.lower() for i in ids.values()}) == len(names)
    assert ids["a/b 1.jpg"].startswith("a__b_1-") and ids["c.d.jpg"].startswith("c.d-")
    assert ids["ü.png"] == "_"
    assert all(len(i) < 200 and set(i) <= set(map(chr, range(128))) for i in ids.values())
    assert image_ids(reversed(names)) == ids


def test_shards_are_stable():
    assert [shard_of(f"image_{i}", 4) for i in range(8)] == [shard_of(f"image_{i}", 4) for i in range(8)]
    assert {shard_of(f"image_{i}", 4) for i in range(100)} == {0, 1, 2, 3}


def test_a_name_that_is_not_utf_8_is_told(tmp_path):
    resolved = make(tmp_path)
    with open(os.fsencode(f"{resolved['images']}/sub/") + b"\xfcber.png", "wb"):
        pass
    with pytest.raises(UserError, match=r"images: the name sub/\\xfcber.png is not UTF-8 \(rename the file\)"):
        digest(resolved, None)


def test_names_are_matched_by_path_then_by_base_name():
    given = ["a\\x.jpg", "other/y.jpg", "x.jpg", "../a/x.jpg"]
    matcher = Matcher(["a/x.jpg", "b/x.jpg", "a/y.jpg"], given)
    assert matcher.find("a\\x.jpg")[0] == "a/x.jpg"
    assert matcher.find("other/y.jpg") == (None, "no such image in the image folder (nearest: a/y.jpg)")
    assert "several images" in matcher.find("x.jpg")[1]
    assert "leaves" in matcher.find("../a/x.jpg")[1]
    assert all(map(leaves, ("/etc/a.jpg", "C:\\a.jpg", "a/../../b.jpg"))) and not leaves("a/../b.jpg")


def test_touch_changes_no_digest_and_content_does(tmp_path):
    resolved, cache = make(tmp_path / "d"), tmp_path / "cache.json"
    before = digest(resolved, cache)
    for path in (tmp_path / "d").rglob("*.*"):
        os.utime(path)
    assert digest(resolved, cache) == before
    (tmp_path / "d" / "images" / "b.jpg").write_bytes(b"other")
    assert digest(resolved, cache) != before


def test_a_new_image_changes_its_shard_only(tmp_path):
    resolved, shards = make(tmp_path), 5
    before = [digest(resolved, shard=(k, shards)) for k in range(shards)]
    annotated = digest(resolved, annotated_only=True)
    (tmp_path / "images" / "new.jpg").write_bytes(b"new")
    after = [digest(resolved, shard=(k, shards)) for k in range(shards)]
    assert [k for k in range(shards) if before[k] != after[k]] == [shard_of("new", shards)]
    assert digest(resolved, annotated_only=True) == annotated


def test_the_label_of_a_copy_re_runs_what_reads_labels_only(tmp_path):
    resolved = make(tmp_path)
    (tmp_path / "images" / "z.jpg").write_bytes(b"a.jpg")
    plain, labelled = digest(resolved), digest(resolved, labels=True)
    with open(tmp_path / "labels.csv", "a") as stream:
        stream.write("z.jpg,1,B\n")
    assert digest(resolved) == plain and digest(resolved, labels=True) != labelled


def test_annotated_digest_follows_outlines_and_groups_only(tmp_path):
    resolved, cache = make(tmp_path / "d"), tmp_path / "cache.json"
    before = digest(resolved, cache, annotated_only=True)
    path = tmp_path / "d" / "annotations.json"
    coco = json.loads(path.read_text())
    coco["annotations"][0]["id"] = 99  # exported again
    path.write_text(json.dumps(coco, indent=1))
    labels = tmp_path / "d" / "labels.csv"
    labels.write_text(labels.read_text().replace("b.jpg,0", "b.jpg,1"))
    assert digest(resolved, cache, annotated_only=True) == before
    coco["annotations"][0]["segmentation"][0][0] = 3
    path.write_text(json.dumps(coco))
    moved = digest(resolved, cache, annotated_only=True)
    assert moved != before
    labels.write_text(labels.read_text().replace("a.jpg,0,A", "a.jpg,0,C"))
    regrouped = digest(resolved, cache, annotated_only=True)
    assert regrouped not in (before, moved)
    coco["images"].append({"id": 3, "file_name": "sub/c.png"})  # listed without an outline: perhaps the part is absent
    path.write_text(json.dumps(coco))
    assert digest(resolved, cache, annotated_only=True) not in (before, moved, regrouped)


def test_label_digest_follows_labels_and_mask_files(tmp_path):
    resolved = make(tmp_path, "filename,label,mask\na.jpg,0,\nb.jpg,1,gt/b.png\n")
    (tmp_path / "gt").mkdir()
    (tmp_path / "gt" / "b.png").write_bytes(b"1")
    plain, before = digest(resolved), digest(resolved, labels=True)
    (tmp_path / "gt" / "b.png").write_bytes(b"2")
    changed = digest(resolved, labels=True)
    assert changed != before
    (tmp_path / "labels.csv").write_text("filename,label,mask\na.jpg,,\nb.jpg,1,gt/b.png\n")
    assert digest(resolved, labels=True) not in (before, changed)
    assert digest(resolved) == plain


def settle(monkeypatch):
    """A minute later: of a file that was written a moment ago nothing is remembered."""
    now = time.time_ns
    monkeypatch.setattr(digest_cache.time, "time_ns", lambda: now() + 60 * 10**9)


@pytest.mark.parametrize("way", ["replaced", "rewritten", "copied"])
def test_another_file_of_the_same_size_and_time_is_read_again(tmp_path, monkeypatch, way):
    resolved, cache = make(tmp_path / "d"), tmp_path / "cache.json"
    path, other = tmp_path / "d/images/b.jpg", tmp_path / "other"
    os.utime(path, (1e9, 1e9))
    settle(monkeypatch)
    before = digest(resolved, cache)
    assert str(path.stat().st_ino) in cache.read_text()
    if way == "replaced":  # as rsync and unpacking do
        other.write_bytes(b"x.jpg")
        os.utime(other, (1e9, 1e9))
        os.replace(other, path)
    elif way == "rewritten":
        path.write_bytes(b"x.jpg")
        os.utime(path, (1e9, 1e9))
    else:  # the same content in a new file: read again, and nothing to do
        shutil.copy2(path, other)
        os.replace(other, path)
    read = []
    monkeypatch.setattr(digest_cache, "sha256_of", lambda path: read.append(path) or sha256_of(path))
    assert (digest(resolved, cache) == before) == (way == "copied")
    assert read == [str(path)]


def test_a_cache_without_ctime_and_inode_is_not_trusted(tmp_path, monkeypatch):
    resolved, cache = make(tmp_path / "d"), tmp_path / "cache.json"
    settle(monkeypatch)
    before = digest(resolved, cache)
    known = json.loads(cache.read_text())
    for files in known["files"].values():
        files.update({name: [*entry[:2], "0" * 64] for name, entry in files.items()})
    cache.write_text(json.dumps(known))
    assert digest(resolved, cache) == before


def test_file_digests_use_the_cache_and_survive_without(tmp_path, monkeypatch):
    folder, cache = tmp_path / "d", tmp_path / "cache" / "c.json"
    folder.mkdir()
    old = time.time() - 100
    for name in ("a", "b"):
        (folder / name).write_text(name)
        os.utime(folder / name, (old, old))
    expected = {"a": sha256_of(folder / "a"), "b": sha256_of(folder / "b")}
    assert digest_cache.file_digests(folder, cache) == expected
    settle(monkeypatch)
    assert digest_cache.file_digests(folder, cache) == expected
    read = []
    monkeypatch.setattr(digest_cache, "sha256_of", lambda path: read.append(path) or "new")
    assert digest_cache.file_digests(folder, cache) == expected and not read
    (folder / "b").write_text("longer")
    assert digest_cache.file_digests(folder, cache) == {"a": expected["a"], "b": "new"} and len(read) == 1
    cache.write_text("damaged")
    assert digest_cache.file_digests(folder, cache) == {"a": "new", "b": "new"}
    assert digest_cache.file_digests([folder / "a"], "/dev/null/no/cache.json") == {str(folder / "a"): "new"}


def test_checksums_of_weights(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"weights")
    preflight.check_sha256(path, sha256_of(path), None, 7)
    with pytest.raises(UserError, match=r"model.pt: wrong checksum"):
        preflight.check_sha256(path, "0" * 64, None)
    with pytest.raises(UserError, match="7 bytes instead of 8"):
        preflight.check_sha256(path, sha256_of(path), None, 8)
    with pytest.raises(UserError, match="no such file"):
        preflight.check_sha256(tmp_path / "absent.pt", "0" * 64, None)


def test_categories_of_a_folder_are_data_sets(tmp_path):
    for name in ("metal_nut", "bottle"):
        (tmp_path / name / "train/good").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    entry = {"path": str(tmp_path), "categories": "all"}
    assert categories("mvtec", entry) == {
        "mvtec-bottle": {"path": f"{tmp_path}/bottle"}, "mvtec-metal_nut": {"path": f"{tmp_path}/metal_nut"},
    }  # fmt: skip
    assert list(categories("m", entry | {"categories": ["metal_nut"]})) == ["m-metal_nut"]
    assert categories("one", {"path": "x"}) == {"one": {"path": "x"}}
    (tmp_path / "a b/train/good").mkdir(parents=True)
    for change, message in (
        ({"categories": ["notes"]}, r"notes: not in the MVTec layout \(known: a b, bottle, metal_nut\)"),
        ({}, "a b: the name becomes a folder"),
        ({"path": str(tmp_path / "notes")}, "no folder in it has train/good"),
        ({"path": str(tmp_path / "absent")}, "absent: no such folder"),
    ):
        with pytest.raises(UserError, match=message):
            categories("m", entry | change)


def test_names_that_look_the_same_are_the_same():
    on_disk = "T\u0075\u0308r.jpg"  # as a Mac writes it
    assert Matcher([on_disk], ["T\u00fcr.jpg"]).find("T\u00fcr.jpg") == (on_disk, "")
    assert Matcher(["T\u00fcr.jpg"], [f"x/{on_disk}"]).find(f"x/{on_disk}") == ("T\u00fcr.jpg", "")


@pytest.mark.parametrize("name", ["Labels.CSV", "images/labels.csv"])
def test_labels_are_found_beside_and_among_the_photographs_in_capitals_or_not(tmp_path, name):
    make(tmp_path)
    os.rename(tmp_path / "labels.csv", tmp_path / name)
    assert preflight.resolve({"path": str(tmp_path)})["labels"] == str(tmp_path / name)
    folder = str((tmp_path / name).parent)
    assert preflight.resolve({"images": folder})["labels"] == str(tmp_path / name)
    assert preflight.resolve({"images": folder, "labels": None})["labels"] is None
    (tmp_path / "labels.csv").write_text("filename,label\n")
    with pytest.raises(UserError, match=r"labels\.csv: which one has the labels\? \(say so in the entry"):
        preflight.resolve({"path": str(tmp_path)})
    assert preflight.resolve({"path": str(tmp_path), "labels": "x.csv"})["labels"] == "x.csv"


def feedback(resolved: dict, *lines: str) -> dict:
    """The data set with a table of feedback beside its photographs' folder."""
    table = Path(resolved["path"], "said.csv")
    table.write_text("\n".join(["filename,said,x0,y0,x1,y1,mask,time,who", *lines]))
    preflight.forget()
    return resolved | {"feedback": str(table)}


def test_feedback_gives_labels_and_what_is_taken_out_restores_what_was(tmp_path):
    resolved = make(tmp_path, "filename,label,group\na.jpg,0,A\nb.jpg,,A\nsub/c.png,1,B\n")
    before, rows = digest(resolved, labels=True), image_rows(resolved, ["a.jpg", "b.jpg", "sub/c.png"])[0]
    (tmp_path / "mark.png").write_bytes(b"mask")
    said = feedback(resolved, "b.jpg,bad,,,,,mark.png,,Ana", "images/a.jpg,good,,,,,,,")
    told, problems = image_rows(said, rows)
    assert not problems and told["a.jpg"] == rows["a.jpg"] and told["sub/c.png"] == rows["sub/c.png"]
    assert told["b.jpg"] == rows["b.jpg"] | {"label": "1", "said": "1", "mask": str(tmp_path / "mark.png")}
    after = digest(said, labels=True)
    assert after != before and digest(said, shard=(0, 1)) == digest(resolved, shard=(0, 1))
    (tmp_path / "mark.png").write_bytes(b"another mask")
    assert digest(said, labels=True) != after
    feedback(resolved, "b.jpg,bad,1,1,5,5,,2026-11-30 14:02,Bo")  # a box, and who said it, are for learn
    boxed = digest(said, labels=True)
    feedback(resolved, "b.jpg,bad,,,,,,,")
    assert digest(said, labels=True) == boxed and boxed not in (before, after)
    for line in (["a.jpg,good,,,,,,,"], []):
        feedback(resolved, *line)
        assert digest(said, labels=True) == before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.jpg,bad", "line 2: a.jpg is said to be bad and labelled good .correct one of them"),
        ("sub/c.png,good", "line 2: sub/c.png is said to be good and labelled bad"),
        ("elsewhere.jpg,bad", "line 2: .*elsewhere.jpg is no photograph of .*images .copy it there, or take the row"),
        ("b.jpg,bad\nimages/b.jpg,good", "lines 2 and 3 are about the same photograph, b.jpg, and contradict"),
        ("d.jpg,bad", "line 2: d.jpg: no such file"),
    ],
)
def test_feedback_that_contradicts_or_is_about_nothing_is_one_line(tmp_path, line, message):
    resolved = make(tmp_path, "filename,label,group\na.jpg,0,A\nb.jpg,,A\nsub/c.png,1,B\n")
    (tmp_path / "elsewhere.jpg").write_bytes(b"elsewhere")
    with pytest.raises(UserError, match=message) as caught:
        preflight.check(feedback(resolved, line))
    assert "\n" not in str(caught.value)
    if "said to be" in message:
        preflight.check(feedback(resolved, line), "leave_out")
        assert {row.get("said") for row in image_rows(resolved, ["a.jpg", "sub/c.png"])[0].values()} == {None}


def test_a_mask_that_somebody_drew_is_not_lost_to_another_row_and_replaces_no_ground_truth(tmp_path):
    resolved = make(tmp_path, "filename,label,mask\na.jpg,0,\nb.jpg,,\nsub/c.png,1,c_mask.png\n")
    for name in ("c_mask.png", "one.png", "other.png"):
        (tmp_path / name).write_bytes(name.encode())
    one, box, other = "b.jpg,bad,,,,,one.png", "b.jpg,bad,1,1,5,5", "b.jpg,bad,,,,,other.png"
    for lines in ([one, box], [box, one]):
        rows, problems = image_rows(feedback(resolved, *lines), ["a.jpg", "b.jpg", "sub/c.png"])
        assert rows["b.jpg"]["mask"] == str(tmp_path / "one.png") and not problems
    with pytest.raises(UserError, match=r"b\.jpg has several masks: line 2, line 3 \(draw all of its damage into one"):
        preflight.check(feedback(resolved, one, other))
    said = feedback(resolved, "images/sub/c.png,bad,,,,,one.png")
    with pytest.raises(UserError, match=r"sub/c.png has several masks: line 2, .*c_mask\.png"):
        preflight.check(said)
    assert image_rows(said, ["sub/c.png"])[0]["sub/c.png"]["mask"] == str(tmp_path / "c_mask.png")
    feedback(resolved, "images/sub/c.png,bad,,,,,c_mask.png")
    preflight.check(said)


def test_feedback_on_a_set_without_labels_leaves_it_one_that_is_learned_from(tmp_path):
    for number in range(12):
        (tmp_path / f"{number:02}.jpg").write_bytes(bytes([number]))
    resolved = preflight.resolve({"path": str(tmp_path)})
    assert preflight.learns_unlabelled(resolved)
    said = feedback(resolved, "03.jpg,bad,,,,,,,")
    assert preflight.learns_unlabelled(said)
    assert image_rows(said, ["03.jpg"])[0]["03.jpg"]["label"] == "1"


def test_photographs_that_changed_since_a_table_of_them_are_counted(tmp_path):
    resolved, table = make(tmp_path), tmp_path / "0.csv"
    ids = image_ids(image_paths(resolved))
    rows = [f"{ids[name]},{sha256_of(path)}" for name, path in image_paths(resolved).items()]
    table.write_text("\n".join(["image_id,sha256", *rows]))
    preflight.forget()
    assert preflight.changed_since(resolved, None, [table, tmp_path / "absent.csv"]) == 0
    (tmp_path / "images/a.jpg").write_bytes(b"another")
    (tmp_path / "images/b.jpg").rename(tmp_path / "images/d.jpg")
    preflight.forget()
    assert preflight.changed_since(resolved, None, [table]) == 2
    preflight.forget()
    assert preflight.changed_since(resolved, None, []) == 3


def test_the_digest_follows_the_first_of_two_entries_of_one_image_which_is_used(tmp_path):
    resolved = make(tmp_path / "d")
    path = tmp_path / "d" / "annotations.json"
    coco = json.loads(path.read_text())
    coco["images"].append(coco["images"][0] | {"id": 77})  # listed twice, the second time without an outline
    path.write_text(json.dumps(coco))
    before, count = digest(resolved, annotated_only=True), preflight.outlined(resolved, None)
    coco["annotations"][0]["segmentation"][0][0] = 3
    path.write_text(json.dumps(coco))
    preflight.forget()
    assert digest(resolved, annotated_only=True) != before and count == preflight.outlined(resolved, None) > 0
