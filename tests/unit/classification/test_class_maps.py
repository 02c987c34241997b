"""The stage: class maps of a made-up set beside the detector's maps."""

import cv2
import numpy as np
import pandas as pd
import pytest
from defectflow.classification import class_maps
from defectflow.core.anomaly_maps import save_maps
from defectflow.core.files import UserError
from defectflow.core.tables import MANIFEST, write_table
from defectflow.images.read_write import write_png
from kinds_set import GRID, manifest_of, patches_of, write_set


def made(folder, masks=True):
    """Frames of 48 pixels; masks on the patches that are moved, and anomaly maps that are right."""
    manifest = manifest_of({"good": 8, "a": 5, "b": 5}).assign(width=48, height=48)
    maps = {}
    for row in manifest.itertuples():
        write_png(folder / f"{row.image_id}.png", np.full((48, 48, 3), 90, np.uint8))
        far = (patches_of(row.image_id, 6) - patches_of(row.image_id, 0)).norm(dim=1).reshape(GRID).numpy()
        maps[row.image_id] = (far.astype(np.float32), np.eye(2, 3))
        if row.defect_type:
            mask = cv2.resize((far > 0).astype(np.uint8) * 255, (48, 48), interpolation=cv2.INTER_NEAREST)
            write_png(folder / f"{row.image_id}~mask.png", mask)
    manifest["path"] = [str(folder / f"{name}.png") for name in manifest["image_id"]]
    if masks:
        manifest["mask"] = [
            str(folder / f"{r.image_id}~mask.png") if r.defect_type else "" for r in manifest.itertuples()
        ]
    _, patches = write_set(folder, manifest, strength=6)
    write_table(folder / "manifest.csv", manifest, MANIFEST)
    save_maps(folder / "maps.safetensors", maps, (48, 48))
    args = ["--features", patches, "--manifest", folder / "manifest.csv", "--maps", folder / "maps.safetensors"]
    return [str(word) for word in [*args, "--threads", 1, "--out", folder / "out"]]


def test_every_photograph_of_a_kind_is_measured_and_one_of_each_kind_drawn(tmp_path, capsys):
    class_maps.main(class_maps.build_parser().parse_args(made(tmp_path)))
    table = pd.read_csv(tmp_path / "out/class_maps.csv")
    assert len(table) == 40 and set(table["kind"]) == {"a", "b"}
    told = pd.read_csv(tmp_path / "out/summary.csv").set_index("method")
    assert told["n"].tolist() == [10, 10, 10, 10] and told.loc["anomaly_map", "pointing_game"] == 1
    assert told.loc["anomaly_map", "iou"] > 0.5 and told.loc["grad_cam_plus_plus", "iou"] > 0.3
    assert (told["iou_low"] <= told["iou"]).all() and (told["pointing_high"] >= told["pointing_game"]).all()
    assert cv2.imread(str(tmp_path / "out/01_b.png")).shape == (48, 5 * 48, 3)
    assert "anomaly_map: peak on the defect 1.000" in capsys.readouterr().out


def test_without_masks_there_is_nothing_to_compare_with(tmp_path):
    with pytest.raises(UserError, match=r"no photograph of a kind has a ground-truth mask"):
        class_maps.main(class_maps.build_parser().parse_args(made(tmp_path, masks=False)))
