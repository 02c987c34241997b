"""A temporary folder; if its process is killed, the next service removes it."""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PREFIX, LOCK = "defectflow-serve-", "lock"


@dataclass
class OwnFolder:
    """A folder with a lock that the system releases when the process ends in any way.

    Attributes:
        path: the folder.
        lock: descriptor of the locked file in it.
    """

    path: Path
    lock: int

    def remove(self) -> None:
        """Remove it with its content."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)


def own_folder() -> OwnFolder:
    """A new folder in the system's temporary folder. Folders of killed services are removed."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # it belongs to another user, or to a running service
            os.close(_locked(left))
            shutil.rmtree(left, ignore_errors=True)
    path = Path(tempfile.mkdtemp(prefix=PREFIX))
    return OwnFolder(path, _locked(path, os.O_CREAT))


def _locked(folder: Path, flags: int = 0) -> int:
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW | flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock
