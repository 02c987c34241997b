"""Checkpoints that a training resumes from: written whole or not at all, taken only by a run of the same settings.

Imports torch; import this module inside the function that needs it.
"""

import sys
from pathlib import Path
from typing import Any

import torch

from defectflow.core.files import UserError, atomic


class OtherSettings(UserError):
    """The checkpoint is of a run with other settings, data or code."""


def save_checkpoint(path: Path, setting: dict[str, Any], state: dict[str, Any]) -> None:
    """Write ``state`` (state dicts, numbers, lists) of a run of ``setting`` (whatever must agree) atomically."""
    # A stream, not a path: torch would write the path's name into the file.
    with atomic(path) as temporary, open(temporary, "wb") as stream:
        torch.save({"setting": setting, **state}, stream)


def load_checkpoint(path: Path, setting: dict[str, Any], device: str = "cpu") -> dict[str, Any] | None:
    """The state that `save_checkpoint` wrote for the same ``setting``, on ``device``; None if there is no such file.

    Raises:
        OtherSettings: it was written for another ``setting``.
        UserError: the file cannot be read.
    """
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        same = state["setting"] == setting
    except Exception as error:  # damaged zip or pickle, or another file
        raise UserError(f"{path}: not a readable training state ({type(error).__name__}; delete it)") from None
    if not same:
        raise OtherSettings(f"{path}: belongs to a run with other settings or data (delete it, or leave out --resume)")
    return state


def load_or_set_aside(path: Path, setting: dict[str, Any], device: str = "cpu") -> dict[str, Any] | None:
    """What `load_checkpoint` returns; a checkpoint of another ``setting`` is renamed, and None returned.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        return load_checkpoint(path, setting, device)
    except OtherSettings:
        kept = path.rename(path.with_stem(f"{path.stem}-old"))
    print(
        f"{path}: of a training with other settings or data, kept as {kept.name}; starting from step 0", file=sys.stderr
    )
    return None
