import numpy as np
import pytest
from defectflow.finding import choice
from defectflow.finding.choice import find, on_rim, typical
from defectflow.finding.self_training import self_train as learn
from defectflow.parts.outlining import outline
from defectflow.parts.patch_finder import PatchFinder
from defectflow.parts.registration_frame import iou
from striped_discs import striped_discs


@pytest.fixture(scope="module")
def parts():
    return striped_discs()


@pytest.fixture(scope="module")
def found(parts):
    squares, features, figure, _ = parts
    return find(squares, features, figure, 0.05, False, 0)


def test_the_part_is_found_in_every_photograph(found, parts):
    assert min(iou(mask, truth) for mask, truth in zip(found.masks, parts[3], strict=True)) > 0.95
    assert found.sound() == list(range(5))
    assert found.signs["rim"] == 0 and found.signs["learned"] > 0.95


def test_a_network_of_the_user_is_one_more_map_and_changes_nothing_where_there_is_none(found, parts, monkeypatch):
    squares, features, figure, _ = parts
    seen = []

    def remembered(z, value, *more, **named):
        seen.append(value)
        return learn(z, value, *more, **named)

    monkeypatch.setattr(choice, "self_train", remembered)
    again = find(squares, features, figure, 0.05, False, 0)
    assert len(seen) == 9 and again.signs == found.signs
    seen.clear()
    find(squares, features, figure, 0.05, False, 0, np.stack([figure, 1 - figure], axis=1))
    assert len(seen) == 11 and np.corrcoef(seen[6].ravel(), figure.ravel())[0, 1] > 0.99


def test_what_it_learned_finds_the_part_again_after_a_round_trip(found, parts):
    squares, features, _, masks = parts
    finder = PatchFinder.read(found.finder.tensors())
    mask, agreement = finder(squares[2], features[2])
    assert iou(mask, masks[2]) > 0.95
    assert 0.5 < agreement <= 1


@pytest.mark.parametrize("outlined", [True, False])
def test_masks_that_will_not_be_used_are_not_outlined(found, parts, monkeypatch, outlined):
    squares, features, figure, masks = parts
    sizes = []

    def counted(picture, soft):
        sizes.append(len(picture))
        return outline(picture, soft)

    monkeypatch.setattr(choice, "outline", counted)
    monkeypatch.setattr(choice, "FILLS", 0.05 if outlined else 1.0)  # the discs fill a tenth
    rough = find(squares, features, figure, 0.05, False, 0, outlined=outlined)
    assert set(sizes) == {256} and rough.chosen == found.chosen
    assert 0.7 < np.mean([iou(mask, truth) for mask, truth in zip(rough.masks, masks, strict=True)]) < 1


def test_a_mask_of_another_size_teaches_nobody(found):
    rows = [dict(row) for row in found.rows]
    rows[1]["area"] *= 3
    assert type(found)(**(vars(found) | {"rows": rows})).sound() == [0, 2, 3, 4]


def test_the_most_typical_photograph_is_not_the_odd_one(parts):
    features = [*parts[1], parts[1][0] + 3]
    assert typical(features) != 5
    assert on_rim(np.ones((64, 64), bool)) == 1
