import dataclasses

import pytest
import torch
from defectflow.core.files import UserError
from defectflow.methods.anomalib_models import model as module
from defectflow.methods.anomalib_models import training
from defectflow.methods.anomalib_models.model import AnomalibModel
from defectflow.methods.anomalib_models.settings import AnomalibSettings
from defectflow.methods.picture_detector import Training
from picture_set import GRID, patches, picture

NANO = {"backbone": "patch-nano", "layers": ["layer2", "layer3"]}
EVERYWHERE = torch.arange(GRID[0] * GRID[1])


def settings_of(name, options, **more):
    return AnomalibSettings(model=name, options=options, steps=4, train_batch_size=4, **more)


def train(settings, seed=0, state=None):
    pictures = torch.stack([picture(k) for k in range(8)])
    return AnomalibModel.train(Training(pictures, GRID, settings, seed, torch.device("cpu"), state))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Padim", NANO | {"n_features": 20}),
        ("Patchcore", NANO),
        ("Dfm", {"backbone": "patch-nano", "layer": "layer3"}),
        ("Stfpm", NANO),
    ],
)
def test_a_stored_model_tells_good_from_bad_and_shows_where(name, options):
    settings = settings_of(name, options)
    detector = AnomalibModel(train(settings), {"grid": list(GRID)}, settings)
    good = [detector.judge(patches(picture(k)), EVERYWHERE)[0] for k in range(20, 23)]
    score, distances = detector.judge(patches(picture(30, bad=True)), EVERYWHERE)
    row, column = divmod(int(distances.argmax()), GRID[1])
    assert score > max(good) and row < 10 and column < 10


def test_pictures_that_are_no_squares_are_not_made_any():
    settings, long = settings_of("Stfpm", NANO), torch.stack([picture(k)[:, :32] for k in range(4)])
    grid = (GRID[0] // 2, GRID[1])
    tensors = AnomalibModel.train(Training(long, grid, settings, 0, torch.device("cpu"), None))
    detector = AnomalibModel(tensors, {"grid": list(grid)}, settings)
    assert detector.anomaly(long[0].float() / 255)[1].shape == (32, 64)


def test_scores_are_raw():
    """No clamping and no normalisation: PatchCore's own distances, as anomalib's torch model gives them."""
    settings = settings_of("Patchcore", NANO)
    tensors = train(settings)
    score, _ = AnomalibModel(tensors, {"grid": list(GRID)}, settings).judge(patches(picture(30, bad=True)), EVERYWHERE)
    assert score > 1.5  # what anomalib's post-processing would have cut off at 1


def test_a_model_without_a_map_has_its_score_everywhere():
    settings = settings_of("Ganomaly", {"n_features": 8})
    score, distances = AnomalibModel(train(settings), {"grid": list(GRID)}, settings).judge(
        patches(picture(1)), EVERYWHERE
    )
    torch.testing.assert_close(distances, torch.full_like(distances, score))


def test_one_seed_gives_one_model_and_draws_of_others_go_on():
    settings = settings_of("Stfpm", NANO)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = train(settings)
    assert torch.equal(torch.rand(1), expected)
    again, other = train(settings), train(settings, seed=1)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    assert first[""].shape == (2, 1)  # epochs


def test_a_model_that_its_weights_do_not_hold_is_refused(monkeypatch):
    said = iter([1.0, 2.0])
    monkeypatch.setattr(module, "said_by", lambda *args: (next(said), None))
    with pytest.raises(
        UserError, match="Ganomaly does not judge from its stored weights as it did when it was trained"
    ):
        train(settings_of("Ganomaly", {"n_features": 8}))


def test_a_training_that_fails_is_one_line():
    settings = settings_of("Cflow", NANO | {"fiber_batch_size": 10**6})
    with pytest.raises(UserError, match="model Cflow failed in its training: "):
        train(settings)


@pytest.mark.parametrize(("name", "options"), [("Stfpm", NANO), ("Ganomaly", {"n_features": 8})])
def test_a_training_that_is_killed_goes_on_and_ends_as_if_nothing_had_happened(tmp_path, monkeypatch, name, options):
    """Ganomaly steps two optimizers by hand, draws its weights and keeps batch statistics."""
    settings, state = settings_of(name, options), tmp_path / "x.state"
    settings = dataclasses.replace(settings, steps=8)
    whole, epochs = train(settings), []
    assert len(whole[""]) == 4  # epochs of two steps, however many optimizers step in each
    monkeypatch.setattr(training, "SAVE_AFTER", 0.0)

    def killed(self, trainer, pl_module):
        epochs.append(trainer.current_epoch)
        if len(epochs) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(BaseException):  # noqa: B017  (Lightning makes it SystemExit)
        patch.setattr(training.Progress, "on_train_epoch_end", killed)
        train(settings, state=state)
    assert state.is_file()
    calls = []
    original = training.Progress.on_train_epoch_end
    monkeypatch.setattr(training.Progress, "on_train_epoch_end", lambda *args: (calls.append(1), original(*args)))
    again = train(settings, state=state)
    assert len(calls) == len(whole[""]) - 1  # the first epoch was not done once more
    assert all(torch.equal(whole[key], again[key]) for key in whole if key)
