"""How networks are trained: the loop over steps, learning rates, losses, and checkpoints to resume from."""
