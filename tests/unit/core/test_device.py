import pytest
import torch
from defectflow.core import device


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 700])
def test_product(rows, onednn, monkeypatch):
    if onednn and not device.has_onednn():
        pytest.skip("torch has no oneDNN here")
    monkeypatch.setattr(device, "has_onednn", lambda: onednn)
    generator = torch.Generator().manual_seed(0)
    left, axes = torch.randn(rows, 50, generator=generator), torch.randn(50, 40, generator=generator)
    expected = left.double() @ axes[:, :33].double()
    for columns in (axes[:, :33].T, axes[:, :33].T.contiguous()):
        torch.testing.assert_close(device.product(left, columns), expected.float(), rtol=1e-5, atol=1e-4)
