import pytest
import torch
from defectflow.methods.anomalib_models.settings import AnomalibSettings
from defectflow.methods.picture_detector import PictureDetector
from defectflow.methods.vae.settings import VaeSettings
from picture_set import CELL, GRID, SIDE, good, patches, picture

SETTINGS = VaeSettings()
EVERYWHERE = torch.arange(GRID[0] * GRID[1])


class MeanPicture(PictureDetector):
    """Learns the mean picture; counts how often."""

    trained = 0
    seen: torch.Tensor

    def __init__(self, tensors, metadata, settings):
        super().__init__(tensors, metadata, settings)
        self._mean = tensors["mean"]

    def anomaly(self, picture):
        return 7.0, (picture - self._mean).abs().mean(dim=0)

    @classmethod
    def train(cls, training):
        cls.trained += 1
        cls.seen = training.pictures
        if training.state:
            training.state.write_text("half done")
        return {"": torch.zeros(1, 1), "mean": training.batch(torch.arange(len(training.pictures))).mean(dim=0)}


def test_the_pictures_are_those_of_the_images_that_are_kept():
    fit = MeanPicture.fit(good(3), SETTINGS)
    fit(torch.tensor([True, False, True]))
    assert torch.equal(MeanPicture.seen, torch.stack([picture(0), picture(2)]))


def test_the_distance_of_a_cell_is_the_mean_of_the_map_in_it():
    tensors = MeanPicture.fit(good(2), SETTINGS)(torch.ones(2, dtype=torch.bool))
    detector = MeanPicture(tensors, {"grid": list(GRID)}, SETTINGS)
    bad = picture(9, bad=True)
    score, distances = detector.judge(patches(bad), EVERYWHERE)
    expected = (bad / 255 - tensors["mean"]).abs().mean(dim=0).view(GRID[0], CELL, GRID[1], CELL).mean(dim=(1, 3))
    torch.testing.assert_close(distances, expected.flatten())
    assert score == distances.max() and divmod(int(distances.argmax()), GRID[1]) < (5, 5)


def test_cells_off_the_part_are_black_and_not_judged():
    tensors = {"": torch.zeros(1, 1), "mean": torch.zeros(3, SIDE, SIDE)}
    shown = torch.arange(20, 30)
    _, distances = MeanPicture(tensors, {"grid": list(GRID)}, SETTINGS).judge(patches(picture(1))[shown], shown)
    torch.testing.assert_close(distances, patches(picture(1))[shown].mean(dim=1))


def test_a_method_may_have_a_score_of_its_own():
    settings = VaeSettings(score="evidence")
    tensors = {"": torch.zeros(1, 1), "mean": torch.zeros(3, SIDE, SIDE)}
    assert MeanPicture(tensors, {"grid": list(GRID)}, settings).judge(patches(picture(1)), EVERYWHERE)[0] == 7


def test_a_finished_bank_is_not_trained_again_and_leaves_no_state(tmp_path):
    kept = torch.tensor([True, True, False])
    first = MeanPicture.fit(good(3), SETTINGS, 0, keep=tmp_path)(kept)
    before = MeanPicture.trained
    again = MeanPicture.fit(good(3), SETTINGS, 0, keep=tmp_path)(kept)
    assert MeanPicture.trained == before and [file.suffix for file in tmp_path.iterdir()] == [".safetensors"]
    assert first.keys() == again.keys() and all(torch.equal(first[key], again[key]) for key in first)


@pytest.mark.parametrize("change", [{"seed": 1}, {"settings": VaeSettings(latent=5)}, {"good": good(4)}])
def test_another_seed_setting_or_picture_is_another_training(tmp_path, change):
    given = {"good": good(3), "settings": SETTINGS, "seed": 0, "keep": tmp_path}
    MeanPicture.fit(**given)(torch.ones(3, dtype=torch.bool))
    before, given = MeanPicture.trained, given | change
    MeanPicture.fit(**given)(torch.ones(len(given["good"].images), dtype=torch.bool))
    assert MeanPicture.trained == before + 1


def test_other_weights_in_the_same_file_are_another_training(tmp_path):
    weights = tmp_path / "net.pth"
    settings = AnomalibSettings(model="Padim", weights=str(weights))
    before = MeanPicture.trained
    for content in (b"truncated", b"whole", b"whole"):
        weights.write_bytes(content)
        MeanPicture.fit(good(2), settings, keep=tmp_path / "kept")(torch.ones(2, dtype=torch.bool))
    assert MeanPicture.trained == before + 2
