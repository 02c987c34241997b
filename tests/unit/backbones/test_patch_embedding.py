import cv2
import numpy as np
import pytest
import torch
from defectflow.backbones import patch_embedding
from defectflow.backbones.input_statistics import IMAGENET_MEAN, IMAGENET_STD
from defectflow.backbones.networks import create_backbone
from defectflow.backbones.patch_embedding import PatchEmbedder, feature_network

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


def test_fused_convolutions_give_the_numbers_of_the_modules(embedder, images):
    plain = feature_network("resnet18.tv_in1k", LAYERS, seed=3)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    for expected, found in zip(plain(x).values(), embedder.network(x).values(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


class Odd(torch.nn.Module):
    """Sums, ReLUs and paddings that may not be fused, or not so."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 8, 1)
        self.same = torch.nn.Conv2d(8, 8, 3, padding="same")
        self.mirror = torch.nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
        self.relu, self.nothing = torch.nn.ReLU(inplace=True), torch.nn.Identity()

    def forward(self, x):
        x = self.first(self.nothing(x))
        x = x + x
        x = self.relu(self.second(x) + x)
        x = x + self.second(x.mean((2, 3), keepdim=True))  # a number for each channel, by weights used before
        kept = self.second(x)
        x = self.relu(self.same(x) + 1) + kept
        return self.mirror(torch.add(self.second(x), kept, alpha=2)), kept


def test_what_does_not_fit_is_not_fused():
    torch.manual_seed(0)
    network = torch.fx.symbolic_trace(Odd().eval().requires_grad_(False))
    x = torch.rand(2, 3, 9, 7)
    expected = network(x)
    patch_embedding._fuse(network)
    for size in (x, x[:, :, :5, :6]):
        assert [tuple(y.shape[2:]) for y in network(size)] == [tuple(size.shape[2:])] * 2
    for found, wanted in zip(network(x), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_layers_are_named_as_timm_names_them():
    with torch.inference_mode():
        maps = feature_network("convnext_atto", ["stages.1", "stages.2"])(torch.zeros(1, 3, 64, 96))
    assert {name: tuple(value.shape) for name, value in maps.items()} == {
        "stages.1": (1, 80, 8, 12), "stages.2": (1, 160, 4, 6)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("backbone", "layers", "shape"),
    [
        ("vit_tiny_patch16_224", ["blocks.1", "blocks.3"], (1, 14, 14, 384)),
        ("swin_tiny_patch4_window7_224", ["layers.1", "layers.2"], (1, 28, 28, 192 + 384)),
    ],
)
def test_transformers_have_patches_too(backbone, layers, shape):
    picture = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    patches = PatchEmbedder(backbone, layers)(picture)
    assert tuple(patches.shape) == shape
    picture[:, :112] = 0  # the upper half
    changed = (PatchEmbedder(backbone, layers)(picture) - patches).square().sum(-1)[0]
    assert changed[: shape[1] // 2].mean() > 2 * changed[shape[1] // 2 :].mean()


def test_pixels_are_mean_colours():
    image = np.zeros((1, 36, 32, 3), np.uint8)
    image[0, :8, 8:16] = (255, 0, 51)
    grid = PatchEmbedder("pixels", [])(image)
    assert grid.shape == (1, 5, 4, 3)
    torch.testing.assert_close(grid[0, 0, 1], torch.tensor([1, 0, 0.2]))
    assert grid[0, 1:].max() == 0
