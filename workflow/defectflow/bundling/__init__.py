"""Make bundles, export their graphs for other runtimes, and check that these give the same results."""
