import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pytest
from defectflow.core.tables import ISOLATED, MANIFEST, MASKS, PAIRS, read_table, write_table
from defectflow.images.read_write import read_mask, read_rgb, write_png
from defectflow.isolation.crop_and_background import (
    crop_geometry,
    crop_window,
    cut,
    fill_background,
    grow,
    isolate,
    isolate_part,
    normalise_light,
)
from defectflow.isolation.isolate import build_parser, main
from defectflow.isolation.settings import IsolationSettings
from defectflow.listing.image_names import image_ids
from settings_words import with_settings


@pytest.fixture
def picture():
    rng = np.random.default_rng(0)
    image = rng.integers(60, 90, (40, 50, 3)).astype(np.uint8)
    mask = np.zeros((40, 50), bool)
    mask[10:30, 15:40] = True
    return image, mask


def test_brightness_makes_dark_and_bright_views_of_a_part_alike(picture):
    image, mask = picture
    dark, bright = (image * 0.4).astype(np.uint8), (image * 2.0).astype(np.uint8)
    assert abs(float(dark[mask].mean()) - float(bright[mask].mean())) > 50
    a, b = (normalise_light(view, mask, "brightness")[mask].mean() for view in (dark, bright))
    assert abs(a - b) < 2 and abs(a - 110) < 2


def test_statistics_come_from_the_part_and_not_from_the_background(picture):
    image, mask = picture
    lit = image.copy()
    lit[~mask] = 255
    a, b = normalise_light(image, mask, "brightness"), normalise_light(lit, mask, "brightness")
    assert (a[mask] == b[mask]).all()


def test_gray_world_removes_a_colour_cast(picture):
    image, mask = picture
    cast = np.clip(image * np.array([1.5, 1.0, 0.6]), 0, 255).astype(np.uint8)
    means = normalise_light(cast, mask, "gray_world")[mask].mean(axis=0)
    assert means.max() - means.min() < 1.5 < np.ptp(cast[mask].mean(axis=0))


def test_contrast_makes_flat_and_strong_views_of_a_part_alike(picture):
    image, mask = picture
    flat, strong = (np.round(image * 0.5 + 90).astype(np.uint8), np.round((image - 60.0) * 4 + 20).astype(np.uint8))
    lit = flat.copy()
    lit[~mask] = 255  # the background has no say
    a, b = (normalise_light(view, mask, "contrast")[mask].astype(float) for view in (lit, strong))
    assert np.abs(a - b).max() < 24  # of 255: flat has but 15 levels
    assert np.percentile(b, 2) < 30 and np.percentile(b, 98) > 225
    even = np.full_like(image, 100)
    assert (normalise_light(even, mask, "contrast") == 0).all()  # nothing to stretch, and no division by nothing


def test_clahe_raises_local_contrast(picture):
    image, mask = picture
    assert normalise_light(image, mask, "clahe").std() > image.std()


@pytest.mark.parametrize("how", ["keep", "zero", "mean"])
def test_background_is_replaced_as_asked_and_the_part_never_touched(picture, how):
    image, mask = picture
    result = fill_background(image, mask, how)
    assert (result[mask] == image[mask]).all()
    outside = {"keep": image[~mask], "zero": 0, "mean": np.round(image[mask].mean(axis=0))}[how]
    assert (result[~mask] == outside).all()


def test_an_absent_part_is_never_zeroed(picture):
    image, mask = picture
    assert (fill_background(image, np.zeros_like(mask), "zero") == image).all()


def test_dilation_keeps_a_rim_of_background(picture):
    image, mask = picture
    result = isolate(image, mask, "zero", ["none"], dilate=3)
    rim = grow(mask, 3) & ~mask
    assert rim.any() and (result[rim] == image[rim]).all() and (result[~grow(mask, 3)] == 0).all()


def test_crop_window_has_one_size_and_follows_the_part(picture):
    _, mask = picture
    size = (30, 27)
    a = crop_window(mask, size, (0, 0))
    b = crop_window(np.roll(mask, (5, 8), (0, 1)), size, (0, 0))
    assert (a[2] - a[0], a[3] - a[1]) == size and (b[0] - a[0], b[1] - a[1]) == (8, 5)
    assert crop_window(np.zeros_like(mask), size, (25, 20)) == (10, 7, 40, 34)


