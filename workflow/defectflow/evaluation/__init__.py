"""Evaluate an inspector on held-out photographs: images, pixels, other thresholds, robustness."""
