"""A folder of annotated photographs: three series of one camera, and pictures of their own."""

import csv
from pathlib import Path

import cv2
import numpy as np


def write_photographs(folder: Path, singles: int = 12, frames: int = 4) -> None:
    """Write index.csv, images and label maps of two sources: "tools" in series of ``frames``, "people" one by one."""
    rows = []
    for source, scenes, views in (("tools", 3, frames), ("people", singles, 1)):
        for kind in ("images", "masks"):
            (folder / source / kind).mkdir(parents=True)
        for scene in range(scenes):
            rng = np.random.default_rng([scene, views])
            behind = cv2.resize(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8), (96, 72))
            colours = rng.integers(0, 256, (2, 3))
            for view in range(views):
                image, labels = behind.copy(), np.zeros((72, 96), np.uint8)
                for number, x in ((1, 20 + view), (2, 60)):
                    cv2.circle(labels, (x, 40), 14, number, -1)
                    image[labels == number] = colours[number - 1]
                name = f"{scene}_{view}.png"
                cv2.imwrite(str(folder / source / "images" / name), image)
                cv2.imwrite(str(folder / source / "masks" / name), labels)
                rows.append(
                    {"file": f"{source}/images/{name}", "mask": f"{source}/masks/{name}", "source": f"owner/{source}",
                     "licence": "CC BY 4.0", "figure": "yes" if source == "people" else ""}
                )  # fmt: skip
    with open(folder / "index.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
