"""How good an inspector is, on held-out photographs: images, pixels, other thresholds, weak changes."""
