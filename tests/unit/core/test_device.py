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


@pytest.mark.parametrize("has_products", [True, False])
def test_bfloat16_on_a_processor_is_asked_for_and_has_to_be_fast(has_products, monkeypatch):
    monkeypatch.setattr(device, "multiplies_bfloat16", lambda: has_products)
    a = torch.ones(2, 2)
    for on_cpu in (False, True):
        with device.autocast(torch.device("cpu"), on_cpu):
            assert (a @ a).dtype == (torch.bfloat16 if on_cpu and has_products else torch.float32)


@pytest.mark.parametrize(("capability", "enabled"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_bfloat16_on_cuda_goes_by_the_capability(capability, enabled, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    given = []
    monkeypatch.setattr(torch, "autocast", lambda kind, dtype, enabled: given.append((kind, dtype, enabled)))
    device.autocast(torch.device("cuda"))
    assert given == [("cuda", torch.bfloat16, enabled)]
