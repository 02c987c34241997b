"""Stage segment: what is trained, resume, the report and the rule that chooses; on a microscopic SAM 2.1."""

import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from defectflow.core.files import UserError
from defectflow.core.tables import MASKS, read_table
from defectflow.data.annotated_pairs import read_annotated
from defectflow.parts import prior as prior_stage
from defectflow.parts import training_cases
from defectflow.parts.part_model import Prior
from defectflow.segmentation import masks, sam_cases, sam_model, segment
from defectflow.segmentation.sam_training import Plan, rate_factor, sam_loss, train, trained_parameters
from defectflow.segmentation.segmenters import Sam
from micro_sam import write_checkpoint, write_micro
from part_set import arguments, write_set
from settings_words import with_settings


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A set of 8 photographs in three groups with its prior, and the micro configuration and checkpoint."""
    folder = tmp_path_factory.mktemp("data")
    splits = ["train"] * 3 + ["val"] * 2 + ["test"] * 2 + ["absent"]
    write_set(folder, splits, ["a"] * 3 + ["b"] * 2 + ["c"] * 2 + ["a"])
    flags = [*arguments(folder), "--out", str(folder / "prior.safetensors"), "--report", str(folder / "prior.json")]
    prior_stage.main(prior_stage.build_parser().parse_args(flags))
    config = write_micro(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sam_model.CONFIGS, "nano", Path(config))
        patch.setattr(sam_model, "PACKAGED", {})
        yield SimpleNamespace(folder=folder, config=config, checkpoint=str(write_checkpoint(folder, config)))


def parse(data, out, *more):
    flags = [*arguments(data.folder), "--prior", str(data.folder / "prior.safetensors"), "--model", "nano"]
    flags += ["--out", str(out / "model.pt"), "--report", str(out / "train.json"), "--device", "cpu", "--threads", "1"]
    flags += ["--steps", "4", "--evaluate-every", "2", "--batch-size", "2"]
    flags += [] if "official" in more else ["--augmentations", "1"]
    return segment.build_parser().parse_args(with_settings([*flags, *more], Sam))


def run(data, out, *more):
    segment.main(parse(data, out, *more))
    state = torch.load(out / "model.pt", weights_only=True)["model"]
    return state, json.loads((out / "train.json").read_text())


@pytest.mark.parametrize(
    ("trainable", "changed"),
    [
        ("decoder", {"sam_mask_decoder", "sam_prompt_encoder"}),
        ("decoder_and_neck", {"sam_mask_decoder", "sam_prompt_encoder", "image_encoder.neck", "conv_s"}),
        ("all", {"sam_mask_decoder", "sam_prompt_encoder", "image_encoder.neck", "image_encoder.trunk", "conv_s"}),
    ],
)
def test_only_what_should_be_trained_changes(data, tmp_path, trainable, changed):
    before = torch.load(data.checkpoint, weights_only=True)["model"]
    # Best by validation may be step 0: take the weights of the last step instead.
    run_ = make_run(data, tmp_path, trainable)
    plan = Plan(trainable, 2, 1e-3, False, evaluate_every=10)
    with segment.ExitStack() as stack:
        run_.open(stack, tmp_path)
        train(run_.model, plan, run_.batch_at, lambda: None)
    moved = {n for n, v in run_.model.state_dict().items() if not torch.equal(v, before[n])}
    for part in ("sam_mask_decoder", "sam_prompt_encoder", "image_encoder.neck", "image_encoder.trunk", "conv_s"):
        here = {n for n in moved if part in n and ("conv_s" in n) == (part == "conv_s")}
        assert bool(here) == (part in changed), part
    assert not {n for n in moved if n.startswith(("memory", "maskmem", "obj_ptr", "mask_downsample"))}


def make_run(data, out, trainable="decoder", *more):
    args = segment.with_settings(parse(data, out, "--checkpoint", data.checkpoint, *more))
    annotated = read_annotated(args.pairs, args.table, args.splits)
    parts = {name: [a for a in annotated if a.split == name] for name in ("train", "val", "test")}
    return segment.Run(args, parts, Prior.load(args.prior), trainable)


def test_report_and_model(data, tmp_path):
    state, report = run(data, tmp_path, "--checkpoint", data.checkpoint)
    assert report["images"] == {"train": 3, "val": 2, "test": 2}
    assert report["held_out"] == "test"
    assert report["sam2.1"]["n"] == 2
    assert set(report["sam2.1"]["by_group"]) == {"c"}
    assert report["template"]["iou_mean"] > 0.95 > report["sam2.1_without_prior"]["iou_mean"]  # random weights
    assert report["prior_weight"] > 0  # the prior mends what they do
    assert report["sam2.1"]["iou_mean"] > report["sam2.1_without_prior"]["iou_mean"]
    # Random weights with the prior beside them come near the registered mask, not near enough to be used.
    assert 0 < report["template"]["iou_mean"] - segment.TOLERANCE - report["sam2.1"]["iou_mean"] < 0.1
    assert report["use"] == "template"
    assert report["from_scratch"] is False
    assert len(report["base_checkpoint_sha256"]) == 64
    assert [entry["step"] for entry in report["curve"]] == [0, 2, 4]
    assert report["negatives"]["photographs"] == ["img_07"]
    assert report["negatives"]["total"] > 1  # background crops
    torch.testing.assert_close(sam_model.build(data.config, tmp_path / "model.pt").state_dict(), state)
    assert not list(tmp_path.glob(".*")) and not (tmp_path / "model.state.pt").exists()


def test_masks_by_sam(data, tmp_path, capsys):
    _, report = run(data, tmp_path, "--checkpoint", data.checkpoint)
    told = '{"method": "sam2.1", "model": "nano"}'
    flags = ["--manifest", str(data.folder / "manifest.csv"), "--settings", told, "--device", "cpu"]
    flags += ["--prior", str(data.folder / "prior.safetensors"), "--model", str(tmp_path / "model.pt")]
    flags += ["--train-json", str(tmp_path / "train.json")]
    flags += ["--out-dir", str(tmp_path / "masks"), "--table", str(tmp_path / "masks.csv")]
    masks.main(masks.build_parser().parse_args(flags))
    assert set(read_table(tmp_path / "masks.csv", MASKS)["source"]) == {"template"}
    assert "WARNING" in capsys.readouterr().err
    (tmp_path / "train.json").write_text(json.dumps(report | {"use": "sam2.1"}))
    masks.main(masks.build_parser().parse_args(flags))
    table = read_table(tmp_path / "masks.csv", MASKS).set_index("image_id")
    assert set(table["source"]) == {"sam2.1"}
    assert table["predicted_iou"].between(0, 1).all()
    assert table.loc["img_07", "present"] == 0
    assert table.loc["img_00", "doubtful"] == 1  # random weights: far from the registered mask


def test_from_scratch_says_what_stays_random(data, tmp_path, capsys):
    _, report = run(data, tmp_path, "--steps", "1")
    assert report["trainable"] == "decoder" and report["from_scratch"] is True
    assert report["learning_rate"] == 1e-3
    assert "trainable: decoder does not train stays random" in capsys.readouterr().err


def test_two_runs_write_the_same_bytes(data, tmp_path):
    for name in ("one", "two"):
        run(data, tmp_path / name, "--checkpoint", data.checkpoint)
    for file in ("model.pt", "train.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_resumed_run_equals_an_unbroken_one(data, tmp_path, monkeypatch):
    more = ["--checkpoint", data.checkpoint, "--steps", "6", "--save-every", "3", "--patience", "99"]
    whole, report = run(data, tmp_path / "whole", *more)
    original = segment.Run.batch_at

    def killed(self, step, rng):
        if step == 5:
            raise KeyboardInterrupt
        return original(self, step, rng)

    monkeypatch.setattr(segment.Run, "batch_at", killed)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "cut", *more)
    assert (tmp_path / "cut/model.state.pt").exists()
    assert not (tmp_path / "cut/model.pt").exists()
    seen = []
    monkeypatch.setattr(segment.Run, "batch_at", lambda self, step, rng: seen.append(step) or original(self, step, rng))
    resumed, report_resumed = run(data, tmp_path / "cut", *more, "--resume")
    assert seen == [3, 4, 5]
    assert report_resumed == report
    for name, value in whole.items():
        assert torch.equal(resumed[name], value), name


def test_the_state_of_another_training_is_kept_and_not_used(data, tmp_path, monkeypatch, capsys):
    more = ["--checkpoint", data.checkpoint, "--save-every", "1"]
    monkeypatch.setattr(segment.Run, "validate", lambda self: 0.5)
    original = segment.Run.batch_at

    def killed(self, step, rng):
        if step == 2:
            raise KeyboardInterrupt
        return original(self, step, rng)

    monkeypatch.setattr(segment.Run, "batch_at", killed)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path, *more)
    seen = []
    monkeypatch.setattr(segment.Run, "batch_at", lambda self, step, rng: seen.append(step) or original(self, step, rng))
    outlines = next((data.folder / "pairs").glob("*.json"))  # edited meanwhile
    content = outlines.read_text()
    outlines.write_text(content + "\n")
    run(data, tmp_path, *more, "--resume")
    outlines.write_text(content)
    assert seen[0] == 0 and "kept as model.state-old.pt" in capsys.readouterr().err
    assert (tmp_path / "model.state-old.pt").exists() and not (tmp_path / "model.state.pt").exists()


def test_training_learns(data, tmp_path):
    """Prompted with the registered mask, a random decoder learns within seconds to hand it through."""
    run_ = make_run(data, tmp_path, "decoder", "--batch-size", "4")
    with segment.ExitStack() as stack:
        run_.open(stack, tmp_path)
        before = run_.validate()
        train(run_.model, Plan("decoder", 80, 3e-3, True, evaluate_every=20, patience=9), run_.batch_at, run_.validate)
        after = run_.validate()
    assert after > max(0.6, before + 0.2)


def test_zero_steps_judge_the_checkpoint(data, tmp_path):
    state, report = run(data, tmp_path, "--checkpoint", data.checkpoint, "--steps", "0")
    assert report["best_step"] == 0
    torch.testing.assert_close(state, torch.load(data.checkpoint, weights_only=True)["model"])


def test_prompts_come_from_training_photographs_of_other_groups(data):
    prior = Prior.load(data.folder / "prior.safetensors")
    annotated = read_annotated(*arguments(data.folder)[1::2])
    training = [a for a in annotated if a.split == "train"]
    names = prior.image_ids
    assert names == [f"img_{n:02d}" for n in range(7)]
    assert sam_cases.sources(prior, training, "img_05") == [3, 4, 5, 6]
    # All training photographs are of one group: only itself can be left out besides.
    assert sam_cases.sources(prior, training, "img_01") == [1, 3, 4, 5, 6]


def test_background_crops_avoid_the_part():
    mask = np.zeros((100, 120), bool)
    mask[30:70, 40:80] = True
    image = np.dstack([mask * 255] * 3).astype(np.uint8)
    crops = [training_cases.background_crop(image, mask, np.random.default_rng(s)) for s in range(20)]
    assert all(c is not None and (c > 0).mean() <= training_cases.CROP_SHARE for c in crops)
    assert training_cases.background_crop(image, np.ones_like(mask), np.random.default_rng(0)) is None


def test_augmentation_moves_image_truth_and_guess_alike():
    truth = np.zeros((256, 256), np.float32)
    truth[60:180, 90:200] = 1
    case = training_cases.Case(np.dstack([truth * 200] * 3).astype(np.uint8), truth, truth, True, True)
    moved = training_cases.augmented(case, np.random.default_rng(2))
    assert not np.array_equal(moved.truth, truth)
    np.testing.assert_array_equal(moved.truth, moved.soft)
    bright = moved.image[..., 0] > moved.image.max() / 2
    assert (bright & (moved.truth > 0.5)).sum() / (bright | (moved.truth > 0.5)).sum() > 0.98


def test_loss_ignores_masks_of_negatives():
    truth = torch.zeros(2, 8, 8)
    truth[0, 2:6, 2:6] = 1
    logits = (truth * 2 - 1) * 10
    perfect = sam_loss(logits, torch.tensor([1.0, 0.3]), torch.tensor([9.0, -9.0]), truth, torch.tensor([1.0, 0.0]))
    assert float(perfect) < 0.05
    other = logits.clone()
    other[1] = 10
    same = sam_loss(other, torch.tensor([1.0, 0.9]), torch.tensor([9.0, -9.0]), truth, torch.tensor([1.0, 0.0]))
    assert float(same) == pytest.approx(float(perfect))
    absent = sam_loss(logits, torch.ones(2), torch.tensor([9.0, 9.0]), truth, torch.tensor([1.0, 0.0]))
    assert float(absent) > 4  # says present where there is none
    assert torch.isfinite(sam_loss(logits, torch.ones(2), torch.zeros(2), truth * 0, torch.zeros(2)))


def test_learning_rate_warms_up_and_falls():
    plan = Plan("decoder", 400, 1e-4, False)
    factors = [rate_factor(s, plan) for s in range(400)]
    assert factors[0] == pytest.approx(1 / 20)
    assert max(factors) == 1
    assert factors[-1] == pytest.approx(0.1, abs=0.01)
    assert all(a >= b for a, b in pairwise(factors[20:]))


def test_decoder_mode_keeps_what_is_cached_frozen(data):
    model = sam_model.build(data.config)
    trained_parameters(model, "decoder")
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert not {n for n in trained if "conv_s" in n or n.startswith("image_encoder") or n == "no_mem_embed"}


@pytest.mark.parametrize(
    ("sam_iou", "template", "constant", "use"),
    [
        (0.97, 0.96, 0.9, "sam2.1"),
        (0.956, 0.96, 0.9, "sam2.1"),
        (0.954, 0.96, 0.9, "template"),
        (0.8, 0.82, 0.9, "constant"),
        (None, None, None, "template"),
    ],
)
def test_worse_than_a_baseline_is_not_used(sam_iou, template, constant, use):
    means = {"sam2.1": sam_iou, "template": template, "constant": constant}
    assert segment.choose({name: {"iou_mean": value} for name, value in means.items()}) == use


def test_bad_input_is_told(data, tmp_path):
    with pytest.raises(UserError, match="no such checkpoint"):
        run(data, tmp_path, "--checkpoint", "absent.pt")
    with pytest.raises(UserError, match="model: 'nana' is not one of nano"):
        run(data, tmp_path, "--model", "nana")
    with pytest.raises(UserError, match="official: needs --checkpoint"):
        run(data, tmp_path, "--engine", "official")


def test_the_prior_s_logits_decide_where_sam_is_unsure():
    logits = torch.tensor([[3.0, -1.0], [1.0, -3.0]])
    guess = np.float32([[0.5, 0.9], [0.1, 1.0]])
    assert torch.equal(sam_model.with_prior(logits, guess, 0), logits)
    both = sam_model.with_prior(logits, guess, 1)
    odds = np.log([[1, 9], [1 / 9, np.exp(sam_model.LOGIT)]])  # of the guess; certain pixels are held at LOGIT
    np.testing.assert_allclose(both.numpy(), logits.numpy() + odds, rtol=1e-5)
    assert (both > 0).tolist() == [[True, True], [False, True]]


def test_the_weight_of_the_prior_is_chosen_on_the_validation_side_alone(monkeypatch):
    run = object.__new__(segment.Run)
    asked = []

    def predict(part, weight=0.0):
        asked.append((part, weight))
        return {"a": 1 - abs(weight - 1.0), "b": 0.5}

    run.predict, run.parts = predict, {"train": [], "val": ["a", "b"], "test": ["c"]}
    assert run.choose_prior_weight() == 1.0 and {part for part, _ in asked} == {"val"}
    run.predict = lambda part, weight=0.0: {"a": 0.9}
    assert run.choose_prior_weight() == 0.0  # no gain, no prior
    run.parts["val"] = []
    assert run.choose_prior_weight() == 0.0
