"""Labels and outlines from added files: tables, manifests of Lookout for Vision, COCO and others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from defectflow.core.files import UserError, atomic
from defectflow.core.records import Coco
from defectflow.desk.project import Project
from defectflow.listing.match_names_to_photographs import Matcher
from defectflow.sources.dataset import read_coco
from defectflow.sources.labels_csv import read_labels

TABLES = (".csv", ".tsv")
MANIFESTS = (".manifest", ".jsonl")
OUTLINES = (".json",)
NAMED = 3  # rows named in a note


class Told(NamedTuple):
    """Content of a file: {name: {label, defect_type, group, ...}}, and messages to the user."""

    labels: dict[str, dict[str, str]]
    notes: list[str]


def is_table(name: str) -> bool:
    """Whether a file of this name is read for labels or outlines."""
    return name.lower().endswith((*TABLES, *MANIFESTS, *OUTLINES))


def read(name: str, file: Path, photographs: Sequence[str], project: Project) -> Told:
    """Read a file; outlines are copied to annotations/ of the folder and named in config.yaml.

    Args:
        name: of the file as added.
        file: its path.
        photographs: names of all photographs.
        project: the folder.

    Raises:
        UserError: it is not a file of these kinds, or is damaged.
    """
    if name.lower().endswith(OUTLINES):
        return _outlines(name, file, photographs, project)
    rows = _manifest(file) if name.lower().endswith(MANIFESTS) else read_labels(file)
    matcher = Matcher(photographs, (row["filename"] for row in rows), str(project.photographs))
    labels: dict[str, dict[str, str]] = {}
    missing: list[str] = []
    for row in rows:
        found, _ = matcher.find(row["filename"])
        if found is None:
            missing.append(row["filename"])
            continue
        kept = {key: value for key, value in row.items() if key in ("label", "defect_type", "group") and value}
        if found in labels and labels[found].get("label") != kept.get("label"):
            raise UserError(f"{file}: {row['filename']} is labelled good and bad (delete one row)")
        labels[found] = kept
    notes = [f"{len(labels)} of {len(rows)} rows name a photograph of this desk"]
    if missing:
        notes.append(f"no photograph for {', '.join(missing[:NAMED])}{' ...' if len(missing) > NAMED else ''}")
    return Told(labels, notes)


def _manifest(file: Path) -> list[dict[str, str]]:
    """Rows of a manifest: JSON lines with `source-ref`, and an attribute that is 1 for an anomaly with its metadata."""
    rows = []
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{file}: not text in UTF-8 (a manifest has one JSON object a line)") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            told = json.loads(line)
            source = told["source-ref"]
            name, about = next(
                (key.removesuffix("-metadata"), value)
                for key, value in told.items()
                if key.endswith("-metadata") and isinstance(value, dict) and "class-name" in value
            )
            word = str(about["class-name"]).lower()
            code = told.get(name)
        except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
            raise UserError(
                f"{file}, line {number}: not a line of a manifest (it has source-ref, and a label with its -metadata)"
            ) from None
        if word not in ("normal", "anomaly") or code not in (0, 1) or (word == "anomaly") != (code == 1):
            raise UserError(f"{file}, line {number}: class {word!r} with {code!r} (normal is 0, anomaly is 1)")
        rows.append({"filename": str(source), "label": str(code)})
    if not rows:
        raise UserError(f"{file}: the manifest is empty")
    return rows


def _outlines(name: str, file: Path, photographs: Sequence[str], project: Project) -> Told:
    coco = read_coco(file)
    folder = project.folder / "annotations"
    folder.mkdir(exist_ok=True)
    target = _beside(project.path_inside(PurePosixPath(name).name, folder), coco)
    with atomic(target) as temporary:
        shutil.copyfile(file, temporary)
    with project.lock:
        entry = project.settings()["datasets"][project.dataset]
        given = entry.get("annotations") or []
        known = [given] if isinstance(given, str) else list(given)
        path = f"annotations/{target.name}"
        if path not in known:
            project.change_entry({"annotations": [*known, path]})
    return Told({}, [f"outlines of {len(coco['images'])} photographs, kept as annotations/{target.name}"])


def _beside(target: Path, coco: Coco) -> Path:
    """Where a file of outlines goes: in place of one of its name if it has all photographs of that, else beside it.

    Annotation tools give every export the same name.
    """
    names, found, number = {image["file_name"] for image in coco["images"]}, target, 1
    while found.is_file() and not {image["file_name"] for image in read_coco(found)["images"]} <= names:
        number += 1
        found = target.with_name(f"{target.stem}-{number}{target.suffix}")
    return found
