"""How many pictures at a time: as asked, or what half of a GPU's free memory holds."""

import torch
from defectflow.core.batch_sizes import batch_size


def test_a_number_is_taken_as_it_is_and_auto_looks_at_the_memory(monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 4000))
    assert batch_size(7, gpu, 10_000, 4) == 7
    assert batch_size("auto", cpu, 10_000, 4) == 4
    assert batch_size("auto", gpu, 100, 64) == 5
    assert batch_size("auto", gpu, 100, 4) == 4
    assert batch_size("auto", gpu, 10_000, 4) == 1
    assert batch_size("auto", gpu, 0, 64) == 64
