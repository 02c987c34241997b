"""Files that are not read as photographs: each is named, by the workflow and by the inspector."""

import os
import shutil

import pytest
from defectflow.core.files import UserError, read_json
from defectflow.data import ingest
from defectflow.inspection.photo_sources import photographs, watch
from defectflow.sources import preflight
from PIL import Image


def save(path, size=(48, 40), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (sum(path.name.encode()) % 200, 90, 30)).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    """Photographs among everything else that may lie there."""
    top = tmp_path / "set"
    for name in ("a.jpg", "sub/b.JPE", "sub/deep/c.tga", ".d.jpg", ".cache/e.png", "f.jpeg.part"):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path, **({"format": "JPEG"} if name.endswith("part") else {}))
    save(tmp_path / "else/g.png")
    (top / "notes.txt").write_text("mine")
    (top / "h.NEF").write_bytes(b"MM\0*" + bytes(50))
    (top / "._a.jpg").write_bytes(bytes(20))
    (top / "link").symlink_to(tmp_path / "else")
    (top / "again").symlink_to("sub")
    (top / "i.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(top / "pipe")
    return top


def found(folder, paths=None):
    told = []
    names = [path.relative_to(folder).as_posix() for path in photographs(paths or [folder], told.append)]
    return names, {one.path.relative_to(folder).as_posix(): one for one in told}


def test_every_file_is_a_photograph_or_named_once(folder):
    names, told = found(folder)
    assert names == ["a.jpg", "sub/b.JPE", "sub/deep/c.tga"]
    assert {name: one.picture for name, one in told.items()} == {
        ".d.jpg": True, ".cache": True, "f.jpeg.part": True, "h.NEF": True, "link": True, "i.jpg": True,
        "notes.txt": False, "._a.jpg": False, "pipe": False,
    }  # fmt: skip
    files = sum(len(files) for _, _, files in os.walk(folder))
    assert len(names) + sum(one.files for one in told.values()) == files + 1  # behind the link
    for name, reason in {
        "f.jpeg.part": "rename it to .jpg", "h.NEF": "raw file", "link": "a link to a folder elsewhere",
        ".cache": "a hidden folder", "i.jpg": "a link that leads nowhere", "pipe": "neither a file nor a folder",
    }.items():  # fmt: skip
        assert reason in told[name].reason


def test_a_linked_folder_is_followed_where_it_leads_to_what_is_named(folder):
    names, told = found(folder.parent, [folder, folder.parent / "else"])
    assert "else/g.png" in names and "set/link" not in told
    names, told = found(folder, [folder / "link"])
    assert names == ["link/g.png"] and not told


def test_folders_that_a_pattern_finds_are_searched(folder):
    assert found(folder, [folder / "s*"]) == (["sub/b.JPE", "sub/deep/c.tga"], {})
    assert found(folder, [folder / "sub/**/*.tga"]) == (["sub/deep/c.tga"], {})


def test_a_watch_tells_each_file_once_when_it_ends(folder):
    told = []
    names = [path.name for path in watch(folder, 0.01, 0.2, told.append)]
    assert sorted(names) == ["a.jpg", "b.JPE", "c.tga"]
    assert len(told) == len({one.path for one in told}) == 9


def test_a_watch_tells_what_stays_while_it_goes_on(folder, monkeypatch):
    monkeypatch.setattr("defectflow.inspection.photo_sources.SETTLED", 0.02)
    told, late = [], []
    for path in watch(folder, 0.03, 0.3, told.append):
        if not late:
            late.append(save(folder / "z.jpg"))
        elif path.name == "z.jpg":
            assert len(told) == 9
    assert len(told) == 9


def resolved(folder):
    return {"layout": "coco", "images": str(folder), "annotations": None, "labels": None, "category": None}


def run_ingest(folder, out, *more):
    flags = ["--images", str(folder), "--out", str(out / "m.csv"), "--report", str(out / "r.json"), *more]
    ingest.main(ingest.build_parser().parse_args(flags))
    return read_json(out / "r.json")


def test_the_workflow_stops_at_what_looks_like_a_photograph(folder, tmp_path, capsys):
    os.remove(folder / "i.jpg")
    os.remove(folder / "link")
    os.remove(folder / "again")
    (folder / "README").write_text("mine")
    (folder / "k.mp4").write_bytes(b"\0\0\0\x18ftypisom")
    save(folder / "j.HEIC", format="PNG").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(UserError, match="3 problems"):
        run_ingest(folder, tmp_path)
    told = capsys.readouterr().err
    assert "f.jpeg.part: not read: a JPG picture, but its name ends in .part" in told
    assert "h.NEF: not read: a camera's raw file" in told and "j.HEIC: a HEIC picture needs pillow-heif" in told
    report = run_ingest(folder, tmp_path, "--on-problem", "leave_out")
    assert report["images"] == 3
    assert sorted(problem["file"] for problem in report["problems"]) == ["f.jpeg.part", "h.NEF", "j.HEIC"]
    (notice,) = report["warnings"]  # notes.txt and README are what anybody keeps beside photographs
    assert notice["text"] == "1 file passed over, no pictures: k.mp4"


def test_what_lies_behind_a_link_that_is_followed_is_named_too(tmp_path):
    save(tmp_path / "set/a.jpg")
    save(tmp_path / "more/b.jpg", (50, 40))
    (tmp_path / "more/c.NEF").write_bytes(b"MM\0*" + bytes(50))
    (tmp_path / "set/link").symlink_to(tmp_path / "more")
    report = run_ingest(tmp_path / "set", tmp_path, "--links", str(tmp_path / "more"), "--on-problem", "leave_out")
    assert report["images"] == 2
    assert [problem["file"] for problem in report["problems"]] == ["link/c.NEF"]


def test_companions_are_quiet_and_raw_files_beside_their_photographs_stop_nothing(tmp_path):
    folder = tmp_path / "set"
    for number in range(3):
        save(folder / f"{number}.jpg", (48 + number, 40))
        (folder / f"{number}.txt").write_text("{}")
        (folder / f"{number}.CR2").write_bytes(bytes(9))
    for name in ("Thumbs.db", "labels.csv", "desktop.ini", ".DS_Store", "0.xml"):
        (folder / name).write_bytes(b"x")
    report = run_ingest(folder, tmp_path)
    assert report["problems"] == []
    (notice,) = report["warnings"]
    assert notice["text"].startswith("3 files passed over, raw files next to photographs of the same name: 0.CR2, ")


def test_an_animation_is_told(tmp_path):
    save(tmp_path / "set/a.png")
    save(tmp_path / "set/b.gif", save_all=True, append_images=[Image.new("RGB", (48, 40), (9, 200, 9))])
    (notice,) = run_ingest(tmp_path / "set", tmp_path)["warnings"]
    assert notice == {"file": "b.gif", "text": "holds 2 pictures: only the first is used", "figure": ""}


def test_a_file_that_is_passed_over_later_makes_ingest_stale_and_nothing_else(folder, tmp_path):
    shutil.rmtree(folder / ".cache")
    cache = tmp_path / "cache.json"

    def digests():
        preflight.forget()
        return [preflight.images_digest(resolved(folder), cache, annotations=value) for value in (True, False)]

    before = digests()
    assert digests() == before
    (folder / "new.ARW").write_bytes(b"II*\0")
    after = digests()
    assert after[0] != before[0] and after[1] == before[1]
