"""The outline of each photograph's part in the tolerance band that judged it, and where it leaves that, as charts."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch

from defectflow.config.settings_flag import read_settings
from defectflow.core import tables
from defectflow.core.files import UserError, atomic_dir, stage
from defectflow.detection.scored_photographs import add_arguments, scored_photographs
from defectflow.drawing.chart_files import save_png
from defectflow.drawing.histograms_and_curves import width_profile
from defectflow.methods.method_settings import METHODS
from defectflow.methods.registry import detector_class

UNTOLD = 3.0  # units that the band is drawn with where the run has no threshold


def main(args: argparse.Namespace) -> None:
    """Write a PNG for each photograph: the band is as wide as the threshold by which it was judged."""
    settings = read_settings(args.settings, METHODS, "score")
    if settings.name != "profile":
        raise UserError(f"profiles: method {settings.name} measures no outlines (profile does)")
    from defectflow.methods.profile.tolerance_bands import Profile, measured

    method = detector_class(settings.name)
    torch.set_num_threads(args.threads)
    judged = tables.read_table(args.predictions, ["image_id", "filename", "raw_score", "threshold"]).set_index(
        "image_id"
    )
    with atomic_dir(args.out) as folder:
        for image_id, file, item, grid, detector in scored_photographs(args, method, settings):
            if image_id not in judged.index:
                continue
            assert isinstance(detector, Profile)
            row = judged.loc[image_id]
            found = measured(file.patches(item), file.position(item), grid, settings)
            limit = UNTOLD if math.isnan(row["threshold"]) else float(row["threshold"])
            title = f"{Path(row['filename']).name}: {row['raw_score']:.1f} units, allowed {limit:.1f}"
            chart = width_profile(title, found.widths, detector.mean, detector.unit * limit)
            save_png(Path(folder, f"{image_id}.png"), chart)


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.detection.profiles", description=__doc__)
    add_arguments(parser)
    parser.add_argument("--predictions", required=True, help="predictions.csv, for thresholds and names")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
