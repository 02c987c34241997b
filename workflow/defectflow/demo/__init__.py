"""The rendered data set of the demo: a moulded part before a shop floor, sound and with several kinds of defects."""
