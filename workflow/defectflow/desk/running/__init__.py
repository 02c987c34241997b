"""Runs of the workflow: their settings in plain words, their process, and how far they are."""
