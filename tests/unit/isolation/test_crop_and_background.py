import numpy as np
import pytest
from defectflow.isolation.crop_and_background import BRIGHTNESS_TARGET, normalise_light


@pytest.mark.parametrize("how", ["brightness", "gray_world"])
@pytest.mark.parametrize("part", [True, False])
def test_light_is_the_formula_in_float64(how, part):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (60, 70, 3), dtype=np.uint8)
    inside = np.zeros((60, 70), bool)
    inside[10:40, 20:50] = part
    means = (image[inside] if part else image.reshape(-1, 3)).mean(axis=0, dtype=np.float64)
    gain = BRIGHTNESS_TARGET / means.mean() if how == "brightness" else means.mean() / means
    expected = np.clip(image * gain + 0.5, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(normalise_light(image, inside, how), expected)
