import cv2
import micro_sam
import numpy as np
import photograph_set
import pytest
import torch
from defectflow.core.files import read_json, sha256_of
from defectflow.parts.registration_frame import iou
from defectflow.pretraining import pretrain_sam
from defectflow.pretraining.optimizer import MuonAdamW, learning_rate, warmup_stable_decay
from defectflow.pretraining.rendered_scenes import KINDS, ask, contact_sheet, render_scene, rough, scene_batch
from defectflow.pretraining.sam_card import evaluate
from defectflow.pretraining.silhouettes import silhouette
from defectflow.segmentation import sam_model
from defectflow.segmentation.sam_training import proposals_loss


@pytest.fixture(scope="module")
def photos():
    return [np.random.default_rng(k).integers(0, 256, (70, 90, 3), dtype=np.uint8) for k in range(4)]


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """Pre-training of a network that takes a second."""
    monkeypatch.setattr(pretrain_sam, "CONFIG", micro_sam.write_micro(tmp_path))
    monkeypatch.setattr(pretrain_sam, "FIRST_SIZE", 64)
    monkeypatch.setattr(pretrain_sam, "VALIDATION", 1)


def test_scenes_depend_on_seed_and_step_alone(photos):
    first, again, other = (scene_batch(3, step, photos, 3, 4, 96) for step in (7, 7, 8))
    assert first.images.shape == (3, 96, 96, 3)
    assert first.images.dtype == np.uint8
    assert first.truth.shape == (12, 48, 48)
    assert first.owner.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert np.array_equal(first.images, again.images)
    assert np.array_equal(first.truth, again.truth)
    assert not np.array_equal(first.images, other.images)


def test_masks_lie_on_their_objects(photos):
    """Colours jump across a mask's outline, and less across the same outline elsewhere in the picture."""

    def jump(image, mask):
        inside = np.uint8(mask > 0.5)
        core, near = cv2.erode(inside, np.ones((3, 3))) > 0, cv2.dilate(inside, np.ones((7, 7))) > 0
        rim, ring = core & (cv2.erode(inside, np.ones((7, 7))) == 0), near & (mask < 0.1)
        return np.abs(image[rim].mean(0) - image[ring].mean(0)).mean() if rim.any() and ring.any() else 0

    here, elsewhere = [], []
    for k in range(40):
        scene = render_scene(np.random.default_rng(k), photos, 96)
        for mask in scene.masks:
            image = scene.image.astype(np.float64)
            here.append(jump(image, mask))
            elsewhere.append(jump(np.roll(image, (37, 41), (0, 1)), mask))
    assert np.median(here) > 2 * np.median(elsewhere)


def test_absent_objects_have_no_truth_and_present_ones_do(photos):
    batch = scene_batch(0, 0, photos, 12, 6, 96)
    assert 0.03 < 1 - batch.present.mean() < 0.3
    for truth, present in zip(batch.truth, batch.present, strict=True):
        assert truth.any() == bool(present)


def test_silhouettes_have_holes_and_thin_limbs():
    shapes = [silhouette(np.random.default_rng(k)) for k in range(60)]
    filled = [cv2.morphologyEx(s, cv2.MORPH_CLOSE, np.ones((25, 25))) for s in shapes]
    assert sum(f.sum() > 1.1 * s.sum() for s, f in zip(shapes, filled, strict=True)) > 10
    opened = [cv2.morphologyEx(s, cv2.MORPH_OPEN, np.ones((25, 25))) for s in shapes]
    assert sum(o.sum() < 0.7 * s.sum() for s, o in zip(shapes, opened, strict=True)) > 4


