import json

import cv2
import numpy as np
import pandas as pd
import pytest
from defectflow.core import tables
from defectflow.core.files import UserError
from defectflow.detection import profiles
from defectflow.detection.feature_files import write_patches
from defectflow.drawing import chart_files
from defectflow.drawing import histograms_and_curves as charts
from defectflow.methods.profile.outline import outline_of
from safetensors.numpy import save_file

GRID = (16, 12)


def covered(notch: bool) -> np.ndarray:
    """Coverage of the pixels by an upright bar, with or without a notch at its right."""
    bar = np.zeros((GRID[0] * 4, GRID[1] * 4), np.float32)
    bar[8:56, 14:34] = 1
    bar[30:36, 30:34] = 1 - notch
    return bar


def run(folder, **settings):
    items = [{"image_id": name, "copy_of": ""} for name in ("sound", "notched", "unjudged")]
    with write_patches(folder / "0.safetensors", {"grid": list(GRID), "items": items}, 16) as writer:
        for number in range(3):
            cells = covered(number == 1).reshape(GRID[0], 4, GRID[1], 4).swapaxes(1, 2).reshape(-1, 16)
            writer.add(pytest.importorskip("torch").from_numpy(cells.copy()), np.arange(len(cells)), np.eye(2, 3), True)
    rows = [["sound", "", "", "fold/0", 1, "", ""], ["notched", "", "", "all", 9, "", ""]]
    tables.write_table(folder / "0.csv", pd.DataFrame(rows, columns=tables.SCORES), tables.SCORES)
    widths = outline_of(covered(False), "vertical", 0).widths.astype(np.float32)
    bank = {"": widths, "unit": np.full_like(widths, 0.5)}
    metadata = {"defectflow": json.dumps({"method": "profile", "grid": list(GRID)})}
    for file, name in (("banks", "all"), ("fold_banks", "fold/0")):
        tensors = {f"{name}/{part}" if part else name: values for part, values in bank.items()}
        save_file(tensors, folder / f"{file}.safetensors", metadata=metadata)
    rows = [["sound", "sound.png", 0.1, 4.0], ["notched", "notched.png", 8.0, None]]
    pd.DataFrame(rows, columns=["image_id", "filename", "raw_score", "threshold"]).to_csv(folder / "p.csv", index=False)
    words = ["--features", "0.safetensors", "--scores", "0.csv", "--banks", "banks.safetensors", "--fold-banks",
             "fold_banks.safetensors", "--predictions", "p.csv", "--out", "out"]  # fmt: skip
    words = [word if word.startswith("--") else str(folder / word) for word in words]
    given = {"method": "profile", "axis": "vertical", "smooth": 0} | settings
    profiles.main(profiles.build_parser().parse_args([*words, "--threads", "1", "--settings", json.dumps(given)]))


def test_each_judged_part_is_drawn_and_red_where_it_leaves_its_band(tmp_path):
    run(tmp_path)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["notched.png", "sound.png"]
    red = tuple(int(chart_files.LIGHT.bad[k : k + 2], 16) for k in (1, 3, 5))
    counts = {}
    for name in ("sound", "notched"):
        picture = cv2.imread(str(tmp_path / f"out/{name}.png"))[..., ::-1].astype(int)
        counts[name] = int((np.abs(picture - red).max(axis=2) < 12).sum())
    assert counts["notched"] > 1.3 * counts["sound"] > 0, "the legend alone is red on the sound one"


def test_another_method_is_refused(tmp_path):
    with pytest.raises(UserError, match="method patchcore measures no outlines"):
        profiles.main(
            profiles.build_parser().parse_args(
                ["--features", "a", "--scores", "a", "--banks", "a", "--fold-banks", "a", "--predictions", "a", "--out",
                 "a", "--settings", json.dumps({"method": "patchcore"})]
            )
        )  # fmt: skip


def test_a_chart_without_a_part_can_be_drawn(tmp_path):
    nothing = np.zeros((8, 2))
    chart_files.save_png(tmp_path / "a.png", charts.width_profile("nothing", nothing, nothing, nothing + 1))
    assert (tmp_path / "a.png").stat().st_size > 0
