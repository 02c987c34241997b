import cv2
import numpy as np
import photograph_set
import pytest
from defectflow.pretraining import photograph_scenes
from defectflow.pretraining.annotated_photographs import read_photographs
from defectflow.pretraining.photograph_scenes import corrected, mixed_batch, photograph_scene, question
from defectflow.segmentation.sam_model import NEGATIVE, NOT_A_POINT, POSITIVE, Prompt


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    photograph_set.write_photographs(folder)
    return read_photographs(folder)


@pytest.fixture(scope="module")
def pool():
    return [np.random.default_rng(k).integers(0, 256, (70, 90, 3), dtype=np.uint8) for k in range(4)]


def test_masks_move_with_the_picture(photographs, pool, monkeypatch):
    """Without new light, pixels inside a mask keep the object's colour wherever it has gone."""
    monkeypatch.setattr(photograph_scenes, "PLAIN", 1.0)
    monkeypatch.setattr(photograph_scenes, "jpeg", lambda rng, image: image)
    areas = []
    for k in range(30):
        one = photographs[k % len(photographs)]
        scene = photograph_scene(np.random.default_rng(k), one, pool, 96)
        if scene is None:
            continue
        colours = [np.median(one.image[one.labels == n], 0) for n in (1, 2)]
        for mask in scene.masks[: len(scene.masks) - (scene.main is not None)]:
            areas.append(mask.mean())
            core = cv2.erode(mask, np.ones((5, 5))) > 0
            if core.sum() > 30:
                seen = np.median(scene.image[core], 0)
                assert min(np.abs(seen - colour).max() for colour in colours) < 6
        if scene.main is not None:
            assert scene.masks[scene.main].sum() >= max(m.sum() for m in scene.masks[:-1])
    assert max(areas) > 2 * min(areas)


def test_a_batch_depends_on_seed_and_step_alone_and_holds_both_kinds(photographs, pool):
    sources = [photographs[:12], photographs[12:]]
    first, again, other = (mixed_batch(3, step, pool, sources, 8, 2, 64) for step in (7, 7, 8))
    assert first.images.shape == (8, 64, 64, 3) and first.truth.shape == (16, 32, 32)
    assert first.owner.tolist() == sorted(list(range(8)) * 2)
    assert np.array_equal(first.images, again.images) and not np.array_equal(first.images, other.images)
    rendered = mixed_batch(3, 7, pool, [], 8, 2, 64)
    shown = {image.tobytes() for image in rendered.images}
    assert 0 < sum(image.tobytes() in shown for image in first.images) < 8


def test_loose_boxes_and_points_lie_about_and_inside_the_object():
    mask = np.zeros((128, 128), np.float32)
    mask[40:90, 30:100] = 1
    boxes = [question(np.random.default_rng(k), mask, 128, "box").points[:2] for k in range(40)]
    assert np.abs(np.mean(boxes, 0) - [[30, 40], [100, 90]]).max() < 4
    assert np.std(boxes, 0).min() > 1
    points = [question(np.random.default_rng(k), mask, 128, "point") for k in range(40)]
    assert all(mask[int(p.points[2, 1]), int(p.points[2, 0])] == 1 for p in points)
    assert np.ptp([p.points[2, 0] for p in points]) > 40


def test_a_correction_clicks_on_an_error_and_hands_the_answer_back():
    truth = np.zeros((64, 64), np.float32)
    truth[:, 32:] = 1
    prompt = Prompt(np.zeros((4, 2), np.float32), np.full(4, NOT_A_POINT), None)
    empty, full = (np.full((32, 32), value, np.float32) for value in (-30, 30))
    for logits, label in ((empty, POSITIVE), (full, NEGATIVE)):
        better = corrected(prompt, logits, truth, np.random.default_rng(0))
        assert better.points.shape == (5, 2) and better.labels.tolist() == [NOT_A_POINT] * 4 + [label]
        assert (better.points[4, 0] > 64) == (label == POSITIVE)
        assert np.abs(better.mask).max() <= 12 and np.array_equal(better.mask > 0, logits > 0)
    right = np.where(cv2.resize(truth, (32, 32)) > 0.5, 5, -5).astype(np.float32)
    assert corrected(prompt, right, truth, np.random.default_rng(0)).labels[4] == NOT_A_POINT
