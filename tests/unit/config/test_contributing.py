"""The additions that CONTRIBUTING.md shows work as they stand there: in a copy of the package, with nothing else."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from detector_set import write_shard, write_splits

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
# {path below the package: code}; the first example is a line of a class.
EXAMPLES = dict(re.findall(r"`([a-z]+/[a-z_/]+\.py)`:\n\n```python\n(.*?)```", PAGE, flags=re.DOTALL))
OPTION = EXAMPLES.pop("methods/patchcore/settings.py")

CHECK = """
import json, sys, yaml
from defectflow.config.configuration import checked
config = yaml.safe_load(open(sys.argv[1]))
config["detectors"]["mine"] = {"method": "nearest_mean", "image_size": 128, "shrink": 0.5}
config["detectors"]["patchcore"]["quantum"] = 0.25
config["segmenters"]["mine"] = {"method": "whole"}
config |= {"threshold": "largest_good", "threshold_options": {"factor": 1.5}}
settings = checked(config).settings
print(json.dumps([settings["detectors"]["mine"].read_by("fit"), settings["detectors"]["patchcore"].read_by("fit")]))
"""
CHOOSE = """
import numpy as np
from defectflow.decision.chosen_threshold import calibrate
from defectflow.segmentation.baseline_masks import SOURCES
assert "whole" in SOURCES
print(calibrate(np.array([1.0, 2.0, 5.0]), np.array([0, 0, 1]), "largest_good", factor=1.5).value)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """A function that runs Python with a copy of the package in which the examples are."""
    folder = tmp_path_factory.mktemp("copy")
    package = folder / "defectflow"
    shutil.copytree(ROOT / "workflow/defectflow", package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "requirements.lock", folder.parent / "requirements.lock")
    for name, code in EXAMPLES.items():
        assert not (package / name).exists()
        (package / name).write_text(code)
    settings = package / "methods/patchcore/settings.py"
    settings.write_text(settings.read_text().rstrip() + "\n" + OPTION)

    def run(*words) -> str:
        command = [sys.executable, *map(str, words)]
        result = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(folder)})
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


def test_the_config_accepts_them(python):
    mine, patchcore = json.loads(python("-c", CHECK, ROOT / "config.yaml"))
    assert mine == {"shrink": 0.5} and patchcore["quantum"] == 0.25


def test_the_method_fits_and_scores_and_its_help_names_its_option(python, tmp_path):
    shard = write_shard(tmp_path / "0.safetensors", [("good1", "", ""), ("good2", "", ""), ("bad1", "", "")])
    rows = [("good1", "0", "fold", "0", ""), ("good2", "0", "fold", "1", ""), ("bad1", "1", "fold", "0", "")]
    splits = write_splits(tmp_path / "splits.csv", rows)
    common = ["--features", shard, "--splits", splits, "--device", "cpu", "--threads", "1", "--settings"]
    banks, scores = tmp_path / "banks.safetensors", tmp_path / "scores.csv"
    told = json.dumps({"method": "nearest_mean", "shrink": 1})
    python("-m", "defectflow.detection.fit", *common, told, "--out", banks, "--report", tmp_path / "fit.json")
    assert json.loads((tmp_path / "fit.json").read_text())["shrink"] == 1
    out = ["--scores", scores, "--maps", tmp_path / "maps.safetensors"]
    python("-m", "defectflow.detection.score", *common, json.dumps({"method": "nearest_mean"}), "--banks", banks, *out)
    values = {line.split(",")[0]: float(line.split(",")[4]) for line in scores.read_text().splitlines()[1:]}
    assert values["bad1"] > 2 * max(values["good1"], values["good2"]) > 0
    assert "shrink: factor on the mean (number, above 0 to 1; default: 1)" in python(
        "-m", "defectflow.detection.fit", "-h"
    )


def test_the_strategy_chooses_and_the_segmenter_is_known(python):
    assert float(python("-c", CHOOSE)) == pytest.approx(3.0, abs=1e-6)
