"""Distil `patch-nano` from a larger network: `python -m defectflow.pretraining.pretrain_backbone --pool DIR --out DIR`.

The student learns the teacher's layer2 and layer3 maps on crops of photographs and rendered textures.
A tenth of the photographs is held out; every figure in the card is measured on it, with the exported weights.
Teacher: K. He et al., Deep residual learning for image recognition, 2016. Descriptors: K. Roth et al., Towards total
recall in industrial anomaly detection (PatchCore), 2022.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import nn
from torch.fx.experimental.optimization import fuse

from defectflow.backbones.backbone_names import PATCH_NANO
from defectflow.backbones.networks import create_backbone
from defectflow.backbones.patch_nano import LAYERS, PatchNano, fold_norms, load_weights, unfold_norms
from defectflow.config.code_hash import code_hash
from defectflow.core.device import autocast, keep_memory, pick_device
from defectflow.core.files import UserError, atomic, sha256_of, stage, write_json
from defectflow.pretraining.backbone_card import VAL_SIZE, evaluate, find_defects, write_card
from defectflow.pretraining.checkpoints import add_options, save_checkpoint
from defectflow.pretraining.optimizer import MuonAdamW, learning_rate
from defectflow.pretraining.training_images import centre_squares, load_pool, to_input, training_batch
from defectflow.training.checkpoints import load_or_set_aside
from defectflow.training.loop import Loop


def student_maps(student: PatchNano, x: torch.Tensor) -> list[torch.Tensor]:
    """The student's layer2 and layer3 maps in float32."""
    second = student.layer2(student.stem(x))
    return [second.float(), student.layer3(second).float()]


def folded(network: nn.Module) -> nn.Module:
    """Copy with folded batch norms if torch can trace the network (a third faster); otherwise the network itself."""
    try:
        return fuse(network).to(memory_format=torch.channels_last)
    except Exception:  # tracing can fail in many ways; only speed is lost
        return network


