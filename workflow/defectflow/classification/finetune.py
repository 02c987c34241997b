"""Stage finetune: a network trained on the photographs of good parts and kinds, and what it makes of each of them.

One network is trained for every fold, without its photographs, and one on all. Each starts from the weights of the
backbone and learns with flips, small shifts and changes of light. A photograph is described by the mean and the maximum
of the network's feature maps. An interrupted stage goes on after the last whole epoch.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from torch import nn

from defectflow.backbones.input_statistics import input_statistics
from defectflow.backbones.network_input import Scale, fit_picture
from defectflow.backbones.networks import create_backbone
from defectflow.classification.descriptor_files import Descriptors, write_descriptors
from defectflow.classification.heads.fit_head import effective_weights
from defectflow.classification.kind_folds import sample
from defectflow.classification.settings import KindSettings
from defectflow.config.settings_flag import add_settings, read_settings
from defectflow.core.arguments import add_device, add_seed, add_threads
from defectflow.core.device import pick_device
from defectflow.core.files import UserError, sha256_of, stage
from defectflow.core.tables import ISOLATED, read_table
from defectflow.dataset_card.photographs import GOOD
from defectflow.images.read_write import read_checked
from defectflow.training.checkpoints import OtherSettings, load_checkpoint, save_checkpoint
from defectflow.training.loop import Loop

COLUMNS = ["image_id", "path", "group", "label", "defect_type"]
BATCH = 16
SHIFT = 0.05  # of the side of a picture, at most
LIGHT = 0.15  # by which brightness and contrast change, at most
MOMENTUM, DECAY = 0.9, 0.0005


class PooledNetwork(nn.Module):
    """A backbone and a linear layer on the mean and the maximum of its feature maps.

    Args:
        backbone: as `create_backbone` makes it; its statistics of batches stay as they are.
        name: of the backbone, for the statistics of its input.
        classes: number of classes.
    """

    def __init__(self, backbone: nn.Module, name: str, classes: int) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(True)
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in input_statistics(name))
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        with torch.no_grad():
            self.width = self.embed(torch.zeros(1, 3, 64, 64)).shape[1]
        self.classify = nn.Linear(self.width, classes)
        nn.init.zeros_(self.classify.weight)
        nn.init.zeros_(self.classify.bias)

    def embed(self, pictures: torch.Tensor) -> torch.Tensor:
        """Descriptors, float (n, d), of pictures, float (n, 3, height, width) in [0, 1]."""
        maps = self.backbone((pictures - self.mean) / self.std)
        return torch.cat([pool for one in maps for pool in (one.mean(dim=(2, 3)), one.amax(dim=(2, 3)))], dim=1)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Log-odds, float (n, classes)."""
        scores: torch.Tensor = self.classify(self.embed(pictures))
        return scores


def varied(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A picture flipped, shifted and lit differently, float32 (height, width, 3) in [0, 1], of one in that range."""
    flips = rng.integers(0, 2, 2)
    picture = picture[:: -1 if flips[0] else 1, :: -1 if flips[1] else 1]
    shift = rng.uniform(-SHIFT, SHIFT, 2) * picture.shape[1::-1]
    move = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
    moved = cv2.warpAffine(np.ascontiguousarray(picture), move, picture.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    gain, offset = 1 + rng.uniform(-LIGHT, LIGHT), rng.uniform(-LIGHT, LIGHT) / 2
    result: np.ndarray = np.where(moved > 0, np.clip(moved * gain + offset, 0, 1), 0).astype(np.float32)
    return result


def batch_of(pictures: Sequence[np.ndarray]) -> torch.Tensor:
    """Pictures float (height, width, 3) as a batch, float32 (n, 3, height, width)."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def train(
    network: PooledNetwork,
    load: Callable[[int], np.ndarray],
    rows: np.ndarray,
    labels: np.ndarray,
    settings: KindSettings,
    seed: int,
    title: str,
    state: tuple[Path, dict[str, Any]],
) -> None:
    """Train on ``rows``, whole epochs, in place; goes on from the state of an interrupted run of the same setting.

    Args:
        network: on its device.
        load: picture of a row, float (height, width, 3) in [0, 1].
        rows: int (n,), photographs to learn from.
        labels: int, class of every row.
        settings: epochs, learning_rate, optimizer.
        seed: of the order and of the variation.
        title: of the progress bar.
        state: file of the state, and the setting that it belongs to.
    """
    path, setting = state
    device = next(network.parameters()).device
    rate = settings.learning_rate
    optimizer: torch.optim.Optimizer = (
        torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=DECAY)
        if settings.optimizer == "adam"
        else torch.optim.SGD(network.parameters(), lr=rate, momentum=MOMENTUM, weight_decay=DECAY)
    )
    counts = np.maximum(np.bincount(labels[rows], minlength=network.classify.out_features), 1)
    weights = torch.from_numpy(effective_weights(counts).astype(np.float32)).to(device)
    try:
        saved = load_checkpoint(path, setting, str(device))
    except OtherSettings:
        saved = None
    if saved:
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
    per_epoch = -(-len(rows) // BATCH)
    loop = Loop(optimizer, total_steps=settings.epochs * per_epoch, steps=saved["steps"] if saved else 0, title=title)
    order = rows
    for step in loop:
        epoch, number = divmod(step, per_epoch)
        if number == 0:
            order = np.random.default_rng([seed, epoch]).permutation(rows)
        some = order[number * BATCH : (number + 1) * BATCH]
        rng = np.random.default_rng([seed, epoch, number])
        pictures = batch_of([varied(load(row), rng) for row in some]).to(device)
        scores, truth = network(pictures), torch.from_numpy(labels[some]).to(device)
        loop.learn(nn.functional.cross_entropy(scores, truth, weights))
        if loop.steps % per_epoch == 0:
            state_now = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "steps": loop.steps}
            save_checkpoint(path, setting, state_now)


