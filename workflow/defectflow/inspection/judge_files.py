"""Judge files one by one: what is wrong with one of them becomes its message, and the others are still judged."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from defectflow.core.files import UserError
from defectflow.images.decoders import UNREADABLE, pictures_in, unreadable
from defectflow.images.read_write import read_photograph
from defectflow.inspection.inspector import Inspector, Ready, Verdict
from defectflow.inspection.outputs import Pictures

Judged = tuple[Path, Verdict | None, str]  # a photograph, its verdict, and a note or what is wrong with it
Begun = tuple[Path, np.ndarray | None, Ready | None, str]  # see `begin`


def check_header(path: Path, most_pixels: int) -> None:
    """Refuse what a stranger may send, by its header and before it is decoded.

    Raises:
        UserError: not an image, more than ``most_pixels``, or PostScript, for which Pillow would start Ghostscript.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                (width, height), kind = image.size, image.format
    except UNREADABLE as error:
        raise unreadable(path, error) from None
    if kind == "EPS":
        raise UserError(f"{path}: PostScript, which is not read (convert it to JPEG, PNG or TIFF)")
    if width * height > most_pixels:
        declared, most = width * height / 1e6, most_pixels / 1e6
        raise UserError(f"{path}: it declares {declared:.0f} megapixels, and the limit is {most:g} (reduce it)")


def judge_one(inspector: Inspector, pictures: Pictures | None, path: Path, most_pixels: int | None = None) -> Judged:
    """Judge one photograph (the first of several in a file) and draw it: (path, verdict, note or "").

    Returns (path, None, problem) if that fails for any reason, so that the others are still judged. With
    ``most_pixels``, `check_header` comes first.
    """
    try:
        if most_pixels is not None:
            check_header(path, most_pixels)
    except Exception as error:
        return path, None, problem_of(path, error)
    return end(inspector, pictures, [begin(inspector, pictures, path)])[0]


def begin(inspector: Inspector, pictures: Pictures | None, path: Path) -> Begun:
    """The steps before the network: (path, photograph if it will be drawn, network input, note), or the problem."""
    try:
        several = pictures_in(path)
        note = f"the first of {several} pictures in the file" if several > 1 else ""
        photo = read_photograph(path, inspector.settings["depth"]) if pictures else None
        return path, photo, inspector.ready(path if photo is None else photo), note
    except Exception as error:
        return path, None, None, problem_of(path, error)


def end(inspector: Inspector, pictures: Pictures | None, batch: Sequence[Begun]) -> list[Judged]:
    """The verdicts on what `begin` returned, as `judge_one` has them; pictures are drawn."""
    ready = [one for _, _, one, _ in batch if one is not None]
    try:
        verdicts = iter(inspector.finish(ready) if ready else [])
    except Exception as error:
        return [(path, None, problem_of(path, error) if one is not None else note) for path, _, one, note in batch]
    results = []
    for path, photo, one, note in batch:
        verdict = next(verdicts) if one is not None else None
        if pictures and verdict and photo is not None:
            try:
                pictures.write(path, photo, verdict)
            except OSError:  # the output cannot be written, which is not the photograph's fault
                raise
            except Exception as error:
                verdict, note = None, problem_of(path, error)
        results.append((path, verdict.without_part() if verdict else None, note))
    return results


def problem_of(path: Path, error: Exception) -> str:
    """The message for a photograph that was not judged."""
    return str(error) if isinstance(error, UserError) else f"{path}: {type(error).__name__}: {error}"
