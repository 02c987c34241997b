"""Train `part-nano`: `python -m defectflow.pretraining.pretrain_part --pool DIR --photographs DIR --out DIR`.

Heads on patch-nano's frozen features learn which pixels belong to the thing that a photograph is of: from annotated
photographs whose masks are a usable foreground, their objects pasted elsewhere, rendered parts, a teacher's soft masks
of the pool where there is a teacher, and surfaces without a thing. Each head starts from other numbers and never sees
its own fifth of the series and of the pool. A tenth of both is held out: the figures come from those alone.
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from defectflow.backbones.patch_nano import PATCH_NANO_WEIGHTS, fold_norms
from defectflow.config.code_hash import code_hash
from defectflow.core.device import autocast, keep_memory, pick_device
from defectflow.core.files import atomic, sha256_of, stage, write_json
from defectflow.images.read_write import write_png
from defectflow.parts.figure_ground import HEADS, SIDE, FigureGround, Heads, Trunk, read_heads, to_input
from defectflow.pretraining.annotated_photographs import Photograph, read_photographs, split
from defectflow.pretraining.checkpoints import add_options, save_checkpoint
from defectflow.pretraining.figure_card import SURFACES, figure_rows, means, surface_rows, write_card
from defectflow.pretraining.figure_scenes import FigurePicture, Material, contact_sheet, figure_batch, material, teach
from defectflow.pretraining.optimizer import MuonAdamW, learning_rate
from defectflow.pretraining.photograph_figures import sampled
from defectflow.pretraining.sam_card import write_notice
from defectflow.pretraining.training_images import load_pool
from defectflow.training.checkpoints import load_or_set_aside
from defectflow.training.loop import Loop
from defectflow.training.losses import dice_loss

KEPT = 100  # steps whose pictures are reused: making them takes longer than training on them
AGAIN = 2  # earlier steps reused with the new pictures
FIRST_SIZE, FIRST_SHARE = 256, 0.6  # small pictures in the first part of the run: twice as many in the same time
CURVE = 24  # held-out photographs of each source, and surfaces, for a point of the curve


@dataclass(frozen=True)
class Seen:
    """Training data of the heads from one step's pictures.

    Attributes:
        maps: Of the trunk, bfloat16 (n, channels, h, w) each.
        figure, known: float32 (n, size / 4, size / 4), see `FigurePicture`.
        surface: float32 (n,) in {0, 1}.
        fold: int64 (n,).
    """

    maps: list[Tensor]
    figure: Tensor
    known: Tensor
    surface: Tensor
    fold: Tensor


def joined(parts: list[Seen]) -> Seen:
    """The pictures of several steps as one batch."""
    maps = [torch.cat(each).float() for each in zip(*(p.maps for p in parts), strict=True)]
    rest = [torch.cat([getattr(p, name) for p in parts]) for name in ("figure", "known", "surface", "fold")]
    return Seen(maps, *rest)


class Looker:
    """Makes the pictures of a step, computes the maps of the trunk, and keeps those of the last steps."""

    def __init__(self, seed: int, made_of: Material, count: int, device: torch.device, workers: int) -> None:
        self.seed, self.made_of, self.count, self.device = seed, made_of, count, device
        self.trunk = Trunk().to(device)
        self.kept: OrderedDict[int, Seen] = OrderedDict()
        self.pool = ThreadPoolExecutor(workers)
        self.ahead: dict[tuple[int, int], Future[list[FigurePicture]]] = {}
        self.workers = workers

    def pictures(self, step: int, size: int) -> list[FigurePicture]:
        """The pictures of ``step``; those of the next steps are started in the background."""
        for number in range(step, step + self.workers + 1):
            if (number, size) not in self.ahead and number not in self.kept:
                self.ahead[number, size] = self.pool.submit(
                    figure_batch, self.seed, number, self.made_of, self.count, size
                )
        return self.ahead.pop((step, size)).result()

    @torch.no_grad()
    def __call__(self, step: int, size: int) -> Seen:
        """Training data from the pictures of ``step``, made with a side of ``size`` px."""
        if step not in self.kept:
            made = self.pictures(step, size)
            x = to_input(np.stack([one.image for one in made]), self.device)
            with autocast(self.device, on_cpu=True):
                maps = [m.bfloat16() for m in self.trunk(x)]
            masks = [torch.from_numpy(np.stack([getattr(one, name) for one in made])) for name in ("figure", "known")]
            small = [F.avg_pool2d(mask[:, None], 4)[:, 0].to(self.device) for mask in masks]
            surface = torch.tensor([float(one.surface) for one in made], device=self.device)
            fold = torch.tensor([one.fold for one in made])
            self.kept[step] = Seen(maps, small[0], (small[1] > 0.99).float(), surface, fold)
            while len(self.kept) > KEPT + 1:
                self.kept.popitem(last=False)
        return self.kept[step]

    def close(self) -> None:
        """End the threads."""
        self.pool.shutdown(cancel_futures=True)


def heads_loss(heads: Heads, seen: Seen) -> Tensor:
    """Mean loss of the heads, each on the pictures of all folds except its own."""
    maps = heads.standardised(seen.maps)
    losses = []
    for number, head in enumerate(heads.heads):
        mine = torch.nonzero(seen.fold != number)[:, 0].to(seen.figure.device)
        if not len(mine):
            continue
        logits, surface = head([m[mine] for m in maps])
        logits, known, figure = logits.float(), seen.known[mine], seen.figure[mine]
        entropy = F.binary_cross_entropy_with_logits(logits, figure, reduction="none")
        things = torch.nonzero(seen.surface[mine] == 0)[:, 0]
        loss = (entropy * known).sum() / known.sum().clamp_min(1)
        if len(things):
            hidden = (known[things] - 1) * 100  # undecided pixels count as outside, in the result as in the truth
            loss = loss + dice_loss(logits[things] + hidden, figure[things] * known[things]).mean()
        telling = F.binary_cross_entropy_with_logits(surface.float(), seen.surface[mine])
        losses.append(loss + 0.3 * telling)
    return torch.stack(losses).mean()


def new_heads(seed: int, seen: Seen) -> Heads:
    """Untrained heads, with the statistics of their input maps."""
    torch.manual_seed(seed)
    heads = Heads(norm=True)
    for level, maps in enumerate(seen.maps):
        std, mean = torch.std_mean(maps.float().cpu(), (0, 2, 3), keepdim=True)
        getattr(heads, f"mean{level}").copy_(mean)
        getattr(heads, f"std{level}").copy_(std + 0.05 * std.mean())
    return heads


def folded(heads: Heads) -> Heads:
    """A copy for use, with the batch norms in the convolutions, in evaluation mode."""
    copy = deepcopy(heads)
    fold_norms(copy.cpu().eval())
    return copy


def train(
    made_of: Material,
    held: list[np.ndarray],
    asked: list[Photograph],
    out: Path,
    *,
    steps: int | None,
    minutes: float | None,
    stop_at: int | None = None,
    seed: int = 0,
    batch: int = 6,
    rate: float = 0.02,
    every: int = 250,
    workers: int = 1,
    resume: bool = False,
    device: str = "cpu",
    start: Path | None = None,
) -> tuple[Heads, dict[str, Any]]:
    """Train the heads; write `checkpoint.pt` and `curve.csv` to `out` every `every` steps and at the end.

    Args:
        made_of: What the pictures are made of.
        held, asked: Photographs of the pool and annotated ones that are not trained on.
        steps, minutes: Length of the run; exactly one is given. With `steps` a run is reproducible and an interrupted
            one resumes to the same weights; with `minutes` the schedule follows the clock.
        stop_at: Interrupt after this step, as a killed job would be, with a checkpoint.
        batch: New pictures per step; AGAIN times as many of the last KEPT steps are added.
        rate: Peak learning rate of Muon.
        resume: Continue from `checkpoint.pt` if there is one of the same settings and code.
        start: Exported weights to continue from, without norms and with other pictures, all of the full size; None for
            new heads.

    Returns:
        The heads for use (norms folded) and a record: steps, minutes, pictures, curve.
    """
    where = torch.device(device)
    look = Looker(seed, made_of, batch, where, workers)
    first = Looker(seed, made_of, 32, where, 1)
    heads = read_heads(start).train().requires_grad_(True) if start else new_heads(seed, first(2**31, SIDE))
    heads = heads.to(where, memory_format=torch.channels_last)
    first.close()
    shift = 10**6 if start else 0  # offset of the steps, so that pictures of the earlier run are not repeated
    optimizer = MuonAdamW(heads.parameters(), rate, adam_rate=0.15 * rate)
    record: dict[str, Any] = {"steps": 0, "minutes": 0.0, "pictures": 0, "small": 0, "curve": []}
    checkpoint = out / "checkpoint.pt"
    setting: dict[str, Any] = {"seed": seed, "batch": batch, "steps": steps, "minutes": minutes, "rate": rate}
    setting |= {
        "start": sha256_of(start) if start else None,
        "photographs": len(made_of.folds),
        "taught": len(made_of.taught),
    }
    setting |= {"backbone": sha256_of(PATCH_NANO_WEIGHTS), "code": code_hash("pretraining.pretrain_part")}
    if resume and (saved := load_or_set_aside(checkpoint, setting, device)):
        heads.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        record = saved["record"]
    loop = Loop(
        optimizer, learning_rate, total_steps=steps, total_minutes=minutes, steps=record["steps"],
        minutes=record["minutes"], stop_at=stop_at, smoothing=0.02, title="part-nano",
    )  # fmt: skip
    some = sampled(asked, CURVE)

    def save() -> None:
        network = FigureGround(folded(heads)).to(where)
        figures = {f"iou_{source}": row["iou"] for source, row in means(figure_rows(network, some)).items()}
        figures["surfaces_as_objects"] = float(np.mean(surface_rows(network, held, CURVE) < 0.5))
        row = {key: record[key] for key in ("steps", "minutes", "pictures")} | {"loss": loop.loss} | figures
        record["curve"].append({key: round(float(value), 5) for key, value in row.items()})
        state = {"model": heads.state_dict(), "optimizer": optimizer.state_dict()}
        save_checkpoint(checkpoint, state | {"setting": setting, "record": record})

    for done in loop:
        small = not start and loop.progress < FIRST_SHARE
        size, since = (FIRST_SIZE, 0) if small else (SIDE, record["small"])
        rng = np.random.default_rng([seed, done, 4])
        back = min(done - since, KEPT)  # pictures of another size do not fit
        chosen = rng.choice(back, min(back, AGAIN), replace=False) if back else np.zeros(0, int)
        seen = joined([look(shift + int(step), size) for step in (done, *(done - 1 - chosen))])
        heads.train()
        with autocast(where, on_cpu=True):
            loss = heads_loss(heads, seen)
        loop.learn(loss)
        pictures = record["pictures"] + batch
        record |= {"steps": loop.steps, "minutes": loop.minutes, "pictures": pictures}
        record["small"] += small
        loop.show(loss=f"{loop.loss:.3f}")
        if loop.steps % every == 0:
            save()
    look.close()
    if not record["curve"] or record["curve"][-1]["steps"] != record["steps"]:
        save()
    return folded(heads), record


def export(heads: Heads, path: Path) -> None:
    """Write the heads (norms folded) as float16 in a safetensors file that names the weights of their trunk."""
    state = {name: value.half().contiguous() for name, value in heads.state_dict().items()}
    with atomic(path) as temporary:
        save_file(state, temporary, {"backbone": sha256_of(PATCH_NANO_WEIGHTS)})


def measure(weights: Path, held: list[np.ndarray], asked: list[Photograph], device: str) -> dict[str, Any]:
    """Figures of an exported file: size, mean IoU by source, and confusions of surfaces and objects."""
    network = FigureGround.load(device, weights)
    surfaces = surface_rows(network, held, SURFACES)
    return {
        "parameters": sum(p.numel() for p in network.heads.heads.parameters()),
        "heads": HEADS,
        "bytes": weights.stat().st_size,
        "sha256": sha256_of(weights),
        "image_size": SIDE,
        "held_out": means(figure_rows(network, asked)),
        "surfaces": len(surfaces),
        "surfaces_as_objects": float(np.mean(surfaces < 0.5)),
    }


def main(args: argparse.Namespace) -> None:
    """Train, export, measure, write the card."""
    cv2.setNumThreads(1)
    torch.set_num_threads(args.threads)
    keep_memory()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    device = pick_device(args.device).type
    photos, held = load_pool(args.pool, args.seed)
    photographs, asked = split(read_photographs(args.photographs)) if args.photographs else ([], [])
    taught = teach(photos[: args.taught], Path(args.teacher), out / "teacher") if args.teacher else {}
    made_of = material(photos, photographs, taught)
    write_png(out / "scenes.png", contact_sheet(made_of, args.seed))
    heads, record = train(
        made_of, held, asked, out, steps=args.steps, minutes=args.minutes, seed=args.seed, batch=args.batch,
        rate=args.rate, every=args.every, workers=args.workers, resume=args.resume, device=device,
        start=args.start and Path(args.start),
    )  # fmt: skip
    weights = out / "part-nano.safetensors"
    export(heads, weights)
    run = {"seed": args.seed, "batch": args.batch, "again": AGAIN, "rate": args.rate, "device": device} | record
    figures = measure(weights, held, asked, device) | {"photos": len(photos), "held": len(held), "run": run}
    figures["run"]["start"] = sha256_of(args.start) if args.start else None
    figures["taught"] = {"count": len(taught), "teacher": sha256_of(args.teacher) if args.teacher else None}
    figures["trained"] = {source: len(those) for source, those in made_of.photographs.items()}
    if photographs:
        write_notice(weights.with_suffix(".NOTICE.md"), [*photographs, *asked], "part-nano")
    write_json(weights.with_suffix(".json"), figures)
    write_card(weights.with_suffix(".md"), figures)
    (out / "checkpoint.pt").unlink()  # a later run with other code or photographs must not use it
    print(f"{weights}: {record['steps']} steps, {figures['surfaces_as_objects']:.2f} of surfaces taken for objects")


def build_parser() -> argparse.ArgumentParser:
    """Command line of this stage."""
    cli = argparse.ArgumentParser(
        prog="python -m defectflow.pretraining.pretrain_part", description=__doc__.split("\n")[0]
    )
    add_options(cli, every=250)
    cli.add_argument("--batch", type=int, default=6, help="new pictures per step")
    cli.add_argument("--rate", type=float, default=0.02, help="peak learning rate of Muon")
    cli.add_argument("--start", help="exported weights to continue from, with other pictures")
    cli.add_argument("--photographs", help="folder of real photographs with masks (index.csv) for training")
    cli.add_argument(
        "--teacher", help="ONNX file of U2-Net or U2NetP, whose masks of the pool are used for training too"
    )
    cli.add_argument("--taught", type=int, default=500, help="photographs of the pool segmented by the teacher")
    return cli


if __name__ == "__main__":
    stage(main, build_parser())
