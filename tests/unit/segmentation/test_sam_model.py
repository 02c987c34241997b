"""SAM 2.1 models: what ours computes is what the sam2 package computes; checkpoints and prompts are checked."""

import shutil

import numpy as np
import pytest
import torch
from defectflow.core.files import UserError, read_json, sha256_of
from defectflow.parts.training_cases import to_square
from defectflow.pretraining.sam_card import evaluate
from defectflow.pretraining.training_images import texture
from defectflow.segmentation import sam_model
from micro_sam import write_checkpoint, write_micro
from safetensors.torch import save_file
from sam2.sam2_image_predictor import SAM2ImagePredictor


@pytest.fixture(scope="module")
def micro(tmp_path_factory):
    return write_micro(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def model(micro):
    return sam_model.build(micro, seed=1)


@pytest.fixture(scope="module")
def predictor(model):
    """The package's own predictor on the same model, freed from its 1024 px (sam2 issue 138)."""
    predictor = SAM2ImagePredictor(model)
    size = model.image_size
    predictor._bb_feat_sizes = [(size // 4,) * 2, (size // 8,) * 2, (size // 16,) * 2]
    return predictor


def picture(size: int = 128) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (size, size, 3)).astype(np.uint8)


def disc(side: int = 64) -> np.ndarray:
    y, x = np.mgrid[:side, :side] / side
    return ((((x - 0.5) ** 2 + (y - 0.4) ** 2) < 0.06) & ~((abs(x - 0.5) < 0.05) & (y < 0.4))).astype(np.float32)


def test_features_equal_those_of_the_predictor(model, predictor):
    predictor.set_image(picture())
    with torch.no_grad():
        ours = sam_model.encode(model, sam_model.to_tensor(to_square(picture(), 128)[None], torch.device("cpu")))
    theirs = [*predictor._features["high_res_feats"], predictor._features["image_embed"]]
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_masks_equal_those_of_the_predictor(model, predictor):
    predictor.set_image(picture())
    prompt = sam_model.make_prompt(disc(), 128)
    assert prompt.labels.tolist() == [2, 3, 1, 0]
    _, iou, logits = predictor.predict(
        point_coords=prompt.points[2:],
        point_labels=prompt.labels[2:],
        box=prompt.points[:2].reshape(4),
        mask_input=prompt.mask[None],
        multimask_output=False,
        return_logits=True,
    )
    with torch.no_grad():
        features = sam_model.encode(model, sam_model.to_tensor(picture()[None], torch.device("cpu")))
        ours, ours_iou, score = sam_model.decode(model, features, [prompt])
    assert ours.shape == (1, 32, 32)
    np.testing.assert_allclose(ours.numpy(), logits, rtol=1e-3, atol=1e-3 * np.abs(logits).max())
    assert float(ours_iou[0]) == pytest.approx(float(iou[0]), abs=1e-4)
    assert torch.isfinite(score).all()


def test_batch_of_prompts_equals_single_ones(model):
    prompts = [sam_model.make_prompt(disc(), 128), sam_model.make_prompt(disc(), 128, registered=False)]
    assert prompts[1].mask is None
    image = np.stack([picture(), picture()[::-1]])
    with torch.no_grad():
        features = sam_model.encode(model, sam_model.to_tensor(image, torch.device("cpu")))
        together, _, _ = sam_model.decode(model, features, prompts)
        for i, prompt in enumerate(prompts):
            alone, _, _ = sam_model.decode(model, [f[i : i + 1] for f in features], [prompt])
            torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-4)


def test_nano_is_small():
    model = sam_model.build("nano")
    used = [n for n, _ in model.named_parameters() if not n.startswith(("memory", "obj_ptr", "mask_downsample"))]
    count = sum(dict(model.named_parameters())[n].numel() for n in used)
    assert count < 8e6
    assert sum(p.numel() for p in model.parameters()) * 2 < 16e6  # bytes in float16
    assert model.image_size == 512


def test_packaged_nano_is_small_loads_through_build_sam2_and_looks_at_the_picture():
    path = sam_model.PACKAGED["nano"]
    assert path.stat().st_size < 16e6
    sam_model.verify(path, "nano")
    card = read_json(path.with_suffix(".json"))
    assert card["sha256"] == sha256_of(path)
    surfaces = [texture(np.random.default_rng(k), 256) for k in range(8)]  # rendered_scenes draws other ones itself
    figures = evaluate(sam_model.build("nano", path), surfaces, seed=9, batches=3)
    assert figures["iou_box"] > figures["iou_box_prompt"] + 0.05
    assert figures["iou_wide"] > figures["iou_wide_prompt"] + 0.05
    assert figures["presence_auroc"] > 0.6


def test_packaged_weights_that_are_damaged_are_refused(tmp_path, monkeypatch):
    path = sam_model.PACKAGED["nano"]
    copy = tmp_path / path.name
    shutil.copy(path.with_suffix(".json"), copy.with_suffix(".json"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)
    monkeypatch.setitem(sam_model.PACKAGED, "nano", copy)
    with pytest.raises(UserError, match=r"sam2\.1-nano\.safetensors: its sha256 is not that"):
        sam_model.build("nano", copy)


def test_official_configuration_builds_and_names_are_checked():
    assert sum(p.numel() for p in sam_model.build("sam2.1_hiera_t").parameters()) == pytest.approx(38.9e6, rel=0.01)
    with pytest.raises(UserError, match=r"sam2\.1_hiera_xl.*unknown"):
        sam_model.config_path("sam2.1_hiera_xl")


@pytest.mark.parametrize("form", ["pt", "safetensors", "half"])
def test_checkpoints_load(micro, tmp_path, form):
    state = sam_model.build(micro, seed=9).state_dict()
    path = tmp_path / ("model.safetensors" if form == "safetensors" else "model.pt")
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save({"model": {k: v.half() for k, v in state.items()} if form == "half" else state}, path)
    loaded = sam_model.build(micro, path).state_dict()
    tolerance = 1e-2 if form == "half" else 0
    for name, value in state.items():
        torch.testing.assert_close(loaded[name], value, rtol=tolerance, atol=tolerance)


def test_official_form_reloads_through_build_sam2(micro, tmp_path):
    sam_model.verify(write_checkpoint(tmp_path, micro), micro)


def test_wrong_checkpoints_are_told_in_one_line(micro, tmp_path):
    path = write_checkpoint(tmp_path, micro)
    with pytest.raises(UserError, match=r"checkpoint_3\.pt: does not fit nano .*another variant") as caught:
        sam_model.build("nano", path)
    assert "\n" not in str(caught.value)
    (tmp_path / "text.pt").write_text("not a model")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        sam_model.build(micro, tmp_path / "text.pt")
    torch.save({"weights": torch.zeros(1)}, tmp_path / "bare.pt")
    with pytest.raises(UserError, match=r"not a SAM 2\.1 checkpoint"):
        sam_model.build(micro, tmp_path / "bare.pt")
    with pytest.raises(UserError, match="no such checkpoint"):
        sam_model.build(micro, tmp_path / "none.pt")


class Bomb:
    """Pickle that would write a file when loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_checkpoints_cannot_execute_code(micro, tmp_path):
    torch.save({"model": Bomb(tmp_path / "owned")}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        sam_model.build(micro, tmp_path / "evil.pt")
    assert not (tmp_path / "owned").exists()


def test_prompt_points_lie_where_they_should():
    truth = disc(256) > 0.5
    prompt = sam_model.make_prompt(disc(256), 512)
    (x0, y0), (x1, y1), positive, negative = prompt.points
    ys, xs = np.nonzero(truth)
    assert x0 <= 2 * xs.min() < x0 + 20
    assert x1 - 20 < 2 * xs.max() <= x1
    assert y0 <= 2 * ys.min() < y0 + 20
    assert y1 - 20 < 2 * ys.max() <= y1
    assert truth[int(positive[1] / 2), int(positive[0] / 2)]
    assert not truth[int(negative[1] / 2), int(negative[0] / 2)]
    assert x0 < negative[0] < x1
    assert prompt.mask.shape == (128, 128)
    assert prompt.mask.max() == pytest.approx(6)
    assert prompt.mask.min() == pytest.approx(-6)


def test_jitter_moves_the_prompt_a_little_and_repeats():
    plain = sam_model.make_prompt(disc(), 128)
    first, again = (sam_model.make_prompt(disc(), 128, np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(first.points, again.points)
    assert 0 < np.abs(first.points[:2] - plain.points[:2]).max() < 20


def test_empty_guess_gives_the_whole_picture():
    prompt = sam_model.make_prompt(np.zeros((64, 64), np.float32), 128)
    np.testing.assert_array_equal(prompt.points[:2], [[0, 0], [128, 128]])
    assert prompt.labels[2] == sam_model.NOT_A_POINT


def test_cuda_is_refused_where_there_is_none():
    if torch.cuda.is_available():
        assert sam_model.pick_device("cuda").type == "cuda"
    else:
        with pytest.raises(UserError, match="no CUDA device"):
            sam_model.pick_device("cuda")
    assert sam_model.pick_device("cpu").type == "cpu"
    assert sam_model.autocast(torch.device("cpu"))._enabled is False
