"""Pictures of a made-up part as the methods get them that learn from pictures: plain squares on stripes."""

import pandas as pd
import torch
from defectflow.methods.detector import GoodPatches
from torch.nn.functional import pixel_unshuffle

SIDE, CELL = 64, 4
GRID = (SIDE // CELL, SIDE // CELL)


def picture(seed: int, bad: bool = False) -> torch.Tensor:
    """uint8 (3, SIDE, SIDE): stripes with noise; a bad one has a white square at the top left."""
    generator = torch.Generator().manual_seed(seed)
    stripes = 100 + 40 * torch.sin(torch.arange(SIDE) / 5).expand(3, SIDE, SIDE)
    made = stripes + 8 * torch.randn(3, SIDE, SIDE, generator=generator)
    if bad:
        made[:, 8:20, 8:20] = 255
    return made.clamp(0, 255).to(torch.uint8)


def patches(shown: torch.Tensor) -> torch.Tensor:
    """The pixels of a picture cell by cell, float32 (cells, 3 * CELL ** 2), as the features stage writes them."""
    return pixel_unshuffle(shown[None] / 255, CELL)[0].flatten(1).T.contiguous()


def good(count: int) -> GoodPatches:
    """Good pictures 0 to ``count``."""
    cells, position = GRID[0] * GRID[1], torch.arange(GRID[0] * GRID[1]).repeat(count)
    owner = torch.arange(count).repeat_interleave(cells)
    all_patches = torch.cat([patches(picture(seed)) for seed in range(count)])
    return GoodPatches(all_patches, position, owner, pd.DataFrame({"image_id": range(count)}), 0, 0, all_patches, GRID)
