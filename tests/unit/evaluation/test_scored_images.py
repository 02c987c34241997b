"""Damage of an image as regions.csv and regions.json hold it: boxes, pixels, mark."""

import json

import numpy as np
import pandas as pd
import pytest
from defectflow.core.files import UserError, json_list_writer
from defectflow.core.tables import REGIONS, write_table
from defectflow.decision.damaged_regions import coco_result, find_damage, region_mask
from defectflow.evaluation.scored_images import damage_at, damage_index

SIZE = (40, 60)


def hills(*places):
    heat = np.zeros(SIZE, np.float32)
    for row, column in places:
        heat[row : row + 6, column : column + 4] = 5
        heat[row, column] = 9
    return heat


@pytest.fixture
def found(tmp_path):
    """Regions of three images, written as the stage boxes does; the second has none, the third a peak."""
    regions = {
        "a": find_damage(hills((2, 3), (20, 40)), 4.0, None, True, merge=0.0),
        "b": find_damage(hills(), 4.0, None, False),
        "c": find_damage(hills((30, 50)), 99.0, None, True),
    }
    rows = [
        [name, n, *r.box, r.area, r.score, r.mark] for name, those in regions.items() for n, r in enumerate(those, 1)
    ]
    write_table(tmp_path / "regions.csv", pd.DataFrame(rows, columns=REGIONS), REGIONS)
    with json_list_writer(tmp_path / "regions.json") as add:
        for those in regions.values():
            for region in those:
                add(coco_result(region, 1, SIZE))
    return tmp_path, regions


def test_what_was_found_comes_back(found):
    folder, regions = found
    index = damage_index(folder / "regions.csv", folder / "regions.json")
    for name, those in regions.items():
        damage = damage_at(index, name, SIZE)
        np.testing.assert_array_equal(damage.pixels, region_mask(those, SIZE))
        assert damage.boxes == tuple(region.box for region in those)
    assert [damage_at(index, name, SIZE).mark for name in "abc"] == ["", "", "above the image threshold only"]
    with pytest.raises(UserError, match="sizes disagree"):
        damage_at(index, "a", SIZE[::-1])


@pytest.mark.parametrize("change", [lambda rows: rows[1:], lambda rows: rows[::-1], lambda rows: [*rows, rows[0]]])
def test_files_of_two_runs_are_refused(found, change):
    folder, _ = found
    rows = json.loads((folder / "regions.json").read_text())
    (folder / "regions.json").unlink()
    with json_list_writer(folder / "regions.json") as add:
        for row in change(rows):
            add(row)
    with pytest.raises(UserError, match=r"not the regions of .*regions\.csv"):
        damage_index(folder / "regions.csv", folder / "regions.json")
