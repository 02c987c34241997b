"""Kinds of defects: a classifier of good parts and kinds of defects on the isolated part, evaluated held out."""
