"""The mask of the part in every photograph: SAM 2.1, its training, and the baselines it has to beat."""
