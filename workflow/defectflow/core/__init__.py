"""Files, tables, threads and devices: what every stage uses, whatever it does."""