def describe(
    items: pd.DataFrame, load: Callable[[int], np.ndarray], settings: KindSettings, args: argparse.Namespace
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Train a network for each fold and one for all; see `Descriptors` for held_out and every.

    The last value: whether the backbone began with trained weights.
    """
    device = pick_device(args.device)
    known = items[items["class"] != ""]
    names = [GOOD, *sorted(set(known["class"]) - {GOOD})]
    labels = np.array([names.index(name) for name in known["class"]])
    folds = known["fold"].to_numpy(int)
    about = {
        "settings": json.loads(args.settings), "seed": args.seed,
        "weights": sha256_of(args.weights) if args.weights else "",
        "pictures": [sha256_of(path) for path in items["image"]], "classes": known["class"].tolist(),
    }  # fmt: skip
    found, trained = [], True
    for fold in [*np.unique(folds).tolist(), None]:
        backbone = create_backbone(
            settings.backbone, settings.layers, args.weights, allow_download=args.allow_downloads, seed=args.seed
        )
        trained = bool(backbone.trained)
        network = PooledNetwork(backbone, settings.backbone, len(names)).to(device)
        rows = np.arange(len(known)) if fold is None else np.flatnonzero(folds != fold)
        path = args.out.with_name(f"{args.out.stem}.{'all' if fold is None else fold}.state")
        title = "finetune, on all" if fold is None else f"finetune, without fold {fold}"
        train(network, load, rows, labels, settings, args.seed, title, (path, about | {"fold": fold}))
        wanted = range(len(items) if fold is None else len(known))
        with torch.no_grad():
            vectors = [network.embed(batch_of([load(row)]).to(device))[0].cpu().numpy() for row in wanted]
        found.append(np.stack(vectors).astype(np.float32))
    return np.stack(found[:-1]), found[-1], trained


def main(args: argparse.Namespace) -> None:
    """Write the file of descriptors; the states of the trainings go when it is whole."""
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    settings = read_settings(args.settings, KindSettings, "features", "finetune")
    manifest = read_table(args.manifest, COLUMNS)
    chosen = sample(manifest, args.seed)
    isolated = pd.concat([read_table(path, ISOLATED) for path in args.tables])
    isolated = isolated[isolated["copy_of"] == ""].set_index("image_id")
    missing = sorted(set(chosen.table["image_id"]) - set(isolated.index))
    if missing:
        raise UserError(f"{missing[0]}: it has no isolated picture (run isolate again)")
    new = manifest[manifest["label"].isna() & manifest["image_id"].isin(isolated.index)].sort_values("image_id")
    new = new[["image_id", "path", "group"]].assign(**{"class": "", "fold": -1})
    items = pd.concat([chosen.table, new], ignore_index=True)
    items["image"] = isolated.loc[items["image_id"], "image"].to_numpy()
    side = settings.image_size

    def load(row: int) -> np.ndarray:
        image = read_checked(items["image"].iloc[row])
        window = (0, 0, image.shape[1], image.shape[0])
        picture = fit_picture(image, None, window, (side, side), [Scale(1, (1, 1))], 0).picture
        assert picture is not None
        return np.ascontiguousarray(picture).astype(np.float32) / 255

    held_out, every, trained = describe(items, load, settings, args)
    network = {
        "backbone": settings.backbone, "trained": trained, "layers": settings.layers, "input_size": [side, side],
        "finetuned": True,
    }  # fmt: skip
    about = {"network": network, "unit": chosen.unit, "left_out": chosen.left_out, "unnamed": chosen.unnamed}
    none = np.empty((0, 0), np.float16), np.empty(0, np.float32)
    write_descriptors(args.out, Descriptors(held_out, every, items, about, *none))
    for path in args.out.parent.glob(f"{args.out.stem}.*.state"):
        path.unlink()


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.classification.finetune", description=__doc__)
    parser.add_argument("--tables", nargs="+", required=True, help="ISOLATED tables of all shards")
    parser.add_argument("--manifest", required=True, help="manifest.csv")
    parser.add_argument("--weights", help="local .safetensors or .pth file (default: the included weights, if any)")
    parser.add_argument("--allow-downloads", action="store_true", help="allow timm to download the weights of the tag")
    add_settings(parser, KindSettings, "features", "finetune")
    add_seed(parser, "of folds, untrained weights, the order and the variation")
    add_device(parser)
    add_threads(parser)
    parser.add_argument("--out", type=Path, required=True, help="file of descriptors to write (.safetensors)")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
