"""Makes the weights that are shipped: patch-nano, part-nano and sam2.1-nano."""
