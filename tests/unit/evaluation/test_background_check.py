import cv2
import numpy as np
import pytest
from defectflow.core.anomaly_maps import AnomalyMap
from defectflow.evaluation import background_check
from defectflow.images.read_write import write_png

SIZE = (120, 160)


def clutter(rng, cells):
    return cv2.resize(rng.integers(20, 235, cells).astype(np.uint8), SIZE[::-1], interpolation=cv2.INTER_LINEAR)


def photograph(rng, background, light=1.0):
    """A striped disc, a little moved from picture to picture, before a background."""
    photo = background.astype(np.float32)
    stripes = 130 + 60 * np.sin(np.arange(SIZE[1]) / 3)[None, :]
    at = (80 + int(rng.integers(-2, 3)), 60 + int(rng.integers(-2, 3)))
    part = cv2.circle(np.zeros(SIZE, np.uint8), at, 38, 1, -1) > 0
    photo = np.where(part, stripes, photo) * light + rng.normal(0, 2, SIZE)
    return np.repeat(photo.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def photographs(kind, n=8, seed=0):
    rng = np.random.default_rng(seed)
    still = clutter(rng, (9, 12))
    for k in range(n):
        light = rng.uniform(0.5, 1.0)
        if kind == "another background":
            yield photograph(rng, clutter(rng, (9, 12)))
        elif kind == "one of many":  # one picture was taken elsewhere
            yield photograph(rng, clutter(rng, (9, 12)) if k == 0 else still)
        elif kind == "the same background":
            yield photograph(rng, still)
        elif kind == "other light":
            yield photograph(rng, still, light)
        elif kind == "white":
            yield photograph(rng, np.full(SIZE, 245, np.uint8), light)
        elif kind == "texture":
            fine = cv2.GaussianBlur(rng.normal(size=SIZE), (0, 0), 2)
            grey = (120 + 40 * fine / fine.std()).clip(0, 255).astype(np.uint8)
            yield np.repeat(grey[..., None], 3, axis=2)


def border(kind):
    return background_check.compare(np.stack([background_check.small_copy(photo) for photo in photographs(kind)]))


@pytest.mark.parametrize("kind", ["the same background", "other light", "white"])
def test_a_background_that_stays_is_the_same_in_any_light(kind):
    found = border(kind)
    assert not found.differs and found.alike > background_check.ALIKE


def test_another_background_in_each_picture_differs():
    found = border("another background")
    assert found.differs and found.alike > background_check.ALIKE
    assert found.detail > 2 * border("one of many").detail > 2 * border("the same background").detail


def test_texture_differs_and_shows_nothing_in_the_same_place():
    found = border("texture")
    assert found.differs and found.alike < background_check.ALIKE


def heat(where):
    """A map of 16 x 16 cells, hot in the corner or in the middle, for a photograph of SIZE, letterboxed."""
    grid = np.ones((16, 16), np.float32)
    grid[(slice(2, 5), slice(0, 3)) if where == "corner" else (slice(7, 9), slice(7, 9))] = 9
    scale = SIZE[1] / 128
    affine = np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2 - (SIZE[1] - SIZE[0]) / 2]])
    return AnomalyMap(grid, affine, (128, 128))


def test_heat_is_counted_where_it_lies():
    corner, middle = (
        background_check.heat_near_border([heat(where)] * 3, [SIZE] * 3) for where in ("corner", "middle")
    )
    assert middle < 0.1 and corner > 0.5
    flat = AnomalyMap(np.ones((16, 16), np.float32), heat("corner").affine, (128, 128))
    assert background_check.heat_near_border([flat], [SIZE]) is None


def figures(folder, kind, where, n=8):
    table = {}
    for k, photo in enumerate(photographs(kind, n)):
        write_png(folder / f"{k}.png", photo)
        table[f"i{k}"] = (str(folder / f"{k}.png"), SIZE[1], SIZE[0])
    return background_check.background_figures(table, {name: heat(where) for name in (*table, "i0~blur~1")})


@pytest.mark.parametrize(
    "kind, where, told",
    [
        ("another background", "corner", True),
        ("another background", "middle", False),
        ("white", "corner", False),
        ("texture", "corner", True),
    ],
)
def test_the_background_is_told_where_it_differs_and_is_hot(tmp_path, kind, where, told):
    found = figures(tmp_path, kind, where)
    assert (found["warning"] is not None) == told and found["n_photographs"] == 8
    if told:
        text = found["warning"].replace("\N{NO-BREAK SPACE}", " ")
        assert f"{found['heat_near_border']:.0%}".replace("%", " %") in text and "29 %" in text and "template" in text
        assert text.startswith("If these") == (kind == "texture")


def test_two_photographs_cannot_be_compared(tmp_path):
    assert figures(tmp_path, "white", "corner", n=2) is None
