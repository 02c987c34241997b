"""Which photograph a name in a table means: the path counts as far as both have one."""

import posixpath

import pytest
from defectflow.listing.match_names_to_photographs import Matcher
from defectflow.sources.source_notices import names_in_other_case
from hypothesis import given, settings
from hypothesis import strategies as st

FOLDER = st.text("abcd", min_size=1, max_size=2)
BASE = st.text("xyz", min_size=1, max_size=3).map(lambda stem: f"{stem}.jpg")
NAME = st.builds(lambda folders, base: "/".join([*folders, base]), st.lists(FOLDER, max_size=3), BASE)
NAMES = st.lists(NAME, min_size=1, max_size=12, unique=True)


def found(names, given, base=""):
    matcher = Matcher(names, given, base)
    return [matcher.find(one)[0] for one in given]


@given(NAMES)
def test_names_as_they_are_mean_themselves(names):
    assert found(names, names) == names


ROOTS = ["/home/anna/", "C:\\export\\", "https://host.org/bucket/", "file:///srv/", "../", "exports/7/", "./", ""]


@given(NAMES, st.sampled_from(ROOTS))
def test_the_root_of_an_export_is_passed_over(names, root):
    given = [root + (name.replace("/", "\\") if "\\" in root else name) for name in names]
    assert found(names, given) == names


@given(NAMES, NAME)
def test_a_path_never_means_a_file_in_another_folder(names, name):
    got = Matcher(names, [name, "other.jpg"]).find(name)[0]  # no root is shared by all names given
    if got is not None:
        own, asked = posixpath.dirname(got), posixpath.dirname(name)
        assert posixpath.basename(got) == posixpath.basename(name)
        assert not asked or own == asked or own.endswith(f"/{asked}")


@given(NAMES, FOLDER, FOLDER)
def test_one_folder_is_not_taken_for_another(names, one, other):
    if one != other:
        there, given = [f"{one}_/{name}" for name in names], [f"{other}-/{name}" for name in names]
        assert found(there, given) == [None] * len(names)


@given(NAMES, st.permutations(range(12)))
def test_the_order_of_names_and_rows_does_not_count(names, order):
    shuffled = [names[n] for n in order if n < len(names)]
    given = [posixpath.basename(name) for name in names]
    assert found(names, given) == found(shuffled, given)


@settings(max_examples=50)
@given(st.lists(BASE, min_size=1, max_size=6, unique=True))
def test_what_tools_add_to_a_base_name_is_passed_over(bases):
    uploads = [f"/data/upload/3/{n:08x}-{base}" for n, base in enumerate(bases)]
    assert found(bases, uploads) == bases
    assert found(bases, [base.replace(".jpg", "_jpg.rf.0a1b2c.jpg") for base in bases]) == bases


@pytest.mark.parametrize(
    ("names", "given", "expected"),
    [
        (["set_2/a.jpg"], ["set_1/a.jpg"], None),
        (["good/3.jpg"], ["bad/3.jpg"], None),
        (["a.jpg", "b.jpg"], ["x/a.jpg", "y/b.jpg"], None),  # no root of all
        (["d/a.jpg", "b.jpg"], ["d/b.jpg"], None),  # d is a folder of the set, no root of an export
        (["a.jpg", "s/a.jpg"], ["a.jpg"], "a.jpg"),
        (["r/a.jpg", "s/a.jpg"], ["a.jpg"], None),
        (["2024/day1/a.jpg"], ["day1/a.jpg"], "2024/day1/a.jpg"),
        (["day1/a.jpg", "a.jpg"], ["x/day1/a.jpg", "x/b.jpg"], "day1/a.jpg"),
        (["s/a.jpg"], ["/data/upload/1/8f3a1c2e-a.jpg"], "s/a.jpg"),
        (["8f3a1c2e-a.jpg", "a.jpg"], ["8f3a1c2e-a.jpg"], "8f3a1c2e-a.jpg"),
        (["a b.jpg"], ["0123abcd-a_b.jpg"], "a b.jpg"),
        (["a b.jpg"], ["a%20b.jpg"], "a b.jpg"),
        (["a%20b.jpg"], ["a%20b.jpg"], "a%20b.jpg"),
        (["d/a.jpg"], ["https://h.org/k/d/a.jpg?sig=1%2F2#x"], "d/a.jpg"),
        (["d/a.jpg"], ["/data/local-files/?d=k/d/a.jpg"], "d/a.jpg"),
        (["a.jpg"], ["../../etc/a.jpg", "b.jpg"], None),
    ],
)
def test_one_name(names, given, expected):
    assert Matcher(names, given).find(given[0])[0] == expected


def test_the_folder_of_the_photographs_may_stand_before_a_name(tmp_path):
    given = ["images/a.jpg", "b.jpg"]
    assert found(["a.jpg", "b.jpg"], given, tmp_path / "images") == ["a.jpg", "b.jpg"]
    assert found(["a.jpg", "b.jpg"], given, tmp_path / "photos") == [None, "b.jpg"]


