import numpy as np
import pytest
import torch
from defectflow.methods.spade.settings import SpadeSettings
from defectflow.methods.spade.spade import Spade
from detector_set import CELLS, patches_of, run_fit, write_shard, write_splits
from safetensors.torch import load_file

GOOD = ("good1", "good2", "good3")


def fitted(folder, *extra):
    shard = write_shard(folder / "0.safetensors", [(name, "", "") for name in (*GOOD, "bad1")])
    rows = [(name, "0", "fold", str(i), "") for i, name in enumerate(GOOD)] + [("bad1", "1", "fold", "0", "")]
    banks, _ = run_fit(folder, [shard], write_splits(folder / "s.csv", rows), "--method", "spade", *extra)
    found = load_file(banks)
    return {
        name: {key: found[f"{name}/{key}" if key else name] for key in ("", "owner", "images")}
        for name in ("all", "fold/0", "fold/1", "fold/2")
    }


def test_a_bank_holds_the_patches_and_embeddings_of_its_photographs(tmp_path):
    bank = fitted(tmp_path)["fold/1"]  # of good1 and good3
    expected = [patches_of(name, False, False) for name in ("good1", "good3")]
    assert bank["owner"].tolist() == [0] * CELLS + [1] * CELLS
    torch.testing.assert_close(bank[""], torch.cat(expected))
    torch.testing.assert_close(bank["images"], torch.stack([one.mean(dim=0) for one in expected]))


@pytest.mark.parametrize("count", [1, 2, 50])
def test_patches_are_compared_with_those_of_the_most_similar_photographs_alone(tmp_path, count):
    bank, bad = fitted(tmp_path)["all"], patches_of("bad1", True, False)
    score, distances = Spade(bank, {}, SpadeSettings(nearest_images=count)).judge(bad, torch.arange(CELLS))
    good = np.stack([patches_of(name, False, False).double().numpy() for name in GOOD])
    x = bad.double().numpy()
    near = np.linalg.norm(good.mean(axis=1) - x.mean(axis=0), axis=1).argsort()[:count]
    expected = np.linalg.norm(x[:, None] - np.concatenate(good[near])[None], axis=2).min(axis=1)
    np.testing.assert_allclose(distances, expected, rtol=1e-5)
    assert score == pytest.approx(expected.max(), rel=1e-5)


def test_retrieval_scores_the_picture_as_a_whole(tmp_path):
    bank, bad = fitted(tmp_path)["all"], patches_of("bad1", True, False)
    settings = SpadeSettings(score="retrieval", nearest_images=2)
    score, distances = Spade(bank, {}, settings).judge(bad, torch.arange(CELLS))
    apart = [float((patches_of(name, False, False).mean(dim=0) - bad.mean(dim=0)).norm()) for name in GOOD]
    assert score == pytest.approx(np.mean(sorted(apart)[:2]), rel=1e-5)
    assert distances.max() > 0  # the map is that of the patches


def test_each_photograph_keeps_as_many_patches(tmp_path):
    bank = fitted(tmp_path, "--patches", "5")["all"]
    assert torch.bincount(bank["owner"]).tolist() == [5, 5, 5]
    whole = fitted(tmp_path)["all"]
    torch.testing.assert_close(bank["images"], whole["images"])  # embeddings are of all patches


def test_each_option_makes_stale_the_stages_that_read_it():
    before, more, nearer = SpadeSettings(), SpadeSettings(patches=7), SpadeSettings(nearest_images=3)
    assert before.read_by("fit") != more.read_by("fit") and before.read_by("score") == more.read_by("score")
    assert before.read_by("fit") == nearer.read_by("fit") and before.read_by("score") != nearer.read_by("score")
