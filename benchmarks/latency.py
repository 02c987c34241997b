"""Latency of an inspector by runtime, beside anomalib's model in eager PyTorch with the same backbone and bank.

    python benchmarks/latency.py results/demo/template/crop/patchcore/bundle results/demo/source/images
    python benchmarks/latency.py BUNDLE PHOTOGRAPHS --before ../main --sizes 512 4096

With ``--before``, the inspector of another checkout judges the same photographs, each right before or after this one,
and both have to say the same. ``--sizes`` enlarges them first.

All get the same isolated pictures. Eager PyTorch means anomalib's modules, called one after the other unchanged: once
the whole model, which searches all cells of the grid and makes a map, and once for the part's cells only and without a
map, which is what the inspector computes. The inspector's own `torch` runs eagerly too, with fused calls and its own
search. The runtimes must agree in every verdict.
On a busy machine look at processor time.
"""

import argparse
import base64
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, os.environ.get("CHECKOUT", str(Path(__file__).parents[1])) + "/workflow")

from anomalib_peer import anomalib_eager, anomalib_graph, inferencer
from defectflow.backbones.network_input import Loaded
from defectflow.images.read_write import read_photograph
from defectflow.inspection.bundle_files import read_bundle
from defectflow.inspection.inspector import Inspector, Ready
from defectflow.inspection.judge_files import judge_one
from defectflow.inspection.latency import STEPS, quantile, report, run
from defectflow.inspection.photo_sources import photographs


def anomalib_openvino(
    folder: Path, inspector: Inspector, photos: Sequence[Path], items: list[Loaded]
) -> dict[str, list[float]]:
    """Processor seconds for each picture of anomalib's OpenVINOInferencer, in float32 and as it is, and of ours.

    One thread. Its Patchcore has the same backbone and bank, and gets ``items``, the same isolated pictures. Ours:
    network, search and regions; and all of it, from the file.
    """
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as place, chdir(place):  # it makes a folder for its cache where it runs
        graph = anomalib_graph(folder, Path(place))
        exact, fast = inferencer(graph, "f32"), inferencer(graph)
        ways: dict[str, Callable[[Path, Loaded], Any]] = {
            "anomalib's OpenVINOInferencer, float32": lambda _, item: exact.predict(item.picture / np.float32(255)),
            "the same, by default": lambda _, item: fast.predict(item.picture / np.float32(255)),
            "ours": lambda _, item: inspector.finish([Ready(item.picture.shape[:2], None, item, {})]),
            "ours, with reading, finding and isolating the part": lambda path, _: inspector(path),
        }
        for path, item in [(photos[0], items[0]), *zip(photos, items, strict=True)]:
            for name, judge in ways.items():
                begin = time.process_time()
                judge(path, item)
                times.setdefault(name, []).append(time.process_time() - begin)
    return {name: own[1:] for name, own in times.items()}


