"""config.yaml: its types, its checks, and the hash of the code that a stage runs."""
