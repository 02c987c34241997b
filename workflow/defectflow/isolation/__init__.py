"""Isolate the part: normalise light, fill the background, crop to one window size; and make varied copies."""
