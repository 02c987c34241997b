"""Image files: which files are images, how they are read and written, how deep their numbers are."""
