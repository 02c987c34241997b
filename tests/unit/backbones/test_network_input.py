import numpy as np
from defectflow.backbones.network_input import Scale, fit_picture


def test_a_part_that_is_mirrored_beside_a_picture_of_another_shape_does_not_count():
    image, mask = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), bool)
    mask[:, 40:] = True  # up to the edge, which is mirrored
    scale = Scale(reduction=1, grid=(8, 24))
    item = fit_picture(image, mask, (0, 0, 64, 64), (64, 192), [scale], 0, rim=0)
    columns = sorted({int(cell) % 24 for cell in item.cells})
    assert columns == list(range(13, 16))  # the picture lies in the columns 8 to 15
