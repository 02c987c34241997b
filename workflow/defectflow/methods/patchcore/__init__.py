"""PatchCore: its fit and its scoring with torch, the same scoring in numpy, and the same as a graph."""
