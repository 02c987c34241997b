import pandas as pd
from defectflow.core.tables import CANDIDATES, MANIFEST, SPLITS, read_table, write_table
from defectflow.detection.feature_files import open_patches
from defectflow.detection.training_patches import leaving_out, load_good
from defectflow.labelling import screen
from defectflow.methods.patchcore.memory_bank import PatchCore
from defectflow.methods.patchcore.settings import PatchCoreSettings
from detector_set import write_shard, write_splits

NAMES = [f"n{k:02}" for k in range(20)] + ["bad0", "bad1", "good_bad", "known_bad"]
LABEL = {"good_bad": 0, "known_bad": 1}  # with a label: not listed, whatever they look like


def run(tmp_path):
    shard = write_shard(tmp_path / "0.safetensors", [(name, "", "") for name in NAMES])
    rows = [
        dict.fromkeys(MANIFEST, "") | {"image_id": n, "path": f"/s/{n}.png", "label": LABEL.get(n, "")} for n in NAMES
    ]
    write_table(tmp_path / "manifest.csv", pd.DataFrame(rows), MANIFEST)
    args = ["--features", shard, "--manifest", tmp_path / "manifest.csv", "--threads", "1", "--out", tmp_path / "c.csv"]
    screen.main(screen.build_parser().parse_args([str(arg) for arg in args]))
    return shard, read_table(tmp_path / "c.csv", CANDIDATES)


def test_photographs_that_stand_far_are_listed_farthest_first(tmp_path):
    _, table = run(tmp_path)
    assert set(table["image_id"][:2]) == {"bad0", "bad1"} and not set(LABEL) & set(table["image_id"])
    assert table["distance"].is_monotonic_decreasing and (table["distance"] > table["limit"]).all()
    assert (table["filename"] == table["image_id"] + ".png").all() and not set(table["nearest_id"]) & {"bad0", "bad1"}


def test_no_bank_learns_from_them(tmp_path):
    shard, table = run(tmp_path)
    path = write_splits(tmp_path / "splits.csv", [(name, "0", "fold", str(k % 3), "") for k, name in enumerate(NAMES)])
    splits = read_table(path, SPLITS)
    learned = load_good(
        open_patches([shard]), leaving_out(splits, tmp_path / "c.csv"), PatchCore, PatchCoreSettings()
    ).images["image_id"]
    assert set(learned) == set(NAMES) - set(table["image_id"])
    assert leaving_out(splits, None) is splits
