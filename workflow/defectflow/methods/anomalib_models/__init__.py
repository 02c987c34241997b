"""Models of anomalib as detectors: made from options, trained by their own steps, scored raw."""
