"""Leave the patch features of a run on disk for later runs, or free their disk.

A later change that needs features which are gone computes them again: the reports of the features stage stay, and tell
whether they would be the same.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from defectflow.core.files import read_json, stage, write_json

MEGABYTE = 1_000_000
MOST = MEGABYTE  # bytes a photograph up to which "auto" keeps features


def is_kept(keep: str, size: int, images: int) -> bool:
    """Whether features of ``size`` bytes of so many images stay: "all", "none", or "auto", see `MOST`."""
    return keep == "all" or (keep == "auto" and size <= MOST * images)


def free(paths: Sequence[Path]) -> int:
    """Remove patch files, and return their size in bytes; one that is absent takes none."""
    size = 0
    for path in paths:
        if path.is_file():
            size += path.stat().st_size
            path.unlink(missing_ok=True)
    return size


def main(args: argparse.Namespace) -> None:
    """Write features.json; remove the patch files beside the reports unless they are kept."""
    reports = [read_json(path) for path in args.reports]
    total: dict[str, Any] = {key: sum(report[key] for report in reports) for key in ("images", "patches", "bytes")}
    total["dimensions"] = reports[0]["dimensions"]
    kept = is_kept(args.keep, total["bytes"], total["images"])
    share = f"{total['bytes'] / MEGABYTE / max(1, total['images']):.2f} MB a picture"
    told = f"{total['bytes'] / MEGABYTE:.1f} MB, {share}"
    if kept:
        print(f"features: {told}, stay on disk (keep_features: {args.keep})", file=sys.stderr)
    else:
        freed = free([Path(path).with_suffix(".safetensors") for path in args.reports])
        print(
            f"features: {told}; {freed / MEGABYTE:.1f} MB freed (keep_features: {args.keep})",
            file=sys.stderr,
        )
    write_json(args.out, {"keep_features": args.keep, "kept": kept, **total})


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.detection.keep_features", description=__doc__)
    parser.add_argument(
        "--reports", nargs="+", required=True, help="reports of the features stage, beside its patch files"
    )
    parser.add_argument("--keep", choices=["auto", "all", "none"], default="auto", help="which features stay")
    parser.add_argument(
        "--out", required=True, help="features.json: numbers of pictures and patches, bytes, whether kept"
    )
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
