"""Stage ingest: read and check every image, label and annotation of a data set; write manifest.csv and a report.

All problems are collected in one list before anything is written. ``--on-problem stop`` prints it and fails;
``leave_out`` goes on without broken files and lists them in the report. Corrections and skipped files that do not stop
the run are warnings: printed at the end and listed in the report.
"""

import argparse
import os
import posixpath
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from defectflow.annotations.coco import annotations_by_image, entries_by_name
from defectflow.annotations.ground_truth import Reading
from defectflow.annotations.ground_truth_checks import check_masks, place
from defectflow.annotations.outline_looker import Suspect
from defectflow.annotations.outline_set import Settled, settle_outlines
from defectflow.annotations.outline_sheet import write_sheet
from defectflow.core.arguments import add_threads
from defectflow.core.disk_index import DiskIndex
from defectflow.core.files import UserError, atomic_dir, read_json, stage, write_json
from defectflow.core.records import DataSet, FolderLine, ManifestRow
from defectflow.core.tables import MANIFEST, MASK_CONTENT, ROWS, table_writer
from defectflow.data.equal_copies import check_copies
from defectflow.data.near_copies import check_near_copies
from defectflow.images.bit_depth import add_option
from defectflow.images.image_checks import Picture, inspect_all
from defectflow.listing.annotation_files import name_of, paths
from defectflow.listing.folders import Folders
from defectflow.listing.image_names import id_maker
from defectflow.listing.links import roots
from defectflow.sources.annotation_kinds import refuse_several
from defectflow.sources.dataset import Notice, Problem, image_paths, read_coco, row_reader
from defectflow.sources.passed_over import check_passed_over
from defectflow.sources.set_depth import check_depths
from defectflow.sources.source_notices import link_problems, masks_read_as_photographs, names_in_other_case, notices
from defectflow.sources.source_options import add_annotation_options, add_folder_options, resolved_of

SHOWN = 20  # problems printed before the rest is only counted


class Surveyed(Mapping[str, Picture]):
    """Measurements of the survey stage for every image, by relative name in the order of the names; kept on disk."""

    def __init__(self, paths: Sequence[str]) -> None:
        found = (entry for path in paths for entry in read_json(path).items())
        self._rows = DiskIndex(((name, *self._row(picture)) for name, picture in found), 10, paths)

    def __getitem__(self, name: str) -> Picture:
        sha256, width, height, *measured = self._rows[name]
        return Picture(sha256, (width, height), *measured)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    @staticmethod
    def _row(picture: Mapping[str, Any]) -> tuple[Any, ...]:
        known = Picture(**picture)
        measured = (known.luminance, known.clipped, known.problem, known.fingerprint, known.deep, known.pages)
        return known.sha256, *known.raw_size, known.orientation, *measured


def check_pictures(pictures: Mapping[str, Picture], row: Callable[[str], dict[str, str]]) -> list[Problem]:
    """Problems of the image files themselves, and of copies, which are left out."""
    broken = [Problem(name, picture.problem, "image") for name, picture in pictures.items() if picture.problem]
    return sorted(broken + check_copies(pictures, row))


def check_annotations(
    resolved: DataSet, pictures: Mapping[str, Picture], threads: int = 1
) -> tuple[list[Problem], set[str], Settled]:
    """Problems of the COCO file, the names of the images with a usable annotation, and how outlines are read."""
    source = name_of(resolved["annotations"])
    coco = read_coco(paths(resolved["annotations"]), resolved["images"])
    by_image = annotations_by_image(coco, resolved["category"])
    known = {category.get("id") for category in coco["categories"]}
    entries, faults = entries_by_name(coco, pictures)
    for annotation in coco["annotations"]:
        if known and annotation.get("category_id") not in known:
            faults.append(f"annotation {annotation.get('id')} is of an unknown category")
    settled = settle_outlines(resolved, coco, entries, pictures, threads)
    annotated = set()
    for name in tqdm(settled.readings, desc="ingest: annotations", unit="image"):
        mask, _, more = settled.mask(name, entries[name], pictures[name])
        faults += [f"{name}: {fault}" for fault in more]
        if mask is not None:
            annotated.add(name)
    listed = {entry["id"] for entry in coco["images"]}
    for image_id in sorted(by_image.keys() - listed, key=str):
        faults.append(f"{len(by_image[image_id])} annotations point at image id {image_id}, which is not in the file")
    problems = [Problem(source, fault, "annotation") for fault in faults] + settled.problems
    return problems, annotated, settled


