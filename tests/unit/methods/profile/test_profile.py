import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from defectflow.backbones.network_input import Scale, fit_picture
from defectflow.backbones.patch_embedding import PatchEmbedder
from defectflow.core.files import UserError
from defectflow.methods.detector import GoodPatches
from defectflow.methods.profile.outline import outline_of
from defectflow.methods.profile.settings import ProfileSettings
from defectflow.methods.profile.tolerance_bands import Profile

SIZE, GRID = 384, (96, 96)
WIDE = 150  # pixels, of the bottle below at its body


def bottle(seed: int, dent: float = 0, tilt: float = 0, turn: float = 0) -> np.ndarray:
    """Mask of a bottle, bool (SIZE, SIZE), a little elsewhere each time; a dent of so many pixels in its right side."""
    rng, fine = np.random.default_rng(seed), 8
    along = np.linspace(0, 1, 400)
    half = np.interp(along, [0, 0.18, 0.3, 0.36, 1], [24, 24, WIDE / 2 - 8, WIDE / 2, WIDE / 2])
    right = half - dent * np.exp(-(((along - 0.65) / 0.04) ** 2))
    ys = (along - 0.5) * 280
    points = np.concatenate([np.stack([right, ys], 1), np.stack([-half, ys], 1)[::-1]])
    angle = np.radians(tilt + turn + rng.normal(0, 0.1))
    points = points @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    points = (points * (1 + rng.normal(0, 0.001)) + SIZE / 2 + rng.uniform(-6, 6, 2)) * fine
    large = cv2.fillPoly(np.zeros((SIZE * fine, SIZE * fine), np.uint8), [points.round().astype(np.int32)], 255)
    mask = cv2.resize(large, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return mask > rng.integers(100, 156)  # where exactly a segmenter sets the border is not the same each time


def patches_of(masks: list[np.ndarray]) -> tuple[list[torch.Tensor], list[torch.Tensor], list[np.ndarray]]:
    """Patches, cells and affines of masks, as the features stage makes them."""
    embedder, found = PatchEmbedder("outline", ["outline"]), ([], [], [])
    for mask in masks:
        image = np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=2)
        item = fit_picture(image, mask, (0, 0, SIZE, SIZE), (SIZE, SIZE), [Scale(1, GRID)], 4)
        cells = torch.from_numpy(item.cells)
        patches = embedder(item.picture[None])[0].flatten(0, 1)[cells]
        for values, value in zip(found, (patches, cells, item.affine), strict=True):
            values.append(value)
    return found


def fitted(masks: list[np.ndarray], settings: ProfileSettings) -> Profile:
    patches, cells, _ = patches_of(masks)
    owner = torch.repeat_interleave(torch.arange(len(masks)), torch.tensor([len(one) for one in cells]))
    images = pd.DataFrame({"image_id": [str(i) for i in range(len(masks))]})
    good = GoodPatches(torch.cat(patches), torch.cat(cells), owner, images, 0, len(owner), None, GRID)
    tensors = Profile.fit(good, settings)(torch.ones(len(masks), dtype=torch.bool))
    return Profile(tensors, {"grid": list(GRID)}, settings)


def judged(detector: Profile, masks: list[np.ndarray]) -> tuple[list[float], list[np.ndarray]]:
    scores, maps = [], []
    for patches, cells in zip(*patches_of(masks)[:2], strict=True):
        score, distances = detector.judge(patches, cells)
        heat = np.zeros(GRID[0] * GRID[1], np.float32)
        heat[cells] = distances
        scores.append(score)
        maps.append(heat.reshape(GRID))
    return scores, maps


@pytest.fixture(scope="module")
def detector() -> Profile:
    return fitted([bottle(seed) for seed in range(12)], ProfileSettings())


def test_a_dent_of_a_fiftieth_of_the_width_is_found_where_it_is(detector):
    good, _ = judged(detector, [bottle(seed) for seed in range(100, 112)])
    dented, maps = judged(detector, [bottle(seed, dent=0.02 * WIDE) for seed in range(200, 208)])
    assert min(dented) > max(good)
    for heat in maps:
        row, column = np.unravel_index(heat.argmax(), heat.shape)
        assert abs(row * 4 - (SIZE / 2 + 0.15 * 280)) < 24 and abs(column * 4 - (SIZE + WIDE) / 2) < 16


def test_a_tilt_is_a_deviation_from_the_vertical_and_none_from_the_own_axis(detector):
    tilted = [bottle(seed, tilt=3) for seed in range(300, 303)]
    good = max(judged(detector, [bottle(seed) for seed in range(100, 106)])[0])
    assert min(judged(detector, tilted)[0]) > 1.5 * good
    settings = ProfileSettings(axis="own")
    own = fitted([bottle(seed, turn=40 * seed) for seed in range(12)], settings)
    same = judged(own, [bottle(seed, turn=25 * seed) for seed in range(100, 106)])[0]
    dented = judged(own, [bottle(seed, dent=0.03 * WIDE, turn=25 * seed) for seed in range(200, 206)])[0]
    assert min(dented) > max(same)


def test_widths_are_exact_within_a_fraction_of_a_pixel_and_holes_do_not_count():
    covered = np.zeros((100, 120), np.float32)
    covered[20:80, 30:70] = 1
    covered[20:80, 70] = 0.25
    outline = outline_of(covered, "vertical", 0)
    widths = outline.widths[outline.widths.sum(axis=1) > 1]
    assert len(widths) in (60, 61) and np.median(widths.sum(axis=1)) == pytest.approx(40.25, abs=0.01)
    assert np.abs(np.median(widths, axis=0) - 20.125).max() < 0.1
    covered[40:50, 45:55] = 0
    np.testing.assert_allclose(outline_of(covered, "vertical", 0).widths, outline.widths, atol=1e-3)
    lying = outline_of(covered.T.copy(), "horizontal", 0)
    assert np.median(lying.widths[lying.widths.sum(axis=1) > 1].sum(axis=1)) == pytest.approx(40.25, abs=0.01)


def test_a_picture_without_the_part_is_far_from_good_and_one_good_part_is_too_few(detector):
    (score,), _ = judged(detector, [np.zeros((SIZE, SIZE), bool)])
    assert np.isfinite(score) and score > 50
    with pytest.raises(UserError, match="profile needs two good images in each bank"):
        fitted([bottle(0)], ProfileSettings())
