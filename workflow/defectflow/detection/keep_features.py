"""Leave the patch features of a run on disk for later runs, or free their disk. A bundle needs the banks of its folds.

A later change that needs what is gone computes it again: the reports of the features stage and the bank of all good
images stay, and tell whether it would be the same.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from defectflow.core.files import read_json, stage, write_json

MEGABYTE = 1_000_000
MOST = MEGABYTE  # bytes a picture up to which "auto" keeps them, with the banks that stay in any case


def is_kept(keep: str, size: int, banks: int, images: int) -> bool:
    """Whether features of ``size`` bytes stay beside so many bytes of banks: "all", "none", or "auto", see `MOST`."""
    return keep == "all" or (keep == "auto" and size + banks <= MOST * images)


def free(paths: Sequence[Path]) -> int:
    """Remove files, and return their size in bytes; one that is absent takes none."""
    size = 0
    for path in paths:
        if path.is_file():
            size += path.stat().st_size
            path.unlink()
    return size


def main(args: argparse.Namespace) -> None:
    """Write features.json; remove the patch files beside the reports unless they are kept."""
    reports = [read_json(path) for path in args.reports]
    total: dict[str, Any] = {key: sum(report[key] for report in reports) for key in ("images", "patches", "bytes")}
    total["dimensions"] = reports[0]["dimensions"]
    fold_banks = args.banks.with_name("fold_banks.safetensors")
    total["fold_bank_bytes"] = fold_banks.stat().st_size if fold_banks.is_file() else 0
    size = total["bytes"]
    kept = is_kept(args.keep, size, args.banks.stat().st_size + total["fold_bank_bytes"], total["images"])
    told = f"{size / MEGABYTE:.1f} MB, {size / MEGABYTE / max(1, total['images']):.2f} MB a picture"
    done = "stay on disk"
    if not kept:
        freed = free([path.with_suffix(".safetensors") for path in args.reports])
        done = f"{freed / MEGABYTE:.1f} MB freed"
    print(f"features: {told}; {done} (keep_features: {args.keep})", file=sys.stderr)
    write_json(args.out, {"keep_features": args.keep, "kept": kept, **total})


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.detection.keep_features", description=__doc__)
    parser.add_argument(
        "--reports", type=Path, nargs="+", required=True, help="of the features stage, beside its patch files"
    )
    parser.add_argument("--banks", type=Path, required=True, help="banks.safetensors, beside the banks of folds")
    parser.add_argument("--keep", choices=["auto", "all", "none"], default="auto", help="which features stay")
    parser.add_argument(
        "--out", required=True, help="features.json: numbers of pictures and patches, bytes, whether kept"
    )
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
