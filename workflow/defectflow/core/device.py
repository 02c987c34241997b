"""Choose the device that networks run on, and the precision there."""

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
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def autocast(device: torch.device, on_cpu: bool = False) -> torch.autocast:
    """bfloat16 where it is fast: on CUDA devices of capability 8.0 and more; elsewhere a context that does nothing.

    Args:
        on_cpu: Also on processors with bfloat16 products: of use where large products take the time, as in training a
            whole network (1.6 to 5 times as fast); most others are slower.
    """
    if device.type == "cuda":
        fits = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        fits = on_cpu and multiplies_bfloat16()
    return torch.autocast(device.type, torch.bfloat16, enabled=fits)


@cache
def has_onednn() -> bool:
    """Whether torch has oneDNN's own convolutions and products; on ARM it computes them with another library."""
    return mkldnn.is_available() and not torch.ops.mkldnn._is_mkldnn_acl_supported()


def product(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """``rows @ columns.T`` of float32 (n, d) and (m, d): (n, m).

    Uses oneDNN if torch has it: MKL, torch's default, is 2 to 3 times slower on AMD's processors.
    """
    if rows.device.type == "cpu" and has_onednn():
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, columns, None, "none", [], "")
        return result
    return rows @ columns.T
