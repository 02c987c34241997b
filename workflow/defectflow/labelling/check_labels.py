"""Stage check_labels: list the labelled photographs whose label their own look contradicts; change none.

Each labelled photograph is compared with the good ones, never with itself. Listed are those labelled good that look bad
and those labelled bad that look good, most doubtful first; see `doubtful_labels`.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from defectflow.core import tables
from defectflow.core.arguments import add_seed, add_threads
from defectflow.core.files import atomic, stage
from defectflow.core.parallel import in_threads
from defectflow.decision.decisions import file_name
from defectflow.detection.feature_files import PatchFile, open_patches
from defectflow.labelling.doubtful_labels import doubted, doubtful_labels, vouching
from defectflow.labelling.photograph_distances import References

MOST = 2000  # photographs whose distances are kept, 75 kB each: enough to say which references stand for good ones


def main(args: argparse.Namespace) -> None:
    """Write labels_to_check.csv."""
    torch.set_num_threads(args.threads)
    columns = ["image_id", "path", "label", "group"]
    manifest = tables.read_table(args.manifest, columns, lambda part: part["label"].notna())
    known = manifest.set_index("image_id")
    good = manifest.loc[manifest["label"] == 0, "image_id"].tolist()
    files = open_patches(args.features)
    with atomic(args.looks) as temporary:
        save_file(looks(files), temporary)
    references = References(files, known["group"].to_dict(), good, args.seed)
    label = known["label"].astype(float)
    compared = references.compare(references.some(MOST), args.out.resolve().parent)
    if len(compared.image_ids) == len(references.image_ids):
        found = doubtful_labels(compared, label.reindex(compared.image_ids).to_numpy())
    else:  # which references stand for good ones is settled by the sample; of the others no distances are kept
        among = vouching(compared, label.reindex(compared.image_ids).to_numpy() == 0)
        scores = references.farthest_cells(references.image_ids, among)
        found = doubted(references.image_ids, label.reindex(references.image_ids).to_numpy(), *scores)
    name_of = {row.image_id: file_name(row.path, row.image_id) for row in manifest.itertuples()}
    name_of[""] = ""
    rows = found.assign(
        filename=[name_of[i] for i in found["image_id"]],
        nearest_good=[name_of[i] for i in found["nearest"]],
        nearest_id=found["nearest"],
    )
    tables.write_table(args.out, rows, tables.LABELS_TO_CHECK)
    print(f"{len(rows)} of {len(references.image_ids)} labels to check: {args.out}")


def looks(files: list[PatchFile]) -> dict[str, np.ndarray]:
    """What each photograph looks like: ``looks`` float32 (n, d), its mean patch at unit length, and ``image_ids``.

    These are lines of text in UTF-8, uint8.
    """
    places = {item["image_id"]: (file, i) for file in files for i, item in enumerate(file.items) if not item["copy_of"]}
    names = sorted(places)
    means = in_threads(lambda name: places[name][0].patches(places[name][1]).mean(dim=0), names)
    rows = np.empty((len(names), files[0].dimensions if names else 1), np.float32)
    for row, mean in enumerate(means):
        rows[row] = torch.nn.functional.normalize(mean, dim=0).numpy()
    text = np.frombuffer("\n".join(names).encode(), np.uint8)
    return {"looks": rows, "image_ids": text}


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.labelling.check_labels", description=__doc__)
    parser.add_argument("--features", nargs="+", required=True, help="patch files of all shards")
    parser.add_argument("--manifest", required=True, help="manifest.csv")
    add_threads(parser)
    add_seed(parser, "seed of the draw of photographs to compare with")
    parser.add_argument("--looks", type=Path, required=True, help="what each photograph looks like, to write")
    parser.add_argument("--out", type=Path, required=True, help="labels_to_check.csv to write")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
