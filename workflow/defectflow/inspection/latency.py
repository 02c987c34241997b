"""Latency of an inspector: from the command to the first verdict, and per photograph by step and runtime."""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from defectflow.core.files import UserError
from defectflow.inspection.runtimes import LIBRARIES, installed

STEPS = ("read", "segment", "isolate", "network", "search", "regions")


def measure(
    bundle: str | Path, photographs: Iterable[Path], runtimes: Sequence[str], precision: str, threads: int, repeat: int
) -> str:
    """Measure each runtime in a separate process; returns Markdown tables, times in milliseconds.

    Raises:
        UserError: none of the requested runtimes is installed, or one fails.
    """
    paths = [str(path) for path in photographs]
    chosen = [name for name in runtimes if name in LIBRARIES and installed(name)]
    if not chosen:
        raise UserError(f"none of the runtimes {', '.join(runtimes)} is installed (known: {', '.join(LIBRARIES)})")
    return report({name: run(bundle, paths, name, precision, threads, repeat) for name in chosen})


def run(
    bundle: str | Path, paths: Sequence[str], runtime: str, precision: str, threads: int, repeat: int
) -> dict[str, Any]:
    """Measure one runtime in a new process; the result of `child`, and "cold_wall", seconds to a verdict."""
    words = [str(bundle), runtime, precision, str(threads), str(repeat)]
    start = time.perf_counter()
    command = [sys.executable, "-m", "defectflow.inspection.latency", *words]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": str(threads)}  # as `defectflow inspect` sets it
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin and process.stdout, "both are pipes"
        process.stdin.write("\0".join(paths))
        process.stdin.close()
        process.stdout.readline()
        cold = time.perf_counter() - start
        text = process.stdout.read()
    if process.returncode:
        raise UserError(f"bench: {runtime} failed (its message is above)")
    return {"cold_wall": cold, **json.loads(text)}


def child(bundle: str, runtime: str, precision: str, threads: int, repeat: int, paths: list[str]) -> dict[str, Any]:
    """Judge the photographs one after the other; an empty line on stdout signals the first verdict.

    Returns:
        cold_cpu: processor seconds of the process up to the first verdict. cpu, wall: lists by step and for "total" of
        seconds for each photograph after it, in two passes (the processor's clock, the wall's). bad: the verdicts.
    """
    import cv2

    from defectflow.core.kept_memory import INSPECTION, keep_memory
    from defectflow.inspection.inspector import Inspector

    cv2.setNumThreads(threads)  # as `defectflow inspect` does
    keep_memory(INSPECTION)
    inspector = Inspector.load(bundle, runtime, precision=precision, threads=threads)
    inspector(paths[0])
    print(flush=True)
    result: dict[str, Any] = {"cold_cpu": time.process_time()}
    inspector(paths[-1])
    for name, clock in (("cpu", time.process_time), ("wall", time.perf_counter)):
        inspector.clock = clock
        times: dict[str, list[float]] = {step: [] for step in (*STEPS, "total")}
        verdicts = []
        for path in paths * repeat:
            verdict = inspector(path)
            verdicts.append(verdict.bad)
            for step in STEPS:
                times[step].append(verdict.seconds.get(step, 0.0))
            times["total"].append(sum(verdict.seconds.values()))
        result |= {name: times, "bad": verdicts[: len(paths)]}
    return result


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` of the values do not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def report(results: dict[str, dict[str, Any]]) -> str:
    """Tables in Markdown."""
    lines = [
        "| runtime | to the first verdict, s: wall | processor | one photograph, ms: p50 wall | p95 wall "
        "| p50 processor | p95 processor | photographs per second |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        wall, cpu = result["wall"]["total"], result["cpu"]["total"]
        values = [f"{1000 * quantile(times, share):.0f}" for times in (wall, cpu) for share in (0.5, 0.95)]
        cold = f"{result['cold_wall']:.2f} | {result['cold_cpu']:.2f}"
        lines.append(f"| {name} | {cold} | {' | '.join(values)} | {len(wall) / sum(wall):.1f} |")
    lines += ["", f"| runtime, processor ms p50 / p95 | {' | '.join(STEPS)} |", "|---" * (len(STEPS) + 1) + "|"]
    for name, result in results.items():
        cells = [" / ".join(f"{1000 * quantile(result['cpu'][s], q):.1f}" for q in (0.5, 0.95)) for s in STEPS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for word, kind in (("bundle", str), ("runtime", str), ("precision", str), ("threads", int), ("repeat", int)):
        parser.add_argument(word, type=kind)
    arguments = vars(parser.parse_args())
    try:
        print(json.dumps(child(**arguments, paths=sys.stdin.read().split("\0"))))
    except UserError as error:
        sys.exit(f"error: {error}")
