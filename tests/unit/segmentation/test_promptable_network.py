"""Promptable networks: SAM 2.1, and SAM 1 as two ONNX files, whose prompts and proposals lie in the photograph."""

import subprocess
import sys

import numpy as np
import pytest
from defectflow.core.files import UserError
from defectflow.segmentation.promptable_network import OnnxPair, Proposals, Sam, load_network
from onnx_sam import SIDE, write_pair


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return write_pair(tmp_path_factory.mktemp("pair"))


def photograph():
    image = np.full((90, 180, 3), 30, np.uint8)
    image[20:60, 60:120] = 250
    return image


def test_a_decoder_with_one_mask_is_asked_for_both_and_they_lie_in_the_photograph(pair):
    network = load_network({"encoder": pair[0], "decoder": pair[1]})
    seen = network.look(photograph())
    found = network.propose(seen, (0.3, 0.2, 0.7, 0.7))
    assert found.logits.shape == (2, SIDE // 2, SIDE)
    np.testing.assert_allclose(found.rated, [0.85, 0.84], atol=1e-6)  # labels 2 and 3, and one more that is no point
    mask = found.logits[0] > 0
    ys, xs = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    assert ys[[0, -1]] / mask.shape[0] == pytest.approx([20 / 90, 60 / 90], abs=0.02)
    assert xs[[0, -1]] / mask.shape[1] == pytest.approx([60 / 180, 120 / 180], abs=0.02)
    with_point = network.propose(seen, (0.3, 0.2, 0.7, 0.7), (0.5, 0.5))
    np.testing.assert_allclose(with_point.rated, [0.86], atol=1e-6)


def test_what_is_no_such_pair_is_told_in_one_line(pair, tmp_path):
    (tmp_path / "text.onnx").write_text("no graph")
    other = write_pair(tmp_path / "other", without="orig_im_size")[1]
    for files, message in (
        ((tmp_path / "none.onnx", pair[1]), "none.onnx: no such file"),
        ((tmp_path / "text.onnx", pair[1]), "not an ONNX file"),
        ((pair[1], pair[1]), "not an encoder of SAM 1"),
        ((pair[0], pair[0]), "not a decoder of SAM 1"),
        ((pair[0], other), "no input 'orig_im_size'"),
    ):
        with pytest.raises(UserError, match=message) as error:
            OnnxPair(*files)
        assert "\n" not in str(error.value)


def test_a_pair_needs_no_torch(pair):
    code = (
        "import sys; from defectflow.segmentation.promptable_network import load_network as load;"
        "load({'encoder': sys.argv[1], 'decoder': sys.argv[2]}); assert 'torch' not in sys.modules"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", code, *map(str, pair)], check=True, env=environment)


def test_the_packaged_sam_gives_four_proposals_and_one_of_them_is_the_part():
    network = Sam("nano", None, "cpu")
    found = network.propose(network.look(photograph()), (0.3, 0.2, 0.7, 0.7))
    assert found.logits.shape == (4, 512, 1024) and found.rated.shape == (4,)
    true = np.zeros((512, 1024), bool)
    true[114:341, 341:683] = True
    overlap = [(true & (one > 0)).sum() / (true | (one > 0)).sum() for one in found.logits]
    assert max(overlap) > 0.8


def test_clicks_prompt_a_pair_with_an_empty_point_in_place_of_a_box_and_the_mask_so_far(pair):
    network = load_network({"encoder": pair[0], "decoder": pair[1]})
    given = []
    network.decoder = Recorded(network.decoder, given)
    seen = network.look(photograph())
    inside, outside = [(0.5, 0.5)], [(0.1, 0.25)]
    assert network.clicked(seen, inside, outside).logits.shape == (1, SIDE // 2, SIDE)
    assert given[-1]["point_labels"].tolist() == [[1, 0, -1]] and given[-1]["has_mask_input"] == 0
    np.testing.assert_allclose(given[-1]["point_coords"][0, :2], [[SIDE / 2, SIDE / 4], [SIDE / 10, SIDE / 8]])
    soft = np.zeros((9, 18))
    soft[:, 9:] = 1
    network.clicked(seen, inside, outside, soft, box=(0.2, 0.2, 0.8, 0.8))
    assert given[-1]["point_labels"].tolist() == [[2, 3, 1, 0]] and given[-1]["has_mask_input"] == 1
    low = given[-1]["mask_input"][0, 0]
    assert (low[:128, 200:] > 0).all() and (low[:, :100] < 0).all() and (low[130:] < 0).all()


class Recorded:
    def __init__(self, session, given):
        self.session, self.given = session, given

    def run(self, names, given):
        self.given.append(given)
        return self.session.run(names, given)


def test_clicks_prompt_the_packaged_sam():
    network = Sam("nano", None, "cpu")
    seen = network.look(photograph())
    plain = network.clicked(seen, [(0.5, 0.45)], [(0.1, 0.9)])
    assert plain.logits.shape == (4, 512, 1024)
    hint = np.zeros((90, 180))
    hint[20:60, 60:120] = 1
    hinted = network.clicked(seen, [(0.5, 0.45)], [(0.1, 0.9)], hint).best([(0.5, 0.45)], [(0.1, 0.9)]) > 0
    true = np.zeros((512, 1024), bool)
    true[114:341, 341:683] = True
    assert (true & hinted).sum() / (true | hinted).sum() > 0.8


def test_the_best_proposal_contradicts_no_click_if_one_does_not():
    left, right = np.full((2, 4, 8), -1.0)
    left[:, :4], right[:, 4:] = 1, 1
    found = Proposals(np.stack([left, right]), np.array([0.9, 0.3]))
    assert found.best() is not None and (found.best([(0.1, 0.5)]) == left).all()
    assert (found.best([(0.9, 0.5)]) == right).all() and (found.best([], [(0.1, 0.5)]) == right).all()
    assert (found.best([(0.1, 0.5)], [(0.1, 0.5)]) == left).all()  # both contradict one: the higher rating


def test_an_official_model_needs_its_checkpoint():
    with pytest.raises(UserError, match="needs its checkpoint"):
        Sam("sam2.1_hiera_t", None, "cpu")