def test_names_in_a_file_beside_its_photographs_are_relative_to_where_it_lies():
    names = ["train/a.jpg", "valid/a.jpg", "valid/b.jpg"]
    matcher = Matcher(names, [("a.jpg", "train"), ("b.jpg", "train"), ("a.jpg", "valid")])
    assert matcher.find("a.jpg", "train")[0] == "train/a.jpg" and matcher.find("a.jpg", "valid")[0] == "valid/a.jpg"
    assert matcher.find("b.jpg", "train")[0] is None


@pytest.mark.parametrize(
    ("names", "name", "near"),
    [
        (["set_2/a.jpg", "b.jpg"], "set_1/a.jpg", "set_2/a.jpg"),
        (["IMG_10.JPG"], "img_1.jpg", "IMG_10.JPG"),
        (["part_17.png"], "part_17.jpg", "part_17.png"),
        ([f"part_{n:04d}.jpg" for n in range(1000)], "prt_0500.jpg", "part_0500.jpg"),
        (["quite_other.jpg"], "a.jpg", None),
    ],
)
def test_the_nearest_name_is_told(names, name, near):
    reason = Matcher(names, [name, "z/none.jpg"]).find(name)[1]
    assert reason == "no such image in the image folder" + (f" (nearest: {near})" if near else "")


@pytest.mark.parametrize(
    ("given", "photograph"),
    [
        ("1/a.jpg", "2/a.jpg"),
        ("2024/1/a.jpg", "2024/2/a.jpg"),
        ("images/1/a.jpg", "2/a.jpg"),
        ("1/a.jpg", "day2/a.jpg"),
    ],
)
def test_a_folder_with_another_number_is_another_folder(given, photograph):
    found, reason = Matcher([photograph], [given]).find(given)
    assert found is None and f"nearest: {photograph}" in reason


def test_letter_case_is_passed_over_where_one_photograph_fits():
    names = ["Day1/IMG_1.JPG", "b.jpg", "B.png", "c.jpg", "C.jpg", "D.jpg"]
    matcher = Matcher(names, ["day1/img_1.jpg", "B.JPG", "b.png", "c.JPG", "C.jpg", "d.jpg"])
    assert matcher.find("day1/img_1.jpg") == ("Day1/IMG_1.JPG", "") and matcher.find("B.JPG") == ("b.jpg", "")
    assert matcher.find("b.png") == ("B.png", "") and matcher.find("d.jpg") == ("D.jpg", "")
    assert matcher.find("C.jpg") == ("C.jpg", "")
    assert matcher.find("c.JPG") == (None, "the name fits several images but for letter case: C.jpg, c.jpg")
    assert set(matcher.recased) == {"day1/img_1.jpg", "B.JPG", "b.png", "d.jpg"}


def test_another_folder_is_not_passed_over_with_letter_case():
    matcher = Matcher(["day1/a.jpg", "day2/b.jpg"], ["DAY2/A.jpg", "day1/B.jpg"])
    assert matcher.find("DAY2/A.jpg")[0] is None and matcher.find("day1/B.jpg")[0] is None


@pytest.mark.parametrize(
    ("names", "given", "photograph"),
    [
        (["part1.jpg", "b.jpg"], ["20240101-part1.jpg", "b.jpg"], None),  # not all rows begin so
        (["part1.jpg", "20240102-b.jpg"], ["20240101-part1.jpg", "20240102-b.jpg"], None),  # photographs have dates
        (["part1.jpg"], ["20240101-part1.jpg", "20240102-part1.jpg"], None),  # both mean the same photograph
        (["part1.jpg", "b.jpg"], ["20240101-part1.jpg", "8f3a1c2e-b.jpg"], "part1.jpg"),  # uploads: a letter shows it
        (["part1.jpg", "b.jpg"], ["20240101-part1.jpg", "20240102-b.jpg"], "part1.jpg"),
        (["20240101-part1.jpg", "b.jpg"], ["20240101-part1_jpg.rf.0a1b.jpg", "b.jpg"], "20240101-part1.jpg"),
    ],
)
def test_a_date_before_a_name_is_no_prefix_of_an_upload_unless_all_have_one(names, given, photograph):
    matcher = Matcher(names, given)
    found, reason = matcher.find(given[0])
    assert found == photograph
    if not found:
        assert reason == "20240101 may be a date, or what a tool put before part1.jpg (write its name)"
    assert matcher.undated == ({given[0]: "part1.jpg"} if given[1] == "20240102-b.jpg" and found else {})


def test_dates_taken_as_prefixes_are_told():
    (notice,) = names_in_other_case("labels.csv", [("20240101-a.jpg", ""), ("20240102-b.jpg", "")], ["a.jpg", "b.jpg"])
    assert "taken as those of uploads, not as dates: 20240101-a.jpg is a.jpg, and 1 more" in notice.text
