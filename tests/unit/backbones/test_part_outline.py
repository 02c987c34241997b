import cv2
import numpy as np
import pytest
from defectflow.backbones.network_input import Scale
from defectflow.backbones.part_outline import fit_outline, outlined

SIZE = 200


def disc(radius: float, dent: float = 0) -> np.ndarray:
    """Share of each pixel within a disc around the middle, float32; with a dent of so many pixels at its right."""
    y, x = (np.indices((SIZE, SIZE)) - (SIZE - 1) / 2).astype(np.float32)
    angle = np.arctan2(y, x)
    edge = radius - dent * np.exp(-((angle * radius / 8) ** 2))
    return np.clip(edge - np.hypot(x, y) + 0.5, 0, 1)


def photograph(covered: np.ndarray, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 4, (SIZE, SIZE, 3))
    return (
        (covered[..., None] * [150, 90, 40] + (1 - covered[..., None]) * [60, 60, 70] + noise).clip(0, 255).astype("u1")
    )


def right_end(covered: np.ndarray, row: int) -> float:
    return float(covered[row, SIZE // 2 :].sum())


@pytest.mark.parametrize("rough", [disc(62), disc(57), np.roll(disc(60), 2, axis=1)], ids=["large", "small", "aside"])
def test_the_outline_is_that_of_the_picture_and_not_that_of_the_mask(rough):
    mask = (rough > 0.5).astype(np.uint8) * 255
    sound, dented = (outlined(photograph(disc(60, dent)), mask) / 255 for dent in (0, 3))
    assert sound.sum() == pytest.approx(np.pi * 60.5**2, rel=0.02)
    assert right_end(sound, 100) - right_end(dented, 100) == pytest.approx(3, abs=1)
    assert right_end(sound, 140) == pytest.approx(right_end(dented, 140), abs=0.5)


def test_where_the_surroundings_are_cut_away_the_mask_s_own_border_stays():
    mask = np.roll(disc(60), 3, axis=0) > 0.5
    shown = photograph(disc(60)) * mask[..., None]
    found = outlined(shown, mask.astype(np.uint8) * 255) > 127
    assert (found != mask).mean() < 0.01


def test_holes_scraps_and_absent_or_tiny_parts():
    covered = (disc(60) > 0.5).astype(np.uint8) * 255
    holed = covered.copy()
    cv2.circle(holed, (100, 100), 10, 0, -1)
    cv2.circle(holed, (10, 10), 5, 255, -1)
    picture = photograph(disc(60))
    assert np.array_equal(outlined(picture, holed), outlined(picture, covered))
    assert outlined(picture, covered)[10, 10] == 0
    assert not outlined(picture, np.zeros((SIZE, SIZE), np.uint8)).any()
    tiny = cv2.circle(np.zeros((SIZE, SIZE), np.uint8), (50, 50), 3, 255, -1)
    assert outlined(picture, tiny).any()


def test_cells_reach_as_far_as_the_outline_may():
    mask = disc(57) > 0.5
    item = fit_outline(
        photograph(disc(60)), mask, (0, 0, SIZE, SIZE), (SIZE, SIZE), [Scale(1, (50, 50))], 4, None, 0.0, None
    )
    drawn = item.picture[..., 0] > 0
    cells = np.zeros(2500, bool)
    cells[item.cells] = True
    assert item.present and not drawn.reshape(50, 4, 50, 4).any(axis=(1, 3))[~cells.reshape(50, 50)].any()
