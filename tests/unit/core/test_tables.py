"""Tables that are read, joined and written in parts, so that memory does not grow with the photographs."""

import json
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import inspection_set
import numpy as np
import pandas as pd
import pytest
from defectflow.core import tables
from defectflow.core.disk_index import DiskIndex
from defectflow.core.files import UserError, json_list_writer, write_json
from defectflow.core.tables import MANIFEST, PAIRS, index_of, read_parts, read_table, table_writer, write_table
from defectflow.evaluation import boxes, evaluate
from defectflow.reporting import render, report


def test_a_table_is_read_by_the_columns_asked_for(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("image_id,path,label\n007,a.png,\n008,b.png,1\n")
    table = read_table(path, ["label", "image_id"])
    assert set(table.columns) == {"image_id", "label"} and list(table["image_id"]) == ["007", "008"]
    assert np.isnan(table["label"][0]) and table["label"][1] == 1
    with pytest.raises(UserError, match=r"column 'mask' is missing \(found: image_id, path, label\)"):
        read_table(path, ["image_id", "mask"])


def test_parts_make_the_same_table(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    path.write_text("image_id,label,area\n" + "".join(f"{k:02d},{k % 2 if k > 3 else ''},{k}\n" for k in range(8)))
    columns = ["image_id", "label", "area"]
    whole = read_table(path, columns)
    monkeypatch.setattr(tables, "ROWS", 3)
    assert [len(part) for part in read_parts(path, columns)] == [3, 3, 2]
    pd.testing.assert_frame_equal(read_table(path, columns), whole)
    some = read_table(path, columns, lambda part: part["label"] == 1)
    assert some["image_id"].tolist() == ["05", "07"] and some.index.tolist() == [0, 1]
    with table_writer(tmp_path / "again.csv", columns) as add:
        for part in read_parts(path, columns):
            add(part)
    write_table(tmp_path / "whole.csv", whole, columns)
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_an_empty_table_has_a_part_without_rows(tmp_path):
    (tmp_path / "t.csv").write_text(",".join(PAIRS) + "\n")
    assert [len(part) for part in read_parts(tmp_path / "t.csv", PAIRS)] == [0]
    assert read_table(tmp_path / "t.csv", PAIRS, lambda part: part["area"] > 3).columns.tolist() == PAIRS


@pytest.mark.parametrize("value", [[], [{"a": 1, "b": [1.5, "x\ny"]}], [{"a": None}, 3]])
def test_a_list_is_written_entry_by_entry_as_json_writes_it(tmp_path, value):
    with json_list_writer(tmp_path / "parts.json") as add:
        for entry in value:
            add(entry)
    write_json(tmp_path / "whole.json", value)
    assert (tmp_path / "parts.json").read_bytes() == (tmp_path / "whole.json").read_bytes()


def test_rows_are_found_by_name_from_any_thread():
    names = [f"{k * 7919 % 2503:04d}" for k in range(2503)]
    index = DiskIndex(((name, int(name), float(name) / 3, None) for name in names), 3, ["a.csv"])
    assert list(index) == sorted(names) and len(index) == 2503
    assert "2503" not in index and index.get("2503") is None
    with pytest.raises(KeyError, match="2503"):
        index["2503"]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(index.__getitem__, names)) == [(int(n), int(n) / 3, None) for n in names]
    with pytest.raises(UserError, match=r"^a\.csv and 1 more: image 7 occurs twice"):
        DiskIndex(((str(k % 8),) for k in range(16) if k % 8 == 7), 0, ["a.csv", "b.csv"])


def test_a_full_disk_for_temporary_files_is_told_in_a_line():
    def rows():
        yield "a", 1
        raise sqlite3.OperationalError("database or disk is full")

    with pytest.raises(UserError, match=r"^temporary files: database or disk is full \(make room in /var/tmp"):
        DiskIndex(rows(), 1, ["a.csv"])


def test_an_index_keeps_what_is_wanted(tmp_path):
    (tmp_path / "t.csv").write_text("image_id,kind,area\na,,1\nb,copy,2\nc,,\n")
    index = index_of([tmp_path / "t.csv"], ["area"], lambda part: part["kind"] == "", by=["kind"])
    assert dict(index) == {"a": (1.0,), "c": (None,)}


def run(data, folder):
    """Evaluate, find regions, draw, report."""
    evaluate.main(evaluate.build_parser().parse_args(data.evaluate_args(folder)))
    boxes.main(boxes.build_parser().parse_args(data.boxes_args(folder)))
    render.main(render.build_parser().parse_args(data.render_args(folder)))
    words = ["--metrics", folder / "metrics.json", "--predictions", folder / "predictions.csv", "--maps", *data.maps]
    words += ["--manifest", data.manifest, "--masks", *data.masks, "--regions"]
    words += [folder / "regions.csv", folder / "regions.json"]
    report.main(report.build_parser().parse_args([str(word) for word in [*words, "--out", folder / "report.html"]]))
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_stages_say_the_same_however_small_the_parts(tmp_path, monkeypatch):
    data = inspection_set.make(tmp_path / "set", unlabelled=9, group_out=True, perturbed=True)
    whole = run(data, tmp_path / "whole/d/s/i/run")
    monkeypatch.setattr(tables, "ROWS", 3)
    parts = run(data, tmp_path / "parts/d/s/i/run")
    assert parts.keys() == whole.keys() and len(whole) > 50
    assert [path for path in whole if parts[path] != whole[path]] == []


PEAK = """
import json, sys, tracemalloc
from defectflow.data import split
tracemalloc.start()
split.main(split.build_parser().parse_args(sys.argv[1:]))
print(json.dumps(tracemalloc.get_traced_memory()[1]))
"""


def test_memory_does_not_grow_with_photographs_without_a_label(tmp_path):
    peaks = []
    for count in (10_000, 60_000):
        table = pd.DataFrame(dict.fromkeys(MANIFEST, ""), index=range(count))
        table["image_id"] = [f"belt_one__{k:08d}" for k in range(count)]
        table["path"] = "images/belt_one/" + table["image_id"]
        table["label"] = np.where(np.arange(count) < 40, np.arange(count) % 2, None)
        write_table(tmp_path / "manifest.csv", table, MANIFEST)
        words = ["--manifest", str(tmp_path / "manifest.csv"), "--out", str(tmp_path / "splits.csv")]
        done = subprocess.run([sys.executable, "-c", PEAK, *words], capture_output=True, text=True, check=True)
        peaks.append(json.loads(done.stdout.splitlines()[-1]))
        assert len(read_table(tmp_path / "splits.csv", ["image_id"])) == count
    assert peaks[1] < peaks[0] + 1e6  # all of them as a table: 20 MB more