def test_the_window_holds_every_part_and_shows_the_same_at_every_resolution(picture):
    rows = [
        ["a", "", "", 50, 40, "sa_000001", 1, 500, 15, 10, 25, 20],
        ["b", "", "", 100, 80, "sa_000002", 1, 1, 0, 0, 40, 44],
    ]
    pairs = pd.DataFrame([*rows, ["c", "", "", 9000, 9, "", 0, 0, 0, 0, 0, 0]], columns=PAIRS)
    size, centre = crop_geometry(pairs, margin=0.1)
    assert size == pytest.approx((30 / 50, 26.4 / 50)) and centre == pytest.approx((0.375, 0.31))
    image, mask = picture
    keep = IsolationSettings(background="keep", crop=True)
    part, inside, window, turn = isolate_part(image, mask, keep, size, centre)
    assert part.shape == (27, 30, 3) and inside.sum() == mask.sum() and turn == 0
    large = [cv2.resize(x.astype(np.uint8), None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST) for x in (image, mask)]
    wide = isolate_part(large[0], large[1] > 0, keep, size, centre).window
    np.testing.assert_allclose(wide, 4 * np.array(window), atol=4)  # whole pixels of either
    absent = isolate_part(large[0], large[1] > 2, keep, size, centre).window
    np.testing.assert_allclose(np.add(absent[:2], absent[2:]) / 2, 200 * np.array(centre), atol=1)


def test_cut_beyond_the_frame_is_filled_with_zeros(picture):
    image, _ = picture
    part = cut(image, (-5, -3, 10, 10))
    assert part.shape == (13, 15, 3) and (part[:3] == 0).all() and (part[3:, 5:] == image[:10, :10]).all()
    assert cut(image, (100, 100, 110, 105)).shape == (5, 10, 3)


def run_stage(tmp_path, picture, *flags, masks=True):
    image, mask = picture
    write_png(tmp_path / "a.png", image)
    write_png(tmp_path / "a.mask.png", mask)
    row = dict.fromkeys(MANIFEST, "") | {"image_id": "a", "path": str(tmp_path / "a.png"), "width": 50, "height": 40}
    write_table(tmp_path / "manifest.csv", pd.DataFrame([row]), MANIFEST)
    seen = dict.fromkeys(MASKS, 0) | {"doubtful": 1, "image_id": "a", "mask": str(tmp_path / "a.mask.png")}
    write_table(tmp_path / "masks.csv", pd.DataFrame([seen]), MASKS)
    box = dict(zip(PAIRS, ["a", "a.png", "", 50, 40, "sa_000001", 1, 500, 15, 10, 25, 20], strict=True))
    write_table(tmp_path / "pairs.csv", pd.DataFrame([box]), PAIRS)
    given = ["--masks", tmp_path / "masks.csv", "--pairs", tmp_path / "pairs.csv"] if masks else []
    command = [sys.executable, "-m", "defectflow.isolation.isolate", "--manifest", tmp_path / "manifest.csv", *given]
    command += [
        "--out-dir",
        tmp_path / "out",
        "--table",
        tmp_path / "out.csv",
        *with_settings(flags, IsolationSettings),
    ]
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    return result, tmp_path / "out.csv"


def test_stage_writes_pictures_whose_window_is_stated(tmp_path, picture):
    result, table = run_stage(tmp_path, picture, "--background", "zero", "--crop", "--margin", "0")
    assert result.returncode == 0, result.stderr
    row = read_table(table, ISOLATED).iloc[0]
    assert (row.x0, row.y0, row.x1, row.y1) == (15, 10, 40, 30) and row.doubtful == 1
    assert read_rgb(row.image).shape == (20, 25, 3) and read_mask(row["mask"]).all()


def test_the_table_changes_with_what_the_pictures_hold(tmp_path, picture):
    """A run that stops after this stage goes on from the table alone: Snakemake compares small files by their bytes."""
    kept, zeroed, again = (
        run_stage(tmp_path, picture, "--background", to)[1].read_bytes() for to in ("mean", "zero", "mean")
    )
    assert kept == again != zeroed
    whole = run_stage(tmp_path, picture, "--background", "keep")[1].read_bytes()
    grown = run_stage(tmp_path, (picture[0], ~picture[1]), "--background", "keep")[1].read_bytes()
    assert whole != grown


