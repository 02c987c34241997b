"""Metrics: rates, curves, and their uncertainty."""