@torch.no_grad()
def channel_weights(teacher: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Inverse standard deviation of each teacher channel, (1, C, 1, 1) per layer; bounded: some are almost always 0."""
    weights = []
    for m in teacher(x):
        std = m.float().std((0, 2, 3), keepdim=True)
        weights.append(1 / (std + 0.05 * std.mean()))
    return weights


def distillation_loss(
    ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor], weights: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Squared error of the standardised maps, plus that of the pooled maps relative to their variance."""
    errors = [a - b for a, b in zip(ours, theirs, strict=True)]
    loss = sum((e * w).square().mean() for e, w in zip(errors, weights, strict=True))
    pooled = sum(F.avg_pool2d(e, 3, 1, 1).square().sum(1).mean() for e in errors)
    return loss + 2 * pooled / sum(w.square().reciprocal().sum() for w in weights)


class Extractor(nn.Module):
    """A student that returns a list of maps, like timm's extractors."""

    def __init__(self, student: PatchNano) -> None:
        super().__init__()
        self.student = student

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return student_maps(self.student, x)


def train(
    teacher: nn.Module,
    photos: list[np.ndarray],
    held: list[np.ndarray],
    out: Path,
    *,
    steps: int | None,
    minutes: float | None,
    stop_at: int | None = None,
    seed: int = 0,
    batch: int = 8,
    size: int = 224,
    lr: float = 0.03,
    every: int = 500,
    workers: int = 1,
    resume: bool = False,
    device: str = "cpu",
    start: Path | None = None,
) -> tuple[PatchNano, dict[str, Any]]:
    """Train a student; write `checkpoint.pt` and `curve.csv` to `out` every `every` steps and at the end.

    Args:
        teacher: Extractor of layer2 and layer3, frozen.
        photos, held: Training and held-out photographs, uint8 RGB.
        steps, minutes: Length of the run; exactly one is given. With `steps` a run is reproducible and an interrupted
            one resumes to the same weights; with `minutes` the learning rate follows the clock.
        stop_at: Interrupt after this step with a checkpoint, like a killed job.
        batch, size: Images per step and their side in px.
        resume: Continue from `checkpoint.pt` if there is one of the same settings and code.
        start: Exported weights to continue from, with a new warm-up and other images; None for a new student.

    Returns:
        The student (with its norms) and a record: steps, minutes, images, curve.
    """
    torch.manual_seed(seed)
    student, first = PatchNano(norm=True), 0
    if start:
        load_weights(shipped := PatchNano(), start, PATCH_NANO)
        student = unfold_norms(shipped, to_input(training_batch(seed, 2**31 + 1, photos, 64, size), "cpu"))
        first = 10**6  # offset of the steps, so that images of the earlier run are not repeated
    student = student.to(device, memory_format=torch.channels_last)
    teacher = folded(teacher).to(device)
    optimizer = MuonAdamW(student.parameters(), lr)
    record: dict[str, Any] = {"steps": 0, "minutes": 0.0, "images": 0, "curve": []}
    checkpoint = out / "checkpoint.pt"
    setting: dict[str, Any] = {"seed": seed, "batch": batch, "size": size, "steps": steps, "minutes": minutes, "lr": lr}
    setting |= {"code": code_hash("pretraining.pretrain_backbone"), "start": sha256_of(start) if start else None}
    if resume and (saved := load_or_set_aside(checkpoint, setting, device)):
        student.load_state_dict(saved["student"])
        optimizer.load_state_dict(saved["optimizer"])
        record = saved["record"]

    where = torch.device(device)
    with autocast(where, on_cpu=True):
        weights = channel_weights(teacher, to_input(training_batch(seed, 2**31, photos, 64, size), device))
    squares = centre_squares(held[:20], VAL_SIZE)  # enough for a curve
    loop = Loop(
        optimizer, learning_rate, total_steps=steps, total_minutes=minutes, steps=record["steps"],
        minutes=record["minutes"], stop_at=stop_at, smoothing=0.01, title="distil",
    )  # fmt: skip

    def save() -> None:
        figures = evaluate(Extractor(deepcopy(student).eval()), teacher, squares)
        row = {key: record[key] for key in ("steps", "minutes", "images")} | {"loss": loop.loss} | figures
        record["curve"].append({key: round(float(value), 5) for key, value in row.items()})
        state = {"student": student.state_dict(), "optimizer": optimizer.state_dict()}
        save_checkpoint(checkpoint, state | {"setting": setting, "record": record})

    with ThreadPoolExecutor(workers) as pool:
        ahead = [
            pool.submit(training_batch, seed, first + record["steps"] + i, photos, batch, size)
            for i in range(workers + 1)
        ]
        for done in loop:
            x = to_input(ahead.pop(0).result(), device)
            step = first + done + workers + 1
            ahead.append(pool.submit(training_batch, seed, step, photos, batch, size))
            student.train()
            with autocast(where, on_cpu=True):
                with torch.no_grad():
                    theirs = [m.float() for m in teacher(x)]
                ours = student_maps(student, x)
            loop.learn(distillation_loss(ours, theirs, weights))
            record |= {"steps": loop.steps, "minutes": loop.minutes, "images": record["images"] + batch}
            loop.show(loss=f"{loop.loss:.3f}")
            if loop.steps % every == 0:
                save()
        for future in ahead:
            future.cancel()
    if not record["curve"] or record["curve"][-1]["steps"] != record["steps"]:
        save()
    return student.eval(), record


def export(student: PatchNano, path: Path) -> None:
    """Write the student's weights, norms folded, as float16 safetensors."""
    from safetensors.torch import save_file

    folded = fold_norms(deepcopy(student).cpu().eval())
    with atomic(path) as temporary:
        save_file({k: v.half().contiguous() for k, v in folded.state_dict().items()}, temporary)


def measure(weights: Path, teacher: nn.Module, held: list[np.ndarray], seed: int) -> dict[str, Any]:
    """Figures of an exported file: size, agreement with the teacher, and PatchCore's results with both."""
    ours = create_backbone(PATCH_NANO, LAYERS, weights)
    torch.manual_seed(seed)
    untrained = timm.create_model(PATCH_NANO, features_only=True).eval()
    held_out = evaluate(ours, teacher, centre_squares(held, VAL_SIZE))
    for key, net in (("", ours), ("_teacher", teacher), ("_untrained", untrained)):
        held_out[f"find_defects{key}"] = find_defects(net, held[:30], seed)
    return {
        "parameters": sum(p.numel() for p in ours.parameters()),
        "bytes": weights.stat().st_size,
        "sha256": sha256_of(weights),
        "held_out": held_out,
    }


def main(args: argparse.Namespace) -> None:
    """Train, export, measure, write the card."""
    cv2.setNumThreads(1)
    torch.set_num_threads(args.threads)
    keep_memory()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    device = pick_device(args.device).type
    teacher = create_backbone(args.teacher_name, LAYERS, args.teacher_weights, allow_download=args.allow_download)
    if not teacher.trained:
        raise UserError("the teacher is untrained: give --teacher-weights or --allow-download")
    photos, held = load_pool(args.pool, args.seed)
    student, record = train(
        teacher, photos, held, out, steps=args.steps, minutes=args.minutes, seed=args.seed, batch=args.batch,
        size=args.size, lr=args.lr, every=args.every, workers=args.workers, resume=args.resume, device=device,
        start=args.start and Path(args.start),
    )  # fmt: skip
    weights = out / f"{PATCH_NANO}.safetensors"
    export(student, weights)
    run = {"seed": args.seed, "batch": args.batch, "size": args.size, "lr": args.lr, "device": device} | record
    run["start"] = sha256_of(args.start) if args.start else None
    figures = measure(weights, teacher.cpu(), held, args.seed)
    figures |= {"teacher": args.teacher_name, "photos": len(photos), "held": len(held), "run": run}
    write_json(out / f"{PATCH_NANO}.json", figures)
    write_card(out / f"{PATCH_NANO}.md", figures)
    (out / "checkpoint.pt").unlink()  # a later run with other code or photographs must not use it
    print(f"{weights}: cosine {figures['held_out']['cosine']:.4f} after {record['steps']} steps")


def build_parser() -> argparse.ArgumentParser:
    """Command line of this stage."""
    cli = argparse.ArgumentParser(
        prog="python -m defectflow.pretraining.pretrain_backbone", description=__doc__.split("\n")[0]
    )
    add_options(cli, every=500)
    cli.add_argument("--teacher-name", default="resnet18.tv_in1k", help="timm name with tag")
    cli.add_argument("--teacher-weights", help="local state dict of the teacher")
    cli.add_argument("--allow-download", action="store_true", help="allow timm to download the teacher's weights")
    cli.add_argument("--batch", type=int, default=8, help="images per step")
    cli.add_argument("--size", type=int, default=224, help="side of a training image in px")
    cli.add_argument("--start", help="exported weights to continue from, with new images")
    cli.add_argument("--lr", type=float, default=0.03, help="peak learning rate of Muon")
    return cli


if __name__ == "__main__":
    stage(main, build_parser())
