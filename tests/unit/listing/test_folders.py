"""What the folders of a data set say: labels, sides, masks, links."""

import itertools
from collections import Counter

import pytest
from defectflow.core.files import UserError
from defectflow.listing.folders import GOOD, SIDES, Folders, tells_labels
from defectflow.sources.dataset import image_names, row_reader
from defectflow.sources.dataset_entry import resolve, way_out
from defectflow.sources.source_notices import link_problems, masks_read_as_photographs, notices
from hypothesis import given
from hypothesis import strategies as st

CONTROL = ["train/good/0.png", "train/good/1.png", "test/good/0.png", "test/crack/0.png", "test/crack/1.png"]
TRUTH = ["ground_truth/crack/0_mask.png", "ground_truth/crack/1_mask.png"]


def make(root, names, **entry):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return resolve({"path": str(root)} | entry)


def rows(resolved):
    """{name: (split, label, defect type, mask relative to the root)}"""
    names = sorted(image_names(resolved))
    row, problems = row_reader(resolved, names)
    assert not problems
    root = resolved["images"] + "/"
    return {
        n: (r["split"], r["label"], r["defect_type"], r["mask"].removeprefix(root)) for n in names for r in [row(n)]
    }


def told(resolved):
    """[(file, text)] of the notices of a data set."""
    folders, names = Folders(resolved), sorted(image_names(resolved))
    row = row_reader(resolved, names, folders)[0]
    found = notices(resolved, folders, folders.report()[1], names, row, resolved["found"])
    return [(one.file, one.text) for one in found]


def test_the_layout_of_mvtec(tmp_path):
    resolved = make(tmp_path, [*CONTROL, *TRUTH])
    assert rows(resolved) == {
        "train/good/0.png": ("train", "0", "", ""),
        "train/good/1.png": ("train", "0", "", ""),
        "test/good/0.png": ("test", "0", "", ""),
        "test/crack/0.png": ("test", "1", "crack", "ground_truth/crack/0_mask.png"),
        "test/crack/1.png": ("test", "1", "crack", "ground_truth/crack/1_mask.png"),
    }
    assert told(resolved) == []
    lines = [(line["folder"], line["pictures"], line["read_as"]) for line in Folders(resolved).report()[0]]
    assert lines == [
        ("test/crack", 2, "bad, crack, held out"),
        ("test/good", 1, "good, held out"),
        ("train/good", 2, "good, to learn from"),
        ("ground_truth", 2, "masks"),
    ]


@given(
    st.sampled_from([*GOOD, "defect-free", "i.O.", "Golden one"]).flatmap(
        lambda n: st.sampled_from([n, n.upper(), n.title()])
    ),
    st.sampled_from([name for name, side in SIDES.items() if side == "train"]).map(str.title),
    st.sampled_from([name for name, side in SIDES.items() if side != "train"]).map(str.upper),
    st.sampled_from(["Ground_Truth", "groundtruth", "GT", "Masks", "mask", "labels", "annotations"]),
)
def test_other_names_of_the_same_folders(tmp_path_factory, good, train, test, truth):
    root = tmp_path_factory.mktemp("set")
    plain = ["train/good/0.png", "train/good/1.png", "test/good/0.png", "test/crack/0.png", "gt/crack/0.png"]
    parts = {"train": train, "test": test, "good": good, "gt": truth}
    names = ["/".join(parts.get(part, part) for part in name.split("/")) for name in plain]
    got = rows(make(root, names, good=["golden_one"]))
    expected = [("train", "0", "", "")] * 2 + [("test", "0", "", ""), ("test", "1", "crack", names[4])]
    assert got == dict(zip(names[:4], expected, strict=True))


def test_validation_is_held_out_and_told(tmp_path):
    resolved = make(tmp_path, [*CONTROL, "validation/good/0.png", "validation/good/1.png"])
    assert rows(resolved)["validation/good/1.png"] == ("test", "0", "", "")
    assert [file for file, _ in told(resolved)] == ["validation/good"]