def test_prompts_hold_what_their_kind_says():
    rng = np.random.default_rng(0)
    mask = np.zeros((128, 128), np.float32)
    mask[40:90, 30:100] = 1
    box, filled, guess, point, wide = (ask(rng, mask, 128, kind) for kind in dict.fromkeys(KINDS))
    assert box.labels.tolist() == [2, 3, -1, -1]
    assert np.abs(box.points[:2] - [[30, 40], [100, 90]]).max() < 12
    assert filled.labels.tolist() == [2, 3, -1, -1]
    assert 0.7 < iou(cv2.resize(filled.mask, (128, 128)) > 0, mask > 0.5) < 1
    assert point.labels.tolist() == [-1, -1, 1, -1]
    x, y = point.points[2].astype(int)
    assert mask[y, x] == 1
    assert guess.mask.shape == (32, 32)
    assert 0.6 < iou(cv2.resize(guess.mask, (128, 128)) > 0, mask > 0.5) < 1
    assert np.prod(wide.points[1] - wide.points[0]) > 1.2 * np.prod(box.points[1] - box.points[0])
    assert wide.mask is None


def test_a_rough_mask_is_near_but_not_the_mask():
    mask = np.zeros((256, 256), np.float32)
    cv2.circle(mask, (120, 130), 70, 1, -1)
    values = [iou(rough(np.random.default_rng(k), mask) > 0.5, mask > 0.5) for k in range(20)]
    assert 0.85 < np.mean(values) < 0.99


def test_contact_sheet_shows_scenes_and_prompts(photos):
    assert contact_sheet(photos, 0, 64).shape == (8 * 64, 8 * 64, 3)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_interrupted_pretraining_resumes_to_the_identical_weights_and_loads_as_a_checkpoint(tiny, photos, tmp_path):
    def run(folder, stop_at=None, resume=False):
        (tmp_path / folder).mkdir(exist_ok=True)
        options = {"batch": 4, "every": 2, "stop_at": stop_at, "resume": resume}
        return pretrain_sam.train(photos[:3], photos[3:], tmp_path / folder, steps=8, minutes=None, **options)

    straight, record = run("straight")
    run("broken", stop_at=7)
    resumed, again = run("broken", resume=True)
    assert record["steps"] == again["steps"] == 8
    assert record["scenes"] == 7 * 4 + 2  # the last eighth at full size, with half of the scenes
    fresh = sam_model.build(pretrain_sam.CONFIG).state_dict()
    changed = {key for key, value in straight.state_dict().items() if not torch.equal(value, fresh[key])}
    assert any(key.startswith("image_encoder.trunk") for key in changed)
    assert not any(key.startswith("memory") for key in changed)
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key

    pretrain_sam.export(straight, tmp_path / "out.safetensors")
    loaded = sam_model.build(pretrain_sam.CONFIG, tmp_path / "out.safetensors")
    for key, value in straight.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value, rtol=2e-3, atol=1e-4)
    figures = evaluate(loaded, photos, 0, 1)
    assert set(figures) >= {"iou_box", "iou_box_prompt", "presence_auroc", "iou_error"}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_longer_pretraining_goes_on_from_before_the_rate_fell(tiny, photos, tmp_path):
    def run(folder, steps, **options):
        (tmp_path / folder).mkdir(exist_ok=True)
        return pretrain_sam.train(
            photos[:3], photos[3:], tmp_path / folder, steps=steps, minutes=None, batch=2, every=1, **options
        )

    run("short", 4)
    assert torch.load(tmp_path / "short/stable.pt", weights_only=True)["record"]["steps"] == 3
    longer, record = run("short", 8, resume=True)
    straight, _ = run("long", 8)
    assert record["steps"] == 8 and [row["steps"] for row in record["curve"]] == list(range(1, 9))
    assert [row["size"] for row in record["curve"]] == [64] * 7 + [longer.image_size]
    for key, value in straight.state_dict().items():
        assert torch.equal(value, longer.state_dict()[key]), key


