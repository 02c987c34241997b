"""Photographs without a label and labels to doubt: what stands far from the rest, and what a person should look at."""
