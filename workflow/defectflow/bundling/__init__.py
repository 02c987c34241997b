"""Makes bundles, exports their graphs for other runtimes, and checks that these say the same."""
