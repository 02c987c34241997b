"""Heads on descriptors of photographs: fitted, calibrated, and with a distance that shows unknown kinds."""
