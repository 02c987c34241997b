import cv2
import numpy as np
import pandas as pd
import pytest
from defectflow.core.tables import MANIFEST, MASKS, write_table
from defectflow.segmentation import part_sheet


def write_set(folder, sources):
    """Grey photographs with a square part; the third is doubtful."""
    images, masks = [], []
    for k, source in enumerate(sources):
        mask = np.zeros((90, 120), np.uint8)
        mask[20:70, 30:80] = 255
        cv2.imwrite(str(folder / f"{k}.png"), np.full((90, 120, 3), 128, np.uint8))
        cv2.imwrite(str(folder / f"{k}m.png"), mask)
        images.append(dict.fromkeys(MANIFEST, "") | {"image_id": f"i{k}", "path": str(folder / f"{k}.png")})
        row = {"image_id": f"i{k}", "mask": str(folder / f"{k}m.png"), "source": source, "present": 1, "area": 0.23}
        masks.append(dict.fromkeys(MASKS, "") | row | {"doubtful": int(k == 2), "reason": "odd" if k == 2 else ""})
    write_table(folder / "images.csv", pd.DataFrame(images), MANIFEST)
    write_table(folder / "masks.csv", pd.DataFrame(masks), MASKS)
    return pd.DataFrame(masks)


@pytest.mark.parametrize(("sources", "marks"), [(["template"] * 6, True), (["whole"] * 6, True)])
def test_the_sheet_shows_the_outlines_over_a_darkened_background(tmp_path, sources, marks):
    write_set(tmp_path, sources)
    args = ["--images", str(tmp_path / "images.csv"), "--masks", str(tmp_path / "masks.csv")]
    part_sheet.main(part_sheet.build_parser().parse_args([*args, "--out", str(tmp_path / "parts.png")]))
    sheet = cv2.imread(str(tmp_path / "parts.png"))
    assert ((sheet == (255, 0, 255)).all(2).sum() > 6 * 4 * 100) == marks
    assert (sheet == 128).all(2).sum() > 6 * 120 * 120  # the part as it is
    assert (sheet == int(128 * part_sheet.SHADE)).all(2).sum() > 6 * 200 * 200  # the background, darkened


def test_doubtful_masks_come_first(tmp_path):
    table = write_set(tmp_path, ["template"] * 6)
    assert part_sheet.chosen(table, most=4)["image_id"].tolist() == ["i2", "i0", "i3", "i5"]
