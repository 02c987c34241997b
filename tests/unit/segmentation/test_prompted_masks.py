"""Box, proposals, judgement: which proposal becomes the mask, what each option leaves of it, and what is told."""

import numpy as np
import pytest
from defectflow.segmentation.promptable_network import Proposals
from defectflow.segmentation.prompted_masks import PromptedFinder
from defectflow.segmentation.prompted_segmenter import PromptedSam

SHAPE = (120, 160)
PART = (60, 20, 100, 100)  # x0, y0, x1, y1


def drawn(*boxes, without=()):
    """Bool mask of SHAPE with boxes (x0, y0, x1, y1) in it, and holes."""
    mask = np.zeros(SHAPE, bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    for x0, y0, x1, y1 in without:
        mask[y0:y1, x0:x1] = False
    return mask


IMAGE = np.full((*SHAPE, 3), 60, np.uint8)
IMAGE[drawn(PART)] = 200


class Network:
    """Answers with masks and ratings, the same whatever it is asked, or another list for each question."""

    def __init__(self, *answers, by_question=None):
        self.answers, self.by_question, self.asked = answers, by_question, []

    def look(self, image):
        return image

    def propose(self, seen, box, point=None):
        answers = self.by_question(box) if self.by_question else self.answers
        self.asked.append(box)
        masks, rated = zip(*answers, strict=True)
        return Proposals(np.where(np.stack(masks), 4.0, -4.0).astype(np.float32), np.array(rated, np.float32))


def find(*answers, image=IMAGE, network=None, **options):
    settings = PromptedSam.from_dict({"model": "nano"} | options, "test")
    return PromptedFinder(network or Network(*answers), settings).find(image)


def test_a_sound_proposal_is_the_mask_without_a_doubt():
    mask, row = find((drawn(PART), 0.9))
    np.testing.assert_array_equal(mask, drawn(PART))
    assert (row["source"], row["present"], row["doubtful"], row["reason"]) == ("prompted", 1, 0, "")
    assert row["area"] == pytest.approx(mask.mean()) and row["predicted_iou"] == pytest.approx(0.9)


@pytest.mark.parametrize(
    "worse",
    [
        drawn((0, 0, 160, 120), without=[PART]),  # the ground
        drawn((60, 20, 100, 40)),  # a piece of the part, not its middle
        drawn(PART, (0, 0, 40, 120)),  # the part and more
        np.zeros(SHAPE, bool),
    ],
)
def test_of_all_proposals_the_best_one_counts_not_the_one_rated_best(worse):
    mask, _ = find((worse, 0.95), (drawn(PART), 0.85))
    np.testing.assert_array_equal(mask, drawn(PART))


HOLE = drawn(PART, without=[(75, 60, 80, 66)])
GAP = drawn(PART, without=[(60, 55, 100, 59)])


@pytest.mark.parametrize(
    ("option", "proposal", "left"),
    [
        ({"centre_band": 0.2}, drawn(PART, (104, 40, 112, 80)), drawn(PART)),
        ({"height_band": 0.2}, drawn(PART, (70, 2, 90, 14)), drawn(PART)),
        ({"bridge": 0.1}, GAP, drawn(PART)),
        ({"fill_holes": True}, HOLE, drawn(PART)),
        ({"drop_border": True}, drawn(PART, (0, 40, 20, 80)), drawn(PART)),
        ({"within_box": True, "padding": 0}, drawn((60, 20, 120, 100)), None),
        ({"scraps": 0.2}, drawn(PART, (104, 40, 112, 50)), drawn(PART)),
    ],
)
def test_an_option_takes_away_what_it_names_and_is_off_by_default(option, proposal, left):
    kept, _ = find((proposal, 0.95))
    np.testing.assert_array_equal(kept, proposal)
    mask, _ = find((proposal, 0.95), **option)
    if left is None:  # the box of edges is a pixel or two off
        assert mask.sum() < 1.1 * drawn(PART).sum() and mask[drawn(PART)].mean() > 0.95
    else:
        np.testing.assert_array_equal(mask, left)


def test_scraps_go_by_default():
    np.testing.assert_array_equal(find((drawn(PART, (104, 40, 108, 44)), 0.95))[0], drawn(PART))


@pytest.mark.parametrize(("polarity", "told"), [("any", False), ("auto", False), ("brighter", False), ("darker", True)])
def test_polarity_doubts_a_part_that_is_not_as_bright_as_it_should_be(polarity, told):
    row = find((drawn(PART), 0.95), polarity=polarity)[1]
    assert bool(row["doubtful"]) == told and ("polarity" in row["reason"]) == told


def test_polarity_of_the_inset_outweighs_the_rating():
    dark = drawn((44, 8, 116, 112), without=[PART])  # the ground around, inside of the wider box
    dark |= drawn((78, 50, 82, 70))
    options = {"fg_inset": 0.1}
    assert find((dark, 1.0), (drawn(PART), 0.6), polarity="auto", **options)[0][60, 65]


def test_a_blank_photograph_is_told_and_the_network_is_not_asked():
    network = Network((drawn(PART), 0.9))
    mask, row = find(network=network, image=np.full((*SHAPE, 3), 120, np.uint8))
    assert not mask.any() and row["present"] == 0 and "blank" in row["reason"] and network.asked == []


def test_an_empty_answer_leads_to_a_wider_box_and_then_it_is_told():
    network = Network((drawn(), 0.9))
    mask, row = find(network=network)
    first, second = network.asked[0], network.asked[-1]
    assert second[0] < first[0] and second[3] > first[3]
    assert not mask.any() and (row["present"], row["reason"]) == (0, "empty mask, also in a wider box")

    wide = Network(by_question=lambda box: [(drawn(PART) if box[0] < 0.3 else drawn(), 0.9)])
    mask, row = find(network=wide)
    np.testing.assert_array_equal(mask, drawn(PART))
    assert row["doubtful"] == 1 and "wider box" in row["reason"]


def test_where_nothing_will_do_the_largest_piece_stands_in_then_the_box():
    two = drawn((60, 20, 100, 58), (60, 62, 100, 100))
    mask, row = find((two, 0.9), area=[0.02, 0.1])
    assert row["doubtful"] == 1 and "largest piece" in row["reason"] and 0 < mask.mean() <= 0.1
    mask, row = find((two, 0.9), area=[0.5, 0.9])
    assert row["doubtful"] == 1 and "box is used" in row["reason"]
    assert mask[60, 80] and not mask[0].any()
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((drawn(PART), 0.5), "predicted IoU 0.50"),
        ((drawn((60, 0, 100, 120)), 0.95), "border of the photograph"),
        ((drawn((60, 20, 100, 100), (100, 40, 140, 80)), 0.95), "outside the box"),
    ],
)
def test_what_speaks_against_a_mask_is_told(answer, reason):
    row = find(answer)[1]
    assert row["doubtful"] == 1 and reason in row["reason"]


def test_an_answer_that_changes_with_the_box_is_doubtful():
    def answer(box):
        return [(drawn(PART) if box[0] < 0.36 else drawn((60, 20, 100, 70)), 0.95)]

    row = find(network=Network(by_question=answer))[1]
    assert row["doubtful"] == 1 and "own box" in row["reason"]


def test_the_frame_may_be_the_prompt():
    network = Network((drawn(PART), 0.95))
    find(network=network, box="frame")
    assert network.asked[0] == (0.0, 0.0, 1.0, 1.0)


def test_the_mask_has_the_size_of_the_photograph():
    large = np.kron(IMAGE, np.ones((3, 3, 1), np.uint8))
    mask, _ = find((drawn(PART), 0.95), image=large)
    assert mask.shape == large.shape[:2] and mask.mean() == pytest.approx(drawn(PART).mean(), rel=0.05)
