"""What runs and people have left in the folder of the desk: results, outlines, releases, what was watched."""
