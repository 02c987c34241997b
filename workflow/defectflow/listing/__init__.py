"""The files in the folders of a data set: which ones, their names, and links."""
