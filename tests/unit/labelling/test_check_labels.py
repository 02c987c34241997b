import pandas as pd
import pytest
from defectflow.core.tables import LABELS_TO_CHECK, MANIFEST, read_table, write_table
from defectflow.labelling import check_labels, photograph_distances
from detector_set import write_shard

WRONG = {"good03": 1, "bad02": 0}


@pytest.mark.parametrize("most", [check_labels.MOST, 20])
def test_the_table_names_the_wrong_labels_and_changes_none(tmp_path, monkeypatch, most):
    # Of a set with more photographs than that, distances of a sample alone are kept.
    monkeypatch.setattr(check_labels, "MOST", most)
    monkeypatch.setattr(photograph_distances, "REFERENCES", 15)
    names = [f"good{k:02}" for k in range(24)] + [f"bad{k:02}" for k in range(8)] + ["new_bad"]
    shard = write_shard(tmp_path / "0.safetensors", [(name, "", "") for name in names])
    rows = [dict.fromkeys(MANIFEST, "") | {"image_id": name, "path": f"/data/set/{name}.png"} for name in names]
    for row in rows:
        name = row["image_id"]
        row["label"] = "" if name == "new_bad" else WRONG.get(name, int("bad" in name))
    write_table(tmp_path / "manifest.csv", pd.DataFrame(rows), MANIFEST)
    before = (tmp_path / "manifest.csv").read_bytes()
    args = ["--features", shard, "--manifest", tmp_path / "manifest.csv", "--threads", "1"]
    args += ["--looks", tmp_path / "looks.safetensors", "--out", tmp_path / "l.csv"]
    check_labels.main(check_labels.build_parser().parse_args([str(arg) for arg in args]))
    table = read_table(tmp_path / "l.csv", LABELS_TO_CHECK)
    assert set(table["image_id"][:2]) == set(WRONG) and "new_bad" not in set(table["image_id"])
    assert (table["filename"] == table["image_id"] + ".png").all()
    assert (table["nearest_good"] == table["nearest_id"] + ".png").all()
    assert (tmp_path / "manifest.csv").read_bytes() == before
