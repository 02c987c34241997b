import pandas as pd
import pytest
import torch
from defectflow.methods.detector import GoodPatches
from defectflow.methods.pixel_difference import PixelDifference, mean_by_position
from defectflow.methods.pixel_difference_settings import PixelDifferenceSettings


def test_mean_by_position():
    position = torch.tensor([0, 1, 0, 1])
    patches = torch.tensor([[1.0], [2], [3], [6]])
    assert mean_by_position(patches, position, 2).tolist() == [[2], [4]]


def test_each_colour_is_compared_with_the_mean_in_its_place():
    means = torch.tensor([[0.0, 0, 0], [1, 1, 1], [0.5, 0, 0]])
    score, distances = PixelDifference({"": means}, {}, PixelDifferenceSettings()).judge(
        means[[2, 1]], torch.tensor([0, 1])
    )
    assert distances.tolist() == [0.5, 0] and score == pytest.approx(0.5)


def test_a_place_that_no_good_picture_shows_is_compared_with_the_nearest():
    images = pd.DataFrame({"image_id": ["a", "b"]})
    position, owner = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1])
    patches = torch.tensor([[1.0], [2], [3], [6]])
    good = GoodPatches(patches, position, owner, images, 0, 4, torch.zeros(2, 1), (1, 4))
    found = PixelDifference.fit(good, PixelDifferenceSettings())(torch.ones(2, dtype=torch.bool))
    assert found[""].flatten().tolist() == [2, 4, 4, 4]
