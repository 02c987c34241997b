import cv2
import numpy as np
import pytest
from defectflow.core.anomaly_maps import full_resolution, load_maps, save_maps, smooth_map
from defectflow.core.files import UserError
from defectflow.images.read_write import letterbox
from hypothesis import given
from hypothesis import strategies as st


def test_maps_survive_the_file(tmp_path):
    grid_map = np.arange(12, dtype=np.float32).reshape(3, 4)
    affine = np.array([[2.0, 0, 1], [0, 2, -1]])
    save_maps(tmp_path / "0.safetensors", {"b": (grid_map, affine), "a/x": (grid_map + 1, affine)}, (24, 32))
    save_maps(tmp_path / "1.safetensors", {"c": (grid_map + 2, affine)}, (24, 32))
    save_maps(tmp_path / "2.safetensors", {}, (24, 32))
    maps = load_maps([tmp_path / f"{k}.safetensors" for k in range(3)])
    assert list(maps) == ["a/x", "b", "c"]
    assert len(maps) == 3
    np.testing.assert_array_equal(maps["c"].grid_map, grid_map + 2)
    np.testing.assert_array_equal(maps["b"].affine, affine)
    assert maps["b"].input_size == (24, 32)
    with pytest.raises(KeyError):
        maps["d"]


def test_map_files_are_reproducible(tmp_path):
    maps = {name: (np.ones((2, 2), np.float32), np.eye(2, 3)) for name in "dbca"}
    save_maps(tmp_path / "x", maps, (16, 16))
    save_maps(tmp_path / "y", dict(reversed(maps.items())), (16, 16))
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_not_a_map_file(tmp_path):
    (tmp_path / "bad").write_text("no")
    with pytest.raises(UserError, match="bad: not a map file"):
        load_maps([tmp_path / "bad"])
    with pytest.raises(UserError, match="none: no such file"):
        load_maps([tmp_path / "none"])


def test_hot_cell_lands_on_its_place_in_the_photograph():
    frame = (300, 500)
    window = (60, 20, 460, 280)  # x0, y0, x1, y1
    picture = np.zeros((window[3] - window[1], window[2] - window[0], 3), np.uint8)
    spot = (330, 150)  # x, y in the frame
    picture[spot[1] - window[1] - 4 : spot[1] - window[1] + 5, spot[0] - window[0] - 4 : spot[0] - window[0] + 5] = 255
    seen, affine = letterbox(picture, (256, 256))
    affine[:, 2] += window[:2]
    grid_map = cv2.resize(seen[..., 0].astype(np.float32), (32, 32), interpolation=cv2.INTER_AREA) + 3
    result = full_resolution(grid_map, affine, (256, 256), frame)
    assert result.shape == frame and result.dtype == np.float32
    y, x = np.unravel_index(result.argmax(), frame)
    assert abs(x - spot[0]) <= 8 and abs(y - spot[1]) <= 8
    assert result[:20].max() == result[:, :50].max() == pytest.approx(grid_map.min())  # not seen


@pytest.mark.parametrize("frame", [(1024, 1024), (300, 500), (77, 31), (1500, 2000)])
def test_a_whole_frame_has_the_numbers_of_the_affine_warp(frame):
    affine = letterbox(np.zeros((*frame, 3), np.uint8), (256, 192))[1]
    grid_map = np.random.default_rng(0).random((32, 24)).astype(np.float32)
    size = frame[::-1]
    smooth = smooth_map(grid_map, (256, 192))
    warped = cv2.warpAffine(smooth, affine, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    result = full_resolution(grid_map, affine, (256, 192), frame)
    edge = round(max(frame) / 192) + 1
    # OpenCV's warp has 32 steps from pixel to pixel, so that it is off by 1/64 of the steepest slope at most.
    slope = max(np.abs(np.diff(smooth, axis=axis)).max() for axis in (0, 1))
    inside = np.s_[edge:-edge, edge:-edge]
    np.testing.assert_allclose(result[inside], warped[inside], atol=slope / 16)
    assert result.min() >= grid_map.min() and result.max() <= grid_map.max()


def test_smoothing_grows_with_the_input():
    grid_map = np.zeros((32, 32), np.float32)
    grid_map[16, 16] = 1
    small, large = smooth_map(grid_map, (256, 256)), smooth_map(grid_map, (512, 512))
    np.testing.assert_allclose(large[::2, ::2].max(), small.max(), rtol=0.02)
    np.testing.assert_allclose(large.sum() / 4, small.sum(), rtol=1e-3)


@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.sampled_from([cv2.INTER_LINEAR, cv2.INTER_NEAREST]),
    st.sampled_from([None, 0.5, 4.0]),
    st.integers(0, 99),
)
def test_two_products_are_enlarging_and_a_gaussian(grid, size, interpolation, sigma, seed):
    values = np.random.default_rng(seed).gamma(2, 1, grid).astype(np.float32)
    found = smooth_map(values, size, interpolation, sigma)
    sigma = 4 * min(size) / 256 if sigma is None else sigma
    kernel = 2 * int(4 * sigma + 0.5) + 1
    large = cv2.resize(values, size[::-1], interpolation=interpolation)
    expected = cv2.GaussianBlur(large, (kernel, kernel), sigma, borderType=cv2.BORDER_REFLECT_101)
    assert found.dtype == np.float32 and found.shape == size
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * values.max())
    assert found.min() >= values.min() and found.max() <= values.max()
