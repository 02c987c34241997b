"""Figures of merit: rates, curves, and how sure they are."""
