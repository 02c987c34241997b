"""Measure fine-tuning of a SAM 2.1 variant: time to encode one photograph and per decoder step on its cached features.

Uses a checkpoint file of the official form, with random weights unless one is given; the times do not depend on them.
Run from the repository root: ``PYTHONPATH=workflow python benchmarks/sam_decoder_step.py [--config sam2.1_hiera_t]``
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from defectflow.parts.training_cases import GRID
from defectflow.segmentation import sam_model
from defectflow.segmentation.sam_cases import FeatureCache
from defectflow.segmentation.sam_training import Batch, Plan, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="sam2.1_hiera_t")
    parser.add_argument("--checkpoint", help="official checkpoint; random weights without")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = sam_model.pick_device(args.device)
    rng = np.random.default_rng(0)
    soft = np.zeros((GRID, GRID), np.float32)
    soft[80:180, 60:200] = 1
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = args.checkpoint
        if checkpoint is None:
            checkpoint = Path(folder) / "random.pt"
            torch.save({"model": sam_model.build(args.config).state_dict()}, checkpoint)
        model = sam_model.build(args.config, checkpoint).to(device)
        size = model.image_size

        def compute(image: np.ndarray) -> list[torch.Tensor]:
            with torch.no_grad(), sam_model.autocast(device):
                return sam_model.encode(model, sam_model.to_tensor(image, device))

        cache = FeatureCache(Path(folder), args.batch_size, compute)
        begin = time.perf_counter()
        for index in range(args.batch_size):
            cache.put(index, rng.integers(0, 255, (size, size, 3)).astype(np.uint8))
        encode = (time.perf_counter() - begin) / args.batch_size
        moments = []

        def batch_at(step: int, generator: np.random.Generator) -> Batch:
            moments.append((time.perf_counter(), time.process_time()))
            prompts = [sam_model.make_prompt(soft, size, generator) for _ in range(args.batch_size)]
            features = cache.get(list(range(args.batch_size)), device)
            return Batch(features, prompts, np.stack([soft] * args.batch_size), np.ones(args.batch_size))

        train(model, Plan("decoder", args.steps + 1, 1e-4, False, evaluate_every=10**6), batch_at, lambda: None)
    steps, busy = np.diff(moments, axis=0).T
    print(
        f"{args.config} at {size} px, {args.threads} threads, batch size {args.batch_size}: "
        f"encode {encode:.2f} s per photograph, decoder step {np.median(steps):.2f} s "
        f"(fastest {steps.min():.2f}, CPU time {np.median(busy):.2f}), {1 / np.median(steps):.2f} steps/s"
    )


if __name__ == "__main__":
    main()
