"""What comes in is looked at by its content; what is left out is named."""

import io
import json
import time
import zipfile

import pytest
from defectflow.desk.pictures import intake
from desk_client import Desk, declared, photograph, zipped


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path / "part")


def archive(desk, name, content):
    (told,) = desk.add({name: content})["archives"]
    for _ in range(200):
        report = desk.get(f"/api/photographs/archive/{told['number']}")
        if report["ended"]:
            return report
        time.sleep(0.05)
    raise AssertionError(report)


def test_files_and_folders_come_in_with_their_labels(desk):
    report = desk.add({"set/good/a.png": photograph(1), "set/bad/dent/b.png": photograph(2), "c.png": photograph(3)})
    assert (report["added"], report["labels"], report["named"]) == (3, 2, {})
    assert desk.names() == ["c.png", "set/bad/dent/b.png", "set/good/a.png"]
    assert desk.project.labels.read_text().splitlines()[1:] == ["set/bad/dent/b.png,1,dent", "set/good/a.png,0,"]


def test_duplicates_broken_and_passed_over_files_are_named(desk):
    good = photograph(1)
    files = {
        "a.png": good,
        "copy of a.png": good,
        "broken.png": photograph(2)[:300],
        "note.txt": b"hello",
        "raw.nef": b"II*\0" * 9,
    }
    report = desk.add({**files, "tiny.png": photograph(3, side=8), ".hidden.png": photograph(4)})
    assert report["added"] == 1 and report["counts"] == {"duplicate": 1, "broken": 2, "passed": 3}
    reasons = {one["name"]: one["reason"] for kind in report["named"].values() for one in kind}
    assert reasons["copy of a.png"] == "the same picture as a.png"
    assert "truncated" in reasons["broken.png"] and str(desk.project.folder) not in reasons["broken.png"]
    assert "8x8" in reasons["tiny.png"] and "raw file" in reasons["raw.nef"] and "hidden" in reasons[".hidden.png"]
    assert desk.names() == ["a.png"]


def test_names_that_lie_and_names_that_are_taken(desk):
    report = desk.add(
        {"a.txt": photograph(1), "noname": photograph(2), "page.html": b"<script>alert(1)</script>", "x.png": b"<svg/>"}
    )
    assert report["added"] == 2 and report["counts"] == {"passed": 1, "broken": 1}
    desk.add({"A.TXT.png": photograph(3), "noname.png": photograph(4)})
    assert desk.names() == ["A.TXT-2.png", "a.txt.png", "noname-2.png", "noname.png"]
    desk.add({'100 % "ö" #1.png': photograph(5)})
    assert desk.names()[0] == '100 % "ö" #1.png'


@pytest.mark.parametrize("name", ["../evil.png", "a/../../evil.png", "..\\evil.png", "evil\u202egnp.png"])
def test_uploads_do_not_leave_the_folder(desk, tmp_path, name):
    report = desk.add({name: photograph(1)})
    assert report["added"] == 0 and report["counts"] == {"broken": 1}
    assert not list(tmp_path.glob("**/evil*"))


def test_a_zip_with_traps(desk, tmp_path, monkeypatch):
    monkeypatch.setattr(intake, "LARGEST_FILE", 3_000_000)
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    stream = io.BytesIO(
        zipped(
            {
                "s/good/a.png": photograph(1),
                "../up.png": photograph(2),
                "bomb.png": bytes(2_900_000),
                "big.png": bytes(4_000_000),
                "in.zip": zipped({"b.png": photograph(3)}),
            }
        )
    )
    with zipfile.ZipFile(stream, "a") as packed:
        packed.writestr(link, "/etc/passwd")
    report = archive(desk, "all.zip", stream.getvalue())
    assert (report["added"], report["labels"], report["done"], report["total"]) == (1, 1, 6, 6)
    reasons = {one["name"]: one["reason"] for kind in report["named"].values() for one in kind}
    assert set(reasons) == {"../up.png", "bomb.png", "big.png", "in.zip", "link.png"}
    assert (
        "too large for a photograph" in reasons["bomb.png"]
        and "larger" in reasons["big.png"]
        and "link" in reasons["link.png"]
    )
    assert (
        desk.names() == ["s/good/a.png"]
        and not list(desk.project.state.glob("incoming/*"))
        and not list(tmp_path.glob("**/up*"))
    )


def test_a_damaged_zip_is_said_to_be(desk):
    assert archive(desk, "a.zip", b"PK\3\4 nothing")["counts"] == {"broken": 1}
    assert desk.get("/api/photographs/archive/none", status=422)["error"].startswith("no such archive")


def test_a_picture_that_declares_to_be_huge_is_not_decoded(desk):
    report = desk.add({"huge.png": declared(11_000, 11_000)})
    assert report["counts"] == {"broken": 1} and "121 megapixels" in report["named"]["broken"][0]["reason"]


