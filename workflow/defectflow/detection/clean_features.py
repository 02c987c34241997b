"""Free the disk that the patch features and the banks of folds of all runs on a data set take; their reports stay.

Nothing becomes stale: a later change that needs features computes them again.
"""

import argparse
import sys
from pathlib import Path

from defectflow.core.files import UserError, stage

PATTERNS = "*/*/*/features/*.safetensors", "*/*/*/fold_banks.safetensors"  # segmenter, isolation, detector


def main(args: argparse.Namespace) -> None:
    """Remove the patch files below the folders."""
    for folder in map(Path, args.folders):
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder (name a folder of results, results/<data set>)")
        size = count = 0
        for path in sorted(path for pattern in PATTERNS for path in folder.glob(pattern)):
            size, count = size + path.stat().st_size, count + 1
            path.unlink()
        print(f"{folder}: {count} files of features and banks of folds, {size / 1e6:.1f} MB freed", file=sys.stderr)


def build_parser() -> argparse.ArgumentParser:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.detection.clean_features", description=__doc__)
    parser.add_argument("folders", nargs="+", help="folders of results, results/<data set>")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
