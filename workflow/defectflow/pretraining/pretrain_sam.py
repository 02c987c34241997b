"""Pre-train `sam2.1-nano`: `python -m defectflow.pretraining.pretrain_sam --pool DIR --photographs DIR --out DIR`.

The architecture is that of SAM 2.1 (N. Ravi et al., SAM 2: segment anything in images and videos, 2024) in
`configs/sam2.1_nano.yaml`. Each scene is encoded once and asked about several objects, then again after clicks on the
errors. Scenes are rendered from a pool of photographs, and made of real photographs with masks where there are such.
A tenth of both is held out, whole series together: the figures come from those alone.
"""

from __future__ import annotations

import argparse
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from defectflow.config.code_hash import code_hash
from defectflow.core.device import autocast, keep_memory, pick_device
from defectflow.core.files import atomic, sha256_of, stage, write_json
from defectflow.images.read_write import write_png
from defectflow.pretraining.annotated_photographs import Photograph, read_photographs, split
from defectflow.pretraining.checkpoints import add_options, load_checkpoint, save_checkpoint
from defectflow.pretraining.optimizer import MuonAdamW, learning_rate
from defectflow.pretraining.photograph_figures import Sam, calibration, question_rows, sampled
from defectflow.pretraining.photograph_scenes import corrected, mixed_batch
from defectflow.pretraining.rendered_scenes import KINDS, SceneBatch, contact_sheet
from defectflow.pretraining.sam_card import evaluate, write_card, write_notice
from defectflow.pretraining.training_images import load_pool
from defectflow.segmentation import sam_model
from defectflow.segmentation.sam_training import proposals_loss, sam_loss, trained_parameters
from defectflow.training.loop import Loop

CONFIG = "nano"
PROMPTS = 3  # asked of each scene
FIRST_SIZE, FIRST_SHARE = 256, 0.75  # small pictures for most of the run: four times as many scenes an hour
EASY_SHARE = 0.05  # of the run with rough masks for prompts: without, it takes long to find that prompts matter at all
ROUNDS = 3  # of correction at most: a click on an error, the answer before as mask prompt
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


