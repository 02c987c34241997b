"""How many pictures are computed at a time: a number, or as many as fit on the device. Imports torch only for a GPU."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def batch_option(text: str) -> str | int:
    """Type of a command line's batch size: "auto" or a number of at least 1."""
    if text != "auto" and not (text.isdecimal() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor a number of at least 1")
    return text if text == "auto" else int(text)


def batch_size(choice: str | int, device: "torch.device", one: int, most: int) -> int:
    """How many pictures to compute at a time.

    Args:
        choice: a number, which is taken as it is, or "auto".
        device: the torch.device to compute on.
        one: bytes that a picture takes there; 0 where that is not known.
        most: what "auto" gives at most: on a processor, and on a GPU half of whose free memory holds so many.
    """
    if choice != "auto":
        return int(choice)
    if device.type != "cuda":
        return most
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    return int(max(1, min(most, free // 2 // max(1, one))))
