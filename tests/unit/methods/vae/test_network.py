import pytest
import torch
from defectflow.methods.vae.network import SCALE, Autoencoder, error_map, negative_evidence, ssim


def test_the_divergence_is_that_of_two_normal_distributions():
    network = Autoencoder((32, 48), 3, 4)
    with torch.no_grad():
        network.code.weight.zero_()
        network.code.bias.copy_(
            torch.tensor([1.0, 0, 0, 0, 0, 2])
        )  # mean 1 in one dimension, log variance 2 in another
    drawn, divergence = network(torch.rand(2, 3, 32, 48))
    assert drawn.shape == (2, 3, 32, 48) and drawn.min() > 0 and drawn.max() < 1
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(torch.tensor([1.0, 0, 0]), torch.tensor([1.0, 1, torch.e])),
        torch.distributions.Normal(0.0, 1.0),
    ).sum()
    assert divergence.tolist() == pytest.approx([expected.item()] * 2)


def test_ssim_agrees_with_torch_metrics_of_equal_flat_and_inverted_pictures():
    a = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(ssim(a, a), torch.ones(1, 32, 32), atol=1e-4)
    assert ssim(a, 1 - a).mean() < -0.5
    dark, light = torch.full_like(a, 0.2), torch.full_like(a, 0.8)
    expected = (2 * 0.2 * 0.8 + 0.01**2) / (0.2**2 + 0.8**2 + 0.01**2)
    assert torch.allclose(ssim(dark, light), torch.tensor(expected), atol=1e-3)


def test_the_error_is_where_the_pictures_differ():
    a = torch.full((1, 3, 32, 32), 0.5)
    b = a.clone()
    b[:, :, 10:14, 20:24] = 1
    assert error_map(a, b, 0)[0, 12, 22] == pytest.approx(0.5) and error_map(a, b, 0)[0, 0, 0] == 0
    mixed = error_map(a, b, 0.5)[0]
    assert mixed[12, 22] > mixed[12, 16] and mixed[0, 0] < 1e-5


def test_the_evidence_weighs_error_and_divergence():
    error, divergence = torch.full((1, 8, 8), 0.1), torch.tensor([32.0])
    assert negative_evidence(error, divergence, 2.0).item() == pytest.approx(0.1 / SCALE + 2 * 32 / 64)
