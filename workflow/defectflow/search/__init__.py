"""Exact nearest neighbours and coresets at the speed of matrix products."""
