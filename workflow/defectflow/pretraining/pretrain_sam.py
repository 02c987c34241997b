"""Pre-train `sam2.1-nano`: `python -m defectflow.pretraining.pretrain_sam --pool DIR --photographs DIR --out DIR`.

The architecture is that of SAM 2.1 (N. Ravi et al., SAM 2: segment anything in images and videos, 2024) in
`configs/sam2.1_nano.yaml`. Each scene is encoded once and prompted for several objects, then again with clicks on the
errors. Scenes are rendered from a pool of photographs, and composed of real photographs with masks if there are any. A
tenth of both is held out, whole series together, and only used for the figures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.overrides import TorchFunctionMode

from defectflow.config.code_hash import code_hash
from defectflow.core.device import autocast, keep_memory, pick_device
from defectflow.core.files import atomic, sha256_of, stage, write_json
from defectflow.images.read_write import write_png
from defectflow.pretraining.annotated_photographs import Photograph, read_photographs, split
from defectflow.pretraining.checkpoints import add_options, save_checkpoint
from defectflow.pretraining.optimizer import MuonAdamW, warmup_stable_decay
from defectflow.pretraining.photograph_figures import sampled
from defectflow.pretraining.photograph_scenes import corrected, mixed_batch
from defectflow.pretraining.rendered_scenes import KINDS, SceneBatch, contact_sheet
from defectflow.pretraining.sam_card import (
    counted,
    evaluate,
    evaluate_photographs,
    measure,
    measure_photographs,
    write_card,
    write_notice,
)
from defectflow.pretraining.training_images import load_pool
from defectflow.segmentation import sam_model
from defectflow.segmentation.sam_training import proposals_loss, sam_loss, trained_parameters
from defectflow.training.checkpoints import load_or_set_aside
from defectflow.training.loop import Loop

CONFIG = "nano"
PROMPTS = 3  # for each scene
WARM_UP = 100  # steps
FIRST_SIZE, FIRST_SHARE = 256, 0.875  # small pictures for most of the run: four times as many scenes per hour
AVERAGED = 0.99  # decay of the averaged weights per step: about a hundred steps
ROUGH_ONLY = 150  # steps with rough masks as prompts: otherwise the network takes long to use prompts at all
ROUNDS = 3  # of correction at most: a click on an error, the previous mask as mask prompt
VALIDATION = 2  # batches of scenes for each kind of prompt for a point of the curve
WATCHED = 6  # held-out photographs of each source for a point of the curve, different from those of the figures


class PlainAttention(TorchFunctionMode):
    """Attention as two products and a softmax: with gradients in bfloat16 on a CPU the fastest variant in torch.

    An encoder takes 1.2 times as long with torch's math kernel, 1.5 times with the fused one.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is F.scaled_dot_product_attention and len(args) == 3 and not (kwargs or {}).get("dropout_p"):
            q, k, v = args
            return torch.softmax(q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1), -1) @ v
        return func(*args, **(kwargs or {}))