def test_folders_that_are_not_read_are_told(tmp_path):
    resolved = make(tmp_path, [*CONTROL, "extra/0.png", "extra/1.png", "stray.png", "test/loose.png"])
    assert set(rows(resolved)) == {*CONTROL, "test/loose.png"}
    assert [(file, text[:24]) for file, text in told(resolved)] == [
        ("test", "1 photograph unlabelled:"), (".", "1 picture not read: besi"), ("extra", "2 pictures not read: the"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "good, bad", list(itertools.product(["good", "OK", "Normal"], ["bad", "NG", "not_good", None]))
)
def test_bare_folders(tmp_path, good, bad):
    names = [f"{good}/0.png", f"{good}/1.png"] + [f"{bad}/scratch/0.png", f"{bad}/1.png"] * bool(bad)
    got = rows(make(tmp_path, names))
    assert [got[name][:3] for name in names[:2]] == [("", "0", "")] * 2
    if bad:
        assert [got[name][:3] for name in names[2:]] == [("", "1", "scratch"), ("", "1", "")]


def test_bare_folders_that_say_neither_good_nor_bad_are_unlabelled_and_told(tmp_path):
    resolved = make(tmp_path, ["good/0.png", "good/1.png", "scratch/0.png"])
    assert rows(resolved)["scratch/0.png"] == ("", "", "", "")
    assert [file for file, _ in told(resolved)] == ["scratch"]


def test_without_a_train_folder_nothing_is_fixed(tmp_path):
    got = rows(make(tmp_path, CONTROL[2:]))
    assert {row[0] for row in got.values()} == {""} and Counter(row[1] for row in got.values()) == {"0": 1, "1": 2}


def test_only_train_good_is_held_out_in_turns_and_defects_to_learn_from_are_not(tmp_path):
    assert {row[0] for row in rows(make(tmp_path / "a", CONTROL[:2])).values()} == {""}
    assert {row[0] for row in rows(make(tmp_path / "b", [*CONTROL[:2], "train/crack/0.png"])).values()} == {"train"}


def test_with_labels_csv_bare_folders_say_nothing_and_that_is_told(tmp_path):
    (tmp_path / "labels.csv").write_text("filename,label\ngood/0.png,0\ngood/1.png,1\nbad/0.png,1\n")
    resolved = make(tmp_path, ["good/0.png", "good/1.png", "good/2.png", "bad/0.png"])
    assert resolved["layout"] == "coco" and [row[1] for row in rows(resolved).values()] == ["1", "0", "1", ""]
    table = f"{tmp_path}/labels.csv"
    assert [text for file, text in told(resolved) if file == "good"] == [
        f"1 photograph without a label in {table}: unlabelled",
        f"1 photograph labelled the other way in {table}, which counts",
    ]


@pytest.mark.parametrize(
    "masks",
    [["masks/0.png", "masks/1.png"], ["0_mask.png", "1-mask.png"], ["GT/0.png", "GT/x.png"], ["sub/mask/0.png"]],
)
def test_masks_among_photographs_are_no_photographs(tmp_path, masks):
    photographs = ["0.jpg", "1.jpg", "sub/0.jpg"]
    resolved = make(tmp_path, [*photographs, *masks])
    assert sorted(image_names(resolved)) == photographs
    assert bool(told(resolved)) == (not masks[0].startswith("GT"))
    (tmp_path / "labels.csv").write_text(
        "filename,label,mask\n" + "".join(f"{n},1,{m}\n" for n, m in zip(photographs, masks, strict=False))
    )
    assert told(resolve({"path": str(tmp_path)})) == []


def test_a_folder_called_mask_that_holds_other_names_is_of_photographs(tmp_path):
    resolved = make(tmp_path, ["0.jpg", "mask/1.jpg", "mask/2.jpg", "face_mask.png"])
    assert len(list(image_names(resolved))) == 4
    assert [file for file, _ in told(resolved)] == ["mask"]


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ("masks/bad/0.png", "masks/bad/0.png"),
        ("bad/masks/0.png", "bad/masks/0.png"),
        ("bad/0_mask.png", "bad/0_mask.png"),
        ("gt/0.bmp", "gt/0.bmp"),
        ("ground_truth/test/bad/0_mask.png", ""),
    ],
)
def test_masks_of_bad_photographs(tmp_path, mask, expected):
    resolved = make(tmp_path, ["good/5.png", "good/6.png", "bad/0.png", mask])
    assert rows(resolved)["bad/0.png"][3] == expected