def test_plain_attention_answers_as_that_of_torch():
    q, k, v = torch.randn(3, 2, 4, 9, 8, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    with pretrain_sam.PlainAttention():
        plain = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    assert not torch.equal(plain, expected)  # it was computed otherwise
    torch.testing.assert_close(plain, expected)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_real_photographs_are_learned_from_and_named_in_the_card_and_its_notice(tiny, tmp_path, photos):
    photograph_set.write_photographs(tmp_path / "real", singles=60)
    (tmp_path / "pool").mkdir()
    for number, photo in enumerate(photos):
        cv2.imwrite(str(tmp_path / f"pool/{number}.png"), photo)
    out = tmp_path / "out"
    start = micro_sam.write_checkpoint(tmp_path, pretrain_sam.CONFIG)
    flags = ["--pool", str(tmp_path / "pool"), "--photographs", str(tmp_path / "real"), "--start", str(start)]
    flags += ["--out", str(out), "--steps", "2", "--batch", "4", "--threads", "1", "--scenes", "4", "--asked", "2"]
    pretrain_sam.main(pretrain_sam.build_parser().parse_args([*flags, "--device", "cpu"]))
    figures = read_json(out / "sam2.1-nano.json")
    assert figures["run"]["start"] == sha256_of(start) and figures["sha256"] == sha256_of(
        out / "sam2.1-nano.safetensors"
    )
    real = figures["photographs"]
    assert {"real_box", "real_click_1", "real_click_3"} <= set(figures["run"]["curve"][-1])
    assert sum(real["trained"].values()) > 10 and set(real["iou"]) == set(real["held"])
    assert all(0 <= v <= 1 for means in real["iou"].values() for v in means.values())
    card = (out / "sam2.1-nano.md").read_text()
    assert "sam2.1-nano.NOTICE.md" in card and "no mask drawn by" not in card
    assert (
        "| tools: all 12 photographs and masks | owner/tools | CC BY 4.0 |"
        in (out / "sam2.1-nano.NOTICE.md").read_text()
    )


def test_of_three_proposals_the_best_alone_learns():
    logits = torch.zeros(1, 4, 4, 4)
    truth = torch.zeros(1, 4, 4)
    truth[:, :2] = 1
    logits[0, 2] = 8 * truth - 4  # the second of the three is right
    logits.requires_grad_()
    loss = proposals_loss(logits, torch.full((1, 4), 0.5), torch.zeros(1), truth, torch.ones(1))
    loss.backward()
    moved = logits.grad[0].abs().amax(dim=(1, 2)) > 0
    assert moved.tolist() == [True, False, True, False]


def test_a_click_corrects_the_best_proposal_of_one_click_and_the_plain_answer_of_a_box():
    logits = torch.arange(4.0)[None, :, None, None].expand(3, 4, 2, 2)
    predicted = torch.tensor([[0.9, 0.1, 0.8, 0.3]]).expand(3, 4)
    click, box = np.array([-1, -1, 1, -1]), np.array([2, 3, -1, -1])
    prompts = [sam_model.Prompt(np.zeros((4, 2), np.float32), labels, None) for labels in (click, box)]
    prompts.append(sam_model.Prompt(prompts[0].points, click, np.zeros((2, 2), np.float32)))
    assert pretrain_sam.before_correction(logits, predicted, prompts)[:, 0, 0].tolist() == [2, 0, 0]


def test_both_optimizers_move_their_weights_in_either_memory_format():
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 1, 3))
        net.to(memory_format=layout)
        before = [p.detach().clone() for p in net.parameters()]
        optimizer = MuonAdamW(net.parameters(), 0.02)
        x = torch.randn(4, 3, 12, 12)
        losses = []
        for _ in range(60):
            loss = (net(x) - x[:, :1, 2:-2, 2:-2]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.5 * losses[0]
        assert not any(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_rate_stays_at_its_peak_until_the_last_part_of_the_run():
    rates = [warmup_stable_decay(step, 4, step / 20, 0.75) for step in range(21)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert set(rates[3:16]) == {1.0}
    assert rates[16:] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0])


def test_rate_warms_up_and_falls():
    rates = [learning_rate(p) for p in (0.0, 0.02, 0.5, 1.0)]
    assert rates[1] == pytest.approx(1.0)
    assert rates[0] < 0.02
    assert rates[1] > rates[2] > rates[3]
    assert rates[3] == pytest.approx(0.01)
