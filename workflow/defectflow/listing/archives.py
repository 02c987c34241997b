"""Archives given instead of a folder: not read; the error names the command that unpacks them."""

import os

ENDINGS = (".tar.gz", ".tar.xz", ".tar.bz2", ".tgz", ".tar", ".zip", ".7z", ".rar")


def is_archive(path: str) -> bool:
    """Whether the name is that of an archive."""
    return path.lower().endswith(ENDINGS)


def archives_in(folder: str) -> list[str]:
    """Paths of the archives in a folder, sorted."""
    return sorted(entry.path for entry in os.scandir(folder) if is_archive(entry.name))


def unpacked(archive: str) -> str:
    """The path of an archive without its ending."""
    return next(archive[: -len(ending)] for ending in ENDINGS if archive.lower().endswith(ending))


def unpack(archive: str, into: str) -> str:
    """The command that unpacks an archive into a folder."""
    if archive.lower().endswith(".zip"):
        return f"unpack it: python -m zipfile -e '{archive}' '{into}'"
    if archive.lower().endswith((".7z", ".rar")):
        return f"unpack it: 7z x '{archive}' -o'{into}'"
    return f"unpack it: mkdir -p '{into}' && tar -xf '{archive}' -C '{into}'"
