"""Photographs of the desk: how they come in, thumbnails, and their labels."""
