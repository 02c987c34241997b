"""Whether patches are better compared with good patches from near their own place alone.

    snakemake --cores all --config keep_features=all ...
    python benchmarks/neighbourhood.py results/demo/template/crop/patchcore results/demo/splits.csv

Reads the patch features of a run with one shard. Each fold's photographs are compared with 24,000 patches of the good
photographs of other folds, drawn at random; the score of a photograph is the largest distance of its patches (every
second one). A place is that in the box around the part, in units of its longer side, so that parts are registered by
their box. Two ways: only good patches within a radius count; or places are added to the patches, so weighed that the
radius is as far as the median distance of a good patch to the nearest one.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from defectflow.core.tables import SPLITS, read_table
from defectflow.detection.feature_files import PatchFile

RADII = (0.3, 0.15, 0.08, 0.04)
PATCHES = 24_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run whose features were kept")
    parser.add_argument("splits", type=Path, help="splits.csv of its data set")
    args = parser.parse_args()
    torch.set_num_threads(1)
    file, splits = PatchFile(args.run / "features/0.safetensors"), read_table(args.splits, SPLITS).set_index("image_id")
    splits, rng = splits[splits["detection"] == "fold"], np.random.default_rng(0)
    data = {}
    for number, item in enumerate(file.items):
        if item["image_id"] in splits.index and not item["copy_of"]:
            cells = file.position(number).numpy()
            place = np.stack(np.divmod(cells, file.config["grid"][1]), axis=1).astype(float)
            least, most = place.min(axis=0), place.max(axis=0)
            place = (place - (least + most) / 2) / max(1.0, (most - least).max())
            data[item["image_id"]] = file.patches(number), torch.from_numpy(place).float()
    scores: dict[str, dict[str, float]] = {}
    for fold in sorted(set(splits["fold"])):
        names = splits.index[(splits["fold"] != fold) & (splits["label"] == 0)]
        drawn = [(name, rng.permutation(len(data[name][0]))[: PATCHES // len(names)]) for name in names]
        bank, there = (torch.cat([data[name][part][rows] for name, rows in drawn]) for part in (0, 1))
        some = torch.from_numpy(rng.permutation(len(bank))[:500])
        usual = torch.cdist(bank[some], bank).kthvalue(2, dim=1).values.median()
        for name in splits.index[splits["fold"] == fold]:
            patches, here = (values[::2] for values in data[name])
            squares, away = torch.cdist(patches, bank).square(), torch.cdist(here, there)
            ways = {"everywhere": squares}
            for radius in RADII:
                ways[f"within {radius}"] = squares.masked_fill(away > radius, torch.inf)
                ways[f"added, {radius}"] = squares + (away * usual / radius).square()
            for way, found in ways.items():
                nearest = found.min(dim=1).values
                scores.setdefault(way, {})[name] = float(nearest[nearest.isfinite()].max().sqrt())
    for way, found in scores.items():
        print(f"| {way} | {roc_auc_score(splits.loc[list(found), 'label'], list(found.values())):.3f} |")


if __name__ == "__main__":
    main()