class Findings(NamedTuple):
    """Results of checking a data set, before its manifest is written.

    Attributes:
        row: what folders and labels.csv say of an image, see `dataset.row_reader`.
        annotated: names of the images that have a usable annotation.
        problems: all of them.
        warnings: corrections and skipped files.
        reading: how ground-truth masks are read, if `read_mask` would read them differently.
        suspects: outlines to draw that do not seem to match their photographs.
        folders: what each folder was read as, see `folders.Folders.report`.
    """

    row: Callable[[str], dict[str, str]]
    annotated: set[str]
    problems: list[Problem]
    warnings: list[Notice]
    reading: Reading | None = None
    suspects: Sequence[Suspect] = ()
    folders: Sequence[FolderLine] = ()

    def without(self, what: str) -> set[str]:
        """Names of the images whose ``what`` ("image" or "mask") is left out."""
        return {problem.file for problem in self.problems if problem.left_out == what}


def check(resolved: DataSet, pictures: Mapping[str, Picture], threads: int, found: bool = False) -> Findings:
    """Run all checks on a data set.

    Args:
        resolved: layout, images, annotations, labels, category, as ``preflight.resolve`` returns them.
        pictures: measurements of each image, in the order of the names.
        threads: number of threads that decode masks.
        found: whether the annotation files were found by their content.

    Raises:
        UserError: an essential file (labels.csv, a COCO file) is absent or malformed.
    """
    folders = Folders(resolved)
    row, of_labels = row_reader(resolved, pictures, folders)
    lines, told = folders.report()
    passed, passed_quietly = check_passed_over(resolved, pictures)
    warnings = notices(resolved, folders, told, pictures, row, found) + passed_quietly
    if resolved["annotations"]:
        coco = read_coco(resolved["annotations"], resolved["images"])
        annotations_by_image(coco, resolved["category"])
        refuse_several(coco, resolved["category"], name_of(resolved["annotations"]))
    problems = link_problems(folders) + check_pictures(pictures, row) + passed + of_labels
    masked = {}
    for name in pictures:
        known = row(name)
        if known["split"] == "train" and known["label"] == "1":
            text = "labelled bad, though it is in the training split (only good images train)"
            problems.append(Problem(name, text, "image"))
        if known["mask"]:
            masked[name] = known
    of_depth, told_of_depth = check_depths(pictures, resolved.get("depth"), bool(resolved.get("depth_given")))
    problems += of_depth
    warnings += told_of_depth
    problems += masks_read_as_photographs(resolved, masked, pictures)
    annotated: set[str] = set()
    suspects: list[Suspect] = []
    if resolved["annotations"]:
        more, annotated, settled = check_annotations(resolved, pictures, threads)
        problems += more
        given = ((str(entry["file_name"]), entry.get("_folder", "")) for entry in coco["images"])
        warnings += names_in_other_case(name_of(resolved["annotations"]), given, pictures)
        warnings += settled.notices
        suspects = settled.suspects
    with ThreadPoolExecutor(threads) as pool:
        of_masks, told_of_masks, reading = check_masks(masked, pictures, pool.map)
        problems += of_masks
        warnings += told_of_masks
        left_out = {problem.file for problem in problems if problem.left_out == "image"}
        warnings += check_near_copies(resolved, pictures, row, left_out, pool.map)
    return Findings(row, annotated, problems, warnings, reading, suspects, lines)


