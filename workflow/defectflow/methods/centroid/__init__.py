"""Distance to the centroid of good photographs: its fit and its scoring with torch, and the same in numpy."""
