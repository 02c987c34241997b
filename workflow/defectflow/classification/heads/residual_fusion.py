"""ResLT: branches for all classes, for medium and rare ones, and for rare ones, whose log-odds are added.

Source: J. Cui et al., ResLT: residual learning for long-tailed recognition, arXiv 2101.10633, sections 3.2 and 3.3.
The descriptors are frozen; one hidden layer replaces the shared trunk.
"""

import numpy as np

HIDDEN = 128
STEPS = 300
ALPHA = 0.5  # share of the loss of the branches
RATE, DECAY = 0.003, 0.01  # of AdamW


def tiers(counts: np.ndarray) -> np.ndarray:
    """Tier of each class by its number of photographs, int (k,): 0 many, 1 medium, 2 few.

    Medium classes have less than half of the photographs of the largest class, rare ones less than a fifth.
    """
    share = counts / counts.max()
    result: np.ndarray = (share < 1 / 2).astype(int) + (share < 1 / 5)
    return result


def fit_residual_fusion(
    features: np.ndarray, labels: np.ndarray, k: int, seed: int
) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Fit the fused branches; arguments as of `heads.fit_head`, features standardised.

    The loss is (1 - ALPHA) L_fusion + ALPHA L_branches: the cross-entropy of the sum of all branches on all
    photographs, and of each branch on the photographs of its own classes.

    Returns:
        Weights and biases of the hidden layer, and of the sum of the branches.
    """
    import torch
    from torch import nn

    counts = np.bincount(labels, minlength=k)
    tier = torch.from_numpy(tiers(np.maximum(counts, 1)))[torch.from_numpy(labels)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk = nn.Sequential(nn.Linear(features.shape[1], HIDDEN), nn.ReLU())
        branches = nn.ModuleList(nn.Linear(HIDDEN, k) for _ in range(3))
    x, y = torch.from_numpy(features.astype(np.float32)), torch.from_numpy(labels).long()
    optimizer = torch.optim.AdamW([*trunk.parameters(), *branches.parameters()], lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    cross_entropy = nn.functional.cross_entropy
    for _ in range(STEPS):
        hidden = trunk(x)
        scores = [branch(hidden) for branch in branches]
        own = [cross_entropy(one[tier >= level], y[tier >= level]) for level, one in enumerate(scores)
               if (tier >= level).any()]  # fmt: skip
        loss = (1 - ALPHA) * cross_entropy(torch.stack(scores).sum(dim=0), y) + ALPHA * torch.stack(own).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    def arrays(weights: torch.Tensor, bias: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        return weights.detach().double().numpy(), bias.detach().double().numpy()

    first = trunk[0]
    assert isinstance(first, nn.Linear)
    fused = [torch.stack([getattr(branch, name) for branch in branches]).sum(dim=0) for name in ("weight", "bias")]
    return arrays(first.weight, first.bias), arrays(*fused)
