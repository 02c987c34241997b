"""Which photograph an annotation file of a single one means. Standard library only."""

import os
import posixpath

PHOTOGRAPHS = ("images", "Images", "JPEGImages")  # folders beside one of labels or annotations


def placed(name: str, folder: str) -> str:
    """A name in a file of a folder, relative to the folder that is read; one with a root of its own is kept."""
    plain = name.replace("\\", "/")
    if plain.startswith("/") or plain[1:2] == ":" or "://" in plain or not folder:
        return name
    return posixpath.normpath(posixpath.join(folder.replace(os.sep, "/"), plain))


def beside(folder: str, name: str, top: str, own: str) -> str:
    """Path of a photograph, relative to ``top``, in the folder of photographs beside that of the annotations.

    Args:
        folder: of the annotation file.
        name: of the photograph.
        top: the folder that is read.
        own: what the folder of the annotations is called, in small letters: it, or one above, becomes `images`.

    Returns:
        "" where no such folder is there.
    """
    parts = os.path.abspath(folder).split(os.sep)
    swap = next((n for n in range(len(parts) - 1, 0, -1) if parts[n].lower() == own), None)
    for photographs in PHOTOGRAPHS if swap else ():
        above = os.sep.join([*parts[:swap], photographs])
        if os.path.isdir(above):
            below = os.path.join(above, *parts[(swap or 0) + 1 :], name)
            return os.path.relpath(below, os.path.abspath(top)).replace(os.sep, "/")
    return ""
