"""What the stages that fit detectors share: the patches they may learn from."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from defectflow.backbones.network_input import scales_of
from defectflow.core.files import UserError
from defectflow.core.parallel import can_fork, in_threads
from defectflow.core.tables import read_table
from defectflow.detection.feature_files import PatchFile
from defectflow.methods.detector import Detector, Fit, GoodPatches, scale_of
from defectflow.methods.picture_detector import PictureDetector

SCORED_ONLY = ("perturbed", "synthetic")  # kinds of copies that nothing is learned from
_FORKED = 600_000  # patches in all processes together: each of these adds 3 to 4 kB


def leaving_out(splits: pd.DataFrame, path: str | None) -> pd.DataFrame:
    """``splits``, columns SPLITS, without the label of each image in the table at ``path``: it is not learned from."""
    if path is None:
        return splits
    left_out = read_table(path, ["image_id"])["image_id"]
    return splits.assign(label=splits["label"].mask(splits["image_id"].isin(left_out)))


def load_good(
    files: Sequence[PatchFile],
    splits: pd.DataFrame,
    method: type[Detector],
    settings: Any,
    seed: int = 0,
) -> GoodPatches:
    """Read the patches of the images that may be learned from, and of no others, as far as ``method`` keeps them.

    Images whose mask is doubtful are left out, and images without the part. Where the former are more than half, they
    are in: then the doubt is about all masks of the set, and a bank of the rest would be one of chance.

    Args:
        files: patch files of all shards.
        splits: columns SPLITS, at least of the good images.
        method, settings, seed: see `Detector.fit`.

    Raises:
        UserError: none is good.
    """
    by_id = splits.set_index("image_id")
    chosen, doubted = list[tuple[Any, ...]](), list[tuple[Any, ...]]()
    absent = 0
    for file in files:
        for i, item in enumerate(file.items):
            source = item["copy_of"] or item["image_id"]
            if source not in by_id.index:  # left out by ingest, as the second of two equal files
                continue
            row = by_id.loc[source]
            if row["label"] != 0 or row["detection"] not in ("fold", "train") or item["kind"] in SCORED_ONLY:
                continue
            if not file.present[i]:
                absent += 1
                continue
            entry = (item["image_id"], file, i, source, row["fold"], row["group_fold"], bool(item["copy_of"]))
            (doubted if item.get("doubtful") else chosen).append(entry)
    left_out = len(doubted)
    if len(doubted) > len(chosen):
        chosen, left_out = chosen + doubted, 0
        print(
            f"WARNING: the masks of {len(doubted)} of {len(chosen)} good pictures are doubtful: they are learned from "
            "as well (look at the masks, and outline more photographs)",
            file=sys.stderr,
        )
    if not chosen:
        raise UserError("fit: no good image to learn from (label good images 0 in the labels file)")
    chosen.sort(key=lambda entry: entry[0])  # the banks do not depend on the number of shards
    available = [file.count(i) for _, file, i, *_ in chosen]
    counts = method.counts(available, settings)

    grid, *coarser = (scale.grid for scale in scales_of(files[0].config))

    def read(entry: tuple[Any, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        (_, file, i, *_), count = entry
        whole, position = file.patches(i), file.position(i)
        mean = whole.mean(dim=0)
        if not coarser:
            return mean, *method.condense(whole, position, count, settings, seed)
        scale = scale_of(position, (grid, *coarser))
        counts = torch.bincount(scale, minlength=len(coarser) + 1) * count // len(whole)
        counts[0] += count - counts.sum()
        parts = [
            method.condense(whole[scale == k], position[scale == k], int(own), settings, seed)
            for k, own in enumerate(counts)
        ]
        return mean, *(torch.cat(values) for values in zip(*parts, strict=True))

    means = []
    patches = torch.empty(sum(counts), files[0].dimensions)
    position = torch.empty(len(patches), dtype=torch.int64)
    begin = 0
    for mean, part, places in tqdm(in_threads(read, zip(chosen, counts, strict=True)), total=len(chosen), desc="read"):
        patches[begin : begin + len(part)] = part
        position[begin : begin + len(part)] = places
        begin += len(part)
        means.append(mean)
    owner = torch.repeat_interleave(torch.arange(len(chosen)), torch.tensor(counts))
    images = pd.DataFrame([entry[3:] for entry in chosen], columns=["image_id", "fold", "group_fold", "is_copy"])
    means = torch.stack(means)
    return GoodPatches(patches, position, owner, images, absent, sum(available), means, grid, left_out, coarser)


def trainings_beside(out: str | Path) -> Path:
    """Folder for trainings that an interrupted stage goes on from, until it has written ``out``."""
    return Path(f"{out}.training")


def learner(
    method: type[Detector],
    good: GoodPatches,
    settings: Any,
    seed: int,
    device: str | torch.device,
    trainings: Path | None = None,
) -> Fit:
    """The function that learns banks, see `Detector.fit`; one that trains networks keeps them in ``trainings``."""
    if issubclass(method, PictureDetector):
        return method.fit(good, settings, seed, device, trainings)
    return method.fit(good, settings, seed, device)


def by_forks(good: GoodPatches, device: str | torch.device, banks: int) -> bool:
    """Whether to learn so many banks one on each core, each in a process, or one after the other with all cores.

    The first takes half of the time, as long as the patches are few; the banks are the same.
    """
    threads = torch.get_num_threads()
    few = len(good.patches) * threads <= _FORKED
    return few and min(threads, banks) > 1 and torch.device(device).type == "cpu" and can_fork()
