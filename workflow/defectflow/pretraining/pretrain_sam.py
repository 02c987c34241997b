"""Pre-train `sam2.1-nano` on rendered scenes: `python -m defectflow.pretraining.pretrain_sam --pool DIR --out DIR`.

The architecture is that of SAM 2.1 (N. Ravi et al., SAM 2: segment anything in images and videos, 2024) in
`configs/sam2.1_nano.yaml`. Each scene is encoded once and asked about several objects.
A tenth of the photographs is held out: the scenes that the figures come from are made of those alone.
"""

from __future__ import annotations

import argparse
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from defectflow.config.code_hash import code_hash
from defectflow.core.device import autocast, keep_memory, pick_device
from defectflow.core.files import atomic, sha256_of, stage, write_json
from defectflow.images.read_write import write_png
from defectflow.pretraining.checkpoints import add_options, load_checkpoint, save_checkpoint
from defectflow.pretraining.optimizer import MuonAdamW, learning_rate
from defectflow.pretraining.rendered_scenes import KINDS, SceneBatch, contact_sheet, scene_batch
from defectflow.pretraining.sam_card import answers, evaluate, write_card
from defectflow.pretraining.training_images import load_pool
from defectflow.segmentation import sam_model
from defectflow.segmentation.sam_training import sam_loss, trained_parameters
from defectflow.training.loop import Loop

CONFIG = "nano"
PROMPTS = 3  # asked of each scene
FIRST_SIZE, FIRST_SHARE = 256, 0.75  # small pictures for most of the run: four times as many scenes an hour
EASY_SHARE = 0.05  # of the run with rough masks for prompts: without, it takes long to find that prompts matter at all
VALIDATION = 3  # batches of scenes for each kind of prompt behind a point of the curve