def test_a_photograph_named_like_a_mask_is_not_taken_for_one(tmp_path, picture):
    image, mask = picture
    write_png(tmp_path / "given.png", mask)
    names = {"part.png": image, "part.mask.png": 255 - image}
    ids = image_ids(names)
    for name, pixels in names.items():
        write_png(tmp_path / name, pixels)
    rows = [
        dict.fromkeys(MANIFEST, "") | {"image_id": ids[n], "path": str(tmp_path / n), "width": 50, "height": 40}
        for n in names
    ]
    write_table(tmp_path / "manifest.csv", pd.DataFrame(rows), MANIFEST)
    seen = [dict.fromkeys(MASKS, 0) | {"image_id": i, "mask": str(tmp_path / "given.png")} for i in ids.values()]
    write_table(tmp_path / "masks.csv", pd.DataFrame(seen), MASKS)
    command = [
        "--manifest",
        tmp_path / "manifest.csv",
        "--masks",
        tmp_path / "masks.csv",
        "--settings",
        '{"background": "mean"}',
    ]
    command += ["--out-dir", tmp_path / "out", "--table", tmp_path / "out.csv"]
    main(build_parser().parse_args([str(word) for word in command]))
    table = read_table(tmp_path / "out.csv", ISOLATED)
    for row, pixels in zip(table.itertuples(), names.values(), strict=True):
        assert (read_rgb(row.image)[mask] == pixels[mask]).all() and (read_mask(row.mask) == mask).all()


def test_stage_without_change_points_to_the_photographs_themselves(tmp_path, picture):
    result, table = run_stage(tmp_path, picture, "--background", "keep", masks=False)
    assert result.returncode == 0, result.stderr
    row = read_table(table, ISOLATED).iloc[0]
    assert row.image == str(tmp_path / "a.png") and row["mask"] == "" and row.x1 == 50 and row.doubtful == 0


def test_where_no_part_was_found_photographs_stay_whole_whatever_the_isolation(tmp_path, picture):
    write_png(tmp_path / "a.png", picture[0])
    row = dict.fromkeys(MANIFEST, "") | {"image_id": "a", "path": str(tmp_path / "a.png"), "width": 50, "height": 40}
    write_table(tmp_path / "a.csv", pd.DataFrame([row]), MANIFEST)
    mask = dict.fromkeys(MASKS, "") | {
        "image_id": "a",
        "mask": str(tmp_path / "m.png"),
        "source": "whole",
        "doubtful": 0,
    }
    write_table(tmp_path / "masks.csv", pd.DataFrame([mask]), MASKS)
    command = ["--manifest", tmp_path / "a.csv", "--masks", tmp_path / "masks.csv", "--pairs", tmp_path / "none.csv"]
    command += ["--settings", '{"background": "zero", "normalise": ["brightness"], "crop": true}']
    command += ["--out-dir", tmp_path / "out", "--table", tmp_path / "out.csv"]
    main(build_parser().parse_args([str(word) for word in command]))
    isolated = read_table(tmp_path / "out.csv", ISOLATED).iloc[0]
    assert isolated.image == row["path"] and isolated["mask"] == "" and (isolated.x0, isolated.x1) == (0, 50)


def test_crop_without_masks_is_one_clear_line(tmp_path, picture):
    result, table = run_stage(tmp_path, picture, "--background", "keep", "--crop", masks=False)
    assert result.returncode == 1 and result.stderr.strip().startswith("error: isolation with crop")
    assert not table.exists()


def test_stage_without_change_writes_16_bit_photographs_in_their_depth(tmp_path, picture):
    image = np.dstack([picture[0][..., 0]] * 3)
    row = dict.fromkeys(MANIFEST, "") | {"image_id": "a", "path": str(tmp_path / "deep.png"), "width": 50, "height": 40}
    write_table(tmp_path / "deep.csv", pd.DataFrame([row]), MANIFEST)
    cv2.imwrite(row["path"], image[..., 0].astype(np.uint16) << 4)
    command = ["--manifest", tmp_path / "deep.csv", "--settings", '{"background": "keep"}', "--depth", "12"]
    command += ["--out-dir", tmp_path / "out", "--table", tmp_path / "out.csv"]
    main(build_parser().parse_args([str(word) for word in command]))
    found = read_table(tmp_path / "out.csv", ISOLATED).iloc[0]
    assert found.image == str(tmp_path / "out/a.png") and found.x1 == 50
    assert (cv2.imread(found.image, cv2.IMREAD_UNCHANGED) == image).all()
