"""Stage ingest: read and check every image, label and annotation of a data set; write manifest.csv and a report.

All problems are collected in one list before anything is written. ``--on-problem stop`` prints it and fails;
``leave_out`` goes on without what is broken and lists it in the report.
"""

import argparse
import os
import posixpath
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from defectflow.coco import annotations_by_image, entries_by_name, part_mask
from defectflow.dataset import Problem, image_paths, image_rows, read_coco
from defectflow.files import UserError, read_json, stage, write_json
from defectflow.images import read_mask
from defectflow.naming import image_ids, scan
from defectflow.pictures import Picture, inspect_all
from defectflow.tables import MANIFEST, write_table

SHOWN = 20  # problems printed before the rest is only counted


def check_pictures(pictures: Mapping[str, Picture]) -> list[Problem]:
    """Problems of the files themselves, and all but the first of images with equal content."""
    problems, first = [], {}
    for name, picture in pictures.items():
        if picture.problem:
            problems.append(Problem(name, picture.problem, "image"))
        elif picture.sha256 in first:
            problems.append(Problem(name, f"the same file as {first[picture.sha256]}", "image"))
        else:
            first[picture.sha256] = name
    return problems


def check_links(resolved: Mapping[str, str | None]) -> list[Problem]:
    """Links to folders are never followed: name those that could hide images."""
    folder = str(resolved["images"])
    return [
        Problem(name, "a link to a folder (not followed: copy the images)", "image")
        for name, entry in sorted(scan(folder))
        if entry.is_symlink() and entry.is_dir()
    ]


def check_annotations(
    resolved: Mapping[str, str | None], pictures: Mapping[str, Picture]
) -> tuple[list[Problem], set[str]]:
    """Problems of the COCO file, and the names of the images that have a usable annotation."""
    source = str(resolved["annotations"])
    coco = read_coco(source)
    by_image = annotations_by_image(coco, resolved["category"])
    known = {category.get("id") for category in coco["categories"]}
    entries, faults = entries_by_name(coco, pictures)
    for annotation in coco["annotations"]:
        if known and annotation.get("category_id") not in known:
            faults.append(f"annotation {annotation.get('id')} is of an unknown category")
    annotated = set()
    for name, entry in tqdm(entries.items(), desc="ingest: annotations", unit="image"):
        picture, annotations = pictures[name], by_image.get(entry["id"], [])
        if annotations and not picture.problem:
            mask, _, more = part_mask(entry, annotations, picture.raw_size, picture.orientation)
            faults += [f"{name}: {fault}" for fault in more]
            if mask is not None:
                annotated.add(name)
    listed = {entry["id"] for entry in coco["images"]}
    for image_id in sorted(by_image.keys() - listed, key=str):
        faults.append(f"{len(by_image[image_id])} annotations point at image id {image_id}, which is not in the file")
    problems = [Problem(source, fault, "annotation") for fault in faults]
    return problems, annotated


def check_masks(
    rows: Mapping[str, Mapping[str, str]], pictures: Mapping[str, Picture], each: Callable = map
) -> list[Problem]:
    """Problems of the ground-truth defect masks: absent, unreadable, of another size, at odds with the label."""

    def fault(name: str) -> str:
        path, size = rows[name]["mask"], pictures[name].size
        try:
            mask = read_mask(path)
        except UserError:
            return "is not a readable image" if os.path.exists(path) else "does not exist"
        if mask.shape != size[::-1]:
            return f"has {mask.shape[1]}x{mask.shape[0]} pixels, the picture {size[0]}x{size[1]}"
        if rows[name]["label"] == "1" and not mask.any():
            return "is empty, though the image is labelled bad"
        if rows[name]["label"] == "0" and mask.any():
            return "marks a defect, though the image is labelled good"
        return ""

    names = [name for name, row in rows.items() if row["mask"] and not pictures[name].problem]
    faults = zip(names, each(fault, names), strict=True)
    return [Problem(name, f"its mask {rows[name]['mask']} {text}", "mask") for name, text in faults if text]


def read_surveys(paths: Iterable[str]) -> dict[str, Picture]:
    """What the survey stage found on every image, by relative name, in the order of the names."""
    found = {
        name: Picture(**picture | {"raw_size": tuple(picture["raw_size"])})
        for path in paths
        for name, picture in read_json(path).items()
    }
    return dict(sorted(found.items()))


