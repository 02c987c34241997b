"""Whether what arrives is still what the inspector learned from: the log of inspections, and control charts on it."""
