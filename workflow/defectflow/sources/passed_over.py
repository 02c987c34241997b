"""Files below the image folder that are not read as photographs: counted, named, and an error if they may matter.

Standard library only: the Snakefile imports this module through ``preflight``.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from defectflow.core.records import DataSet
from defectflow.images.formats import RAW, PassedOver, suffixes, unread
from defectflow.listing.image_names import is_image, scan
from defectflow.listing.links import entered
from defectflow.sources.dataset import Notice, Problem

if TYPE_CHECKING:
    from defectflow.images.image_checks import Picture

# Labels, outlines, notes and side files of programs, which a user does not expect in the report.
COMPANIONS = suffixes(
    "json csv tsv txt md rst pdf xml yaml yml toml ini cfg log db html htm xlsx xls ods docx doc odt npy npz parquet "
    "pkl xmp aae thm sha256 md5 py ipynb sh names data cache lnk url"
)
NAMED = 3  # files named in a notice on many


def others(resolved: DataSet) -> Iterator[str]:
    """Names, relative to the image folder, of files below it that are neither images by their suffix nor companions.

    Links to folders are followed as they are for photographs.
    """
    for name, entry in scan(str(resolved["images"]), entered(resolved)):
        if not (is_image(name) or name.lower().endswith(COMPANIONS) or entry.is_dir()):
            yield name


def check_passed_over(resolved: DataSet, pictures: Mapping[str, "Picture"]) -> tuple[list[Problem], list[Notice]]:
    """Problems of files that look like pictures but are not read, and notices on other files and on animations.

    A camera's raw file beside the photograph of the same name is its companion.

    Args:
        resolved: the data set, whose image folder is searched through.
        pictures: `image_checks.Picture` of each photograph that is read, by name relative to that folder.
    """
    folder = str(resolved["images"])
    stems = {os.path.splitext(name)[0].lower() for name in pictures}
    problems: list[Problem] = []
    told: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(others(resolved)):
        stem, suffix = os.path.splitext(name.lower())
        found: PassedOver = unread(Path(folder, name))
        if suffix in RAW and stem in stems:
            told["raw files next to photographs of the same name"].append(name)
        elif found.reason.startswith("an archive"):
            told["archives (unpack them if they contain photographs of this set)"].append(name)
        elif found.picture:
            problems.append(Problem(name, f"not read: {found.reason}", "image"))
        elif suffix:  # README, LICENSE and the like are companions too
            told["no pictures"].append(name)
    notices = [Notice(folder, f"{_count(names)} passed over, {what}: {_some(names)}") for what, names in told.items()]
    for name, picture in pictures.items():
        if picture.pages > 1:
            notices.append(Notice(name, f"holds {picture.pages} pictures: only the first is used"))
    return problems, notices


def _count(names: list[str]) -> str:
    return f"{len(names)} file{'s' if len(names) > 1 else ''}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