def test_a_mask_that_fits_two_photographs_is_told_and_not_used(tmp_path):
    resolved = make(tmp_path, [*CONTROL, "test/dent/0.png", "masks/0.png"])
    assert {row[3] for row in rows(resolved).values()} == {""}
    assert [file for file, _ in told(resolved)] == ["masks/0.png"]


@pytest.mark.parametrize(
    ("names", "mask"),
    [
        (["test/crack/0.jpg"], "ground_truth/crack/0_mask.png"),
        (["test/bad/line1/dent/0.png", "test/bad/line2/dent/0.png"], "ground_truth/dent/0_mask.png"),
    ],
)
def test_a_mask_with_a_folder_of_its_own_is_not_used_for_two_photographs_either(tmp_path, names, mask):
    resolved = make(tmp_path, [*CONTROL, *names, mask])
    assert {found for *_, found in rows(resolved).values()} <= {"", "ground_truth/crack/1_mask.png"}
    assert (mask, "not used: its name fits several photographs (put it into a folder named as theirs)") in told(
        resolved
    )


def test_masks_of_no_photograph_are_told(tmp_path):
    resolved = make(tmp_path, [*CONTROL, *TRUTH, "ground_truth/cracks/0_mask.png", "labels/x.png"])
    assert [file for file, _ in told(resolved)] == ["labels", "ground_truth/cracks"]


def test_the_case_of_a_kind_does_not_count_for_its_masks(tmp_path):
    names = [*CONTROL, "ground_truth/Crack/0_MASK.png", "ground_truth/Crack/1.PNG"]
    assert rows(make(tmp_path, names))["test/crack/1.png"][3] == names[-1]


def test_a_mask_that_is_missing_beside_others_stays_named(tmp_path):
    assert rows(make(tmp_path, [*CONTROL, TRUTH[0]]))["test/crack/1.png"][3] == TRUTH[1]


def test_linked_folders(tmp_path):
    make(tmp_path / "set", ["images/a/0.png", "store/0.png", "store/deep/1.png"])
    make(tmp_path / "away", ["2.png"])
    images = tmp_path / "set/images"
    for name, target in {"b": "../store", "far": tmp_path / "away", "again": "a", "a/up": "..", "a/.x": "."}.items():
        (images / name).symlink_to(target)
    (tmp_path / "set/store/back").symlink_to("../images")
    entry = {"path": str(tmp_path / "set")}
    names = ["a/0.png", "b/0.png", "b/deep/1.png"]
    folders = Folders(resolve(entry))
    assert sorted(folders.photographs()) == names
    assert folders.links == {"far": "outside", "again": "read", "a/up": "circle", "b/back": "circle"}
    assert [problem.file for problem in link_problems(folders)] == ["a/up", "again", "b/back", "far"]
    assert "links: [FOLDER]" in link_problems(folders)[-1].text
    folders = Folders(resolve(entry | {"links": [str(tmp_path / "away")]}), keep=True)
    assert sorted(folders.photographs()) == [*names, "far/2.png"]


@pytest.mark.parametrize(
    ("names", "entry", "remedy"),
    [
        (["0.jpg"], {}, "write {root}/labels.csv: a line `filename,label`, then one for each: `0.jpg,0`"),
        (["0.jpg"], {"labels": "x.csv"}, "give good photographs the label 0 there, one line for each: `0.jpg,0`"),
        (["train/ok_a/0.jpg", "test/ko/0.jpg"], {}, "`good: [ok_a]`"),
        (["x/train/good/0.jpg"], {}, "set `path: {root}/x`)"),
        (["x/train/good/0.jpg", "y/good/0.jpg"], {}, "or `categories: all`"),
    ],
)
def test_a_way_out_where_nothing_is_labelled(tmp_path, names, entry, remedy):
    assert remedy.format(root=tmp_path) in way_out(make(tmp_path, names, **entry), names[0])