def serve(bundle: Path, runtime: str) -> None:
    """Judge each photograph whose path comes in, on one thread, and answer with the verdict and processor seconds."""
    cv2.setNumThreads(1)
    with suppress(ImportError):  # an earlier checkout has no such module
        from defectflow.core.kept_memory import INSPECTION, keep_memory

        keep_memory(INSPECTION)
    inspector = Inspector.load(bundle, runtime)
    inspector.clock = time.process_time
    for line in sys.stdin:
        verdict = inspector(line.rstrip("\n"))
        answer: dict[str, Any] = {"seconds": dict(verdict.seconds), "raw_score": verdict.raw_score}
        part, heat = verdict.part, verdict.heat
        step = -(-max(heat.shape) // 512)
        answer |= {
            "regions": [[*region.box, region.area, region.mark] for region in verdict.regions],
            "scores": [region.score for region in verdict.regions],
            "part": "" if part is None else hashlib.sha256(np.packbits(part)).hexdigest(),
            "heat": base64.b64encode(np.ascontiguousarray(heat[::step, ::step])).decode(),
        }
        print(json.dumps(answer), flush=True)


@contextmanager
def server(checkout: Path, bundle: Path, runtime: str) -> Iterator[subprocess.Popen[str]]:
    """A process in which the inspector of a checkout judges; see `serve`."""
    command = [sys.executable, __file__, "--serve", runtime, str(bundle)]
    own = {"CHECKOUT": str(checkout), "PYTHONPATH": "", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=os.environ | own) as process:
        yield process
        assert process.stdin, "a pipe"
        process.stdin.close()


def judged(process: subprocess.Popen[str], path: Path) -> dict[str, Any]:
    """The answer of a `server`."""
    assert process.stdin and process.stdout, "both are pipes"
    process.stdin.write(f"{path}\n")
    process.stdin.flush()
    answer: dict[str, Any] = json.loads(process.stdout.readline())
    answer["heat"] = np.frombuffer(base64.b64decode(answer["heat"]), np.float32)
    return answer


def compare(before: Path, bundle: Path, paths: list[Path], runtime: str, rounds: int) -> None:
    """Print processor milliseconds of both checkouts by step, the ratio, and how far the results differ."""
    times: tuple[list[dict[str, float]], list[dict[str, float]]] = ([], [])
    apart = {"raw score": 0.0, "heat": 0.0, "score of a region": 0.0}
    other = {"regions": 0, "part": 0}
    with server(before, bundle, runtime) as old, server(Path(__file__).parents[1], bundle, runtime) as new:
        for number in range(-1, rounds):  # the first round only warms up
            for place, path in enumerate(paths):
                order = (old, new) if (number + place) % 2 else (new, old)
                answers = [judged(process, path) for process in order]
                one, two = answers if order[0] is old else answers[::-1]
                if number < 0:
                    apart["raw score"] = max(apart["raw score"], abs(one["raw_score"] - two["raw_score"]))
                    apart["heat"] = max(apart["heat"], float(np.abs(one["heat"] - two["heat"]).max()))
                    if one["regions"] == two["regions"]:
                        pairs = zip(one["scores"], two["scores"], strict=True)
                        apart["score of a region"] = max([apart["score of a region"], *(abs(a - b) for a, b in pairs)])
                    for key in other:
                        other[key] += one[key] != two[key]
                    continue
                for kept, answer in zip(times, (one, two), strict=True):
                    kept.append(answer["seconds"] | {"total": sum(answer["seconds"].values())})
    print(f"\n{len(paths)} photographs, {rounds} times, {runtime}, one thread\n")
    print("| processor ms, p50 / p95 | before | now | ratio of the sums |\n|---|---|---|---|")
    for step in (*STEPS, "total"):
        both = [[one.get(step, 0.0) for one in kept] for kept in times]
        cells = [f"{1000 * quantile(one, 0.5):.1f} / {1000 * quantile(one, 0.95):.1f}" for one in both]
        ratio = f"{sum(both[1]) / sum(both[0]):.3f}" if sum(both[0]) > 0.001 * len(both[0]) * rounds else ""
        print(f"| {step} | {' | '.join(cells)} | {ratio} |")
    print("largest differences: " + ", ".join(f"{key} {value:.2g}" for key, value in apart.items()), end="; ")
    print("photographs that differ: " + ", ".join(f"{key} {value}" for key, value in other.items()), flush=True)


def starts(checkouts: Sequence[Path], bundle: Path, path: Path, runtime: str, rounds: int) -> list[list[float]]:
    """Processor seconds of `defectflow inspect` for a single photograph, of each checkout, alternately.

    The first round only compiles modules, as an installation does.
    """
    words = ["inspect", str(bundle), str(path), "--runtime", runtime, "--threads", "1"]
    times: list[list[float]] = [[] for _ in checkouts]
    with tempfile.TemporaryDirectory() as compiled:
        plain = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        for number in range(-1, rounds):
            for checkout, own in zip(checkouts, times, strict=True):
                paths = {"PYTHONPATH": str(checkout.resolve() / "workflow"), "PYTHONPYCACHEPREFIX": compiled}
                # Not `subprocess`: only wait4 tells the time of this one.
                command = [sys.executable, "-m", "defectflow.commands.cli", *words]
                sink = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)]
                child = os.posix_spawn(sys.executable, command, plain | paths, file_actions=sink)
                _, status, used = os.wait4(child, 0)
                assert os.waitstatus_to_exitcode(status) in (0, 3), "inspect failed"
                if number >= 0:
                    own.append(used.ru_utime + used.ru_stime)
    return times


