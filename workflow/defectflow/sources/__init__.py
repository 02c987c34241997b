"""A data set before anything is computed: its entry in the config, labels.csv, annotation files, checks."""