def test_good_names_of_the_config(tmp_path):
    names = ["train/ok_front/0.jpg", "test/ok_front/0.jpg", "test/def_front/0.jpg"]
    assert not tells_labels(make(tmp_path, names)["images"])
    got = rows(resolve({"path": str(tmp_path), "good": ["ok_front"]}))
    assert [got[name][:3] for name in names] == [("train", "0", ""), ("test", "0", ""), ("test", "1", "def_front")]


@pytest.mark.parametrize(
    "name, command", [("a.zip", "python -m zipfile -e"), ("a.tar.gz", "tar -xf"), ("a.7z", "7z x")]
)
def test_an_archive_is_told_with_the_command_that_unpacks_it(tmp_path, name, command):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=rf"{name}: an archive.*{command}.* and give {tmp_path}/a instead"):
        resolve({"path": str(tmp_path / name)})
    with pytest.raises(UserError, match=f"no images in this folder .*{command}"):
        list(image_names(resolve({"path": str(tmp_path)})))


def test_photographs_and_masks_in_folders_side_by_side(tmp_path):
    resolved = make(
        tmp_path, ["Images/Normal/0.jpg", "Images/Anomaly/0.jpg", "Masks/Anomaly/0.png", "ground_truth/x.png"]
    )
    assert resolved["images"] == f"{tmp_path}/Images"
    assert [row[3] for row in rows(resolved).values()] == [f"{tmp_path}/Masks/Anomaly/0.png", ""]


def test_a_label_against_the_folder_is_told(tmp_path):
    (tmp_path / "labels.csv").write_text("filename,label\ntest/good/0.png,1\ntest/crack/0.png,1\n")
    resolved = make(tmp_path, CONTROL)
    assert rows(resolved)["test/good/0.png"][1] == "1"
    text = f"1 photograph labelled the other way in {tmp_path}/labels.csv, which counts"
    assert told(resolved) == [("test/good", text)]
    (tmp_path / "labels.csv").write_text("filename,label\ntest/crack/0.png,good\n")
    assert rows(resolved)["test/crack/0.png"] == ("test", "0", "", "")
    assert told(resolved) == [("test/crack", text)]


def test_a_mask_of_labels_csv_that_is_read_as_a_photograph_is_a_problem(tmp_path):
    (tmp_path / "labels.csv").write_text("filename,label,mask\na.jpg,0,\nb.jpg,1,blots/b1.png\n")
    resolved = make(tmp_path, ["a.jpg", "b.jpg", "blots/b1.png"])
    names = sorted(image_names(resolved))
    row = row_reader(resolved, names)[0]
    masked = {name: row(name) for name in names if row(name)["mask"]}
    assert [one.file for one in masks_read_as_photographs(resolved, masked, names)] == ["blots/b1.png"]


def test_a_kind_of_defect_that_is_called_nearly_good_is_told(tmp_path):
    names = ["test/good_2/0.png", "test/OK images/0.png", "test/normals/0.png", "test/unlabelled/0.png"]
    found = told(make(tmp_path, CONTROL + names))
    assert sorted(file for file, text in found if "`good:`" in text) == sorted(n.rpartition("/")[0] for n in names)
    assert not told(make(tmp_path / "named", CONTROL + names[:1], good=["good_2"]))


@pytest.mark.parametrize(
    "kind", ["crack", "not_good_2", "ko", "broken_large", "hole", "poke", "wood", "gold", "bypass"]
)
def test_an_ordinary_kind_of_defect_is_not_told(tmp_path, kind):
    assert not told(make(tmp_path, [*CONTROL, f"test/{kind}/0.png"]))


def test_a_folder_that_is_read_through_a_link_is_not_called_unread(tmp_path):
    make(tmp_path, [*CONTROL, "store/dent/0.png", "store/loose/1.png"])
    (tmp_path / "test/dent").symlink_to(tmp_path / "store/dent")
    found = told(resolve({"path": str(tmp_path)}))
    assert [(file, text[:18]) for file, text in found] == [("store", "1 picture not read")]