def set_size(model: nn.Module, size: int) -> None:
    """Make a model take pictures of another size: position encodings follow by interpolation."""
    model.image_size = size
    encoder = model.sam_prompt_encoder
    encoder.input_image_size = (size, size)
    encoder.image_embedding_size = (size // 16, size // 16)
    encoder.mask_input_size = (size // 4, size // 4)


def optimizer_of(model: nn.Module, rate: float) -> MuonAdamW:
    """Muon for what is a linear map; embeddings and position encodings are not."""
    parameters = [p for group in trained_parameters(model, "all").values() for p in group]
    plain = [p for name, p in model.named_parameters() if "embed" in name and "patch_embed" not in name]
    plain += [p for name, p in model.named_parameters() if "_token" in name]
    return MuonAdamW(parameters, rate, adam_rate=1e-3, plain=plain)


def train(
    photos: list[np.ndarray],
    held: list[np.ndarray],
    out: Path,
    *,
    steps: int | None,
    minutes: float | None,
    stop_at: int | None = None,
    seed: int = 0,
    batch: int = 8,
    rate: float = 0.015,
    every: int = 250,
    workers: int = 1,
    resume: bool = False,
    device: str = "cpu",
) -> tuple[nn.Module, dict]:
    """Train a model; write `checkpoint.pt` and `curve.csv` to `out` every `every` steps and at the end.

    Args:
        photos, held: Training and held-out photographs, uint8 RGB.
        steps, minutes: Length of the run; exactly one is given. With `steps` a run is reproducible and an interrupted
            one resumes to the same weights; with `minutes` the schedule follows the clock.
        stop_at: Interrupt after this step, as a killed job would be, with a checkpoint.
        batch: Scenes per step at the first size; at the full size a quarter.
        rate: Peak learning rate of Muon.
        resume: Continue from `checkpoint.pt` if there is one of the same settings and code.

    Returns:
        The model and a record: steps, minutes, scenes, curve.
    """
    where = torch.device(device)
    model = sam_model.build(CONFIG, None, seed).to(where)
    full = model.image_size
    optimizer = optimizer_of(model, rate)
    record = {"steps": 0, "minutes": 0.0, "scenes": 0, "curve": []}
    checkpoint = out / "checkpoint.pt"
    setting = {"seed": seed, "batch": batch, "steps": steps, "minutes": minutes, "rate": rate}
    setting["code"] = code_hash("pretraining.pretrain_sam")
    if resume and (saved := load_checkpoint(checkpoint, setting, device)):
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        record = saved["record"]
    loop = Loop(
        optimizer, learning_rate, total_steps=steps, total_minutes=minutes, steps=record["steps"],
        minutes=record["minutes"], stop_at=stop_at, smoothing=0.02, title="pre-train",
    )  # fmt: skip

    def prepare(step: int, size: int, kinds: tuple[str, ...]) -> SceneBatch:
        return scene_batch(seed, step, photos, batch if size < full else max(1, batch // 4), PROMPTS, size, kinds)

    def save() -> None:
        set_size(model, full)
        figures = evaluate(model, held, seed, VALIDATION)
        row = {key: record[key] for key in ("steps", "minutes", "scenes")} | {"loss": loop.loss} | figures
        record["curve"].append({key: round(float(value), 5) for key, value in row.items()})
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        save_checkpoint(checkpoint, state | {"setting": setting, "record": record})

    with ThreadPoolExecutor(workers) as pool:
        ahead: dict[tuple, Future] = {}
        for done in loop:
            size = FIRST_SIZE if loop.progress < FIRST_SHARE else full
            kinds = ("guess",) if loop.progress < EASY_SHARE else KINDS
            for step in range(done, done + workers + 1):
                if (step, size, kinds) not in ahead:
                    ahead[step, size, kinds] = pool.submit(prepare, step, size, kinds)
            questions = ahead.pop((done, size, kinds)).result()
            set_size(model, size)
            # the fused attention's backward pass is slow in bfloat16 on a CPU: 5 times the plain one's
            with autocast(where, on_cpu=True), sdpa_kernel(SDPBackend.MATH) if device == "cpu" else nullcontext():
                logits, predicted, score = answers(model, questions, where)
            truth = torch.from_numpy((questions.truth >= 0.5).astype(np.float32)).to(where)
            present = torch.from_numpy(questions.present).to(where)
            loop.learn(sam_loss(logits, predicted, score, truth, present, from_scratch=True))
            scenes = record["scenes"] + len(questions.images)
            record |= {"steps": loop.steps, "minutes": loop.minutes, "scenes": scenes}
            loop.show(loss=f"{loop.loss:.3f}", size=size)
            if loop.steps % every == 0:
                save()
        for future in ahead.values():
            future.cancel()
    if not record["curve"] or record["curve"][-1]["steps"] != record["steps"]:
        save()
    set_size(model, full)
    return model.eval(), record


def export(model: nn.Module, path: Path) -> None:
    """Write the weights as float16 in the official form {"model": state_dict}, and load them through `build_sam2`."""
    state = {name: value.detach().half().cpu().contiguous() for name, value in model.state_dict().items()}
    with atomic(path) as temporary:
        with open(temporary, "wb") as stream:  # a stream, not a path: torch would write the path's name into the file
            torch.save({"model": state}, stream)
        sam_model.verify(temporary, CONFIG)


def measure(weights: Path, held: list[np.ndarray], seed: int, batches: int, device: str) -> dict:
    """Figures of an exported file: size, and its answers about scenes of held-out photographs."""
    model = sam_model.build(CONFIG, weights).to(device)
    parts = trained_parameters(model, "all")
    return {
        "parameters_on_images": sum(p.numel() for group in parts.values() for p in group),
        "parameters": sum(p.numel() for p in model.parameters()),
        "bytes": weights.stat().st_size,
        "sha256": sha256_of(weights),
        "image_size": model.image_size,
        "scenes": 4 * batches,
        "held_out": evaluate(model, held, seed + 1, batches),
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
    write_png(out / "scenes.png", contact_sheet(photos, args.seed))
    model, record = train(
        photos, held, out, steps=args.steps, minutes=args.minutes, seed=args.seed, batch=args.batch, rate=args.rate,
        every=args.every, workers=args.workers, resume=args.resume, device=device,
    )  # fmt: skip
    weights = out / sam_model.PACKAGED[CONFIG].name
    export(model, weights)
    run = {"seed": args.seed, "batch": args.batch, "prompts": PROMPTS, "rate": args.rate, "device": device} | record
    figures = measure(weights, held, args.seed, args.scenes // 4, device)
    figures |= {"photos": len(photos), "held": len(held), "run": run}
    write_json(weights.with_suffix(".json"), figures)
    write_card(weights.with_suffix(".md"), figures)
    (out / "checkpoint.pt").unlink()  # a later run with other code or photographs must not take it for its own
    print(f"{weights}: IoU {figures['held_out']['iou_box']:.3f} from a box after {record['steps']} steps")


def build_parser() -> argparse.ArgumentParser:
    """Command line of this stage."""
    cli = argparse.ArgumentParser(
        prog="python -m defectflow.pretraining.pretrain_sam", description=__doc__.split("\n")[0]
    )
    add_options(cli, every=200)
    cli.add_argument("--batch", type=int, default=8, help="scenes per step, a quarter of them at the full image size")
    cli.add_argument("--rate", type=float, default=0.015, help="peak learning rate of Muon")
    cli.add_argument("--scenes", type=int, default=100, help="held-out scenes behind each figure of the card")
    return cli


if __name__ == "__main__":
    stage(main, build_parser())
