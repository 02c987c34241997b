"""The batch size of a network: a number, or as many pictures as fit on the device. Imports torch only for a GPU."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def batch_size(choice: str | int, device: "torch.device", one: int, most: int) -> int:
    """How many pictures to compute at a time.

    Args:
        choice: a number, which is returned unchanged, or "auto".
        device: the torch.device to compute on.
        one: bytes of memory that a picture needs there; 0 if unknown.
        most: upper limit of "auto"; reached on a CPU, and on a GPU if half of its free memory is enough.
    """
    if choice != "auto":
        return int(choice)
    if device.type != "cuda":
        return most
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    return int(max(1, min(most, free // 2 // max(1, one))))
