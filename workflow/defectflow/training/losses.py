"""Losses of masks, per item of a batch. Imports torch; import this module inside the function that needs it."""

import torch
import torch.nn.functional as F
from torch import Tensor


def focal_loss(logits: Tensor, target: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss (Lin et al. 2017) per item: (batch, h, w) -> (batch,)."""
    p = torch.sigmoid(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    weight = torch.where(target > 0.5, alpha * (1 - p) ** gamma, (1 - alpha) * p**gamma)
    return (weight * entropy).mean(dim=(1, 2))


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Dice loss (Milletari et al. 2016) per item, smoothed by 1: (batch, h, w) -> (batch,)."""
    p = torch.sigmoid(logits)
    return 1 - (2 * (p * target).sum(dim=(1, 2)) + 1) / (p.sum(dim=(1, 2)) + target.sum(dim=(1, 2)) + 1)
