"""Makes the weights that are shipped: patch-nano and sam2.1-nano."""
