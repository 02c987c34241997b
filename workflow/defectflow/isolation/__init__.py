"""The part alone: light made even, background taken away, one window for all; and varied copies of it."""
