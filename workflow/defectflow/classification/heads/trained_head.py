"""A linear layer trained by an optimizer, to compare epochs, learning rates and optimizers."""

from typing import Any

import numpy as np

BATCH = 64
MOMENTUM, DECAY = 0.9, 0.0005


def fit_trained_head(
    features: np.ndarray, labels: np.ndarray, weights: np.ndarray, settings: Any, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Train a linear layer; arguments as of `heads.fit_head`, features standardised.

    Args:
        weights: float (k,), weight in the loss of a photograph of each class.
        settings: epochs, learning_rate and optimizer of a `KindSettings`.

    Returns:
        Its weights, float (k, d), and biases, float (k,).
    """
    import torch
    from torch import nn

    x, y = torch.from_numpy(features.astype(np.float32)), torch.from_numpy(labels).long()
    of_class = torch.from_numpy(weights.astype(np.float32))
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(features.shape[1], len(weights))
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    rate = settings.learning_rate
    optimizer: torch.optim.Optimizer = (
        torch.optim.AdamW(layer.parameters(), lr=rate, weight_decay=DECAY)
        if settings.optimizer == "adam"
        else torch.optim.SGD(layer.parameters(), lr=rate, momentum=MOMENTUM, weight_decay=DECAY)
    )
    for _ in range(settings.epochs):
        for batch in torch.randperm(len(y), generator=generator).split(BATCH):
            loss = nn.functional.cross_entropy(layer(x[batch]), y[batch], of_class)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
