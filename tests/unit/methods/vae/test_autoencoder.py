import pytest
import torch
from defectflow.methods.picture_detector import Training
from defectflow.methods.vae import autoencoder
from defectflow.methods.vae.autoencoder import Vae
from defectflow.methods.vae.settings import VaeSettings
from defectflow.training.loop import Loop
from picture_set import GRID, patches, picture

SETTINGS = VaeSettings(steps=60, train_batch_size=4, latent=8, width=8, learning_rate=0.01)
EVERYWHERE = torch.arange(GRID[0] * GRID[1])


def training(state=None, settings=SETTINGS, seed=0):
    pictures = torch.stack([picture(k) for k in range(8)])
    return Training(pictures, GRID, settings, seed, torch.device("cpu"), state)


def test_a_bad_picture_scores_higher_and_shows_where():
    tensors = Vae.train(training())
    detector = Vae(tensors, {"grid": list(GRID)}, SETTINGS)
    good = [detector.judge(patches(picture(k)), EVERYWHERE)[0] for k in range(20, 26)]
    score, distances = detector.judge(patches(picture(30, bad=True)), EVERYWHERE)
    row, column = divmod(int(distances.argmax()), GRID[1])
    assert score > max(good) and 2 <= row < 5 and 2 <= column < 5
    by_evidence = Vae(tensors, {"grid": list(GRID)}, VaeSettings(**vars(SETTINGS) | {"score": "evidence"}))
    scores = [by_evidence.judge(patches(picture(30, bad=bad)), EVERYWHERE)[0] for bad in (False, True)]
    assert scores[0] < scores[1]


def test_one_seed_gives_one_network_and_another_seed_another():
    settings = VaeSettings(**vars(SETTINGS) | {"steps": 3})
    first, again, other = (Vae.train(training(settings=settings, seed=seed)) for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["code.weight"], other["code.weight"])
    assert first[""].shape == (GRID[0] * GRID[1], 2) and (first[""][:, 1] > 0).all()


def test_a_training_that_was_interrupted_ends_as_it_would_have(tmp_path, monkeypatch):
    settings = VaeSettings(**vars(SETTINGS) | {"steps": 9})
    whole = Vae.train(training(settings=settings))
    monkeypatch.setattr(autoencoder, "SAVE_EVERY", 2)
    learn = Loop.learn

    def killed(self, loss):
        if self.steps == 5:
            raise KeyboardInterrupt
        return learn(self, loss)

    state = tmp_path / "half.state"
    monkeypatch.setattr(Loop, "learn", killed)
    with pytest.raises(KeyboardInterrupt):
        Vae.train(training(state, settings))
    monkeypatch.setattr(Loop, "learn", learn)
    begun = []
    monkeypatch.setattr(autoencoder, "Loop", lambda *args, **more: begun.append(more["steps"]) or Loop(*args, **more))
    resumed = Vae.train(training(state, settings))
    assert begun == [4]
    for key in whole:
        torch.testing.assert_close(resumed[key], whole[key])
