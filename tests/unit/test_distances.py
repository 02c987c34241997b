import pytest
import torch
from defectflow.distances import Targets, sources


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 40.0])
def test_error_bound_holds_and_is_not_idle(dtype, scale):
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(400, 96, generator=generator) * torch.rand(400, 1, generator=generator) * scale
    targets = torch.randn(300, 96, generator=generator) * scale
    targets[:100] = points[:100] * 1.001  # near ones, where the error weighs most
    made = Targets(targets, dtype)
    exact = targets.double().square().sum(1) - 2 * points.double() @ targets.double().T
    error = (made.partial(sources(points, dtype)).double() - exact).abs().amax(dim=1)
    bound = made.error(points.norm(dim=1))
    assert (error <= bound).all()
    assert (error / bound).max() > 0.02
