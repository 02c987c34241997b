import numpy as np
from defectflow.backbones.network_input import Scale, fit_picture


def test_a_part_that_is_mirrored_beside_a_picture_of_another_shape_does_not_count():
    image, mask = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), bool)
    mask[:, 40:] = True  # up to the edge, which is mirrored
    scale = Scale(reduction=1, grid=(8, 24))
    item = fit_picture(image, mask, (0, 0, 64, 64), (64, 192), [scale], 0, rim=0)
    columns = sorted({int(cell) % 24 for cell in item.cells})
    assert columns == list(range(13, 16))  # the picture lies in the columns 8 to 15


def test_without_a_mask_cells_do_not_count_that_show_mirrored_pixels_alone():
    image, scales = np.zeros((64, 64, 3), np.uint8), [Scale(1, (8, 24)), Scale(2, (4, 12))]
    cells = fit_picture(image, None, (0, 0, 64, 64), (64, 192), scales, 4, rim=0).cells
    finest, coarser = cells[cells < 8 * 24], cells[cells >= 8 * 24] - 8 * 24
    assert sorted({*(finest % 24)}) == list(range(8, 16)) and len(finest) == 64
    assert sorted({*(coarser % 12)}) == list(range(4, 8)) and len(coarser) == 16
    absent = fit_picture(image, np.zeros((64, 64), bool), (0, 0, 64, 64), (64, 192), scales, 4, rim=0)
    assert not absent.present and absent.cells.tolist() == cells.tolist()
    assert len(fit_picture(image, None, (0, 0, 64, 64), (64, 64), scales[:1], 4, rim=0).cells) == 8 * 24
    black = fit_picture(image, None, (0, 0, 64, 64), (64, 192), scales, 4)  # rims are black, not mirrored
    assert len(black.cells) == 8 * 24 + 4 * 12
