"""Fine-tuning: held out, repeatable, resumed, and told from frozen descriptors."""

import numpy as np
import pandas as pd
import pytest
from defectflow.classification import classify, finetune
from defectflow.classification.descriptor_files import read_descriptors
from defectflow.core.tables import ISOLATED, write_table
from defectflow.images.read_write import write_png
from kinds_set import manifest_of

COUNTS = {"good": 6, "bar": 6}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Pictures of 64 pixels, bad ones with a bright bar, as the stage reads them."""
    folder = tmp_path_factory.mktemp("finetune")
    manifest = manifest_of(COUNTS, unlabelled=1)
    write_table(folder / "manifest.csv", manifest, list(manifest.columns))
    rows = []
    for number, row in enumerate(manifest.itertuples()):
        picture = np.random.default_rng(number).integers(60, 100, (64, 64, 3)).astype(np.uint8)
        if row.defect_type:
            picture[20 + number : 30 + number, 10:50] = 250
        path = folder / "pictures" / f"{row.image_id}.png"
        write_png(path, picture)
        rows.append({"image_id": row.image_id, "image": str(path), "x1": 64, "y1": 64, "width": 64, "height": 64})
    rest = {"mask": "", "x0": 0, "y0": 0, "turn": 0, "copy_of": "", "kind": "", "doubtful": 0}
    table = pd.DataFrame([rest | row for row in rows])[ISOLATED]
    write_table(folder / "0.csv", table, ISOLATED)
    return folder


def run(made, out, **settings):
    given = '{"image_size": 64, "layers": ["layer2"], "epochs": 3, "learning_rate": 0.003, "optimizer": "adam"}'
    args = ["--tables", made / "0.csv", "--manifest", made / "manifest.csv", "--settings", given, "--device", "cpu"]
    args += ["--threads", 1, "--out", out]
    finetune.main(finetune.build_parser().parse_args([str(word) for word in args]))
    return read_descriptors(out)


def test_an_interrupted_training_goes_on_and_ends_the_same(made, tmp_path, monkeypatch):
    whole = run(made, tmp_path / "whole.safetensors")
    assert whole.finetuned and whole.held_out.shape[:2] == (5, 12) and len(whole.every) == 13
    assert not list(tmp_path.glob("*.state"))
    assert not np.allclose(whole.held_out[0], whole.held_out[1])  # a network for each fold
    seen, keep = [], finetune.save_checkpoint

    def stop(path, setting, state):
        keep(path, setting, state)
        seen.append(path)
        if len(seen) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(finetune, "save_checkpoint", stop)
    with pytest.raises(KeyboardInterrupt):
        run(made, tmp_path / "again.safetensors")
    monkeypatch.setattr(finetune, "save_checkpoint", lambda path, *rest: seen.append(path))
    again = run(made, tmp_path / "again.safetensors")
    assert len(seen) == 5 + 6 * 3 - 5  # epochs that were done are not done again
    assert np.array_equal(again.held_out, whole.held_out) and np.array_equal(again.every, whole.every)
    assert not list(tmp_path.glob("*.state"))
    words = ["--name", "bars", "--descriptors", tmp_path / "whole.safetensors", "--threads", 1, "--out", tmp_path / "k"]
    classify.main(classify.build_parser().parse_args([str(word) for word in words]))
    table = pd.read_csv(tmp_path / "k/kinds.csv")
    assert (table["class"] == table["kind"])[:12].mean() > 0.8 and not (tmp_path / "k/namer.safetensors").exists()


def test_pictures_are_varied_within_their_range():
    picture = np.random.default_rng(0).random((32, 48, 3)).astype(np.float32)
    others = [finetune.varied(picture, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert np.array_equal(others[0], others[1]) and not np.allclose(others[0], others[2])
    assert others[2].shape == picture.shape and others[2].min() >= 0 and others[2].max() <= 1
