"""Where networks run."""

import torch

from defectflow.files import UserError


def pick_device(choice: str) -> torch.device:
    """The torch device for "auto", "cpu" or "cuda".

    Raises:
        UserError: CUDA was asked for and there is none.
    """
    if choice == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda: no CUDA device is available (use device=auto or cpu)")
    return torch.device("cuda" if choice != "cpu" and torch.cuda.is_available() else "cpu")
