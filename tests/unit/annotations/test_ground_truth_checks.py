import io

import numpy as np
import pytest
from defectflow.annotations.ground_truth_checks import check_masks
from defectflow.images.image_checks import Picture
from PIL import Image

SIZE = (128, 96)


def defect(number: int) -> np.ndarray:
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[20 + number : 50 + number, 30:70] = 1
    return mask


def with_specks(mask: np.ndarray) -> Image.Image:
    """As a JPEG leaves it, saved as PNG."""
    stream = io.BytesIO()
    Image.fromarray(mask * 255).save(stream, "JPEG", quality=75)
    return Image.open(stream)


def check(folder, masks, label="1"):
    rows = {}
    for number, image in enumerate(masks):
        path = folder / f"{number}.png"
        image.save(path)
        rows[f"p{number}.jpg"] = {"mask": str(path), "label": label}
    return check_masks(rows, dict.fromkeys(rows, Picture(raw_size=SIZE)))


@pytest.mark.parametrize("label", ["1", ""])
def test_a_mask_of_another_encoding_than_that_of_its_set_is_told_as_such(label, tmp_path):
    masks = [Image.fromarray(defect(0)), Image.fromarray(defect(1) * 255), with_specks(defect(2))]
    problems, _, _ = check(tmp_path, masks, label)
    assert [one.file for one in problems] == ["p0.jpg"]
    assert "has no value but 0 and 1, and the set is cut at 127.5: does it mix 0/1 and 0/255?" in problems[0].text
    assert "empty" not in problems[0].text


def test_a_transparent_mask_of_another_encoding_is_told_as_such(tmp_path):
    white = np.full((*SIZE[::-1], 3), 255, np.uint8)
    masks = [Image.fromarray(np.dstack([white, defect(k) * opaque])) for k, opaque in enumerate((1, 255, 255))]
    problems, _, _ = check(tmp_path, masks)
    assert [one.file for one in problems] == [
        "p0.jpg"
    ] and "an alpha channel up to 1, and the set is cut at 127.5" in problems[0].text


@pytest.mark.parametrize("label", ["1", ""])
def test_a_lossy_mask_of_another_encoding_is_told_as_such(label, tmp_path):
    stream = io.BytesIO()
    Image.fromarray(defect(0) * 2).save(stream, "JPEG", quality=100)
    (tmp_path / "0.jpg").write_bytes(stream.getvalue())
    with_specks(defect(1)).save(tmp_path / "1.png")
    rows = {f"p{k}.jpg": {"mask": str(tmp_path / f), "label": label} for k, f in enumerate(("0.jpg", "1.png"))}
    problems, _, _ = check_masks(rows, dict.fromkeys(rows, Picture(raw_size=SIZE)))
    assert [one.file for one in problems] == ["p0.jpg"] and "and the set is cut at" in problems[0].text


@pytest.mark.parametrize("label", ["1", ""])
def test_a_faint_mask_among_coloured_ones_is_told_as_such(label, tmp_path):
    faint, full = (np.dstack([defect(k) * value, defect(k) * 0, defect(k) * 0]) for k, value in enumerate((30, 255)))
    stream = io.BytesIO()
    Image.fromarray(full).save(stream, "JPEG", quality=75)  # with shades, so that the set is cut at half
    masks = [Image.fromarray(faint), Image.open(stream)]
    problems, _, _ = check(tmp_path, masks, label)
    assert [one.file for one in problems] == ["p0.jpg"] and "colours that differ less, and the set" in problems[0].text


def test_both_encodings_without_specks_are_read_and_an_empty_mask_is_called_empty(tmp_path):
    masks = [Image.fromarray(defect(0)), Image.fromarray(defect(1) * 255)]
    assert check(tmp_path, masks)[0] == []
    problems, _, _ = check(tmp_path, [Image.fromarray(defect(0) * 0), with_specks(defect(2))])
    assert [one.text.rpartition(".png ")[2] for one in problems] == ["is empty, though the image is labelled bad"]


def test_what_a_jpeg_leaves_of_nothing_is_no_defect_of_a_good_photograph(tmp_path):
    faint = np.zeros(SIZE[::-1], np.uint8)
    faint[3, 3] = 1
    problems, _, _ = check(tmp_path, [Image.fromarray(faint), with_specks(defect(2))], "0")
    assert [one.file for one in problems] == ["p1.jpg"]
