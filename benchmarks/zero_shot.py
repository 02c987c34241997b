"""SAM without fine-tuning: IoU of its mask for the box of each annotation, and of the box itself.

python benchmarks/zero_shot.py FOLDER            # with images/ and annotations.json (COCO, one part in each)
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from pycocotools.coco import COCO

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from defectflow.images.read_write import read_rgb
from defectflow.parts.registration_frame import iou
from defectflow.parts.training_cases import to_square
from defectflow.pretraining.rendered_scenes import filled_box
from defectflow.segmentation import sam_model


def main() -> None:
    """Print mean, median and smallest IoU."""
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("folder", type=Path)
    cli.add_argument("--model", default="nano", help="key of sam.CONFIGS")
    cli.add_argument("--checkpoint", help="local file; else the packaged weights")
    args = cli.parse_args()
    model = sam_model.build(args.model, args.checkpoint or sam_model.PACKAGED.get(args.model))
    coco = COCO(args.folder / "annotations.json")
    values: dict[str, list[float]] = {"a box": [], "a box, filled in as a mask too": [], "the box itself": []}
    size = model.image_size
    for entry in coco.loadImgs(coco.getImgIds()):
        annotations = coco.loadAnns(coco.getAnnIds(entry["id"]))
        if not annotations:
            continue
        image = read_rgb(args.folder / "images" / entry["file_name"])
        truth = np.any([coco.annToMask(a) for a in annotations], axis=0)
        prompt = sam_model.make_prompt(truth.astype(np.float32), size)
        prompt.labels[2:] = sam_model.NOT_A_POINT
        box = filled_box(prompt, size)
        with torch.inference_mode():
            features = sam_model.encode(model, sam_model.to_tensor(to_square(image, size)[None], torch.device("cpu")))
            for name, mask in zip(list(values)[:2], (None, box), strict=True):
                prompt.mask = mask
                logits, _, _ = sam_model.decode(model, features, [prompt])
                values[name].append(iou(sam_model.full_size(logits[0], truth.shape), truth))
        whole = cv2.resize(box, truth.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
        values["the box itself"].append(iou(whole, truth))
    print(f"| prompt ({len(values['a box'])} photographs) | mean IoU | median | smallest |\n|---|---|---|---|")
    for name, found in values.items():
        print(f"| {name} | {np.mean(found):.3f} | {np.median(found):.3f} | {np.min(found):.3f} |")


if __name__ == "__main__":
    main()
