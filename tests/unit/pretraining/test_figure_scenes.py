import cv2
import numpy as np
import photograph_set
import pytest
from defectflow.pretraining import figure_scenes
from defectflow.pretraining.annotated_photographs import UNKNOWN, Photograph, read_photographs
from defectflow.pretraining.figure_scenes import (
    COVER,
    FOLDS,
    contact_sheet,
    figure_batch,
    material,
    pasted_picture,
    photograph_picture,
    rendered_picture,
    surface_picture,
    teach,
)
from defectflow.pretraining.training_images import quilt


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    photograph_set.write_photographs(folder)
    return read_photographs(folder)


@pytest.fixture(scope="module")
def pool():
    return [np.random.default_rng(k).integers(0, 256, (70, 90, 3), dtype=np.uint8) for k in range(4)]


@pytest.fixture
def same_light(monkeypatch):
    monkeypatch.setattr(figure_scenes, "taken", lambda rng, image: np.clip(image, 0, 255).astype(np.uint8))


def test_pictures_depend_on_seed_and_step_alone(photographs, pool):
    made_of = material(pool, photographs)
    first, again, other = (figure_batch(3, step, made_of, 6, 96) for step in (7, 7, 8))
    for one, same in zip(first, again, strict=True):
        assert np.array_equal(one.image, same.image) and np.array_equal(one.figure, same.figure)
        assert one.image.shape == (96, 96, 3) and one.image.dtype == np.uint8
        assert one.figure.shape == one.known.shape == (96, 96)
        assert one.figure.min() >= 0 and one.figure.max() < 1 + 1e-5
        assert 0 <= one.fold < FOLDS
    assert any(not np.array_equal(one.image, two.image) for one, two in zip(first, other, strict=True))


def test_the_figure_moves_with_the_picture(photographs, pool, same_light):
    """Inside the figure lie the objects' colours alone, wherever window, mirror, turn and pasting have put it."""
    people, made_of = [one for one in photographs if one.source == "people"], material(pool, photographs)
    checked = 0
    for k in range(40):
        rng, one = np.random.default_rng(k), people[k % len(people)]
        colours = [np.median(one.image[one.labels == n], 0) for n in (1, 2)]
        made = (
            photograph_picture(rng, one, 0, 96)
            if k % 2
            else pasted_picture(rng, one, made_of.folds[one.name], made_of, 96)
        )
        if made is None:
            continue
        core = cv2.erode(np.float32(made.figure > 0.99), np.ones((7, 7))) > 0
        if core.sum() > 30:
            off = np.min([np.abs(made.image[core] - colour).max(1) for colour in colours], 0)
            assert np.median(off) < 6
            checked += 1
        assert not made.surface and COVER[0] / 2 < made.figure.mean() < 0.9
    assert checked > 20


def test_pixels_that_nobody_decided_are_not_known(photographs, same_light):
    one = photographs[-1]
    labels = one.labels.copy()
    labels[:, :20] = UNKNOWN
    torn = Photograph(one.name, one.source, one.licence, one.image, labels, True)
    made = photograph_picture(np.random.default_rng(1), torn, 0, 96)
    assert 0 < (made.known == 0).mean() < 0.6
    assert made.figure[made.known == 0].max() < 1


def test_surfaces_have_no_figure_and_rendered_parts_have_one(pool):
    for k in range(8):
        one = surface_picture(np.random.default_rng(k), pool[0], 3, 96)
        assert one.surface and not one.figure.any() and one.fold == 3
        part = rendered_picture(np.random.default_rng(k), pool, 96)
        assert part is None or (not part.surface and COVER[0] < part.figure.mean() < COVER[1])


def test_a_quilt_is_about_the_same_everywhere():
    """A bright corner of a photograph becomes a pattern: quarters of the quilt differ less than those of the photo."""
    photo = np.zeros((200, 200, 3), np.uint8)
    photo[:100, :100] = 255
    photo = np.clip(photo + np.random.default_rng(0).normal(0, 20, photo.shape), 0, 255).astype(np.uint8)
    spreads = []
    for k in range(12):
        made = quilt(np.random.default_rng(k), photo, 128)
        assert made.shape == (128, 128, 3)
        spreads.append(cv2.resize(made, (2, 2), interpolation=cv2.INTER_AREA).astype(float).std())
    assert np.median(spreads) < 0.2 * cv2.resize(photo, (2, 2), interpolation=cv2.INTER_AREA).astype(float).std()


def test_a_series_has_one_fold(photographs, pool):
    made_of = material(pool, photographs)
    assert set(made_of.folds) == {one.name for one in photographs}
    for scene in range(3):
        assert len({made_of.folds[f"tools/images/{scene}_{view}.png"] for view in range(4)}) == 1
    assert len(set(made_of.folds.values())) > 1


def test_a_teacher_is_believed_where_it_sees_a_clear_figure_and_asked_once(pool, tmp_path, monkeypatch):
    asked = []

    class Teacher:
        def __init__(self, file):
            pass

        def __call__(self, photo):
            asked.append(photo)
            soft = np.full((32, 32), 0.45 if photo is pool[1] else 0.0, np.float32)
            soft[8:20, 8:20] = 0.9 if photo is not pool[2] else 0
            return soft

    monkeypatch.setattr(figure_scenes, "U2Net", Teacher)
    taught = teach(pool, tmp_path / "net.onnx", tmp_path / "masks")
    assert sorted(taught) == [0, 3] and len(asked) == len(pool)
    assert sorted(teach(pool, tmp_path / "net.onnx", tmp_path / "masks")) == [0, 3] and len(asked) == len(pool)


def test_pictures_of_a_teacher_have_its_soft_figure(pool, monkeypatch):
    monkeypatch.setattr(figure_scenes, "KINDS", {"taught": 1.0})
    soft = np.zeros((32, 32), np.float32)
    soft[8:20, 8:20] = 0.9
    made = figure_batch(0, 0, material(pool, [], {2: soft}), 4, 64)
    assert all(0.5 < one.figure.max() < 0.95 and one.fold == 2 for one in made)


def test_contact_sheet_shows_sixty_four_pictures(photographs, pool):
    assert contact_sheet(material(pool, photographs), 0, 48).shape == (8 * 48, 8 * 48, 3)
