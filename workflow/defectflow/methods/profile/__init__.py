"""Outline of the part against that of good ones: its settings, the measuring of outlines, and tolerance bands."""
