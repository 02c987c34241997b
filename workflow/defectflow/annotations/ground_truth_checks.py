"""The ground-truth masks of a data set: how they are read, their problems, clean copies where needed."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from defectflow.annotations.ground_truth import Ambiguous, Profile, Reading, choose, profile, read
from defectflow.core.files import UserError, sha256_of
from defectflow.core.records import ManifestRow
from defectflow.images.image_checks import Picture
from defectflow.images.read_write import read_mask, write_png
from defectflow.listing.image_names import place_of
from defectflow.sources.dataset import Notice, Problem

if TYPE_CHECKING:
    from defectflow.core.parallel import Map

INVERTED = 0.8  # share of the picture: a mask that covers more, while most cover less than half, is inverted
REMEDY = "(save the defect bright on dark; a mask of the part is no ground truth: take it out)"
Rows = Mapping[str, Mapping[str, str]]


class _Checked(NamedTuple):
    fault: str
    share: float  # of the picture
    plain: bool  # whether every pixel that is not zero is inside


def check_masks(
    rows: Rows, pictures: Mapping[str, Picture], each: Map = map
) -> tuple[list[Problem], list[Notice], Reading | None]:
    """Find out how the masks of a set are read, and check every one.

    Args:
        rows: of the images that have a mask.
        pictures: measurements of each image.
        each: `map`, or that of a pool.

    Returns:
        Problems (absent, unreadable, ambiguous or inverted, of another size, contradicting the label), notices on
        corrections, and the reading if it differs from "every pixel that is not zero is inside", else None.
    """
    names = [name for name in rows if not pictures[name].problem]

    def problem(name: str, text: str) -> Problem:
        return Problem(name, f"its mask {rows[name]['mask']} {text}", "mask")

    profiles = list(each(lambda name: _profile(rows[name]["mask"]), names))
    sound = [name for name, one in zip(names, profiles, strict=True) if isinstance(one, Profile)]
    problems = [
        problem(name, str(one)) for name, one in zip(names, profiles, strict=True) if not isinstance(one, Profile)
    ]
    if not sound:
        return sorted(problems), [], None
    try:
        reading = choose(one for one in profiles if isinstance(one, Profile))
    except Ambiguous as error:
        return sorted(problems + [problem(name, str(error)) for name in sound]), [], None
    found = {name: one for name, one in zip(names, profiles, strict=True) if isinstance(one, Profile)}
    checked = list(each(lambda name: _check(rows[name], pictures[name].size, reading, found[name]), sound))
    large = sum(one.share > 0.5 for one in checked)
    notices = []
    if 2 * large > len(sound):
        text = f"covers {{:.0%}} of the picture, as most masks of the set more than half: is it inverted? {REMEDY}"
        problems += [problem(name, text.format(one.share)) for name, one in zip(sound, checked, strict=True)]
    else:
        text = f"covers {{:.0%}} of the picture, and most masks of the set less than half: is it inverted? {REMEDY}"
        for name, one in zip(sound, checked, strict=True):
            if one.fault or one.share > INVERTED:
                problems.append(problem(name, one.fault or text.format(one.share)))
        if reading.text:
            notices.append(Notice("ground-truth masks", f"all {len(sound)} are read alike: {reading.text}", "pixels"))
    return sorted(problems), notices, None if all(one.plain for one in checked) else reading


def place(
    rows: Sequence[ManifestRow], images: int, reading: Reading | None, written: Path, final: str, each: Map
) -> None:
    """Write clean masks (0 and 255) for rows of the manifest, and put their paths and checksums into the rows.

    Without a reading the masks stay where they are.

    Args:
        rows: with image_id and mask ("" for none).
        images: how many the data set has.
        reading: as `check_masks` returns it.
        written: folder to write to.
        final: the path that this folder will have.
        each: `map`, or that of a pool.
    """

    def write(row: ManifestRow) -> None:
        if reading is None:
            row["mask_sha256"] = sha256_of(row["mask"])[:16]
            return
        name = place_of(row["image_id"], images)
        (written / name).parent.mkdir(parents=True, exist_ok=True)
        write_png(written / name, read(row["mask"], reading))
        row["mask_sha256"] = sha256_of(written / name)[:16]
        row["mask"] = posixpath.join(final, name)

    for _ in each(write, [row for row in rows if row["mask"]]):
        pass


def _profile(path: str) -> Profile | str:
    try:
        return profile(path)
    except UserError:
        return "is not a readable image" if os.path.exists(path) else "does not exist"


def _check(row: Mapping[str, str], size: tuple[int, int], reading: Reading, found: Profile) -> _Checked:
    path = row["mask"]
    try:
        mask = read(path, reading)
    except UserError as error:
        return _Checked(f"cannot be read as the others are ({str(error).removeprefix(f'{path}: ')})", 0, True)
    share, plain = float(mask.mean()), _same(path, mask)
    fault = ""
    if mask.shape != size[::-1]:
        fault = f"has {mask.shape[1]}x{mask.shape[0]} pixels, the picture {size[0]}x{size[1]}"
    elif row["label"] != "0" and not mask.any() and (what := _below_the_cut(found, reading)):
        fault = f"has {what}, and the set is cut at {reading.cut:g}: does it mix 0/1 and 0/255?"
        fault += " (save all masks alike, the defect as 255 on 0)"
    elif row["label"] == "1" and not mask.any():
        fault = "is empty, though the image is labelled bad"
    elif row["label"] == "0" and mask.any():
        fault = "marks a defect, though the image is labelled good"
    return _Checked(fault, share, plain)


def _below_the_cut(found: Profile, reading: Reading) -> str:
    """What a mask holds that is read as empty, though it is not of one value: "" for a mask that is, or without a cut.

    Such a mask may mark a defect in another encoding. JPEG keeps a mask of one value as one value.
    """
    if reading.cut is None:
        return ""
    if reading.channel == "alpha":
        varies = found.alpha == "varies" and found.opaque < reading.cut
        return f"an alpha channel up to {found.opaque:g}" if varies else ""
    if len(found.counts) < 2:
        return ""
    if reading.channel == "colour":
        return f"{len(found.counts)} colours that differ less"
    low, high = min(found.counts), max(found.counts)
    return f"no value but {low:g} and {high:g}" if len(found.counts) == 2 else f"values from {low:g} to {high:g}"


def _same(path: str, mask: np.ndarray) -> bool:
    """Whether `read_mask` gives this mask."""
    try:
        other = read_mask(path)
    except UserError:
        return False
    return other.shape == mask.shape and bool((other == mask).all())
