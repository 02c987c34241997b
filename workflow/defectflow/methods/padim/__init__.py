"""PaDiM: its fit and its scoring with torch, and the same scoring in numpy."""
