import cv2
import numpy as np
import pytest
import torch
from defectflow.anomaly_maps import smooth_map
from defectflow.backbones import create_backbone
from defectflow.patchcore import IMAGENET_MEAN, IMAGENET_STD, Bank, PatchEmbedder, PositionBank, image_score

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


def test_embedding_is_anomalibs(embedder, anomalib_model, images):
    embedding = embedder(images)
    assert embedding.shape == (6, 12, 16, 384)
    anomalib_model.train()
    expected = anomalib_model(normalise(images))
    anomalib_model.eval()
    torch.testing.assert_close(embedding.reshape(-1, 384), expected, rtol=1e-4, atol=1e-4)
    assert embedder.trained is False


def test_batch_norms_are_folded(embedder):
    assert not any(
        isinstance(module, torch.nn.BatchNorm2d)
        for module in embedder._model.feature_extractor.feature_extractor.modules()
    )


@pytest.mark.parametrize("neighbours", [9, 1])
def test_scores_and_maps_are_anomalibs(embedder, anomalib_model, images, neighbours):
    embeddings = embedder(images)
    bank = Bank(embeddings[:4].reshape(-1, 384)[::3])
    anomalib_model.memory_bank = bank.features.clone()
    anomalib_model.num_neighbors = neighbours
    expected = anomalib_model(normalise(images))
    for i in range(len(images)):
        patches = embeddings[i].flatten(0, 1)
        distances, nearest = bank.nearest(patches)
        score = image_score(bank, patches, distances, nearest, neighbours=neighbours)
        # Patches of the bank itself have distance 0, which anomalib's formula knows to about 1e-3 only.
        assert score == pytest.approx(float(expected.pred_score[i]), rel=1e-4, abs=1e-4)
        if i >= 4:
            smooth = smooth_map(distances.reshape(12, 16).numpy(), (96, 128), cv2.INTER_NEAREST, sigma=4)
            np.testing.assert_allclose(smooth, expected.anomaly_map[i, 0].numpy(), rtol=1e-4, atol=1e-4)


def test_support_of_the_weight_is_exact():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2000, 20, generator=generator) + 300  # far from the origin, where products are rough
    expected = torch.cdist(features[:50].double(), features.double()).topk(9, largest=False).indices
    bank = Bank(features)
    assert torch.equal(torch.stack([bank._closest(i, 9) for i in range(50)]), expected)


def test_nearest_of_the_bank_itself_is_zero():
    features = torch.randn(50, 8) + 100
    assert Bank(features).nearest(features)[0].max() == 0


def test_image_scores():
    bank = Bank(torch.zeros(1, 2))
    patches = torch.stack([torch.arange(1.0, 101), torch.zeros(100)], dim=1)
    distances, nearest = bank.nearest(patches)
    assert image_score(bank, patches, distances, nearest, neighbours=1) == 100
    assert image_score(bank, patches, distances, nearest, method="top_k_mean", fraction=0.04) == 98.5
    assert image_score(bank, patches, distances, nearest, method="top_k_mean", fraction=0.001) == 100
    assert image_score(bank, patches, distances, nearest, method="percentile", fraction=0.5) == 50.5
    assert image_score(bank, patches, distances, nearest) == 0  # a bank of one patch: its weight is 1 - 1


def test_pixels_are_mean_colours():
    image = np.zeros((1, 36, 32, 3), np.uint8)
    image[0, :8, 8:16] = (255, 0, 51)
    grid = PatchEmbedder("pixels", [])(image)
    assert grid.shape == (1, 5, 4, 3)
    torch.testing.assert_close(grid[0, 0, 1], torch.tensor([1, 0, 0.2]))
    assert grid[0, 1:].max() == 0
    distances, _ = PositionBank(torch.zeros(20, 3)).nearest(grid.reshape(20, 3))
    assert distances.argmax() == 1 and distances[1] == pytest.approx(1.04**0.5)