def step_loss(
    model: nn.Module, questions: SceneBatch, rounds: int, rng: np.random.Generator, from_scratch: bool
) -> torch.Tensor:
    """Loss of the answers to a batch, and of ``rounds`` answers more after a click on an error of each."""
    device = next(model.parameters()).device
    features = sam_model.encode(model, sam_model.to_tensor(questions.images, device))
    owner = torch.from_numpy(questions.owner).to(device)
    features = [f[owner] for f in features]
    truth = torch.from_numpy((questions.truth >= 0.5).astype(np.float32)).to(device)
    present = torch.from_numpy(questions.present).to(device)
    prompts = questions.prompts
    logits, predicted, score = sam_model.propose(model, features, prompts)
    loss = proposals_loss(logits, predicted, score, truth, present, from_scratch)
    shown = logits[:, 0]
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
    every: int = 250,
    workers: int = 1,
    resume: bool = False,
    device: str = "cpu",
    photographs: list[Photograph] | None = None,
    start: Path | None = None,
) -> tuple[nn.Module, dict]:
    """Train a model; write `checkpoint.pt` and `curve.csv` to `out` every `every` steps and at the end.

    Args:
        photos, held: Training and held-out photographs, uint8 RGB.
        steps, minutes: Length of the run; exactly one is given. With `steps` a run is reproducible and an interrupted
            one resumes to the same weights; with `minutes` the schedule follows the clock.
        stop_at: Interrupt after this step, as a killed job would be, with a checkpoint.
        batch: Scenes per step at the first size; at the full size a quarter.
        rate: Peak learning rate of Muon.
        photographs: Real photographs with masks to train on; None or empty: rendered scenes alone.
        start: Weights to go on from; None for random ones.
        resume: Continue from `checkpoint.pt` if there is one of the same settings and code.

    Returns:
        The model and a record: steps, minutes, scenes, curve.
    """
    where = torch.device(device)
    model = sam_model.build(CONFIG, start, seed).to(where)
    named = photographs or []
    sources = [[p for p in named if p.source == s] for s in dict.fromkeys(p.source for p in named)]
    full = model.image_size
    optimizer = optimizer_of(model, rate)
    record = {"steps": 0, "minutes": 0.0, "scenes": 0, "curve": []}
    checkpoint = out / "checkpoint.pt"
    setting = {"seed": seed, "batch": batch, "steps": steps, "minutes": minutes, "rate": rate}
    setting |= {"start": start and sha256_of(start), "photographs": len(named)}
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
        scenes = batch if size < full else max(1, batch // 4)
        return mixed_batch(seed, step, photos, sources, scenes, PROMPTS, size, kinds)

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
            kinds = ("guess",) if start is None and loop.progress < EASY_SHARE else KINDS
            for step in range(done, done + workers + 1):
                if (step, size, kinds) not in ahead:
                    ahead[step, size, kinds] = pool.submit(prepare, step, size, kinds)
            questions = ahead.pop((done, size, kinds)).result()
            set_size(model, size)
            # the fused attention's backward pass is slow in bfloat16 on a CPU: 5 times the plain one's
            with autocast(where, on_cpu=True), sdpa_kernel(SDPBackend.MATH) if device == "cpu" else nullcontext():
                rng = np.random.default_rng([seed, done, 2])
                loss = step_loss(model, questions, int(rng.integers(ROUNDS)), rng, from_scratch=start is None)
            loop.learn(loss)
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
    """Write the weights as float16 in a safetensors file, and load them through `build_sam2`."""
    state = {name: value.detach().half().cpu().contiguous() for name, value in model.state_dict().items()}
    with atomic(path) as temporary:
        save_file(state, temporary)
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


def counted(photographs: list[Photograph]) -> dict[str, int]:
    """Number of photographs by source."""
    return dict(Counter(one.source for one in photographs))


def measure_photographs(weights: Path, asked: list[Photograph], device: str) -> dict:
    """Mean IoU by source and prompt of an exported file on photographs, and its own estimates beside the truth."""
    segmenter = Sam(sam_model.build(CONFIG, weights).to(device))
    rows = [row for one in tqdm(asked, desc="held out", unit="image") for row in question_rows(segmenter, one)]
    means = {
        source: {
            prompt: float(np.mean([r["iou"] for r in rows if (r["source"], r["prompt"]) == (source, prompt)]))
            for prompt in dict.fromkeys(row["prompt"] for row in rows)
        }
        for source in dict.fromkeys(row["source"] for row in rows)
    }
    return {"held": counted(asked), "iou": means, "calibration": calibration(rows)}


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
    photographs, asked = split(read_photographs(args.photographs)) if args.photographs else ([], [])
    start = Path(args.start) if args.start else None
    model, record = train(
        photos, held, out, steps=args.steps, minutes=args.minutes, seed=args.seed, batch=args.batch, rate=args.rate,
        every=args.every, workers=args.workers, resume=args.resume, device=device,
        photographs=photographs, start=start,
    )  # fmt: skip
    weights = out / "sam2.1-nano.safetensors"
    export(model, weights)
    run = {"seed": args.seed, "batch": args.batch, "prompts": PROMPTS, "rate": args.rate, "device": device}
    run |= {"start": sha256_of(start) if start else None} | record
    figures = measure(weights, held, args.seed, args.scenes // 4, device)
    figures |= {"photos": len(photos), "held": len(held), "run": run}
    if photographs:
        figures["photographs"] = measure_photographs(weights, sampled(asked, args.asked), device)
        figures["photographs"]["trained"] = counted(photographs)
        write_notice(weights.with_suffix(".NOTICE.md"), [*photographs, *asked])
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
    cli.add_argument("--photographs", help="folder of real photographs with masks (index.csv), to learn from as well")
    cli.add_argument("--start", help="weights to go on from (default: random ones)")
    cli.add_argument("--asked", type=int, default=40, help="held-out photographs of each source behind the figures")
    cli.add_argument("--scenes", type=int, default=100, help="held-out scenes behind each figure of the card")
    return cli


if __name__ == "__main__":
    stage(main, build_parser())