def ingest(
    resolved: Mapping[str, str | None], threads: int, surveyed: Mapping[str, Picture] | None = None
) -> tuple[pd.DataFrame, dict[str, Any], list[Problem]]:
    """Read a data set.

    Args:
        resolved: layout, images, annotations, labels, category, as ``preflight.resolve`` returns them.
        threads: that decode images and masks.
        surveyed: what is known of each image already; by default every image is decoded here.

    Returns:
        manifest (columns MANIFEST, without what is broken), report, problems.

    Raises:
        UserError: a file that all depends on is absent or malformed.
    """
    folder = str(resolved["images"])
    paths = {} if surveyed else image_paths(resolved)
    names = list(surveyed or paths)
    rows, problems = image_rows(resolved, names)
    if resolved["annotations"]:
        annotations_by_image(read_coco(resolved["annotations"]), resolved["category"])
    with ThreadPoolExecutor(threads) as pool:
        pictures = surveyed or inspect_all(paths, folder, pool)
        problems = check_links(resolved) + check_pictures(pictures) + problems
        problems += [
            Problem(name, "labelled bad, though it is in the training split (only good images train)", "image")
            for name, row in rows.items()
            if row["split"] == "train" and row["label"] == "1"
        ]
        annotated: set[str] = set()
        if resolved["annotations"]:
            more, annotated = check_annotations(resolved, pictures)
            problems += more
        problems += check_masks(rows, pictures, pool.map)

    out = {problem.file for problem in problems if problem.left_out == "image"}
    no_mask = {problem.file for problem in problems if problem.left_out == "mask"}
    ids = image_ids(names)
    kept = sorted((name for name in names if name not in out), key=ids.get)
    sizes = [pictures[name].size for name in kept]
    columns = {  # lists, not a dict for each row: a data set may have many
        "image_id": [ids[name] for name in kept],
        "path": [posixpath.join(folder, name) for name in kept],
        "sha256": [pictures[name].sha256 for name in kept],
        "width": [width for width, _ in sizes],
        "height": [height for _, height in sizes],
        **{column: [rows[name][column] for name in kept] for column in ("label", "defect_type", "group", "split")},
        "mask": ["" if name in no_mask else rows[name]["mask"] for name in kept],
    }
    manifest = pd.DataFrame(columns, columns=MANIFEST)
    report = summary(manifest, [pictures[name] for name in kept])
    report["annotated"] = len(annotated & set(kept))
    report = {"images_folder": folder, "layout": resolved["layout"]} | report
    report["problems"] = [problem._asdict() for problem in problems]
    return manifest, report, problems


def summary(manifest: pd.DataFrame, pictures: Iterable[Picture]) -> dict[str, Any]:
    """Counts, sizes and the spread of exposure of a manifest and its pictures (luminance 0 to 255)."""
    pictures = list(pictures)
    labels = Counter(manifest["label"])
    groups = Counter(manifest["group"])
    own = groups.pop("", 0)
    exposure = {}
    if pictures:
        exposure = {
            "mean_luminance": _spread([picture.luminance for picture in pictures]),
            "overexposed_share": _spread([picture.clipped for picture in pictures]),
        }
    sizes = Counter(f"{picture.size[0]}x{picture.size[1]}" for picture in pictures)
    defects = Counter(manifest.loc[manifest["label"] == "1", "defect_type"])
    return {
        "images": len(manifest),
        "good": labels["0"],
        "bad": labels["1"],
        "unlabelled": labels[""],
        "annotated": 0,
        "with_defect_mask": int((manifest["mask"] != "").sum()),
        "rotated_by_exif": sum(picture.orientation != 1 for picture in pictures),
        "groups": dict(sorted(groups.items())),
        "images_without_group": own,
        "defect_types": dict(sorted(defects.items())),
        "splits": dict(sorted(Counter(s for s in manifest["split"] if s).items())),
        "sizes": dict(sorted(sizes.items())),
        "exposure": exposure,
    }


def tell(problems: Iterable[Problem]) -> str:
    """The list of problems as lines for a terminal, long ones cut."""
    problems = list(problems)
    lines = [f"  {problem.file}: {problem.text}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        rest = Counter(problem.left_out for problem in problems[SHOWN:])
        lines.append(f"  ... and {len(problems) - SHOWN} more ({', '.join(f'{k}: {n}' for k, n in rest.items())})")
    return "\n".join(lines)


def _spread(values: Iterable[float]) -> dict[str, float]:
    keys = ("minimum", "lower_quartile", "median", "upper_quartile", "maximum")
    return dict(zip(keys, np.percentile(list(values), (0, 25, 50, 75, 100)).round(5).tolist(), strict=True))


def main(args: argparse.Namespace) -> None:
    resolved = {
        "layout": "mvtec" if args.mvtec else "coco",
        "images": (args.mvtec or args.images).rstrip("/") or "/",
        "annotations": args.annotations,
        "labels": args.labels,
        "category": args.category,
    }
    surveyed = read_surveys(args.surveys) if args.surveys else None
    manifest, report, problems = ingest(resolved, args.threads, surveyed)
    if problems:
        print(f"{len(problems)} problems in {resolved['images']}:\n{tell(problems)}", file=sys.stderr)
        if args.on_problem == "stop":
            raise UserError(
                f"{resolved['images']}: {len(problems)} problems, listed above "
                "(correct them, or set on_problem: leave_out to go on without these files)"
            )
    if manifest.empty:
        raise UserError(f"{resolved['images']}: no usable image is left")
    write_table(args.out, manifest, MANIFEST)
    write_json(args.report, report)
    print(
        f"{report['images']} images: {report['good']} good, {report['bad']} bad, {report['unlabelled']} unlabelled; "
        f"{report['annotated']} annotated, {len(report['groups'])} groups, {len(problems)} problems"
    )


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", metavar="DIR", help="folder of photographs")
    source.add_argument("--mvtec", metavar="DIR", help="folder with train/good, test/<defect>, ground_truth/<defect>")
    parser.add_argument("--annotations", metavar="FILE", help="COCO file with the outlines of the part")
    parser.add_argument("--labels", metavar="FILE", help="labels.csv")
    parser.add_argument("--category", help="name of the COCO category to use (default: all)")
    parser.add_argument("--on-problem", choices=["stop", "leave_out"], default="stop")
    parser.add_argument("--surveys", nargs="+", metavar="FILE", help="reports of the survey stage, one per shard")
    parser.add_argument("--threads", type=int, default=min(4, os.cpu_count() or 1), help="decoding threads")
    parser.add_argument("--out", required=True, metavar="manifest.csv")
    parser.add_argument("--report", required=True, metavar="ingest_report.json")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