def test_tables_manifests_and_outlines_are_read(desk):
    table = b"filename,label,defect_type\na.png,bad,dent\nb.png,good,\nelsewhere.png,good,\n"
    words = (("c.png", 1, "anomaly"), ("d.png", 0, "normal"))
    lines = [{"source-ref": f"s3://b/{n}", "state": code, "state-metadata": {"class-name": w}} for n, code, w in words]
    outline = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[4, 4, 40, 4, 40, 40]], "iscrowd": 0}
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "width": 48, "height": 48}],
        "categories": [{"id": 1, "name": "part"}],
        "annotations": [outline | {"bbox": [4, 4, 36, 36], "area": 600}],
    }
    files = {"labels.csv": table, "m.manifest": "\n".join(map(json.dumps, lines)).encode()}
    files |= {"parts.json": json.dumps(coco).encode()}
    report = desk.add({**files, **{f"{name}.png": photograph(n) for n, name in enumerate("abcd")}})
    assert (report["added"], report["labels"]) == (4, 4)
    assert "labels.csv: no photograph for elsewhere.png" in report["notes"]
    assert desk.project.labels.read_text().splitlines()[1:] == ["a.png,1,dent", "b.png,0,", "c.png,1,", "d.png,0,"]
    assert desk.project.settings()["datasets"]["part"]["annotations"] == ["annotations/parts.json"]
    wrong = desk.add(
        {"w.manifest": b'{"source-ref": "a.png"}', "w.csv": b"file,quality\na.png,good\n", "w.json": b"{}"}
    )
    assert wrong["labels"] == 0 and wrong["counts"] == {"passed": 3}


def test_outlines_of_a_second_file_of_that_name_are_added_unless_it_has_those_of_the_first(desk):
    outline = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[4, 4, 40, 4, 40, 40]], "iscrowd": 0}

    def coco(*names):
        images = [{"id": k, "file_name": name, "width": 48, "height": 48} for k, name in enumerate(names, 1)]
        content = {"images": images, "categories": [{"id": 1, "name": "part"}], "annotations": [outline]}
        return {"export/instances_default.json": json.dumps(content).encode()}

    desk.add({f"{name}.png": photograph(n) for n, name in enumerate("abc")})
    for names in (["a.png"], ["b.png"], ["c.png", "a.png"], ["b.png", "c.png"]):
        desk.add(coco(*names))
    files = desk.project.settings()["datasets"]["part"]["annotations"]
    assert files == ["annotations/instances_default.json", "annotations/instances_default-2.json"]
    told = [json.loads((desk.project.folder / file).read_text())["images"] for file in files]
    assert [[image["file_name"] for image in images] for images in told] == [["c.png", "a.png"], ["b.png", "c.png"]]


def test_a_folder_is_used_where_it_is(desk, tmp_path):
    for name in ("ok/1.png", "ok/2.png", "ng/3.png"):
        path = tmp_path / "store" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photograph(int(path.stem)))
    assert desk.post("/api/photographs/folder", path=str(tmp_path / "store")) == {"name": "store", "count": 3}
    assert desk.post("/api/photographs/folder", path=str(tmp_path / "store"))["name"] == "store"
    rows = {row[0]: row[2] for row in desk.get("/api/photographs/list")["photographs"]}
    assert rows == {"store/ng/3.png": "bad", "store/ok/1.png": "good", "store/ok/2.png": "good"}
    assert desk.add({"again.png": photograph(1)})["counts"] == {"duplicate": 1}
    desk.add({"own.png": photograph(9)})
    told = desk.post("/api/photographs/remove", status=422, names=["own.png", "store/ok/1.png"])
    assert "used in place" in told["error"] and "own.png" in desk.names()  # all or none
    desk.post("/api/photographs/remove", names=["own.png"])
    for path, why in ((tmp_path / "none", "no such folder"), (tmp_path, "contains the folder")):
        assert why in desk.post("/api/photographs/folder", status=422, path=str(path))["error"]
    assert desk.post("/api/photographs/give-back", path="store") == {"folders": []}
    assert desk.names() == [] and (tmp_path / "store/ok/1.png").is_file()


def test_pictures_are_small_copies_that_follow_the_file(desk):
    desk.add({"a.png": photograph(1, side=400)})
    first = desk.client.get("/api/photographs/picture?name=a.png")
    assert first.headers["content-type"] == "image/jpeg" and "immutable" in first.headers["cache-control"]
    large = desk.client.get("/api/photographs/picture?name=a.png&size=large")
    assert len(large.content) > len(first.content)
    (desk.project.photographs / "a.png").write_bytes(photograph(2, side=300))
    assert desk.client.get("/api/photographs/picture?name=a.png").content != first.content
    for name in ("none.png", "../labels.csv", "..%2f..%2fetc/passwd"):
        assert desk.client.get("/api/photographs/picture", params={"name": name}).status_code == 422
    assert desk.client.get("/api/photographs/picture?name=a.png&size=../x").status_code == 422


def test_removed_photographs_are_put_aside_with_their_labels(desk):
    desk.add({"good/a.png": photograph(1), "b.png": photograph(2)})
    answer = desk.post("/api/photographs/remove", names=["good/a.png"])
    assert answer["removed"] == 1 and (desk.project.state / "removed").glob("*/good/a.png")
    assert desk.names() == ["b.png"] and desk.project.labels.read_text().splitlines() == ["filename,label,defect_type"]
    assert desk.add({"good/a.png": photograph(1)})["added"] == 1


def test_files_that_are_not_read_are_listed(desk):
    (desk.project.photographs / "scan.nef").write_bytes(b"II*\0")
    (desk.project.photographs / "set.zip").write_bytes(zipped({"a.png": photograph(1)}))
    found = {one["name"]: one["reason"] for one in desk.get("/api/photographs/others")}
    assert "raw" in found["scan.nef"] and "archive" in found["set.zip"]


def test_a_request_without_files_and_one_that_is_no_form(desk):
    assert desk.client.post("/api/photographs/upload", content=b"x").status_code == 415
    assert desk.client.post("/api/photographs/upload", files=[("other", ("a.png", b"x"))]).status_code == 422
