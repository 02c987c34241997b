import cv2
import numpy as np
import pytest
import torch
from defectflow.backbones.input_statistics import IMAGENET_MEAN, IMAGENET_STD
from defectflow.backbones.networks import create_backbone
from defectflow.backbones.patch_embedding import PatchEmbedder
from defectflow.core.anomaly_maps import smooth_map
from defectflow.methods.detector import GoodPatches
from defectflow.methods.patchcore.memory_bank import Bank, PatchCore
from defectflow.methods.patchcore.settings import PatchCoreSettings

LAYERS = ["layer2", "layer3"]


@pytest.fixture(scope="module")
def embedder():
    return PatchEmbedder("resnet18.tv_in1k", LAYERS, seed=3)


@pytest.fixture(scope="module")
def anomalib_model():
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    return PatchcoreModel(layers=LAYERS, backbone=create_backbone("resnet18.tv_in1k", LAYERS, seed=3)).eval()


@pytest.fixture(scope="module")
def images():
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (6, 12, 16, 3), dtype=np.uint8)
    return np.stack([cv2.resize(image, (128, 96), interpolation=cv2.INTER_CUBIC) for image in noise])


def normalise(images):
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)


@pytest.mark.parametrize("neighbours", [9, 1])
def test_scores_and_maps_are_anomalibs(embedder, anomalib_model, images, neighbours):
    embeddings = embedder(images)
    bank = embeddings[:4].reshape(-1, 384)[::3]
    detector = PatchCore({"": bank}, {"distance": "euclidean"}, PatchCoreSettings(neighbours=neighbours))
    anomalib_model.memory_bank = bank.clone()
    anomalib_model.num_neighbors = neighbours
    expected = anomalib_model(normalise(images))
    for i in range(len(images)):
        score, distances = detector.judge(embeddings[i].flatten(0, 1), torch.arange(12 * 16))
        # Patches of the bank itself have distance 0, which anomalib's formula knows to about 1e-3 only.
        assert score == pytest.approx(float(expected.pred_score[i]), rel=1e-4, abs=1e-4)
        if i >= 4:
            smooth = smooth_map(distances.reshape(12, 16).numpy(), (96, 128), cv2.INTER_NEAREST, sigma=4)
            np.testing.assert_allclose(smooth, expected.anomaly_map[i, 0].numpy(), rtol=1e-4, atol=1e-4)


def test_support_of_the_weight_is_exact():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2000, 20, generator=generator) + 300  # far from the origin, where products are rough
    expected = torch.cdist(features[:50].double(), features.double()).topk(9, largest=False).indices
    assert torch.equal(Bank(features).around(torch.arange(50), 9), expected)


def test_nearest_of_the_bank_itself_is_zero():
    features = torch.randn(50, 8) + 100
    assert Bank(features).nearest(features)[0].max() == 0


def test_a_bank_of_one_patch_gives_the_distance_itself():
    patches = torch.stack([torch.arange(1.0, 101), torch.zeros(100)], dim=1)
    detector = PatchCore({"": torch.zeros(1, 2)}, {"distance": "euclidean"}, PatchCoreSettings())
    assert detector.judge(patches, torch.arange(100))[0] == 100


@pytest.mark.parametrize("neighbours", [9, 1])
@pytest.mark.parametrize("bank", ["float32", "pca_float16"])
def test_cosine_distances(neighbours, bank):
    generator = torch.Generator().manual_seed(0)
    good, patches = torch.rand(60, 8, generator=generator), torch.rand(20, 8, generator=generator)
    options = PatchCoreSettings(distance="cosine", bank_dtype=bank)
    position = torch.arange(len(good))
    kept, _ = PatchCore.condense(good, position, len(good), options)
    good_patches = GoodPatches(kept, position, torch.zeros(60, dtype=torch.int64), None, 0, 60, None, (6, 10))
    tensors = PatchCore.fit(good_patches, options)(torch.tensor([True]))
    detector = PatchCore(tensors, PatchCore.metadata(options), PatchCoreSettings(neighbours=neighbours))
    score, distances = detector.judge(patches * torch.rand(20, 1, generator=generator) * 9, torch.arange(20))

    units, references = (x.double().numpy() / np.linalg.norm(x, axis=1, keepdims=True) for x in (patches, good))
    table = 1 - units @ references.T
    np.testing.assert_allclose(distances, table.min(axis=1), atol=1e-5 if bank == "float32" else 2e-3)
    winner = table.min(axis=1).argmax()
    nearest = table[winner].argmin()
    support = np.argsort(-(references @ references[nearest]), kind="stable")[:neighbours]
    weights = np.exp(table[winner, support])
    expected = table[winner, nearest] * (1 - weights[0] / weights.sum() if neighbours > 1 else 1)
    assert score == pytest.approx(expected, abs=1e-5 if bank == "float32" else 2e-3)
