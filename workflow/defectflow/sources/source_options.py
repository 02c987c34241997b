"""Command-line options that say where the photographs of a data set are."""

import argparse

from defectflow.core.records import DataSet


def add_folder_options(parser: argparse.ArgumentParser) -> None:
    """Options that say which files are photographs, and what their folders mean."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", metavar="DIR", help="folder of photographs")
    source.add_argument("--mvtec", metavar="DIR", help="folder whose subfolders give the labels: train/good, good")
    parser.add_argument("--path", metavar="DIR", help="folder of the whole data set, which links may lead to")
    parser.add_argument("--links", nargs="+", default=[], metavar="DIR", help="more folders that links may lead to")
    parser.add_argument(
        "--good", nargs="+", default=[], metavar="NAME", help="more names for folders of good photographs"
    )


def add_annotation_options(parser: argparse.ArgumentParser) -> None:
    """Options for the annotations and labels of the photographs."""
    parser.add_argument(
        "--annotations", nargs="+", metavar="FILE", help="files or folders with the outlines of the part"
    )
    parser.add_argument("--labels", metavar="FILE", help="labels.csv")
    parser.add_argument("--feedback", metavar="FILE", help="table of what people said about verdicts")
    parser.add_argument("--category", help="name of the category, or label, to use (default: all)")


def resolved_of(args: argparse.Namespace) -> DataSet:
    """The data set that the options describe, as ``preflight.resolve`` returns it."""
    files = getattr(args, "annotations", None) or [None]
    return {
        "layout": "mvtec" if args.mvtec else "coco",
        "images": (args.mvtec or args.images).rstrip("/") or "/",
        "path": args.path,
        "annotations": files[0] if len(files) == 1 else files,
        "labels": getattr(args, "labels", None),
        "category": getattr(args, "category", None),
        "good": args.good,
        "links": args.links,
        "feedback": getattr(args, "feedback", None),
    }
