"""The annotated photographs of a data set, as sam_pairs wrote them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from defectflow.core.files import UserError, read_json
from defectflow.core.tables import PAIRS, SPLITS, read_table
from defectflow.images.read_write import read_mask, read_rgb


@dataclass(frozen=True)
class Annotated:
    """One annotated photograph: its ``pair`` (jpg + json), group key and part of the segmentation split."""

    image_id: str
    group: str
    split: str
    pair: Path

    def image(self) -> np.ndarray:
        """The photograph, uint8 RGB (height, width, 3)."""
        return read_rgb(self.pair.with_suffix(".jpg"))

    def mask(self) -> np.ndarray:
        """The union of its annotations, bool (height, width)."""
        path = self.pair.with_suffix(".json")
        try:
            rles = [a["segmentation"] for a in read_json(path)["annotations"]]
            encoded = [{"size": r["size"], "counts": r["counts"].encode()} for r in rles]
            union: np.ndarray = coco_mask.decode(coco_mask.merge(encoded)).astype(bool)
            return union
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(f"{path}: not an annotation of SA-1B form ({error!r}; run sam_pairs again)") from None


@dataclass(frozen=True)
class FoundMask(Annotated):
    """A photograph with a mask that was found without an outline: ``pair`` is the file of the mask."""

    path: str
    depth: str | None

    def image(self) -> np.ndarray:
        """The photograph, uint8 RGB (height, width, 3)."""
        return read_rgb(self.path, self.depth)

    def mask(self) -> np.ndarray:
        """What was found, bool (height, width)."""
        return read_mask(self.pair)


def read_found(table: str | Path, depth: str | None = None) -> list[Annotated]:
    """The photographs of a PAIRS table of found masks, sorted by image_id, each a group of its own."""
    rows = read_table(table, PAIRS).sort_values("image_id").itertuples()
    return [FoundMask(r.image_id, f"image {r.image_id}", "train", Path(r.pair), r.path, depth) for r in rows]


def read_annotated(pairs: str | Path, table: str | Path, splits: str | Path) -> list[Annotated]:
    """The annotated photographs of a data set, sorted by image_id; one without a group is a group of its own.

    Raises:
        UserError: a file is absent or there is no annotated photograph.
    """
    by_id = read_table(splits, SPLITS).set_index("image_id")
    found = []
    for row in read_table(table, PAIRS).sort_values("image_id").itertuples():
        if not row.pair:
            continue
        if row.image_id not in by_id.index:
            raise UserError(f"{splits}: image {row.image_id!r} is missing (run split again)")
        split = by_id.loc[row.image_id]
        group = f"group {split.group}" if split.group else f"image {row.image_id}"
        found.append(Annotated(row.image_id, group, split.segmentation, Path(pairs) / row.pair))
    if not found:
        raise UserError(f"{table}: no annotated image (annotate some, or choose segmenter=none)")
    return found
