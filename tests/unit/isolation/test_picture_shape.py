import json

import numpy as np
import pandas as pd
import pytest
from defectflow.core.tables import ISOLATED, write_table
from defectflow.images.read_write import write_png
from defectflow.isolation import picture_shape


def shape_of(folder, *shards, more=(), with_holds=False):
    """What the stage writes for shards of windows (width, height)."""
    tables = []
    for number, sizes in enumerate(shards):
        rows = [dict.fromkeys(ISOLATED, 0) | {"x0": -10, "y0": 5, "x1": w - 10, "y1": h + 5} for w, h in sizes]
        tables.append(str(folder / f"{number}.csv"))
        write_table(tables[-1], pd.DataFrame(rows, columns=ISOLATED), ISOLATED)
    out = folder / "shape.json"
    picture_shape.main(picture_shape.build_parser().parse_args(["--tables", *tables, *more, "--out", str(out)]))
    found = json.loads(out.read_text())
    holds = {key: found.pop(key) for key in ("long_holds", "sides_hold")}
    return (found, *holds.values()) if with_holds else found


def test_the_shape_is_that_of_the_windows_of_all_shards(tmp_path):
    assert shape_of(tmp_path, [(1250, 500)], [(1250, 500)] * 2, []) == {"height": 504, "width": 1256, "long": True}
    assert shape_of(tmp_path, [(400, 300)] * 3) == {"height": 304, "width": 400, "long": False}


@pytest.mark.parametrize(
    ("sizes", "long"),
    [
        ([(1600, 1000)], True),
        ([(1590, 1000)], False),  # 3:2 and what is near it
        ([(1000, 1600)], True),
        ([(1250, 500)] * 9 + [(500, 500)], True),
        ([(1250, 500)] * 8 + [(500, 500)] * 2, False),  # no one shape suits them
        ([(1250, 500)] * 5 + [(500, 1250)] * 5, False),  # long in both ways
        ([(2000, 1000), (1600, 1000), (1700, 1000)], True),
        ([], False),
    ],
)
def test_long_is_what_most_pictures_are_in_the_same_way(tmp_path, sizes, long):
    assert shape_of(tmp_path, sizes)["long"] is long


def test_one_photograph_more_does_not_change_the_shape(tmp_path):
    before = shape_of(tmp_path, [(1250, 500)] * 4)
    assert shape_of(tmp_path, [(1250, 500)] * 4, [(1248, 503)]) == before


@pytest.mark.parametrize(
    ("height", "width", "long", "parts", "size", "why"),
    [
        (3000, 4000, False, [(2900, 2800)] * 3, 640, "is 2800 x 2900 pixels in pictures of 4000 x 3000, and 464 at"),
        (3000, 4000, False, [(900, 900)], 1024, "and 230 at 1024 (more than 1024 would take"),
        (512, 512, False, [(200, 240), (210, 250), (20, 30)], 512, "the part is 240 x 200 pixels"),  # never enlarged
        (510, 510, False, [], 448, "taken whole, the part is 510 x 510 pixels"),
        (500, 1250, True, [], 448, "448 at 448"),
        (100, 90, False, [(50, 50)], 96, "pictures of 90 x 100, and 48 at 96 (pictures are never enlarged)"),
    ],
)  # fmt: skip
def test_a_size_is_chosen_by_the_part_and_told_with_the_reason(height, width, long, parts, size, why):
    found = picture_shape.auto_size(height, width, long, parts)
    assert found["image_size"] == size and why in found["reason"]


def test_the_part_is_measured_in_the_masks_of_the_pictures(tmp_path, capsys):
    for number, side in enumerate((40, 44, 60)):
        mask = np.zeros((700, 700), bool)
        mask[5 : 5 + 5 * side, 100 : 100 + 4 * side] = True
        write_png(tmp_path / f"{number}.png", mask)
    rows = [{"x0": 0, "y0": 0, "x1": 700, "y1": 700, "mask": str(tmp_path / f"{number}.png")} for number in range(3)]
    rows += [{"x0": 0, "y0": 0, "x1": 700, "y1": 700, "mask": ""}]
    write_table(tmp_path / "0.csv", pd.DataFrame(rows).reindex(columns=ISOLATED, fill_value=""), ISOLATED)
    words = ["--tables", str(tmp_path / "0.csv"), "--auto-size", "--out", str(tmp_path / "shape.json")]
    picture_shape.main(picture_shape.build_parser().parse_args(words))
    found = json.loads((tmp_path / "shape.json").read_text())["auto"]
    assert found["image_size"] == 640 and "the part is 176 x 220 pixels in pictures of 700 x 700" in found["reason"]
    assert "image_size: auto is 640: the part is" in capsys.readouterr().err


def test_windows_that_are_scaled_to_one_square_have_its_size(tmp_path):
    more = ["--tight", "640"]
    assert shape_of(tmp_path, [(300, 300), (900, 900)], more=more) == {"height": 640, "width": 640, "long": False}
    assert shape_of(tmp_path, [(1250, 500)], more=more)["long"], "without a part the whole photograph is taken"


@pytest.mark.parametrize(
    ("sizes", "odd"),
    [
        ([(1250, 500)] * 60, (500, 500)),
        ([(1250, 500)] * 57 + [(500, 500)] * 3, (500, 500)),
        ([(1250, 500)] * 50 + [(500, 500)] * 10, (1250, 500)),
        ([(400, 300)] * 30, (1250, 300)),
        ([(1250, 500)] * 31 + [(1300, 500)] * 29, (1300, 500)),
        ([(700, 500)] * 12 + [(900, 500)] * 11, (900, 500)),
        ([(1250, 500)], (400, 400)),
    ],
)
def test_fewer_photographs_than_told_never_change_the_shape(tmp_path, sizes, odd):
    before, long_holds, sides_hold = shape_of(tmp_path, sizes, with_holds=True)
    changed = {"long": [], "sides": []}
    for count in range(1, 40):
        ways = sizes + [odd] * count, [odd] * count + sizes[count:], sizes[:-count] + [odd] * count, sizes[count:]
        found = [shape_of(tmp_path, way) for way in ways if way]
        changed["long"] += [count] * any(one["long"] != before["long"] for one in found)
        sides = [(one["height"], one["width"]) == (before["height"], before["width"]) for one in found]
        changed["sides"] += [count] * (not all(sides))
    assert long_holds < min(changed["long"], default=40) and sides_hold < min(changed["sides"], default=40)
    assert long_holds >= 2 or len({*sizes}) > 1 or len(sizes) == 1, "it may change with any photograph"
