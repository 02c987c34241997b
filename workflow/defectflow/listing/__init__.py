"""What lies in the folders of a data set: which files, under which names, behind which links."""
