"""Image files: which files are images, how they are read and written, their bit depth."""
