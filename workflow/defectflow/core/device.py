"""Choose the device that networks run on."""

import ctypes
import sys
from functools import cache

import torch
from torch.backends import mkldnn

from defectflow.core.files import UserError


def pick_device(choice: str) -> torch.device:
    """The torch device for "auto", "cpu" or "cuda".

    Raises:
        UserError: "cuda" was requested and no CUDA device is available.
    """
    if choice == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda: no CUDA device is available (use cpu)")
    return torch.device("cuda" if choice != "cpu" and torch.cuda.is_available() else "cpu")


def multiplies_bfloat16() -> bool:
    """Whether this CPU has bfloat16 products, 2 to 7 times as fast as float32 (AMX; AVX-512 as in Zen 4 and 5)."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


@cache
def has_onednn() -> bool:
    """Whether torch has oneDNN's own convolutions and products; on ARM it computes them with another library."""
    return mkldnn.is_available() and not torch.ops.mkldnn._is_mkldnn_acl_supported()


def product(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """``rows @ columns.T`` of float32 (n, d) and (m, d): (n, m).

    Uses oneDNN if torch has it: MKL, torch's default, is 2 to 3 times slower on AMD's processors.
    """
    if rows.device.type == "cpu" and has_onednn():
        return torch.ops.mkldnn._linear_pointwise(rows, columns, None, "none", [], "")
    return rows @ columns.T


def keep_memory() -> None:
    """Make malloc keep freed memory in this process instead of returning it to the kernel (glibc only).

    For code that frees a gigabyte and allocates it again in its next step: clearing the returned pages takes a quarter
    of the time of a fine-tuning on two cores, and a tenth of the time of a coreset.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # malloc.h
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(top_pad, 2**28)  # larger than a thread's heap, which would otherwise be returned
        mallopt(mmap_threshold, 2**25)  # the largest allowed value
