import json

import pandas as pd
import pytest
from defectflow.core.tables import ISOLATED, write_table
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