def set_size(model: nn.Module, size: int) -> None:
    """Set the picture size of a model: position encodings are interpolated."""
    model.image_size = size
    encoder = model.sam_prompt_encoder
    encoder.input_image_size = (size, size)
    encoder.image_embedding_size = (size // 16, size // 16)
    encoder.mask_input_size = (size // 4, size // 4)


def optimizer_of(model: nn.Module, rate: float) -> MuonAdamW:
    """Muon for linear maps, which embeddings and position encodings are not."""
    parameters = [p for group in trained_parameters(model, "all").values() for p in group]
    plain = [p for name, p in model.named_parameters() if "embed" in name and "patch_embed" not in name]
    plain += [p for name, p in model.named_parameters() if "_token" in name]
    return MuonAdamW(parameters, rate, adam_rate=rate / 15, plain=plain)


def before_correction(logits: Tensor, predicted: Tensor, prompts: list[sam_model.Prompt]) -> Tensor:
    """The mask of `propose` to correct with a click: for a single click, the proposal with the best predicted IoU.

    Args:
        logits, predicted: (batch, 4, side, side) and (batch, 4), from `propose`.

    Returns:
        (batch, side, side).
    """
    alone = [prompt.mask is None and (prompt.labels != sam_model.NOT_A_POINT).sum() == 1 for prompt in prompts]
    best = 1 + predicted[:, 1:].argmax(1)
    chosen = torch.where(torch.tensor(alone, device=best.device), best, 0)
    return logits[torch.arange(len(logits), device=best.device), chosen]


def step_loss(
    model: nn.Module, questions: SceneBatch, rounds: int, rng: np.random.Generator, from_scratch: bool
) -> torch.Tensor:
    """Loss of the masks of a batch, and of ``rounds`` more masks, each after a click on an error."""
    device = next(model.parameters()).device
    features = sam_model.encode(model, sam_model.to_tensor(questions.images, device))
    owner = torch.from_numpy(questions.owner).to(device)
    features = [f[owner] for f in features]
    truth = torch.from_numpy((questions.truth >= 0.5).astype(np.float32)).to(device)
    present = torch.from_numpy(questions.present).to(device)
    prompts = questions.prompts
    logits, predicted, score = sam_model.propose(model, features, prompts)
    loss = proposals_loss(logits, predicted, score, truth, present, from_scratch)
    shown = before_correction(logits, predicted, prompts)
    for _ in range(rounds):
        known = shown.detach().cpu().numpy()
        prompts = [corrected(*each, rng) for each in zip(prompts, known, questions.truth, strict=True)]
        shown, predicted, score = sam_model.decode(model, features, prompts)
        loss = loss + sam_loss(shown, predicted, score, truth, present, from_scratch)
    return loss / (1 + rounds)


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
    decay: float = 0.25,
    every: int = 250,
    workers: int = 1,
    resume: bool = False,
    device: str = "cpu",
    photographs: list[Photograph] | None = None,
    watched: list[Photograph] | None = None,
    start: Path | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Train a model; write `checkpoint.pt` and `curve.csv` to `out` every `every` steps and at the end.

    The rate is constant after a warm-up and falls at the end of the run (`warmup_stable_decay`). `stable.pt` is the
    checkpoint before that: a run of another length continues from it.

    Args:
        photos, held: Training and held-out photographs, uint8 RGB.
        steps, minutes: Length of the run, including the run it continues from; exactly one is given. With `steps` a run
            is reproducible and an interrupted one resumes to the same weights; with `minutes` the schedule follows the
            clock.
        stop_at: Interrupt after this step with a checkpoint, like a killed job.
        batch: Scenes per step at the first size; at the full size half of it.
        rate: Peak learning rate of Muon.
        decay: Share of the run in which the rate falls to 0.
        photographs: Real photographs with masks to train on; None or empty: only rendered scenes.
        watched: Held-out photographs with masks for the curve.
        start: Weights to continue from; None for random ones.
        resume: Continue from a checkpoint if there is one of the same settings and code.

    Returns:
        The model, with the running average of its weights, and a record: steps, minutes, scenes, curve, decaying.
    """
    where = torch.device(device)
    model = sam_model.build(CONFIG, start, seed).to(where)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(AVERAGED))
    named = photographs or []
    sources = [[p for p in named if p.source == s] for s in dict.fromkeys(p.source for p in named)]
    full = model.image_size
    optimizer = optimizer_of(model, rate)
    record: dict[str, Any] = {"steps": 0, "minutes": 0.0, "scenes": 0, "curve": [], "decaying": False}
    length = {"steps": steps, "minutes": minutes, "decay": decay}
    setting = {"seed": seed, "batch": batch, "rate": rate, "start": start and sha256_of(start)}
    setting |= {
        "photographs": len(named),
        "code": code_hash("pretraining.pretrain_sam", without="pretraining.sam_card"),
    }
    checkpoint, stable = out / "checkpoint.pt", out / "stable.pt"
    if resume:
        saved = load_or_set_aside(checkpoint, setting, device)
        if saved is None or (saved["record"]["decaying"] and saved["length"] != length):
            saved = load_or_set_aside(stable, setting, device)
        if saved:
            model.load_state_dict(saved["model"])
            average.load_state_dict(saved["average"])
            optimizer.load_state_dict(saved["optimizer"])
            record = saved["record"]
    loop = Loop(
        optimizer, lambda progress: warmup_stable_decay(loop.steps, WARM_UP, progress, 1 - decay),
        total_steps=steps, total_minutes=minutes, steps=record["steps"], minutes=record["minutes"], stop_at=stop_at,
        smoothing=0.02, title="pre-train",
    )  # fmt: skip

    def prepare(step: int, size: int, kinds: tuple[str, ...]) -> SceneBatch:
        scenes = batch if size < full else max(1, batch // 2)
        return mixed_batch(seed, step, photos, sources, scenes, PROMPTS, size, kinds)

    def save(path: Path) -> None:
        state = {"model": model.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
        save_checkpoint(path, state | {"setting": setting, "length": length, "record": record})

    def note(size: int) -> None:
        """Add the figures of the averaged weights to the curve, at the current training size."""
        set_size(average.module, size)
        figures = evaluate(average.module, held, seed, VALIDATION)
        if watched:
            figures |= evaluate_photographs(average.module, watched)
        row = {key: record[key] for key in ("steps", "minutes", "scenes")} | {"size": size, "loss": loop.loss} | figures
        record["curve"].append({k: None if np.isnan(v) else round(float(v), 5) for k, v in row.items()})
        save(checkpoint)

    size = FIRST_SIZE
    with ThreadPoolExecutor(workers) as pool:
        ahead: dict[tuple[Any, ...], Future[Any]] = {}
        for done in loop:
            if loop.progress >= 1 - decay and not record["decaying"]:
                if record["curve"]:
                    save(stable)
                record["decaying"] = True
            size = FIRST_SIZE if loop.progress < FIRST_SHARE else full
            kinds = ("guess",) if start is None and done < ROUGH_ONLY else KINDS
            for step in range(done, done + workers + 1):
                if (step, size, kinds) not in ahead:
                    ahead[step, size, kinds] = pool.submit(prepare, step, size, kinds)
            questions = ahead.pop((done, size, kinds)).result()
            set_size(model, size)
            with autocast(where, on_cpu=True), PlainAttention() if device == "cpu" else nullcontext():
                rng = np.random.default_rng([seed, done, 2])
                loss = step_loss(model, questions, int(rng.integers(ROUNDS)), rng, from_scratch=start is None)
            loop.learn(loss)
            average.update_parameters(model)
            scenes = record["scenes"] + len(questions.images)
            record |= {"steps": loop.steps, "minutes": loop.minutes, "scenes": scenes}
            loop.show(loss=f"{loop.loss:.3f}", size=size)
            if loop.steps % every == 0:
                note(size)
        for future in ahead.values():
            future.cancel()
    if not record["curve"] or record["curve"][-1]["steps"] != record["steps"]:
        note(size)
    set_size(average.module, full)
    return average.module.eval(), record


def export(model: nn.Module, path: Path) -> None:
    """Write the weights as float16 in a safetensors file, and load them through `build_sam2`."""
    state = {name: value.detach().half().cpu().contiguous() for name, value in model.state_dict().items()}
    with atomic(path) as temporary:
        save_file(state, temporary)
        sam_model.verify(temporary, CONFIG)


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
    photographs, held_out = split(read_photographs(args.photographs)) if args.photographs else ([], [])
    asked = sampled(held_out, args.asked)
    names = {one.name for one in asked}
    watched = sampled([one for one in held_out if one.name not in names], WATCHED)
    start = Path(args.start) if args.start else None
    model, record = train(
        photos, held, out, steps=args.steps, minutes=args.minutes, seed=args.seed, batch=args.batch, rate=args.rate,
        decay=args.decay, every=args.every, workers=args.workers, resume=args.resume, device=device,
        photographs=photographs, watched=watched, start=start,
    )  # fmt: skip
    weights = out / "sam2.1-nano.safetensors"
    export(model, weights)
    run = {
        "seed": args.seed,
        "batch": args.batch,
        "prompts": PROMPTS,
        "rate": args.rate,
        "decay": args.decay,
        "device": device,
    }
    run |= {"start": sha256_of(start) if start else None} | record
    figures = measure(weights, CONFIG, held, args.seed, args.scenes // 4, device)
    figures |= {"photos": len(photos), "held": len(held), "run": run}
    if photographs:
        figures["photographs"] = measure_photographs(weights, CONFIG, asked, device)
        figures["photographs"]["trained"] = counted(photographs)
        write_notice(weights.with_suffix(".NOTICE.md"), [*photographs, *held_out])
    write_json(weights.with_suffix(".json"), figures)
    write_card(weights.with_suffix(".md"), figures)
    (out / "checkpoint.pt").unlink()  # a longer run continues from stable.pt
    print(f"{weights}: IoU {figures['held_out']['iou_box']:.3f} from a box after {record['steps']} steps")


def build_parser() -> argparse.ArgumentParser:
    """Command line of this stage."""
    cli = argparse.ArgumentParser(
        prog="python -m defectflow.pretraining.pretrain_sam", description=__doc__.split("\n")[0]
    )
    add_options(cli, every=200)
    cli.add_argument("--batch", type=int, default=8, help="scenes per step, half of them at the full image size")
    cli.add_argument("--rate", type=float, default=0.015, help="peak learning rate of Muon")
    cli.add_argument("--decay", type=float, default=0.25, help="share of the run in which the rate falls to 0")
    cli.add_argument("--photographs", help="folder of real photographs with masks (index.csv) for training")
    cli.add_argument("--start", help="weights to continue from (default: random ones)")
    cli.add_argument("--asked", type=int, default=40, help="held-out photographs of each source for the figures")
    cli.add_argument("--scenes", type=int, default=100, help="held-out scenes for each figure of the card")
    return cli


if __name__ == "__main__":
    stage(main, build_parser())