def batches(bundle: Path, sizes: Sequence[int], rounds: int) -> None:
    """Print processor milliseconds a picture of the network of a bundle, and of a copy that takes several at once."""
    import onnxruntime
    import openvino
    import torch
    from defectflow.backbones.network_as_graph import make_network

    read = read_bundle(bundle)
    network, path = read.settings["network"], str(read.path("network.onnx"))
    pictures = np.random.default_rng(0).integers(0, 256, (max(sizes), *network["input_size"], 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        free = f"{folder}/free.onnx"
        model, two = make_network(network, read.path("backbone.safetensors")), torch.from_numpy(pictures[:2])
        shapes = ({0: torch.export.Dim("pictures", min=1)},)
        torch.onnx.export(
            model, (two,), free, input_names=["picture"], opset_version=18, dynamo=True, external_data=False,
            dynamic_shapes=shapes, verbose=False,
        )  # fmt: skip
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
        ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
        for name, graph in (("as bundled", path), ("several", free)):
            session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            compiled = openvino.Core().compile_model(graph, "CPU", hints)
            ways[f"ONNX Runtime, {name}"] = lambda some, session=session: session.run(None, {"picture": some})[0]
            ways[f"OpenVINO, {name}"] = lambda some, compiled=compiled: compiled(some)[0]
        single = np.concatenate([ways["ONNX Runtime, as bundled"](picture[None]) for picture in pictures])
        times: dict[tuple[str, int], list[float]] = {}
        apart = 0.0
        for number in range(-1, rounds):
            for way, run_ in ways.items():
                for size in [1] if "bundled" in way else sizes:
                    begin = time.process_time()
                    found = run_(pictures[:size])
                    if number >= 0:
                        times.setdefault((way, size), []).append((time.process_time() - begin) / size)
                    apart = max(apart, float(np.abs(found - single[:size]).max() / np.abs(single).max()))
    print("| processor ms a picture | " + " | ".join(map(str, sizes)) + " |\n|---" + "|---" * len(sizes) + "|")
    for way in ways:
        cells = [f"{1000 * median(times[way, size]):.1f}" if (way, size) in times else "" for size in sizes]
        print(f"| {way} | {' | '.join(cells)} |")
    print(f"largest difference of a patch: {apart:.1g} of the largest value")


def memory(bundle: Path, paths: Sequence[Path], count: int, runtime: str) -> None:
    """Print the resident memory of a process every 100 of ``count`` photographs, which are judged again and again."""
    from defectflow.core.kept_memory import INSPECTION, keep_memory

    cv2.setNumThreads(1)
    keep_memory(INSPECTION)
    inspector = Inspector.load(bundle, runtime)
    page = os.sysconf("SC_PAGE_SIZE")
    for number in range(count):
        judge_one(inspector, None, paths[number % len(paths)])
        if number % 100 == 99 or number == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            print(f"{number + 1} photographs: {pages * page / 2**20:.0f} MiB", flush=True)


def enlarged(paths: list[Path], side: int, folder: Path) -> list[Path]:
    """JPEG copies of photographs whose longer side has ``side`` pixels."""
    copies = []
    for path in paths:
        image = cv2.imread(str(path))
        scale = side / max(image.shape)
        copies.append(folder / f"{path.stem}_{side}.jpg")
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(copies[-1]), image, [cv2.IMWRITE_JPEG_QUALITY, 92])
    return copies


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("paths", nargs="*")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--before", type=Path, help="another checkout to compare with")
    parser.add_argument("--sizes", type=int, nargs="+", default=[], help="longer sides in pixels, for --before")
    parser.add_argument("--every", type=int, default=1, help="take every Nth photograph")
    parser.add_argument("--rounds", type=int, default=3, help="passes over the photographs, for --before")
    parser.add_argument("--runtime", default="openvino", help="for --before")
    parser.add_argument("--batches", type=int, nargs="+", help="only: pictures in one call of the network")
    parser.add_argument("--memory", type=int, help="only: memory over so many photographs")
    parser.add_argument("--peer", action="store_true", help="only: beside anomalib's OpenVINOInferencer")
    parser.add_argument("--serve", metavar="RUNTIME", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.bundle, args.serve)
        return
    if args.batches:
        batches(args.bundle, args.batches, args.rounds)
        return
    if args.peer:
        cv2.setNumThreads(1)
        inspector = Inspector.load(args.bundle, "openvino")
        found = list(photographs(args.paths))[:: args.every]
        items = [inspector.prepare(read_photograph(path)) for path in found]
        peer = anomalib_openvino(args.bundle.resolve(), inspector, [path.resolve() for path in found], items)
        theirs, own = list(peer)[:2], list(peer)[2:]
        print(f"{len(items)} pictures\n\n| processor ms | p50 / p95 | of float32 | of the default |\n|---|---|---|---|")
        for name in peer:
            ratios = [f"{sum(peer[name]) / sum(peer[other]):.2f}" if name in own else "" for other in theirs]
            cells = " / ".join(f"{1000 * quantile(peer[name], share):.0f}" for share in (0.5, 0.95))
            print(f"| {name} | {cells} | {' | '.join(ratios)} |")
        return
    if args.memory:
        memory(args.bundle, list(photographs(args.paths)), args.memory, args.runtime)
        return
    if args.before:
        found = list(photographs(args.paths))[:: args.every]
        checkouts = (args.before, Path(__file__).parents[1])
        old, new = (median(own) for own in starts(checkouts, args.bundle, found[0], args.runtime, 2 * args.rounds))
        print(f"from the command to the end of the first: {old:.2f} s before, {new:.2f} now, ratio {new / old:.2f}")
        with tempfile.TemporaryDirectory() as folder:
            for side in args.sizes or [None]:
                print(f"\n{side or 'as they are'}", flush=True)
                own = enlarged(found, side, Path(folder)) if side else found
                compare(args.before, args.bundle, own, args.runtime, args.rounds)
        return
    paths = [str(path) for path in list(photographs(args.paths))[:: args.every]]
    results = {name: run(args.bundle, paths, name, "fp32", args.threads, 1) for name in ("openvino", "onnx", "torch")}
    print(report(results))
    verdicts = [result["bad"] for result in results.values()]
    assert all(other == verdicts[0] for other in verdicts), "verdicts differ between runtimes"
    print(f"\n{len(paths)} photographs, {sum(verdicts[0])} bad, the same verdicts by every runtime")
    inspector = Inspector.load(args.bundle, "openvino")
    items = [inspector.prepare(read_photograph(path)) for path in paths]
    cpu = {name: result["cpu"] for name, result in results.items()}
    # The steps that surround the model are ours there as well.
    names = ("anomalib, eager PyTorch", "the same, of the part")
    times_of_each, of_eager = anomalib_eager(args.bundle, items, args.threads)
    alike = sum(a == b for a, b in zip(of_eager, verdicts[0], strict=True))
    print(f"eager PyTorch, in the part: {alike} of {len(paths)} verdicts the same")
    eager = {
        name: {**cpu["torch"], "network": times, "search": [0.0] * len(paths)}
        for name, times in zip(names, times_of_each, strict=True)
    }
    steps = {
        "network and search": ("network", "search"),
        "all but finding the part": STEPS[:1] + STEPS[2:],
        "all": STEPS,
    }
    print(f"\n| processor ms, p50 / p95 | {' | '.join(steps)} |\n|---{'|---' * len(steps)}|")
    for name, times in (eager | cpu).items():
        sums = [[sum(values) for values in zip(*(times[step] for step in own), strict=True)] for own in steps.values()]
        cells = [f"{1000 * quantile(values, 0.5):.0f} / {1000 * quantile(values, 0.95):.0f}" for values in sums]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
