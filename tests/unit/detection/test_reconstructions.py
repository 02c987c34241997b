import json

import cv2
import numpy as np
import pandas as pd
import picture_set
import pytest
import torch
from defectflow.core import tables
from defectflow.core.files import UserError
from defectflow.detection import reconstructions
from defectflow.detection.feature_files import write_patches
from defectflow.methods.vae.autoencoder import network_of
from defectflow.methods.vae.settings import VaeSettings
from safetensors.torch import save_file

SETTINGS = {"method": "vae", "latent": 4, "width": 4}


def bank(seed):
    torch.manual_seed(seed)
    settings = VaeSettings(latent=4, width=4)
    cells = picture_set.GRID[0] * picture_set.GRID[1]
    return {"": torch.ones(cells, 2), **network_of(picture_set.GRID, settings).state_dict()}


@pytest.fixture
def words(tmp_path):
    items = [{"image_id": name, "copy_of": ""} for name in ("a", "b", "train")]
    config = {"grid": list(picture_set.GRID), "items": items}
    cells = np.arange(picture_set.GRID[0] * picture_set.GRID[1])
    with write_patches(tmp_path / "0.safetensors", config, 3 * picture_set.CELL**2) as writer:
        for seed in range(3):
            writer.add(picture_set.patches(picture_set.picture(seed)), cells, np.eye(2, 3), True)
    rows = [["a", "", "", "fold/0", 1, "", ""], ["b", "", "", "all", 1, "", ""]]
    tables.write_table(tmp_path / "0.csv", pd.DataFrame(rows, columns=tables.SCORES), tables.SCORES)
    metadata = {"defectflow": json.dumps({"method": "vae", "grid": list(picture_set.GRID)})}
    for file, name, seed in (("banks", "all", 1), ("fold_banks", "fold/0", 2)):
        tensors = {f"{name}/{key}" if key else name: tensor for key, tensor in bank(seed).items()}
        save_file(tensors, tmp_path / f"{file}.safetensors", metadata=metadata)
    return [
        "--features", tmp_path / "0.safetensors", "--scores", tmp_path / "0.csv", "--banks",
        tmp_path / "banks.safetensors", "--fold-banks", tmp_path / "fold_banks.safetensors", "--out", tmp_path / "out",
        "--threads", "1", "--settings",
    ]  # fmt: skip


def run(words, settings):
    reconstructions.main(reconstructions.build_parser().parse_args([*map(str, words), json.dumps(settings)]))


def test_each_judged_photograph_stands_beside_what_its_own_bank_draws(words, tmp_path):
    run(words, SETTINGS)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]
    for name, seed, own in (("a", 0, 2), ("b", 1, 1)):
        shown = cv2.imread(str(tmp_path / "out" / f"{name}.png"))[::4, ::4, ::-1]  # enlarged to 256 pixels
        side, picture = picture_set.SIDE, picture_set.picture(seed)
        assert np.array_equal(shown[:, :side], picture.permute(1, 2, 0).numpy())
        network = network_of(picture_set.GRID, VaeSettings(latent=4, width=4)).eval()
        network.load_state_dict({key: tensor for key, tensor in bank(own).items() if key})
        drawn = network(picture[None] / 255)[0][0].detach().permute(1, 2, 0).numpy() * 255
        np.testing.assert_allclose(shown[:, side:], drawn, atol=0.51)


def test_a_method_that_draws_nothing_is_told(words, tmp_path):
    for settings in ({"method": "patchcore"}, {"method": "anomalib", "model": "Padim"}):
        with pytest.raises(UserError, match=rf"method {settings['method']} draws no pictures \(vae does\)"):
            run(words, settings)
    assert not (tmp_path / "out").exists()
