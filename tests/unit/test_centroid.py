import numpy as np
import pytest
import torch
from defectflow.centroid import Centroid, embedding
from defectflow.detector import FitOptions, ScoreOptions
from detector_set import patches_of, run_fit, write_shard, write_splits
from safetensors.torch import load_file

GOOD = ("good1", "good2", "good3")


def unit(vector):
    return vector / np.linalg.norm(vector)


def test_centroid_and_score_are_those_of_the_formula(tmp_path):
    shard = write_shard(tmp_path / "0.safetensors", [(name, "", "") for name in (*GOOD, "bad1")])
    rows = [(name, "0", "fold", str(i), "") for i, name in enumerate(GOOD)] + [("bad1", "1", "fold", "0", "")]
    banks, _ = run_fit(tmp_path, [shard], write_splits(tmp_path / "s.csv", rows), "--method", "centroid")
    found = load_file(banks)
    embeddings = {name: unit(patches_of(name, False, False).double().numpy().mean(axis=0)) for name in GOOD}
    expected = unit(sum(embeddings.values()))
    np.testing.assert_allclose(found["all"][0], expected, atol=1e-6)
    np.testing.assert_allclose(found["fold/2"][0], unit(embeddings["good1"] + embeddings["good2"]), atol=1e-6)

    patches = patches_of("bad1", True, False)
    score, distances = Centroid({"": found["all"]}, {}, ScoreOptions()).judge(patches, torch.arange(len(patches)))
    x = patches.double().numpy()
    assert score == pytest.approx(1 - unit(x.mean(axis=0)) @ expected, abs=1e-6)
    np.testing.assert_allclose(distances, 1 - x @ expected / np.linalg.norm(x, axis=1), atol=1e-6)


def test_one_vector_for_each_image_is_kept_in_memory():
    options = FitOptions()
    patches = torch.rand(20, 4)
    assert Centroid.counts([20, 5], options) == [1, 1]
    condensed, position = Centroid.condense(patches, torch.arange(20), 1, options)
    assert condensed.shape == (1, 4) and len(position) == 1


def test_an_image_of_longer_patches_counts_no_more_than_another():
    def centroid(factor: float) -> torch.Tensor:
        images = [patches_of("good1", False, False), factor * patches_of("good2", False, False)]
        condensed = [Centroid.condense(x, torch.arange(len(x)), 1, FitOptions())[0] for x in images]
        return embedding(torch.cat(condensed))

    torch.testing.assert_close(centroid(50), centroid(1))
