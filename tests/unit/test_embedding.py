import cv2
import numpy as np
import pytest
import torch
from defectflow.backbones import create_backbone
from defectflow.embedding import IMAGENET_MEAN, IMAGENET_STD, PatchEmbedder

LAYERS = ["layer2", "layer3"]


@pytest.fixture(scope="module")
def embedder():
    return PatchEmbedder("resnet18.tv_in1k", LAYERS, seed=3)


@pytest.fixture(scope="module")
def images():
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (6, 12, 16, 3), dtype=np.uint8)
    return np.stack([cv2.resize(image, (128, 96), interpolation=cv2.INTER_CUBIC) for image in noise])


def test_embedding_is_anomalibs(embedder, images):
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    embedding = embedder(images)
    assert embedding.shape == (6, 12, 16, 384)
    model = PatchcoreModel(layers=LAYERS, backbone=create_backbone("resnet18.tv_in1k", LAYERS, seed=3)).train()
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    expected = model((pixels - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1))
    torch.testing.assert_close(embedding.reshape(-1, 384), expected, rtol=1e-4, atol=1e-4)
    assert embedder.trained is False


def test_batch_norms_are_folded(embedder):
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in embedder.network.modules())


def test_pixels_are_mean_colours():
    image = np.zeros((1, 36, 32, 3), np.uint8)
    image[0, :8, 8:16] = (255, 0, 51)
    grid = PatchEmbedder("pixels", [])(image)
    assert grid.shape == (1, 5, 4, 3)
    torch.testing.assert_close(grid[0, 0, 1], torch.tensor([1, 0, 0.2]))
    assert grid[0, 1:].max() == 0
