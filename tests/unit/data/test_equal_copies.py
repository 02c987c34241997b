"""Copies of a photograph: equal files, and the same picture saved again."""

import io
import json

import cv2
import numpy as np
import pytest
from defectflow.data import near_copies
from defectflow.data.equal_copies import check_copies
from defectflow.data.near_copies import candidates, check_near_copies, hardly_differ
from defectflow.images.fingerprint import decoded, fingerprint
from defectflow.images.image_checks import Picture, inspect_all
from PIL import Image

EMPTY = {"label": "", "split": "", "group": ""}


def picture(seed: int, part: int = 0, size: int = 192) -> np.ndarray:
    """uint8 RGB: a blotchy part before a blotchy wall; ``seed`` the exposure, ``part`` which part it is."""
    rng = np.random.default_rng(part)
    wall, surface = (cv2.GaussianBlur(rng.normal(0, 30, (size, size)), (0, 0), s) * s for s in (6, 3))
    scene = 90 + wall
    inside = np.zeros((size, size), np.uint8)
    cv2.circle(inside, (size // 2, size // 2), size // 3, 1, -1)
    scene = np.where(inside, 150 + surface, scene)
    scene += np.random.default_rng((1, seed)).normal(0, 4, scene.shape)
    return np.repeat(scene[..., None], 3, axis=2).clip(0, 255).astype(np.uint8)


def saved(path, pixels, kind="PNG", scale=1.0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    path.write_bytes(stream.getvalue())
    return str(path)


def told(folder, rows):
    """Problems of equal files and notices of near ones, of a data set with these rows."""
    paths = {name: str(folder / name) for name in sorted(rows)}

    class Here:
        """A pool that works at once."""

        map = staticmethod(map)

    pictures = inspect_all(paths, [str(folder)], Here())
    problems = check_copies(pictures, lambda name: EMPTY | rows[name])
    out = {problem.file for problem in problems}
    return problems, check_near_copies({"images": str(folder)}, pictures, lambda name: EMPTY | rows[name], out)


@pytest.mark.parametrize(
    ("labels", "left_out", "text"),
    [
        ("01", "ab", "the same file as b.png, and one is labelled good, one bad"),
        ("0-1", "abc", "labelled good, one bad"),
        ("-1", "a", "the same file as b.png, which is labelled bad"),
        ("-0-", "ac", "which is labelled good"),
        ("00", "b", "the same file as a.png"),
        ("--", "b", "the same file as a.png"),
    ],
)
def test_of_equal_files_those_stay_that_nothing_contradicts(labels, left_out, text):
    names = [f"{letter}.png" for letter, _ in zip("abc", labels, strict=False)]
    rows = {name: EMPTY | {"label": label.strip("-")} for name, label in zip(names, labels, strict=True)}
    pictures = {name: Picture("ab" * 32, (9, 9)) for name in names}
    pictures |= {"other.png": Picture("cd" * 32, (9, 9)), "torn.png": Picture("ab" * 32, problem="torn")}
    problems = check_copies(pictures, rows.__getitem__)
    assert [problem.file[0] for problem in problems] == list(left_out)
    assert text in problems[0].text and {problem.left_out for problem in problems} == {"image"}


def test_equal_files_on_both_sides_of_a_split_are_told():
    rows = {"a": EMPTY | {"label": "0", "split": "test"}, "b": EMPTY | {"label": "0", "split": "train"}}
    (problem,) = check_copies(dict.fromkeys("ab", Picture("ab" * 32)), rows.__getitem__)
    assert problem.text == "the same file as a (this one is in train, that one in test)"


AGAIN = [
    {"kind": "JPEG", "quality": 90},
    {"kind": "JPEG", "quality": 50},
    {"kind": "WEBP", "quality": 75},
    {"kind": "JPEG", "quality": 85, "scale": 0.5},
    {"kind": "PNG", "scale": 1.5},
]


@pytest.mark.parametrize("form", AGAIN)
def test_a_photograph_saved_again_hardly_differs(tmp_path, form):
    first = saved(tmp_path / "a.png", picture(0))
    again = saved(tmp_path / "b", picture(0), **form)
    marks = decoded(fingerprint(cv2.imread(path, cv2.IMREAD_GRAYSCALE)) for path in (first, again))
    assert candidates(marks, lambda one, other: one >= 0) == ([(0, 1)], 0)
    assert hardly_differ(first, again)


def test_a_copy_squeezed_to_a_square_and_a_large_one_hardly_differ(tmp_path):
    first = saved(tmp_path / "a.png", picture(0, size=1200)[:, :1100])
    square = Image.fromarray(picture(0, size=1200)[:, :1100]).resize((700, 700))
    square.save(tmp_path / "b.jpg", quality=90)
    assert hardly_differ(first, str(tmp_path / "b.jpg"))
    assert hardly_differ(first, saved(tmp_path / "c.jpg", picture(0, size=1200)[:, :1100], "JPEG", quality=80))
    assert not hardly_differ(first, saved(tmp_path / "d.jpg", picture(1, size=1200)[:, :1100], "JPEG", quality=95))
    corner = picture(0, size=1200)[:, :1100]
    corner[1180:1192, 1080:1092] = 250
    assert not hardly_differ(first, saved(tmp_path / "e.jpg", corner, "JPEG", quality=80))


def scratched(pixels):
    pixels = pixels.copy()
    cv2.line(pixels, (80, 90), (110, 100), (20, 20, 20), 3)
    return pixels


@pytest.mark.parametrize(
    "other",
    [
        picture(1),  # the same part in the same place, a moment later: its noise is another
        picture(0, part=1),
        scratched(picture(0)),
        np.roll(picture(0), 1, axis=1),
        picture(0)[:, :-20],
    ],
    ids=["second shot", "another part", "scratch", "moved by a pixel", "cut"],
)
def test_another_photograph_is_not_a_copy(tmp_path, other):
    first = saved(tmp_path / "a.png", picture(0))
    assert not hardly_differ(first, saved(tmp_path / "b.png", other))
    assert not hardly_differ(first, saved(tmp_path / "c.jpg", other, "JPEG", quality=92))


@pytest.mark.parametrize(
    ("one", "other", "text"),
    [
        ({"label": "0"}, {"label": "1"}, "This one is labelled bad, that one good (correct one, or delete one)"),
        ({"label": "0", "group": "A"}, {"label": "1", "group": "A"}, "This one is labelled bad, that one good"),
        ({"label": "0"}, {"label": "0"}, "One may be judged by the other (delete one, or give both the same group"),
        ({"label": "0", "group": "A"}, {"label": "0", "group": "B"}, "give both the same group"),
        ({"label": "0", "group": "A"}, {"label": "0", "group": "A"}, ""),
        ({"label": "0"}, {}, ""),
        ({"label": "0", "split": "train"}, {"split": "test"}, "One is in train, one in test"),
        ({"label": "0", "split": "test"}, {"label": "0", "split": "test"}, ""),
    ],
)
def test_near_copies_are_told_where_they_bear_on_a_figure(tmp_path, one, other, text):
    saved(tmp_path / "a.png", picture(0))
    saved(tmp_path / "b.jpg", picture(0), "JPEG", quality=80)
    saved(tmp_path / "c.png", picture(2, part=2))
    problems, notices = told(tmp_path, {"a.png": one, "b.jpg": other, "c.png": {"label": "1"} | {"split": "test"}
                                        if "split" in one else {"label": "1"}})  # fmt: skip
    assert not problems and len(notices) == bool(text)
    if text:
        assert notices[0].file == "b.jpg" and notices[0].figure == "verdicts"
        assert notices[0].text.startswith("hardly differs from a.png: ") and text in notices[0].text


def test_in_a_fixture_where_all_look_alike_the_cost_is_capped_and_told(tmp_path, monkeypatch):
    monkeypatch.setattr(near_copies, "CHECKED", 5)
    monkeypatch.setattr(near_copies, "_ROWS", 3)
    monkeypatch.setattr(near_copies, "_COLUMNS", 4)
    rows = {f"{number}.png": {"label": "0"} for number in range(8)}
    for number, name in enumerate(rows):
        saved(tmp_path / name, picture(number))
    rows["copy.jpg"] = {"label": "0"}
    saved(tmp_path / "copy.jpg", picture(4), "JPEG", quality=95)
    _, notices = told(tmp_path, rows)
    assert [(notice.file, notice.text[:27]) for notice in notices if notice.figure] == [
        ("copy.jpg", "hardly differs from 4.png: ")
    ]
    (capped,) = [notice for notice in notices if not notice.figure]
    assert "up to 31 more pairs" in capped.text and "the 5 most similar were compared" in capped.text


def test_a_picture_that_shows_nothing_has_no_fingerprint():
    assert fingerprint(np.full((40, 60), 9, np.uint8)) == ""
    assert decoded([]).shape == (0, 256)
    assert json.dumps(fingerprint(picture(0)[..., 0]))
