"""SPADE: its gallery of good photographs and its scoring with torch, and the same scoring in numpy."""
