import pandas as pd
from defectflow.core.tables import NEXT_TO_LABEL, PREDICTIONS, read_table, write_table
from defectflow.detection.feature_files import open_patches
from defectflow.labelling import check_labels, next_to_label
from detector_set import write_shard
from safetensors.numpy import save_file


def run(tmp_path, labels):
    names = [f"n{k:02}" for k in range(30)]
    shard = write_shard(tmp_path / "0.safetensors", [(name, "", "") for name in names])
    rows = [
        dict.fromkeys(PREDICTIONS, "")
        | {"image_id": name, "filename": f"{name}.png", "raw_score": k, "threshold": 20, "label": labels.get(k, "")}
        for k, name in enumerate(names)
    ]
    write_table(tmp_path / "p.csv", pd.DataFrame(rows), PREDICTIONS)
    save_file(check_labels.looks(open_patches([shard])), tmp_path / "looks.safetensors")
    args = ["--looks", tmp_path / "looks.safetensors", "--predictions", tmp_path / "p.csv", "--out", tmp_path / "n.csv"]
    next_to_label.main(next_to_label.build_parser().parse_args([str(arg) for arg in args]))
    return read_table(tmp_path / "n.csv", NEXT_TO_LABEL)


def test_twenty_photographs_are_listed_and_none_that_has_a_label(tmp_path):
    table = run(tmp_path, {2: 0, 25: 1})
    assert table["place"].tolist() == list(range(1, 21)) and not {"n02", "n25"} & set(table["image_id"])
    assert (table["filename"] == table["image_id"] + ".png").all()


def test_where_all_have_a_label_the_list_is_empty(tmp_path):
    assert run(tmp_path, dict.fromkeys(range(30), 0)).empty
