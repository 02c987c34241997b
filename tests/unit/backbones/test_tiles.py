import numpy as np
import pytest
from defectflow.backbones.network_input import Scale
from defectflow.backbones.patch_embedding import PatchEmbedder
from defectflow.backbones.tiles import Tiles, embed, first_tile, large_size, reduced, shares, starts
from defectflow.core.files import UserError
from defectflow.methods.method_settings import METHODS
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(8, 120), st.sampled_from([(128, 32), (128, 0), (512, 64), (64, 32)]))
def test_tiles_cover_a_side_and_their_shares_add_up_to_one(steps, tiles):
    tiles, length = Tiles(*tiles), max(16 * steps, tiles[0])
    firsts, total = starts(length, tiles), np.zeros(length // 8)
    assert firsts[0] == 0 and firsts[-1] == length - tiles.size and all(first % 16 == 0 for first in firsts)
    for first, share in zip(firsts, shares(length, tiles, 8), strict=True):
        total[first // 8 : first // 8 + len(share)] += share
    np.testing.assert_allclose(total, 1, rtol=1e-5)


def means(picture):
    """Colours of cells of 8 pixels: what a network does that sees no more than them."""
    height, width, _ = picture.shape
    return picture.reshape(height // 8, 8, width // 8, 8, 3).mean(axis=(1, 3)).astype(np.float32)


def settings_for(size, reductions, tiles):
    grids = [[side // k // 8 for side in size] for k in reductions]
    coarser = [{"reduction": k, "grid": grid} for k, grid in zip(reductions[1:], grids[1:], strict=True)]
    return {"input_size": list(size), "grid": grids[0], "tiles": tiles._asdict(), "coarser": coarser}


def test_every_cell_is_where_it_is_in_the_whole_picture_and_in_its_reduction():
    size, reductions = large_size((300, 420), 128)
    assert (size, reductions) == ((320, 448), [1, 2])
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = embed(picture, settings_for(size, reductions, Tiles(128, 32)), means)
    halved = means(reduced(picture, Scale(2, (0, 0))))
    np.testing.assert_allclose(found, np.concatenate([means(picture).reshape(-1, 3), halved.reshape(-1, 3)]), rtol=1e-5)


def test_patches_in_tiles_are_nearly_those_of_the_whole_picture():
    embedder = PatchEmbedder("patch-nano", ["layer2", "layer3"])
    rng = np.random.default_rng(0)
    picture = rng.integers(60, 200, (256, 480, 3), dtype=np.uint8)
    picture[100:140, 200:260] = 20
    whole = embedder(picture[None])[0].numpy()
    found = embed(picture, settings_for((256, 480), [1], Tiles(256, 128)), lambda tile: embedder(tile[None])[0].numpy())
    off = np.linalg.norm(found.reshape(whole.shape) - whole, axis=-1) / np.linalg.norm(whole, axis=-1)
    assert off.mean() < 0.01 and off.max() < 0.05


@pytest.mark.parametrize(
    ("shape", "size", "reductions"),
    [
        ((3648, 5472), (3696, 5488), [1, 7]),
        ((900, 1000), (912, 1008), [1]),  # too small for a second scale
        ((300, 400), (304, 400), [1]),
    ],
)
def test_pictures_keep_their_pixels(shape, size, reductions):
    assert large_size(shape, 512) == (size, reductions)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"tiles": {"size": 500}}, r"size 500 is no multiple of 32 \(choose 480\)"),
        ({"tiles": {"overlap": 600}}, "overlap 600 is more than half of size 1024"),
        ({"tiles": {}, "image_size": [512, 256]}, "tiles take one image_size"),
        ({"tiles": {}, "center_crop": 224}, "tiles take one image_size and no center_crop"),
        ({"tiles": {"sizes": 3}}, "sizes"),
        ({"tiles": {}, "method": "padim"}, "method padim does not judge in tiles"),
    ],
)
def test_tiles_that_cannot_be_are_one_line(entry, message):
    with pytest.raises(UserError, match=message):
        METHODS.from_dict({"method": "patchcore"} | entry, "detectors.x")


def test_a_picture_smaller_than_a_tile_is_mirrored_to_one():
    picture = np.random.default_rng(0).integers(0, 256, (64, 200, 3), dtype=np.uint8)[:, :160]
    settings = settings_for((64, 160), [1], Tiles(128, 32))
    found = embed(picture, settings, means)
    assert first_tile(picture, settings).shape == (128, 128, 3) and first_tile(picture, {}) is picture
    np.testing.assert_allclose(found, means(picture).reshape(-1, 3), rtol=1e-5)
