import cv2
import numpy as np
import photograph_set
import pytest
import torch
from defectflow.core.files import read_json, sha256_of
from defectflow.parts import figure_ground
from defectflow.parts.figure_ground import FigureGround
from defectflow.pretraining import figure_card, pretrain_part
from defectflow.pretraining.figure_scenes import FOLDS, material
from defectflow.pretraining.pretrain_part import Looker, export, heads_loss, new_heads, train


@pytest.fixture(scope="module")
def photos():
    return [np.random.default_rng(k).integers(0, 256, (70, 90, 3), dtype=np.uint8) for k in range(5)]


@pytest.fixture
def tiny(monkeypatch):
    """Pictures that take a moment."""
    for module in (pretrain_part, figure_ground, figure_card):
        monkeypatch.setattr(module, "SIDE", 64)
    for name, value in {"FIRST_SIZE": 64, "CURVE": 2, "KEPT": 3, "SURFACES": 4}.items():
        monkeypatch.setattr(pretrain_part, name, value)


def test_an_interrupted_training_resumes_to_the_identical_weights(tiny, photos, tmp_path, monkeypatch):
    for module in (pretrain_part, figure_ground, figure_card):
        monkeypatch.setattr(module, "SIDE", 96)

    def run(folder, stop_at=None, resume=False):
        (tmp_path / folder).mkdir(exist_ok=True)
        options = {"batch": 3, "every": 2, "stop_at": stop_at, "resume": resume}
        return train(material(photos[:4]), photos[4:], [], tmp_path / folder, steps=5, minutes=None, **options)

    straight, record = run("straight")
    run("broken", stop_at=4)
    resumed, again = run("broken", resume=True)
    assert record["steps"] == again["steps"] == 5 and record["pictures"] == 15 and record["small"] == 3
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    assert [row["steps"] for row in record["curve"]] == [2, 4, 5]


def test_what_is_exported_gives_the_answers_of_the_trained_heads(tiny, photos, tmp_path):
    look = Looker(0, material(photos), 4, torch.device("cpu"), 1)
    heads = pretrain_part.folded(new_heads(0, look(0, 64)))
    look.close()
    path = tmp_path / "heads.safetensors"
    export(heads, path)
    direct, loaded = FigureGround(heads), FigureGround.load("cpu", path)
    for one, other in zip(direct.predict(photos), loaded.predict(photos), strict=True):
        np.testing.assert_allclose(one.probability, other.probability, atol=5e-3)
        assert one.surface == pytest.approx(other.surface, abs=5e-3)


def test_no_head_learns_from_its_own_fold(tiny, photos):
    look = Looker(0, material(photos), 8, torch.device("cpu"), 1)
    seen = look(0, 64)
    look.close()
    heads = new_heads(0, seen)
    for fold in range(FOLDS):
        seen.fold[:] = fold
        heads.zero_grad()
        heads_loss(heads, seen).backward()
        learns = [head.out.weight.grad is not None for head in heads.heads]
        assert learns == [fold != number for number in range(len(learns))]


def test_heads_learn_to_tell_a_thing_from_its_ground(tiny, photos, monkeypatch):
    """Forty steps on a few pictures lower their loss by a third."""
    look = Looker(0, material(photos), 8, torch.device("cpu"), 1)
    seen = pretrain_part.joined([look(0, 64)])
    look.close()
    heads = new_heads(0, seen)
    optimizer = pretrain_part.MuonAdamW(heads.parameters(), 0.02)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"]
    losses = []
    for _ in range(40):
        loss = heads_loss(heads, seen)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.67 * losses[0]


@pytest.mark.parametrize("real", [True, False])
def test_the_stage_writes_weights_figures_card_and_notice(tiny, photos, tmp_path, real):
    (tmp_path / "pool").mkdir()
    for number, photo in enumerate(photos):
        cv2.imwrite(str(tmp_path / f"pool/{number}.png"), photo)
    out = tmp_path / "out"
    flags = ["--pool", str(tmp_path / "pool"), "--out", str(out), "--steps", "2", "--batch", "3", "--threads", "1"]
    if real:
        photograph_set.write_photographs(tmp_path / "real", singles=60)
        flags += ["--photographs", str(tmp_path / "real")]
    pretrain_part.main(pretrain_part.build_parser().parse_args([*flags, "--device", "cpu"]))
    weights = out / "part-nano.safetensors"
    figures = read_json(out / "part-nano.json")
    assert figures["sha256"] == sha256_of(weights) and figures["bytes"] == weights.stat().st_size
    assert FigureGround.load("cpu", weights)
    assert 0 <= figures["surfaces_as_objects"] <= 1 and not (out / "checkpoint.pt").exists()
    card = (out / "part-nano.md").read_text()
    assert ("part-nano.NOTICE.md" in card) == real == (out / "part-nano.NOTICE.md").is_file()
    assert (out / "scenes.png").is_file() and (out / "curve.csv").read_text().startswith("steps,")
    if real:
        assert sum(figures["trained"].values()) > 10 and 0 <= figures["held_out"]["people"]["iou"] <= 1
        assert "| people |" in card
        assert "Photographs that part-nano learned from" in (out / "part-nano.NOTICE.md").read_text()


def test_a_training_can_go_on_from_exported_weights(tiny, photos, tmp_path):
    """At a rate of nothing the answers stay those of the file."""
    look = Looker(0, material(photos), 4, torch.device("cpu"), 1)
    path = tmp_path / "heads.safetensors"
    export(pretrain_part.folded(new_heads(0, look(0, 64))), path)
    look.close()
    before = FigureGround.load("cpu", path).predict(photos)[0]
    for rate, same in ((0.0, True), (0.02, False)):
        out = tmp_path / str(rate)
        out.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            if same:
                patch.setattr(pretrain_part, "learning_rate", lambda progress: 0.0)
            options = {"steps": 3, "minutes": None, "batch": 3, "rate": rate, "start": path}
            heads, record = train(material(photos[:4]), photos[4:], [], out, **options)
        after = FigureGround(heads).predict(photos)[0]
        assert np.allclose(before.probability, after.probability, atol=1e-3) == same
        assert record["small"] == 0