def ingest(
    resolved: DataSet, pictures: Mapping[str, Picture], findings: Findings
) -> Iterator[tuple[ManifestRow, Picture]]:
    """Yield the row of each image in the manifest (columns MANIFEST) and its picture, without what is broken.

    They come in the order of the ids.
    """
    out, no_mask = findings.without("image"), findings.without("mask")
    image_id = id_maker(lambda: pictures)
    names = DiskIndex(((image_id(name), name) for name in pictures if name not in out), 1, [resolved["images"]])
    for identifier, (name,) in names.items():
        picture, row = pictures[name], findings.row(name)
        width, height = picture.size
        yield (
            {
                "image_id": identifier,
                "path": posixpath.join(str(resolved["images"]), name),
                "sha256": picture.sha256,
                "width": width,
                "height": height,
                "label": row["label"],
                "defect_type": row["defect_type"],
                "group": row["group"],
                "mask": "" if name in no_mask else row["mask"],
                "split": row["split"],
            },
            picture,
        )


class Summary:
    """Counts, sizes and the spread of exposure of a manifest and its pictures (luminance 0 to 255), row by row."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._seen: dict[str, Counter[str]] = {
            key: Counter() for key in ("label", "group", "split", "size", "defect_type")
        }
        self._luminance, self._clipped = array("d"), array("d")

    def add(self, row: ManifestRow, picture: Picture) -> None:
        """Count an image."""
        self._counts["with_defect_mask"] += row["mask"] != ""
        self._counts["rotated_by_exif"] += picture.orientation != 1
        for key, value in (("label", row["label"]), ("group", row["group"]), ("split", row["split"])):
            self._seen[key][value] += 1
        self._seen["size"][f"{row['width']}x{row['height']}"] += 1
        if row["label"] == "1":
            self._seen["defect_type"][row["defect_type"]] += 1
        self._luminance.append(picture.luminance)
        self._clipped.append(picture.clipped)

    def report(self, annotated: int) -> dict[str, Any]:
        """The report on all of them; ``annotated``: how many have a usable annotation."""
        label, group, split, size, defect_type = self._seen.values()
        exposure = {}
        if self._luminance:
            exposure = {"mean_luminance": _spread(self._luminance), "overexposed_share": _spread(self._clipped)}
        return {
            "images": label.total(),
            "good": label["0"],
            "bad": label["1"],
            "unlabelled": label[""],
            "annotated": annotated,
            "with_defect_mask": self._counts["with_defect_mask"],
            "rotated_by_exif": self._counts["rotated_by_exif"],
            "groups": {name: group[name] for name in sorted(group) if name},
            "images_without_group": group[""],
            "defect_types": dict(sorted(defect_type.items())),
            "splits": {name: split[name] for name in sorted(split) if name},
            "sizes": dict(sorted(size.items())),
            "exposure": exposure,
        }


def listed(found: Sequence[Problem] | Sequence[Notice]) -> str:
    """A list of problems or warnings as lines for a terminal, long ones cut."""
    lines = [f"  {one.file}: {one.text}" for one in found[:SHOWN]]
    if len(found) > SHOWN:
        rest = Counter(one.left_out for one in found[SHOWN:] if isinstance(one, Problem))
        kinds = f" ({', '.join(f'{kind}: {n}' for kind, n in rest.items())})" if rest else ""
        lines.append(f"  ... and {len(found) - SHOWN} more{kinds}")
    return "\n".join(lines)


def _counted(found: Sequence[object], what: str) -> str:
    return f"{len(found)} {what}{'' if len(found) == 1 else 's'}"


def _spread(values: "array[float]") -> dict[str, float]:
    keys = ("minimum", "lower_quartile", "median", "upper_quartile", "maximum")
    return dict(zip(keys, np.percentile(values, (0, 25, 50, 75, 100)).round(5).tolist(), strict=True))


def main(args: argparse.Namespace) -> None:
    resolved: DataSet = resolved_of(args) | {"depth": args.depth, "depth_given": args.depth_given}
    pictures: Mapping[str, Picture]
    if args.surveys:
        pictures = Surveyed(args.surveys)
    else:
        with ThreadPoolExecutor(args.threads) as pool:
            pictures = inspect_all(image_paths(resolved), roots(resolved), pool, args.depth)
    findings = check(resolved, pictures, args.threads, args.found)
    problems = findings.problems
    drawn = ""
    if args.sheet and write_sheet(findings.suspects, args.sheet, args.depth):
        drawn = f"; suspicious outlines are drawn in {args.sheet}"
        print(drawn.removeprefix("; "), file=sys.stderr)
    if problems:
        print(f"{_counted(problems, 'problem')} in {resolved['images']}:\n{listed(problems)}", file=sys.stderr)
        if args.on_problem == "stop":
            raise UserError(
                f"{resolved['images']}: {_counted(problems, 'problem')}, listed above "
                f"(correct them, or set on_problem: leave_out to go on without these files{drawn})"
            )
    summary = Summary()
    truth = args.ground_truth or f"{os.path.splitext(args.out)[0]}.ground_truth"
    with (
        table_writer(args.out, [*MANIFEST, MASK_CONTENT]) as add,
        atomic_dir(truth) as folder,
        ThreadPoolExecutor(args.threads) as pool,
    ):
        rows = ingest(resolved, pictures, findings)
        while part := list(islice(rows, ROWS)):
            place([row for row, _ in part], len(pictures), findings.reading, folder, truth, pool.map)
            add(pd.DataFrame([row for row, _ in part], columns=[*MANIFEST, MASK_CONTENT]))
            for row, picture in part:
                summary.add(row, picture)
        figures = summary.report(len(findings.annotated - findings.without("image")))
        report = {"images_folder": resolved["images"], "layout": resolved["layout"]} | figures
        if not report["images"]:
            raise UserError(f"{resolved['images']}: no usable image is left")
    report["folders"] = findings.folders
    for line in findings.folders[:SHOWN]:
        print(f"  {line['folder']}: {line['pictures']} picture{'s' * (line['pictures'] != 1)}: {line['read_as']}")
    found: dict[str, Sequence[Problem | Notice]] = {"problems": problems, "warnings": findings.warnings}
    write_json(args.report, report | {kind: [one._asdict() for one in those] for kind, those in found.items()})
    if findings.warnings:
        print(f"{_counted(findings.warnings, 'warning')}:\n{listed(findings.warnings)}", file=sys.stderr)
    print(
        f"{report['images']} images: {report['good']} good, {report['bad']} bad, {report['unlabelled']} unlabelled; "
        f"{report['annotated']} annotated, {len(report['groups'])} groups, {_counted(problems, 'problem')}, "
        f"{_counted(findings.warnings, 'warning')}"
    )


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folder_options(parser)
    add_annotation_options(parser)
    parser.add_argument("--found", action="store_true", help="the annotation files were found by their content")
    parser.add_argument("--on-problem", choices=["stop", "leave_out"], default="stop")
    parser.add_argument("--surveys", nargs="+", metavar="FILE", help="reports of the survey stage, one per shard")
    parser.add_argument("--sheet", metavar="outlines.jpg", help="sheet of suspicious outlines")
    add_option(parser)
    parser.add_argument("--depth-given", action="store_true", help="bit depth from the config, if it is given there")
    add_threads(parser, min(4, os.cpu_count() or 1), "decoding threads")
    parser.add_argument("--ground-truth", metavar="DIR", help="folder for clean masks; replaced (OUT.ground_truth)")
    parser.add_argument("--out", required=True, metavar="manifest.csv")
    parser.add_argument("--report", required=True, metavar="ingest_report.json")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
