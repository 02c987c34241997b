import numpy as np
import pytest
from defectflow.core.files import UserError, read_json, write_json
from defectflow.detection import normal_embed
from detector_set import run_fit, write_shard, write_splits
from safetensors.numpy import load_file

METRICS = {"threshold": {"value": 0.1234567891, "strategy": "normal_percentile", "options": {"percentile": 99.5}}}


def run(folder, method):
    shard = write_shard(folder / "0.safetensors", [("good1", "", ""), ("good2", "", "")])
    splits = write_splits(folder / "s.csv", [(f"good{i}", "0", "fold", str(i), "") for i in (1, 2)])
    banks, _ = run_fit(folder, [shard], splits, "--method", method)
    write_json(folder / "metrics.json", METRICS)
    out = folder / "normal_embed.json"
    options = ["--banks", str(banks), "--metrics", str(folder / "metrics.json"), "--out", str(out)]
    normal_embed.main(normal_embed.build_parser().parse_args(options))
    return banks, read_json(out)


def test_the_file_holds_all_that_a_score_needs(tmp_path):
    banks, told = run(tmp_path, "centroid")
    np.testing.assert_array_equal(np.float32(told["centroid"]), load_file(banks)["all"][0])
    assert told["threshold"] == 0.1234567891
    assert told["threshold_strategy"] == {"name": "normal_percentile", "percentile": 99.5}
    assert (
        told["backbone"] == "test"
        and told["input_size"] == [32, 40]
        and told["layers"] == ["a"]
        and told["precision"] == "float32"
    )
    assert len(told["mean"]) == len(told["std"]) == 3


def test_banks_of_another_method_are_refused(tmp_path):
    with pytest.raises(UserError, match="fitted by patchcore"):
        run(tmp_path, "patchcore")
    assert not (tmp_path / "normal_embed.json").exists()
