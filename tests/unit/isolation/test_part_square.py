import cv2
import numpy as np
import pytest
from defectflow.backbones.network_input import Scale, fit_picture
from defectflow.config.settings import UserError
from defectflow.isolation.crop_and_background import isolate_part
from defectflow.isolation.part_square import axis_turn, square_of
from defectflow.isolation.settings import IsolationSettings


def club(angle: float, size: tuple[int, int] = (300, 400), centre: tuple[float, float] = (200, 150)) -> np.ndarray:
    """A handle with a head: at angle 0 the handle is on top; turned by ``angle`` degrees from x to y."""
    mask = np.zeros(size, np.uint8)
    turn = np.radians(angle)
    down = np.array([-np.sin(turn), np.cos(turn)])
    head, end = np.array(centre) + 45 * down, np.array(centre) - 75 * down
    cv2.line(mask, tuple(map(round, head)), tuple(map(round, end)), 1, 12)
    cv2.circle(mask, tuple(map(round, head)), 26, 1, -1)
    return mask > 0


def tight(**options) -> IsolationSettings:
    return IsolationSettings(background="zero", tight=256, **options)


@pytest.mark.parametrize("angle", [0, 33, 90, -90, 135, 179, -140])
def test_a_part_stands_upright_with_its_heavier_end_down(angle):
    assert axis_turn(club(angle)) == pytest.approx(angle, abs=2)
    image = np.full((300, 400, 3), 200, np.uint8)
    straight = isolate_part(image, club(0), tight(upright=True)).mask
    found = isolate_part(image, club(angle), tight(upright=True))
    both, either = (found.mask & straight).sum(), (found.mask | straight).sum()
    assert both / either > 0.93 and found.picture.shape == (256, 256, 3)


def test_what_has_no_clear_axis_or_is_not_to_be_turned_stays():
    disc = np.zeros((200, 200), np.uint8)
    cv2.circle(disc, (90, 100), 40, 1, -1)
    assert square_of(disc > 0, 0, True) == ((50, 60, 131, 141), 0.0)
    assert square_of(club(40), 0, False)[1] == 0.0
    bar = np.zeros((200, 200), bool)
    bar[90:110, 20:180] = True  # neither end is heavier: the right one goes down
    assert square_of(bar, 0, True) == ((20, 20, 180, 180), -90.0)


def test_one_size_at_any_distance_and_place():
    image = np.full((600, 800, 3), 90, np.uint8)
    near = club(20, (600, 800), (500, 300))
    far = cv2.resize(near.astype(np.uint8), (400, 300), interpolation=cv2.INTER_AREA) > 0
    a, b = isolate_part(image, near, tight()), isolate_part(image[::2, ::2], far, tight())
    assert (a.mask & b.mask).sum() / (a.mask | b.mask).sum() > 0.9
    assert a.window[2] - a.window[0] == pytest.approx(2 * (b.window[2] - b.window[0]), abs=4)


@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize("spot", [(205.0, 160.0), (236.0, 93.5)])
@pytest.mark.parametrize("side", [64, 256, 640])
def test_places_come_back_to_the_photograph_within_half_a_pixel(upright, spot, side):
    mask = club(25)
    y, x = np.mgrid[:300, :400]
    light = 250 * np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / (2 * 4.0**2))
    image = np.repeat(light[..., None], 3, axis=2).astype(np.uint8)
    settings = IsolationSettings(background="keep", tight=side, upright=upright, margin=0.4)
    found = isolate_part(image, mask, settings)
    item = fit_picture(found.picture, found.mask, found.window, (320, 320), [Scale(1, (40, 40))], 0, turn=found.turn)
    seen = item.picture[..., 0].astype(float)
    rows, columns = np.mgrid[:320, :320]
    place = np.array([(columns * seen).sum(), (rows * seen).sum()]) / seen.sum()
    assert item.affine @ [*place, 1] == pytest.approx(spot, abs=0.5)


def test_an_absent_part_shows_the_whole_photograph():
    image = np.full((60, 100, 3), 90, np.uint8)
    found = isolate_part(image, np.zeros((60, 100), bool), tight(upright=True))
    assert found.window == (0, -20, 100, 80) and found.turn == 0 and not found.mask.any()
    assert (found.picture[52:204] == 90).mean() > 0.95


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"crop": True, "tight": 640}, "'tight' is not read with crop: true"),
        ({"upright": True}, "'upright' is only read with tight"),
        ({"tight": 8}, "less than the minimum"),
    ],
)
def test_settings_that_say_nothing_are_refused(entry, told):
    with pytest.raises(UserError, match=told):
        IsolationSettings.from_dict({"background": "zero", **entry}, "config.yaml: isolations.own")
