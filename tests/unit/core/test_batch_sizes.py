"""How many pictures at a time: as asked, or what half of a GPU's free memory holds."""

import argparse

import pytest
import torch
from defectflow.core.batch_sizes import batch_option, batch_size


def test_a_number_is_taken_as_it_is_and_auto_looks_at_the_memory(monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 4000))
    assert batch_size(7, gpu, 10_000, 4) == 7
    assert batch_size("auto", cpu, 10_000, 4) == 4
    assert batch_size("auto", gpu, 100, 64) == 5
    assert batch_size("auto", gpu, 100, 4) == 4
    assert batch_size("auto", gpu, 10_000, 4) == 1
    assert batch_size("auto", gpu, 0, 64) == 64


def test_the_option_is_auto_or_a_number():
    assert (batch_option("auto"), batch_option("12")) == ("auto", 12)
    for wrong in ("0", "-1", "many", "1.5"):
        with pytest.raises(argparse.ArgumentTypeError, match="neither auto nor"):
            batch_option(wrong)
