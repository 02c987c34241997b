"""Shared by the pre-trainings: their command line, and the checkpoint and curve next to their outputs."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

from defectflow.core.arguments import add_device, add_seed, add_threads
from defectflow.core.files import atomic
from defectflow.training import checkpoints


def add_options(cli: argparse.ArgumentParser, every: int) -> None:
    """Add the options of a training run; ``every``: default number of steps between checkpoints."""
    cli.add_argument("--pool", required=True, help="folder of varied photographs, searched recursively")
    cli.add_argument("--out", required=True, help="folder for weights, figures, card, curve and checkpoint")
    length = cli.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, help="train for this long; the result depends on the machine's speed")
    length.add_argument("--steps", type=int, help="train for this many steps; reproducible on one machine")
    cli.add_argument("--every", type=int, default=every, help="steps between checkpoints and measurements")
    cli.add_argument("--workers", type=int, default=1, help="threads that prepare images")
    add_threads(cli, 2)
    add_seed(cli)
    add_device(cli)
    cli.add_argument("--resume", action="store_true", help="continue from the checkpoint in --out, if there is one")


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (setting, record and state dicts), and the record's curve as curve.csv next to it, atomically."""
    checkpoints.save_checkpoint(path, state["setting"], state)
    curve = state["record"]["curve"]
    with atomic(path.with_name("curve.csv")) as temporary, open(temporary, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(curve[0]))
        writer.writeheader()
        writer.writerows(curve)
