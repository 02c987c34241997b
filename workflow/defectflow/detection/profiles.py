"""The outline of each photograph's part in the tolerance band that judged it, and where it leaves that, as charts."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from tqdm import tqdm

from defectflow.config.settings_flag import add_settings, read_settings
from defectflow.core import tables
from defectflow.core.arguments import add_threads
from defectflow.core.bank_files import BankFile
from defectflow.core.files import UserError, atomic_dir, stage
from defectflow.detection.feature_files import PatchFile
from defectflow.drawing.chart_files import save_png
from defectflow.drawing.charts import width_profile
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
    detectors: dict[str, Profile] = {}
    with atomic_dir(args.out) as folder:
        for features, scores in zip(args.features, args.scores, strict=True):
            file, table = PatchFile(features), tables.read_table(scores, tables.SCORES)
            bank_of = table[table["copy_of"] == ""].set_index("image_id")["bank"]
            grid = tuple(file.config["grid"])
            for item, about in enumerate(tqdm(file.items, desc="draw", unit="image")):
                image_id = about["image_id"]
                if image_id not in bank_of.index or image_id not in judged.index:
                    continue
                name = bank_of[image_id]
                if name not in detectors:
                    banks = BankFile(args.banks, "pt")
                    banks = banks if name == "all" else BankFile(args.fold_banks, "pt", banks)
                    detector = method(banks.tensors(name), banks.settings, settings)
                    assert isinstance(detector, Profile)
                    detectors[name] = detector
                own, row = detectors[name], judged.loc[image_id]
                found = measured(file.patches(item), file.position(item), grid, settings)
                limit = UNTOLD if math.isnan(row["threshold"]) else float(row["threshold"])
                title = f"{Path(row['filename']).name}: {row['raw_score']:.1f} units, allowed {limit:.1f}"
                save_png(
                    Path(folder, f"{image_id}.png"), width_profile(title, found.widths, own.mean, own.unit * limit)
                )


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.detection.profiles", description=__doc__)
    parser.add_argument("--features", nargs="+", required=True, help="patch files of all shards")
    parser.add_argument("--scores", nargs="+", required=True, help="their SCORES tables")
    parser.add_argument("--banks", required=True, help="banks of the fit stage")
    parser.add_argument("--fold-banks", required=True, help="its file with the banks of the folds")
    parser.add_argument("--predictions", required=True, help="predictions.csv, for thresholds and names")
    add_settings(parser, METHODS, "score")
    add_threads(parser)
    parser.add_argument("--out", required=True, help="folder to write")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
